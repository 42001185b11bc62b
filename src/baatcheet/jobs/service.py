"""Jobs as their owners and administrators see and steer them."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, text
from sqlalchemy.ext.asyncio import AsyncSession

from baatcheet.auth.principal import Principal
from baatcheet.jobs import repository
from baatcheet.jobs.declaration import BoundKind, DeadJob
from baatcheet.jobs.enqueueing import CANCEL_PREFIX, CHANNEL
from baatcheet.jobs.errors import JobNotFound, JobNotInState, QueueNotFound, ScheduleNotFound
from baatcheet.jobs.models import UNFINISHED, JobRow
from baatcheet.jobs.repository import QueueRow, ScheduleRow, WorkerRow
from baatcheet.jobs.running import CANCELLED, bury
from baatcheet.kit.pagination import Slice, decode, slice_of
from baatcheet.platform.database import Database, is_unavailable
from baatcheet.platform.logging import get_logger

log = get_logger(__name__)

_LIST = "jobs"
MOST_AT_ONCE = 10_000  # jobs in one call
TRIES = 5

_NOTIFY = text("SELECT pg_notify(:channel, :payload)")


class Jobs:
    """One user's jobs; with `everyone`, which takes an administrator, those of all and of nobody.

    What is not there, or not theirs, is JobNotFound. `kinds`: what is to be told of a job that is cancelled here.
    """

    def __init__(self, db: Database, kinds: Sequence[BoundKind] = ()) -> None:
        self._db = db
        self._kinds = {one.kind.name: one for one in kinds}

    async def list(
        self,
        who: Principal,
        *,
        everyone: bool = False,
        filters: Mapping[str, Any],
        limit: int,
        cursor: str | None,
    ) -> Slice[JobRow]:
        """Newest first. `filters`: `kind`, `queue`, `status`, `subject_id`. Raises BadCursor."""
        last = decode(_LIST, cursor, UUID) if cursor is not None else None
        owner = _owner(who, everyone=everyone)
        async with self._db.system() if owner is None else self._db.tenant(owner) as session:
            rows = await repository.after(session, owner, last, limit + 1, filters)
        return slice_of(_LIST, rows, limit, lambda row: row.id)

    async def get(self, who: Principal, job_id: UUID) -> JobRow:
        """A job of theirs; an administrator gets anybody's."""
        owner = _owner(who, everyone=is_admin(who))
        async with self._db.system() if owner is None else self._db.tenant(owner) as session:
            row = await repository.by_id(session, owner, job_id)
        if row is None:
            raise JobNotFound(job_id)
        return row

    async def counts(self, who: Principal) -> dict[str, int]:
        """How many of their own jobs are queued, waiting, running and dead."""
        async with self._db.tenant(who.user_id) as session:
            return await repository.counts(session, who.user_id)

    async def cancel(self, who: Principal, job_id: UUID) -> JobRow:
        """End what is queued at once, and ask what runs to stop. Raises JobNotInState when it has ended."""
        owner = _owner(who, everyone=is_admin(who))
        for _ in range(TRIES):  # it may go from one state to another between two statements
            async with self._db.system() as session:
                row = await repository.cancel(session, owner, job_id)
                if row is not None:
                    await self._bury(session, row)
                    return row
                row = await repository.ask_to_cancel(session, owner, job_id)
                if row is not None:
                    await _notify(session, f"{CANCEL_PREFIX}{job_id}")
                    return row
                row = await repository.by_id(session, owner, job_id)
            if row is None:
                raise JobNotFound(job_id)
            if row.status not in UNFINISHED:
                raise JobNotInState(f"The job is {row.status}; only what has not ended can be cancelled.")
        raise JobNotInState("The job changes too quickly to be cancelled. Try again.")

    async def retry(self, who: Principal, job_id: UUID) -> JobRow:
        """Queue a dead, cancelled or waiting job now, all its attempts before it. Raises JobNotInState."""
        owner = _owner(who, everyone=is_admin(who))
        async with self._db.system() as session:
            if await self._again(session, owner, [JobRow.id == job_id], 1):
                row = await repository.by_id(session, owner, job_id)
                assert row is not None
                return row
            row = await repository.by_id(session, owner, job_id)
        if row is None:
            raise JobNotFound(job_id)
        if row.status in {"dead", "cancelled", "waiting"}:
            raise JobNotInState("Another job does the same now. Wait for its end.")
        raise JobNotInState(
            f"The job is {row.status}; only a dead, cancelled or waiting one can be tried again."
        )

    async def redrive(self, who: Principal, *, kind: str | None, error: str | None) -> int:
        """Queue the dead jobs of everybody once more: those of `kind`, whose error contains `error`. How many.

        Raises Forbidden. At most `MOST_AT_ONCE` in one call.
        """
        who.require("admin")
        async with self._db.system() as session:
            return await self._again(session, None, _dead(kind, error), MOST_AT_ONCE)

    async def discard(self, who: Principal, job_id: UUID) -> None:
        """Forget a job that has ended. Raises JobNotInState."""
        owner = _owner(who, everyone=is_admin(who))
        async with self._db.system() as session:
            if await repository.discard(session, owner, [JobRow.id == job_id], 1):
                return
            row = await repository.by_id(session, owner, job_id)
        if row is None:
            raise JobNotFound(job_id)
        raise JobNotInState(
            f"The job is {row.status}; only one that has ended can be forgotten. Cancel it first."
        )

    async def discard_dead(self, who: Principal, *, kind: str | None, error: str | None) -> int:
        """Forget the dead jobs of `kind`, whose error contains `error`. How many. Raises Forbidden."""
        who.require("admin")
        async with self._db.system() as session:
            return await repository.discard(session, None, _dead(kind, error), MOST_AT_ONCE)

    async def newest_about(self, who: Principal, subject_id: UUID) -> JobRow | None:
        """Their newest job that concerns something."""
        async with self._db.tenant(who.user_id) as session:
            rows = await repository.after(session, who.user_id, None, 1, {"subject_id": subject_id})
        return rows[0] if rows else None

    async def _again(
        self, session: AsyncSession, owner: UUID | None, wanted: Sequence[ColumnElement[bool]], limit: int
    ) -> int:
        queued = await repository.again(session, owner, wanted, limit)
        for queue in {queue for _, queue in queued}:
            await _notify(session, queue)
        return len(queued)

    async def _bury(self, session: AsyncSession, row: JobRow) -> None:
        bound = self._kinds.get(row.kind)
        if bound is not None:
            dead = DeadJob(row.id, row.user_id, row.subject_id, CANCELLED, cancelled=True)
            try:
                async with session.begin_nested():
                    await bury(bound, dead, session)
            except Exception as error:
                if is_unavailable(error) or _may_pass(error):
                    raise  # it can be cancelled once the database is well
                log.error("job.on_dead_failed", error=error, job_id=str(row.id), kind=row.kind)


