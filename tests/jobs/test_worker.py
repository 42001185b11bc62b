"""What happens to a job, from being queued to its end."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from baatcheet.jobs.declaration import DeadJob, GiveUp, Job, TryAgain
from baatcheet.jobs.enqueueing import Order, enqueue, enqueue_many
from baatcheet.jobs.models import JobRow
from baatcheet.jobs.store import JobStore
from baatcheet.jobs.worker import WORKER_DIED, Worker
from tests.conftest import Caller
from tests.jobs.conftest import QUICK, Bench, Work, nothing


class Stop(Exception):
    """What a transaction is broken off with."""


async def test_a_job_runs_once_and_its_result_is_kept(bench: Bench) -> None:
    async def double(job: Job[Work], parts: object) -> Mapping[str, Any]:
        """The number, doubled."""
        return {"double": job.payload.number * 2}

    kind = bench.kind(double)
    await bench.worker(kind)
    row = await bench.until(await bench.enqueue(kind, number=21))
    assert (row.status, row.result, row.attempts, row.progress, row.error) == (
        "succeeded",
        {"double": 42},
        1,
        100,
        None,
    )


async def test_a_job_is_enqueued_with_the_transaction_or_not_at_all(bench: Bench) -> None:
    kind = bench.kind(nothing)
    made: list[UUID] = []

    async def break_off() -> None:
        async with bench.db.system() as session:
            made.append((await enqueue(session, kind, Work(), owner=None)).id)
            raise Stop

    with pytest.raises(Stop):
        await break_off()
    async with bench.db.system() as session:
        assert await session.scalar(text("SELECT count(*) FROM jobs WHERE id = :id"), {"id": made[0]}) == 0


async def test_its_effect_and_its_end_are_one_transaction(bench: Bench) -> None:
    ran: list[int] = []

    async def write(job: Job[Work], parts: object) -> None:
        """A row that is there once, however often this runs."""
        ran.append(job.attempt)
        async with job.finish({"written": True}) as session:
            await session.execute(
                text("INSERT INTO outbox (type, data) VALUES (:t, '{}')"), {"t": f"test.{job.id}"}
            )
            if job.attempt == 1:
                raise TryAgain("Not yet.")

    kind = bench.kind(write)
    await bench.worker(kind)
    id_ = await bench.enqueue(kind)
    row = await bench.until(id_)
    assert (row.status, row.result, ran) == ("succeeded", {"written": True}, [1, 2])
    async with bench.db.system() as session:
        told = text(
            "SELECT (SELECT count(*) FROM outbox WHERE type = :t) + (SELECT count(*) FROM events WHERE type = :t)"
        )
        assert await session.scalar(told, {"t": f"test.{id_}"}) == 1


async def test_three_attempts_at_zero_two_and_six_seconds_and_then_it_is_dead(bench: Bench) -> None:
    at: list[float] = []
    buried: list[DeadJob] = []

    async def fail(job: Job[Work], parts: object) -> None:
        """Nothing."""
        at.append(asyncio.get_running_loop().time())
        raise TryAgain(f"Attempt {job.attempt} failed.")

    async def bury(dead: DeadJob, session: object, parts: object) -> None:
        buried.append(dead)

    kind = bench.kind(fail, on_dead=bury)
    await bench.worker(kind)
    id_ = await bench.enqueue(kind)
    row = await bench.until(id_)
    assert row.status == "dead"
    assert row.error == "Attempt 3 failed."
    assert [one["error"] for one in row.failures] == [f"Attempt {n} failed." for n in (1, 2, 3)]
    first, second = at[1] - at[0], at[2] - at[1]
    # The jitter is a tenth; what is due is looked for every fraction of a second, and this machine is shared.
    assert 1.8 <= first <= 3.5
    assert 3.6 <= second <= 6.0
    assert [(dead.id, dead.error, dead.cancelled) for dead in buried] == [(id_, "Attempt 3 failed.", False)]


async def test_what_can_not_succeed_is_not_tried_again(bench: Bench) -> None:
    async def refuse(job: Job[Work], parts: object) -> None:
        """Nothing."""
        raise GiveUp("The image can't be read: it is empty.")

    kind = bench.kind(refuse)
    await bench.worker(kind)
    row = await bench.until(await bench.enqueue(kind))
    assert (row.status, row.attempts, row.error) == ("dead", 1, "The image can't be read: it is empty.")


async def test_an_error_of_ours_is_told_to_administrators_only(
    bench: Bench, alice: Caller, admin: Caller
) -> None:
    async def break_down(job: Job[Work], parts: object) -> None:
        """Nothing."""
        raise ValueError("the wheel fell off \x00")

    kind = bench.kind(break_down, attempts=1)
    await bench.worker(kind)
    row = await bench.until(await bench.enqueue(kind, owner=alice.user_id))
    assert row.status == "dead"
    assert row.error == "Something went wrong on our side."
    assert row.failures[0]["detail"] == "ValueError: the wheel fell off �"


async def test_later_attempts_follow_the_declared_pauses(bench: Bench) -> None:
    async def fail(job: Job[Work], parts: object) -> None:
        """Nothing."""
        raise TryAgain("No.")

    kind = bench.kind(fail, attempts=1, later=(0.1, 600.0))
    await bench.worker(kind)
    id_ = await bench.enqueue(kind)
    row = await bench.until(id_, lambda row: row.status == "waiting" and row.attempts == 2)
    assert row.max_attempts == 3
    assert 500 < (row.due_at - row.created_at).total_seconds() < 700


async def test_one_who_refuses_may_say_when_to_come_back(bench: Bench) -> None:
    async def fail(job: Job[Work], parts: object) -> None:
        """Nothing."""
        raise TryAgain("Busy.", after=120)

    kind = bench.kind(fail)
    await bench.worker(kind)
    row = await bench.until(await bench.enqueue(kind), lambda row: row.status == "waiting")
    assert 110 < (row.due_at - row.created_at).total_seconds() < 140


async def test_a_job_that_takes_too_long_is_broken_off_and_counts(bench: Bench) -> None:
    async def hang(job: Job[Work], parts: object) -> None:
        """Nothing."""
        await asyncio.Event().wait()

    kind = bench.kind(hang, seconds=0.2, attempts=1)
    await bench.worker(kind)
    row = await bench.until(await bench.enqueue(kind))
    assert (row.status, row.error) == ("dead", "It took longer than the 0.2 seconds that it may take.")


async def test_a_key_is_unique_among_unfinished_jobs_of_one_owner(
    bench: Bench, alice: Caller, bob: Caller
) -> None:
    kind = bench.kind(nothing)
    first = await bench.queue(kind, owner=alice.user_id, key="one")
    again = await bench.queue(kind, owner=alice.user_id, key="one")
    other = await bench.queue(kind, owner=bob.user_id, key="one")
    assert first.created
    assert other.created
    assert (again.id, again.created) == (first.id, False)
    await bench.worker(kind)
    await bench.until(first.id)
    assert (await bench.queue(kind, owner=alice.user_id, key="one")).created


async def test_higher_priorities_come_first_and_equal_ones_in_order(bench: Bench) -> None:
    order: list[int] = []

    async def note(job: Job[Work], parts: object) -> None:
        """Its number is noted."""
        order.append(job.payload.number)

    kind = bench.kind(note)
    ids = [
        await bench.enqueue(kind, number=number, priority=priority)
        for number, priority in enumerate((0, 0, 5, 0, 9))
    ]
    await bench.worker(kind, room=1)
    for id_ in ids:
        await bench.until(id_)
    assert order == [4, 2, 0, 1, 3]


async def test_one_user_s_thousand_jobs_do_not_delay_another_s_one(
    bench: Bench, alice: Caller, bob: Caller
) -> None:
    order: list[UUID | None] = []

    async def note(job: Job[Work], parts: object) -> None:
        """Its owner is noted."""
        order.append(job.owner)

    kind = bench.kind(note)
    async with bench.db.system() as session:
        await enqueue_many(session, kind, [Order(Work(n), alice.user_id) for n in range(1000)])
    last = await bench.enqueue(kind, owner=bob.user_id)
    await bench.worker(kind, room=4)
    await bench.until(last)
    assert order.index(bob.user_id) < 8


async def test_many_lanes_are_served_in_turn(bench: Bench) -> None:
    order: list[int] = []

    async def note(job: Job[Work], parts: object) -> None:
        """Its lane is noted."""
        order.append(job.payload.number)

    kind = bench.kind(note)
    lanes = [uuid4() for _ in range(30)]
    async with bench.db.system() as session:
        orders = [Order(Work(n), None, lane=lane) for n, lane in enumerate(lanes) for _ in range(4)]
        ids = await enqueue_many(session, kind, orders)
    await bench.worker(kind, room=5)
    for id_ in ids:
        await bench.until(id_)
    seen: Counter[int] = Counter()
    for lane in order:
        seen[lane] += 1
        assert seen[lane] - min(seen[n] for n in range(30)) <= 2, order


async def test_a_lane_has_its_limit_however_much_room_there_is(bench: Bench) -> None:
    running: Counter[UUID | None] = Counter()
    most: Counter[UUID | None] = Counter()

    async def hold(job: Job[Work], parts: object) -> None:
        """Nothing, for a moment."""
        running[job.subject] += 1
        most[job.subject] = max(most[job.subject], running[job.subject])
        await asyncio.sleep(0.05)
        running[job.subject] -= 1

    kind = bench.kind(hold, lane_limit=2)
    one, other = uuid4(), uuid4()
    async with bench.db.system() as session:
        orders = [Order(Work(), None, subject=lane, lane=lane) for lane in (one, other) for _ in range(8)]
        ids = await enqueue_many(session, kind, orders)
    await bench.worker(kind, room=50)
    await bench.worker(kind, room=50)
    for id_ in ids:
        await bench.until(id_)
    assert most == {one: 2, other: 2}


async def test_a_worker_that_stops_hands_its_jobs_back_uncounted(bench: Bench) -> None:
    began = asyncio.Event()

    async def hang(job: Job[Work], parts: object) -> None:
        """Nothing."""
        began.set()
        await asyncio.Event().wait()

    kind = bench.kind(hang)
    worker = await bench.worker(kind)
    id_ = await bench.enqueue(kind)
    await began.wait()
    await worker.stop()
    row = await bench.row(id_)
    assert (row.status, row.attempts, row.worker_id, row.failures) == ("queued", 0, None, [])


async def test_what_is_handed_back_is_not_taken_again_by_the_one_who_stops(bench: Bench) -> None:
    began = asyncio.Event()

    async def hang(job: Job[Work], parts: object) -> None:
        """Nothing."""
        began.set()
        await asyncio.Event().wait()

    kind = bench.kind(hang)
    for _ in range(10):
        began.clear()
        worker = await bench.worker(kind)
        id_ = await bench.enqueue(kind)
        await began.wait()
        async with asyncio.TaskGroup() as group:  # a claim is under way all the time
            group.create_task(worker.stop())
            for _ in range(5):
                worker._wake(bench.name)
                await asyncio.sleep(0.002)
        row = await bench.row(id_)
        assert (row.status, row.attempts, row.worker_id) == ("queued", 0, None)
        async with bench.db.system() as session:
            await session.execute(text("DELETE FROM jobs WHERE id = :id"), {"id": id_})


async def test_a_worker_that_stops_lets_short_jobs_end(bench: Bench) -> None:
    began = asyncio.Event()

    async def work(job: Job[Work], parts: object) -> None:
        """Nothing, for a moment."""
        began.set()
        await asyncio.sleep(0.3)

    kind = bench.kind(work)
    worker = await bench.worker(kind)
    id_ = await bench.enqueue(kind)
    await began.wait()
    await worker.stop(5)
    assert (await bench.row(id_)).status == "succeeded"


async def _die(worker: Worker) -> None:
    """What is left of a worker after kill -9: its rows."""
    for task in worker._tasks:
        task.cancel()
    await asyncio.gather(*worker._tasks, return_exceptions=True)


async def test_a_job_whose_worker_dies_is_taken_by_another_and_the_attempt_counts(bench: Bench) -> None:
    runs: list[int] = []
    blocked = asyncio.Event()

    async def work(job: Job[Work], parts: object) -> None:
        """Its attempt is noted."""
        runs.append(job.attempt)
        if job.attempt == 1:
            await blocked.wait()

    kind = bench.kind(work)
    dead = await bench.worker(kind)
    id_ = await bench.enqueue(kind)
    await bench.until(id_, lambda row: row.status == "running")
    await _die(dead)
    await bench.worker(kind)
    row = await bench.until(id_)
    assert (row.status, runs) == ("succeeded", [1, 2])
    assert [one["error"] for one in row.failures] == [WORKER_DIED]


def _runs(attempt: int, row: JobRow) -> bool:
    return row.status == "running" and row.attempts == attempt


async def test_a_job_that_kills_every_worker_ends_among_the_dead(bench: Bench) -> None:
    async def hang(job: Job[Work], parts: object) -> None:
        """Nothing."""
        await asyncio.Event().wait()

    kind = bench.kind(hang, attempts=2)
    id_ = await bench.enqueue(kind)
    for attempt in (1, 2):
        killed = await bench.worker(kind)
        await bench.until(id_, partial(_runs, attempt))
        await _die(killed)
        other = bench.kind(nothing, queue=f"{bench.name}.other")
        watching = await bench.worker(kind, other, queues=[other.queue])
        await bench.until(id_, lambda row: row.status in {"waiting", "dead"})
        await watching.stop()
    row = await bench.row(id_)
    assert (row.status, row.error) == ("dead", WORKER_DIED)


async def test_a_run_that_was_taken_for_dead_can_not_end_the_job(bench: Bench) -> None:
    go = asyncio.Event()
    written: list[int] = []

    async def work(job: Job[Work], parts: object) -> None:
        """A number, written by the run that counts."""
        if job.attempt == 1:
            await go.wait()
        async with job.finish({"by": job.attempt}):
            written.append(job.attempt)

    kind = bench.kind(work)
    slow = await bench.worker(kind)
    id_ = await bench.enqueue(kind)
    await bench.until(id_, lambda row: row.status == "running")
    await _die(slow)  # its run goes on
    await bench.worker(kind)
    row = await bench.until(id_)
    go.set()
    await slow._runner.stop(5)
    assert (row.result, (await bench.row(id_)).result, written) == ({"by": 2}, {"by": 2}, [2])


async def test_a_paused_queue_begins_nothing_and_goes_on_when_it_is_resumed(
    bench: Bench, admin: Caller
) -> None:
    kind = bench.kind(nothing)
    await bench.worker(kind)
    await bench.until(await bench.enqueue(kind))
    async with bench.db.system() as session:
        await session.execute(
            text("UPDATE job_queues SET paused = true WHERE name = :name"), {"name": bench.name}
        )
    id_ = await bench.enqueue(kind)
    await asyncio.sleep(3 * QUICK.poll)
    assert (await bench.row(id_)).status == "queued"
    async with bench.db.system() as session:
        await session.execute(
            text("UPDATE job_queues SET paused = false WHERE name = :name"), {"name": bench.name}
        )
    assert (await bench.until(id_)).status == "succeeded"


async def test_a_queue_s_limit_holds_across_workers(bench: Bench) -> None:
    running = most = 0

    async def hold(job: Job[Work], parts: object) -> None:
        """Nothing, for a moment."""
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.03)
        running -= 1

    kind = bench.kind(hold)
    async with bench.db.system() as session:
        await session.execute(
            text("INSERT INTO job_queues (name, max_running) VALUES (:name, 3)"), {"name": bench.name}
        )
        ids = await enqueue_many(session, kind, [Order(Work(), None) for _ in range(30)])
    await bench.worker(kind)
    await bench.worker(kind)
    for id_ in ids:
        await bench.until(id_)
    assert most == 3


async def test_a_rate_limit_spreads_jobs_over_time(bench: Bench) -> None:
    kind = bench.kind(nothing)
    async with bench.db.system() as session:
        await session.execute(
            text("INSERT INTO job_queues (name, per_minute) VALUES (:name, 60)"), {"name": bench.name}
        )
        ids = await enqueue_many(session, kind, [Order(Work(), None) for _ in range(30)])
    await bench.worker(kind)
    await asyncio.sleep(2.5)
    begun = [id_ for id_ in ids if (await bench.row(id_)).status == "succeeded"]
    # A second each; what had gathered before the first claim is ten seconds' worth at most.
    assert 1 <= len(begun) <= 14


async def test_a_job_with_a_payload_of_another_version_is_dead_and_not_a_crash(bench: Bench) -> None:
    kind = bench.kind(nothing)
    id_ = await bench.enqueue(kind)
    async with bench.db.system() as session:
        await session.execute(
            text("""UPDATE jobs SET payload = '{"number": "seven"}' WHERE id = :id"""), {"id": id_}
        )
    await bench.worker(kind)
    row = await bench.until(id_)
    assert row.status == "dead"
    assert "payload" in row.failures[0]["detail"]


@pytest.mark.parametrize("finishes", [True, False])
async def test_progress_is_seen_while_it_runs(bench: Bench, finishes: bool) -> None:
    go = asyncio.Event()

    async def work(job: Job[Work], parts: object) -> None:
        """Nothing, telling how far it is."""
        await job.progress(30, "Page 3 of 10")
        await go.wait()
        if finishes:
            async with job.finish():
                pass

    kind = bench.kind(work)
    await bench.worker(kind)
    id_ = await bench.enqueue(kind)
    row = await bench.until(id_, lambda row: row.progress > 0)
    assert (row.progress, row.phrase, row.status) == (30, "Page 3 of 10", "running")
    go.set()
    row = await bench.until(id_)
    assert (row.progress, row.phrase) == (100, None)


async def test_lanes_that_may_run_no_more_do_not_hide_those_that_may(bench: Bench) -> None:
    ran: list[int] = []

    async def note(job: Job[Work], parts: object) -> None:
        """Its number is noted."""
        ran.append(job.payload.number)

    kind = bench.kind(note, lane_limit=1)
    async with bench.db.system() as session:
        full = [UUID(int=n) for n in range(1, 90)]
        await enqueue_many(session, kind, [Order(Work(), None, lane=lane) for lane in full for _ in range(2)])
        running = text("""
            UPDATE jobs SET status = 'running', worker_id = gen_random_uuid(), started_at = clock_timestamp()
            WHERE id IN (SELECT min(id::text)::uuid FROM jobs WHERE queue = :queue GROUP BY lane)
        """)
        await session.execute(running, {"queue": bench.name})
        await enqueue_many(session, kind, [Order(Work(7), None, lane=UUID(int=1000))])
    await bench.worker(kind, room=5, rhythm=replace(QUICK, lease=60, reap=60))
    async with asyncio.timeout(10):
        while not ran:
            await asyncio.sleep(0.02)
    assert ran == [7]


async def test_a_rate_limit_on_a_queue_that_has_been_used_begins_from_nothing(
    bench: Bench, admin: Caller
) -> None:
    kind = bench.kind(nothing)
    async with bench.db.system() as session:
        ids = await enqueue_many(session, kind, [Order(Work(), None) for _ in range(200)])
    await bench.worker(kind)
    for id_ in ids:
        await bench.until(id_)
    limited = await admin.patch(f"/api/v1/queues/{bench.name}", json={"per_minute": 120})
    assert limited.status_code == 200
    assert (await bench.until(await bench.enqueue(kind), seconds=8)).status == "succeeded"


async def test_a_result_that_can_not_be_stored_as_it_is_is_stored_as_it_can(bench: Bench) -> None:
    async def odd(job: Job[Work], parts: object) -> Mapping[str, Any]:
        """A text with what PostgreSQL can't hold."""
        if job.payload.number:
            return {"text": "a\x00b"}
        async with job.finish({"text": "a\x00b"}):
            return {}

    kind = bench.kind(odd)
    await bench.worker(kind)
    for number in (0, 1):
        row = await bench.until(await bench.enqueue(kind, number=number))
        assert (row.status, row.result, row.attempts) == ("succeeded", {"text": "a\ufffdb"}, 1)


