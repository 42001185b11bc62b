"""Moving what is fresh into the days, and counting the days anew.

Both are one statement, and so one transaction: killed at any moment, it was done once or not at all. One process of the
whole fleet does either at a time; who reads sees both tables in one snapshot and waits for nobody.
"""

import asyncio
from collections.abc import Callable
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from baatcheet.analytics.models import Amounts
from baatcheet.platform.database import Database

BATCH: Final = 10_000  # fresh rows of one transaction
LIMIT: Final = 28.0  # seconds of one transaction: less than a statement may take
SETTLING: Final = 120.0  # seconds for counting a user for the last time
PAUSE: Final = 0.1  # seconds before a count that met a deletion is made once more
CROWDED: Final = 1_000  # rows of what was deleted, of one user, that are worth putting together

NAMES: Final = tuple(name for name in vars(Amounts) if not name.startswith("_"))
_SUMS: Final = ", ".join(f"{'max' if one == 'slowest_ms' else 'sum'}({one}) AS {one}" for one in NAMES)
_COLUMNS: Final = ", ".join(NAMES)
_ADDED: Final = ", ".join(
    f"{one} = greatest(d.{one}, excluded.{one})"
    if one == "slowest_ms"
    else f"{one} = d.{one} + excluded.{one}"
    for one in NAMES
)
_REPLACED: Final = ", ".join(f"{one} = excluded.{one}" for one in NAMES)

_OF_JOBS: Final = ("jobs_succeeded", "jobs_failed", "jobs_cancelled")
_OF_FILES: Final = ("bytes_added", "bytes_removed")


def _only(*names: str, **others: str) -> str:
    """Of each amount what a row has of it: nothing but `names`, and `others` from other columns."""
    return ", ".join(one if one in names else f"{others.get(one, '0')} AS {one}" for one in NAMES)


# What a row of `analytics_of_turns` is of each.
OF_TURNS: Final = _only(
    *(one for one in NAMES if one not in {"slowest_ms", *_OF_JOBS, *_OF_FILES}), slowest_ms="latency_ms"
)

_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('baatcheet analytics', 0))")
_TRY_LOCK = text("SELECT pg_try_advisory_xact_lock(hashtextextended('baatcheet analytics', 0))")

# A user, or a turn, whose deletion is under way is left alone: waiting for it, this would hold rows that it waits for.
# What is left of one who is gone is nobody's.
_ROLL_UP = text(f"""
WITH batch AS MATERIALIZED (
    SELECT f.id, f.user_id FROM analytics_fresh f ORDER BY f.id LIMIT :batch
), ended AS MATERIALIZED (
    SELECT p.user_id, p.turn_id FROM analytics_pending p LIMIT :batch FOR UPDATE SKIP LOCKED
), held AS MATERIALIZED (
    SELECT u.id FROM users u
    WHERE u.id IN (SELECT b.user_id FROM batch b UNION SELECT e.user_id FROM ended e)
    ORDER BY u.id FOR KEY SHARE SKIP LOCKED
), turned AS (
    DELETE FROM analytics_pending p USING ended e
    WHERE p.user_id = e.user_id AND p.turn_id = e.turn_id
      AND (e.user_id IN (SELECT h.id FROM held h) OR NOT EXISTS (SELECT FROM users u WHERE u.id = e.user_id))
    RETURNING p.turn_id
), taken AS (
    DELETE FROM analytics_fresh f USING batch b
    WHERE f.id = b.id
      AND (b.user_id IN (SELECT h.id FROM held h) OR NOT EXISTS (SELECT FROM users u WHERE u.id = b.user_id))
    RETURNING f.*
), added AS (
    INSERT INTO analytics_daily AS d (user_id, date, model, {_COLUMNS})
    SELECT t.user_id, t.date, t.model, {_SUMS} FROM (
        SELECT f.user_id, f.date, f.model, {_COLUMNS} FROM taken f
        UNION ALL
        SELECT u.user_id, u.date, u.model, {OF_TURNS} FROM turned d JOIN analytics_of_turns u ON u.id = d.turn_id
    ) t WHERE t.user_id IN (SELECT h.id FROM held h)
    GROUP BY t.user_id, t.date, t.model ORDER BY t.user_id, t.date, t.model
    ON CONFLICT (user_id, model, date) DO UPDATE SET {_ADDED}
)
SELECT greatest((SELECT count(*) FROM taken), (SELECT count(*) FROM turned))
""")  # noqa: S608 - the parts are constants

