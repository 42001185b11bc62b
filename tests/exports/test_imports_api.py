"""Imports over HTTP: what comes back is what was exported, nothing is made by half, nobody gets into another's."""

import json
import os
from typing import Any

import pytest
from sqlalchemy import text

from baatcheet.context.history import tokens_of
from baatcheet.exports.keys import import_key
from baatcheet.platform.errors import PROBLEM_JSON
from tests.conftest import Caller
from tests.conversations.test_conversations import make, say
from tests.exports import chatgpt_corpus as corpus
from tests.exports.application import Running
from tests.exports.conftest import ended
from tests.exports.test_exports_api import ask, clean_up, finished, recorded, talk
from tests.exports.test_own_format import one, said
from tests.exports.uploads import archive

PATH = "/api/v1/conversations/import"


async def bring(
    caller: Caller, content: object, *, status: str = "succeeded", **params: Any
) -> dict[str, Any]:
    """The import of a file, once its job has ended. `content`: bytes as they are, anything else as JSON."""
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    answer = await caller.post(PATH, files={"file": ("export.json", data)}, params=params)
    assert answer.status_code == 202, answer.text
    made = answer.json()
    assert answer.headers["location"] == f"/api/v1/imports/{made['import']['id']}"
    job = await ended(caller, made["job"])
    assert job["status"] == status, job
    found: dict[str, Any] = (await caller.get(f"/api/v1/imports/{made['import']['id']}")).json()
    return found | {"job": job}


async def outcomes(caller: Caller, imported: dict[str, Any], **params: Any) -> list[dict[str, Any]]:
    answer = await caller.get(f"/api/v1/imports/{imported['id']}/conversations", params=params)
    assert answer.status_code == 200, answer.text
    data: list[dict[str, Any]] = answer.json()["data"]
    return data


async def export_of(caller: Caller, conversation_id: str) -> dict[str, Any]:
    """A conversation's export, as a document."""
    export = await finished(caller, await ask(caller, {"id": conversation_id}, format="json"))
    document: dict[str, Any] = (await caller.get(f"/api/v1/exports/{export['id']}/download")).json()
    return document


def without_ids(document: dict[str, Any]) -> Any:
    """An export with every id replaced by its place, so that two exports can be compared."""
    (talk,) = document["conversations"]
    places = {message["id"]: at for at, message in enumerate(talk["messages"])}
    messages = [
        {**message, "id": at, "parent_id": places.get(message["parent_id"])}
        for at, message in enumerate(talk["messages"])
    ]
    return {**talk, "id": None, "head_id": places.get(talk["head_id"]), "messages": messages}


async def test_an_export_comes_back_as_it_was_under_new_ids(alice: Caller, bob: Caller, worker: None) -> None:
    project = (await alice.post("/api/v1/projects", json={"name": "Thesis", "description": "d"})).json()
    conversation = await talk(
        alice, "root", "left", "left leaf", system_prompt="Be brief.", pinned=True, project_id=project["id"]
    )
    path = f"/api/v1/conversations/{conversation['id']}"
    root = (await alice.get(f"{path}/messages")).json()["data"][0]
    await alice.patch(path, json={"head_id": root["id"]})
    await say(alice, conversation, "right 🏔 اردو", role="assistant")
    first = await export_of(alice, conversation["id"])
    for caller in (alice, bob):
        imported = await bring(caller, first)
        assert (imported["imported"], imported["messages"], imported["source"]) == (1, 4, "baatcheet")
        (outcome,) = await outcomes(caller, imported)
        assert outcome["source_id"] == conversation["id"]
        again = await export_of(caller, outcome["conversation_id"])
        told, before = without_ids(again), without_ids(first)
        if caller is bob:
            assert told["project"]["id"] != project["id"], "his own project of that name"
            told["project"]["id"] = project["id"]
        assert told == before
        assert not {one["id"] for one in again["conversations"][0]["messages"]} & {
            one["id"] for one in first["conversations"][0]["messages"]
        }
        shown = (await caller.get(f"/api/v1/conversations/{outcome['conversation_id']}")).json()
        assert shown["message_count"] == 4
        assert shown["token_total"] == sum(one["token_count"] for one in told["messages"])
        texts = await caller.get(f"/api/v1/conversations/{outcome['conversation_id']}/messages")
        assert [one["content"] for one in texts.json()["data"]] == ["root", "right 🏔 اردو"]


