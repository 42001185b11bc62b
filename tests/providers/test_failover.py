"""Asking one provider after another."""

import asyncio
import socket
import time
from collections.abc import Sequence
from typing import Any

import pytest

from baatcheet.providers.adapters.openai import TimeLimits
from baatcheet.providers.failover import complete_first, embed_first, stream_first
from baatcheet.providers.model import AllProvidersFailed, Body, ModelCard, ProviderError, Target
from tests.providers.conftest import KEY, Direct, MakeProvider
from tests.scripted_provider import ScriptedProvider, Step

IMPATIENT = TimeLimits(connect=0.5, first_token=0.3, idle=0.3)


def target(provider: Direct, model: str = "scripted") -> Target:
    return Target(provider, ModelCard(provider=provider.name, name=model, context_window=8192))


async def hello(_: Target) -> Body:
    return {"messages": [{"role": "user", "content": "hello there"}]}


async def ask(targets: Sequence[Target]) -> tuple[str, str, list[str]]:
    """The text, who gave it, and the kinds of the failures before it."""
    async with stream_first(targets, hello) as answering:
        text = "".join([chunk.text async for block in answering.chunks for chunk in block])
    return text, answering.target.provider.name, [attempt.kind for attempt in answering.attempts]


async def test_the_first_that_answers_is_the_only_one_asked(
    make_provider: MakeProvider, upstream: ScriptedProvider, second: ScriptedProvider
) -> None:
    targets = [target(make_provider("a")), target(make_provider("b", second.base_url))]
    assert await ask(targets) == ("You said: hello there", "a", [])
    assert not second.requests


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        (Step(status=429, retry_after="5"), "rate_limited"),
        (Step(status=401), "unauthorized"),
        (Step(status=500), "overloaded"),
        (Step(hang="headers"), "timeout"),
        (Step(hang="first"), "timeout"),
        (Step(cut_after=0), "cut"),
        (Step(malformed_after=0), "malformed"),
        (Step(error_after=0), "overloaded"),
        (Step(reply="", finish=False), "malformed"),
        (Step(raw_body="<html>", content_type="text/html"), "malformed"),
    ],
    ids=str,
)
async def test_the_next_is_asked_when_one_fails_before_its_first_token(
    make_provider: MakeProvider, upstream: ScriptedProvider, second: ScriptedProvider, step: Step, kind: str
) -> None:
    upstream.script(step)
    targets = [target(make_provider("a", limits=IMPATIENT)), target(make_provider("b", second.base_url))]
    assert await ask(targets) == ("You said: hello there", "b", [kind])


async def test_the_next_is_asked_when_one_can_not_be_reached(make_provider: MakeProvider) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        dead = make_provider("dead", f"http://127.0.0.1:{taken.getsockname()[1]}/v1")
        assert await ask([target(dead), target(make_provider("b"))]) == (
            "You said: hello there",
            "b",
            ["unreachable"],
        )


async def test_a_hanging_provider_is_hung_up_on_before_the_next_answers(
    make_provider: MakeProvider, upstream: ScriptedProvider, second: ScriptedProvider
) -> None:
    upstream.script(Step(hang="first"))
    targets = [target(make_provider("a", limits=IMPATIENT)), target(make_provider("b", second.base_url))]
    async with stream_first(targets, hello):
        assert await upstream.requests[-1].left()


async def test_a_rejected_request_is_not_tried_elsewhere(
    make_provider: MakeProvider, upstream: ScriptedProvider, second: ScriptedProvider
) -> None:
    upstream.script(Step(status=400), Step(status=422))
    targets = [target(make_provider("a")), target(make_provider("b", second.base_url))]
    with pytest.raises(ProviderError, match="a: The request is invalid"):
        await ask(targets)
    with pytest.raises(ProviderError) as caught:
        await complete_first(targets, hello)
    assert caught.value.kind == "rejected"
    assert not second.requests


