"""The jobs' pages, as they are without scripts, and the parts that scripts ask for."""

import re
from collections.abc import Mapping
from html import unescape
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import update

from baatcheet.jobs.declaration import GiveUp, Job
from baatcheet.jobs.models import JobRow
from baatcheet.jobs.schedules import Schedule
from tests.conftest import Caller, NewCaller
from tests.console.conftest import Bench, NewPerson, eventually
from tests.jobs.conftest import Work, nothing

LIVE = {"hx-request": "true", "x-console-live": "1"}
EVIL = """<script>alert(1)</script>"'><img src=x onerror=alert(2)>"""
OVERRIDE = "\u202egpj.exe"


async def broken(job: Job[Work], parts: object) -> None:
    """Nothing."""
    raise GiveUp("It is broken.")


async def faulty(job: Job[Work], parts: object) -> None:
    """Nothing."""
    raise RuntimeError("the inside: postgresql://u:hunter2secret@db/x")


def ids(page: str) -> list[str]:
    """The jobs of a list, in order."""
    return re.findall(r'<tr role="row" id="job-([^"]+)"', page)


async def test_users_see_their_own_jobs_and_administrators_everybody_s(
    bench: Bench, signed_in: NewPerson, alice: Caller, bob: Caller, admin: Caller
) -> None:
    kind = bench.kind(nothing)
    mine = str(await bench.enqueue(kind, owner=alice.user_id))
    theirs = str(await bench.enqueue(kind, owner=bob.user_id))
    hidden = str(await bench.enqueue(bench.kind(nothing, visible=False), owner=alice.user_id))
    person = await signed_in(alice)
    page = await person.get("/console/jobs")
    assert ids(page.text) == [mine]
    assert not re.search(r'id="(queues|workers|schedules)"|Owner|filter-whose', page.text)
    boss = await signed_in(admin)
    everything = await boss.get(f"/console/jobs?queue={bench.name}")
    assert ids(everything.text) == [hidden, theirs, mine]
    assert "alice" in everything.text
    own = await boss.get(f"/console/jobs?queue={bench.name}&whose=mine")
    assert ids(own.text) == []


async def test_another_s_job_is_not_there_whatever_is_asked_of_it(
    bench: Bench, signed_in: NewPerson, alice: Caller, bob: Caller
) -> None:
    id_ = await bench.enqueue(bench.kind(nothing), owner=alice.user_id)
    person = await signed_in(bob)
    word = {"csrf": await person.csrf()}
    for path in ("", "/cancel", "/retry", "/result"):
        answer = await person.get(f"/console/jobs/{id_}{path}")
        assert answer.status_code == 404
        assert bench.name not in answer.text
    for verb in ("cancel", "retry"):
        assert (await person.post(f"/console/jobs/{id_}/{verb}", data=word)).status_code == 404
    assert (await bench.row(id_)).status == "queued"


@pytest.mark.parametrize("path", ["redrive", "queues/ocr", "schedules/x"])
async def test_what_is_for_administrators_is_refused_to_others(
    signed_in: NewPerson, alice: Caller, path: str
) -> None:
    person = await signed_in(alice)
    assert (await person.get(f"/console/jobs/{path}")).status_code == 403
    assert (await person.submit(f"/console/jobs/{path}", do="pause")).status_code == 403


async def test_a_token_that_may_not_write_is_offered_nothing_and_refused(
    bench: Bench, signed_in: NewPerson, alice: Caller, new_caller: NewCaller
) -> None:
    id_ = await bench.enqueue(bench.kind(nothing), owner=alice.user_id)
    reader = await signed_in(await new_caller("reader", scopes=["read"], user_id=alice.user_id))
    page = await reader.get("/console/jobs")
    assert str(id_) in page.text
    assert "/cancel" not in page.text
    assert (await reader.get(f"/console/jobs/{id_}/cancel")).status_code == 403
    assert (await reader.submit(f"/console/jobs/{id_}/cancel")).status_code == 403
    assert (await bench.row(id_)).status == "queued"
    # What one sees is not what another with the same jobs and more rights does.
    assert "/cancel" in (await (await signed_in(alice)).get("/console/jobs")).text


