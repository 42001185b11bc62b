"""The worker's statements."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from baatcheet.kit.text import storable_json
from baatcheet.platform.database import Database, DatabaseUnavailable, is_unavailable

BEAT_TIMEOUT = 3.0  # seconds
MOST_FAILURES = 50  # that are kept of one job, the newest


class Run(NamedTuple):
    """Which run of which job: what a worker must still hold when it writes.

    `began` tells it from one with the same number: an attempt that does not count is made again.
    """

    id: UUID
    attempt: int
    began: datetime


class Claimed(NamedTuple):
    """A job that this worker is to run."""

    id: UUID
    owner: UUID | None
    kind: str
    payload: dict[str, Any]
    attempt: int
    max_attempts: int
    failures: list[dict[str, Any]]
    subject: UUID | None
    began: datetime

    @property
    def run(self) -> Run:
        return Run(self.id, self.attempt, self.began)


class Ended(msgspec.Struct, frozen=True):
    """A run that ended with success and without a transaction of its own."""

    id: UUID
    attempt: int
    began: datetime
    result: Mapping[str, Any] | None


_CLAIM = """
SELECT id, user_id, kind, payload::text, attempts, max_attempts, failures::text, subject_id, started_at
FROM claim_jobs($1, $2, $3, $4)
"""
_END = """
UPDATE jobs j
SET status = 'succeeded', progress = 100, phrase = NULL, result = i.result, error = NULL,
    ended_at = clock_timestamp(), worker_id = NULL
FROM jsonb_to_recordset($2::text::jsonb) AS i(id uuid, attempt integer, began timestamptz, result jsonb)
WHERE j.id = i.id AND j.attempts = i.attempt AND j.started_at = i.began AND j.worker_id = $1 AND j.status = 'running'
  AND NOT j.cancel_requested
RETURNING j.id
"""
_PROGRESS = """
UPDATE jobs SET progress = $5, phrase = $6
WHERE id = $1 AND worker_id = $2 AND attempts = $3 AND started_at = $4 AND status = 'running'
RETURNING cancel_requested
"""
_RELEASE = """
UPDATE jobs SET status = 'queued', attempts = attempts - 1, worker_id = NULL, progress = 0, phrase = NULL,
    started_at = NULL
WHERE id = $1 AND worker_id = $2 AND attempts = $3 AND started_at = $4 AND status = 'running' AND NOT cancel_requested
RETURNING id
"""
_PROMOTE = """
UPDATE jobs SET status = 'queued'
WHERE id IN (
    SELECT id FROM jobs WHERE status = 'waiting' AND due_at <= now()
    ORDER BY due_at LIMIT 1000 FOR UPDATE SKIP LOCKED
)
RETURNING queue
"""
_TO_CANCEL = "SELECT id FROM jobs WHERE status = 'running' AND worker_id = $1 AND cancel_requested"
_REGISTER = """
INSERT INTO job_workers (id, host, pid, queues) VALUES ($1, $2, $3, $4::text::jsonb)
ON CONFLICT (id) DO UPDATE SET seen_at = clock_timestamp()
"""
_BEAT = "UPDATE job_workers SET seen_at = clock_timestamp(), running = $2, stopping = $3 WHERE id = $1 RETURNING id"
_LEAVE = "DELETE FROM job_workers WHERE id = $1"
# Of workers that were not seen for the lease's time, or of this one though it does not know them.
_STUCK = """
SELECT j.id, j.user_id, j.kind, j.payload::text, j.attempts, j.max_attempts, j.failures::text, j.subject_id,
       j.started_at, j.worker_id
FROM jobs j
WHERE j.status = 'running' AND (
    (j.worker_id = $1 AND j.id <> ALL($2::uuid[]) AND j.started_at < clock_timestamp() - make_interval(secs => $3))
    OR (j.worker_id IS DISTINCT FROM $1 AND NOT EXISTS (
        SELECT FROM job_workers w
        WHERE w.id = j.worker_id AND w.seen_at > clock_timestamp() - make_interval(secs => $3)
    ))
)
ORDER BY j.id LIMIT 200
"""
_FORGET_WORKERS = "DELETE FROM job_workers WHERE seen_at < clock_timestamp() - interval '10 minutes'"

_FINISH = text("""
UPDATE jobs
SET status = 'succeeded', progress = 100, phrase = NULL, result = CAST(:result AS jsonb), error = NULL,
    ended_at = clock_timestamp(), worker_id = NULL
