"""Forgetting jobs that ended long ago."""

from datetime import timedelta

from sqlalchemy import text

from baatcheet.platform.database import Database

BATCH = 5_000  # rows in one transaction
BATCH_LIMIT = 60.0  # seconds

# By the index of what ended, for which the moment must not change meanwhile.
_FORGET = text("""
DELETE FROM jobs WHERE id = ANY(ARRAY(
    SELECT id FROM jobs WHERE ended_at < now() - CAST(:kept AS interval) AND (status <> 'dead' OR :dead) LIMIT :batch
))
RETURNING id
""")


async def forget_old(db: Database, kept: timedelta) -> int:
    """Delete jobs that ended more than `kept` ago, in batches; how many. Raises DatabaseUnavailable.

    Dead ones are kept three times as long: they wait for somebody to look at them.
    """
    gone = 0
    for age, dead in ((3 * kept, True), (kept, False)):
        while True:
            async with db.system(limit=BATCH_LIMIT) as session:
                values = {"kept": age, "dead": dead, "batch": BATCH}
                batch = (await session.execute(_FORGET, values)).all()
            gone += len(batch)
            if len(batch) < BATCH:
                break
    return gone
