"""Who is alive keeps its turns; who is not loses them to the living, and nobody waits for the dead."""

import asyncio
import contextlib
import signal
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NoReturn
from uuid import UUID

import pytest
from sqlalchemy import text

from baatcheet.chat import relay
from baatcheet.chat import store as turn_store
from baatcheet.chat.recording import Recorder
from baatcheet.context.manager import ContextManager
from baatcheet.kit.ids import new_id
from tests.conftest import ADMIN_TOKEN, Caller
from tests.recovery.living import QUICK, living, prepare
from tests.recovery.own_database import OwnDatabase
from tests.recovery.test_truth import CHAT, asked_with, has_answered, rest, slow
from tests.running import api_process, new_user
from tests.scripted_provider import ScriptedProvider
from tests.servers import at


@pytest.fixture
def own_database(migrated_database: str, environment_of_server: Mapping[str, str]) -> str:
    """A short lease is no measure for the processes of other tests."""
    prepare(migrated_database, environment_of_server)
    return migrated_database


@pytest.fixture
def freezable(
    tmp_path_factory: pytest.TempPathFactory, environment_of_server: Mapping[str, str]
) -> Iterator[OwnDatabase]:
    database = OwnDatabase(tmp_path_factory.mktemp("pg"))
    try:
        prepare(database.url, environment_of_server)
        yield database
    finally:
        database.stop()


async def test_living_turns_survive_a_database_that_is_frozen_for_longer_than_the_lease(
    freezable: OwnDatabase, environment_of_server: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turn_store, "BEAT_TIMEOUT", QUICK.beat)  # as it is by default
    async with (
        asyncio.timeout(60),
        living(freezable.url, environment_of_server, deadline=10) as first,
        living(freezable.url, environment_of_server, deadline=10) as second,
    ):
        turns = [(one, await one.start(slow("freeze", 13))) for one in (first, second) * 2]
        await asyncio.sleep(1.5)
        late = await first.backends()
        freezable.freeze()
        await asyncio.sleep(QUICK.lease + 2)
        # The network of one comes back before that of the other, whose leases look lapsed until then.
        freezable.thaw(but=late)
        await asyncio.sleep(1)
        freezable.thaw()
        for one, feed in turns:
            assert (await feed.ended()).status == "completed"
            row = await one.chat.store.row(one.who.user_id, feed.identity.id)
            assert row is not None
            assert row.status == "completed"


