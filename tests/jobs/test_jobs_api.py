"""Jobs as their owners and administrators see and steer them over HTTP."""

import asyncio
import secrets
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from baatcheet.auth.principal import Principal
from baatcheet.jobs.declaration import DeadJob, GiveUp, Job
from baatcheet.jobs.enqueueing import Order, enqueue_many
from baatcheet.jobs.running import CANCELLED
from baatcheet.jobs.service import Jobs
from baatcheet.platform.database import DatabaseUnavailable
from tests.conftest import Caller
from tests.jobs.conftest import Bench, Work, nothing


async def principal_of(caller: Caller) -> Principal:
    me = (await caller.get("/api/v1/me")).json()
    return Principal(caller.user_id, UUID(me["token"]["id"]), "user", frozenset({"read", "write"}), "alice")


async def test_an_owner_sees_a_job_and_nobody_else_does(
    bench: Bench, alice: Caller, bob: Caller, admin: Caller
) -> None:
    subject = uuid4()
    id_ = await bench.enqueue(bench.kind(nothing), owner=alice.user_id, subject=subject)
    shown = await alice.get(f"/api/v1/jobs/{id_}")
    assert shown.status_code == 200
    assert shown.json() | {"created_at": "", "due_at": ""} == {
        "id": str(id_),
        "kind": f"{bench.name}.work",
        "queue": bench.name,
        "status": "queued",
        "progress": 0,
        "phrase": None,
        "attempts": 0,
        "max_attempts": 3,
        "error": None,
        "failures": [],
        "subject_id": str(subject),
        "user_id": str(alice.user_id),
        "result": None,
        "link": None,
        "created_at": "",
        "due_at": "",
        "started_at": None,
        "ended_at": None,
    }
    for verb, path in (("GET", ""), ("POST", "/cancel"), ("POST", "/retry")):
        refused = await bob.request(verb, f"/api/v1/jobs/{id_}{path}")
        assert refused.status_code == 404
        assert refused.json()["type"].endswith("job-not-found")
    assert (await admin.get(f"/api/v1/jobs/{id_}")).status_code == 200


async def test_a_list_shows_one_s_own_newest_first_in_pages(bench: Bench, alice: Caller, bob: Caller) -> None:
    kind = bench.kind(nothing)
    ids = [str(await bench.enqueue(kind, owner=alice.user_id)) for _ in range(5)]
    await bench.enqueue(kind, owner=bob.user_id)
    await bench.enqueue(bench.kind(nothing, visible=False), owner=alice.user_id)
    seen: list[str] = []
    cursor: str | None = None
    while True:
        page = await alice.get("/api/v1/jobs", params={"limit": 2} | ({"cursor": cursor} if cursor else {}))
        seen += [one["id"] for one in page.json()["data"]]
        cursor = page.json()["next_cursor"]
        if cursor is None:
            break
    assert seen == ids[::-1]


async def test_a_list_is_filtered_by_kind_status_and_subject(bench: Bench, alice: Caller) -> None:
    kind, other = bench.kind(nothing), bench.kind(nothing, name=f"{bench.name}.other")
    subject = uuid4()
    wanted = str(await bench.enqueue(kind, owner=alice.user_id, subject=subject))
    await bench.enqueue(other, owner=alice.user_id)
    await bench.enqueue(kind, owner=alice.user_id, delay=60)
    for asked in ({"kind": kind.name, "status": "queued"}, {"subject_id": str(subject)}):
        found = await alice.get("/api/v1/jobs", params=asked)
        assert [one["id"] for one in found.json()["data"]] == [wanted]


async def test_everybody_s_jobs_are_for_administrators(bench: Bench, alice: Caller, admin: Caller) -> None:
    id_ = str(await bench.enqueue(bench.kind(nothing), owner=alice.user_id))
    asked = {"everyone": "true", "queue": bench.name}
    assert (await alice.get("/api/v1/jobs", params=asked)).status_code == 403
    found = await admin.get("/api/v1/jobs", params=asked)
    assert [one["id"] for one in found.json()["data"]] == [id_]