async def test_details_and_payload_are_for_administrators_without_their_secrets(
    bench: Bench, signed_in: NewPerson, alice: Caller, admin: Caller
) -> None:
    kind = bench.kind(faulty, attempts=1)
    await bench.worker(kind)
    row = await bench.until(await bench.enqueue(kind, owner=alice.user_id, number=4711))
    own = await (await signed_in(alice)).get(f"/console/jobs/{row.id}")
    assert "Something went wrong on our side." in own.text
    assert "inside" not in own.text
    assert "4711" not in own.text
    all_of_it = await (await signed_in(admin)).get(f"/console/jobs/{row.id}")
    assert "RuntimeError: the inside" in all_of_it.text
    assert "4711" in all_of_it.text
    assert "hunter2secret" not in all_of_it.text


async def test_nothing_that_a_job_says_is_markup(
    bench: Bench, signed_in: NewPerson, admin: Caller, new_caller: NewCaller
) -> None:
    evil_user = await new_caller(f"{EVIL[:60]}{OVERRIDE}")
    kind = bench.kind(broken, name=f"{bench.name}.{EVIL}", queue=f"{bench.name}/{EVIL}")
    id_ = await bench.enqueue(kind, owner=evil_user.user_id)
    said: dict[str, Any] = {
        "status": "running",
        "progress": 40,
        "phrase": EVIL + OVERRIDE,
        "error": EVIL + OVERRIDE,
        "result": {EVIL: EVIL},
        "payload": {EVIL: EVIL},
        "failures": [
            {"attempt": 1, "at": "2026-01-01T00:00:00+00:00", "error": EVIL, "detail": EVIL + OVERRIDE}
        ],
    }
    async with bench.db.system() as session:
        await session.execute(update(JobRow).where(JobRow.id == id_).values(**said))
    person = await signed_in(admin)
    queue = {"queue": f"{bench.name}/{EVIL}", "kind": f"{bench.name}.{EVIL}"}
    for answer in (
        await person.get("/console/jobs", params=queue),
        await person.get("/console/jobs", params=queue, headers=LIVE),
        await person.get(f"/console/jobs/{id_}"),
        await person.get(f"/console/jobs/{id_}/cancel"),
        await person.get("/console/jobs/redrive", params={"kind": EVIL}),
        await person.get("/console/jobs/" + EVIL),
    ):
        assert "<script>alert" not in answer.text
        assert "<img src=x" not in answer.text
        assert "&lt;script&gt;" in answer.text or answer.status_code == 404
        # Turned text stays in an element of its own.
        for found in re.finditer(OVERRIDE, answer.text):
            element = answer.text[: found.start()].rpartition("<")[2]
            assert 'dir="auto"' in element or element.startswith("bdi"), element


async def test_a_list_is_filtered_and_goes_on_where_it_ended(
    bench: Bench, signed_in: NewPerson, alice: Caller
) -> None:
    kind, other = bench.kind(nothing), bench.kind(nothing, name=f"{bench.name}.other")
    many = [str(await bench.enqueue(kind, owner=alice.user_id)) for _ in range(30)]
    single = str(await bench.enqueue(other, owner=alice.user_id, delay=600))
    person = await signed_in(alice)
    assert ids((await person.get(f"/console/jobs?kind={other.name}")).text) == [single]
    assert ids((await person.get("/console/jobs?status=waiting")).text) == [single]
    assert ids((await person.get(f"/console/jobs?queue={bench.name}&status=running")).text) == []
    first = await person.get(f"/console/jobs?kind={kind.name}")
    older = re.search(r'href="([^"]*cursor[^"]*)"', first.text)
    assert older is not None
    second = await person.get(unescape(older[1]))
    assert ids(first.text) + ids(second.text) == many[::-1]
    assert "Newest" in second.text
    assert "Older" not in second.text


