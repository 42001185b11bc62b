"""Exports over HTTP: asked for, made, fetched in whole and in part, deleted; nobody sees another's."""

import asyncio
import io
import json
import time
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from baatcheet.attachments.keys import file_key
from baatcheet.audio.keys import audio_key
from baatcheet.exports import jobs
from baatcheet.exports.account import TABLES_OF_ONES_OWN
from baatcheet.exports.jobs import Nothing, expire_exports
from baatcheet.exports.keys import export_key
from baatcheet.jobs.enqueueing import enqueue
from baatcheet.kit.ids import new_id
from tests.conftest import Caller
from tests.conversations.test_conversations import make, say
from tests.exports.application import Running
from tests.exports.conftest import ended


async def ask(caller: Caller, conversation: dict[str, Any], **body: Any) -> dict[str, Any]:
    answer = await caller.post(f"/api/v1/conversations/{conversation['id']}/exports", json=body)
    assert answer.status_code == 202, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def finished(caller: Caller, made: dict[str, Any]) -> dict[str, Any]:
    """The export, once it is made."""
    job = await ended(caller, made["job"])
    assert job["status"] == "succeeded", job
    answer = await caller.get(f"/api/v1/exports/{made['export']['id']}")
    assert answer.status_code == 200, answer.text
    export: dict[str, Any] = answer.json()
    assert export["status"] == "completed", export
    return export


async def talk(caller: Caller, *texts: str, **fields: Any) -> dict[str, Any]:
    conversation = await make(caller, title="Trip to Hunza", **fields)
    for at, one in enumerate(texts):
        await say(caller, conversation, one, role="assistant" if at % 2 else "user")
    found: dict[str, Any] = (await caller.get(f"/api/v1/conversations/{conversation['id']}")).json()
    return found


async def test_an_export_is_asked_for_made_and_fetched(alice: Caller, worker: None) -> None:
    conversation = await talk(alice, "Where is Attabad?", "In **Gojal**.")
    answer = await alice.post(f"/api/v1/conversations/{conversation['id']}/exports", json={"format": "json"})
    assert answer.status_code == 202
    made = answer.json()
    assert answer.headers["location"] == f"/api/v1/exports/{made['export']['id']}"
    assert made["export"]["status"] == "pending"
    assert made["export"]["branch"] == "all"
    assert made["job"]["kind"] == "export.render"
    assert made["job"]["subject_id"] == made["export"]["id"]
    export = await finished(alice, made)
    assert export["filename"] == "Trip to Hunza.json"
    assert export["expires_at"] > (datetime.now(UTC) + timedelta(days=6)).isoformat()
    file = await alice.get(f"/api/v1/exports/{export['id']}/download")
    assert file.status_code == 200
    assert len(file.content) == export["size"]
    assert file.headers["content-type"] == "application/json"
    assert file.headers["content-disposition"] == (
        "attachment; filename=\"Trip to Hunza.json\"; filename*=UTF-8''Trip%20to%20Hunza.json"
    )
    document = file.json()
    assert (document["format"], document["version"]) == ("baatcheet.conversations", 1)
    (exported,) = document["conversations"]
    assert exported["id"] == conversation["id"]
    assert exported["head_id"] == conversation["head_id"]
    assert [one["content"] for one in exported["messages"]] == ["Where is Attabad?", "In **Gojal**."]
    listed = (await alice.get("/api/v1/exports", params={"conversation_id": conversation["id"]})).json()
    assert [one["id"] for one in listed["data"]] == [export["id"]]


@pytest.mark.parametrize("format", ["pdf", "md", "txt"])
async def test_a_conversation_can_be_read_in_every_format(alice: Caller, worker: None, format: str) -> None:  # noqa: A002
    conversation = await talk(alice, "Where is Attabad?", "In **Gojal**.", system_prompt="Answer briefly.")
    made = await ask(alice, conversation, format=format, time_zone="Asia/Karachi")
    export = await finished(alice, made)
    file = await alice.get(f"/api/v1/exports/{export['id']}/download")
    assert file.status_code == 200
    assert len(file.content) == export["size"]
    if format == "pdf":
        assert file.content.startswith(b"%PDF-")
    else:
        assert "Where is Attabad?" in file.text
        assert "Gojal" in file.text


async def test_what_is_said_later_is_not_in_the_file(alice: Caller, running: Running) -> None:
    conversation = await talk(alice, "first", "second")
    made = await ask(alice, conversation, format="json", branch="active")
    await say(alice, conversation, "later")
    async with running.working():
        export = await finished(alice, made)
    document = (await alice.get(f"/api/v1/exports/{export['id']}/download")).json()
    assert [one["content"] for one in document["conversations"][0]["messages"]] == ["first", "second"]