async def test_redis_alone_brings_a_turn_to_its_followers_and_tells_them_of_its_end(
    own_database: str,
    environment_of_server: Mapping[str, str],
    scripted_provider: ScriptedProvider,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(relay, "READ_BLOCK", 5.0)  # a follower that is not told of the end is seen to wait
    seldom = replace(QUICK, flush=3600)  # nothing becomes durable before the end
    async with (
        asyncio.timeout(40),
        living(own_database, environment_of_server, rhythm=seldom, redis=True) as first,
        living(own_database, environment_of_server, rhythm=seldom, redis=True) as second,
    ):
        words = f"by Redis alone {new_id()}"
        feed = await first.start(slow(words, 1.5))
        async with first.database.system(limit=30) as session:
            await session.execute(
                text("SELECT FROM conversations WHERE id = :id FOR UPDATE"),
                {"id": feed.identity.conversation_id},
            )
            followed = await second.chat.service.find(second.who, feed.identity.id)
            while not has_answered(scripted_provider, words):
                await asyncio.sleep(0.02)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(5):
                    while len(followed.chunks) < 1 + 15:  # the role, then the words
                        await followed.changed(0.05)
            assert len(feed.chunks) == 1 + 15
            assert [one.text for one in followed.chunks] == [one.text for one in feed.chunks]
            assert followed.outcome is None
        assert (await feed.ended()).status == "completed"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(3):
                await followed.ended()
        assert followed.outcome is not None
        assert followed.outcome.status == "completed"
        assert [one.text for one in followed.chunks] == [one.text for one in feed.chunks]


async def test_a_full_pool_does_not_cost_the_lease(
    own_database: str, environment_of_server: Mapping[str, str]
) -> None:
    async with (
        asyncio.timeout(60),
        living(own_database, environment_of_server, pool_size=3) as busy,
        living(own_database, environment_of_server) as other,
    ):
        feed = await busy.start(slow("busy pool", 11))

        async def take_one() -> None:
            async with busy.database.hot(limit=20) as connection:
                await connection.fetch("SELECT pg_sleep($1)", QUICK.lease + 4)

        # All three: one that an opening may have kept is given up for the last.
        taking = [asyncio.create_task(take_one()) for _ in range(3)]
        await asyncio.sleep(QUICK.lease + 3)
        assert busy.database.pool_use().in_use == 3
        row = await other.chat.store.row(other.who.user_id, feed.identity.id)
        assert row is not None
        assert row.status == "running"
        await asyncio.gather(*taking)
        assert (await feed.ended()).status == "completed"


async def test_a_paused_process_that_was_taken_for_dead_stops_generating_soon_after_it_comes_back(
    own_database: str,
    environment_of_server: Mapping[str, str],
    scripted_provider: ScriptedProvider,
    tmp_path: Path,
) -> None:
    environment = at(environment_of_server, own_database)
    del environment["REDIS_URL"]
    words = f"pause me {new_id()}"
    with api_process(environment, tmp_path / "api.log") as api:
        token = new_user(api.url, ADMIN_TOKEN)
        async with (
            asyncio.timeout(60),
            Caller(api.url, token) as caller,
            living(own_database, environment_of_server) as other,
            caller.stream("POST", CHAT, json={"message": slow(words, 50), "stream": True}) as response,
        ):
            turn = UUID(response.headers["x-baatcheet-turn"])
            reading = asyncio.create_task(rest(response))
            user = (await caller.get("/api/v1/me")).json()["user"]["id"]
            await asyncio.sleep(1.5)
            api.signal(signal.SIGSTOP)
            row = await other.chat.store.row(UUID(user), turn)
            while row is not None and row.status == "running":
                await asyncio.sleep(0.2)
                row = await other.chat.store.row(UUID(user), turn)
            assert row is not None
            assert row.status == "interrupted"
            api.signal(signal.SIGCONT)
            async with asyncio.timeout(5):
                seen = await reading
            assert seen[-1].name == "turn.interrupted"
            asked = asked_with(scripted_provider, words)
            assert await asked.left(timeout=5)
            assert asked.sent_chunks < 500
            conversation = seen[0].data["conversation_id"]
            again = await caller.post(CHAT, json={"message": "next", "conversation_id": conversation})
            assert again.status_code == 200, again.text


class Panic(BaseException):
    """What a native library raises that gives up: no Exception."""


async def test_a_turn_whose_task_breaks_down_fails_and_its_conversation_goes_on(
    own_database: str, environment_of_server: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with asyncio.timeout(30), living(own_database, environment_of_server) as one:
        with monkeypatch.context() as broken:
            broken.setattr(ContextManager, "plan", panic)
            feed = await one.start("hello")
            assert (await feed.ended()).status == "failed"
        row = await one.chat.store.row(one.who.user_id, feed.identity.id)
        assert row is not None
        assert row.status == "failed"
        again = await one.start("hello again", conversation=feed.identity.conversation_id)
        assert (await again.ended()).status == "completed"


async def test_a_turn_that_could_not_be_recorded_is_ended_by_the_keeper_of_its_own_process(
    own_database: str, environment_of_server: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with asyncio.timeout(30), living(own_database, environment_of_server) as one:
        with monkeypatch.context() as broken:
            broken.setattr(Recorder, "outcome", panic)
            feed = await one.start("hello")
            told = await feed.ended()
        assert told.status == "failed"
        assert told.error is not None
        assert "could not be recorded" in str(told.error)
        row = await one.chat.store.row(one.who.user_id, feed.identity.id)
        while row is not None and row.status == "running":
            await asyncio.sleep(0.1)
            row = await one.chat.store.row(one.who.user_id, feed.identity.id)
        assert row is not None
        assert row.status == "interrupted"


async def panic(*_: object, **__: object) -> NoReturn:
    raise Panic
