"""The world, wrapped once: settings, database, cache, HTTP, errors, logs, embedded services."""