async def test_one_branch_or_all_of_them(alice: Caller, worker: None) -> None:
    conversation = await talk(alice, "root", "left", "left leaf")
    path = f"/api/v1/conversations/{conversation['id']}"
    root = (await alice.get(f"{path}/messages")).json()["data"][0]
    await alice.patch(path, json={"head_id": root["id"]})
    await say(alice, conversation, "right", role="assistant")
    texts = {}
    for branch in ("active", "all"):
        export = await finished(alice, await ask(alice, conversation, format="json", branch=branch))
        document = (await alice.get(f"/api/v1/exports/{export['id']}/download")).json()
        texts[branch] = [one["content"] for one in document["conversations"][0]["messages"]]
    assert texts == {"active": ["root", "right"], "all": ["root", "left", "left leaf", "right"]}


async def test_what_branches_off_is_read_after_the_active_branch(alice: Caller, worker: None) -> None:
    conversation = await talk(alice, "root", "left", "left leaf")
    path = f"/api/v1/conversations/{conversation['id']}"
    root = (await alice.get(f"{path}/messages")).json()["data"][0]
    await alice.patch(path, json={"head_id": root["id"]})
    await say(alice, conversation, "right", role="assistant")
    export = await finished(alice, await ask(alice, conversation, format="txt", branch="all"))
    written = (await alice.get(f"/api/v1/exports/{export['id']}/download")).text
    places = [
        written.index(one) for one in ("\nroot", "\nright", "another branch", "\nleft\n", "\nleft leaf")
    ]
    assert places == sorted(places)


async def test_an_empty_conversation_can_be_exported(alice: Caller, worker: None) -> None:
    conversation = await talk(alice)
    for wanted in ("json", "md", "pdf"):
        export = await finished(alice, await ask(alice, conversation, format=wanted))
        assert export["size"] > 0


async def test_a_file_is_fetched_in_parts(alice: Caller, worker: None) -> None:
    export = await finished(alice, await ask(alice, await talk(alice, "hello"), format="json"))
    path = f"/api/v1/exports/{export['id']}/download"
    whole = await alice.get(path)
    size = len(whole.content)
    for header, part in (
        ("bytes=0-9", whole.content[:10]),
        ("bytes=10-", whole.content[10:]),
        ("bytes=-7", whole.content[-7:]),
        (f"bytes=5-{size + 100}", whole.content[5:]),
    ):
        answer = await alice.get(path, headers={"range": header})
        assert answer.status_code == 206
        assert answer.content == part
        start = whole.content.index(part) if header != "bytes=-7" else size - 7
        assert answer.headers["content-range"] == f"bytes {start}-{start + len(part) - 1}/{size}"
    for header in ("bytes=0-1,4-5", "bytes=9-2", "lines=1-2", "bytes=-"):
        answer = await alice.get(path, headers={"range": header})
        assert (answer.status_code, answer.content) == (200, whole.content)
    for header in (f"bytes={size}-", "bytes=-0"):
        beyond = await alice.get(path, headers={"range": header})
        assert beyond.status_code == 416
        assert beyond.headers["content-range"] == f"bytes */{size}"
    etag = whole.headers["etag"]
    again = await alice.get(path, headers={"range": "bytes=0-1", "if-range": etag})
    assert again.status_code == 206
    other = await alice.get(path, headers={"range": "bytes=0-1", "if-range": '"another"'})
    assert other.status_code == 200
    assert (await alice.get(path, headers={"if-none-match": etag})).status_code == 304
    assert (await alice.head(path)).headers["content-length"] == str(size)


async def test_a_link_opens_one_file_without_a_token(alice: Caller, running: Running, worker: None) -> None:
    one = await finished(alice, await ask(alice, await talk(alice, "mine"), format="json"))
    other = await finished(alice, await ask(alice, await talk(alice, "other"), format="json"))
    async with Caller(running.url) as nobody:
        url = one["download"]["url"]
        answer = await nobody.get(url)
        assert answer.status_code == 200
        assert answer.headers["content-disposition"].startswith("attachment")
        assert (await nobody.get(url, headers={"range": "bytes=0-0"})).content == b"{"
        assert (await nobody.get(f"/files/exports/{one['id']}")).status_code == 403
        for forged in (url.replace(one["id"], other["id"]), url[:-1], url.replace("expires=", "expires=9")):
            refused = await nobody.get(forged)
            assert refused.status_code == 403
            assert refused.json()["type"] == "link-not-valid"
        assert (await nobody.get(f"/api/v1/exports/{one['id']}/download")).status_code == 401


