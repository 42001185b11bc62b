"""How much is to be done, for `/metrics`."""

import asyncio
from collections.abc import Callable

from sqlalchemy import text

from baatcheet.kit.backoff import jittered
from baatcheet.platform.database import Database, DatabaseUnavailable

EVERY = 10.0  # seconds

# One part for each status, so that each is answered by its own small index.
_DEPTH = text("""
SELECT queue, 'queued', count(*), coalesce(extract(epoch FROM clock_timestamp() - min(due_at)), 0)::float8
FROM jobs WHERE status = 'queued' GROUP BY queue
UNION ALL SELECT queue, 'waiting', count(*), 0 FROM jobs WHERE status = 'waiting' GROUP BY queue
UNION ALL SELECT queue, 'running', count(*), 0 FROM jobs WHERE status = 'running' GROUP BY queue
""")

Tell = Callable[[dict[tuple[str, str], int], dict[str, float]], None]
"""Takes the jobs by queue and status, and by queue the seconds that its oldest queued job has waited."""


async def measure(db: Database) -> tuple[dict[tuple[str, str], int], dict[str, float]]:
    """As `Tell` takes it. Raises DatabaseUnavailable."""
    async with db.system() as session:
        rows = (await session.execute(_DEPTH)).all()
    counts = {(queue, status): count for queue, status, count, _ in rows}
    return counts, {queue: max(0.0, age) for queue, status, _, age in rows if status == "queued"}


async def keep_measured(db: Database, tell: Tell) -> None:
    """Measure every ten seconds, until cancelled."""
    while True:
        try:
            tell(*await measure(db))
        except DatabaseUnavailable:
            tell({}, {})  # rather nothing than what was true a while ago
        await asyncio.sleep(jittered(EVERY))
