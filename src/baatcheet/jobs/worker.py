"""A worker: takes what is queued, keeps its lease, and mends what others left.

A worker renews one row of `job_workers`. A running job whose worker has let that lapse is found by any other worker,
and its attempt counts as failed: a job that kills whoever runs it ends among the dead like any other.
"""

import asyncio
import os
import platform
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from baatcheet.jobs.declaration import BoundKind
from baatcheet.jobs.enqueueing import CANCEL_PREFIX, CHANNEL
from baatcheet.jobs.running import Observe, Runner
from baatcheet.jobs.schedules import Schedule, Schedules
from baatcheet.jobs.store import Claimed, JobStore
from baatcheet.kit.backoff import jittered
from baatcheet.kit.ids import new_id
from baatcheet.platform.database import Database, DatabaseUnavailable, is_unavailable
from baatcheet.platform.logging import get_logger

log = get_logger(__name__)

GATHER = 0.01  # seconds that a busy queue waits for more room, to take several jobs at once
MOST_CLAIMED = 100  # jobs at once
CLAIM_PATIENCE = 2.0  # seconds
LEAVE_PATIENCE = 1.0  # seconds: a lease that is not given up lapses by itself
LONGEST_PAUSE = 10.0  # seconds between two tries to listen again

WORKER_DIED = "The worker that ran it ended unexpectedly."


@dataclass(frozen=True)
class Rhythm:
    """Seconds between one round and the next. A job whose worker died is found within `lease + 3 * reap`."""

    beat: float = 5.0
    lease: float = 25.0
    reap: float = 5.0
    tick: float = 0.25
    poll: float = 1.0

    @classmethod
    def of(cls, lease: float) -> "Rhythm":
        """The rhythm for a lease of so many seconds."""
        return cls(beat=lease / 5, lease=lease, reap=lease / 5)


@dataclass
class _Queue:
    """One queue in this worker: `room` jobs at once, of one lane `lane_limit` in the whole fleet."""

    name: str
    room: int
    lane_limit: int
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    running: int = 0


