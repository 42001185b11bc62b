"""Forgetting events that are old."""

from datetime import timedelta

from baatcheet.platform.database import Database

BATCH = 5_000
LIMIT = 60.0  # seconds for one batch

# Up to where everything is old: an event's time is when it happened, and its number when it was relayed.
_UPTO = """
SELECT coalesce(
    (SELECT min(seq) - 1 FROM events WHERE created_at >= clock_timestamp() - $1::interval),
    (SELECT max(seq) FROM events), 0)
"""
# What a subscriber has still to take stays.
_FORGET = """
WITH gone AS (
    DELETE FROM events WHERE seq = ANY(ARRAY(
        SELECT seq FROM events WHERE seq <= $1 AND poisoned IS NULL ORDER BY seq LIMIT $2
    )) RETURNING seq
), moved AS (
    UPDATE event_horizon SET seq = greatest(seq, (SELECT max(seq) FROM gone)) WHERE EXISTS (SELECT FROM gone)
)
SELECT count(*) FROM gone
"""


async def forget_old(db: Database, keep: timedelta) -> int:
    """Forget the events of before `keep` ago, in batches that hold nobody up. Returns how many.

    Doing it twice, or in two processes at once, forgets nothing more. Raises DatabaseUnavailable.
    """
    forgotten = 0
    async with db.hot(limit=LIMIT) as connection:
        upto = await connection.fetchval(_UPTO, keep)
    while True:
        async with db.hot(limit=LIMIT) as connection:
            gone = int(await connection.fetchval(_FORGET, upto, BATCH))
        forgotten += gone
        if gone < BATCH:
            return forgotten