async def test_a_page_that_has_not_changed_is_answered_304(
    bench: Bench, signed_in: NewPerson, alice: Caller
) -> None:
    id_ = await bench.enqueue(bench.kind(nothing), owner=alice.user_id)
    person = await signed_in(alice)
    for path in ("/console/jobs", f"/console/jobs/{id_}"):
        page = await person.get(path)
        found = re.search(r'data-tag="([^"]+)"', page.text)
        assert found is not None
        tag = unescape(found[1])
        same = await person.get(path, headers={**LIVE, "if-none-match": tag})
        assert (same.status_code, same.text, same.headers["etag"]) == (304, "", tag)
        part = await person.get(path, headers=LIVE)
        assert (part.status_code, part.headers["etag"]) == (200, tag)
        assert "<html" not in part.text
        assert part.text.strip() in page.text


async def test_a_queued_job_is_cancelled_after_a_question(
    bench: Bench, signed_in: NewPerson, alice: Caller
) -> None:
    id_ = await bench.enqueue(bench.kind(nothing), owner=alice.user_id)
    person = await signed_in(alice)
    question = await person.get(f"/console/jobs/{id_}/cancel")
    assert f'action="/console/jobs/{id_}/cancel"' in question.text
    assert (await bench.row(id_)).status == "queued"
    answer = await person.submit(f"/console/jobs/{id_}/cancel")
    assert (answer.status_code, answer.headers["location"]) == (303, f"/console/jobs/{id_}?said=cancelled")
    page = await person.get(answer.headers["location"])
    assert "The job is cancelled." in page.text
    assert "state-cancelled" in page.text
    again = await person.submit(f"/console/jobs/{id_}/cancel")
    assert again.status_code == 409
    assert "only what has not ended can be cancelled" in again.text


async def test_a_dead_job_is_tried_again(bench: Bench, signed_in: NewPerson, alice: Caller) -> None:
    kind = bench.kind(broken)
    worker = await bench.worker(kind)
    row = await bench.until(await bench.enqueue(kind, owner=alice.user_id))
    await worker.stop()
    person = await signed_in(alice)
    assert "It is broken." in (await person.get(f"/console/jobs/{row.id}/retry")).text
    answer = await person.submit(f"/console/jobs/{row.id}/retry")
    assert answer.headers["location"] == f"/console/jobs/{row.id}?said=retried"
    assert (await bench.row(row.id)).status == "queued"


async def test_dead_jobs_are_tried_again_all_of_a_kind_and_error_or_all(
    bench: Bench, signed_in: NewPerson, alice: Caller, admin: Caller
) -> None:
    kind = bench.kind(broken)
    worker = await bench.worker(kind)
    dead = [await bench.until(await bench.enqueue(kind, owner=alice.user_id)) for _ in range(3)]
    await worker.stop()
    async with bench.db.system() as session:
        odd = update(JobRow).where(JobRow.id == dead[0].id).values(error="Quite another thing.")
        await session.execute(odd)
    person = await signed_in(admin)
    page = await person.get(f"/console/jobs?status=dead&kind={kind.name}")
    assert f"/console/jobs/redrive?kind={kind.name}" in page.text
    answer = await person.submit("/console/jobs/redrive", kind=kind.name, error="is broken", do="retry")
    assert answer.headers["location"] == "/console/jobs?said=redriven&n=2"
    assert "2 jobs are queued again." in (await person.get(answer.headers["location"])).text
    assert (await bench.row(dead[0].id)).status == "dead"
    assert (await bench.row(dead[1].id)).status == "queued"
    answer = await person.submit("/console/jobs/redrive", kind=kind.name, do="discard")
    assert answer.headers["location"] == "/console/jobs?said=discarded&n=1"
    assert (await person.get(f"/console/jobs/{dead[0].id}")).status_code == 404
    assert (await bench.row(dead[1].id)).status == "queued"