# What the rows of one user come to, those that were deleted with them.
_BASE: Final = f"""
SELECT date, model, {OF_TURNS} FROM analytics_of_turns WHERE user_id = :user
UNION ALL
SELECT date, model, {_only("messages")} FROM analytics_of_messages WHERE user_id = :user
UNION ALL
SELECT date, '', {_only(*_OF_JOBS)} FROM analytics_of_jobs WHERE user_id = :user
UNION ALL
SELECT date, '', {_only(*_OF_FILES)} FROM analytics_of_files WHERE user_id = :user
UNION ALL
SELECT date, model, {_COLUMNS} FROM analytics_kept WHERE user_id = :user
"""  # noqa: S608 - the parts are constants

# One snapshot: a row that changes meanwhile is in neither what is counted nor what is thrown away. But for a pending
# turn whose conversation is being deleted: it is counted here, and made fresh there; `missed` tells of that.
_REBUILD = text(f"""
WITH counted AS MATERIALIZED (
    SELECT b.date, b.model, {_SUMS} FROM ({_BASE}) b GROUP BY b.date, b.model
), thrown AS (
    DELETE FROM analytics_fresh f WHERE f.user_id = :user
), held AS MATERIALIZED (
    SELECT p.turn_id FROM analytics_pending p WHERE p.user_id = :user FOR UPDATE SKIP LOCKED
), turned AS (
    DELETE FROM analytics_pending p USING held h WHERE p.user_id = :user AND p.turn_id = h.turn_id
    RETURNING p.turn_id
), stale AS (
    DELETE FROM analytics_daily d WHERE d.user_id = :user
      AND NOT EXISTS (SELECT FROM counted c WHERE c.date = d.date AND c.model = d.model)
), done AS (
    DELETE FROM analytics_backlog b WHERE b.user_id = :user
), written AS (
    INSERT INTO analytics_daily AS d (user_id, date, model, {_COLUMNS})
    SELECT :user, c.date, c.model, {", ".join(f"c.{one}" for one in NAMES)} FROM counted c ORDER BY c.date, c.model
    ON CONFLICT (user_id, model, date) DO UPDATE SET {_REPLACED}
)
SELECT (SELECT count(*) FROM analytics_pending p WHERE p.user_id = :user) - (SELECT count(*) FROM turned) AS missed
""")  # noqa: S608 - the parts are constants
# Of a user whose deletion was asked for, some rows may be gone already.
_HOLD = text("""
SELECT u.id FROM users u
WHERE u.id = :user AND NOT EXISTS (SELECT FROM user_deletions d WHERE d.subject = u.id) FOR KEY SHARE SKIP LOCKED
""")
_WAITS = text("SELECT user_id FROM analytics_backlog WHERE user_id = :user")

_WAITING = text("SELECT user_id FROM analytics_backlog WHERE user_id > :after ORDER BY user_id LIMIT 1")
_WANTED = """
INSERT INTO analytics_backlog
SELECT u.id FROM users u WHERE NOT EXISTS (SELECT FROM user_deletions d WHERE d.subject = u.id) {whose}
ON CONFLICT DO NOTHING
"""
_EVERYBODY = text(_WANTED.format(whose=""))
_THIS_ONE = text(_WANTED.format(whose="AND u.id = :user"))

_HOLD_DAYS = text("LOCK TABLE analytics_daily IN SHARE MODE")
_FORGET_SUMS = text("DELETE FROM analytics_everybody")
_ADD_UP = text(f"""
INSERT INTO analytics_everybody (date, model, {_COLUMNS})
SELECT date, model, {_SUMS} FROM analytics_daily GROUP BY date, model ORDER BY date, model
""")  # noqa: S608 - the parts are constants