class Worker:
    """Runs the jobs of `kinds` on the running loop. `rooms`: how many of each queue at once, 1 where it says nothing.

    `queues`: those that this worker serves; None: all that its kinds are in. `connect` makes a connection outside the
    pool; `listens`: whether a LISTEN on it is heard, which a transaction pooler in between would spoil.
    """

    def __init__(
        self,
        db: Database,
        connect: Callable[[], Awaitable[Any]],
        kinds: Sequence[BoundKind],
        *,
        rooms: Mapping[str, int],
        queues: Sequence[str] | None = None,
        schedules: Sequence[Schedule] = (),
        rhythm: Rhythm | None = None,
        listens: bool = True,
        observe: Observe | None = None,
    ) -> None:
        self.id = new_id()
        self._listens = listens
        self._connect = connect
        self._rhythm = rhythm or Rhythm()
        self._store = JobStore(db, connect, self.id)
        self._runner = Runner(db, self._store, kinds, observe)
        self._queues = _queues(kinds, rooms, queues)
        self._schedules = Schedules(db, schedules)
        self._tasks: list[asyncio.Task[None]] = []
        self._serving: list[asyncio.Task[None]] = []
        self._stopping = False
        self._beat_at = 0.0
        self._suspects: set[UUID] = set()

    @property
    def running(self) -> int:
        """Jobs that run here now."""
        return len(self._runner.known)

    async def start(self) -> None:
        """Begin. A database that is away is waited for in the background."""
        try:
            await self._register()
            self._beat_at = time.monotonic()
        except DatabaseUnavailable:
            log.warning("worker.registers_later", worker=str(self.id))
        rounds: list[tuple[Callable[[], Awaitable[None]], float]] = [
            (self._beat, self._rhythm.beat),
            (self._reap, self._rhythm.reap),
            (self._tick, self._rhythm.tick),
            (self._heed_cancels, self._rhythm.poll),
        ]
        self._tasks = [asyncio.create_task(self._every(pause, work)) for work, pause in rounds]
        if self._listens:
            self._tasks.append(asyncio.create_task(self._listen()))
        self._serving = [asyncio.create_task(self._serve(queue)) for queue in self._queues.values()]

    async def stop(self, grace: float = 0.0) -> None:
        """Take nothing more, give what runs `grace` seconds, and hand back the rest as if it had not been taken."""
        self._stopping = True
        for queue in self._queues.values():
            queue.wake.set()
        if self._serving:  # a claim that is under way must not take what is handed back
            await asyncio.wait(self._serving, timeout=CLAIM_PATIENCE)
        await self._runner.stop(grace)
        for task in self._tasks + self._serving:
            task.cancel()
        await asyncio.gather(*self._tasks, *self._serving, return_exceptions=True)
        try:
            async with asyncio.timeout(LEAVE_PATIENCE):
                await self._store.leave()
        except (DatabaseUnavailable, TimeoutError):
            log.warning("worker.left_without_word", worker=str(self.id))
        self._store.close()

    def hurry(self) -> None:
        """End the grace that `stop` gives."""
        self._runner.hurry()

    # Taking jobs -------------------------------------------------------------------------------------------

    async def _serve(self, queue: _Queue) -> None:
        while not self._stopping:
            queue.wake.clear()
            if await self._take(queue):
                continue
            try:
                # Woken by a notice or by an end; looking unasked finds what a lost notice was about.
                async with asyncio.timeout(self._rhythm.poll * random.uniform(0.8, 1.2)):  # noqa: S311 - spreads
                    await queue.wake.wait()
            except TimeoutError:
                continue

    async def _take(self, queue: _Queue) -> int:
        """Begin as many jobs as there are and there is room for; how many."""
        if queue.running and 0 < queue.room - queue.running < queue.room // 2:
            await asyncio.sleep(GATHER)
        room = min(queue.room - queue.running, MOST_CLAIMED)
        if room <= 0 or self._stopping:
            return 0
        try:
            claimed = await self._store.claim(queue.name, room, queue.lane_limit)
        except DatabaseUnavailable:
            return 0
        except Exception as error:  # noqa: BLE001 - one bad claim must not end the queue
            log.error("worker.claim_failed", error=error, queue=queue.name)
            return 0

        if self._stopping:
            for one in claimed:
                await self._runner.hand_back(one)
            return 0

        def ended() -> None:
            queue.running -= 1
            queue.wake.set()

        for one in claimed:
            queue.running += 1
            self._runner.begin(one, ended)
        return len(claimed)

    async def _listen(self) -> None:
        """Wake up when a job is queued, or one of ours is to be cancelled. Without it, polling finds them later."""
        pause = 0.5
        while True:
            try:
                await self._listen_once()
                pause = 0.5
            except Exception as error:  # noqa: BLE001 - it is tried again, and polled meanwhile
                if not (isinstance(error, DatabaseUnavailable) or is_unavailable(error)):
                    log.error("worker.deaf", error=error)
            await asyncio.sleep(jittered(pause))
            pause = min(LONGEST_PAUSE, pause * 2)

    async def _listen_once(self) -> None:
        """Until the connection is lost."""
        lost = asyncio.Event()
        connection = await self._connect()
        try:
            connection.add_termination_listener(lambda _connection: lost.set())
            await connection.add_listener(CHANNEL, self._hear)
            for queue in self._queues.values():
                queue.wake.set()  # what was queued while nobody listened
            await lost.wait()
        finally:
            connection.terminate()

    def _hear(self, _connection: object, _pid: int, _channel: str, payload: str) -> None:
        if payload.startswith(CANCEL_PREFIX):
            try:
                self._runner.cancel(UUID(payload.removeprefix(CANCEL_PREFIX)))
            except ValueError:
                log.warning("worker.strange_notice")
        else:
            self._wake(payload)

    def _wake(self, name: str) -> None:
        queue = self._queues.get(name)
        if queue is not None:
            queue.wake.set()

    # Rounds ------------------------------------------------------------------------------------------------

    async def _every(self, pause: float, work: Callable[[], Awaitable[None]]) -> None:
        name = getattr(work, "__name__", "?")
        away = False
        while True:
            await asyncio.sleep(jittered(pause))
            try:
                await work()
                away = False
            except DatabaseUnavailable:
                if not away:
                    log.warning("worker.waits_for_database", work=name)
                away = True
            except Exception as error:  # noqa: BLE001 - one bad round must not end the work
                log.error("worker.round_failed", error=error, work=name)

    async def _register(self) -> None:
        rooms = {queue.name: queue.room for queue in self._queues.values()}
        await self._store.register(host=platform.node(), pid=os.getpid(), queues=rooms)

    async def _beat(self) -> None:
        if not await self._store.beat(self.running, stopping=self._stopping):
            await self._register()
        now = time.monotonic()
        if now - self._beat_at > self._rhythm.lease / 2:
            self._suspects.clear()  # the database was away, for the others too: they get time to renew theirs
        self._beat_at = now

    async def _tick(self) -> None:
        if not self._stopping:
            for name in await self._store.promote() | await self._schedules.fire():
                self._wake(name)

    async def _heed_cancels(self) -> None:
        if self.running:
            for job in await self._store.to_cancel():
                self._runner.cancel(job)

    async def _reap(self) -> None:
        """Count as failed the runs whose worker is gone.

        One must be found so twice, with a renewal of our own lease between: after the database was away for a while
        every lease has lapsed, and the living renew theirs at once.
        """
        began = time.monotonic()
        if began - self._beat_at > 2 * self._rhythm.beat:
            self._suspects.clear()
            return
        stuck = await self._store.stuck(self._runner.known, self._rhythm.lease)
        if time.monotonic() - began > self._rhythm.beat:
            self._suspects.clear()
            return
        seen, self._suspects = self._suspects, {claimed.id for claimed, _ in stuck}
        for claimed, worker in stuck:
            if claimed.id in seen and claimed.id not in self._runner.known:
                log.warning("job.stuck", job_id=str(claimed.id), kind=claimed.kind, attempt=claimed.attempt)
                await self._give_up(claimed, worker)
        await self._store.forget_workers()

    async def _give_up(self, claimed: Claimed, worker: UUID | None) -> None:
        try:
            await self._runner.fail(claimed, WORKER_DIED, None, worker=worker)
        except DatabaseUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - one job that can't be given up must not keep the others
            log.error("job.not_given_up", error=error, job_id=str(claimed.id), kind=claimed.kind)


def _queues(
    kinds: Sequence[BoundKind], rooms: Mapping[str, int], served: Sequence[str] | None
) -> dict[str, _Queue]:
    queues: dict[str, _Queue] = {}
    for kind in [bound.kind for bound in kinds]:
        if served is None or kind.queue in served:
            queue = queues.setdefault(
                kind.queue, _Queue(kind.queue, rooms.get(kind.queue, 1), kind.lane_limit)
            )
            queue.lane_limit = min(queue.lane_limit, kind.lane_limit)
    return queues