async def test_a_job_that_failed_is_forgotten_when_its_owner_is_done_with_it(
    bench: Bench, signed_in: NewPerson, alice: Caller, bob: Caller
) -> None:
    kind = bench.kind(broken)
    await bench.worker(kind)
    row = await bench.until(await bench.enqueue(kind, owner=alice.user_id))
    person, stranger = await signed_in(alice), await signed_in(bob)
    assert f"/console/jobs/{row.id}/discard" in (await person.get(f"/console/jobs/{row.id}")).text
    assert (await stranger.submit(f"/console/jobs/{row.id}/discard")).status_code == 404
    assert "It can't be tried again." in (await person.get(f"/console/jobs/{row.id}/discard")).text
    answer = await person.submit(f"/console/jobs/{row.id}/discard")
    assert answer.headers["location"] == "/console/jobs?said=forgotten"
    assert (await person.get(f"/console/jobs/{row.id}")).status_code == 404


async def test_what_an_email_leads_to_is_the_newest_job_about_it(
    bench: Bench, signed_in: NewPerson, alice: Caller, bob: Caller
) -> None:
    subject = uuid4()
    kind = bench.kind(nothing)
    _, newest = [await bench.enqueue(kind, owner=alice.user_id, subject=subject) for _ in range(2)]
    answer = await (await signed_in(alice)).get(f"/console/jobs/about/{subject}")
    assert (answer.status_code, answer.headers["location"]) == (303, f"/console/jobs/{newest}")
    assert (await (await signed_in(bob)).get(f"/console/jobs/about/{subject}")).status_code == 404


async def test_a_queue_is_paused_resumed_and_limited(
    bench: Bench, signed_in: NewPerson, admin: Caller
) -> None:
    await bench.enqueue(bench.kind(nothing))
    person = await signed_in(admin)
    path = f"/console/jobs/queues/{bench.name}"
    assert "Pause the queue" in (await person.get(path)).text
    answer = await person.submit(path, do="pause")
    assert answer.headers["location"] == "/console/jobs?said=paused"
    listed = await person.get("/console/jobs")
    row = listed.text[listed.text.index(f'id="queue-{bench.name}"') :].partition("</tr>")[0]
    assert "state-paused" in row
    assert "Resume the queue" in (await person.get(path)).text
    await person.submit(path, do="limit", max_running="4", per_minute="")
    changed = {one["name"]: one for one in (await admin.get("/api/v1/queues")).json()["data"]}[bench.name]
    assert (changed["paused"], changed["max_running"], changed["per_minute"]) == (True, 4, None)
    await person.submit(path, do="resume")
    for fields in (
        {"do": "limit", "max_running": "0"},
        {"do": "limit", "per_minute": "many"},
        {"do": "x"},
        {},
    ):
        assert (await person.submit(path, **fields)).status_code == 422
    changed = {one["name"]: one for one in (await admin.get("/api/v1/queues")).json()["data"]}[bench.name]
    assert (changed["paused"], changed["max_running"]) == (False, 4)
    assert (await person.get("/console/jobs/queues/nowhere")).status_code == 404


async def test_workers_and_schedules_are_shown_and_a_schedule_paused(
    bench: Bench, signed_in: NewPerson, admin: Caller
) -> None:
    kind = bench.kind(nothing)
    schedule = Schedule(f"{bench.name} nightly", "0 3 * * *", kind, Work())
    worker = await bench.worker(kind, schedules=[schedule])
    person = await signed_in(admin)
    path = f"/console/jobs/schedules/{bench.name} nightly"

    async def are_shown() -> bool:
        page = (await person.get("/console/jobs", headers=LIVE)).text
        return schedule.name in page and "0 3 * * *" in page and f"worker-{worker.id}" in page

    await eventually(are_shown)
    answer = await person.submit(path, do="pause")
    assert answer.headers["location"] == "/console/jobs?said=schedule-paused"
    assert "Resume it" in (await person.get(path)).text
    await person.submit(path, do="resume")
    shown = {one["name"]: one for one in (await admin.get("/api/v1/schedules")).json()["data"]}
    assert shown[schedule.name]["paused"] is False