async def test_an_imported_conversation_goes_on(alice: Caller, worker: None) -> None:
    imported = await bring(alice, one([said("a"), said("b", parent_id="a", role="assistant")]))
    (outcome,) = await outcomes(alice, imported)
    added = await say(alice, {"id": outcome["conversation_id"]}, "go on")
    messages = (await alice.get(f"/api/v1/conversations/{outcome['conversation_id']}/messages")).json()[
        "data"
    ]
    assert [message["content"] for message in messages] == ["hello", "hello", "go on"]
    assert messages[2] == added


async def test_messages_are_counted_as_a_chat_counts_them(alice: Caller, worker: None) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Hunza"}'}}
    parts = {"tool_calls": [call]}
    imported = await bring(
        alice,
        one([said(content="درۂ خنجراب کہاں ہے؟"), said("b", role="assistant", content="", parts=parts)]),
    )
    (outcome,) = await outcomes(alice, imported)
    path = f"/api/v1/conversations/{outcome['conversation_id']}/messages"
    first, second = (await alice.get(path, params={"branch": "all"})).json()["data"]
    assert first["token_count"] == await tokens_of("درۂ خنجراب کہاں ہے؟", None)
    assert second["token_count"] == await tokens_of("", parts) > 5
    assert second["parts"] == parts


async def test_the_same_file_again_makes_no_copies_unless_asked(alice: Caller, worker: None) -> None:
    content = one([said()])
    first = await bring(alice, content)
    (made,) = await outcomes(alice, first)
    second = await bring(alice, content)
    assert (second["imported"], second["skipped"]) == (0, 1)
    (skipped,) = await outcomes(alice, second)
    assert (skipped["status"], skipped["conversation_id"]) == ("skipped", made["conversation_id"])
    third = await bring(alice, content, duplicates="copy")
    assert third["imported"] == 1
    for outcome in (made, *await outcomes(alice, third)):
        assert (await alice.delete(f"/api/v1/conversations/{outcome['conversation_id']}")).status_code == 204
    fourth = await bring(alice, content)
    assert fourth["imported"] == 1, "it was deleted, so it is not there"


async def test_of_two_imports_of_the_same_at_once_one_finds_the_other(
    alice: Caller, running: Running
) -> None:
    content = one([said(str(n), content=f"message {n}") for n in range(500)])
    answers = [await alice.post(PATH, json=content) for _ in range(2)]
    async with running.working():
        for answer in answers:
            assert (await ended(alice, answer.json()["job"]))["status"] == "succeeded"
    found = [(await alice.get(f"/api/v1/imports/{one.json()['import']['id']}")).json() for one in answers]
    assert sorted((one["imported"], one["skipped"]) for one in found) == [(0, 1), (1, 0)]
    assert len((await alice.get("/api/v1/conversations")).json()["data"]) == 1


async def test_a_long_conversation_comes_whole_and_goes_whole(alice: Caller, worker: None) -> None:
    count = 3_000
    messages = [said(str(n), parent_id=str(n - 1) if n else None, content=f"{n} 🏔") for n in range(count)]
    messages[7]["content"] = "x" * 1_900_000
    (outcome,) = await outcomes(alice, await bring(alice, one(messages)))
    (told,) = (await export_of(alice, outcome["conversation_id"]))["conversations"]
    assert [one["content"] for one in told["messages"]] == [one["content"] for one in messages]
    assert told["head_id"] == told["messages"][-1]["id"]


