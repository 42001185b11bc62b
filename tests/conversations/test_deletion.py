"""A deleted conversation is nowhere but among the deleted ones, until it is restored or deleted for good."""

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

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
