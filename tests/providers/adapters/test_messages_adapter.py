"""The adapter for the Messages API: what it alone does, and its answers against anything that could come."""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baatcheet.providers.adapters.anthropic import API_VERSION
from baatcheet.providers.adapters.anthropic.response import MessageEvents, completion, listing
from baatcheet.providers.adapters.http import TimeLimits
from baatcheet.providers.adapters.received import ErrorEvent, UnreadableError
from baatcheet.providers.discovery import cards_of
from baatcheet.providers.model import Chunk, ModelCard, ProviderError, Speech, Usage
from baatcheet.providers.profiles import ANTHROPIC
from tests.providers.adapters.bench import Bench, Loan
from tests.providers.adapters.fake_anthropic import model_entry
from tests.scripted_provider import Step

MODEL = ModelCard(provider="lab", name="scripted", context_window=32_768)
BODY: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}


def told(*events: dict[str, Any]) -> list[Chunk]:
    """The chunks of one stream's events."""
    chunks: list[Chunk] = []
    decoder = MessageEvents("scripted")
    for event in events:
        decoder.take(json.dumps(event).encode(), chunks)
    return chunks


def start(**usage: Any) -> dict[str, Any]:
    return {"type": "message_start", "message": {"id": "msg_1", "model": "claude", "usage": usage}}


def end(reason: str | None = "end_turn", details: Any = None, **usage: Any) -> dict[str, Any]:
    delta = {"stop_reason": reason, "stop_details": details}
    return {"type": "message_delta", "delta": delta, "usage": usage}


async def test_the_version_is_told_and_a_profile_may_name_another(claude: Bench) -> None:
    await claude.adapter().complete(MODEL, BODY, None)
    assert claude.upstream.requests[-1].headers["anthropic-version"] == API_VERSION
    with pytest.raises(ProviderError):
        await claude.adapter(headers={"anthropic-version": "2023-06-01"}).complete(MODEL, BODY, None)
    assert claude.upstream.requests[-1].headers["anthropic-version"] == "2023-06-01"


async def test_embeddings_and_speech_are_refused_with_plain_words(claude: Bench) -> None:
    adapter = claude.adapter()
    with pytest.raises(ProviderError, match="no embeddings") as caught:
        await adapter.embed(MODEL, {"input": "a"}, Loan())
    assert caught.value.kind == "rejected"
    with pytest.raises(ProviderError, match="speech") as caught:
        await adapter.transcribe("any", Speech(b"", "a.wav", "audio/wav"), Loan())
    assert caught.value.kind == "rejected"
    assert not claude.upstream.requests


async def test_what_has_no_form_in_the_api_is_refused_before_it_is_sent(claude: Bench) -> None:
    with pytest.raises(ProviderError, match="n must be 1") as caught:
        await claude.adapter().complete(MODEL, BODY | {"n": 2}, None)
    assert caught.value.kind == "rejected"
    assert not claude.upstream.requests


async def test_a_model_that_thinks_longer_than_a_first_token_may_take_is_waited_for(claude: Bench) -> None:
    # A thinking block is open, of which nothing is shown, and every 0.2 s the provider says that it is still there.
    thinking = {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking"}}
    ping = {"type": "ping"}
    closed = {"type": "content_block_stop", "index": 0}
    text = {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "at last"}}
    events = [start(), thinking, *[ping] * 5, closed, text, end(), {"type": "message_stop"}]

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
        for event in events:
            writer.write(b"event: %b\ndata: %b\n\n" % (event["type"].encode(), json.dumps(event).encode()))
            await writer.drain()
            if event is ping:
                await asyncio.sleep(0.2)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        adapter = claude.adapter(TimeLimits(connect=1, first_token=0.5, idle=0.5), base_url=base_url)
        async with adapter.stream(MODEL, BODY, None) as blocks:
            assert "".join([chunk.text async for block in blocks for chunk in block]) == "at last"


