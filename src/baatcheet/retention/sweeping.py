"""The nightly job: conversations that nobody uses go out of sight, and what was deleted long ago is forgotten."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec
from sqlalchemy import text

from baatcheet.context.recents import cache_key
from baatcheet.conversations import repository as conversations
from baatcheet.jobs.declaration import Job, job
from baatcheet.jobs.enqueueing import enqueue
from baatcheet.retention.erasing import Erasing, RetentionParts, erase_user

BATCH = 200  # conversations in one transaction …
MESSAGES = 20_000  # … with about as many messages at most, but for one that has more
BATCH_LIMIT = 600.0  # seconds
USERS = 500  # that are read at once

# By the index of a user's conversations. Answers for repetitions are kept for less than what is unused can be.
_PUT_ASIDE = text("""
WITH old AS (
    SELECT c.id FROM conversations c
    WHERE c.user_id = :user AND c.updated_at < :before AND c.deleted_at IS NULL AND NOT c.pinned
      AND NOT EXISTS (SELECT FROM turns t WHERE t.conversation_id = c.id AND t.status = 'running')
    ORDER BY c.updated_at LIMIT :batch FOR UPDATE OF c SKIP LOCKED
), aside AS (
    UPDATE conversations c SET deleted_at = clock_timestamp() FROM old WHERE c.id = old.id RETURNING c.id
), freed AS (
    UPDATE turns t SET idempotency_key = NULL, fingerprint = NULL FROM aside
    WHERE t.conversation_id = aside.id AND t.idempotency_key IS NOT NULL
)
SELECT count(*) FROM aside
""")
_OVERDUE = text("""
SELECT c.id, c.user_id, c.message_count FROM conversations c
WHERE c.deleted_at IS NOT NULL AND c.deleted_at < :before ORDER BY c.deleted_at LIMIT :batch FOR UPDATE SKIP LOCKED
""")
_PATIENCE = text("SELECT set_config('statement_timeout', :milliseconds, true)")
_USERS = text("SELECT id FROM users WHERE id > :last ORDER BY id LIMIT :most")
_UNDONE = text("SELECT id, subject FROM user_deletions WHERE status = 'pending'")


class Nothing(msgspec.Struct, frozen=True):
    """The payload of work that is always the same."""


@job("retention.sweep", queue="retention", visible=False, seconds=6 * 3600)
async def sweep(job: Job[Nothing], parts: RetentionParts) -> dict[str, int]:
    """What is too old is out of sight, or gone. Run twice, it finds nothing more."""
    now = datetime.now(UTC)
    return {
        "unused": await put_unused_aside(parts, now),
        "forgotten": await forget_deleted(parts, now),
        "erasures": await _go_on(parts),
    }


async def put_unused_aside(parts: RetentionParts, now: datetime) -> int:
    """Delete, so that they can be restored, the conversations that nobody has written in or changed; how many."""
    if parts.settings.unused_days is None:
        return 0
    before = now - timedelta(days=parts.settings.unused_days)
    aside, last = 0, UUID(int=0)
    while True:
        async with parts.db.system() as session:
            users = (await session.scalars(_USERS, {"last": last, "most": USERS})).all()
        if not users:
            return aside
        for user in users:
            batch = BATCH
            while batch == BATCH:
                async with parts.db.system(limit=BATCH_LIMIT) as session:
                    values = {"user": user, "before": before, "batch": BATCH}
                    batch = (await session.execute(_PUT_ASIDE, values)).scalar_one()
                aside += batch
        last = users[-1]


async def forget_deleted(parts: RetentionParts, now: datetime) -> int:
    """Delete for good the conversations whose time among the deleted is over; how many."""
    before = now - timedelta(days=parts.settings.deleted_days)
    forgotten = 0
    while True:
        async with parts.db.system(limit=BATCH_LIMIT) as session:
            await session.execute(_PATIENCE, {"milliseconds": str(int(BATCH_LIMIT * 1000))})
            overdue = (await session.execute(_OVERDUE, {"before": before, "batch": BATCH})).all()
            ids: list[UUID] = []
            owners: set[UUID] = set()
            messages = 0
            for id_, owner, count in overdue:
                if ids and messages + count > MESSAGES:
                    break
                ids.append(id_)
                owners.add(owner)
                messages += count
            if not ids:
                return forgotten
            await conversations.forget(session, sorted(owners), ids)
        await parts.cache.delete(*map(cache_key, ids))
        forgotten += len(ids)


async def _go_on(parts: RetentionParts) -> int:
    """See that deletions of users which have failed for good are tried again; how many are under way."""
    async with parts.db.system() as session:
        undone = (await session.execute(_UNDONE)).all()
        for id_, subject in undone:
            await enqueue(session, erase_user, Erasing(id_), owner=None, key=str(id_), lane=subject)
    return len(undone)
