"""Jobs that come by the clock."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from baatcheet.jobs.declaration import Job
from baatcheet.jobs.schedules import Schedule, Schedules
from tests.conftest import Caller
from tests.jobs.conftest import Bench, Work, nothing

_PAST = text("UPDATE job_schedules SET next_at = clock_timestamp() - interval '3 days' WHERE name = :name")
_COUNT = text("SELECT count(*) FROM jobs WHERE kind = :kind")


async def test_it_fires_once_across_the_fleet_however_many_times_were_missed(bench: Bench) -> None:
    kind = bench.kind(nothing)
    schedule = Schedule(bench.name, "*/5 * * * *", kind, Work())
    fleet = [Schedules(bench.db, [schedule]) for _ in range(4)]
    assert await asyncio.gather(*[one.fire() for one in fleet]) == [set()] * 4
    async with bench.db.system() as session:
        await session.execute(_PAST, {"name": bench.name})
    for one in fleet:
        one._checked_at = float("-inf")
    fired = await asyncio.gather(*[one.fire() for one in fleet])
    assert sorted(map(len, fired)) == [0, 0, 0, 1]
    async with bench.db.system() as session:
        assert await session.scalar(_COUNT, {"kind": kind.name}) == 1
        next_at = await session.scalar(
            text("SELECT next_at FROM job_schedules WHERE name = :name"), {"name": bench.name}
        )
    assert datetime.now(UTC) < next_at <= datetime.now(UTC) + timedelta(minutes=5)


async def test_a_worker_runs_what_is_due(bench: Bench) -> None:
    ran = asyncio.Event()

    async def work(job: Job[Work], parts: object) -> None:
        """Nothing."""
        assert job.payload == Work(5)
        ran.set()

    kind = bench.kind(work)
    schedules = Schedules(bench.db, [Schedule(bench.name, "0 0 1 1 *", kind, Work(5))])
    await schedules.fire()
    async with bench.db.system() as session:
        await session.execute(_PAST, {"name": bench.name})
    await bench.worker(kind, schedules=[Schedule(bench.name, "0 0 1 1 *", kind, Work(5))])
    await asyncio.wait_for(ran.wait(), 10)


async def test_a_paused_schedule_waits(bench: Bench, admin: Caller, alice: Caller) -> None:
    kind = bench.kind(nothing)
    schedules = Schedules(bench.db, [Schedule(bench.name, "*/5 * * * *", kind, Work())])
    await schedules.fire()
    path = f"/api/v1/schedules/{bench.name}"
    assert (await alice.patch(path, json={"paused": True})).status_code == 403
    answer = await admin.patch(path, json={"paused": True})
    assert answer.json()["paused"] is True
    async with bench.db.system() as session:
        await session.execute(_PAST, {"name": bench.name})
    schedules._checked_at = float("-inf")
    assert await schedules.fire() == set()
    assert (await admin.patch("/api/v1/schedules/nothing", json={"paused": True})).status_code == 404
    listed = {one["name"]: one for one in (await admin.get("/api/v1/schedules")).json()["data"]}
    assert listed[bench.name]["cron"] == "*/5 * * * *"


async def test_a_changed_expression_is_taken_over(bench: Bench) -> None:
    kind = bench.kind(nothing)
    await Schedules(bench.db, [Schedule(bench.name, "0 0 1 1 *", kind, Work())]).fire()
    await Schedules(bench.db, [Schedule(bench.name, "* * * * *", kind, Work())]).fire()
    async with bench.db.system() as session:
        next_at = await session.scalar(
            text("SELECT next_at FROM job_schedules WHERE name = :name"), {"name": bench.name}
        )
    assert next_at <= datetime.now(UTC) + timedelta(minutes=1)


def test_what_is_no_cron_expression_is_refused(bench: Bench) -> None:
    with pytest.raises(ValueError, match="no cron expression"):
        Schedule("x", "every day", bench.kind(nothing), Work())
