"""Decoding chunks: pure, so against anything that a provider could send."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baatcheet.providers.adapters.openai.response import Chunks, ErrorEvent, UnreadableError, completion
from baatcheet.providers.model import Chunk

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
    assert isinstance(sent["choices"][0]["message"]["role"], str)
    assert isinstance(sent["choices"][0]["finish_reason"], str)
    assert isinstance(sent["choices"][0]["message"]["content"], str | None)
    assert isinstance(sent["choices"][0]["index"], int)
