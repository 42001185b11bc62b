"""A worker of the test's own, on queues of the test's own."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import UUID

import msgspec
import pytest
import pytest_asyncio

from baatcheet.jobs.declaration import Handler, Job, JobKind, OnDead, job
from baatcheet.jobs.enqueueing import Queued, enqueue
from baatcheet.jobs.models import JobRow
from baatcheet.jobs.schedules import Schedule
from baatcheet.jobs.worker import Rhythm, Worker
from baatcheet.platform.database import Database, connect
from tests.servers import past_bouncer

QUICK = Rhythm(beat=0.2, lease=1.0, reap=0.2, tick=0.05, poll=0.3)
ENDED = ("succeeded", "dead", "cancelled")


class Work(msgspec.Struct, frozen=True):
    """The payload of the tests' jobs."""

    number: int = 0


@dataclass
class Bench:
    """Declares kinds on a queue that nobody else serves, enqueues them, and runs workers for them."""

    db: Database
    url: str
    stack: AsyncExitStack
    name: str = field(default_factory=lambda: f"test.{secrets.token_hex(4)}")

    def kind(
        self, handler: Handler[Any, Any], *, name: str | None = None, **options: Any
    ) -> JobKind[Any, Any]:
        """A kind of this bench's queue, or of `queue`."""
        queue = options.pop("queue", self.name)
        return job(name or f"{queue}.work", queue=queue, **options)(handler)

    async def enqueue(
        self, kind: JobKind[Any, Any], *, owner: UUID | None = None, number: int = 0, **options: Any
    ) -> UUID:
        return (await self.queue(kind, owner=owner, number=number, **options)).id

    async def queue(
        self, kind: JobKind[Any, Any], *, owner: UUID | None = None, number: int = 0, **options: Any
    ) -> Queued:
        async with self.db.system() as session:
            return await enqueue(session, kind, Work(number), owner=owner, **options)

    async def worker(
        self,
        *kinds: JobKind[Any, Any],
        room: int = 10,
        parts: object = None,
        rhythm: Rhythm = QUICK,
        schedules: Sequence[Schedule] = (),
        queues: Sequence[str] | None = None,
    ) -> Worker:
        """A worker that runs until the test ends."""
        worker = Worker(
            self.db,
            partial(connect, past_bouncer(self.url)),
            [kind.bind(parts) for kind in kinds],
            rooms={kind.queue: room for kind in kinds},
            rhythm=rhythm,
            schedules=schedules,
            queues=queues,
        )
        await worker.start()
        self.stack.push_async_callback(worker.stop)
        return worker

    async def row(self, id_: UUID) -> JobRow:
        async with self.db.system() as session:
            row = await session.get(JobRow, id_)
        assert row is not None
        return row

    async def until(
        self, id_: UUID, condition: Callable[[JobRow], bool] | None = None, *, seconds: float = 20
    ) -> JobRow:
        """The job's row once `condition` holds: unless given, that it has ended."""
        holds = condition or (lambda row: row.status in ENDED)
        deadline = asyncio.get_running_loop().time() + seconds
        while not holds(row := await self.row(id_)):
            assert asyncio.get_running_loop().time() < deadline, (
                row.status,
                row.attempts,
                row.error,
                row.failures,
            )
            await asyncio.sleep(0.02)
        return row


async def nothing(job: Job[Work], parts: object) -> Mapping[str, Any] | None:
    """It does nothing, as often as it is run."""
    return None


@pytest_asyncio.fixture
async def bench(database: Database, services: Mapping[str, str]) -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        yield Bench(database, services["DATABASE_URL"], stack)


@pytest.fixture
def waits() -> Callable[[], Awaitable[None]]:
    """For ever."""

    async def wait() -> None:
        await asyncio.Event().wait()

    return wait


__all__ = ["ENDED", "QUICK", "Bench", "OnDead", "Work", "nothing"]