WHERE id = :id AND worker_id = :worker AND attempts = :attempt AND started_at = :began
  AND status = 'running' AND NOT cancel_requested
RETURNING id
""")
_FAIL = text("""
UPDATE jobs
SET status = CASE WHEN cancel_requested THEN 'cancelled'
                  WHEN CAST(:wait AS double precision) IS NULL THEN 'dead' ELSE 'waiting' END,
    due_at = clock_timestamp() + make_interval(secs => coalesce(CAST(:wait AS double precision), 0)),
    attempts = attempts - CASE WHEN CAST(:counted AS boolean) OR cancel_requested THEN 0 ELSE 1 END,
    error = CASE WHEN cancel_requested THEN 'Cancelled.' ELSE CAST(:words AS text) END,
    failures = (CASE WHEN jsonb_array_length(failures) > CAST(:most AS integer) THEN failures - 0 ELSE failures END)
        || CASE WHEN cancel_requested THEN '[]'::jsonb ELSE CAST(:failure AS jsonb) END,
    worker_id = NULL, phrase = NULL,
    ended_at = CASE WHEN cancel_requested OR CAST(:wait AS double precision) IS NULL THEN clock_timestamp() END
WHERE id = :id AND worker_id = :worker AND attempts = :attempt AND started_at = :began
  AND status = 'running'
RETURNING status
""")
_END_CANCELLED = text("""
UPDATE jobs
SET status = 'cancelled', error = 'Cancelled.', worker_id = NULL, phrase = NULL, ended_at = clock_timestamp()
WHERE id = :id AND worker_id = :worker AND attempts = :attempt AND started_at = :began
  AND status = 'running' AND cancel_requested
