"""A cache that is well, and one that is stopped, paused, full or not a cache at all."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from baatcheet.platform.cache import MISS, Cache, tolerated
from baatcheet.platform.settings import CacheSettings, SettingsError
from tests.valkey_server import ValkeyServer


@contextlib.asynccontextmanager
async def cache_at(settings: CacheSettings) -> AsyncIterator[Cache]:
    cache = Cache(settings)
    try:
        yield cache
    finally:
        await asyncio.wait_for(cache.close(), 5)


@pytest.fixture
def server() -> Iterator[ValkeyServer]:
    with ValkeyServer() as server:
        yield server


async def until_available(cache: Cache, seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not cache.available:
            await asyncio.sleep(0.01)


async def took(cache: Cache) -> float:
    started = time.perf_counter()
    assert await cache.get("k") is None
    return time.perf_counter() - started


async def block_on(streams: Redis) -> Any:
    return await streams.xread({"s": "$"}, block=3000)


async def test_what_is_put_is_got_until_its_time_is_up(server: ValkeyServer) -> None:
    async with cache_at(server.settings()) as cache:
        assert await cache.put("k", b"\x00value", seconds=0.2)
        assert await cache.get("k") == b"\x00value"
        assert cache.available
        await asyncio.sleep(0.3)
        assert await cache.get("k") is None
        await cache.put("k", b"again", seconds=10)
        assert await cache.delete("k")
        assert await cache.get("k") is None


async def test_commands_given_together_each_get_their_own_answer(server: ValkeyServer) -> None:
    async with cache_at(server.settings(timeout=2)) as cache:
        await asyncio.gather(*(cache.put(f"k{n}", b"%d" % n, seconds=10) for n in range(500)))
        assert await asyncio.gather(*(cache.get(f"k{n}") for n in range(500))) == [
            b"%d" % n for n in range(500)
        ]


async def test_a_wrong_command_fails_its_own_caller_only(server: ValkeyServer) -> None:
    async with cache_at(server.settings(timeout=1)) as cache:
        put = asyncio.create_task(cache.put("k", b"v", seconds=10))
        wrong = asyncio.create_task(cache.execute("NONSENSE"))
        got = asyncio.create_task(cache.get("k"))
        assert await put
        assert await got == b"v"
        with pytest.raises(ResponseError):
            await wrong


async def test_without_a_url_everything_is_a_miss() -> None:
    async with cache_at(CacheSettings(url=None, timeout=0.05)) as cache:
        assert not cache.configured
        assert await cache.execute("PING") is MISS
        assert not await cache.put("k", b"v", seconds=1)


def test_a_url_that_can_not_be_read_names_the_setting() -> None:
    with pytest.raises(SettingsError, match="REDIS_URL"):
        Cache(CacheSettings(url=SecretStr("redis://cache?socket_timeout=soon"), timeout=0.05))


async def test_a_server_that_is_not_there_is_a_quick_miss_and_used_once_it_is(server: ValkeyServer) -> None:
    server.stop()
    async with cache_at(server.settings()) as cache:
        assert await took(cache) < 0.3
        assert await took(cache) < 0.01
        server.start()
        await until_available(cache)
        assert await cache.put("k", b"v", seconds=10)


async def test_a_server_that_is_killed_and_started_again_is_used_again(server: ValkeyServer) -> None:
    async with cache_at(server.settings()) as cache:
        assert await cache.put("k", b"v", seconds=10)
        server.stop()
        assert await took(cache) < 0.3
        server.start()
        await until_available(cache)
        assert await cache.put("k", b"v", seconds=10)


async def test_a_paused_server_costs_its_timeout_once_and_then_nothing(server: ValkeyServer) -> None:
    async with cache_at(server.settings()) as cache:
        assert await cache.put("k", b"v", seconds=10)
        server.pause()
        try:
            started = time.perf_counter()
            assert await asyncio.gather(*(cache.get("k") for _ in range(1_000))) == [None] * 1_000
            assert time.perf_counter() - started < 1
            assert not cache.available
            started = time.perf_counter()
            for _ in range(1_000):
                assert await cache.get("k") is None
            assert time.perf_counter() - started < 0.5
        finally:
            server.resume()
        await until_available(cache)
        assert await cache.get("k") == b"v"


async def test_a_server_that_answers_garbage_is_a_quick_miss() -> None:
    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 50)
        writer.close()

    fake = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = fake.sockets[0].getsockname()[1]
    settings = CacheSettings(url=SecretStr(f"redis://127.0.0.1:{port}/0"), timeout=0.05)
    async with fake, cache_at(settings) as cache:
        assert await took(cache) < 0.3
        await asyncio.sleep(0.5)
        assert not cache.available
        assert await took(cache) < 0.01


async def test_a_server_that_turns_to_garbage_later_is_given_up() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"PING\r\n")
        writer.write(b"+PONG\r\n")
        await reader.read(1)
        writer.write(b"!!! what is this\r\n")
        writer.close()

    fake = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = fake.sockets[0].getsockname()[1]
    settings = CacheSettings(url=SecretStr(f"redis://127.0.0.1:{port}"), timeout=0.05)
    async with fake, cache_at(settings) as cache:
        assert await took(cache) < 0.3


async def test_a_full_server_refuses_to_keep_and_goes_on_giving(server: ValkeyServer) -> None:
    with ValkeyServer("--maxmemory", "2mb", "--maxmemory-policy", "noeviction") as full:
        async with cache_at(full.settings(timeout=1)) as cache:
            assert await cache.put("first", b"v", seconds=60)
            kept = [await cache.put(f"k{n}", b"x" * 100_000, seconds=60) for n in range(40)]
            assert not kept[-1]
            assert await cache.get("first") == b"v"
            assert cache.available


async def test_a_password_is_used_and_a_wrong_one_is_a_miss() -> None:
    with ValkeyServer("--requirepass", "p@ss/word") as locked:
        right = CacheSettings(
            url=SecretStr(locked.url.replace("unix://", "unix://:p%40ss%2Fword@")), timeout=1
        )
        async with cache_at(right) as cache:
            assert await cache.put("k", b"v", seconds=1)
        async with cache_at(locked.settings()) as cache:
            assert not await cache.put("k", b"v", seconds=1)


async def test_a_blocking_read_waits_longer_than_a_request_may(server: ValkeyServer) -> None:
    async with cache_at(server.settings()) as cache:
        assert cache.streams is not None
        reading = asyncio.create_task(block_on(cache.streams))
        await asyncio.sleep(0.3)
        await cache.execute("XADD", "s", "*", "field", "value")
        ((name, entries),) = await asyncio.wait_for(reading, 5)
        assert name == b"s"
        assert entries[0][1] == {b"field": b"value"}


async def test_a_blocking_read_of_a_dead_server_ends(server: ValkeyServer) -> None:
    async with cache_at(server.settings()) as cache:
        assert cache.streams is not None
        reading = asyncio.create_task(block_on(cache.streams))
        await asyncio.sleep(0.1)
        server.stop()
        reached = False
        with tolerated(because="the test looks at what follows"):
            await asyncio.wait_for(reading, 5)
            reached = True
        assert not reached


async def test_a_caller_that_is_cancelled_disturbs_nobody(server: ValkeyServer) -> None:
    async with cache_at(server.settings(timeout=1)) as cache:
        await cache.put("k", b"v", seconds=10)
        leaving = [asyncio.create_task(cache.get("other")) for _ in range(20)]
        staying = [asyncio.create_task(cache.get("k")) for _ in range(20)]
        await asyncio.sleep(0)
        for task in leaving:
            task.cancel()
        assert await asyncio.gather(*staying) == [b"v"] * 20