async def test_a_link_opens_nothing_of_a_user_who_is_deactivated_or_gone(
    alice: Caller, running: Running, worker: None
) -> None:
    export = await finished(alice, await ask(alice, await talk(alice, "mine"), format="json"))
    url, owner = export["download"]["url"], {"id": export["id"]}
    whose = "(SELECT user_id FROM exports WHERE id = :id)"
    async with Caller(running.url) as nobody:
        for change, status in (
            (f"UPDATE users SET active = false WHERE id = {whose}", 404),
            (f"UPDATE users SET active = true WHERE id = {whose}", 200),
            (f"DELETE FROM users WHERE id = {whose}", 404),
        ):
            async with running.db.system() as session:
                await session.execute(text(change), owner)
            answer = await nobody.get(url)
            assert answer.status_code == status, change
            if status == 404:
                assert answer.json()["type"] == "export-not-found"


async def test_another_sees_neither_export_nor_file_nor_conversation(
    alice: Caller, bob: Caller, worker: None
) -> None:
    conversation = await talk(alice, "secret")
    export = await finished(alice, await ask(alice, conversation, format="json"))
    for method, path in (
        ("GET", f"/api/v1/exports/{export['id']}"),
        ("GET", f"/api/v1/exports/{export['id']}/download"),
        ("DELETE", f"/api/v1/exports/{export['id']}"),
        ("GET", f"/api/v1/jobs/{export['job_id']}"),
    ):
        assert (await bob.request(method, path)).status_code == 404, (method, path)
    refused = await bob.post(f"/api/v1/conversations/{conversation['id']}/exports", json={"format": "json"})
    assert (refused.status_code, refused.json()["type"]) == (404, "conversation-not-found")
    assert (await bob.get("/api/v1/exports")).json()["data"] == []
    filtered = await bob.get("/api/v1/exports", params={"conversation_id": conversation["id"]})
    assert filtered.json()["data"] == []
    assert (await alice.get(f"/api/v1/exports/{export['id']}")).status_code == 200


async def test_the_same_request_again_is_the_same_export(alice: Caller) -> None:
    conversation = await talk(alice, "hello")
    path = f"/api/v1/conversations/{conversation['id']}/exports"
    answers = [
        await alice.post(path, json={"format": "md"}, headers={"idempotency-key": "k"}) for _ in range(2)
    ]
    assert [one.status_code for one in answers] == [202, 202]
    assert answers[0].json() == answers[1].json()
    assert len((await alice.get("/api/v1/exports")).json()["data"]) == 1
    reused = await alice.post(path, json={"format": "txt"}, headers={"idempotency-key": "k"})
    assert reused.status_code == 422


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "format"),
        ({"format": "zip"}, "format"),
        ({"format": "pdf", "branch": "some"}, "branch"),
        ({"format": "pdf", "time_zone": "Hunza/Karimabad"}, "time_zone"),
        ({"format": "pdf", "paper": "a0"}, "paper"),
        ({"format": "pdf", "colour": "red"}, "colour"),
    ],
)
async def test_a_wrong_request_is_told_what_is_wrong(alice: Caller, body: dict[str, Any], field: str) -> None:
    conversation = await talk(alice, "hello")
    refused = await alice.post(f"/api/v1/conversations/{conversation['id']}/exports", json=body)
    assert (refused.status_code, refused.json()["param"]) == (422, field)


async def test_a_file_that_is_not_there_yet_is_a_conflict(alice: Caller) -> None:
    made = await ask(alice, await talk(alice, "hello"), format="json")
    early = await alice.get(f"/api/v1/exports/{made['export']['id']}/download")
    assert (early.status_code, early.json()["type"]) == (409, "export-not-ready")
    assert made["job"]["id"] in early.json()["detail"]
    assert made["export"]["download"] is None


async def test_a_conversation_that_is_deleted_meanwhile_ends_the_export_in_words(
    alice: Caller, running: Running
) -> None:
    conversation = await talk(alice, "hello")
    made = await ask(alice, conversation, format="json")
    assert (await alice.delete(f"/api/v1/conversations/{conversation['id']}")).status_code == 204
    async with running.working():
        job = await ended(alice, made["job"])
    assert (job["status"], job["attempts"]) == ("dead", 1)
    export = (await alice.get(f"/api/v1/exports/{made['export']['id']}")).json()
    assert export["status"] == "failed"
    assert export["error"] == job["error"] == "The conversation was deleted before the export was made."
    assert await recorded(running, alice, "export.failed") == [
        {
            "export_id": export["id"],
            "conversation_id": conversation["id"],
            "format": "json",
            "error": export["error"],
        }
    ]
    failed = await alice.get(f"/api/v1/exports/{export['id']}/download")
    assert (failed.status_code, failed.json()["type"]) == (409, "export-not-ready")