async def test_anothers_import_of_the_same_file_is_no_duplicate(
    alice: Caller, bob: Caller, worker: None
) -> None:
    await bring(alice, one([said()]))
    assert (await bring(bob, one([said()])))["imported"] == 1


async def test_the_same_request_again_is_the_same_import(alice: Caller, running: Running) -> None:
    content = json.dumps(one([said()])).encode()
    keyed = {"idempotency-key": "k"}
    first = await alice.post(PATH, files={"file": ("a.json", content)}, headers=keyed)
    again = await alice.post(PATH, files={"file": ("a.json", content)}, headers=keyed)
    assert first.json() == again.json()
    assert again.headers["idempotent-replayed"] == "true"
    kept = [stored.key async for stored in running.blobs.keys(f"imports/{alice.user_id}")]
    assert kept == [import_key(alice.user_id, first.json()["import"]["id"])]
    other = await alice.post(PATH, files={"file": ("a.json", content + b" ")}, headers=keyed)
    assert other.status_code == 422
    assert [stored.key async for stored in running.blobs.keys(f"imports/{alice.user_id}")] == kept


async def test_json_may_be_the_body_itself(alice: Caller, worker: None) -> None:
    answer = await alice.post(PATH, json=one([said()]))
    assert answer.status_code == 202
    assert (await ended(alice, answer.json()["job"]))["status"] == "succeeded"


async def test_all_conversations_go_into_the_project_that_was_named(
    alice: Caller, bob: Caller, running: Running, worker: None
) -> None:
    project = (await alice.post("/api/v1/projects", json={"name": "Imported"})).json()
    imported = await bring(alice, one([said()], project={"name": "Elsewhere"}), project_id=project["id"])
    (outcome,) = await outcomes(alice, imported)
    shown = (await alice.get(f"/api/v1/conversations/{outcome['conversation_id']}")).json()
    assert shown["project_id"] == project["id"]
    refused = await bob.post(PATH, json=one([said()]), params={"project_id": project["id"]})
    assert (refused.status_code, refused.json()["type"]) == (404, "project-not-found")
    assert (await bob.get("/api/v1/imports")).json()["data"] == []
    assert [stored.key async for stored in running.blobs.keys(f"imports/{bob.user_id}")] == []


async def test_a_project_is_found_by_its_name_or_made(alice: Caller, worker: None) -> None:
    content = one([said()], project={"name": "Thesis", "description": "Sources"})
    content["conversations"].append({"title": "y", "messages": [said()], "project": {"name": "Thesis"}})
    await bring(alice, content)
    (project,) = (await alice.get("/api/v1/projects")).json()["data"]
    assert (project["name"], project["description"]) == ("Thesis", "Sources")
    inside = await alice.get("/api/v1/conversations", params={"project_id": project["id"]})
    assert len(inside.json()["data"]) == 2


async def test_one_conversation_that_can_not_be_imported_keeps_no_other_out(
    alice: Caller, worker: None
) -> None:
    content = one([said()], title="good")
    content["conversations"] += [{"title": "bad", "messages": [said(parent_id="z")]}, {"title": "fine"}]
    imported = await bring(alice, content)
    assert (imported["imported"], imported["failed"], imported["status"]) == (2, 1, "completed")
    report = await outcomes(alice, imported)
    assert [(one["place"], one["status"], one["title"]) for one in report] == [
        (0, "imported", "good"),
        (1, "failed", "bad"),
        (2, "imported", "fine"),
    ]
    assert report[1]["problem"] == (
        "conversations[1].messages[0].parent_id: there is no message 'z' in this conversation"
    )
    assert await outcomes(alice, imported, status="failed") == [report[1]]
    assert await outcomes(alice, imported, limit=1) == report[:1]
    titles = {one["title"] for one in (await alice.get("/api/v1/conversations")).json()["data"]}
    assert titles == {"good", "fine"}


