"""What users are told of what happens, and what they do with it."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from baatcheet.events.outbox import record
from baatcheet.notifications import service
from baatcheet.notifications.service import forget_old
from baatcheet.platform.database import Database
from tests.notifications.conftest import NewPerson, Person, Teller, told_live

EXPORT = {"export_id": str(uuid4()), "conversation_id": str(uuid4()), "format": "pdf", "size": 1_234_567}


def dead(
    kind: str = "ocr.extract", queue: str = "ocr", error: str = "The image can't be read"
) -> dict[str, Any]:
    return {"job_id": str(uuid4()), "kind": kind, "queue": queue, "status": "dead", "error": error}


async def test_an_export_that_is_ready_is_told_to_its_owner_alone(
    alice: Person, bob: Person, root: Person, tell: Teller, db: Database
) -> None:
    await tell("export.completed", alice.id, **EXPORT)
    [notice] = await alice.listed()
    assert notice | {"id": "", "created_at": "", "updated_at": ""} == {
        "id": "",
        "kind": "export.completed",
        "title": "Your export is ready",
        "text": "The export of your conversation as PDF (1.2 MB) can be fetched now.",
        "link": f"/api/v1/exports/{EXPORT['export_id']}",
        "times": 1,
        "read_at": None,
        "email_status": None,
        "created_at": "",
        "updated_at": "",
    }
    assert await alice.unread() == 1
    assert await told_live(db, alice.id) == [
        {
            "notification_id": notice["id"],
            "kind": "export.completed",
            "title": "Your export is ready",
            "unread": 1,
        }
    ]
    for other in (bob, root):
        assert await other.listed() == []
        assert await told_live(db, other.id) == []


@pytest.mark.parametrize(
    ("type_", "data", "title", "said"),
    [
        (
            "export.failed",
            {"format": "md", "error": "Too long"},
            "Your export could not be made",
            "Too long.",
        ),
        ("export.completed", {"format": "json"}, "Your export is ready", "all your data as JSON"),
        ("audio.transcribed", {"filename": "کلام.mp3"}, "Your recording was transcribed", "کلام.mp3"),
        ("job.dead", dead(), "A file could not be read", "The image can't be read."),
        ("job.dead", dead("audio.transcribe", "audio"), "A recording could not be transcribed", ""),
        ("job.dead", dead("import.x", "import"), "Your conversations could not be imported", ""),
        ("job.dead", dead("x.y", "other"), "A job has failed", "x.y: "),
        (
            "webhook.disabled",
            {"host": "h.example", "reason": "failing", "error": "Timed out"},
            "A webhook was disabled",
            "Nothing could be delivered to h.example for days. Last: Timed out. Enable",
        ),
        (
            "webhook.disabled",
            {"host": "h.example", "reason": "gone"},
            "A webhook was disabled",
            "h.example says that it is gone.",
        ),
    ],
)
async def test_what_happens_is_told_in_plain_words(
    alice: Person, tell: Teller, type_: str, data: dict[str, Any], title: str, said: str
) -> None:
    await tell(type_, alice.id, **data)
    [notice] = await alice.listed()
    assert notice["title"] == title
    assert said in notice["text"]


async def test_what_is_told_otherwise_or_is_no_news_is_not_told(alice: Person, tell: Teller) -> None:
    await tell("job.dead", alice.id, **dead("exports.render", "export"))
    await tell("message.created", alice.id, role="user")
    await tell("image.ocr_completed", alice.id, filename="a.png")
    await tell("job.updated", alice.id, status="running")
    assert await alice.listed() == []


async def test_administrators_are_told_of_keys_and_of_the_system_s_jobs(
    alice: Person, root: Person, new_person: NewPerson, tell: Teller
) -> None:
    second = await new_person("Second", role="admin")
    await tell("key.quarantined", None, provider="groq", fingerprint="ab12", reason="401 from the provider")
    await tell("key.rotated", None, provider="groq")
    await tell("job.dead", None, **dead("maintenance.clean_up", "maintenance", "Something went wrong"))
    for admin in (root, second):
        titles = [one["title"] for one in await admin.listed()]
        assert titles == [
            "A job of the system has failed",
            "The keys of groq were replaced",
            "A key of groq is no longer used",
        ]
    assert await alice.listed() == []


async def test_those_alike_are_told_once_until_they_are_read(
    alice: Person, tell: Teller, db: Database
) -> None:
    await tell("job.dead", alice.id, *(dead(error=f"Page {number}") for number in range(3)))
    await tell("job.dead", alice.id, dead(error="Page 3"), dead("audio.transcribe", "audio"))
    transcription, reading = await alice.listed()
    assert transcription["times"] == 1
    assert (reading["times"], reading["text"]) == (4, "Page 3.")
    assert await alice.unread() == 2
    assert [one["unread"] for one in await told_live(db, alice.id)] == [1, 2, 2]
    await alice.api.post(f"/api/v1/notifications/{reading['id']}/read")
    await tell("job.dead", alice.id, **dead(error="Page 4"))
    newest = (await alice.listed())[0]
    assert (newest["times"], newest["text"]) == (1, "Page 4.")


async def test_marking_read_is_counted_and_told_live(alice: Person, tell: Teller, db: Database) -> None:
    await tell("export.completed", alice.id, EXPORT, EXPORT, EXPORT)
    newest, middle, _ = await alice.listed()
    for _ in range(2):
        answer = await alice.api.post(f"/api/v1/notifications/{middle['id']}/read")
        assert answer.json()["read_at"] is not None
        assert await alice.unread() == 2
    assert [one["id"] for one in await alice.listed(unread="true")] == [
        one["id"] for one in await alice.listed() if one["id"] != middle["id"]
    ]
    all_but_newest = await alice.api.post("/api/v1/notifications/read", json={"up_to": middle["id"]})
    assert all_but_newest.json() == {"marked": 1, "unread": 1}
    assert (await alice.listed(unread="true"))[0]["id"] == newest["id"]
    assert (await alice.api.post("/api/v1/notifications/read", json={})).json() == {"marked": 1, "unread": 0}
    assert (await alice.api.post("/api/v1/notifications/read", json={})).json() == {"marked": 0, "unread": 0}
    await tell.relay()
    told = await told_live(db, alice.id, "notification.read")
    assert [(one["notification_id"], one["unread"]) for one in told] == [
        (middle["id"], 2),
        (None, 1),
        (None, 0),
    ]


async def test_a_deleted_notification_is_gone(alice: Person, tell: Teller, db: Database) -> None:
    await tell("export.completed", alice.id, EXPORT, EXPORT)
    [first, second] = await alice.listed()
    address = f"/api/v1/notifications/{first['id']}"
    assert (await alice.api.get(address)).json() == first
    assert (await alice.api.delete(address)).status_code == 204
    assert (await alice.api.delete(address)).status_code == 404
    assert (await alice.api.get(address)).json()["type"] == "notification-not-found"
    assert await alice.listed() == [second]
    await tell.relay()
    assert [one["unread"] for one in await told_live(db, alice.id, "notification.read")] == [1]


async def test_the_list_is_paged_and_filtered(alice: Person, tell: Teller) -> None:
    await tell("export.completed", alice.id, *(EXPORT | {"size": size} for size in range(7)))
    await tell("audio.transcribed", alice.id, filename="a.mp3")
    seen: list[str] = []
    cursor: str | None = None
    while True:
        asked = {"limit": "3", "kind": "export.completed"} | ({"cursor": cursor} if cursor else {})
        page = await alice.api.get("/api/v1/notifications", params=asked)
        seen += [one["text"] for one in page.json()["data"]]
        cursor = page.json()["next_cursor"]
        assert page.json()["has_more"] == (cursor is not None)
        if cursor is None:
            break
    assert [f"({size} bytes)" in text for size, text in zip(range(6, -1, -1), seen, strict=True)] == [
        True
    ] * 7
    assert (await alice.api.get("/api/v1/notifications", params={"cursor": "x"})).status_code == 400
    for wrong in ({"kind": "nothing"}, {"unread": "yes"}, {"limit": "0"}):
        assert (await alice.api.get("/api/v1/notifications", params=wrong)).status_code == 422


async def test_two_tenants_never_see_one_another_s(
    alice: Person, bob: Person, root: Person, tell: Teller, db: Database
) -> None:
    await tell("export.completed", alice.id, **EXPORT)
    [mine] = await alice.listed()
    address = f"/api/v1/notifications/{mine['id']}"
    for other in (bob, root):
        for verb, path in (("GET", address), ("POST", f"{address}/read"), ("DELETE", address)):
            answer = await other.api.request(verb, path)
            assert answer.status_code == 404
            unknown = await other.api.request(verb, path.replace(mine["id"], str(uuid4())))
            assert unknown.json()["title"] == answer.json()["title"]
        assert (await other.api.post("/api/v1/notifications/read", json={})).json()["marked"] == 0
        await other.want("export.completed", in_app=False)
    assert await alice.listed() == [mine]
    await tell("export.completed", alice.id, **EXPORT)
    assert len(await alice.listed()) == 2


async def test_a_query_without_its_filter_sees_nothing_of_others(
    alice: Person, bob: Person, tell: Teller, db: Database
) -> None:
    await tell("export.completed", alice.id, **EXPORT)
    await alice.want("export.completed", email=False)
    async with db.tenant(bob.id) as session:
        for table in ("notifications", "notification_preferences"):
            assert await session.scalar(text(f"SELECT count(*) FROM {table}")) == 0
        for statement in ("UPDATE notifications SET title = 'x'", "DELETE FROM notifications"):
            assert (await session.execute(text(f"{statement} RETURNING 1"))).all() == []
    async with db.tenant(alice.id) as session:
        assert await session.scalar(text("SELECT count(*) FROM notifications")) == 1


async def test_a_tenant_can_t_read_the_deployment_s_secrets(alice: Person, db: Database) -> None:
    with pytest.raises(Exception, match="permission denied"):
        async with db.tenant(alice.id) as session:
            await session.execute(text("SELECT * FROM deployment_secrets"))


async def test_preferences_say_what_is_told_where(alice: Person, root: Person, tell: Teller) -> None:
    listed = (await alice.api.get("/api/v1/notifications/preferences")).json()
    assert listed["email_available"] is True
    kinds = {one["kind"]: one for one in listed["data"]}
    assert "key.rotated" not in kinds
    assert all(one["in_app"] for one in kinds.values())
    assert kinds["export.completed"]["email"] is True
    for_root = (await root.api.get("/api/v1/notifications/preferences")).json()
    assert {"key.rotated", "key.quarantined"} < {one["kind"] for one in for_root["data"]}

    await alice.want("export.completed", in_app=False, email=False)
    await alice.want("export.completed", email=True)
    listed = (await alice.api.get("/api/v1/notifications/preferences")).json()
    [changed] = [one for one in listed["data"] if one["kind"] == "export.completed"]
    assert (changed["in_app"], changed["email"]) == (False, True)
    await tell("export.completed", alice.id, **EXPORT)
    await tell("export.failed", alice.id, **EXPORT)
    assert [one["kind"] for one in await alice.listed()] == ["export.failed"]

    refused = await alice.api.patch("/api/v1/notifications/preferences/key.rotated", json={"email": True})
    assert refused.status_code == 404
    for wrong in ({"email": None}, {"email": "yes"}, {"sms": True}):
        answer = await alice.api.patch("/api/v1/notifications/preferences/export.failed", json=wrong)
        assert answer.status_code == 422


async def test_reading_and_writing_need_their_scopes(new_person: NewPerson, tell: Teller) -> None:
    reader = await new_person(scopes=["read"])
    await tell("export.completed", reader.id, **EXPORT)
    [notice] = await reader.listed()
    for verb, path in (
        ("POST", f"{notice['id']}/read"),
        ("POST", "read"),
        ("DELETE", notice["id"]),
        ("PATCH", "preferences/export.completed"),
    ):
        answer = await reader.api.request(verb, f"/api/v1/notifications/{path}", json={})
        assert answer.status_code == 403, path
    writer = await new_person(scopes=["write"])
    assert (await writer.api.get("/api/v1/notifications")).status_code == 403


async def test_nobody_who_is_gone_or_inactive_is_told(
    new_person: NewPerson, tell: Teller, db: Database
) -> None:
    gone, inactive = await new_person(), await new_person(active=False)
    async with db.system() as session:
        await session.execute(text("DELETE FROM users WHERE id = :id"), {"id": gone.id})
    await tell("export.completed", inactive.id, **EXPORT)
    await tell("export.completed", gone.id, **EXPORT)
    async with db.system() as session:
        assert await session.scalar(text("SELECT count(*) FROM notifications")) == 0
        assert await session.scalar(text("SELECT count(*) FROM events WHERE poisoned IS NOT NULL")) == 0


async def test_any_event_of_any_shape_is_told_or_left_and_never_put_aside(
    alice: Person, root: Person, tell: Teller, db: Database
) -> None:
    odd: list[dict[str, Any]] = [
        {},
        {"error": None, "size": None, "format": None, "filename": "", "queue": None, "kind": None},
        {"error": "x" * 100_000, "filename": "\u202e\r\n" * 50, "size": "many", "kind": 7, "format": "exe"},
        {
            "error": ["a"],
            "filename": {"a": 1},
            "export_id": [1],
            "provider": "p" * 5000,
            "conversation_id": 0,
        },
    ]
    for type_ in ("export.completed", "export.failed", "audio.transcribed", "job.dead"):
        await tell(type_, alice.id, *odd)
    for type_ in ("key.quarantined", "key.rotated", "job.dead"):
        await tell(type_, None, *odd)
    for person in (alice, root):
        for one in await person.listed():
            assert 0 < len(one["title"]) <= 120
            assert 0 < len(one["text"]) <= 1000
            assert one["text"].isprintable(), one
    async with db.system() as session:
        assert await session.scalar(text("SELECT count(*) FROM events WHERE poisoned IS NOT NULL")) == 0


async def test_a_full_batch_is_told_whole(new_person: NewPerson, tell: Teller) -> None:
    people = [await new_person(f"user {number}") for number in range(5)]
    async with tell.db.system() as session:
        for number in range(500):
            await record(session, "export.completed", EXPORT, user=people[number % 5].id)
    async with asyncio.timeout(120):  # that it ends at all
        await tell.relay()
    for person in people:
        assert await person.unread() == 100


async def test_old_notifications_are_forgotten(
    alice: Person, tell: Teller, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "BATCH", 2)
    await tell("export.completed", alice.id, *[EXPORT] * 6)
    [kept, *old] = await alice.listed()
    async with db.system() as session:
        await session.execute(
            text("UPDATE notifications SET updated_at = now() - interval '91 days' WHERE id = ANY(:ids)"),
            {"ids": [UUID(one["id"]) for one in old]},
        )
    assert await forget_old(db, timedelta(days=90)) == 5
    assert await alice.listed() == [kept]
