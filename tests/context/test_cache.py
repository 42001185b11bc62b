"""What Redis keeps of a context saves a query, and is never believed beyond what the database says."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from sqlalchemy import text

from baatcheet.context.manager import Context
from baatcheet.context.recents import FORM, TTL
from baatcheet.kit.ids import new_id
from baatcheet.platform.cache import Cache
from baatcheet.platform.database import Database
from tests.context.conftest import (
    NewCompactor,
    NewManager,
    Talk,
    remembered,
    sentences,
    talk_of,
    texts,
)
from tests.valkey_server import ValkeyServer

QUESTION, ANSWER = "Where is the caravan?", "In the valley."
FROM_CACHE = "This stands in the cache only."
TIMEOUT = 0.05  # seconds that a request waits for the cache …
NOISE = 1.5  # … and what a busy machine may take beside


def key_of(talk: Talk) -> str:
    return f"context:{talk.id}"


async def kept(cache: Cache, talk: Talk) -> dict[str, Any]:
    """What Redis keeps of the conversation."""
    raw = await cache.get(key_of(talk))
    assert raw is not None
    document: dict[str, Any] = msgspec.json.decode(raw)
    return document


def doctored(document: dict[str, Any]) -> dict[str, Any]:
    """A document that says something else than the database, so that it shows who is believed."""
    first, *rest = document["items"]
    return {**document, "items": [{**first, "wire": {**first["wire"], "content": FROM_CACHE}}, *rest]}


async def put(cache: Cache, talk: Talk, document: dict[str, Any] | bytes) -> None:
    raw = document if isinstance(document, bytes) else msgspec.json.encode(document)
    assert await cache.put(key_of(talk), raw, seconds=60)


async def spoken(talk: Talk, new_manager: NewManager) -> Context:
    """A conversation of a few turns, which a process has kept."""
    await talk.say(*sentences(6))
    return await remembered(new_manager(), talk, QUESTION, ANSWER)


async def test_after_a_turn_its_context_is_in_redis_as_json_for_an_hour(
    talk: Talk, cache: Cache, new_manager: NewManager
) -> None:
    await spoken(talk, new_manager)
    document = await kept(cache, talk)
    assert document["conversation"] == str(talk.id)
    assert document["user"] == str(talk.user)
    assert document["head"] == str(talk.head)
    assert document["version"] == 0
    assert [item["wire"]["content"] for item in document["items"]] == [*sentences(6), QUESTION, ANSWER]
    left = await cache.execute("PTTL", key_of(talk))
    assert TTL * 1000 - 60_000 < left <= TTL * 1000
    assert TTL == 3600


async def test_its_summary_is_kept_beside_the_messages(
    talk: Talk, cache: Cache, new_manager: NewManager, new_compactor: NewCompactor
) -> None:
    await talk.say(*sentences(80))
    await new_compactor().run(talk.work)
    made = await remembered(new_manager(), talk, QUESTION, ANSWER)
    document = await kept(cache, talk)
    assert document["version"] == 1
    assert document["summary"]["text"] == made.messages[0]["content"]
    assert document["summary"]["last"] + 1 == made.receipt["summarised"] == 60
    assert await new_manager().get_context(talk.id, user_id=talk.user) == made
    document["summary"]["text"] = FROM_CACHE
    await put(cache, talk, document)
    other = await new_manager().get_context(talk.id, user_id=talk.user)
    assert other.messages[0]["content"] == FROM_CACHE


async def test_another_process_goes_on_from_what_redis_holds(
    talk: Talk, cache: Cache, new_manager: NewManager
) -> None:
    made = await spoken(talk, new_manager)
    assert await new_manager().get_context(talk.id, user_id=talk.user) == made
    await put(cache, talk, doctored(await kept(cache, talk)))
    manager = new_manager()
    context = await manager.get_context(talk.id, user_id=talk.user)
    assert FROM_CACHE in texts(context.messages), "the history was not read from the database"
    await cache.delete(key_of(talk))
    again = await manager.get_context(talk.id, user_id=talk.user)
    assert again == context, "it is in this process's memory now"
    assert await new_manager().get_context(talk.id, user_id=talk.user) == made


async def test_what_another_process_added_is_seen_at_once(
    talk: Talk, cache: Cache, new_manager: NewManager
) -> None:
    here, there = new_manager(), new_manager()
    await talk.say(*sentences(6))
    for turn in range(6):
        manager = here if turn % 2 else there
        said = f"Question {turn}?", f"Answer {turn}."
        context = await remembered(manager, talk, *said)
        other = await (there if turn % 2 else here).get_context(talk.id, user_id=talk.user)
        assert context.messages == other.messages
        assert [message["content"] for message in other.messages][-2:] == list(said)
        assert (await kept(cache, talk))["head"] == str(talk.head)


def _without(name: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda document: {key: value for key, value in document.items() if key != name}


def _with(**changed: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda document: {**document, **changed}


def _with_message(**changed: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """The document with its first message changed."""
    return lambda document: {
        **document,
        "items": [{**document["items"][0], **changed}, *document["items"][1:]],
    }


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda _: b"", id="nothing"),
        pytest.param(lambda _: b"\xff\xfe\x00garbage", id="no UTF-8"),
        pytest.param(lambda document: msgspec.json.encode(document)[:-20], id="cut off"),
        pytest.param(lambda document: b"\x80" + msgspec.json.encode(document), id="a byte too many"),
        pytest.param(lambda _: b"[" * 100_000, id="nested deeply"),
        pytest.param(lambda _: b"null", id="null"),
        pytest.param(lambda document: msgspec.json.encode([document]), id="a list"),
        pytest.param(lambda document: msgspec.json.encode({"context": document}), id="another object"),
        pytest.param(_without("form"), id="no form"),
        pytest.param(_without("items"), id="no items"),
        pytest.param(_with(form=FORM + 1), id="a later form"),
        pytest.param(_with(form=FORM - 1), id="an earlier form"),
        pytest.param(_with(bounds=[50, 32_000]), id="read under other settings"),
        pytest.param(_with_message(wire={}), id="a message that is nobody's"),
        pytest.param(_with_message(tokens=-100_000), id="a message that takes less than nothing"),
        pytest.param(_with(items={"0": "hello"}), id="items of another type"),
        pytest.param(_with(items=[{"id": 5}]), id="odd items"),
        pytest.param(_with(head="nonsense"), id="a head that is no id"),
        pytest.param(_with(head=None), id="no head"),
        pytest.param(_with(version="0"), id="a version of another type"),
        pytest.param(_with(summary="none"), id="an odd summary"),
        pytest.param(_with(user=str(new_id())), id="another user's"),
        pytest.param(_with(conversation=str(new_id())), id="another conversation's"),
        pytest.param(_with(head=str(new_id())), id="of a head that is not there"),
        pytest.param(_with(version=7), id="of another version"),
        pytest.param(_with(version=-1), id="of a version before"),
    ],
)
async def test_what_does_not_hold_is_passed_over(
    talk: Talk,
    cache: Cache,
    new_manager: NewManager,
    change: Callable[[dict[str, Any]], dict[str, Any] | bytes],
) -> None:
    made = await spoken(talk, new_manager)
    await put(cache, talk, change(doctored(await kept(cache, talk))))
    manager = new_manager()
    assert await manager.get_context(talk.id, user_id=talk.user) == made
    await manager.settle(talk.id)
    document = await kept(cache, talk)
    assert document["head"] == str(talk.head), "what holds is kept in its place"
    assert FROM_CACHE not in str(document)


async def test_a_key_of_another_kind_is_passed_over(
    talk: Talk, cache: Cache, new_manager: NewManager
) -> None:
    """Whoever shares the Redis may have put a list there."""
    made = await spoken(talk, new_manager)
    await cache.delete(key_of(talk))
    await cache.execute("RPUSH", key_of(talk), "not ours")
    manager = new_manager()
    assert await manager.get_context(talk.id, user_id=talk.user) == made


async def test_another_users_document_under_the_key_is_passed_over(
    talk: Talk, cache: Cache, new_manager: NewManager, database: Database, reader: Any, stranger: Any
) -> None:
    made = await spoken(talk, new_manager)
    theirs = await talk_of(database, stranger)
    await theirs.say("A secret of another user.", "I keep it.")
    await remembered(new_manager(), theirs, "Do you?", "I do.")
    mine = await talk_of(database, reader)
    await mine.say("In another conversation.", "Indeed.")
    await remembered(new_manager(), mine, "Is it?", "It is.")
    for other in (theirs, mine):
        await put(cache, talk, await kept(cache, other))
        assert await new_manager().get_context(talk.id, user_id=talk.user) == made
        # … not even when it says that it is of this conversation: the head is not
        await put(
            cache, talk, {**await kept(cache, other), "user": str(talk.user), "conversation": str(talk.id)}
        )
        assert await new_manager().get_context(talk.id, user_id=talk.user) == made


async def test_a_document_of_an_old_head_is_passed_over(
    talk: Talk, cache: Cache, new_manager: NewManager
) -> None:
    await spoken(talk, new_manager)
    old = doctored(await kept(cache, talk))
    made = await remembered(new_manager(), talk, "And the people?", "They sing.")
    await put(cache, talk, old)
    assert await new_manager().get_context(talk.id, user_id=talk.user) == made


async def test_a_document_of_another_branch_is_passed_over(
    talk: Talk, cache: Cache, new_manager: NewManager
) -> None:
    ids = await talk.say(*sentences(6))
    manager = new_manager()
    await remembered(manager, talk, QUESTION, ANSWER)
    document = await kept(cache, talk)
    await talk.say("Said differently.", "Answered differently.", at=ids[1])
    await put(cache, talk, document)
    for one in (manager, new_manager()):
        context = await one.get_context(talk.id, user_id=talk.user)
        said = [message["content"] for message in context.messages]
        assert said == [*sentences(2), "Said differently.", "Answered differently."]


async def test_a_document_from_before_a_compaction_is_passed_over(
    talk: Talk, cache: Cache, new_manager: NewManager, new_compactor: NewCompactor
) -> None:
    await talk.say(*sentences(35))
    manager = new_manager()
    await manager.get_context(talk.id, user_id=talk.user)
    await manager.settle(talk.id)
    old = doctored(await kept(cache, talk))
    assert await new_compactor().run(replace(talk.work, max_tokens=600)) == 1
    (summary,) = await talk.summaries()
    await put(cache, talk, old)
    for one in (manager, new_manager()):
        context = await one.get_context(talk.id, user_id=talk.user)
        assert context.receipt["summarised"] == summary.last + 1
        assert FROM_CACHE not in texts(context.messages)


async def test_a_prompt_that_is_changed_counts_at_once(
    talk: Talk, new_manager: NewManager, database: Database
) -> None:
    """It is no part of what is kept."""
    await spoken(talk, new_manager)
    manager = new_manager()
    await manager.get_context(talk.id, user_id=talk.user)
    async with database.system() as session:
        change = text("UPDATE conversations SET system_prompt = 'Be brief.' WHERE id = :id")
        await session.execute(change, {"id": talk.id})
    for one in (manager, new_manager()):
        context = await one.get_context(talk.id, user_id=talk.user)
        assert context.messages[0] == {"role": "system", "content": "Be brief."}


@pytest.mark.parametrize("away", ["stopped", "paused"])
async def test_without_redis_a_context_is_little_later_and_the_same(
    talk: Talk, valkey: ValkeyServer, new_manager: NewManager, away: str
) -> None:
    made = await spoken(talk, new_manager)
    warm, cold = new_manager(timeout=TIMEOUT), new_manager(timeout=TIMEOUT)
    await warm.known(talk.user, new_id())  # it is connected; the other one is not, yet
    began = time.perf_counter()
    await new_manager().get_context(talk.id, user_id=talk.user)
    usual = time.perf_counter() - began
    if away == "stopped":
        valkey.stop()
    else:
        valkey.pause()
    try:
        for manager in (warm, cold):
            for _ in range(3):
                began = time.perf_counter()
                assert await manager.get_context(talk.id, user_id=talk.user) == made
                assert time.perf_counter() - began < usual + 2 * TIMEOUT + NOISE
            async with asyncio.timeout(10):
                await manager.settle(talk.id)
    finally:
        if away == "paused":
            valkey.resume()


async def test_what_is_said_while_redis_is_away_is_there_when_it_is_back(
    talk: Talk, valkey: ValkeyServer, cache: Cache, new_manager: NewManager
) -> None:
    """It comes back with what it held before: an older head."""
    await spoken(talk, new_manager)
    manager = new_manager(timeout=TIMEOUT)
    await manager.get_context(talk.id, user_id=talk.user)
    valkey.pause()
    try:
        said = await remembered(manager, talk, "And the people?", "They sing.")
    finally:
        valkey.resume()
    async with asyncio.timeout(10):
        while not cache.available or await cache.get(key_of(talk)) is None:
            await asyncio.sleep(0.02)
    assert await new_manager().get_context(talk.id, user_id=talk.user) == said