async def test_a_script_is_told_what_was_done_and_given_questions_without_the_frame(
    bench: Bench, signed_in: NewPerson, alice: Caller
) -> None:
    id_ = await bench.enqueue(bench.kind(nothing), owner=alice.user_id)
    person = await signed_in(alice)
    script = {"hx-request": "true"}
    question = await person.get(f"/console/jobs/{id_}/cancel", headers=script)
    assert "<html" not in question.text
    assert "data-hx-post" in question.text
    word = {"csrf": await person.csrf()}
    done = await person.post(f"/console/jobs/{id_}/cancel", data=word, headers=script)
    assert (done.status_code, done.text) == (204, "")
    assert "The job is cancelled." in done.headers["hx-trigger"]
    refused = await person.post(f"/console/jobs/{id_}/cancel", data=word, headers=script)
    assert refused.status_code == 409
    assert "<html" not in refused.text


async def test_a_job_s_page_tells_what_happened(
    bench: Bench, signed_in: NewPerson, alice: Caller, worker: int
) -> None:
    id_ = await bench.enqueue(bench.kind(nothing), owner=alice.user_id)
    person = await signed_in(alice)
    await person.submit(f"/console/jobs/{id_}/cancel")

    async def is_told() -> bool:
        page = await person.get(f"/console/jobs/{id_}", headers=LIVE)
        told = re.findall(r'<li id="event-\d+">.*?</time></span> <span>(\w+)', page.text)
        return told == ["Cancelled", "Queued"]

    await eventually(is_told)


async def test_a_result_opens_where_its_kind_knows_how(
    bench: Bench, signed_in: NewPerson, alice: Caller
) -> None:
    async def work(job: Job[Work], parts: object) -> Mapping[str, Any]:
        """An answer."""
        return {"answer": str(uuid4())}

    kind = bench.kind(work)
    await bench.worker(kind)
    row = await bench.until(await bench.enqueue(kind, owner=alice.user_id))
    person = await signed_in(alice)
    page = await person.get(f"/console/jobs/{row.id}")
    assert row.result is not None
    assert row.result["answer"] in page.text
    assert "Open the result" not in page.text
    assert (await person.get(f"/console/jobs/{row.id}/result")).status_code == 404


async def test_an_export_s_file_opens_for_its_owner_only(
    signed_in: NewPerson, alice: Caller, admin: Caller, worker: int
) -> None:
    conversation = (await alice.post("/api/v1/conversations", json={"title": "Hello"})).json()["id"]
    asked = await alice.post(f"/api/v1/conversations/{conversation}/exports", json={"format": "txt"})
    assert asked.status_code == 202, asked.text
    person = await signed_in(alice)
    found: list[str] = []

    async def is_made() -> bool:
        page = await person.get("/console/jobs?kind=export.render&status=succeeded", headers=LIVE)
        found[:] = ids(page.text)
        return len(found) == 1

    await eventually(is_made)
    path = f"/console/jobs/{found[0]}"
    page = await person.get(path)
    assert "Open the result" in page.text
    assert "/api/v1/exports/" in page.text
    answer = await person.get(f"{path}/result")
    assert answer.status_code == 303
    file = await person.get(answer.headers["location"])
    assert file.status_code == 200
    boss = await signed_in(admin)
    assert "Open the result" not in (await boss.get(path)).text
    assert (await boss.get(f"{path}/result")).status_code == 404
