"""Deleting everything of a user: rows, files, what the cache has, and jobs.

Every step may be broken off anywhere and is gone through again: rows are counted on the receipt in the transaction that
deletes them, and files before the first of them is deleted. The user's own row goes after every other and before the
files: from then on nothing of theirs can be written.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from baatcheet.context.recents import cache_key
from baatcheet.jobs.declaration import GiveUp, Job, job
from baatcheet.jobs.enqueueing import CANCEL_PREFIX, CHANNEL
from baatcheet.platform.blobs import Blobs
from baatcheet.platform.cache import Cache
from baatcheet.platform.database import Database
from baatcheet.platform.logging import get_logger
from baatcheet.platform.settings import RetentionSettings
from baatcheet.retention.belongings import belongings, delete_all, delete_some, shape_of
from baatcheet.retention.models import ANALYTICS, HIGHEST, UserDeletion

log = get_logger(__name__)

ROWS = 5_000  # that one transaction deletes
ROWS_LIMIT = 120.0  # seconds for these
LAST_LIMIT = 600.0  # seconds for what came meanwhile, and the user
IDS = 1_000  # conversations whose cached context is forgotten at once
SETTLING = 6.0  # seconds after the request in which a process may still take one of the user's tokens
PATIENCE = 30.0  # seconds that turns and jobs which run may take to stop
LOOK_AGAIN = 0.25

_STOP = """
WITH off AS (
    UPDATE users SET active = false WHERE id = :user AND active
), revoked AS (
    UPDATE api_tokens SET revoked_at = clock_timestamp() WHERE user_id = :user AND revoked_at IS NULL
), stopped AS (
    UPDATE turns SET cancel_requested = true WHERE user_id = :user AND status = 'running' RETURNING id
), asked AS (
    UPDATE jobs SET cancel_requested = true WHERE user_id = :user AND status = 'running' RETURNING id
), told AS (
    SELECT pg_notify(:channel, :prefix || id::text) FROM asked
)
SELECT (SELECT count(*) FROM stopped) + (SELECT count(*) FROM asked) + 0 * (SELECT count(*) FROM told)
"""
_COUNT = """
UPDATE user_deletions d SET rows = (
    SELECT coalesce(jsonb_object_agg(n.name, n.rows), '{}') FROM (
        SELECT c.name, sum(c.rows) AS rows FROM (
            SELECT key AS name, value::bigint AS rows FROM jsonb_each_text(d.rows)
            UNION ALL SELECT key, value::bigint FROM jsonb_each_text(CAST(:more AS jsonb))
        ) c GROUP BY c.name
    ) n
) WHERE d.id = :deletion
"""
# Turns that are not counted yet, while they and their messages are there.
_COUNTED = ", ".join(
    one for one in ANALYTICS if one not in HIGHEST and not one.startswith(("jobs_", "bytes_"))
)
_COUNT_TURNS = f"""
WITH due AS (
    DELETE FROM analytics_pending WHERE user_id = :user RETURNING turn_id
)
INSERT INTO analytics_fresh (user_id, date, model, {_COUNTED}, slowest_ms)
SELECT t.user_id, t.date, t.model, {_COUNTED}, t.latency_ms
FROM due JOIN analytics_of_turns t ON t.id = due.turn_id AND t.user_id = :user
"""  # noqa: S608 - the parts are constants
# What an administrator did to keys stays on record; not as whom they were known, and from where.
_ANONYMISE = "UPDATE audit_entries SET actor = 'a deleted user', address = NULL WHERE actor_id = :user"


class Erasing(msgspec.Struct, frozen=True):
    """Which deletion is to be carried out."""

    deletion: UUID


@dataclass(frozen=True)
class RetentionParts:
    """What forgetting takes. `prefixes`: below which a user's files are, in a folder called by the user's id.

    `settle`: counts what a user has used, who still waits for that.
    """

    db: Database
    blobs: Blobs
    cache: Cache
    settings: RetentionSettings
    prefixes: tuple[str, ...]
    settle: Callable[[UUID], Awaitable[None]]
    settling: float = SETTLING


@job(
    "retention.erase_user",
    queue="retention",
    visible=False,
    seconds=6 * 3600,
    attempts=6,
    later=(300.0, 3600.0, 6 * 3600.0),
)
async def erase_user(job: Job[Erasing], parts: RetentionParts) -> None:
    """Nothing of the user is left, and the receipt says what there was. Run again, it goes on where it was."""
    async with parts.db.system() as session:
        deletion = await session.get(UserDeletion, job.payload.deletion)
    if deletion is None:
        raise GiveUp("There is no such deletion.")
    await Eraser(parts, deletion).run()
    async with job.finish() as session:
        await complete(session, deletion.id)


async def complete(session: AsyncSession, deletion: UUID) -> None:
    """All of it is done."""
    done = (
        "UPDATE user_deletions SET status = 'completed', completed_at = clock_timestamp() "
        "WHERE id = :deletion AND status <> 'completed'"
    )
    await session.execute(text(done), {"deletion": deletion})


class Eraser:
    """Carries out one deletion."""

    def __init__(self, parts: RetentionParts, deletion: UserDeletion) -> None:
        self._parts = parts
        self._db = parts.db
        self._deletion = deletion.id
        self._user = deletion.subject
        self._requested = deletion.created_at

    async def run(self) -> None:
        """All steps. Raises DatabaseUnavailable, FileStoreUnavailable."""
        await self.stop()
        await self.forget_cached()
        await self.delete_rows()
        await self.delete_files()

    async def stop(self) -> None:
        """Let nothing of theirs run: not for long, since what ends later finds its rows gone."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE
        settled = loop.time() + self._parts.settling - (datetime.now(UTC) - self._requested).total_seconds()
        await self._delete_waiting_jobs()
        while True:
            values = {"user": self._user, "channel": CHANNEL, "prefix": CANCEL_PREFIX}
            async with self._db.system() as session:
                running = (await session.execute(text(_STOP), values)).scalar_one()
            now = loop.time()
            if now >= settled and (not running or now >= deadline):
                if running:
                    log.warning("retention.not_waited_for", running=running, deletion_id=str(self._deletion))
                return
            await asyncio.sleep(LOOK_AGAIN)

    async def _delete_waiting_jobs(self) -> None:
        waiting = "DELETE FROM jobs WHERE user_id = :user AND status IN ('queued', 'waiting') RETURNING id"
        async with self._db.system(limit=ROWS_LIMIT) as session:
            gone = (await session.execute(text(waiting), {"user": self._user})).all()
            await self._count(session, {"jobs": len(gone)})

    async def forget_cached(self) -> None:
        """What the cache has of their conversations. Where it is away, that ends by itself within an hour."""
        query = text(
            "SELECT id FROM conversations WHERE user_id = :user AND id > :last ORDER BY id LIMIT :most"
        )
        last = UUID(int=0)
        while True:
            async with self._db.system() as session:
                found = await session.scalars(query, {"user": self._user, "last": last, "most": IDS})
                ids = found.all()
            if not ids:
                return
            await self._parts.cache.delete(*map(cache_key, ids))
            last = ids[-1]

    async def delete_rows(self) -> None:
        """Table by table, and the user last."""
        await self._parts.settle(self._user)
        async with self._db.system(limit=ROWS_LIMIT) as session:
            await session.execute(text(_COUNT_TURNS), {"user": self._user})
            those = belongings(await shape_of(session))
        for one in those:
            rows = ROWS
            while rows == ROWS:
                async with self._db.system(limit=ROWS_LIMIT) as session:
                    rows = await delete_some(session, one, self._user, ROWS, ROWS_LIMIT)
                    await self._count(session, {one.table: rows})
        async with self._db.system(limit=LAST_LIMIT) as session:
            user = {"user": self._user}
            # Held, so that nothing that refers to them can be written any more.
            await session.execute(text("SELECT FROM users WHERE id = :user FOR UPDATE"), user)
            await session.execute(text(_COUNT_TURNS), user)
            left = await delete_all(session, those, self._user, LAST_LIMIT)
            await session.execute(text(_ANONYMISE), user)
            gone = await session.execute(text("DELETE FROM users WHERE id = :user RETURNING id"), user)
            await self._count(session, left | {"users": len(gone.all())})

    async def delete_files(self) -> None:
        """Every file of theirs."""
        async with self._db.system() as session:
            deletion = await session.get_one(UserDeletion, self._deletion)
        if deletion.files is None:
            files = size = 0
            for prefix in self._parts.prefixes:
                async for stored in self._parts.blobs.keys(f"{prefix}{self._user}/"):
                    files += 1
                    size += stored.size
            counted = "UPDATE user_deletions SET files = :files, bytes = :bytes WHERE id = :deletion"
            async with self._db.system() as session:
                values = {"files": files, "bytes": size, "deletion": self._deletion}
                await session.execute(text(counted), values)
        for prefix in self._parts.prefixes:
            async for stored in self._parts.blobs.keys(f"{prefix}{self._user}/"):
                await self._parts.blobs.delete(stored.key)
            await self._parts.blobs.drop_folder(f"{prefix}{self._user}")

    async def _count(self, session: AsyncSession, more: Mapping[str, int]) -> None:
        """Add to the receipt, in the transaction of what is counted."""
        found = {table: rows for table, rows in more.items() if rows}
        if found:
            values = {"deletion": self._deletion, "more": msgspec.json.encode(found).decode()}
            await session.execute(text(_COUNT), values)