async def test_a_file_of_which_nothing_can_be_imported_fails_in_words(
    alice: Caller, running: Running, worker: None
) -> None:
    imported = await bring(alice, one([said(role="robot")]), status="dead")
    assert imported["status"] == "failed"
    assert imported["job"]["attempts"] == 1
    assert imported["error"] == imported["job"]["error"]
    assert imported["error"] == (
        "Nothing could be imported: conversations[0].messages[0].role: invalid enum value 'robot'."
    )
    assert imported["failed"] == 1
    assert (await alice.get("/api/v1/conversations")).json()["data"] == []
    large = one([said(content="x" * 300_000)]) | {"version": 7}
    broken = await bring(alice, large, status="dead")
    assert "is of version 7" in broken["error"]


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        (b"", 422, "empty"),
        (b"hello", 422, "neither JSON nor a ZIP"),
        (b"{", 422, "not valid JSON"),
        (b'{"format": "baatcheet.conversations", "version": 2}', 422, "version 2"),
        (b'{"hello": 1}', 422, "no conversations"),
        (b"[1, 2]", 422, "not one of ChatGPT's"),
        (b"[" * 10_000, 422, "nested too deeply"),
    ],
)
async def test_what_is_plainly_no_export_is_refused_at_once(
    alice: Caller, content: bytes, status: int, words: str
) -> None:
    refused = await alice.post(PATH, files={"file": ("a.json", content)})
    assert refused.status_code == status, refused.text
    assert refused.headers["content-type"] == PROBLEM_JSON
    assert words in refused.json()["detail"]
    if content:
        raw = await alice.post(PATH, content=content, headers={"content-type": "application/json"})
        assert raw.status_code == status
    assert (await alice.get("/api/v1/imports")).json()["data"] == []


async def test_other_bodies_are_refused_in_words(alice: Caller) -> None:
    for content_type, status in (("text/plain", 415), ("application/json", 400)):
        refused = await alice.post(PATH, content=b"", headers={"content-type": content_type})
        assert refused.status_code == status
    too_large = await alice.post(
        PATH, content=b"[" + b" " * 64_000_001, headers={"content-type": "application/json"}
    )
    assert too_large.status_code == 413
    wrong = await alice.post(PATH, json=one([said()]), params={"duplicates": "perhaps"})
    assert (wrong.status_code, wrong.json()["param"]) == (422, "duplicates")


async def test_another_sees_neither_import_nor_report(alice: Caller, bob: Caller, worker: None) -> None:
    imported = await bring(alice, one([said()]))
    for path in (f"/api/v1/imports/{imported['id']}", f"/api/v1/imports/{imported['id']}/conversations"):
        assert (await bob.get(path)).status_code == 404
        assert (await alice.get(path)).status_code == 200
    assert (await bob.get("/api/v1/imports")).json()["data"] == []
    assert [one["id"] for one in (await alice.get("/api/v1/imports")).json()["data"]] == [imported["id"]]


async def test_the_upload_is_deleted_once_it_is_imported(
    alice: Caller, running: Running, worker: None
) -> None:
    imported = await bring(alice, one([said()]))
    assert await running.blobs.size(import_key(alice.user_id, imported["id"])) is None


async def test_conversations_are_told_of_and_their_messages_are_not(
    alice: Caller, running: Running, worker: None
) -> None:
    await bring(alice, one([said(), said("b")]))
    assert len(await recorded(running, alice, "conversation.created")) == 1
    assert await recorded(running, alice, "message.created") == []


