"""Limits in one process, in several, with the cache and without it."""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Iterator
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from baatcheet.auth.rate_limits import FailureLimit, LimitState, RateLimits, duration, network
from baatcheet.platform.cache import Cache
from baatcheet.platform.errors import RateLimited
from baatcheet.platform.settings import AuthSettings, CacheSettings
from tests.valkey_server import ValkeyServer

NO_CACHE = CacheSettings(url=None, timeout=0.05)


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def limits_of(requests: int = 0, tokens: int = 0) -> AuthSettings:
    return AuthSettings(admin_token=None, requests_per_minute=requests, tokens_per_minute=tokens)


@pytest.fixture(scope="module")
def server() -> Iterator[ValkeyServer]:
    with ValkeyServer() as server:
        yield server


@contextlib.asynccontextmanager
async def cache_at(settings: CacheSettings) -> AsyncIterator[Cache]:
    cache = Cache(settings)
    await cache.start()
    try:
        yield cache
    finally:
        await asyncio.wait_for(cache.close(), 5)


async def passes(limits: RateLimits, token: UUID) -> bool:
    try:
        await limits.check(token)
    except RateLimited:
        return False
    return True


async def burst(limits: RateLimits, token: UUID, size: int) -> int:
    return sum(await asyncio.gather(*(passes(limits, token) for _ in range(size))))


async def refusal(limits: RateLimits, token: UUID) -> RateLimited:
    with pytest.raises(RateLimited) as caught:
        await limits.check(token)
    return caught.value


async def test_exactly_the_limit_passes_in_a_burst_by_the_cache(server: ValkeyServer) -> None:
    async with cache_at(server.settings(timeout=2)) as cache:
        limits = RateLimits(limits_of(requests=50), cache)
        token = uuid4()
        assert await burst(limits, token, 200) == 50
        assert await burst(limits, uuid4(), 10) == 10


async def test_exactly_the_limit_passes_in_a_burst_without_a_cache() -> None:
    async with cache_at(NO_CACHE) as cache:
        assert await burst(RateLimits(limits_of(requests=50), cache), uuid4(), 200) == 50


async def test_several_processes_share_one_limit(server: ValkeyServer) -> None:
    async with contextlib.AsyncExitStack() as stack:
        caches = [await stack.enter_async_context(cache_at(server.settings(timeout=2))) for _ in range(4)]
        instances = [RateLimits(limits_of(requests=100), cache) for cache in caches]
        token = uuid4()
        passed = await asyncio.gather(*(burst(limits, token, 60) for limits in instances))
        assert sum(passed) == 100


async def test_a_refusal_says_when_to_come_back_and_that_is_true() -> None:
    clock = Clock()
    async with cache_at(NO_CACHE) as cache:
        limits = RateLimits(limits_of(requests=10), cache, clock=clock)
        token = uuid4()
        assert await burst(limits, token, 10) == 10
        clock.now += 20
        refused = await refusal(limits, token)
        wait = int(refused.headers["retry-after"])
        assert 40 < wait <= 47
        assert refused.headers["x-ratelimit-remaining-requests"] == "0"
        clock.now += wait - 2
        assert not await passes(limits, token)
        clock.now += 2
        assert await passes(limits, token)


