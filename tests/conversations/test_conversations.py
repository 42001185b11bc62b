"""Conversations: made, listed, changed, deleted."""

import asyncio
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from baatcheet.kit.ids import new_id
from baatcheet.platform.database import Database
from tests.conftest import Caller

NOWHERE = "0190f3a2-7c1e-7d4b-9a51-3f0c2b8e6d10"


async def make(caller: Caller, **fields: Any) -> dict[str, Any]:
    made = await caller.post("/api/v1/conversations", json=fields)
    assert made.status_code == 201, made.text
    conversation: dict[str, Any] = made.json()
    return conversation


async def say(
    caller: Caller, conversation: dict[str, Any], content: str, role: str = "user"
) -> dict[str, Any]:
    path = f"/api/v1/conversations/{conversation['id']}/messages"
    made = await caller.post(path, json={"role": role, "content": content})
    assert made.status_code == 201, made.text
    message: dict[str, Any] = made.json()
    return message


async def run_turn(database: Database, caller: Caller, conversation: dict[str, Any]) -> UUID:
    """A turn that runs there, as far as the database knows."""
    turn = new_id()
    async with database.system() as session:
        await session.execute(
            text("INSERT INTO turns (id, user_id, conversation_id) VALUES (:id, :user, :conversation)"),
            {"id": turn, "user": caller.user_id, "conversation": conversation["id"]},
        )
    return turn


async def titles(caller: Caller, **params: Any) -> list[str]:
    listed = await caller.get("/api/v1/conversations", params=params)
    assert listed.status_code == 200, listed.text
    return [conversation["title"] for conversation in listed.json()["data"]]


async def test_a_conversation_is_made_with_what_it_was_given(alice: Caller) -> None:
    project = (await alice.post("/api/v1/projects", json={"name": "p"})).json()
    given = {
        "title": "سفرِ ہنزہ 🏔",
        "system_prompt": "Answer briefly.",
        "model": "demo/demo",
        "project_id": project["id"],
        "archived": True,
        "pinned": True,
    }
    made = await make(alice, **given)
    assert made == made | given
    assert made["head_id"] is None
    assert made["token_total"] == made["message_count"] == 0
    assert (await alice.get(f"/api/v1/conversations/{made['id']}")).json() == made
    assert (await make(alice))["title"] == ""


async def test_what_changed_last_comes_first(alice: Caller) -> None:
    made = [await make(alice, title=str(n)) for n in range(3)]
    assert await titles(alice) == ["2", "1", "0"]
    await alice.patch(f"/api/v1/conversations/{made[0]['id']}", json={"pinned": True})
    assert await titles(alice) == ["0", "2", "1"]
    await say(alice, made[1], "hello")
    assert await titles(alice) == ["1", "0", "2"]


async def test_the_list_is_filtered(alice: Caller) -> None:
    project = (await alice.post("/api/v1/projects", json={"name": "p"})).json()
    await make(alice, title="plain")
    await make(alice, title="archived", archived=True)
    await make(alice, title="pinned", pinned=True)
    await make(alice, title="filed", project_id=project["id"], pinned=True)
    assert await titles(alice, archived="true") == ["archived"]
    assert await titles(alice, archived="false") == ["filed", "pinned", "plain"]
    assert await titles(alice, pinned="true") == ["filed", "pinned"]
    assert await titles(alice, project_id=project["id"]) == ["filed"]
    assert await titles(alice, project_id=project["id"], pinned="false") == []
    assert await titles(alice, project_id=NOWHERE) == []


async def test_pages_show_everything_once_where_times_are_equal(alice: Caller, database: Database) -> None:
    made = [(await make(alice, title=str(n)))["id"] for n in range(7)]
    async with database.system() as session:
        await session.execute(
            text("UPDATE conversations SET updated_at = date_trunc('hour', now()) WHERE user_id = :user"),
            {"user": alice.user_id},
        )
    seen: list[str] = []
    params = {"limit": "3"}
    while True:
        page = (await alice.get("/api/v1/conversations", params=params)).json()
        seen += [conversation["id"] for conversation in page["data"]]
        if not page["has_more"]:
            break
        params["cursor"] = page["next_cursor"]
    assert seen == made[::-1]


async def test_a_page_of_heavy_prompts_is_cut_short_and_goes_on(alice: Caller) -> None:
    prompt = "x" * 1_000_000
    for n in range(18):
        await make(alice, title=str(n), system_prompt=prompt)
    first = (await alice.get("/api/v1/conversations")).json()
    assert 0 < len(first["data"]) < 18
    assert first["has_more"]
    rest = (await alice.get("/api/v1/conversations", params={"cursor": first["next_cursor"]})).json()
    assert len(first["data"]) + len(rest["data"]) == 18