async def recorded(running: Running, caller: Caller, type: str) -> list[dict[str, Any]]:  # noqa: A002
    """The data of the events of a type that were told, relayed or not."""
    async with running.db.system() as session:
        found = await session.execute(
            text(
                "SELECT data FROM outbox WHERE user_id = :user AND type = :type "
                "UNION ALL SELECT data FROM events WHERE user_id = :user AND type = :type"
            ),
            {"user": caller.user_id, "type": type},
        )
        return list(found.scalars())


async def test_an_export_tells_of_itself_once(alice: Caller, running: Running, worker: None) -> None:
    conversation = await talk(alice, "hello")
    export = await finished(alice, await ask(alice, conversation, format="json"))
    assert await recorded(running, alice, "export.completed") == [
        {
            "export_id": export["id"],
            "conversation_id": conversation["id"],
            "format": "json",
            "size": export["size"],
        }
    ]


async def test_a_deleted_export_is_gone_with_its_file(alice: Caller, running: Running, worker: None) -> None:
    export = await finished(alice, await ask(alice, await talk(alice, "hello"), format="json"))
    assert (await alice.delete(f"/api/v1/exports/{export['id']}")).status_code == 204
    assert (await alice.get(f"/api/v1/exports/{export['id']}")).status_code == 404
    async with Caller(running.url) as nobody:
        assert (await nobody.get(export["download"]["url"])).status_code == 404
    assert await running.blobs.size(export_key(alice.user_id, export["id"])) is None


async def test_an_export_that_is_deleted_before_it_is_made_is_not_made(
    alice: Caller, running: Running
) -> None:
    made = await ask(alice, await talk(alice, "hello"), format="json")
    assert (await alice.delete(f"/api/v1/exports/{made['export']['id']}")).status_code == 204
    job = (await alice.get(f"/api/v1/jobs/{made['job']['id']}")).json()
    assert job["status"] == "cancelled"
    assert await recorded(running, alice, "export.failed") == []


async def test_a_cancelled_job_leaves_a_cancelled_export(alice: Caller) -> None:
    made = await ask(alice, await talk(alice, "hello"), format="json")
    await alice.post(f"/api/v1/jobs/{made['job']['id']}/cancel")
    export = (await alice.get(f"/api/v1/exports/{made['export']['id']}")).json()
    assert export["status"] == "cancelled"


async def clean_up(running: Running) -> None:
    async with running.db.system() as session:
        queued = await enqueue(session, expire_exports, Nothing(), owner=None)
    deadline = time.monotonic() + 30
    status = "queued"
    while status != "succeeded":
        assert status in {"queued", "running"}
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
        async with running.db.system() as session:
            status = (
                await session.scalar(text("SELECT status FROM jobs WHERE id = :id"), {"id": queued.id}) or ""
            )


async def test_a_file_is_deleted_when_its_time_is_over(alice: Caller, running: Running, worker: None) -> None:
    export = await finished(alice, await ask(alice, await talk(alice, "hello"), format="json"))
    kept = await finished(alice, await ask(alice, await talk(alice, "hello"), format="json"))
    async with running.db.system() as session:
        await session.execute(
            text("UPDATE exports SET expires_at = now() - interval '1 second' WHERE id = :id"),
            {"id": export["id"]},
        )
    path = f"/api/v1/exports/{export['id']}"
    gone = await alice.get(f"{path}/download")
    assert (gone.status_code, gone.json()["type"]) == (404, "export-expired")
    assert (await alice.get(path)).json()["download"] is None
    await clean_up(running)
    assert (await alice.get(path)).json()["status"] == "expired"
    assert await running.blobs.size(export_key(alice.user_id, export["id"])) is None
    assert (await alice.get(f"{path}/download")).json()["type"] == "export-expired"
    assert (await alice.get(f"/api/v1/exports/{kept['id']}/download")).status_code == 200


async def test_exports_that_ended_long_ago_are_listed_no_more(
    alice: Caller, running: Running, worker: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "BATCH", 2)
    conversation = await talk(alice, "hello")
    made = [await ask(alice, conversation, format="json") for _ in range(6)]
    exports = [(await finished(alice, one))["id"] for one in made]
    async with running.db.system() as session:
        await session.execute(
            text(
                "UPDATE exports SET status = 'expired', created_at = now() - interval '91 days' WHERE id = ANY(:ids)"
            ),
            {"ids": exports[1:]},
        )
        await session.execute(
            text("UPDATE exports SET created_at = now() - interval '91 days' WHERE id = :id"),
            {"id": exports[0]},
        )
    await clean_up(running)
    listed = (await alice.get("/api/v1/exports")).json()["data"]
    assert [one["id"] for one in listed] == exports[:1], "a file that is there keeps its row"


