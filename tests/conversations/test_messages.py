"""Messages: a tree, read along its active branch or whole."""

import asyncio
import time
from typing import Any

import pytest
from sqlalchemy import text

from baatcheet.context.counting import count
from baatcheet.kit.ids import new_id
from baatcheet.platform.database import Database
from tests.conftest import Caller
from tests.conversations.test_conversations import make, say


async def pages(caller: Caller, conversation: dict[str, Any], **params: Any) -> list[list[dict[str, Any]]]:
    read: list[list[dict[str, Any]]] = []
    while True:
        answer = await caller.get(f"/api/v1/conversations/{conversation['id']}/messages", params=params)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        read.append(page["data"])
        if not page["has_more"]:
            return read
        params["cursor"] = page["next_cursor"]


async def texts(caller: Caller, conversation: dict[str, Any], **params: Any) -> list[str]:
    read = await pages(caller, conversation, **params)
    return [message["content"] for page in read for message in page]


async def switch(caller: Caller, conversation: dict[str, Any], message: dict[str, Any]) -> None:
    changed = await caller.patch(
        f"/api/v1/conversations/{conversation['id']}", json={"head_id": message["id"]}
    )
    assert changed.status_code == 200, changed.text


async def test_a_message_is_added_after_the_head_and_counted(alice: Caller) -> None:
    conversation = await make(alice)
    question = await say(alice, conversation, "Where is Attabad Lake?")
    answer = await say(alice, conversation, "In Gojal, upper Hunza. 🏞", role="assistant")
    assert question["parent_id"] is None
    assert answer["parent_id"] == question["id"]
    assert answer["token_count"] == count("In Gojal, upper Hunza. 🏞")
    assert answer["turn_id"] is None
    after = (await alice.get(f"/api/v1/conversations/{conversation['id']}")).json()
    assert after["head_id"] == answer["id"]
    assert after["message_count"] == 2
    assert after["token_total"] == question["token_count"] + answer["token_count"]
    assert after["updated_at"] > conversation["updated_at"]


@pytest.mark.parametrize("limit", [1, 2, 3, 200])
async def test_the_active_branch_is_read_in_pages_either_way(alice: Caller, limit: int) -> None:
    conversation = await make(alice)
    said = [str(n) for n in range(6)]
    for one in said:
        await say(alice, conversation, one)
    assert await texts(alice, conversation, limit=limit) == said
    assert await texts(alice, conversation, limit=limit, order="desc") == said[::-1]
    assert await texts(alice, conversation, limit=limit, branch="all") == said
    assert await texts(alice, conversation, limit=limit, branch="all", order="desc") == said[::-1]


async def test_a_switched_head_begins_another_branch(alice: Caller) -> None:
    conversation = await make(alice)
    first = await say(alice, conversation, "root")
    left = await say(alice, conversation, "left")
    await say(alice, conversation, "left leaf")
    await switch(alice, conversation, first)
    right = await say(alice, conversation, "right")
    assert await texts(alice, conversation) == ["root", "right"]
    assert await texts(alice, conversation, branch="all") == ["root", "left", "left leaf", "right"]
    for message in (left, right):
        shown = (await alice.get(f"/api/v1/messages/{message['id']}")).json()
        assert shown == message | {"siblings": [left["id"], right["id"]]}
    await switch(alice, conversation, left)
    assert await texts(alice, conversation) == ["root", "left"]
    assert (await alice.get(f"/api/v1/messages/{first['id']}")).json()["siblings"] == [first["id"]]


async def test_a_page_around_a_message_goes_along_the_branch_that_it_is_on(alice: Caller) -> None:
    conversation = await make(alice)
    said = [await say(alice, conversation, f"message {number}") for number in range(10)]
    await switch(alice, conversation, said[5])
    other = [await say(alice, conversation, f"other {number}") for number in range(3)]
    here = f"/api/v1/conversations/{conversation['id']}/messages"

    async def around(message: dict[str, Any], **params: Any) -> list[str]:
        answer = await alice.get(here, params={"around": message["id"], "limit": 4, **params})
        assert answer.status_code == 200, answer.text
        return [one["content"] for one in answer.json()["data"]]

    assert await around(said[7]) == [f"message {number}" for number in (5, 6, 7, 8)]
    assert await around(other[1]) == ["message 5", "other 0", "other 1", "other 2"]
    assert await around(said[4]) == ["message 2", "message 3", "message 4", "message 5"]
    assert await around(said[5]) == ["message 3", "message 4", "message 5", "other 0"], "on the active branch"
    assert await around(said[0]) == [f"message {number}" for number in (0, 1, 2, 3)]
    assert await around(said[7], order="desc") == [f"message {number}" for number in (9, 8, 7, 6)]
    assert await texts(alice, conversation, around=said[6]["id"], limit=2) == [
        f"message {number}" for number in (5, 6, 7, 8, 9)
    ]