async def test_an_overloaded_provider_may_be_asked_again_elsewhere(claude: Bench) -> None:
    claude.upstream.script(Step(status=529))
    with pytest.raises(ProviderError) as caught:
        await claude.adapter().complete(MODEL, BODY, None)
    assert (caught.value.kind, caught.value.status, caught.value.type) == (
        "overloaded",
        529,
        "overloaded_error",
    )
    assert caught.value.another_may_answer


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        ({"type": "invalid_request_error", "message": "bad"}, "rejected", None),
        (
            {"type": "invalid_request_error", "message": "Your credit balance is too low to use the API."},
            "unauthorized",
            None,
        ),
        (
            {
                "type": "invalid_request_error",
                "message": "This organization is on hold.",
                "details": {"error_code": "organization_on_hold"},
            },
            "unauthorized",
            "organization_on_hold",
        ),
    ],
    ids=str,
)
async def test_a_400_that_is_the_accounts_fault_is_nothing_against_the_request(
    claude: Bench, error: dict[str, Any], kind: str, code: str | None
) -> None:
    claude.upstream.script(Step(status=400, error=error))
    with pytest.raises(ProviderError) as caught:
        await claude.adapter().complete(MODEL, BODY, None)
    assert (caught.value.kind, caught.value.code) == (kind, code)


@pytest.mark.parametrize(
    ("type_", "kind"),
    [
        ("overloaded_error", "overloaded"),
        ("api_error", "overloaded"),
        ("timeout_error", "overloaded"),
        ("rate_limit_error", "rate_limited"),
        ("authentication_error", "unauthorized"),
        ("billing_error", "unauthorized"),
        ("invalid_request_error", "rejected"),
        ("a_new_error", "overloaded"),
    ],
)
async def test_an_error_inside_a_stream_is_judged_by_its_type(claude: Bench, type_: str, kind: str) -> None:
    claude.upstream.script(Step(error_after=1, error={"type": type_, "message": "No."}))
    with pytest.raises(ProviderError) as caught:  # noqa: PT012 - it is raised on the way
        async with claude.adapter().stream(MODEL, BODY, None) as blocks:
            async for _ in blocks:
                pass
    assert (caught.value.kind, caught.value.type, caught.value.message) == (kind, type_, "No.")


def test_models_are_listed_with_their_windows_their_longest_replies_and_what_they_see() -> None:
    new = model_entry("claude-next-1")
    blind = model_entry("claude-blind-1", sees=False)
    known = model_entry("claude-haiku-5-5") | {"max_input_tokens": None, "max_tokens": None}
    retired = model_entry("claude-old-1") | {"lifecycle": "retired"}
    data = json.dumps({"data": [new, blind, known, retired, {"id": None}, 7]}).encode()
    cards = {card.name: card for card in cards_of(ANTHROPIC, listing(data))}
    assert cards.keys() == {"claude-next-1", "claude-blind-1", "claude-haiku-5-5"}
    first = cards["claude-next-1"]
    assert (first.context_window, first.max_output, first.created) == (400_000, 50_000, 1_767_225_600)
    assert (first.vision, first.tools, first.streams, first.embedding) == (True, True, True, False)
    assert not cards["claude-blind-1"].vision
    assert (cards["claude-haiku-5-5"].context_window, cards["claude-haiku-5-5"].max_output) == (
        1_000_000,
        128_000,
    )


def test_usage_counts_what_was_cached_and_is_told_once_at_the_end() -> None:
    chunks = told(
        start(input_tokens=10, cache_read_input_tokens=100, cache_creation_input_tokens=20, output_tokens=1),
        end(output_tokens=30, output_tokens_details={"thinking_tokens": 12}),
        {"type": "message_stop"},
    )
    assert [chunk.usage for chunk in chunks if chunk.usage] == [
        Usage(
            prompt_tokens=130,
            completion_tokens=30,
            total_tokens=160,
            prompt_tokens_details={"cached_tokens": 100, "cache_write_tokens": 20},
            completion_tokens_details={"reasoning_tokens": 12},
        )
    ]
    assert json.loads(chunks[-1].raw)["usage"] == {
        "prompt_tokens": 130,
        "completion_tokens": 30,
        "total_tokens": 160,
        "prompt_tokens_details": {"cached_tokens": 100, "cache_write_tokens": 20},
        "completion_tokens_details": {"reasoning_tokens": 12},
    }


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "content_filter"),
        ("of_the_future", "stop"),
    ],
)
def test_each_reason_to_stop_has_its_name_at_openai(reason: str, finish: str) -> None:
    assert [c.finish_reason for c in told(start(), end(reason)) if c.finish_reason] == [finish]
    whole = json.dumps({"content": [], "stop_reason": reason}).encode()
    assert json.loads(completion(whole, "m").raw)["choices"][0]["finish_reason"] == finish