async def test_details_of_an_error_are_for_administrators(bench: Bench, alice: Caller, admin: Caller) -> None:
    async def break_down(job: Job[Work], parts: object) -> None:
        """Nothing."""
        raise RuntimeError("the inside of the machine")

    kind = bench.kind(break_down, attempts=1)
    await bench.worker(kind)
    row = await bench.until(await bench.enqueue(kind, owner=alice.user_id))
    shown = await alice.get(f"/api/v1/jobs/{row.id}")
    assert "inside" not in shown.text
    assert shown.json()["failures"][0]["error"] == "Something went wrong on our side."
    assert "inside" in (await admin.get(f"/api/v1/jobs/{row.id}")).text


async def test_a_queued_job_is_cancelled_at_once(bench: Bench, alice: Caller) -> None:
    id_ = await bench.enqueue(bench.kind(nothing), owner=alice.user_id)
    answer = await alice.post(f"/api/v1/jobs/{id_}/cancel")
    assert answer.status_code == 200
    assert answer.json()["status"] == "cancelled"
    again = await alice.post(f"/api/v1/jobs/{id_}/cancel")
    assert again.status_code == 409
    assert again.json()["type"].endswith("job-not-in-state")


async def test_what_a_cancelled_job_was_about_is_told_in_the_same_transaction(
    bench: Bench, alice: Caller
) -> None:
    told: list[DeadJob] = []

    async def bury(dead: DeadJob, session: object, parts: object) -> None:
        told.append(dead)

    kind = bench.kind(nothing, on_dead=bury)
    id_ = await bench.enqueue(kind, owner=alice.user_id)
    who = await principal_of(alice)
    await Jobs(bench.db, [kind.bind(None)]).cancel(who, id_)
    assert [(dead.id, dead.cancelled, dead.error) for dead in told] == [(id_, True, CANCELLED)]


async def test_a_job_is_cancelled_though_what_it_was_about_can_not_be_told(
    bench: Bench, alice: Caller
) -> None:
    async def bury(dead: DeadJob, session: AsyncSession, parts: object) -> None:
        await session.execute(text("SELECT 1 / 0"))

    kind = bench.kind(nothing, on_dead=bury)
    id_ = await bench.enqueue(kind, owner=alice.user_id)
    who = await principal_of(alice)
    await Jobs(bench.db, [kind.bind(None)]).cancel(who, id_)
    assert (await bench.row(id_)).status == "cancelled"


async def test_a_job_is_not_cancelled_while_the_database_is_too_busy_to_tell(
    bench: Bench, alice: Caller
) -> None:
    async def bury(dead: DeadJob, session: AsyncSession, parts: object) -> None:
        await session.execute(text("DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '55P03'; END $$"))

    kind = bench.kind(nothing, on_dead=bury)
    id_ = await bench.enqueue(kind, owner=alice.user_id)
    who = await principal_of(alice)
    with pytest.raises((DBAPIError, DatabaseUnavailable)):
        await Jobs(bench.db, [kind.bind(None)]).cancel(who, id_)
    assert (await bench.row(id_)).status == "queued"


@pytest.mark.parametrize("patient", [True, False])
async def test_a_running_job_is_cancelled_wherever_it_waits(
    bench: Bench, alice: Caller, patient: bool
) -> None:
    ended: list[str] = []

    async def work(job: Job[Work], parts: object) -> None:
        """Nothing, for ever."""
        try:
            while True:
                await asyncio.sleep(60 if patient else 0.05)
                await job.progress(50, secrets.token_hex(2))
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    kind = bench.kind(work)
    await bench.worker(kind)
    id_ = await bench.enqueue(kind, owner=alice.user_id)
    await bench.until(id_, lambda row: row.status == "running")
    asked = await alice.post(f"/api/v1/jobs/{id_}/cancel")
    assert asked.status_code == 200
    row = await bench.until(id_, seconds=5)
    assert (row.status, row.error, ended) == ("cancelled", "Cancelled.", ["cancelled"])