RETURNING status
""")


class Failure(NamedTuple):
    """What is written down of a run that failed."""

    words: str  # for the owner
    detail: str | None  # for administrators
    wait: float | None  # seconds until the next attempt; None: there is none
    counted: bool = True


class JobStore:
    """Every method raises DatabaseUnavailable when the database can't be reached in time."""

    def __init__(self, db: Database, connect: Callable[[], Any], worker: UUID) -> None:
        self._db = db
        self._connect = connect  # a connection outside the pool
        self._worker = worker
        self._beacon: Any = None

    async def claim(self, queue: str, most: int, lane_most: int) -> list[Claimed]:
        async with self._db.hot() as connection:
            return [
                _claimed(row) for row in await connection.fetch(_CLAIM, self._worker, queue, most, lane_most)
            ]

    async def end(self, runs: Sequence[Ended]) -> list[bool]:
        """Which of these runs still counted, and are succeeded now."""
        async with self._db.hot() as connection:
            rows = await connection.fetch(_END, self._worker, msgspec.json.encode(runs).decode())
        ended = {row["id"] for row in rows}
        return [run.id in ended for run in runs]

    async def finish(self, session: AsyncSession, run: Run, result: Mapping[str, Any] | None) -> bool:
        """Whether this run counted, and its job is succeeded once the transaction commits."""
        values = {
            "id": run.id,
            "worker": self._worker,
            "attempt": run.attempt,
            "began": run.began,
            "result": msgspec.json.encode(kept(result)).decode() if result is not None else None,
        }
        return await session.scalar(_FINISH, values) is not None

    async def fail(
        self, session: AsyncSession, run: Run, failure: Failure, at: str, *, worker: UUID | None = None
    ) -> str | None:
        """The status that the job has once the transaction commits; None when this run counted no more."""
        entry = {"attempt": run.attempt, "at": at, "error": failure.words, "detail": failure.detail}
        values = {
            "id": run.id,
            "worker": worker or self._worker,
            "attempt": run.attempt,
            "began": run.began,
            "wait": failure.wait,
            "counted": failure.counted,
            "words": failure.words,
            "most": MOST_FAILURES,
            "failure": msgspec.json.encode([entry]).decode(),
        }
        status: str | None = await session.scalar(_FAIL, values)
        return status

    async def end_cancelled(self, session: AsyncSession, run: Run) -> bool:
        values = {"id": run.id, "worker": self._worker, "attempt": run.attempt, "began": run.began}
        return await session.scalar(_END_CANCELLED, values) is not None

    async def progress(self, run: Run, percent: int, phrase: str | None) -> bool | None:
        """Whether somebody wants the job cancelled; None when this run counts no more."""
        async with self._db.hot() as connection:
            asked: bool | None = await connection.fetchval(
                _PROGRESS, run.id, self._worker, run.attempt, run.began, percent, phrase
            )
        return asked

    async def release(self, run: Run) -> bool:
        """Hand a job back as if it had not been taken."""
        async with self._db.hot() as connection:
            released = await connection.fetchval(_RELEASE, run.id, self._worker, run.attempt, run.began)
        return released is not None

    async def promote(self) -> set[str]:
        """Queue what is due. Returns the queues that have got something."""
        async with self._db.hot() as connection:
            return {row["queue"] for row in await connection.fetch(_PROMOTE)}

    async def to_cancel(self) -> list[UUID]:
        """Jobs of this worker that somebody wants cancelled."""
        async with self._db.hot() as connection:
            return [row["id"] for row in await connection.fetch(_TO_CANCEL, self._worker)]

    async def stuck(self, known: Sequence[UUID], lease: float) -> list[tuple[Claimed, UUID | None]]:
        """Running jobs that nobody runs, with the worker that had taken them."""
        async with self._db.hot() as connection:
            rows = await connection.fetch(_STUCK, self._worker, list(known), lease)
        return [(_claimed(row), row["worker_id"]) for row in rows]

    async def register(self, *, host: str, pid: int, queues: Mapping[str, int]) -> None:
        async with self._db.hot() as connection:
            await connection.execute(_REGISTER, self._worker, host, pid, msgspec.json.encode(queues).decode())

    async def beat(self, running: int, *, stopping: bool) -> bool:
        """Renew this worker's lease, on a connection of its own. False when the worker is no longer known."""
        try:
            if self._beacon is None or self._beacon.is_closed():
                self._beacon = await self._connect()
            # Held together for a pooler; and cut off, since a transaction would answer a cancellation with a rollback.
            timer = asyncio.get_running_loop().call_later(BEAT_TIMEOUT, self._beacon.terminate)
            try:
                async with self._beacon.transaction():
                    known = await self._beacon.fetchval(_BEAT, self._worker, running, stopping)
            finally:
                timer.cancel()
        except BaseException as error:
            cut = self._beacon is not None and self._beacon.is_closed()
            if self._beacon is not None:
                self._beacon.terminate()
                self._beacon = None
            if isinstance(error, Exception) and (cut or is_unavailable(error)):
                raise DatabaseUnavailable("The worker's lease could not be renewed.") from error
            raise
        return known is not None

    async def leave(self) -> None:
        """Give the lease up."""
        async with self._db.hot() as connection:
            await connection.execute(_LEAVE, self._worker)

    async def forget_workers(self) -> None:
        async with self._db.hot() as connection:
            await connection.execute(_FORGET_WORKERS)

    def close(self) -> None:
        if self._beacon is not None:
            self._beacon.terminate()


def kept(result: Mapping[str, Any] | None) -> Any:
    """A result as PostgreSQL can store it."""
    return storable_json(msgspec.to_builtins(result))


def _claimed(row: Any) -> Claimed:
    return Claimed(
        id=row["id"],
        owner=row["user_id"],
        kind=row["kind"],
        payload=msgspec.json.decode(row["payload"]),
        attempt=row["attempts"],
        max_attempts=row["max_attempts"],
        failures=msgspec.json.decode(row["failures"]),
        subject=row["subject_id"],
        began=row["started_at"],
    )