async def test_what_is_left_out_of_a_change_stays_and_null_takes_away(alice: Caller) -> None:
    project = (await alice.post("/api/v1/projects", json={"name": "p"})).json()
    made = await make(
        alice, title="t", system_prompt="s", model="demo/demo", project_id=project["id"], archived=True
    )
    where = f"/api/v1/conversations/{made['id']}"
    changed = (await alice.patch(where, json={"title": "u"})).json()
    assert changed == made | {"title": "u", "updated_at": changed["updated_at"]}
    nothing = {"system_prompt": None, "model": None, "project_id": None, "archived": False}
    cleared = (await alice.patch(where, json=nothing)).json()
    assert cleared == changed | nothing | {"updated_at": cleared["updated_at"]}
    assert (await alice.patch(where, json={"project_id": project["id"]})).json()["project_id"] == project[
        "id"
    ]


async def test_a_conversation_is_deleted_permanently_with_its_messages(
    alice: Caller, database: Database
) -> None:
    made = await make(alice)
    message = await say(alice, made, "hello")
    where = f"/api/v1/conversations/{made['id']}?permanently=true"
    assert (await alice.delete(where)).status_code == 204
    assert (await alice.post(f"/api/v1/conversations/{made['id']}/restore")).status_code == 404
    assert (await alice.delete(where)).status_code == 404
    assert (await alice.get(f"/api/v1/conversations/{made['id']}")).status_code == 404
    assert (await alice.get(f"/api/v1/messages/{message['id']}")).status_code == 404
    async with database.system() as session:
        left = await session.scalar(
            text("SELECT count(*) FROM messages WHERE id = :id"), {"id": message["id"]}
        )
    assert left == 0


async def test_while_a_turn_runs_nobody_deletes_appends_or_switches(
    alice: Caller, database: Database
) -> None:
    made = await make(alice)
    message = await say(alice, made, "hello")
    turn = await run_turn(database, alice, made)
    where = f"/api/v1/conversations/{made['id']}"
    refusals = [
        await alice.delete(where),
        await alice.patch(where, json={"head_id": message["id"]}),
        await alice.post(f"{where}/messages", json={"role": "user", "content": "too early"}),
    ]
    for refused in refusals:
        assert refused.status_code == 409
        assert refused.json()["type"] == "turn-in-progress"
        assert refused.json()["turn_id"] == str(turn)
    # What doesn't touch the branch goes on.
    assert (await alice.patch(where, json={"title": "still mine"})).status_code == 200
    async with database.system() as session:
        await session.execute(
            text("UPDATE turns SET status = 'completed', ended_at = now() WHERE id = :id"), {"id": turn}
        )
    assert (await alice.delete(where)).status_code == 204


async def test_a_foreign_or_missing_project_is_the_same_not_found(alice: Caller, bob: Caller) -> None:
    theirs = (await alice.post("/api/v1/projects", json={"name": "alice's"})).json()["id"]
    mine = await make(bob)
    for project in (theirs, NOWHERE):
        for refused in (
            await bob.post("/api/v1/conversations", json={"project_id": project}),
            await bob.patch(f"/api/v1/conversations/{mine['id']}", json={"project_id": project}),
        ):
            assert refused.status_code == 404
            assert refused.json()["type"] == "project-not-found"
            assert refused.json()["param"] == "project_id"
    assert (await bob.get(f"/api/v1/conversations/{mine['id']}")).json() == mine


async def test_a_strangers_conversation_is_not_there(alice: Caller, bob: Caller) -> None:
    made = await make(alice, title="private")
    message = await say(alice, made, "a secret")
    own = await make(bob)
    where = f"/api/v1/conversations/{made['id']}"
    before = (await alice.get(where)).json()
    attempts = [
        await bob.get(where),
        await bob.patch(where, json={"title": "mine"}),
        await bob.delete(where),
        await bob.get(f"{where}/messages"),
        await bob.get(f"{where}/messages", params={"branch": "all"}),
        await bob.post(f"{where}/messages", json={"role": "user", "content": "hi"}),
        await bob.get(f"/api/v1/messages/{message['id']}"),
        await bob.patch(f"/api/v1/conversations/{own['id']}", json={"head_id": message["id"]}),
    ]
    assert {attempt.status_code for attempt in attempts} == {404}
    assert all("secret" not in attempt.text and "private" not in attempt.text for attempt in attempts)
    assert (await bob.get(where)).json()["type"] == (
        await bob.get(f"/api/v1/conversations/{NOWHERE}")
    ).json()["type"]
    assert await titles(bob) == [""]
    assert (await alice.get(where)).json() == before


