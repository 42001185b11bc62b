"""Decoding chunks: pure, so against anything that a provider could send."""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baatcheet.kit.text import unstorable
from baatcheet.providers.adapters.openai.response import Chunks, completion, listing
from baatcheet.providers.adapters.received import ErrorEvent, UnreadableError
from baatcheet.providers.model import Chunk, Completion, Usage

HEAD = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
SCALAR = st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.text(max_size=5)
JSON = st.recursive(
    SCALAR,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=5,
)
DELTA = st.fixed_dictionaries(
    {}, optional={"content": JSON, "role": JSON, "tool_calls": JSON, "refusal": JSON}
)
CHOICE = st.fixed_dictionaries(
    {}, optional={"index": JSON, "delta": DELTA | JSON, "finish_reason": JSON, "text": JSON}
)
CHUNK = st.fixed_dictionaries(
    {},
    optional={
        "id": JSON,
        "object": st.just("chat.completion.chunk") | JSON,
        "created": JSON,
        "model": JSON,
        "choices": st.lists(CHOICE, max_size=2) | JSON,
        "usage": JSON
        | st.fixed_dictionaries({}, optional={"prompt_tokens": JSON, "completion_tokens": JSON}),
        "error": JSON,
    },
)


def decode(value: object) -> Chunk:
    return Chunks("m").decode(value if isinstance(value, bytes) else json.dumps(value).encode())


def of(delta: dict[str, Any], **choice: Any) -> dict[str, Any]:
    return {**HEAD, "choices": [{"index": 0, "delta": delta, "finish_reason": None, **choice}]}


@given(CHUNK)
def test_whatever_comes_is_a_well_formed_chunk_or_a_named_failure(value: dict[str, Any]) -> None:
    try:
        chunk = decode(value)
    except (UnreadableError, ErrorEvent):
        return
    sent = json.loads(chunk.raw)
    assert isinstance(sent["id"], str)
    assert sent["object"] == "chat.completion.chunk"
    assert isinstance(sent["created"], int)
    assert isinstance(sent["model"], str)
    assert isinstance(chunk.text, str)
    assert chunk.finish_reason is None or chunk.finish_reason
    if sent["choices"]:
        assert isinstance(sent["choices"][0]["index"], int)
        assert (sent["choices"][0]["delta"].get("content") or "") == chunk.text


@given(st.binary(max_size=80))
def test_any_bytes_are_a_named_failure(data: bytes) -> None:
    with pytest.raises((UnreadableError, ErrorEvent)):
        decode(data)


@pytest.mark.parametrize(
    "delta",
    [{}, {"content": None}, {"content": "x"}, {"role": "assistant", "content": ""}, {"refusal": None}],
)
def test_a_delta_of_text_alone_is_plain_and_untouched(delta: dict[str, Any]) -> None:
    raw = json.dumps(of(delta)).encode()
    chunk = decode(raw)
    assert chunk.raw == raw
    assert chunk.choice is None
    assert chunk.text == (delta.get("content") or "")


@pytest.mark.parametrize(
    "more", [{"tool_calls": []}, {"reasoning_content": "r"}, {"refusal": "no"}, {"audio": {"id": "a"}}]
)
def test_a_delta_with_more_than_text_comes_as_a_choice(more: dict[str, Any]) -> None:
    chunk = decode(of({"content": "x", **more}, logprobs={"content": []}))
    assert chunk.text == "x"
    assert chunk.choice == {
        "index": 0,
        "delta": {"content": "x", **more},
        "finish_reason": None,
        "logprobs": {"content": []},
    }


def test_an_empty_finish_reason_is_none() -> None:
    chunk = decode(of({"content": "x"}, finish_reason=""))
    assert chunk.finish_reason is None
    assert json.loads(chunk.raw)["choices"][0]["finish_reason"] is None


def test_half_of_a_surrogate_pair_and_broken_utf_8_become_replacement_characters() -> None:
    lone = json.dumps(of({"content": "a\ud83d"})).encode()
    assert decode(lone).text == "a\ufffd"
    broken = json.dumps(of({"content": "aX"})).encode().replace(b"aX", b"a\xff")
    assert decode(broken).text == "a\ufffd"
    for chunk in (decode(lone), decode(broken)):
        chunk.raw.decode("utf-8")


def test_a_field_that_nobody_reads_is_valid_utf_8_all_the_same() -> None:
    chunk = decode(json.dumps({**of({"content": "é"}), "vendor": "X"}).encode().replace(b"X", b"\xff"))
    assert chunk.text == "é"
    assert json.loads(chunk.raw.decode())["vendor"] == "\ufffd"


def test_fields_that_are_missing_are_the_same_in_every_chunk_of_a_stream() -> None:
    chunks = Chunks("m")
    values = [json.loads(chunks.decode(b'{"choices":[{"delta":{"content":"x"}}]}').raw) for _ in range(3)]
    assert len({value["id"] for value in values}) == 1
    assert values[0] == values[2]
    assert list(values[0]) == ["id", "object", "created", "model", "choices"]


