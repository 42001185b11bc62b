"""What is counted and traced of calls to a real provider."""

import asyncio

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from baatcheet.platform.telemetry import Metrics, Telemetry, connect_tracer
from baatcheet.providers.model import ModelCard, ProviderError
from baatcheet.providers.observed import Observed
from tests.platform.test_telemetry import Collector, samples
from tests.providers.conftest import MakeProvider
from tests.scripted_provider import ScriptedProvider

MESSAGES = {"messages": [{"role": "user", "content": "a question in confidence"}]}


def card(name: str) -> ModelCard:
    return ModelCard(provider="lab", name=name, context_window=32_768)


def attempts(metrics: Metrics) -> dict[str, float]:
    return {
        dict(labels)["outcome"]: value
        for (name, labels), value in samples(metrics.render()).items()
        if name == "baatcheet_provider_attempts_total"
    }


async def drain(provider: Observed, name: str) -> None:
    async with provider.stream(card(name), MESSAGES) as chunks:
        async for _ in chunks:
            pass


async def test_every_outcome_is_counted(make_provider: MakeProvider) -> None:
    metrics = Metrics()
    provider = Observed(make_provider(), Telemetry(metrics))
    await drain(provider, "scripted")
    await provider.complete(card("scripted"), MESSAGES)
    for wrong in ("scripted-401", "scripted-429"):
        with pytest.raises(ProviderError):
            await drain(provider, wrong)
        with pytest.raises(ProviderError):
            await provider.complete(card(wrong), MESSAGES)
    async with provider.stream(card("scripted"), MESSAGES) as chunks:
        await anext(chunks)
    assert attempts(metrics) == {"ok": 2, "unauthorized": 2, "rate_limited": 2, "abandoned": 1}
    assert samples(metrics.render())["baatcheet_first_token_seconds_count", (("provider", "lab"),)] == 2


async def test_a_cancelled_call_is_counted_as_abandoned(make_provider: MakeProvider) -> None:
    metrics = Metrics()
    task = asyncio.create_task(drain(Observed(make_provider(), Telemetry(metrics)), "scripted-hang"))
    await asyncio.sleep(0.2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert attempts(metrics) == {"abandoned": 1}


async def test_a_call_is_a_span_that_the_provider_is_told_of_and_that_holds_no_words(
    make_provider: MakeProvider, upstream: ScriptedProvider
) -> None:
    collector = Collector()
    try:
        tracer = connect_tracer(collector.url)
        assert tracer is not None
        provider = Observed(make_provider(), Telemetry(Metrics(), tracer))
        await drain(provider, "scripted")
        sent = upstream.requests[-1].headers["traceparent"]
        await asyncio.to_thread(tracer.close)
        (span,) = collector.spans
        assert isinstance(span, Span)
        assert span.name == "chat scripted"
        assert sent.startswith(f"00-{span.trace_id.hex()}-{span.span_id.hex()}-")
        assert "confidence" not in str(span)
        assert "sk-" not in str(span)
        told = {attribute.key: attribute.value for attribute in span.attributes}
        assert told["gen_ai.usage.output_tokens"].int_value > 0
    finally:
        collector.close()


async def test_without_traces_nothing_is_sent_along(
    make_provider: MakeProvider, upstream: ScriptedProvider
) -> None:
    await drain(Observed(make_provider(), Telemetry(Metrics())), "scripted")
    assert "traceparent" not in upstream.requests[-1].headers


class Stopwatch:
    def __init__(self) -> None:
        self.told: list[str] = []

    def first_token(self, provider: str, model: str, seconds: float) -> None:
        assert seconds > 0
        self.told.append(f"{provider}/{model} spoke")

    def failed(self, provider: str, model: str) -> None:
        self.told.append(f"{provider}/{model} failed")


async def test_a_stopwatch_is_told_once_how_each_stream_begins(make_provider: MakeProvider) -> None:
    watch = Stopwatch()
    provider = Observed(make_provider(), Telemetry(Metrics()), watch)
    await drain(provider, "scripted")
    for wrong in ("scripted-503", "scripted-400", "scripted-cut"):
        with pytest.raises(ProviderError):
            await drain(provider, wrong)
    # A request that is refused for itself says nothing of the model; a stream that was cut had begun.
    assert watch.told == ["lab/scripted spoke", "lab/scripted-503 failed", "lab/scripted-cut spoke"]
