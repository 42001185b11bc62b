"""The hot path keeps users apart by itself: its SQL runs outside row-level security and is told the tenant."""

from collections.abc import AsyncIterator, Mapping
from functools import partial
from typing import Any
from uuid import UUID

import msgspec
import pytest
import pytest_asyncio

from baatcheet.chat.store import Closing, NewConversation, Opening, TurnStore
from baatcheet.context.history import Bounds, StoredMessage
from baatcheet.kit.ids import new_id
from baatcheet.platform.database import Database, connect
from tests.conftest import Caller


@pytest_asyncio.fixture
async def store(database: Database, services: Mapping[str, str]) -> AsyncIterator[TurnStore]:
    opened = TurnStore(database, partial(connect, services["DATABASE_URL"]))
    yield opened
    await opened.close_lanes()


def opening(user: UUID, **more: Any) -> Opening:
    """A turn that another process is to run."""
    return Opening(
        turn=new_id(), user=user, process=new_id(), reply=new_id(), bounds=Bounds.within(8000, 50), **more
    )


async def say(caller: Caller, message: str) -> dict[str, Any]:
    answer = await caller.post("/api/v1/chat/completions", json={"message": message})
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


@pytest.mark.parametrize("way", ["answer", "at"])
async def test_a_turn_starts_at_no_message_of_another_user(
    alice: Caller, bob: Caller, store: TurnStore, way: str
) -> None:
    hers, his = await say(alice, "between the two of us"), await say(bob, "hello")

    async def outcome_at(message: str) -> str:
        where: dict[str, Any] = {"answer": UUID(message)} if way == "answer" else {"at": message}
        new = () if way == "answer" else (StoredMessage(new_id(), "user", "go on", 2, None),)
        conversation = UUID(his["conversation_id"])
        return (await store.open(opening(bob.user_id, conversation=conversation, messages=new, **where)))[0]

    assert await outcome_at(hers["user_message_id"]) == "no-message"
    assert await outcome_at(his["user_message_id"]) == "opened"


async def test_a_turn_of_another_process_is_stopped_and_ended_by_nobody_else(
    alice: Caller, bob: Caller, store: TurnStore
) -> None:
    turn = opening(alice.user_id, conversation=new_id(), new=NewConversation("A conversation"))
    assert (await store.open(turn))[0] == "opened"
    path = f"/api/v1/turns/{turn.turn}/cancel"
    assert (await bob.post(path)).status_code == 404
    assert not await store.close(Closing(turn.turn, bob.user_id, "completed"))
    assert await store.flush([turn.turn], []) == {}, "it runs, and nobody has asked it to stop"
    assert (await alice.post(path)).status_code == 202
    assert await store.flush([turn.turn], []) == {turn.turn: "running"}


async def test_the_history_of_another_user_is_empty(alice: Caller, bob: Caller, database: Database) -> None:
    hers = await say(alice, "between the two of us")
    where = (UUID(hers["conversation_id"]), UUID(hers["message_id"]))
    async with database.hot() as connection:
        for user, expected in ((bob.user_id, 0), (alice.user_id, 2)):
            bounds = msgspec.json.encode(Bounds.within(8000, 50)).decode()
            statement = "SELECT branch_history($1, $2, $3, $4::text::jsonb)::text"
            history = msgspec.json.decode(await connection.fetchval(statement, user, *where, bounds))
            assert (len(history["messages"]), history["start"], history["summary"]) == (expected, 0, None)
