"""The jobs around rotations, run by a worker as it is."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import text

from baatcheet.jobs.enqueueing import enqueue
from baatcheet.jobs.models import JobRow
from baatcheet.jobs.worker import Worker
from baatcheet.keys.audit import SYSTEM
from baatcheet.keys.models import KeyRotation
from baatcheet.keys.rotation import jobs, record
from baatcheet.keys.rotation.jobs import KeeperParts, Nothing, look_after, rotate_all, rotate_keys
from baatcheet.keys.secret import SecretKey
from baatcheet.platform.database import Database, connect
from tests.jobs.conftest import QUICK
from tests.keys.rotation.conftest import Bench
from tests.servers import past_bouncer

KINDS = (rotate_keys, rotate_all, look_after)


@asynccontextmanager
async def working(bench: Bench, own_services: Mapping[str, str], parts: KeeperParts) -> AsyncIterator[None]:
    """A worker for these kinds."""
    kinds = [kind.bind(parts) for kind in KINDS]
    rooms = {kind.queue: 3 for kind in KINDS}
    worker = Worker(
        bench.db,
        partial(connect, past_bouncer(own_services["DATABASE_URL"])),
        kinds,
        rooms=rooms,
        rhythm=QUICK,
    )
    await worker.start()
    try:
        yield
    finally:
        await worker.stop()


def keeping(bench: Bench, **fields: Any) -> KeeperParts:
    return KeeperParts(bench.parts, known=lambda: [bench.provider], **fields)


async def until(db: Database, id_: UUID, *, seconds: float = 20) -> JobRow:
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        async with db.system() as session:
            row = await session.get(JobRow, id_)
        assert row is not None
        if row.status in {"succeeded", "dead", "cancelled"}:
            return row
        assert asyncio.get_running_loop().time() < deadline, (row.status, row.error, row.failures)
        await asyncio.sleep(0.02)


async def job_of(db: Database, rotation: UUID) -> UUID:
    async with db.system() as session:
        found: UUID | None = await session.scalar(
            text(
                "SELECT id FROM jobs WHERE kind = 'keys.rotate' AND subject_id = :id ORDER BY id DESC LIMIT 1"
            ),
            {"id": rotation},
        )
    assert found is not None
    return found


async def rotations(bench: Bench) -> list[KeyRotation]:
    return (await bench.keys.rotations(provider=bench.provider, limit=10)).rows


async def run_now(bench: Bench, kind: Any) -> Callable[[], Any]:
    async with bench.db.system() as session:
        queued = await enqueue(session, kind, Nothing(), owner=None)
    return partial(until, bench.db, queued.id)


async def test_a_rotation_is_a_job_that_holds_its_id_and_nothing_else(
    bench: Bench, own_services: Mapping[str, str]
) -> None:
    old = await bench.has(2)
    bench.makes()
    async with bench.db.system() as session:
        row = await jobs.begin(session, SYSTEM, bench.provider, None, "a test")
    assert row is not None
    id_ = await job_of(bench.db, row.id)
    async with working(bench, own_services, keeping(bench)):
        job = await until(bench.db, id_)
    assert (job.status, job.payload) == ("succeeded", {"rotation": str(row.id)})
    assert (await bench.row(row.id)).outcome == "rotated"
    assert not set(await bench.set_of()) & set(old)
    assert await bench.audited() == ["keys.rotation_begun", "keys.rotated"]


async def test_a_provider_that_is_away_for_a_moment_is_tried_again(
    bench: Bench, own_services: Mapping[str, str]
) -> None:
    await bench.has(1)
    bench.makes()
    bench.fake.failures = [503]
    async with bench.db.system() as session:
        row = await jobs.begin(session, SYSTEM, bench.provider, None, "a test")
    assert row is not None
    id_ = await job_of(bench.db, row.id)
    async with working(bench, own_services, keeping(bench)):
        job = await until(bench.db, id_)
    assert (job.status, job.attempts) == ("succeeded", 2)


async def test_the_monthly_job_begins_what_can_be_had_once_a_day(
    bench: Bench, own_services: Mapping[str, str]
) -> None:
    await bench.has(1)
    for makes, begun in ((False, []), (True, [bench.provider]), (True, [])):
        bench.makes(makes=makes)
        ended = await run_now(bench, rotate_all)
        async with working(bench, own_services, keeping(bench)):
            assert (await ended()).result == {"begun": begun}
            for row in await rotations(bench):
                await until(bench.db, await job_of(bench.db, row.id))
    (row,) = await rotations(bench)
    assert row.detail["reason"] == "monthly rotation"


async def test_the_monthly_job_takes_what_is_staged(bench: Bench, own_services: Mapping[str, str]) -> None:
    await bench.has(1)
    await bench.store.stage(bench.provider, [SecretKey(key) for key in bench.fake.sell(1)])
    ended = await run_now(bench, rotate_all)
    async with working(bench, own_services, keeping(bench)):
        assert (await ended()).result == {"begun": [bench.provider]}
        (row,) = await rotations(bench)
        await until(bench.db, await job_of(bench.db, row.id))
    assert (await bench.row(row.id)).outcome == "rotated"


async def test_a_provider_that_is_named_is_tried_even_if_there_is_nothing_so_that_it_is_told(
    bench: Bench, own_services: Mapping[str, str]
) -> None:
    await bench.has(1)
    ended = await run_now(bench, rotate_all)
    async with working(bench, own_services, keeping(bench, providers=[bench.provider])):
        await ended()
        (row,) = await rotations(bench)
        await until(bench.db, await job_of(bench.db, row.id))
    assert [type_ for type_, _ in await bench.told()] == ["key.rotation_failed"]


async def test_a_rotation_whose_job_is_gone_gets_another(
    bench: Bench, own_services: Mapping[str, str]
) -> None:
    await bench.has(1)
    bench.makes()
    async with bench.db.system() as session:
        row = await record.add(session, bench.provider, None, "a test")
    assert row is not None
    ended = await run_now(bench, look_after)
    async with working(bench, own_services, keeping(bench)):
        await ended()
    id_ = await job_of(bench.db, row.id)
    async with working(bench, own_services, keeping(bench)):
        assert (await until(bench.db, id_)).status == "succeeded"
    assert (await bench.row(row.id)).outcome == "rotated"


async def test_a_key_that_is_too_old_is_told_of_once(bench: Bench, own_services: Mapping[str, str]) -> None:
    first, second, third = await bench.has(3)
    async with bench.db.system() as session:
        for key, days in ((first, 91), (second, 200)):
            await session.execute(
                text(
                    "UPDATE provider_keys SET added_at = now() - make_interval(days => :days) WHERE id = :id"
                ),
                {"days": days, "id": bench.id(key)},
            )
        await session.execute(
            text("UPDATE provider_keys SET state = 'retired' WHERE id = :id"), {"id": bench.id(second)}
        )
    for _ in range(2):
        ended = await run_now(bench, look_after)
        async with working(bench, own_services, keeping(bench, max_age=timedelta(days=90))):
            assert (await ended()).status == "succeeded"
    ((type_, data),) = await bench.told()
    assert (type_, data["fingerprint"]) == ("key.aged", bench.id(first))
    assert data["reason"] == f"The key {SecretKey(first).hint} is 91 days old; 90 are allowed."
    assert third not in str(data)