_CROWDED = text("""
SELECT user_id FROM analytics_kept GROUP BY user_id HAVING count(*) > :crowded ORDER BY user_id
""")
_COMPACT = text(f"""
WITH taken AS (DELETE FROM analytics_kept k WHERE k.user_id = :user RETURNING k.*)
INSERT INTO analytics_kept (user_id, date, model, {_COLUMNS})
SELECT t.user_id, t.date, t.model, {_SUMS} FROM taken t GROUP BY t.user_id, t.date, t.model
""")  # noqa: S608 - the parts are constants


class _Missed(Exception):
    """A conversation was being deleted meanwhile: nothing may be kept of this count."""


async def _count(session: AsyncSession, user_id: UUID) -> None:
    """Raises _Missed."""
    if await session.scalar(_REBUILD, {"user": user_id}):
        raise _Missed


class RollUp:
    """What a worker does now and then. Every method raises DatabaseUnavailable; nothing is lost by that."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def roll_up(self) -> int:
        """Move what is fresh into the days; how many rows. 0 when another process is at it."""
        moved = 0
        while True:
            async with self._db.system(limit=LIMIT) as session:
                if not await session.scalar(_TRY_LOCK):
                    return moved
                batch: int = (await session.execute(_ROLL_UP, {"batch": BATCH})).scalar_one()
            moved += batch
            if batch < BATCH:
                return moved

    async def rebuild(self, user_id: UUID) -> bool:
        """Count one user's days anew from what there is. False: there is no such user, or they are being deleted."""
        while True:
            try:
                return await self._count_anew(user_id)
            except _Missed:
                await asyncio.sleep(PAUSE)

    async def _count_anew(self, user_id: UUID) -> bool:
        async with self._db.system(limit=LIMIT) as session:
            await session.execute(_LOCK)
            if await session.scalar(_HOLD, {"user": user_id}) is None:
                return False
            await _count(session, user_id)
        return True

    async def settle(self, user_id: UUID) -> None:
        """Count a user who is being deleted, if they still wait for it; before the first of their rows goes."""
        while True:
            try:
                async with self._db.system(limit=SETTLING) as session:
                    await self._db.allow(session, SETTLING)
                    await session.execute(_LOCK)
                    if await session.scalar(_WAITS, {"user": user_id}) is not None:
                        await _count(session, user_id)
                    return
            except _Missed:
                await asyncio.sleep(PAUSE)

    async def want_rebuilt(self, user_id: UUID | None = None) -> None:
        """Have a user, or with None everybody, counted anew by `catch_up`, whichever process calls it."""
        async with self._db.system(limit=LIMIT) as session:
            if user_id is None:
                await session.execute(_EVERYBODY)
            else:
                await session.execute(_THIS_ONE, {"user": user_id})

    async def catch_up(self, told: Callable[[int], None] = lambda _done: None) -> int:
        """Count anew whoever waits for it; how many. `told` is called after each."""
        done, after = 0, UUID(int=0)
        while True:
            async with self._db.system() as session:
                user_id: UUID | None = await session.scalar(_WAITING, {"after": after})
            if user_id is None:
                return done
            after = user_id
            if await self.rebuild(user_id):
                done += 1
                told(done)

    async def add_up(self) -> None:
        """Make everybody's days anew from those of each."""
        async with self._db.system(limit=LIMIT) as session:
            await session.execute(_LOCK)
            for step in (_HOLD_DAYS, _FORGET_SUMS, _ADD_UP):
                await session.execute(step)

    async def compact(self) -> int:
        """Put together what is kept of deleted rows, of users with many; of how many users."""
        async with self._db.system(limit=LIMIT) as session:
            crowded = (await session.scalars(_CROWDED, {"crowded": CROWDED})).all()
        for user_id in crowded:
            async with self._db.system(limit=LIMIT) as session:
                await session.execute(_LOCK)
                if await session.scalar(_HOLD, {"user": user_id}) is not None:
                    await session.execute(_COMPACT, {"user": user_id})
        return len(crowded)
