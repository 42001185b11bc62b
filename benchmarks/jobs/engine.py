"""What the queue itself costs: enqueueing, being picked up, being worked off."""

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from uuid import UUID

from sqlalchemy import text

from baatcheet.jobs.declaration import Job, job
from baatcheet.jobs.enqueueing import Order, enqueue, enqueue_many
from baatcheet.jobs.worker import Worker
from baatcheet.kit.ids import new_id
from baatcheet.platform.database import Database, connect
from benchmarks.jobs.noop import QUEUE, Nothing, nothing
from benchmarks.report import Report, progress

ENQUEUED = 500.0  # a second, at least
PICKED_UP = {"p50": 10.0, "p99": 30.0}  # ms, at most
DRAINED = 500.0  # jobs a second and process, at least
PATIENCE = 120.0  # seconds

_ROW = text("INSERT INTO projects (id, user_id, name) VALUES (:id, :user, 'benchmark')")
_LEFT = text("SELECT count(*) FROM jobs WHERE queue = :queue AND status <> 'succeeded'")


class Engine:
    """One run. `jobs`: how many are drained; `readings`: how many are picked up one by one."""

    def __init__(
        self, db: Database, url: str, user: UUID, report: Report, *, jobs: int, readings: int
    ) -> None:
        self._db = db
        self._url = url
        self._user = user
        self._report = report
        self._jobs = jobs
        self._readings = readings

    async def run(self) -> None:
        await self._enqueue()
        await self._pick_up()
        one, two = [await self._drain(workers) for workers in (1, 2)]
        self._report.add("drain.ratio", two / one, "x one process", better="higher", target=1.0)

    async def _enqueue(self) -> None:
        """In a transaction that writes a row of its own, as an upload does."""
        for tasks in (1, 16):
            progress(f"enqueueing, {tasks} at once")
            left = iter(range(self._jobs // 4))
            began = time.perf_counter()
            await asyncio.gather(*[self._enqueue_each(left) for _ in range(tasks)])
            rate = (self._jobs // 4) / (time.perf_counter() - began)
            target = ENQUEUED if tasks > 1 else None
            self._report.add(f"enqueue.{tasks}_at_once", rate, "jobs/s", better="higher", target=target)
        progress("enqueueing in batches")
        began = time.perf_counter()
        for _ in range(max(1, self._jobs // 1_000)):
            async with self._db.system() as session:
                await enqueue_many(session, nothing, [Order(Nothing(), self._user) for _ in range(1_000)])
        rate = max(1, self._jobs // 1_000) * 1_000 / (time.perf_counter() - began)
        self._report.add("enqueue.batched", rate, "jobs/s", better="higher")
        await self._clear()

    async def _enqueue_each(self, left: Iterator[int]) -> None:
        for _ in left:
            async with self._db.tenant(self._user) as session:
                await session.execute(_ROW, {"id": new_id(), "user": self._user})
                await enqueue(session, nothing, Nothing(), owner=self._user)

    async def _pick_up(self) -> None:
        """From the commit that makes a job to its handler's first line, while nothing else is to be done."""
        progress("picking up")
        begun: asyncio.Queue[float] = asyncio.Queue()

        async def note(job: Job[Nothing], parts: object) -> None:
            """The time at which it began is noted."""
            begun.put_nowait(time.perf_counter())

        kind = declared(note)
        worker = Worker(
            self._db, partial(connect, self._url), [kind.bind(None)], rooms={"benchmark.idle": 10}
        )
        await worker.start()
        await asyncio.sleep(1)
        waits = []
        for _ in range(self._readings):
            async with self._db.system() as session:
                await enqueue(session, kind, Nothing(), owner=self._user)
            committed = time.perf_counter()
            waits.append((await asyncio.wait_for(begun.get(), PATIENCE) - committed) * 1000)
            await asyncio.sleep(0.02)
        await worker.stop()
        cuts = statistics.quantiles(waits, n=100)
        for name, value in (("p50", cuts[49]), ("p99", cuts[98])):
            self._report.add(f"pick_up.{name}", value, "ms", better="lower", target=PICKED_UP[name])

    async def _drain(self, workers: int) -> float:
        progress(f"draining with {workers} worker process(es)")
        for _ in range(self._jobs // 1_000):
            async with self._db.system() as session:
                await enqueue_many(session, nothing, [Order(Nothing(), self._user) for _ in range(1_000)])
        pause = text(
            "INSERT INTO job_queues (name, paused) VALUES (:q, :p) ON CONFLICT (name) DO UPDATE SET paused = :p"
        )
        async with self._db.system() as session:
            await session.execute(pause, {"q": QUEUE, "p": True})
        with processes(self._url, workers):
            async with self._db.system() as session:
                await session.execute(pause, {"q": QUEUE, "p": False})
            began = time.perf_counter()
            while await self._left():
                if time.perf_counter() - began > PATIENCE:
                    raise TimeoutError(f"{await self._left()} jobs are left after {PATIENCE} s")
                await asyncio.sleep(0.05)
            rate = self._jobs // 1_000 * 1_000 / (time.perf_counter() - began)
        self._report.add(f"drain.{workers}_processes", rate, "jobs/s", better="higher", target=DRAINED)
        await self._clear()
        return rate

    async def _left(self) -> int:
        async with self._db.system() as session:
            return int(await session.scalar(_LEFT, {"queue": QUEUE}) or 0)

    async def _clear(self) -> None:
        async with self._db.system(limit=PATIENCE) as session:
            await session.execute(text("DELETE FROM jobs"))
            await session.execute(text("DELETE FROM outbox"))


declared = job("benchmark.noted", queue="benchmark.idle", visible=False)


@contextmanager
def processes(url: str, count: int) -> Iterator[None]:
    """Worker processes that are ready, and are ended afterwards."""
    command = [sys.executable, "-m", "benchmarks.jobs.noop", url, "100"]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(count)]
    try:
        for one in running:
            assert one.stdout is not None
            if not one.stdout.readline():
                raise RuntimeError("a worker process did not start")
        yield
    finally:
        for one in running:
            one.terminate()
        for one in running:
            one.wait(30)
            assert one.stdout is not None
            one.stdout.close()