class Fleet:
    """Queues, workers and schedules, for administrators. Raises Forbidden for others."""

    def __init__(self, db: Database, *, lease: float) -> None:
        self._db = db
        self._lease = lease

    async def queues(self, who: Principal) -> list[QueueRow]:
        who.require("admin")
        async with self._db.system() as session:
            return await repository.queues(session)

    async def change_queue(self, who: Principal, name: str, fields: Mapping[str, Any]) -> QueueRow:
        """Change `paused`, `max_running`, `per_minute` of a queue. Raises QueueNotFound."""
        who.require("admin")
        async with self._db.system() as session:
            if all(queue.name != name for queue in await repository.queues(session)):
                raise QueueNotFound(name)
            await repository.change_queue(session, name, fields)
            await _notify(session, name)
            return next(queue for queue in await repository.queues(session) if queue.name == name)

    async def workers(self, who: Principal) -> list[WorkerRow]:
        who.require("admin")
        async with self._db.system() as session:
            return await repository.workers(session, self._lease)

    async def schedules(self, who: Principal) -> list[ScheduleRow]:
        who.require("admin")
        async with self._db.system() as session:
            return await repository.schedules(session)

    async def pause_schedule(self, who: Principal, name: str, *, paused: bool) -> ScheduleRow:
        """Raises ScheduleNotFound."""
        who.require("admin")
        async with self._db.system() as session:
            if not await repository.pause_schedule(session, name, paused=paused):
                raise ScheduleNotFound(name)
            return next(one for one in await repository.schedules(session) if one.name == name)


def is_admin(who: Principal) -> bool:
    """Whether `who` may see everybody's jobs."""
    return "admin" in who.scopes


def _may_pass(error: Exception) -> bool:
    """Whether the database was only busy: a conflict, a lack of resources, a lock, a statement that took too long."""
    state = getattr(getattr(error, "orig", None), "sqlstate", None) or ""
    return state[:2] in {"40", "53", "55", "57"}


def _dead(kind: str | None, error: str | None) -> list[ColumnElement[bool]]:
    """Dead jobs of `kind`, whose error contains `error`."""
    wanted: list[ColumnElement[bool]] = [JobRow.status == "dead"]
    if kind is not None:
        wanted.append(JobRow.kind == kind)
    if error is not None:
        wanted.append(JobRow.error.icontains(error, autoescape=True))
    return wanted


def _owner(who: Principal, *, everyone: bool) -> UUID | None:
    if everyone:
        who.require("admin")
        return None
    return who.user_id


async def _notify(session: AsyncSession, payload: str) -> None:
    await session.execute(_NOTIFY, {"channel": CHANNEL, "payload": payload})