async def test_messages_of_one_role_are_listed_of_every_branch(alice: Caller) -> None:
    conversation = await make(alice)
    for number in range(3):
        await say(alice, conversation, f"asked {number}")
        await say(alice, conversation, f"answered {number}", role="assistant")
    for order in ("asc", "desc"):
        asked = [f"asked {number}" for number in range(3)]
        read = await texts(alice, conversation, branch="all", role="user", order=order, limit=2)
        assert read == (asked if order == "asc" else asked[::-1])
    refused = await alice.get(f"/api/v1/conversations/{conversation['id']}/messages", params={"role": "user"})
    assert (refused.status_code, refused.json()["param"]) == (422, "role")


async def test_around_is_of_a_message_in_this_conversation_and_of_one_branch(alice: Caller) -> None:
    conversation, elsewhere = await make(alice), await make(alice)
    await say(alice, conversation, "here")
    message = await say(alice, elsewhere, "there")
    here = f"/api/v1/conversations/{conversation['id']}/messages"
    refused = await alice.get(here, params={"around": message["id"]})
    assert (refused.status_code, refused.json()["type"]) == (404, "message-not-found")
    refused = await alice.get(here, params={"around": message["id"], "branch": "all"})
    assert refused.status_code == 422


async def test_the_pages_of_a_branch_are_not_disturbed_by_what_happens_meanwhile(alice: Caller) -> None:
    conversation = await make(alice)
    said = [await say(alice, conversation, str(n)) for n in range(4)]
    path = f"/api/v1/conversations/{conversation['id']}/messages"
    first = (await alice.get(path, params={"limit": 2})).json()
    await switch(alice, conversation, said[0])
    await say(alice, conversation, "elsewhere")
    second = (await alice.get(path, params={"limit": 2, "cursor": first["next_cursor"]})).json()
    assert [message["content"] for message in first["data"] + second["data"]] == ["0", "1", "2", "3"]
    assert not second["has_more"]


async def test_an_empty_conversation_has_no_messages(alice: Caller) -> None:
    conversation = await make(alice)
    for branch in ("active", "all"):
        assert await pages(alice, conversation, branch=branch) == [[]]


async def test_a_branch_of_ten_thousand_messages_is_read_a_page_at_a_time(
    alice: Caller, database: Database
) -> None:
    conversation = await make(alice)
    ids = [new_id() for _ in range(10_000)]
    rows = [
        {
            "id": one,
            "parent": parent,
            "conversation": conversation["id"],
            "user": alice.user_id,
            "text": str(n),
        }
        for n, (one, parent) in enumerate(zip(ids, [None, *ids], strict=False))
    ]
    async with database.system(limit=60) as session:
        await session.execute(
            text(
                "INSERT INTO messages (id, parent_id, conversation_id, user_id, role, content) "
                "VALUES (:id, :parent, :conversation, :user, 'user', :text)"
            ),
            rows,
        )
        await session.execute(
            text("UPDATE conversations SET head_id = :head WHERE id = :id"),
            {"head": ids[-1], "id": conversation["id"]},
        )
    path = f"/api/v1/conversations/{conversation['id']}/messages"
    for order, wanted in (("asc", range(200)), ("desc", range(9_999, 9_799, -1))):
        began = time.perf_counter()
        page = (await alice.get(path, params={"limit": 200, "order": order})).json()
        took = time.perf_counter() - began
        assert [int(message["content"]) for message in page["data"]] == list(wanted)
        assert page["has_more"]
        assert took < 2
        following = await alice.get(path, params={"limit": 1, "order": order, "cursor": page["next_cursor"]})
        assert following.json()["data"][0]["content"] == str(wanted[-1] + wanted.step)