def test_a_refusal_says_why() -> None:
    details = {"type": "refusal", "category": "bio", "explanation": "Not this."}
    refused = [chunk.choice for chunk in told(start(), end("refusal", details)) if chunk.choice]
    assert [choice["delta"] for choice in refused] == [{"refusal": "Not this."}]
    whole = json.dumps({"content": [], "stop_reason": "refusal", "stop_details": details}).encode()
    assert json.loads(completion(whole, "m").raw)["choices"][0]["message"]["refusal"] == "Not this."


def test_events_and_blocks_of_unknown_types_are_passed_over() -> None:
    chunks = told(
        start(),
        {"type": "ping"},
        {"type": "of_the_future", "x": 1},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "server_tool_use", "id": "s"}},
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "input_json_delta", "partial_json": "{}"},
        },
        {"type": "content_block_stop", "index": 0},
        {
            "type": "content_block_delta",
            "index": 1,
            "delta": {"type": "signature_delta", "signature": "c2ln"},
        },
        {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "hi"}},
    )
    assert [chunk.text for chunk in chunks] == ["", "hi"]


def test_half_of_a_surrogate_pair_does_not_end_a_reply() -> None:
    chunks: list[Chunk] = []
    data = rb'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a\ud83d"}}'
    MessageEvents("m").take(data, chunks)
    assert [chunk.text for chunk in chunks] == ["a\ufffd"]
    assert json.loads(chunks[0].raw)["choices"][0]["delta"]["content"] == "a\ufffd"


SCALAR = st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.text(max_size=5)
JSON = st.recursive(
    SCALAR,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=5,
)
TYPES = ["message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta"]
BLOCKS = ["text", "thinking", "tool_use", "text_delta", "input_json_delta", "thinking_delta", "new"]
MEMBERS = ("text", "thinking", "partial_json", "id", "name", "input", "stop_reason", "stop_details")
PART = st.fixed_dictionaries(
    {"type": st.sampled_from(BLOCKS)},
    optional=dict.fromkeys(MEMBERS, JSON),
)
NUMBERS = st.dictionaries(
    st.sampled_from(["input_tokens", "output_tokens", "cache_read_input_tokens"]), JSON, max_size=3
)
EVENT = st.fixed_dictionaries(
    {"type": st.sampled_from(TYPES) | st.text(max_size=5)},
    optional={
        "index": st.integers(0, 2) | JSON,
        "delta": PART | JSON,
        "content_block": PART | JSON,
        "message": st.fixed_dictionaries({}, optional={"id": JSON, "model": JSON, "usage": NUMBERS}) | JSON,
        "usage": NUMBERS | JSON,
    },
)


@given(st.lists(EVENT | JSON, max_size=6))
def test_whatever_comes_is_a_well_formed_chunk_or_unreadable(events: list[Any]) -> None:
    chunks: list[Chunk] = []
    decoder = MessageEvents("scripted")
    for event in events:
        try:
            decoder.take(json.dumps(event).encode(), chunks)
        except (UnreadableError, ErrorEvent):
            continue
    for chunk in chunks:
        assert b"\n" not in chunk.raw
        value = json.loads(chunk.raw)
        assert value["object"] == "chat.completion.chunk"
        assert isinstance(value["id"], str)
        assert isinstance(value["model"], str)
        delta = value["choices"][0]["delta"] if value["choices"] else {}
        assert (delta.get("content") or "") == chunk.text
        assert chunk.text.encode().decode() == chunk.text  # no half of a surrogate pair


@given(
    st.fixed_dictionaries({"content": st.lists(PART | JSON, max_size=4) | JSON}, optional={"usage": NUMBERS})
)
def test_a_whole_answer_is_a_completion_or_unreadable(value: dict[str, Any]) -> None:
    try:
        made = completion(json.dumps(value).encode(), "scripted")
    except UnreadableError:
        return
    whole = json.loads(made.raw)
    assert whole["object"] == "chat.completion"
    message = whole["choices"][0]["message"]
    assert isinstance(message["content"], str | None)
    for call in message.get("tool_calls", []):
        assert isinstance(json.loads(call["function"]["arguments"]), dict)