async def test_a_stream_that_fails_after_its_first_token_is_not_mended(
    make_provider: MakeProvider, upstream: ScriptedProvider, second: ScriptedProvider
) -> None:
    upstream.script(Step(cut_after=2))
    seen = ""
    with pytest.raises(ProviderError) as caught:  # noqa: PT012 - the text that came before the failure counts
        async with stream_first(
            [target(make_provider("a")), target(make_provider("b", second.base_url))], hello
        ) as a:
            async for block in a.chunks:
                seen += "".join(chunk.text for chunk in block)
    assert caught.value.kind == "cut"
    assert seen == "You said:"[: len(seen)]
    assert seen
    assert not second.requests


async def test_when_all_fail_each_attempt_is_told_with_the_shortest_wait(
    make_provider: MakeProvider, upstream: ScriptedProvider
) -> None:
    def refuse() -> None:
        upstream.script(
            Step(status=429, retry_after="9"),
            Step(status=503, retry_after="4"),
            Step(status=500, leak_key=True),
        )

    targets = [target(make_provider(name), f"scripted-{name}") for name in ("a", "b", "c")]
    refuse()
    with pytest.raises(AllProvidersFailed) as streamed:
        await ask(targets)
    refuse()
    with pytest.raises(AllProvidersFailed) as whole:
        await complete_first(targets, hello)
    for failed in (streamed.value, whole.value):
        told = [(attempt.provider, attempt.model, attempt.kind) for attempt in failed.attempts]
        assert told == [
            ("a", "scripted-a", "rate_limited"),
            ("b", "scripted-b", "overloaded"),
            ("c", "scripted-c", "overloaded"),
        ]
        assert failed.retry_after == 4
        assert failed.last is not None
        assert failed.last.provider == "c"
        assert KEY not in f"{failed} {failed!r}"


async def test_no_target_at_all_is_a_failure_of_all() -> None:
    with pytest.raises(AllProvidersFailed, match="no provider is configured"):
        await ask([])


async def test_each_target_gets_a_body_of_its_own(
    make_provider: MakeProvider, upstream: ScriptedProvider
) -> None:
    async def named(one: Target) -> dict[str, Any]:
        return {"messages": [{"role": "user", "content": f"for {one.provider.name}"}]}

    upstream.script(Step(status=500))
    targets = [target(make_provider("a"), "scripted-one"), target(make_provider("b"), "scripted-two")]
    completed = await complete_first(targets, named)
    asked = [(one.body["model"], one.body["messages"][0]["content"]) for one in upstream.chats]
    assert asked == [("scripted-one", "for a"), ("scripted-two", "for b")]
    assert b"for b" in completed.completion.raw
    assert [attempt.kind for attempt in completed.attempts] == ["overloaded"]


async def test_embeddings_fall_over_too(make_provider: MakeProvider, second: ScriptedProvider) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        dead = make_provider("dead", f"http://127.0.0.1:{taken.getsockname()[1]}/v1")

        async def words(_: Target) -> Body:
            return {"input": "words"}

        targets = [target(p, "text-embedding-scripted") for p in (dead, make_provider("b", second.base_url))]
        embedded = await embed_first(targets, words)
    assert embedded.target.provider.name == "b"
    assert [attempt.kind for attempt in embedded.attempts] == ["unreachable"]
    assert b'"embedding"' in embedded.raw


async def test_entering_waits_for_the_first_token_and_loses_nothing_of_it(
    make_provider: MakeProvider, upstream: ScriptedProvider
) -> None:
    upstream.script(Step(reply="a b c", first_token_delay=0.05, chunk_delay=0.05))
    began = time.monotonic()
    async with stream_first([target(make_provider())], hello) as answering:
        entered = time.monotonic() - began
        chunks = [chunk async for block in answering.chunks for chunk in block]
    assert 0.03 < entered < 0.14
    assert b'"role":"assistant"' in chunks[0].raw
    assert "".join(chunk.text for chunk in chunks) == "a b c"


@pytest.mark.parametrize("hang", ["headers", "first", "mid"])
async def test_a_cancelled_caller_closes_the_connection_at_once(
    make_provider: MakeProvider, upstream: ScriptedProvider, hang: Any
) -> None:
    upstream.script(Step(hang=hang))
    task = asyncio.create_task(ask([target(make_provider(limits=TimeLimits(5, 30, 30)))]))
    async with asyncio.timeout(5):
        while not upstream.requests:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await upstream.requests[-1].left(timeout=1)
