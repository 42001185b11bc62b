"""The jobs' room: queues, jobs, workers and schedules."""
