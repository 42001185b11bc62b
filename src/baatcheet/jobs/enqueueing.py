"""Putting a job into the queue, in the transaction of the row that it concerns."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
from sqlalchemy import func, insert, select, text
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession

from baatcheet.jobs.declaration import JobKind, Payload
from baatcheet.jobs.models import UNFINISHED, JobRow
from baatcheet.kit.ids import new_id

CHANNEL = "baatcheet_jobs"  # a notice is a queue's name, or the prefix and a job's id
CANCEL_PREFIX = "cancel:"
# The lane of the system's own jobs.
NOBODY = UUID(int=0)

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
    row = _row(kind, payload, owner, subject, lane, priority, key)
    if delay > 0:
        due = func.clock_timestamp() + timedelta(seconds=delay)
        row |= {"status": "waiting", "due_at": due}
    statement = upsert(JobRow).values(row).on_conflict_do_nothing().returning(JobRow.id)
    # Twice: the one that stood in the way may have ended in between.
    for _ in range(5):
        made = (await session.scalars(statement)).one_or_none()
        if made is not None:
            if delay <= 0:
                await session.execute(_NOTIFY, {"channel": CHANNEL, "queue": kind.queue})
            return Queued(made, created=True)
        there = select(JobRow.id).where(
            JobRow.kind == kind.name,
            JobRow.user_id.is_not_distinct_from(owner),
            JobRow.unique_key == key,
            JobRow.status.in_(UNFINISHED),
        )
        found = (await session.scalars(there)).one_or_none()
        if found is not None:
            return Queued(found, created=False)
    raise RuntimeError(f"the job {kind.name} with the key {key!r} is neither there nor to be made")


async def enqueue_many(session: AsyncSession, kind: JobKind[Any, Any], orders: Sequence[Order]) -> list[UUID]:
    """Commit many jobs of one kind with this transaction, in two statements. Their ids, in order."""
    if not orders:
        return []
    rows = [_row(kind, one.payload, one.owner, one.subject, one.lane, 0, None) for one in orders]
    await session.execute(insert(JobRow), rows)
    await session.execute(_NOTIFY, {"channel": CHANNEL, "queue": kind.queue})
    return [row["id"] for row in rows]


def _row(
    kind: JobKind[Any, Any],
    payload: object,
    owner: UUID | None,
    subject: UUID | None,
    lane: UUID | None,
    priority: int,
    key: str | None,
) -> dict[str, Any]:
    return {
        "id": new_id(),
        "user_id": owner,
        "kind": kind.name,
        "queue": kind.queue,
        "lane": lane or owner or NOBODY,
        "priority": priority,
        "status": "queued",
        "visible": kind.visible,
        "payload": msgspec.to_builtins(payload),
        "unique_key": key,
        "subject_id": subject,
        "max_attempts": kind.max_attempts,
    }