async def test_a_job_that_was_cancelled_does_not_write_its_effect(
    bench: Bench, alice: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, go = asyncio.Event(), asyncio.Event()
    written: list[UUID] = []

    async def work(job: Job[Work], parts: object) -> None:
        """Its id, written once."""
        reached.set()
        await go.wait()
        async with job.finish():
            written.append(job.id)

    kind = bench.kind(work)
    worker = await bench.worker(kind)
    id_ = await bench.enqueue(kind, owner=alice.user_id)
    await reached.wait()
    monkeypatch.setattr(worker._runner, "cancel", lambda _id: None)  # as if the notice were lost
    await alice.post(f"/api/v1/jobs/{id_}/cancel")
    go.set()
    row = await bench.until(id_)
    assert (row.status, written) == ("cancelled", [])


async def test_a_dead_job_is_tried_again_with_all_its_attempts_before_it(bench: Bench, alice: Caller) -> None:
    healed = False

    async def work(job: Job[Work], parts: object) -> None:
        """Nothing."""
        if not healed:
            raise GiveUp("It is broken.")

    kind = bench.kind(work)
    await bench.worker(kind)
    id_ = await bench.enqueue(kind, owner=alice.user_id)
    await bench.until(id_)
    healed = True
    answer = await alice.post(f"/api/v1/jobs/{id_}/retry")
    assert answer.status_code == 200
    row = await bench.until(id_, lambda row: row.status == "succeeded")
    assert (row.attempts, row.error, [one["error"] for one in row.failures]) == (1, None, ["It is broken."])
    again = await alice.post(f"/api/v1/jobs/{id_}/retry")
    assert again.status_code == 409


async def test_a_job_whose_place_another_has_taken_is_not_tried_again(bench: Bench, alice: Caller) -> None:
    kind = bench.kind(nothing)
    first = await bench.enqueue(kind, owner=alice.user_id, key="one")
    await alice.post(f"/api/v1/jobs/{first}/cancel")
    await bench.enqueue(kind, owner=alice.user_id, key="one")
    answer = await alice.post(f"/api/v1/jobs/{first}/retry")
    assert answer.status_code == 409
    assert "Another job" in answer.json()["detail"]


async def test_dead_jobs_are_redriven_by_kind_and_error(bench: Bench, alice: Caller, admin: Caller) -> None:
    broken = True

    async def work(job: Job[Work], parts: object) -> None:
        """Nothing."""
        if broken:
            raise GiveUp(f"Reason 100% {job.payload.number}.")

    kind = bench.kind(work)
    await bench.worker(kind)
    ids = [await bench.enqueue(kind, owner=alice.user_id, number=number) for number in (1, 2, 2)]
    for id_ in ids:
        await bench.until(id_)
    broken = False
    asked = {"kind": kind.name, "error": "100% 2"}
    assert (await alice.post("/api/v1/jobs/redrive", json=asked)).status_code == 403
    answer = await admin.post("/api/v1/jobs/redrive", json=asked)
    assert answer.json() == {"redriven": 2}
    for id_ in ids[1:]:
        await bench.until(id_, lambda row: row.status == "succeeded")
    assert (await bench.row(ids[0])).status == "dead"
    assert (await admin.post("/api/v1/jobs/redrive", json={"kind": kind.name})).json() == {"redriven": 1}


async def test_a_queue_is_paused_limited_and_resumed_by_administrators(
    bench: Bench, alice: Caller, admin: Caller
) -> None:
    kind = bench.kind(nothing)
    path = f"/api/v1/queues/{bench.name}"
    assert (await admin.patch(path, json={"paused": True})).status_code == 404
    id_ = await bench.enqueue(kind, owner=alice.user_id)
    assert (await alice.patch(path, json={"paused": True})).status_code == 403
    assert (await alice.get("/api/v1/queues")).status_code == 403
    changed = await admin.patch(path, json={"paused": True, "max_running": 4})
    assert (changed.json()["paused"], changed.json()["max_running"], changed.json()["queued"]) == (True, 4, 1)
    await bench.worker(kind)
    await asyncio.sleep(0.5)
    assert (await bench.row(id_)).status == "queued"
    resumed = await admin.patch(path, json={"paused": False, "max_running": None})
    assert (resumed.json()["paused"], resumed.json()["max_running"]) == (False, None)
    await bench.until(id_, seconds=3)
    listed = {one["name"]: one for one in (await admin.get("/api/v1/queues")).json()["data"]}
    assert listed[bench.name]["succeeded_per_minute"] == pytest.approx(0.2)


async def test_workers_are_listed_while_they_live(bench: Bench, admin: Caller, alice: Caller) -> None:
    worker = await bench.worker(bench.kind(nothing), room=7)
    listed = {one["id"]: one for one in (await admin.get("/api/v1/workers")).json()["data"]}
    assert listed[str(worker.id)]["queues"] == {bench.name: 7}
    assert listed[str(worker.id)]["alive"]
    await worker.stop()
    assert str(worker.id) not in {one["id"] for one in (await admin.get("/api/v1/workers")).json()["data"]}
    assert (await alice.get("/api/v1/workers")).status_code == 403


async def test_every_visible_change_of_a_job_is_told_to_its_owner(bench: Bench, alice: Caller) -> None:
    kind = bench.kind(nothing)
    await bench.worker(kind)
    id_ = await bench.enqueue(kind, owner=alice.user_id)
    await bench.until(id_)
    told = text("""
        SELECT data ->> 'status' FROM (
            SELECT place, data FROM outbox WHERE user_id = :user AND type = 'job.updated'
            UNION ALL SELECT seq, data FROM events WHERE user_id = :user AND type = 'job.updated'
        ) e WHERE data ->> 'job_id' = :id ORDER BY place
    """)
    async with bench.db.system() as session:
        found = (await session.scalars(told, {"user": alice.user_id, "id": str(id_)})).all()
    assert list(found) == ["queued", "running", "succeeded"]


async def test_enqueueing_many_takes_two_statements(bench: Bench) -> None:
    kind = bench.kind(nothing)
    async with bench.db.system() as session:
        ids = await enqueue_many(session, kind, [Order(Work(n), None) for n in range(500)])
        assert await enqueue_many(session, kind, []) == []
    assert len(set(ids)) == 500
    async with bench.db.system() as session:
        count = text("SELECT count(*) FROM jobs WHERE queue = :queue AND status = 'queued'")
        assert await session.scalar(count, {"queue": bench.name}) == 500


async def test_dead_jobs_are_forgotten_by_kind_and_error(bench: Bench, alice: Caller, admin: Caller) -> None:
    async def refuse(job: Job[Work], parts: object) -> None:
        """Nothing."""
        raise GiveUp(f"It is number {job.payload.number}.")

    kind = bench.kind(refuse)
    await bench.worker(kind)
    dead = [await bench.until(await bench.enqueue(kind, number=number)) for number in range(3)]
    asked = {"kind": kind.name, "error": "number 1"}
    assert (await alice.post("/api/v1/jobs/discard", json=asked)).status_code == 403
    assert (await admin.post("/api/v1/jobs/discard", json=asked)).json() == {"discarded": 1}
    assert (await admin.get(f"/api/v1/jobs/{dead[1].id}")).status_code == 404
    assert (await admin.post("/api/v1/jobs/discard", json={"kind": kind.name})).json() == {"discarded": 2}


async def test_only_what_has_ended_is_forgotten(bench: Bench, alice: Caller, bob: Caller) -> None:
    id_ = await bench.enqueue(bench.kind(nothing), owner=alice.user_id)
    refused = await alice.delete(f"/api/v1/jobs/{id_}")
    assert (refused.status_code, refused.json()["type"]) == (409, "job-not-in-state")
    await alice.post(f"/api/v1/jobs/{id_}/cancel")
    assert (await bob.delete(f"/api/v1/jobs/{id_}")).status_code == 404
    assert (await alice.delete(f"/api/v1/jobs/{id_}")).status_code == 204
    assert (await alice.get(f"/api/v1/jobs/{id_}")).status_code == 404


async def test_of_several_dead_jobs_with_one_key_the_newest_is_redriven(bench: Bench, admin: Caller) -> None:
    broken = True

    async def work(job: Job[Work], parts: object) -> None:
        """Nothing."""
        if broken:
            raise GiveUp("It is broken.")

    kind = bench.kind(work)
    await bench.worker(kind)
    ids = []
    for _ in range(2):
        ids.append(await bench.enqueue(kind, key="one"))
        await bench.until(ids[-1])
    broken = False
    answer = await admin.post("/api/v1/jobs/redrive", json={"kind": kind.name})
    assert answer.json() == {"redriven": 1}
    await bench.until(ids[1], lambda row: row.status == "succeeded")
    assert (await bench.row(ids[0])).status == "dead"
