"""What can be wrong with a request about jobs."""

from uuid import UUID

from baatcheet.platform.errors import Conflict, NotFound


class JobNotFound(NotFound):
    """There is no such job."""

    type = "job-not-found"
    openai_code = "job_not_found"

    def __init__(self, job_id: UUID) -> None:
        super().__init__(f"There is no job {job_id}.")


class QueueNotFound(NotFound):
    """There is no such queue."""

    type = "queue-not-found"
    openai_code = "queue_not_found"

    def __init__(self, name: str) -> None:
        super().__init__(f"There is no queue {name!r}.")


class ScheduleNotFound(NotFound):
    """There is no such schedule."""

    type = "schedule-not-found"
    openai_code = "schedule_not_found"

    def __init__(self, name: str) -> None:
        super().__init__(f"There is no schedule {name!r}.")


class JobNotInState(Conflict):
    """The job is not in a state in which this can be done."""

    type = "job-not-in-state"
    openai_code = "job_not_in_state"
