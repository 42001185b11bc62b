"""Running one job: its time limit, how it ended, and writing that down for certain.

What a run writes at its end is guarded by its worker and attempt: one that was taken for dead and given to somebody
else can't end the job twice.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, Protocol, TypeVar
from uuid import UUID

import msgspec
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from baatcheet.jobs.declaration import BoundKind, DeadJob, GiveUp, Job, JobKind, LeaseLost, TryAgain
from baatcheet.jobs.store import Claimed, Ended, Failure, JobStore, kept
from baatcheet.kit.backoff import exponential, jittered, scheduled
from baatcheet.kit.batching import Abandoned, Batcher
from baatcheet.kit.text import storable
from baatcheet.platform.database import Database, DatabaseUnavailable
from baatcheet.platform.logging import get_logger

log = get_logger(__name__)

PROGRESS_EVERY = 1.0  # seconds
MOST_DETAIL = 4_000  # characters of an error for administrators
FREE_FAILURES = 10  # runs that the database itself broke off, and that don't count
UNKNOWN_PAUSES = (60.0, 300.0, 1800.0)  # seconds until a job of a kind that is unknown here is tried again
STOP_PATIENCE = 2.0  # seconds in which what was handed back is written down

OUR_FAULT = "Something went wrong on our side."
DATABASE_WAS_AWAY = "The database could not be reached."
CANCELLED = "Cancelled."

CONFLICTS = 5  # times that a transaction is begun again
CONFLICT_STATES = ("40001", "40P01")  # serialization failure, deadlock

Why = Literal["cancelled", "stopping"]
Observe = Callable[[str, str, float], None]  # a kind, how a run of it ended, and after how many seconds
Written = TypeVar("Written")
Written_co = TypeVar("Written_co", covariant=True)


@dataclass
class _Running:
    claimed: Claimed
    task: asyncio.Task[None] | None = None
    why: Why | None = None
    finished: bool = False
    ending: bool = False  # what there is to write of its end is being written: nothing breaks that off
    told_at: float = 0.0
    told: tuple[int, str | None] = (0, None)


class Write(Protocol[Written_co]):
    """Writes a job's end down, in one transaction; `burying`: with what its kind has to say of it."""

    async def __call__(self, *, burying: bool) -> Written_co: ...