async def test_all_of_ones_data_comes_as_an_archive(alice: Caller, bob: Caller, worker: None) -> None:
    await talk(bob, "not hers")
    project = (await alice.post("/api/v1/projects", json={"name": "Thesis"})).json()
    first = await talk(alice, "one", "two", project_id=project["id"])
    second = await talk(alice, "three")
    made = (await alice.post("/api/v1/exports", json={})).json()
    assert (made["export"]["scope"], made["export"]["format"]) == ("account", "zip")
    export = await finished(alice, made)
    file = await alice.get(f"/api/v1/exports/{export['id']}/download")
    assert file.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(file.content)) as archive:
        assert archive.testzip() is None
        names = set(archive.namelist())
        about = json.loads(archive.read("export.json"))
        assert about["format"] == "baatcheet.archive"
        assert about["user"]["id"] == str(alice.user_id)
        assert (about["conversations"], about["messages"]) == (2, 3)
        assert {one for one in names if one.startswith("conversations/")} == {
            f"conversations/{first['id']}.json",
            f"conversations/{second['id']}.json",
        }
        (told,) = json.loads(archive.read(f"conversations/{first['id']}.json"))["conversations"]
        assert [one["content"] for one in told["messages"]] == ["one", "two"]
        assert told["project"]["name"] == "Thesis"
        assert [one["name"] for one in json.loads(archive.read("projects.json"))] == ["Thesis"]
        (token,) = json.loads(archive.read("tokens.json"))
        assert set(token) <= {
            "id",
            "name",
            "prefix",
            "scopes",
            "created_at",
            "expires_at",
            "last_used_at",
            "revoked_at",
        }
        assert {"usage.json", "notifications.json", "attachments.json"} <= names
    assert alice.token is not None
    assert alice.token.encode() not in file.content


async def test_the_archive_has_uploaded_files_unless_told_otherwise(
    alice: Caller, running: Running, worker: None, tmp_path: Path
) -> None:
    ids = [new_id(), new_id()]
    async with running.db.system() as session:
        for at, one in enumerate(ids):
            await session.execute(
                text(
                    "INSERT INTO attachments (id, user_id, job_id, reading, filename, kind, media_type, size, sha256) "
                    "VALUES (:id, :user, :id, :id, :name, 'txt', 'text/plain', 5, :name)"
                ),
                {"id": one, "user": alice.user_id, "name": f"نقشہ {at}.txt"},
            )
        await session.execute(
            text(
                "INSERT INTO attachment_pages (attachment_id, reading, number, user_id, text, engine) "
                "VALUES (:id, :id, 1, :user, 'one', 'x'), (:id, :id, 2, :user, 'two', 'x')"
            ),
            {"id": ids[0], "user": alice.user_id},
        )
    path = tmp_path / "upload"
    path.write_bytes(b"hello")
    await running.blobs.put(file_key(alice.user_id, ids[0]), path)
    for files in (True, False):
        made = (await alice.post("/api/v1/exports", json={"files": files})).json()
        export = await finished(alice, made)
        content = (await alice.get(f"/api/v1/exports/{export['id']}/download")).content
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            assert archive.testzip() is None
            listed = json.loads(archive.read("attachments.json"))
            assert [one["extracted_text"] for one in listed] == ["one\n\ntwo", None]
            inside = [one for one in archive.namelist() if one.startswith("files/")]
            assert inside == ([f"files/{ids[0]}/نقشہ 0.txt"] if files else [])
            if files:
                assert archive.read(inside[0]) == b"hello"
        assert export["notes"] == (["نقشہ 1.txt is not in it: the file is gone."] if files else [])


def test_files_are_looked_for_where_they_are_kept() -> None:
    prefixes = {table.name: table.files for table in TABLES_OF_ONES_OWN if table.files is not None}
    owner, row = new_id(), new_id()
    assert {name: f"{prefix}{owner}/{row}" for name, prefix in prefixes.items()} == {
        "attachments": file_key(owner, row),
        "recordings": audio_key(owner, row),
    }


async def test_a_token_that_may_only_read_exports_nothing(
    alice: Caller, somebody: Any, running: Running
) -> None:
    reader: httpx.AsyncClient = await somebody("reader", scopes=frozenset({"read"}))
    assert (await reader.post("/api/v1/exports", json={})).status_code == 403