@pytest.mark.parametrize(
    "bad", ["x", "1", NOWHERE[:-1], NOWHERE.replace("-", ""), "%00", "a%2Fb", "%FF", "..%2F"]
)
async def test_a_malformed_id_is_not_found(alice: Caller, bad: str) -> None:
    for path in (
        f"/api/v1/conversations/{bad}",
        f"/api/v1/conversations/{bad}/messages",
        f"/api/v1/messages/{bad}",
    ):
        answer = await alice.get(path)
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"title": None}, "title"),
        ({"title": 7}, "title"),
        ({"title": "x" * 501}, "title"),
        ({"title": "a\x00b"}, "title"),
        ({"title": "\x1b[31mred"}, "title"),
        ({"system_prompt": "x" * (1024 * 1024 + 1)}, "system_prompt"),
        ({"system_prompt": "ب" * (600 * 1024)}, "system_prompt"),
        ({"model": ""}, "model"),
        ({"model": "a\x00"}, "model"),
        ({"archived": "true"}, "archived"),
        ({"archived": 1}, "archived"),
        ({"pinned": None}, "pinned"),
        ({"project_id": "p"}, "project_id"),
        ({"project_id": 1}, "project_id"),
        ({"user_id": NOWHERE}, "user_id"),
        ({"id": NOWHERE}, "id"),
    ],
)
async def test_a_wrong_field_is_refused_by_name(alice: Caller, body: dict[str, Any], field: str) -> None:
    made = await make(alice)
    for refused in (
        await alice.post("/api/v1/conversations", json=body),
        await alice.patch(f"/api/v1/conversations/{made['id']}", json=body),
    ):
        assert refused.status_code == 422
        assert refused.json()["param"] == field
    assert (await alice.get(f"/api/v1/conversations/{made['id']}")).json() == made


async def test_a_lone_surrogate_is_refused_in_a_value_and_in_a_name(alice: Caller) -> None:
    headers = {"content-type": "application/json"}
    for body in (rb'{"title": "\ud800"}', rb'{"\udfff": 1}', rb'{"title": "x", "\ud800\ud800": "y"}'):
        refused = await alice.post("/api/v1/conversations", content=body, headers=headers)
        assert refused.status_code == 422, body
        assert refused.json()["errors"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"", 422),
        (b"[]", 422),
        (b"null", 422),
        (b'"text"', 422),
        (b'{"title": "x"', 400),
        (b"\xff\xfe", 400),
        (b'{"title": "\xff"}', 400),
        (b"[" * 100_000, 400),
        (b'{"token_total": ' + b"9" * 10_000 + b"}", 400),
        (b'{"title": NaN}', 422),
    ],
)
async def test_a_body_that_is_no_object_is_a_clear_refusal(alice: Caller, body: bytes, status: int) -> None:
    headers = {"content-type": "application/json"}
    refused = await alice.post("/api/v1/conversations", content=body, headers=headers)
    assert refused.status_code == status, refused.text
    assert refused.headers["content-type"] == "application/problem+json"
    assert await titles(alice) == []


@pytest.mark.parametrize(
    "kind", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"]
)
async def test_a_body_that_is_not_json_by_its_type_is_415(alice: Caller, kind: str | None) -> None:
    headers = {} if kind is None else {"content-type": kind}
    refused = await alice.post("/api/v1/conversations", content=b'{"title": "x"}', headers=headers)
    assert refused.status_code == 415


@pytest.mark.parametrize(
    "params",
    [
        {"limit": "0"},
        {"limit": "201"},
        {"limit": "-1"},
        {"limit": "1.0"},
        {"limit": "1_0"},
        {"limit": " 5"},
        {"limit": "many"},
        {"limit": "9" * 5000},
        {"archived": "1"},
        {"archived": "yes"},
        {"pinned": ""},
        {"project_id": "x"},
    ],
)
async def test_a_wrong_parameter_is_refused_by_name(alice: Caller, params: dict[str, str]) -> None:
    refused = await alice.get("/api/v1/conversations", params=params)
    assert refused.status_code == 422
    assert refused.json()["param"] == next(iter(params))


async def test_a_cursor_that_was_tampered_with_is_refused(alice: Caller, bob: Caller) -> None:
    for n in range(3):
        await make(alice, title=str(n))
        await alice.post("/api/v1/projects", json={"name": str(n)})
    cursor = (await alice.get("/api/v1/conversations", params={"limit": 1})).json()["next_cursor"]
    foreign = (await alice.get("/api/v1/projects", params={"limit": 1})).json()["next_cursor"]
    flipped = cursor[:20] + ("A" if cursor[20] != "A" else "B") + cursor[21:]
    for bad in (
        flipped,
        cursor[:-1],
        cursor[:-4],
        cursor + "A",
        cursor + "=",
        foreign,
        "x",
        "",
        "é",
        "a" * 1025,
    ):
        refused = await alice.get("/api/v1/conversations", params={"cursor": bad})
        assert refused.status_code in (400, 422 if len(bad) > 1024 else 400), bad
        assert refused.json()["param"] == "cursor"
    # A cursor is a position, not a permission.
    assert (await bob.get("/api/v1/conversations", params={"cursor": cursor})).json()["data"] == []


async def test_many_conversations_made_at_once_are_all_there(alice: Caller) -> None:
    await asyncio.gather(*(make(alice, title=str(n)) for n in range(40)))
    assert sorted(map(int, await titles(alice, limit=200))) == list(range(40))
