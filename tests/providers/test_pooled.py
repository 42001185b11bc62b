"""A pool of keys in front of a provider: what goes wrong with one key is not noticed while another can be used."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable

import aiohttp
import pytest

from baatcheet.keys.pool import KeyPool, PooledKey
from baatcheet.keys.secret import SecretKey
from baatcheet.providers.adapters.openai import OpenAIAdapter, TimeLimits
from baatcheet.providers.model import Chunk, ModelCard, ProviderError
from baatcheet.providers.pooled import PooledProvider
from baatcheet.providers.profiles import Profile
from tests.providers.conftest import MODEL
from tests.scripted_provider import ScriptedProvider, Step

ASKED = {"messages": [{"role": "user", "content": "Say hello."}]}
MakePooled = Callable[..., PooledProvider]


def key(number: int) -> str:
    return f"gsk_{number:02}Zq3kXw81LmNpTt5rVv7sBb2dFf4gHh6jKk"


@pytest.fixture
def pooled(upstream: ScriptedProvider, session: aiohttp.ClientSession) -> MakePooled:
    def make(
        keys: int = 14,
        *,
        keyless: bool = False,
        patience: float = 60.0,
        url: str | None = None,
        silence: float = 20.0,
    ) -> PooledProvider:
        pool = KeyPool("lab")
        pool.replace([PooledKey(f"id-{n:02}", f"hint-{n:02}", SecretKey(key(n))) for n in range(keys)])
        profile = Profile(name="lab", base_url=url or upstream.base_url)
        adapter = OpenAIAdapter(profile, session, limits=TimeLimits(2, silence, silence))
        return PooledProvider(adapter, pool, keyless=keyless, patience=patience)

    return make


def asked_with(upstream: ScriptedProvider) -> list[str]:
    """The numbers of the keys that the provider has seen, in the order of the requests."""
    sent = [one.headers.get("authorization", "").removeprefix("Bearer ") for one in upstream.requests]
    return [one[4:6] for one in sent]


async def said_by(blocks: AsyncIterator[list[Chunk]]) -> str:
    return "".join([chunk.text async for block in blocks for chunk in block])


async def said(provider: PooledProvider) -> str:
    async with provider.stream(MODEL, ASKED) as blocks:
        return await said_by(blocks)


async def test_every_key_has_its_turn(upstream: ScriptedProvider, pooled: MakePooled) -> None:
    provider = pooled()
    for _ in range(28):
        await said(provider)
    assert set(Counter(asked_with(upstream)).values()) == {2}


@pytest.mark.parametrize("status", [401, 402, 403, 429, 500, 503])
async def test_a_key_that_fails_is_passed_over_and_nobody_notices(
    upstream: ScriptedProvider, pooled: MakePooled, status: int
) -> None:
    provider = pooled(3)
    upstream.app.key_steps[key(1)] = Step(status=status, retry_after="60")
    for _ in range(9):
        assert await said(provider)
        assert (await provider.complete(MODEL, ASKED)).raw
    seen = Counter(asked_with(upstream))
    assert seen["00"] + seen["02"] == 18
    # An error of the server's own is tried again, until it has happened often enough.
    assert seen["01"] == (1 if status < 500 else 3)


async def test_a_refused_key_is_not_used_again_and_the_others_go_on(
    upstream: ScriptedProvider, pooled: MakePooled
) -> None:
    provider = pooled(2)
    upstream.app.key_steps[key(0)] = Step(status=401, leak_key=True)
    for _ in range(4):
        assert await said(provider)
    state = provider.pool.states()[0]
    assert (state.state, state.condition) == ("quarantined", "quarantined")
    assert key(0) not in f"{state}"


async def test_the_whole_pool_is_walked_before_the_provider_is_given_up(
    upstream: ScriptedProvider, pooled: MakePooled
) -> None:
    provider = pooled(14)
    for number in range(13):
        upstream.app.key_steps[key(number)] = Step(status=429, retry_after="30")
    assert await said(provider)
    assert len(set(asked_with(upstream))) <= 14
    upstream.app.key_steps[key(13)] = Step(status=429, retry_after="20")
    for _ in range(2):
        with pytest.raises(ProviderError) as failed:
            await said(provider)
        assert failed.value.kind == "rate_limited"
        assert failed.value.retry_after is not None
        assert 15 < failed.value.retry_after <= 20
    before = len(upstream.requests)
    with pytest.raises(ProviderError, match="14 resting"):
        await provider.complete(MODEL, ASKED)
    assert len(upstream.requests) == before  # nobody was asked in vain


async def test_a_walk_that_takes_too_long_is_ended(upstream: ScriptedProvider, pooled: MakePooled) -> None:
    provider = pooled(14, patience=0.0)
    for number in range(14):
        upstream.app.key_steps[key(number)] = Step(status=429)
    with pytest.raises(ProviderError):
        await said(provider)
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    "step", [Step(status=400), Step(status=404), Step(hang="first"), Step(hang="headers")]
)
async def test_what_another_key_would_not_change_is_raised_at_once(
    upstream: ScriptedProvider, pooled: MakePooled, step: Step
) -> None:
    provider = pooled(5, silence=1.0)
    upstream.script(*[step] * 5)
    with pytest.raises(ProviderError):
        await said(provider)
    assert len(upstream.requests) == 1
    assert all(state.state == "active" and state.condition == "usable" for state in provider.pool.states())


async def test_an_address_that_is_down_is_not_asked_by_every_request(pooled: MakePooled) -> None:
    provider = pooled(14, url="http://127.0.0.1:9/v1")
    for _ in range(5):
        with pytest.raises(ProviderError, match="could not be reached"):
            await said(provider)
    with pytest.raises(ProviderError, match="unreachable") as failed:
        await said(provider)
    assert failed.value.kind == "unreachable"
    assert failed.value.retry_after is not None


async def test_a_failure_after_the_first_token_is_told_and_not_mended(
    upstream: ScriptedProvider, pooled: MakePooled
) -> None:
    provider = pooled(3)
    upstream.script(Step(reply="one two three four", chunks=4, cut_after=2))
    text = ""
    async with contextlib.AsyncExitStack() as stack:
        blocks = await stack.enter_async_context(provider.stream(MODEL, ASKED))
        text += "".join(chunk.text for chunk in await anext(blocks))
        with pytest.raises(ProviderError, match="before the reply was complete"):
            await said_by(blocks)
    assert text
    assert len(upstream.requests) == 1


async def test_what_two_keys_are_both_forbidden_is_held_against_neither(
    upstream: ScriptedProvider, pooled: MakePooled
) -> None:
    provider = pooled(5)
    for number in range(5):
        upstream.app.key_steps[key(number)] = Step(status=403)
    for _ in range(4):
        with pytest.raises(ProviderError) as failed:
            await said(provider)
        assert failed.value.kind == "unauthorized"
    assert [state.state for state in provider.pool.states()] == ["active"] * 5
    assert provider.pool.in_flight(retired=False) == {}
    assert len(upstream.requests) == 8


async def test_the_only_key_that_is_forbidden_is_quarantined(
    upstream: ScriptedProvider, pooled: MakePooled
) -> None:
    provider = pooled(1)
    upstream.app.key_steps[key(0)] = Step(status=403)
    with pytest.raises(ProviderError):
        await said(provider)
    assert provider.pool.states()[0].state == "quarantined"


async def test_a_model_that_is_limited_takes_no_other_model_with_it(
    upstream: ScriptedProvider, pooled: MakePooled
) -> None:
    provider = pooled(6)
    busy = ModelCard(provider="lab", name="scripted-429", context_window=8_192)
    for _ in range(3):
        with pytest.raises(ProviderError, match=r"resting|Rate limit") as failed:
            await provider.complete(busy, ASKED)
        assert failed.value.kind == "rate_limited"
        assert failed.value.retry_after is not None
    before = len(upstream.requests)
    assert before == 6, "each key was asked once"
    for _ in range(6):
        assert await said(provider)


async def test_a_key_that_two_models_are_refused_for_rests_for_all(
    upstream: ScriptedProvider, pooled: MakePooled
) -> None:
    provider = pooled(1)
    upstream.app.key_steps[key(0)] = Step(status=429, retry_after="60")
    for name in ("one", "two"):
        with pytest.raises(ProviderError):
            await provider.complete(ModelCard(provider="lab", name=name, context_window=8_192), ASKED)
    upstream.app.key_steps.clear()
    with pytest.raises(ProviderError, match="1 resting"):
        await said(provider)
    assert len(upstream.requests) == 2


async def test_a_client_that_leaves_has_nothing_against_the_key(
    upstream: ScriptedProvider, pooled: MakePooled
) -> None:
    provider = pooled(1)
    upstream.script(Step(reply="word " * 50, chunk_delay=0.05), Step(hang="headers"))
    async with provider.stream(MODEL, ASKED) as blocks:
        await anext(blocks)
    waiting = asyncio.create_task(said(provider))
    while len(upstream.requests) < 2:
        await asyncio.sleep(0.01)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert provider.pool.in_flight(retired=False) == {}
    assert provider.pool.states()[0].condition == "usable"


async def test_the_tokens_of_a_reply_are_counted_for_its_key(
    upstream: ScriptedProvider, pooled: MakePooled
) -> None:
    provider = pooled(1)
    chunks: list[Chunk] = []
    async with provider.stream(MODEL, ASKED) as blocks:
        async for block in blocks:
            chunks += block
    usage = next(chunk.usage for chunk in chunks if chunk.usage is not None)
    [use] = provider.pool.take_uses()
    assert (use.requests, use.tokens, use.errors) == (1, usage.total_tokens, 0)


async def test_a_provider_without_keys_is_asked_without_one_where_it_needs_none(
    upstream: ScriptedProvider, pooled: MakePooled
) -> None:
    provider = pooled(0, keyless=True)
    assert provider.usable
    assert await said(provider)
    assert "authorization" not in upstream.requests[0].headers
    nobody = pooled(0)
    assert not nobody.usable
    with pytest.raises(ProviderError, match="it has none"):
        await said(nobody)


async def test_keys_are_replaced_under_streams_and_no_stream_notices(
    upstream: ScriptedProvider, pooled: MakePooled
) -> None:
    provider = pooled(4)
    upstream.script(*[Step(reply="word " * 20, chunks=20, chunk_delay=0.05)] * 40)
    streams = [asyncio.create_task(said(provider)) for _ in range(20)]
    while len(upstream.requests) < 20:
        await asyncio.sleep(0.005)
    provider.pool.replace([PooledKey(f"new-{n}", "hint", SecretKey(key(50 + n))) for n in range(4)])
    assert sum(provider.pool.in_flight(retired=True).values()) == 20
    later = [asyncio.create_task(said(provider)) for _ in range(20)]
    assert set(await asyncio.gather(*streams, *later)) == {"word " * 20}
    assert provider.pool.in_flight(retired=True) == {}
    assert {number[0] for number in asked_with(upstream)[20:]} == {"5"}


async def test_passing_over_two_bad_keys_costs_two_round_trips_and_no_more(
    upstream: ScriptedProvider, pooled: MakePooled
) -> None:
    provider = pooled(14)
    upstream.app.key_steps[key(3)] = Step(status=401)
    upstream.app.key_steps[key(9)] = Step(status=429, retry_after="600")
    began = time.monotonic()
    for _ in range(40):
        assert await said(provider)
    assert time.monotonic() - began < 30
    assert len(upstream.requests) == 42