class Runner:
    """The runs of one worker."""

    def __init__(
        self, db: Database, store: JobStore, kinds: Sequence[BoundKind], observe: Observe | None = None
    ) -> None:
        self._db = db
        self._store = store
        self._kinds = {one.kind.name: one for one in kinds}
        self._observe = observe or (lambda _kind, _outcome, _seconds: None)
        self._runs: dict[UUID, _Running] = {}
        self._hurried = asyncio.Event()
        self._endings: Batcher[Ended, bool] = Batcher(self._end_many, shared=(DatabaseUnavailable,))

    @property
    def known(self) -> list[UUID]:
        """The jobs that run here."""
        return list(self._runs)

    def begin(self, claimed: Claimed, ended: Callable[[], None]) -> None:
        """Run a job that was claimed; `ended` is called when all of it is over."""
        run = self._runs[claimed.id] = _Running(claimed)
        run.task = asyncio.create_task(self._run(run), name=f"{claimed.kind} {claimed.id}")

        def over(_task: asyncio.Task[None]) -> None:
            if self._runs.get(claimed.id) is run:
                del self._runs[claimed.id]
            ended()

        run.task.add_done_callback(over)

    def cancel(self, id_: UUID) -> None:
        """Break off a run because its owner wishes so, if it is here."""
        run = self._runs.get(id_)
        if run is not None:
            _break_off(run, "cancelled")

    async def stop(self, grace: float) -> None:
        """Give what runs `grace` seconds, and hand back the rest as if it had not been taken."""
        await self._wait(grace, self._hurried)
        for run in list(self._runs.values()):
            _break_off(run, "stopping")
        await self._wait(STOP_PATIENCE, asyncio.Event())
        left = [run.task for run in self._runs.values() if run.task is not None]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def hurry(self) -> None:
        """End the grace that `stop` gives."""
        self._hurried.set()

    async def _wait(self, seconds: float, hurried: asyncio.Event) -> None:
        """Until nothing runs, `seconds` are over, or somebody is in a hurry."""
        tasks = [run.task for run in self._runs.values() if run.task is not None]
        if not tasks or seconds <= 0:
            return
        ended: asyncio.Task[Any] = asyncio.create_task(asyncio.wait(tasks))
        impatient: asyncio.Task[Any] = asyncio.create_task(hurried.wait())
        await asyncio.wait([ended, impatient], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for one in (ended, impatient):
            one.cancel()
        await asyncio.gather(ended, impatient, return_exceptions=True)

    # One run -----------------------------------------------------------------------------------------------

    async def _run(self, run: _Running) -> None:
        began = time.monotonic()
        outcome = await self._outcome(run)
        self._observe(run.claimed.kind, outcome, time.monotonic() - began)

    async def _outcome(self, run: _Running) -> str:
        claimed = run.claimed
        bound = self._kinds.get(claimed.kind)
        if bound is None:
            return await self.fail(claimed, f"This worker does not know what a {claimed.kind!r} is.", None)
        try:
            payload = msgspec.convert(claimed.payload, bound.kind.payload)
        except msgspec.ValidationError as error:
            detail = f"its payload is not what it should be: {error}"
            return await self.fail(claimed, OUR_FAULT, detail, give_up=True)
        job = Job(
            claimed.id,
            claimed.owner,
            payload,
            claimed.attempt,
            claimed.attempt >= claimed.max_attempts,
            claimed.subject,
            _Line(self, run),
        )
        try:
            result = await self._handle(bound.kind, job, bound.parts)
            return "succeeded" if run.finished else await self._succeed(run, result)
        except (asyncio.CancelledError, LeaseLost):
            return await self._broken_off(run)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is written down as the run's end
            return await self._failed(run, error)

    async def _handle(self, kind: JobKind[Any, Any], job: Job[Any], parts: Any) -> Mapping[str, Any] | None:
        limit = asyncio.timeout(kind.seconds)
        try:
            async with limit:
                return await kind.handler(job, parts)
        except TimeoutError as error:
            if limit.expired():
                raise TryAgain(
                    f"It took longer than the {kind.seconds:g} seconds that it may take."
                ) from error
            raise

    async def _failed(self, run: _Running, error: Exception) -> str:
        claimed, run.ending = run.claimed, True
        if run.finished:
            log.error("job.failed_after_its_end", error=error, job_id=str(claimed.id), kind=claimed.kind)
            return "succeeded"
        match error:
            case GiveUp():
                return await self.fail(claimed, str(error), _cause(error), give_up=True)
            case TryAgain():
                return await self.fail(claimed, str(error), _cause(error), after=error.after)
            case DatabaseUnavailable():
                return await self.fail(claimed, DATABASE_WAS_AWAY, _cause(error), counted=_counts(claimed))
        log.error(
            "job.failed", error=error, job_id=str(claimed.id), kind=claimed.kind, attempt=claimed.attempt
        )
        return await self.fail(claimed, OUR_FAULT, f"{type(error).__name__}: {error}")

    async def _succeed(self, run: _Running, result: Mapping[str, Any] | None) -> str:
        run.ending = True
        ended = Ended(*run.claimed.run, kept(result))
        if await self._surely(lambda: self._endings.submit(ended)):
            run.finished = True
            return "succeeded"
        return await self._broken_off(run)

    async def _broken_off(self, run: _Running) -> str:
        """After a cancellation, or when this run was found to count no more."""
        if run.finished:
            return "succeeded"
        claimed, run.ending = run.claimed, True
        if run.why == "stopping" and await self.hand_back(claimed):
            return "handed back"

        async def write(*, burying: bool) -> bool:
            async with self._db.system() as session:
                cancelled = await self._store.end_cancelled(session, claimed.run)
                if cancelled and burying:
                    await self._bury(claimed, session, CANCELLED, cancelled=True)
            return cancelled

        if await self._written(claimed, write):
            return "cancelled"
        log.warning("job.lease_lost", job_id=str(claimed.id), kind=claimed.kind, attempt=claimed.attempt)
        return "lost"

    async def hand_back(self, claimed: Claimed) -> bool:
        """Queue a job as if it had not been taken, unless its owner wants it cancelled. Whether it is queued.

        Left to the lease when the database is not there in time.
        """
        return bool(await self._surely(lambda: self._store.release(claimed.run), patience=STOP_PATIENCE))

    async def fail(
        self,
        claimed: Claimed,
        words: str,
        detail: str | None,
        *,
        after: float | None = None,
        give_up: bool = False,
        counted: bool = True,
        worker: UUID | None = None,
    ) -> str:
        """Write a failed run down, and when the job is tried again, if it is. Returns the job's status, or "lost".

        `worker`: whose run it was, where not this one's.
        """
        if claimed.kind not in self._kinds:
            # An older worker beside newer ones, most likely: another knows it, and this one may not end it.
            after, give_up, counted = _unknown_pause(claimed, words), False, False
        wait = None if give_up else self._pause(claimed, after, counted=counted)
        shown = storable(detail)[:MOST_DETAIL] if detail is not None else None
        failure = Failure(storable(words), shown, wait, counted)
        at = datetime.now(UTC).isoformat()

        async def write(*, burying: bool) -> str | None:
            async with self._db.system() as session:
                status = await self._store.fail(session, claimed.run, failure, at, worker=worker)
                if burying and status == "dead":
                    await self._bury(claimed, session, failure.words, cancelled=False)
                elif burying and status == "cancelled":
                    await self._bury(claimed, session, CANCELLED, cancelled=True)
            return status

        status = await self._written(claimed, write)
        if status == "dead":
            log.warning("job.dead", job_id=str(claimed.id), kind=claimed.kind, reason=failure.words)
        return status or "lost"

    async def _written(self, claimed: Claimed, write: Write[Written]) -> Written | None:
        """What `write` returns: with what its kind has to say of the end, or where that can't be written, without."""
        try:
            return await self._surely(lambda: repeated(lambda: write(burying=True)))
        except Exception as error:  # noqa: BLE001 - the job's own end must be written down all the same
            log.error("job.on_dead_failed", error=error, job_id=str(claimed.id), kind=claimed.kind)
            return await self._surely(lambda: write(burying=False))

    def _pause(self, claimed: Claimed, after: float | None, *, counted: bool) -> float | None:
        """Seconds until the next attempt; None when there is none."""
        if not counted:
            return after or jittered(1.0)
        if claimed.attempt >= claimed.max_attempts:
            return None
        bound = self._kinds.get(claimed.kind)
        wait = scheduled(claimed.attempt, bound.kind.attempts, bound.kind.later) if bound else None
        if wait is None:  # it was enqueued to be tried more often than is known here
            wait = bound.kind.later[-1] if bound and bound.kind.later else exponential(claimed.attempt)
        return max(after or 0.0, jittered(wait))

    async def _bury(self, claimed: Claimed, session: AsyncSession, words: str, *, cancelled: bool) -> None:
        bound = self._kinds.get(claimed.kind)
        if bound is not None:
            dead = DeadJob(claimed.id, claimed.owner, claimed.subject, words, cancelled)
            await bury(bound, dead, session)

    async def _surely(
        self, write: Callable[[], Awaitable[Written]], *, patience: float | None = None
    ) -> Written | None:
        """What `write` returns, once the database is there; None when `patience` seconds were not enough.

        Its guard makes it safe to write again what may have been written.
        """
        until = None if patience is None else time.monotonic() + patience
        pause = 0.2
        while True:
            try:
                return await write()
            except (DatabaseUnavailable, Abandoned):
                if until is not None and time.monotonic() > until:
                    return None
            await asyncio.sleep(jittered(pause))
            pause = min(5.0, pause * 2)

    async def _end_many(self, runs: Sequence[Ended]) -> list[bool | Exception]:
        return list(await self._store.end(runs))

    # What a running job asks -------------------------------------------------------------------------------

    async def report(self, run: _Running, percent: int, phrase: str | None) -> None:
        now = time.monotonic()
        said = (percent, storable(phrase)[:200] if phrase is not None else None)
        if said == run.told or now - run.told_at < PROGRESS_EVERY:
            return
        run.told, run.told_at = said, now
        try:
            asked = await self._store.progress(run.claimed.run, *said)
        except DatabaseUnavailable:
            return  # it is told with the next progress; the work goes on
        if asked is None:
            raise LeaseLost
        if asked:
            _break_off(run, "cancelled")
            await asyncio.sleep(0)  # where the cancellation arrives

    @asynccontextmanager
    async def finishing(self, run: _Running, result: Mapping[str, Any] | None) -> AsyncIterator[AsyncSession]:
        async with self._db.system() as session:
            if not await self._store.finish(session, run.claimed.run, result):
                raise LeaseLost
            yield session
        run.finished = True


class _Line:
    """What connects a job with the run that it is."""

    def __init__(self, runner: Runner, run: _Running) -> None:
        self._runner = runner
        self._run = run

    async def report(self, percent: int, phrase: str | None) -> None:
        await self._runner.report(self._run, percent, phrase)

    def finishing(self, result: Mapping[str, Any] | None) -> AbstractAsyncContextManager[AsyncSession]:
        return self._runner.finishing(self._run, result)


async def repeated(write: Callable[[], Awaitable[Written]]) -> Written:
    """What `write` returns, done again where the server has broken it off in favour of another transaction."""
    for _ in range(CONFLICTS):
        try:
            return await write()
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) not in CONFLICT_STATES:
                raise
        await asyncio.sleep(jittered(0.1))
    return await write()


async def bury(bound: BoundKind, dead: DeadJob, session: AsyncSession) -> None:
    """Let a kind write, in the same transaction, what else there is to say of a job that ended without success."""
    if bound.kind.on_dead is not None:
        await bound.kind.on_dead(dead, session, bound.parts)


def _break_off(run: _Running, why: Why) -> None:
    if run.why is None and not run.finished and not run.ending and run.task is not None:
        run.why = why
        run.task.cancel()


def _cause(error: BaseException) -> str | None:
    cause = error.__cause__
    return f"{type(cause).__name__}: {cause}" if cause is not None else None


def _unknown_pause(claimed: Claimed, words: str) -> float:
    before = sum(one.get("error") == words for one in claimed.failures)
    return UNKNOWN_PAUSES[min(before, len(UNKNOWN_PAUSES) - 1)]


def _counts(claimed: Claimed) -> bool:
    """Whether a run that the database broke off counts: at first not, but not for ever."""
    free = [one for one in claimed.failures if one.get("error") == DATABASE_WAS_AWAY]
    return len(free) >= FREE_FAILURES
