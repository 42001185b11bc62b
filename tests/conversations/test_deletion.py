"""A deleted conversation is nowhere but among the deleted ones, until it is restored or deleted for good."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sqlalchemy import text

from baatcheet.conversations.schemas import NewConversation
from baatcheet.platform.database import Database
from tests.conftest import Caller
from tests.conversations.test_conversations import make, run_turn

CHAT = "/api/v1/chat/completions"


async def talk(caller: Caller, message: str = "What is a glacier?", **more: Any) -> dict[str, Any]:
    """A turn that has ended."""
    answer = await caller.post(CHAT, json={"message": message} | more)
    assert answer.status_code == 200, answer.text
    turn: dict[str, Any] = answer.json()
    return turn


async def listed(caller: Caller, **filters: Any) -> list[str]:
    answer = await caller.get("/api/v1/conversations", params=filters)
    assert answer.status_code == 200, answer.text
    return [one["id"] for one in answer.json()["data"]]


async def delete(caller: Caller, conversation: str, **query: Any) -> None:
    answer = await caller.delete(f"/api/v1/conversations/{conversation}", params=query)
    assert answer.status_code == 204, answer.text


async def test_a_deleted_conversation_is_nowhere_but_among_the_deleted(alice: Caller) -> None:
    turn = await talk(alice)
    conversation, message = turn["conversation_id"], turn["message_id"]
    where = f"/api/v1/conversations/{conversation}"
    await delete(alice, conversation)
    answers = {
        "read": await alice.get(where),
        "change": await alice.patch(where, json={"title": "x"}),
        "delete": await alice.delete(where),
        "messages": await alice.get(f"{where}/messages"),
        "append": await alice.post(f"{where}/messages", json={"role": "user", "content": "x"}),
        "message": await alice.get(f"/api/v1/messages/{message}"),
        "chat": await alice.post(CHAT, json={"message": "x", "conversation_id": conversation}),
        "again": await alice.post(f"/api/v1/messages/{message}/regenerate", json={}),
        "context": await alice.get(f"{where}/context"),
        "export": await alice.post(f"{where}/exports", json={"format": "json"}),
        "turn": await alice.get(f"/api/v1/turns/{turn['turn_id']}"),
        "openai": await alice.post(
            "/v1/chat/completions",
            json={
                "model": "auto",
                "conversation": conversation,
                "messages": [{"role": "user", "content": "x"}],
            },
        ),
    }
    assert {name: answer.status_code for name, answer in answers.items()} == dict.fromkeys(answers, 404), (
        answers["turn"].text
    )
    assert conversation not in await listed(alice)
    assert await listed(alice, deleted="true") == [conversation]
    (shown,) = (await alice.get("/api/v1/conversations?deleted=true")).json()["data"]
    assert shown["deleted_at"] is not None


async def test_what_is_restored_is_as_it_was(alice: Caller) -> None:
    turn = await talk(alice)
    conversation = turn["conversation_id"]
    where = f"/api/v1/conversations/{conversation}"
    await alice.patch(where, json={"tags": ["ice"], "pinned": True})
    before = (await alice.get(where)).json()
    messages = (await alice.get(f"{where}/messages")).json()
    await delete(alice, conversation)
    for _ in range(2):  # the second time there is nothing to do
        restored = await alice.post(f"{where}/restore")
        assert (restored.status_code, restored.json()) == (200, before)
    assert (await alice.get(where)).json() == before
    assert (await alice.get(f"{where}/messages")).json() == messages
    assert await listed(alice, deleted="true") == []
    assert (await talk(alice, "And a moraine?", conversation_id=conversation))["turn_id"] != turn["turn_id"]


async def test_the_key_of_a_deleted_turn_is_free_again(alice: Caller) -> None:
    """As it is where the conversation is gone: a client that asks again is answered, and not told of a turn that
    it can't see.
    """
    headers = {"Idempotency-Key": "the-same"}
    body = {"message": "What is a glacier?"}
    first = (await alice.post(CHAT, json=body, headers=headers)).json()
    await delete(alice, first["conversation_id"])
    second = await alice.post(CHAT, json=body, headers=headers)
    assert second.status_code == 200, second.text
    assert second.json()["conversation_id"] != first["conversation_id"]


@pytest.mark.parametrize("query", [{}, {"permanently": "true"}])
async def test_what_opened_it_and_what_was_written_in_it_answers_no_repetition(
    alice: Caller, bob: Caller, database: Database, query: dict[str, str]
) -> None:
    """The keys of others, and of other conversations, keep their answers."""
    secret = f"secret-{uuid4().hex}"

    async def open_one(caller: Caller, key: str) -> Any:
        return await caller.post(
            "/api/v1/conversations", json={"title": secret}, headers={"Idempotency-Key": key}
        )

    async def write(caller: Caller, conversation: str, key: str) -> Any:
        where = f"/api/v1/conversations/{conversation}/messages"
        said = {"role": "user", "content": secret}
        return await caller.post(where, json=said, headers={"Idempotency-Key": key})

    first, other, his = [
        (await open_one(caller, key)).json()["id"]
        for caller, key in ((alice, "k1"), (alice, "k3"), (bob, "k1"))
    ]
    written = {
        key: (await write(alice, one, key)).json()["id"] for one, key in ((first, "k2"), (other, "k4"))
    }
    written["his"] = (await write(bob, his, "k2")).json()["id"]
    await delete(alice, first, **query)
    repeated = await write(alice, first, "k2")
    assert (repeated.status_code, repeated.json()["type"]) == (404, "conversation-not-found"), repeated.text
    assert secret not in repeated.text
    opened = await open_one(alice, "k1")
    assert opened.status_code == 201
    assert "idempotent-replayed" not in opened.headers
    assert opened.json()["id"] != first
    assert (await write(alice, other, "k4")).json()["id"] == written["k4"]
    assert (await open_one(alice, "k3")).json()["id"] == other
    assert (await write(bob, his, "k2")).json()["id"] == written["his"]
    async with database.system() as session:
        kept = await session.scalars(
            text("SELECT key FROM idempotency_keys WHERE user_id = :user ORDER BY key"),
            {"user": alice.user_id},
        )
        assert kept.all() == ["k1", "k3", "k4"]


async def test_a_message_that_is_repeated_while_its_conversation_goes_is_written_before_or_not_there(
    alice: Caller, database: Database
) -> None:
    for _ in range(5):
        conversation = (await make(alice))["id"]
        where, headers = f"/api/v1/conversations/{conversation}", {"Idempotency-Key": uuid4().hex}
        said = {"role": "user", "content": "now or never"}
        answers = await asyncio.gather(
            alice.post(f"{where}/messages", json=said, headers=headers),
            alice.delete(where, params={"permanently": "true"}),
            alice.post(f"{where}/messages", json=said, headers=headers),
        )
        assert answers[1].status_code == 204
        assert {answers[0].status_code, answers[2].status_code} <= {201, 404}
        assert (await alice.post(f"{where}/messages", json=said, headers=headers)).status_code == 404


_RELAY = """
WITH taken AS (DELETE FROM outbox WHERE conversation_id = :id RETURNING *)
INSERT INTO events (id, user_id, type, conversation_id, data, created_at)
SELECT id, user_id, type, conversation_id, data, created_at FROM taken ORDER BY place
"""
_TOLD = """
SELECT type, data FROM (
    SELECT 0 AS later, seq, type, data FROM events WHERE conversation_id = :id
    UNION ALL SELECT 1, place, type, data FROM outbox WHERE conversation_id = :id
) told ORDER BY later, seq
"""


@pytest.mark.parametrize("relayed", [True, False])
@pytest.mark.parametrize("before", [True, False])
async def test_what_it_was_called_is_in_no_event_once_it_is_gone_for_good(
    alice: Caller, database: Database, relayed: bool, before: bool
) -> None:
    """Neither in those that were told, nor in those still to be, nor in that of its end."""
    secret, other = f"secret-{uuid4().hex}", f"other-{uuid4().hex}"
    made = await make(alice, title=secret, tags=[secret[:60]])
    there = await make(alice, title=other)
    if before:
        await delete(alice, made["id"])
    if relayed:
        async with database.system() as session:
            for one in (made, there):
                await session.execute(text(_RELAY), {"id": one["id"]})
    await delete(alice, made["id"], permanently="true")
    async with database.system() as session:
        told = (await session.execute(text(_TOLD), {"id": made["id"]})).all()
        (kept,) = (await session.execute(text(_TOLD), {"id": there["id"]})).all()
    assert [one.type for one in told] == ["conversation.created", "conversation.deleted"]
    assert [(one.data["title"], one.data["tags"]) for one in told] == [("", [])] * 2
    assert kept.data["title"] == other


async def test_nobody_else_deletes_or_restores_it(alice: Caller, bob: Caller) -> None:
    made = await make(alice)
    where = f"/api/v1/conversations/{made['id']}"
    assert (await bob.delete(where)).status_code == 404
    await delete(alice, made["id"])
    assert (await bob.post(f"{where}/restore")).status_code == 404
    assert (await bob.delete(where, params={"permanently": "true"})).status_code == 404
    assert await listed(bob, deleted="true") == []
    assert (await alice.post(f"{where}/restore")).status_code == 200


async def test_a_deleted_one_can_be_deleted_for_good(alice: Caller) -> None:
    made = await make(alice)
    await delete(alice, made["id"])
    await delete(alice, made["id"], permanently="true")
    assert await listed(alice, deleted="true") == []


@pytest.mark.parametrize("query", [{}, {"permanently": "true"}])
async def test_not_while_a_turn_runs(alice: Caller, database: Database, query: dict[str, str]) -> None:
    made = await make(alice)
    await run_turn(database, alice, made)
    refused = await alice.delete(f"/api/v1/conversations/{made['id']}", params=query)
    assert (refused.status_code, refused.json()["type"]) == (409, "turn-in-progress")
    assert await listed(alice) == [made["id"]]


async def test_the_deleted_are_listed_in_the_order_of_their_deletion(alice: Caller) -> None:
    made = [(await make(alice, title=str(at)))["id"] for at in range(5)]
    for one in (made[3], made[0], made[4]):
        await delete(alice, one)
    pages, cursor = [], None
    while True:
        query: dict[str, str] = {"deleted": "true", "limit": "2"} | ({"cursor": cursor} if cursor else {})
        page = (await alice.get("/api/v1/conversations", params=query)).json()
        pages.append([one["id"] for one in page["data"]])
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert pages == [[made[4], made[0]], [made[3]]]
    other = await alice.get("/api/v1/conversations", params={"cursor": "x"})
    assert other.status_code == 400


async def test_tags_are_kept_changed_and_found(alice: Caller) -> None:
    first = await make(alice, tags=[" work ", "سفر", "work"])
    second = await make(alice, tags=["work"])
    third = await make(alice)
    assert (first["tags"], third["tags"]) == (["work", "سفر"], [])
    assert set(await listed(alice, tag="work")) == {first["id"], second["id"]}
    assert await listed(alice, tag="سفر") == [first["id"]]
    assert await listed(alice, tag="wor") == []
    where = f"/api/v1/conversations/{first['id']}"
    assert (await alice.patch(where, json={"tags": []})).json()["tags"] == []
    assert await listed(alice, tag="work") == [second["id"]]
    await delete(alice, second["id"])
    assert await listed(alice, tag="work") == []
    assert await listed(alice, tag="work", deleted="true") == [second["id"]]


@pytest.mark.parametrize(
    "tags",
    [
        ["x" * 65],
        [str(at) for at in range(21)],
        [" "],
        ["a\nb"],
        ["\u200b"],
        "work",
        [1],
        None,
        ["\x00"],
    ],
)
async def test_what_is_no_list_of_tags_is_refused(alice: Caller, tags: Any) -> None:
    made = await make(alice, tags=["x" * 64, *map(str, range(19))])
    refused = await alice.patch(f"/api/v1/conversations/{made['id']}", json={"tags": tags})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["field"].startswith("tags")
    assert (await alice.get("/api/v1/conversations", params={"tag": "\x00"})).status_code == 422


@given(st.lists(st.text(max_size=66), max_size=22))
@settings(max_examples=100)
def test_tags_that_are_taken_are_few_short_visible_and_different(tags: list[str]) -> None:
    try:
        kept = NewConversation(tags=tags).tags
    except ValidationError:
        return
    assert len(kept) <= 20
    assert len(set(kept)) == len(kept)
    assert all(0 < len(tag) <= 64 and tag == tag.strip() and "\n" not in tag for tag in kept)
    assert set(kept) == {tag.strip() for tag in tags}


async def test_of_a_deletion_and_a_turn_at_once_one_comes_first(alice: Caller) -> None:
    """Either the turn finds the conversation gone, or the deletion finds the turn."""
    for _ in range(5):
        conversation = (await talk(alice))["conversation_id"]
        deleted, turned = await asyncio.gather(
            alice.delete(f"/api/v1/conversations/{conversation}"),
            alice.post(CHAT, json={"message": "And now?", "conversation_id": conversation}),
        )
        there = (await alice.get(f"/api/v1/conversations/{conversation}")).status_code == 200
        if deleted.status_code == 409:
            assert there
            assert turned.status_code == 200
        else:
            assert deleted.status_code == 204
            assert not there
            assert turned.status_code in {200, 404}  # 200: it had ended before