async def test_a_cancelled_import_keeps_what_it_has_made(alice: Caller, running: Running) -> None:
    answer = await alice.post(PATH, json=one([said()]))
    await alice.post(f"/api/v1/jobs/{answer.json()['job']['id']}/cancel")
    shown = (await alice.get(f"/api/v1/imports/{answer.json()['import']['id']}")).json()
    assert (shown["status"], shown["error"]) == ("cancelled", "Cancelled.")
    retried = await alice.post(f"/api/v1/jobs/{answer.json()['job']['id']}/retry")
    assert retried.status_code == 200, "its file is kept for a while"
    async with running.working():
        assert (await ended(alice, answer.json()["job"]))["status"] == "succeeded"
    shown = (await alice.get(f"/api/v1/imports/{shown['id']}")).json()
    assert (shown["status"], shown["imported"], shown["error"]) == ("completed", 1, None)


async def test_chatgpts_archive_is_imported(alice: Caller, worker: None) -> None:
    talks = [
        corpus.conversation(
            corpus.chain(
                corpus.message("system", ""),
                corpus.message("user", "Where is Attabad?", at=corpus.BEGAN + 1),
                corpus.message("assistant", "In Gojal.", at=corpus.BEGAN + 2),
            ),
            is_archived=True,
        ),
        corpus.conversation(corpus.branched(), current="a1", title="Branches"),
    ]
    content = archive(
        {"conversations-000.json": talks[:1], "conversations-001.json": talks[1:], "chat.html": b"x"}
    )
    imported = await bring(alice, content)
    assert (imported["source"], imported["imported"], imported["messages"]) == ("chatgpt", 2, 8)
    first, second = await outcomes(alice, imported)
    shown = (await alice.get(f"/api/v1/conversations/{first['conversation_id']}")).json()
    assert (shown["title"], shown["archived"], shown["model"]) == ("Trip to Hunza", True, None)
    assert shown["created_at"] == "2023-11-14T22:13:20.250000Z"
    messages = (await alice.get(f"/api/v1/conversations/{second['conversation_id']}/messages")).json()["data"]
    assert [message["content"] for message in messages] == ["question", "first try"]
    fork = (await alice.get(f"/api/v1/messages/{messages[1]['id']}")).json()
    assert len(fork["siblings"]) == 2


async def test_an_archive_of_all_ones_data_makes_all_conversations_again(
    alice: Caller, bob: Caller, worker: None
) -> None:
    await talk(alice, "one", "two")
    await talk(alice, "three")
    made = (await alice.post("/api/v1/exports", json={"files": False})).json()
    export = await finished(alice, made)
    content = (await alice.get(f"/api/v1/exports/{export['id']}/download")).content
    imported = await bring(bob, content)
    assert (imported["imported"], imported["messages"], imported["failed"]) == (2, 3, 0)


async def test_what_a_conversation_was_asked_for_is_not_lost_with_its_place_in_a_list(
    alice: Caller, worker: None
) -> None:
    """Times, archived and all: a list looks as it did."""
    conversation = await make(alice, title="Old", archived=True)
    await say(alice, conversation, "hello")
    document = await export_of(alice, conversation["id"])
    (outcome,) = await outcomes(alice, await bring(alice, document))
    before = (await alice.get(f"/api/v1/conversations/{conversation['id']}")).json()
    after = (await alice.get(f"/api/v1/conversations/{outcome['conversation_id']}")).json()
    for field in ("title", "archived", "pinned", "created_at", "updated_at", "token_total", "message_count"):
        assert after[field] == before[field], field


async def test_a_job_of_nobody_deletes_uploads_that_nobody_needs(
    alice: Caller, running: Running, worker: None
) -> None:
    imported = await bring(alice, one([said(role="x")]), status="dead")
    key = import_key(alice.user_id, imported["id"])
    assert await running.blobs.size(key) is not None, "it may be tried again"
    async with running.db.system() as session:
        await session.execute(
            text("UPDATE imports SET ended_at = now() - interval '8 days' WHERE id = :id"),
            {"id": imported["id"]},
        )
    async with running.blobs.local(key) as path:
        os.utime(path, (0, 0))
    await clean_up(running)
    assert await running.blobs.size(key) is None