async def test_a_page_of_heavy_messages_is_cut_short_and_goes_on(alice: Caller) -> None:
    conversation = await make(alice)
    heavy = "x " * 950_000
    for _ in range(11):
        await say(alice, conversation, heavy)
    for branch in ("active", "all"):
        read = await pages(alice, conversation, branch=branch)
        assert [len(page) for page in read] == [9, 2]


async def test_messages_added_at_once_form_one_branch(alice: Caller) -> None:
    conversation = await make(alice)
    await asyncio.gather(*(say(alice, conversation, str(n)) for n in range(20)))
    read = await texts(alice, conversation)
    assert sorted(map(int, read)) == list(range(20))
    assert read == await texts(alice, conversation, branch="all")
    after = (await alice.get(f"/api/v1/conversations/{conversation['id']}")).json()
    assert after["message_count"] == 20


async def test_a_head_must_be_a_message_of_that_conversation(alice: Caller) -> None:
    here, there = await make(alice), await make(alice)
    elsewhere = await say(alice, there, "hello")
    for head in (elsewhere["id"], here["id"]):
        refused = await alice.patch(f"/api/v1/conversations/{here['id']}", json={"head_id": head})
        assert refused.status_code == 404
        assert refused.json()["param"] == "head_id"
    refused = await alice.patch(f"/api/v1/conversations/{here['id']}", json={"head_id": None})
    assert refused.status_code == 422


async def test_a_cursor_is_of_one_conversation_branch_and_order(alice: Caller) -> None:
    one, other = await make(alice), await make(alice)
    for conversation in (one, other):
        for n in range(3):
            await say(alice, conversation, str(n))
    path = f"/api/v1/conversations/{one['id']}/messages"
    cursor = (await alice.get(path, params={"limit": 1})).json()["next_cursor"]
    for where, params in (
        (path, {"order": "desc"}),
        (path, {"branch": "all"}),
        (f"/api/v1/conversations/{other['id']}/messages", {}),
    ):
        refused = await alice.get(where, params=params | {"cursor": cursor})
        assert refused.status_code == 400
        assert refused.json()["param"] == "cursor"


async def test_a_message_that_is_too_large_is_413(alice: Caller) -> None:
    conversation = await make(alice)
    path = f"/api/v1/conversations/{conversation['id']}/messages"
    for content in ("x" * 2_000_001, "ب" * 1_000_001):
        refused = await alice.post(path, json={"role": "user", "content": content})
        assert refused.status_code == 413
        assert refused.headers["content-type"] == "application/problem+json"
    assert (await say(alice, conversation, "x " * 1_000_000))["token_count"] > 0


async def test_a_body_of_fifty_megabytes_is_413(alice: Caller) -> None:
    conversation = await make(alice)
    body = b'{"role": "user", "content": "' + b"x" * 50_000_000 + b'"}'
    refused = await alice.post(
        f"/api/v1/conversations/{conversation['id']}/messages",
        content=body,
        headers={"content-type": "application/json"},
    )
    assert refused.status_code == 413
    assert refused.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "role"),
        ({"role": "user"}, "content"),
        ({"role": "user", "content": ""}, "content"),
        ({"role": "user", "content": None}, "content"),
        ({"role": "user", "content": ["x"]}, "content"),
        ({"role": "user", "content": "a\x00b"}, "content"),
        ({"role": "tool", "content": "x"}, "role"),
        ({"role": "User", "content": "x"}, "role"),
        ({"role": "user", "content": "x", "model": ""}, "model"),
        ({"role": "user", "content": "x", "token_count": 0}, "token_count"),
    ],
)
async def test_a_wrong_message_is_refused_with_the_fields_name(
    alice: Caller, body: dict[str, Any], field: str
) -> None:
    conversation = await make(alice)
    refused = await alice.post(f"/api/v1/conversations/{conversation['id']}/messages", json=body)
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["field"] == field
    assert await texts(alice, conversation) == []


@pytest.mark.parametrize("params", [{"branch": "left"}, {"order": "newest"}, {"limit": "0"}])
async def test_a_wrong_parameter_is_refused(alice: Caller, params: dict[str, str]) -> None:
    conversation = await make(alice)
    refused = await alice.get(f"/api/v1/conversations/{conversation['id']}/messages", params=params)
    assert refused.status_code == 422
    assert refused.json()["param"] == next(iter(params))
