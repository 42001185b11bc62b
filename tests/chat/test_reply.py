"""A reply is put together from whatever a provider sends, and can always be stored."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baatcheet.chat import reply as replies
from baatcheet.chat.reply import Reply, ReplyTooLong
from baatcheet.kit.text import unstorable
from baatcheet.providers.model import Chunk

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
CALL = st.fixed_dictionaries(
    {},
    optional={
        "index": JSON,
        "id": JSON,
        "type": JSON,
        "function": JSON | st.fixed_dictionaries({"name": JSON}),
    },
)
DELTA = st.dictionaries(
    st.sampled_from(["content", "tool_calls", "refusal", "x"]), JSON | st.lists(CALL, max_size=3)
)


def texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for pair in value.items() for one in pair for text in texts(one)]
    return [text for one in value for text in texts(one)] if isinstance(value, list) else []


@settings(max_examples=300, deadline=None)
@given(choices=st.lists(st.fixed_dictionaries({"delta": DELTA | JSON}), max_size=5))
def test_whatever_a_provider_sends_makes_a_message_that_can_be_stored(choices: list[dict[str, Any]]) -> None:
    reply = Reply()
    reply.take([Chunk(raw=b"{}", text="a\0b", choice=choice) for choice in choices])
    message = reply.message()
    assert all(unstorable(text) is None for text in texts(message))
    msgspec.json.encode(message)


def test_a_tool_call_with_an_absurd_index_costs_nothing() -> None:
    reply = Reply()
    call = {"index": 3_000_000, "id": "x", "function": {"name": "f", "arguments": "{}"}}
    reply.take([Chunk(raw=b"{}", choice={"delta": {"tool_calls": [call, {"index": -5, "id": "y"}]}})])
    assert sorted(one["id"] for one in reply.message()["tool_calls"]) == ["x", "y"]


def test_no_more_tool_calls_are_kept_than_the_bound() -> None:
    reply = Reply()
    calls = [{"index": index, "id": f"call_{index}"} for index in range(replies.MAX_TOOL_CALLS + 50)]
    reply.take([Chunk(raw=b"{}", choice={"delta": {"tool_calls": calls}})])
    assert len(reply.message()["tool_calls"]) == replies.MAX_TOOL_CALLS


def test_a_reply_without_end_is_ended_with_its_text_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replies, "MAX_REPLY", 1000)
    reply = Reply()
    more = [Chunk(raw=b"{}", text="more " * 10)]
    for _ in range(21):
        reply.take(more)
    with pytest.raises(ReplyTooLong, match="What it had said is kept"):
        reply.take(more)
    assert len(reply.text) == 1050


@settings(max_examples=300, deadline=None)
@given(choice=JSON | st.fixed_dictionaries({"delta": JSON | st.dictionaries(st.text(st.characters()), JSON)}))
def test_any_json_in_the_place_of_a_choice_leaves_the_text(choice: Any) -> None:
    reply = Reply()
    reply.take([Chunk(raw=b"{}", text="said", choice=choice)])
    message = reply.message()
    assert message["content"] == "said"
    assert all(unstorable(text) is None for text in texts(message))


def test_a_field_of_endless_nesting_is_kept_to_a_depth() -> None:
    deep: Any = "bottom"
    for _ in range(5_000):
        deep = {"a": [deep]}
    function = {"name": "f", "arguments": deep}
    reply = Reply()
    reply.take(
        [Chunk(raw=b"{}", choice={"delta": {"x": deep, "tool_calls": [{"index": 0, "function": function}]}})]
    )
    message = reply.message()
    assert message["tool_calls"][0]["function"]["arguments"].startswith('{"a":[{"a":')
    assert b"bottom" not in msgspec.json.encode(message)
