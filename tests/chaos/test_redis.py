"""Redis away in every way, under load: no request fails, and none waits for it for long."""

import asyncio
import contextlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import redis

from baatcheet.auth.bootstrap import ensure_admin
from baatcheet.platform.settings import Settings
from tests.chaos.garbling_redis import NONSENSE, GarblingRedis
from tests.chaos.load import CHAT, Journal, load
from tests.conftest import ADMIN_TOKEN, Caller
from tests.running import ApiProcess, Event, api_process, events, new_user
from tests.valkey_server import ValkeyServer

pytestmark = pytest.mark.timeout(400)  # a machine that is busy with others

CLIENTS = 6
LONG = 2.0  # seconds of every state
MOMENT = 0.6  # … of one kind of nonsense


@pytest.fixture
def environment(environment_of_server: Mapping[str, str], settings: Settings) -> dict[str, str]:
    ensure_admin(environment_of_server["DATABASE_URL"], settings.auth)
    limited = {"BAATCHEET_REQUESTS_PER_MINUTE": "100000", "BAATCHEET_TOKENS_PER_MINUTE": "100000000"}
    return {**environment_of_server, **limited}


def all_well(journal: Journal) -> None:
    assert journal.faults == []
    assert [one for one in journal.answers if one.status not in {200, 201, 202}] == []
    ended = {status for status, _, _ in journal.turns.values()}
    assert ended == {"completed"}


def stopped(valkey: ValkeyServer) -> None:
    with contextlib.suppress(redis.ConnectionError):
        redis.Redis.from_url(valkey.url).shutdown(nosave=True)


def started_again(valkey: ValkeyServer) -> None:
    valkey.stop()
    valkey.start()


def filled(valkey: ValkeyServer) -> None:
    client = redis.Redis.from_url(valkey.url)
    for size in (100_000, 1_000, 10):
        with contextlib.suppress(redis.OutOfMemoryError):
            for number in range(1_000_000):
                client.set(f"{size} {number}", b"x" * size)


def emptied(valkey: ValkeyServer) -> None:
    redis.Redis.from_url(valkey.url).flushall()


State = Callable[[ValkeyServer], None]
STATES: dict[str, tuple[State, State]] = {
    "stopped": (stopped, started_again),
    "killed": (ValkeyServer.stop, ValkeyServer.start),
    "paused": (ValkeyServer.pause, ValkeyServer.resume),
    "full": (filled, emptied),
}


async def followed(first: ApiProcess, second: ApiProcess, token: str, moment: asyncio.Event) -> None:
    """A turn that runs in one process and is followed from another, while something happens at `moment`."""
    async with Caller(first.url, token) as here, Caller(second.url, token) as there:
        seconds = 2 * LONG
        step = {"chunks": int(seconds * 10), "chunk_delay": 0.1, "reply": "word " * int(seconds * 10)}
        body = {"message": f"go [[scripted {json.dumps(step)}]]", "stream": True}
        async with here.stream("POST", CHAT, json=body) as answer:
            assert answer.status_code == 200, await answer.aread()
            path = f"/api/v1/turns/{answer.headers['x-baatcheet-turn']}/events"
            async with there.stream("GET", path) as same:
                moment.set()
                lines = [line async for line in same.aiter_lines()]
            told = list(events(iter([line async for line in answer.aiter_lines()])))
    seen = list(events(iter(lines)))
    assert seen[-1].name == "turn.completed"
    assert [event.id for event in seen] == list(range(1, len(seen) + 1))
    assert text_of(seen) == text_of(told)


def text_of(seen: list[Event]) -> str:
    return "".join(event.data["text"] for event in seen if event.name == "message.delta")


async def test_redis_stopped_killed_paused_and_full_fails_no_request(
    environment: dict[str, str], tmp_path: Path
) -> None:
    with ValkeyServer("--maxmemory", "4mb", "--maxmemory-policy", "noeviction") as valkey:
        own = environment | {"REDIS_URL": valkey.url}
        with (
            api_process(own, tmp_path / "a.log") as first,
            api_process(own, tmp_path / "b.log") as second,
        ):
            token = new_user(first.url, ADMIN_TOKEN)
            async with load(first.url, CLIENTS) as (journal, _):
                for begin, end in STATES.values():
                    moment = asyncio.Event()
                    following = asyncio.create_task(followed(first, second, token, moment))
                    await moment.wait()
                    await asyncio.to_thread(begin, valkey)
                    await asyncio.sleep(LONG)
                    await asyncio.to_thread(end, valkey)
                    await following
            all_well(journal)
            await journal.assert_kept(environment["DATABASE_URL"])


async def test_redis_answering_garbage_fails_no_request(environment: dict[str, str], tmp_path: Path) -> None:
    with GarblingRedis() as garbling:
        own = environment | {"REDIS_URL": garbling.url}
        with (
            api_process(own, tmp_path / "a.log") as first,
            api_process(own, tmp_path / "b.log") as second,
        ):
            token = new_user(first.url, ADMIN_TOKEN)
            async with load(first.url, CLIENTS) as (journal, _):
                moment = asyncio.Event()
                following = [asyncio.create_task(followed(first, second, token, moment))]
                for answer in NONSENSE.values():
                    garbling.answer = answer
                    await asyncio.sleep(MOMENT)
                await asyncio.gather(*following)
            all_well(journal)
            await journal.assert_kept(environment["DATABASE_URL"])
