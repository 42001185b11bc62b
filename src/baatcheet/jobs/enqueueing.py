"""Putting a job into the queue, in the transaction of the row that it concerns."""

from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from baatcheet.jobs.declaration import JobKind, Payload
from baatcheet.kit.ids import new_id

CHANNEL = "baatcheet_jobs"  # a notice is a queue's name, or the prefix and a job's id
CANCEL_PREFIX = "cancel:"
# The lane of the system's own jobs.
NOBODY = UUID(int=0)
TRIES = 5

# One statement, and so one round trip: the job, and waking up whoever waits for one.
_ENQUEUE = text("""
WITH made AS (
    INSERT INTO jobs (id, user_id, kind, queue, lane, priority, status, visible, payload, unique_key, subject_id,
                      max_attempts, due_at)
    VALUES (:id, CAST(:owner AS uuid), :kind, CAST(:queue AS text), :lane, :priority,
            CASE WHEN CAST(:delay AS double precision) > 0 THEN 'waiting' ELSE 'queued' END,
            :visible, CAST(:payload AS jsonb), CAST(:key AS text), CAST(:subject AS uuid), :most,
            clock_timestamp() + make_interval(secs => CAST(:delay AS double precision)))
    ON CONFLICT DO NOTHING
    RETURNING id
)
SELECT made.id, CASE WHEN CAST(:delay AS double precision) <= 0 THEN pg_notify(:channel, CAST(:queue AS text)) END
FROM made
""")
_THERE = text("""
SELECT id FROM jobs
WHERE kind = :kind AND user_id IS NOT DISTINCT FROM CAST(:owner AS uuid) AND unique_key = :key
  AND status IN ('queued', 'waiting', 'running')
""")
_ENQUEUE_MANY = text("""
INSERT INTO jobs (id, user_id, kind, queue, lane, status, visible, payload, subject_id, max_attempts)
SELECT o.id, o.owner, :kind, :queue, o.lane, 'queued', :visible, o.payload, o.subject, :most
FROM jsonb_to_recordset(CAST(:orders AS jsonb)) AS o(id uuid, owner uuid, lane uuid, payload jsonb, subject uuid)
""")
_NOTIFY = text("SELECT pg_notify(:channel, :queue)")


class Queued(NamedTuple):
    """`created` is False where an unfinished job with the same key was there already."""

    id: UUID
    created: bool


class Order(NamedTuple):
    """One of many jobs of a kind: as the arguments of `enqueue`."""

    payload: object
    owner: UUID | None
    subject: UUID | None = None
    lane: UUID | None = None


async def enqueue(
    session: AsyncSession,
    kind: JobKind[Payload, Any],
    payload: Payload,
    *,
    owner: UUID | None,
    subject: UUID | None = None,
    key: str | None = None,
    lane: UUID | None = None,
    priority: int = 0,
    delay: float = 0.0,
) -> Queued:
    """Commit a job with this transaction, or not at all.

    `subject`: the row that it concerns. `key`: unique among the unfinished jobs of this kind and owner. `lane`: whom
    the queue is fair between, the owner unless given. `priority`: higher comes first. `delay`: seconds.
    """
    id_ = new_id()
    values = {
        "id": id_,
        "owner": owner,
        "kind": kind.name,
        "queue": kind.queue,
        "lane": lane or owner or NOBODY,
        "priority": priority,
        "visible": kind.visible,
        "payload": msgspec.json.encode(payload).decode(),
        "key": key,
        "subject": subject,
        "most": kind.max_attempts,
        "delay": max(0.0, delay),
        "channel": CHANNEL,
    }
    # More than once: the job that stood in the way may have ended in between.
    for _ in range(TRIES):
        if (await session.execute(_ENQUEUE, values)).one_or_none() is not None:
            return Queued(id_, created=True)
        there = {"kind": kind.name, "owner": owner, "key": key}
        found = (await session.execute(_THERE, there)).scalar_one_or_none()
        if found is not None:
            return Queued(found, created=False)
    raise RuntimeError(f"the job {kind.name} with the key {key!r} is neither there nor to be made")


async def enqueue_many(session: AsyncSession, kind: JobKind[Any, Any], orders: Sequence[Order]) -> list[UUID]:
    """Commit many jobs of one kind with this transaction, in two statements. Their ids, in order."""
    if not orders:
        return []
    ids = [new_id() for _ in orders]
    rows = [
        {
            "id": id_,
            "owner": one.owner,
            "lane": one.lane or one.owner or NOBODY,
            "payload": one.payload,
            "subject": one.subject,
        }
        for id_, one in zip(ids, orders, strict=True)
    ]
    values = {
        "kind": kind.name,
        "queue": kind.queue,
        "visible": kind.visible,
        "most": kind.max_attempts,
        "orders": msgspec.json.encode(rows).decode(),
    }
    await session.execute(_ENQUEUE_MANY, values)
    await session.execute(_NOTIFY, {"channel": CHANNEL, "queue": kind.queue})
    return ids