@given(CHUNK)
def test_whatever_comes_whole_is_a_completion_or_a_named_failure(value: dict[str, Any]) -> None:
    for choice in value["choices"] if isinstance(value.get("choices"), list) else ():
        if isinstance(choice, dict) and "delta" in choice:
            choice["message"] = choice.pop("delta")
    try:
        made = completion(json.dumps(value).encode(), "m")
    except (UnreadableError, ErrorEvent):
        return
    sent = json.loads(made.raw)
    assert sent["object"] == "chat.completion"
    assert isinstance(sent["created"], int)
    assert isinstance(sent["choices"][0]["message"]["role"], str)
    assert isinstance(sent["choices"][0]["finish_reason"], str)
    assert isinstance(sent["choices"][0]["message"]["content"], str | None)
    assert isinstance(sent["choices"][0]["index"], int)


# Numbers -------------------------------------------------------------------------------------------------


def streamed(created: str, usage: str) -> Chunk:
    head = json.dumps({**HEAD, "choices": []}).replace('"created": 1', f'"created": {created}')
    return decode(f'{head[:-1]}, "usage": {usage}}}'.encode())


def whole(created: str, usage: str) -> Completion:
    choice = {"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}
    head = json.dumps({**HEAD, "object": "chat.completion", "choices": [choice]})
    head = head.replace('"created": 1', f'"created": {created}')
    return completion(f'{head[:-1]}, "usage": {usage}}}'.encode(), "m")


@pytest.mark.parametrize("read", [streamed, whole])
@pytest.mark.parametrize("number", ["1e400", "-1e400", "NaN", "Infinity", "-7", '"12"', "true", "null", "[]"])
def test_a_number_that_is_none_counts_as_absent(read: Any, number: str) -> None:
    details = f'{{"cached_tokens": {number}, "audio_tokens": 3}}'
    made = read(
        number,
        f'{{"prompt_tokens": {number}, "completion_tokens": 5, "total_tokens": {number}, '
        f'"prompt_tokens_details": {details}, "completion_tokens_details": {number}}}',
    )
    assert made.usage == Usage(0, 5, 5, prompt_tokens_details={"audio_tokens": 3})
    sent = json.loads(made.raw, parse_constant=pytest.fail)
    assert abs(sent["created"] - time.time()) < 60
    assert sent["usage"]["completion_tokens"] == 5
    for name in ("prompt_tokens", "total_tokens"):
        assert sent["usage"].get(name, 0) in {0, 5}


@pytest.mark.parametrize("read", [streamed, whole])
def test_a_number_with_a_fraction_is_its_whole_part(read: Any) -> None:
    made = read("1.5", '{"prompt_tokens": 2.9}')
    assert made.usage == Usage(2, 0, 2)
    sent = json.loads(made.raw)
    assert (sent["created"], sent["usage"]["prompt_tokens"]) == (1, 2)


@pytest.mark.parametrize("read", [streamed, whole])
def test_usage_without_one_number_counts_as_absent(read: Any) -> None:
    made = read("1", '{"prompt_tokens": "many", "completion_tokens": NaN, "total_tokens": -1}')
    assert made.usage is None
    assert "usage" not in json.loads(made.raw)


@pytest.mark.parametrize("read", [streamed, whole])
@pytest.mark.parametrize("completion", [0, 0.0, None, -1])
def test_what_stands_beside_the_counts_reaches_the_client(read: Any, completion: float | None) -> None:
    beside = {
        "prompt_tokens_details": {"cached_tokens": 3, "cache_creation_token_details": {"ephemeral_5m": 7}},
        "cache_read_input_tokens": 3,
        "cost": 0.0125,
    }
    counts = {"prompt_tokens": 10, "completion_tokens": completion, "total_tokens": 10}
    made = read("1", json.dumps({**counts, **beside}))
    assert made.usage == Usage(10, 0, 10, prompt_tokens_details={"cached_tokens": 3})
    assert json.loads(made.raw)["usage"] == {**counts, "completion_tokens": 0, **beside}


@pytest.mark.parametrize("read", [streamed, whole])
@pytest.mark.parametrize("number", [2**31, 2**40, 10**40, 1e300])
def test_a_number_of_tokens_that_is_too_large_is_the_largest_that_fits(read: Any, number: float) -> None:
    usage = {"prompt_tokens": number, "completion_tokens": number, "completion_tokens_details": {"a": number}}
    most = 2**31 - 1
    made = read("1", json.dumps(usage))
    assert made.usage == Usage(most, most, most, completion_tokens_details={"a": most})
    assert json.loads(made.raw)["usage"]["prompt_tokens"] == most


@pytest.mark.parametrize("read", [streamed, whole])
@given(usage=JSON | st.dictionaries(st.sampled_from(Usage.__struct_fields__), JSON | st.integers()))
def test_whatever_is_sent_as_usage_can_be_counted_and_stored(read: Any, usage: Any) -> None:
    found = read("1", json.dumps(usage)).usage
    if found is None:
        return
    for details in (found.prompt_tokens_details, found.completion_tokens_details):
        for name, tokens in (details or {}).items():
            assert unstorable(name) is None
            assert tokens is None or 0 <= tokens < 2**31
    assert 0 <= found.prompt_tokens < 2**31
    assert 0 <= found.completion_tokens < 2**31
    assert 0 <= found.total_tokens < 2**31


def test_one_absurd_number_does_not_cost_the_list_of_models() -> None:
    entries = listing(b'{"data": [{"id": "a", "created": 1e400}, {"id": "b", "context_length": NaN}]}')
    assert entries == [{"id": "a", "created": None}, {"id": "b", "context_length": None}]
