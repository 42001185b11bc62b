"""Forgetting jobs that ended long ago."""

from datetime import timedelta

from sqlalchemy import text

from baatcheet.platform.database import Database

BATCH = 5_000  # rows in one transaction
BATCH_LIMIT = 60.0  # seconds

# Dead jobs are kept three times as long: they wait for somebody to look at them.
_FORGET = text("""
DELETE FROM jobs WHERE id IN (
    SELECT id FROM jobs
    WHERE ended_at < clock_timestamp() - :kept * CASE WHEN status = 'dead' THEN 3 ELSE 1 END
    LIMIT :batch
)
RETURNING id
""")


async def forget_old(db: Database, kept: timedelta) -> int:
    """Delete jobs that ended more than `kept` ago, in batches; how many. Raises DatabaseUnavailable."""
    gone = 0
    while True:
        async with db.system(limit=BATCH_LIMIT) as session:
            batch = (await session.execute(_FORGET, {"kept": kept, "batch": BATCH})).all()
        gone += len(batch)
        if len(batch) < BATCH:
            return gone