@given(st.lists(st.floats(0, 30), min_size=1, max_size=120), st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_no_minute_holds_much_more_than_the_limit(gaps: list[float], limit: int) -> None:
    async def run() -> None:
        clock = Clock()
        limits = RateLimits(limits_of(requests=limit), Cache(NO_CACHE), clock=clock)
        token, passed = uuid4(), []
        for gap in gaps:
            clock.now += gap
            if await passes(limits, token):
                passed.append(clock.now)
        for first in passed:
            # The window before counts as if it had been even: a minute can hold twice the limit, never more.
            assert sum(first <= moment < first + 60 for moment in passed) <= 2 * limit

    asyncio.run(run())


@given(st.lists(st.tuples(st.floats(0, 70), st.integers(0, 400)), max_size=60))
@settings(max_examples=60, deadline=None)
def test_obeying_retry_after_always_gets_through(steps: list[tuple[float, int]]) -> None:
    async def run() -> None:
        clock = Clock()
        limits = RateLimits(limits_of(requests=5, tokens=100), Cache(NO_CACHE), clock=clock)
        token = uuid4()
        for gap, spent in steps:
            clock.now += gap
            try:
                await limits.check(token)
            except RateLimited as refused:
                clock.now += int(refused.headers["retry-after"])
                await limits.check(token)
            await limits.spend_tokens(token, spent)

    asyncio.run(run())


async def test_the_cache_and_the_process_count_alike(server: ValkeyServer) -> None:
    chance = random.Random(7)
    async with cache_at(server.settings(timeout=2)) as shared, cache_at(NO_CACHE) as none:
        by_cache = RateLimits(limits_of(requests=20, tokens=1000), shared)
        by_process = RateLimits(limits_of(requests=20, tokens=1000), none)
        token = uuid4()
        for _ in range(60):
            if chance.random() < 0.3:
                spent = chance.randrange(60)
                await by_cache.spend_tokens(token, spent)
                await by_process.spend_tokens(token, spent)
            assert await passes(by_cache, token) == await passes(by_process, token)


async def test_model_tokens_leave_a_debt_that_is_waited_off(server: ValkeyServer) -> None:
    clock = Clock()
    async with cache_at(NO_CACHE) as cache:
        limits = RateLimits(limits_of(tokens=600), cache, clock=clock)
        token = uuid4()
        await limits.check(token)
        await limits.spend_tokens(token, 1500)  # two and a half minutes' worth
        refused = await refusal(limits, token)
        assert refused.headers["x-ratelimit-remaining-tokens"] == "0"
        assert refused.headers["x-ratelimit-reset-tokens"] == "2m30s"
        assert int(refused.headers["retry-after"]) == 91
        clock.now += 91
        assert await passes(limits, token)
        state = await limits.check(token)
        assert state.tokens is not None
        assert 5 <= state.tokens.remaining <= 15
    async with cache_at(server.settings(timeout=2)) as shared:
        limits = RateLimits(limits_of(tokens=600), shared)
        token = uuid4()
        await limits.check(token)
        await limits.spend_tokens(token, 1500)
        assert int((await refusal(limits, token)).headers["retry-after"]) in {90, 91}


async def test_headers_are_those_that_clients_of_openai_know(server: ValkeyServer) -> None:
    async with cache_at(server.settings(timeout=2)) as cache:
        limits = RateLimits(limits_of(requests=60, tokens=1000), cache)
        token = uuid4()
        await limits.check(token)
        headers = (await limits.check(token)).headers()
        assert headers["x-ratelimit-limit-requests"] == "60"
        assert headers["x-ratelimit-remaining-requests"] == "58"
        assert headers["x-ratelimit-reset-requests"] in {"2m0s", "1m59s"}
        assert headers["x-ratelimit-remaining-tokens"] == "1000"
        assert headers["x-ratelimit-reset-tokens"] == "0ms"


async def test_without_limits_nothing_is_counted_and_nothing_said() -> None:
    async with cache_at(NO_CACHE) as cache:
        limits = RateLimits(limits_of(), cache)
        assert await limits.check(uuid4()) == LimitState()


async def test_a_paused_cache_delays_a_check_by_its_timeout_and_the_limit_still_holds() -> None:
    with ValkeyServer() as server:
        async with cache_at(server.settings(timeout=0.05)) as cache:
            limits = RateLimits(limits_of(requests=30), cache)
            await limits.check(uuid4())
            server.pause()
            try:
                started = time.perf_counter()
                assert await burst(limits, uuid4(), 100) == 30
                assert time.perf_counter() - started < 0.5
            finally:
                server.resume()


async def test_a_cache_that_forgot_its_scripts_is_given_them_again(server: ValkeyServer) -> None:
    async with cache_at(server.settings(timeout=2)) as cache:
        limits = RateLimits(limits_of(requests=5), cache)
        token = uuid4()
        assert await burst(limits, token, 3) == 3
        await cache.execute("SCRIPT", "FLUSH")
        assert await burst(limits, token, 5) == 2


async def test_what_is_kept_in_the_cache_goes_away_by_itself(server: ValkeyServer) -> None:
    async with cache_at(server.settings(timeout=2)) as cache:
        token = uuid4()
        await RateLimits(limits_of(requests=5), cache).check(token)
        left = await cache.execute("PTTL", b"baatcheet:limit:" + token.bytes)
        assert 100_000 < left <= 120_000


async def failures_until_refused(limit: FailureLimit, address: str) -> int:
    for count in range(1, 100):
        try:
            await limit.failed(address)
        except RateLimited as refused:
            return count if 0 < int(refused.headers["retry-after"]) <= 60 else -1
    raise AssertionError("never refused")


async def test_wrong_tokens_of_one_address_are_refused_after_the_limit() -> None:
    clock = Clock()
    async with cache_at(NO_CACHE) as cache:
        limit = FailureLimit(cache, limit=20, clock=clock)
        assert await failures_until_refused(limit, "192.0.2.1") == 21
        assert limit.blocked_for("192.0.2.1") > 0
        assert limit.blocked_for("192.0.2.2") == 0
        await limit.failed("192.0.2.2")
        clock.now += 61
        assert limit.blocked_for("192.0.2.1") == 0
        await limit.failed("192.0.2.1")


async def test_wrong_tokens_are_counted_over_all_processes(server: ValkeyServer) -> None:
    async with cache_at(server.settings(timeout=2)) as one, cache_at(server.settings(timeout=2)) as other:
        address = f"2001:db8:{random.randrange(65536):x}::1"
        first, second = FailureLimit(one, limit=20), FailureLimit(other, limit=20)
        for _ in range(15):
            await first.failed(address)
        assert await failures_until_refused(second, address) == 6


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("not an address", "not an address"),
    ],
)
def test_an_ipv6_client_is_counted_by_its_network(address: str, counted: str) -> None:
    assert network(address) == counted


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0, "0ms"),
        (0.02, "20ms"),
        (1, "1s"),
        (1.5, "1.5s"),
        (59.9999, "1m0s"),
        (360, "6m0s"),
        (3600, "1h0m0s"),
    ],
)
def test_durations_are_written_as_openai_writes_them(seconds: float, written: str) -> None:
    assert duration(seconds) == written


async def test_a_cache_that_is_not_one_still_leaves_the_local_limit() -> None:
    unreachable = CacheSettings(url=SecretStr("redis://127.0.0.1:9/0"), timeout=0.05)
    async with cache_at(unreachable) as cache:
        assert await burst(RateLimits(limits_of(requests=7), cache), uuid4(), 20) == 7