async def test_what_is_written_at_the_end_of_a_run_is_not_broken_off(
    bench: Bench, alice: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(job: Job[Work], parts: object) -> None:
        """Nothing."""
        raise GiveUp("It is broken.")

    kind = bench.kind(refuse)
    worker = await bench.worker(kind)
    reached, go = asyncio.Event(), asyncio.Event()
    write = JobStore.fail

    async def slowly(self: JobStore, *given: Any, **named: Any) -> str | None:
        reached.set()
        await go.wait()
        return await write(self, *given, **named)

    monkeypatch.setattr(JobStore, "fail", slowly)
    id_ = await bench.enqueue(kind, owner=alice.user_id)
    await reached.wait()
    stopping = asyncio.create_task(worker.stop())
    await asyncio.sleep(0.1)
    go.set()
    await stopping
    row = await bench.row(id_)
    assert (row.status, row.error) == ("dead", "It is broken.")


async def test_a_deadlock_while_a_job_is_buried_does_not_leave_out_what_it_concerns(bench: Bench) -> None:
    tries: list[int] = []

    async def refuse(job: Job[Work], parts: object) -> None:
        """Nothing."""
        raise GiveUp("It is broken.")

    async def bury(dead: DeadJob, session: AsyncSession, parts: object) -> None:
        tries.append(1)
        if len(tries) < 3:
            await session.execute(text("DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '40P01'; END $$"))

    kind = bench.kind(refuse, on_dead=bury)
    await bench.worker(kind)
    assert (await bench.until(await bench.enqueue(kind))).status == "dead"
    assert len(tries) == 3


async def test_a_cancelled_run_ends_though_what_it_concerned_can_not_be_told(
    bench: Bench, alice: Caller
) -> None:
    async def hang(job: Job[Work], parts: object) -> None:
        """Nothing."""
        await asyncio.Event().wait()

    async def bury(dead: DeadJob, session: AsyncSession, parts: object) -> None:
        raise ValueError("the grave is taken")

    kind = bench.kind(hang, on_dead=bury)
    await bench.worker(kind, rhythm=replace(QUICK, lease=60, reap=60))
    id_ = await bench.enqueue(kind, owner=alice.user_id)
    await bench.until(id_, lambda row: row.status == "running")
    await alice.post(f"/api/v1/jobs/{id_}/cancel")
    assert (await bench.until(id_, seconds=8)).status == "cancelled"


async def test_a_job_that_its_owner_wants_cancelled_is_not_handed_back(
    bench: Bench, alice: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(job: Job[Work], parts: object) -> None:
        """Nothing."""
        await asyncio.Event().wait()

    kind = bench.kind(hang)
    worker = await bench.worker(kind, rhythm=replace(QUICK, poll=60))
    id_ = await bench.enqueue(kind, owner=alice.user_id)
    await bench.until(id_, lambda row: row.status == "running")
    monkeypatch.setattr(worker._runner, "cancel", lambda _id: None)  # as if the notice were lost
    await alice.post(f"/api/v1/jobs/{id_}/cancel")
    await worker.stop()
    assert (await bench.row(id_)).status == "cancelled"


async def test_a_job_of_a_kind_that_is_new_waits_for_a_worker_that_knows_it(bench: Bench) -> None:
    known = bench.kind(nothing)
    unknown = bench.kind(nothing, name=f"{bench.name}.newer")
    await bench.worker(known)
    id_ = await bench.enqueue(unknown)
    pauses = (60, 300, 1800, 1800, 1800)
    assert len(pauses) > unknown.max_attempts
    for attempt, pause in enumerate(pauses):
        row = await bench.until(id_, lambda row: row.status == "waiting" and len(row.failures) > attempt)  # noqa: B023
        failed = datetime.fromisoformat(row.failures[-1]["at"])
        assert pause - 1 < (row.due_at - failed).total_seconds() < pause + 30
        assert row.attempts == 0
        async with bench.db.system() as session:
            await session.execute(text("UPDATE jobs SET due_at = now() WHERE id = :id"), {"id": id_})


async def test_a_job_whose_payload_can_not_be_read_is_buried_too(bench: Bench) -> None:
    buried: list[DeadJob] = []

    async def bury(dead: DeadJob, session: object, parts: object) -> None:
        buried.append(dead)

    kind = bench.kind(nothing, on_dead=bury)
    subject = uuid4()
    id_ = await bench.enqueue(kind, subject=subject)
    async with bench.db.system() as session:
        await session.execute(text("UPDATE jobs SET payload = '[]' WHERE id = :id"), {"id": id_})
    await bench.worker(kind)
    row = await bench.until(id_)
    assert (row.status, row.attempts) == ("dead", 1)
    assert [(dead.id, dead.subject) for dead in buried] == [(id_, subject)]
