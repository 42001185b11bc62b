"""Rows of jobs, queues, workers and schedules, for people who look at them."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, and_, delete, func, or_, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from baatcheet.jobs.models import ENDED, ENDED_BADLY, UNFINISHED, JobRow


class QueueRow(NamedTuple):
    """How a queue stands. Rates are of the last five minutes; `latency` is the median from due to begun, seconds."""

    name: str
    paused: bool
    max_running: int | None
    per_minute: int | None
    queued: int
    waiting: int
    running: int
    dead: int
    oldest: float | None  # seconds that the oldest queued job has waited
    succeeded_per_minute: float
    failed_per_minute: float
    seconds: float | None  # that half of them take
    latency: float | None


class WorkerRow(NamedTuple):
    id: UUID
    host: str
    pid: int
    queues: dict[str, int]
    running: int
    stopping: bool
    started_at: datetime
    seen_at: datetime
    alive: bool


class ScheduleRow(NamedTuple):
    name: str
    kind: str
    cron: str
    paused: bool
    next_at: datetime
    last_at: datetime | None
    last_job_id: UUID | None


def _mine(owner: UUID | None) -> list[ColumnElement[bool]]:
    """What `owner` may see: visible jobs of their own; None: every job."""
    # Not `visible IS true`: the planner does not see that the index of the visible ones serves that.
    return [] if owner is None else [and_(JobRow.user_id == owner, JobRow.visible)]


async def by_id(session: AsyncSession, owner: UUID | None, job_id: UUID) -> JobRow | None:
    query = select(JobRow).where(JobRow.id == job_id, *_mine(owner))
    return (await session.scalars(query)).one_or_none()


async def after(
    session: AsyncSession, owner: UUID | None, last: UUID | None, limit: int, filters: Mapping[str, Any]
) -> Sequence[JobRow]:
    """Newest first. `filters`: `kind`, `queue`, `status`, `subject_id`."""
    query = select(JobRow).where(*_mine(owner)).order_by(JobRow.id.desc()).limit(limit)
    for name, value in filters.items():
        query = query.where(getattr(JobRow, name) == value)
    if last is not None:
        query = query.where(JobRow.id < last)
    return (await session.scalars(query)).all()


COUNTED = (*UNFINISHED, "dead")


async def counts(session: AsyncSession, owner: UUID) -> dict[str, int]:
    """How many jobs of theirs are in each status that asks for somebody's attention."""
    query = (
        select(JobRow.status, func.count())
        .where(*_mine(owner), JobRow.status.in_(COUNTED))
        .group_by(JobRow.status)
    )
    found = dict((await session.execute(query)).tuples().all())
    return {status: found.get(status, 0) for status in COUNTED}


async def cancel(session: AsyncSession, owner: UUID | None, job_id: UUID) -> JobRow | None:
    """End a job that nobody runs; None when there is none such."""
    ended = (
        update(JobRow)
        .where(JobRow.id == job_id, *_mine(owner), JobRow.status.in_(("queued", "waiting")))
        .values(status="cancelled", error="Cancelled.", phrase=None, ended_at=func.clock_timestamp())
        .returning(JobRow)
    )
    return (await session.scalars(ended)).one_or_none()


async def ask_to_cancel(session: AsyncSession, owner: UUID | None, job_id: UUID) -> JobRow | None:
    """Ask whoever runs it to stop; None when nobody does."""
    asked = (
        update(JobRow)
        .where(JobRow.id == job_id, *_mine(owner), JobRow.status == "running")
        .values(cancel_requested=True)
        .returning(JobRow)
    )
    return (await session.scalars(asked)).one_or_none()


AGAIN = {
    "status": "queued",
    "attempts": 0,
    "worker_id": None,
    "cancel_requested": False,
    "progress": 0,
    "phrase": None,
    "started_at": None,
    "ended_at": None,
}


