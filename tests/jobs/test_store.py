"""What a run writes counts only while it holds its job: the same worker, attempt and beginning."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import uuid4

import pytest

from baatcheet.jobs.models import JobRow
from baatcheet.jobs.store import Claimed, Ended, Failure, JobStore, Run
from baatcheet.platform.database import connect
from tests.jobs.conftest import Bench, nothing

Write = Callable[[Bench, JobStore, Run], Awaitable[Any]]


async def end(_bench: Bench, store: JobStore, run: Run) -> bool:
    return (await store.end([Ended(run.id, run.attempt, run.began, None)]))[0]


async def finish(bench: Bench, store: JobStore, run: Run) -> bool:
    async with bench.db.system() as session:
        return await store.finish(session, run, None)


async def fail(bench: Bench, store: JobStore, run: Run) -> bool:
    async with bench.db.system() as session:
        failure = Failure("It failed.", None, None)
        return await store.fail(session, run, failure, datetime.now(UTC).isoformat()) is not None


async def end_cancelled(bench: Bench, store: JobStore, run: Run) -> bool:
    async with bench.db.system() as session:
        return await store.end_cancelled(session, run)


async def progress(_bench: Bench, store: JobStore, run: Run) -> bool:
    return await store.progress(run, 50, "Half of it") is not None


async def release(_bench: Bench, store: JobStore, run: Run) -> bool:
    return await store.release(run)


def store_of(bench: Bench) -> JobStore:
    return JobStore(bench.db, partial(connect, bench.url), uuid4())


async def claimed(bench: Bench, store: JobStore) -> Claimed:
    await bench.enqueue(bench.kind(nothing))
    (one,) = await store.claim(bench.name, 1, 1)
    return one


WRITES = pytest.mark.parametrize(
    "write", [end, finish, fail, end_cancelled, progress, release], ids=lambda one: one.__name__
)


async def begun(bench: Bench, store: JobStore, write: Write) -> Run:
    """A run; where its end as cancelled is to be written, one that somebody wants cancelled."""
    run = (await claimed(bench, store)).run
    if write is end_cancelled:
        async with bench.db.hot() as connection:
            await connection.execute("UPDATE jobs SET cancel_requested = true WHERE id = $1", run.id)
    return run


@WRITES
async def test_the_run_that_holds_its_job_writes(bench: Bench, write: Write) -> None:
    store = store_of(bench)
    assert await write(bench, store, await begun(bench, store, write))


@pytest.mark.parametrize("stale", ["worker", "attempt", "beginning"])
@WRITES
async def test_a_run_that_holds_it_no_more_writes_nothing(bench: Bench, write: Write, stale: str) -> None:
    store = store_of(bench)
    run = await begun(bench, store, write)
    before = await bench.row(run.id)
    match stale:
        case "worker":
            done = await write(bench, store_of(bench), run)
        case "attempt":
            done = await write(bench, store, run._replace(attempt=run.attempt + 1))
        case _:
            done = await write(bench, store, run._replace(began=run.began - timedelta(microseconds=1)))
    after = await bench.row(run.id)
    assert not done
    for column in JobRow.__table__.columns:
        assert getattr(after, column.name) == getattr(before, column.name)
