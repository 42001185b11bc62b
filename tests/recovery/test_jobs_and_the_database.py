"""A database that is killed, freezes or comes back while jobs run: each ends once in effect, and none is stuck."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from functools import partial
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from pydantic import SecretStr
from sqlalchemy import text

from baatcheet.jobs.declaration import Job
from baatcheet.jobs.enqueueing import Order, enqueue_many
from baatcheet.jobs.worker import Rhythm, Worker
from baatcheet.platform.database import Database, DatabaseUnavailable, connect
from baatcheet.platform.settings import DatabaseSettings
from tests.jobs.conftest import Bench, Work
from tests.recovery.own_database import OwnDatabase

JOBS = 120
# Short, so that the test is; longer than the database is away, for a lease that lapses meanwhile counts an attempt.
RHYTHM = Rhythm(beat=0.5, lease=4.0, reap=0.8, tick=0.1, poll=0.3)
ATTEMPTS = 12


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnDatabase]:
    database = OwnDatabase(tmp_path_factory.mktemp("pg"))
    try:
        yield database
    finally:
        database.stop()


@pytest_asyncio.fixture
async def own_bench(own: OwnDatabase) -> AsyncIterator[Bench]:
    settings = DatabaseSettings(url=SecretStr(own.url), checkout_timeout=2)
    async with AsyncExitStack() as stack:
        db = Database(settings, pool_size=8, name="jobs")
        stack.push_async_callback(db.close)
        async with db.system() as session:
            await session.execute(text("CREATE TABLE IF NOT EXISTS effects (job_id uuid, run integer)"))
        yield Bench(db, own.url, stack)


async def effect(job: Job[Work], parts: object) -> None:
    """One row, however often this runs."""
    await asyncio.sleep(random.uniform(0, 0.2))
    await job.progress(50, "half")
    async with job.finish() as session:
        values = {"job": job.id, "run": job.attempt}
        await session.execute(text("INSERT INTO effects VALUES (:job, :run)"), values)


async def back(own: OwnDatabase) -> None:
    """Start a database that was killed again, and wait until it answers."""
    async with asyncio.timeout(30):
        while True:
            own.come_back()
            try:
                connection = await connect(own.url, timeout=2)
            except DatabaseUnavailable:
                await asyncio.sleep(0.3)
            else:
                await connection.close()
                return


async def surely(db: Database, statement: str, **values: Any) -> list[Any]:
    """The rows of a statement, once the database is there."""
    while True:
        try:
            async with db.system() as session:
                return list((await session.execute(text(statement), values)).all())
        except DatabaseUnavailable:
            await asyncio.sleep(0.2)


async def all_ended(db: Database, ids: list[UUID], seconds: float) -> None:
    left = "SELECT id, status, attempts, error FROM jobs WHERE id = ANY(:ids) AND status <> 'succeeded'"
    async with asyncio.timeout(seconds):
        while rows := await surely(db, left, ids=ids):
            assert not [row for row in rows if row.status in {"dead", "cancelled"}], rows
            await asyncio.sleep(0.2)


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_every_job_ends_once_however_often_the_database_goes_away(
    own: OwnDatabase, own_bench: Bench, how: str
) -> None:
    kind = own_bench.kind(effect, attempts=ATTEMPTS)
    async with own_bench.db.system() as session:
        ids = await enqueue_many(session, kind, [Order(Work(n), None) for n in range(JOBS)])
    for _ in range(2):
        await own_bench.worker(kind, room=6, rhythm=RHYTHM)
    for _ in range(3):
        await asyncio.sleep(0.5)
        if how == "killed":
            own.kill()
            await asyncio.sleep(0.3)
            await back(own)
        else:
            own.freeze()
            await asyncio.sleep(1.5)
            own.thaw()
    await all_ended(own_bench.db, ids, 60)
    effects = await surely(own_bench.db, "SELECT job_id FROM effects WHERE job_id = ANY(:ids)", ids=ids)
    assert sorted(row.job_id for row in effects) == sorted(ids)


async def test_a_worker_that_lost_its_database_comes_back_by_itself(
    own: OwnDatabase, own_bench: Bench
) -> None:
    kind = own_bench.kind(effect)
    await own_bench.worker(kind, rhythm=RHYTHM)
    await own_bench.until(await own_bench.enqueue(kind))
    own.kill()
    await asyncio.sleep(1)
    await back(own)
    await surely(own_bench.db, "SELECT 1")
    assert (await own_bench.until(await own_bench.enqueue(kind), seconds=10)).status == "succeeded"


async def test_a_worker_starts_while_its_database_is_away(own: OwnDatabase, own_bench: Bench) -> None:
    kind = own_bench.kind(effect)
    own.kill()
    db = Database(DatabaseSettings(url=SecretStr(own.url), checkout_timeout=1), pool_size=2, name="early")
    worker = Worker(db, partial(connect, own.url), [kind.bind(None)], rooms={}, rhythm=RHYTHM)
    await worker.start()
    try:
        await back(own)
        await surely(own_bench.db, "SELECT 1")
        assert (await own_bench.until(await own_bench.enqueue(kind), seconds=10)).status == "succeeded"
    finally:
        await worker.stop()
        await db.close()