async def again(
    session: AsyncSession, owner: UUID | None, wanted: Sequence[ColumnElement[bool]], limit: int
) -> list[tuple[UUID, str]]:
    """Queue ended or waiting jobs once more, all their attempts before them; their ids and queues.

    One whose key an unfinished job has taken meanwhile, or that a newer one with its key came after, stays as it is.
    """
    other = JobRow.__table__.alias("other")
    same = (
        other.c.unique_key == JobRow.unique_key,
        other.c.kind == JobRow.kind,
        other.c.user_id.is_not_distinct_from(JobRow.user_id),
        other.c.id != JobRow.id,
    )
    # Of several dead jobs with one key the newest is the one to do.
    in_the_way: list[ColumnElement[bool]] = [other.c.status.in_(UNFINISHED)]
    if limit > 1:
        in_the_way.append(and_(other.c.status == "dead", other.c.id > JobRow.id))
    taken = select(other.c.id).where(*same, or_(*in_the_way))
    chosen = (
        select(JobRow.id)
        .where(*_mine(owner), JobRow.status.in_((*ENDED_BADLY, "waiting")), *wanted, ~taken.exists())
        .order_by(JobRow.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    queued = (
        update(JobRow)
        .where(JobRow.id.in_(chosen))
        .values(**AGAIN, due_at=func.clock_timestamp())
        .returning(JobRow.id, JobRow.queue)
        .execution_options(synchronize_session=False)
    )
    return [(row.id, row.queue) for row in (await session.execute(queued)).all()]


async def discard(
    session: AsyncSession, owner: UUID | None, wanted: Sequence[ColumnElement[bool]], limit: int
) -> int:
    """Forget ended jobs; how many. Of many, those that somebody else is changing are left."""
    chosen = (
        select(JobRow.id)
        .where(*_mine(owner), JobRow.status.in_(ENDED), *wanted)
        .order_by(JobRow.id)
        .limit(limit)
        .with_for_update(skip_locked=limit > 1)
        .scalar_subquery()
    )
    gone = delete(JobRow).where(JobRow.id.in_(chosen)).returning(JobRow.id)
    rows = await session.execute(gone, execution_options={"synchronize_session": False})
    return len(rows.all())


# One part for each status, so that each is counted by its own index; and `now()`, since no index serves a clock that
# goes on.
_QUEUES = text("""
WITH queued AS (
    SELECT queue, count(*) AS n, min(created_at) AS oldest FROM jobs WHERE status = 'queued' GROUP BY queue
), waiting AS (
    SELECT queue, count(*) AS n FROM jobs WHERE status = 'waiting' GROUP BY queue
), running AS (
    SELECT queue, count(*) AS n FROM jobs WHERE status = 'running' GROUP BY queue
), dead AS (
    SELECT queue, count(*) AS n FROM jobs WHERE status = 'dead' GROUP BY queue
), lately AS (
    SELECT queue, count(*) FILTER (WHERE status = 'succeeded') AS succeeded,
           count(*) FILTER (WHERE status = 'dead') AS failed,
           percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM ended_at - started_at)::float8) AS seconds,
           percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM started_at - due_at)::float8) AS latency
    FROM jobs WHERE ended_at > now() - interval '5 minutes' GROUP BY queue
), names AS (
    SELECT name FROM job_queues
    UNION SELECT jsonb_object_keys(queues) FROM job_workers
    UNION SELECT queue FROM queued UNION SELECT queue FROM waiting
    UNION SELECT queue FROM running UNION SELECT queue FROM dead
)
SELECT n.name, coalesce(q.paused, false), q.max_running, q.per_minute,
       coalesce(u.n, 0), coalesce(w.n, 0), coalesce(r.n, 0), coalesce(d.n, 0),
       extract(epoch FROM clock_timestamp() - u.oldest)::float8,
       coalesce(l.succeeded, 0) / 5.0::float8, coalesce(l.failed, 0) / 5.0::float8,
       l.seconds::float8, l.latency::float8
FROM names n
LEFT JOIN job_queues q ON q.name = n.name
LEFT JOIN queued u ON u.queue = n.name
LEFT JOIN waiting w ON w.queue = n.name
LEFT JOIN running r ON r.queue = n.name
LEFT JOIN dead d ON d.queue = n.name
LEFT JOIN lately l ON l.queue = n.name
ORDER BY n.name
""")
_CHANGE_QUEUE = text("""
INSERT INTO job_queues AS q (name, paused, max_running, per_minute)
VALUES (:name, coalesce(CAST(:paused AS boolean), false), CAST(:max_running AS integer), CAST(:per_minute AS integer))
ON CONFLICT (name) DO UPDATE SET
    paused = coalesce(CAST(:paused AS boolean), q.paused),
    max_running = CASE WHEN CAST(:set_max AS boolean) THEN excluded.max_running ELSE q.max_running END,
    per_minute = CASE WHEN CAST(:set_rate AS boolean) THEN excluded.per_minute ELSE q.per_minute END,
    allowance = CASE WHEN CAST(:set_rate AS boolean) THEN 0 ELSE q.allowance END,
    filled_at = CASE WHEN CAST(:set_rate AS boolean) THEN clock_timestamp() ELSE q.filled_at END
""")
_WORKERS = text("""
SELECT id, host, pid, queues, running, stopping, started_at, seen_at,
       seen_at > clock_timestamp() - make_interval(secs => :lease) AS alive
FROM job_workers ORDER BY started_at
""")
_SCHEDULES = text(
    "SELECT name, kind, cron, paused, next_at, last_at, last_job_id FROM job_schedules ORDER BY name"
)
_PAUSE_SCHEDULE = text("UPDATE job_schedules SET paused = :paused WHERE name = :name RETURNING name")


async def queues(session: AsyncSession) -> list[QueueRow]:
    """Every queue that somebody serves or that has unfinished or dead jobs."""
    return [QueueRow(*row) for row in (await session.execute(_QUEUES)).all()]


async def change_queue(session: AsyncSession, name: str, fields: Mapping[str, Any]) -> None:
    values = {
        "name": name,
        "paused": fields.get("paused"),
        "max_running": fields.get("max_running"),
        "per_minute": fields.get("per_minute"),
        "set_max": "max_running" in fields,
        "set_rate": "per_minute" in fields,
    }
    await session.execute(_CHANGE_QUEUE, values)


async def workers(session: AsyncSession, lease: float) -> list[WorkerRow]:
    """Those of the last minutes; `alive`: seen within `lease` seconds."""
    return [WorkerRow(*row) for row in (await session.execute(_WORKERS, {"lease": lease})).all()]


async def schedules(session: AsyncSession) -> list[ScheduleRow]:
    return [ScheduleRow(*row) for row in (await session.execute(_SCHEDULES)).all()]


async def pause_schedule(session: AsyncSession, name: str, *, paused: bool) -> bool:
    """Whether there is such a schedule."""
    return await session.scalar(_PAUSE_SCHEDULE, {"name": name, "paused": paused}) is not None
