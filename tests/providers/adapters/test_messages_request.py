"""A chat in OpenAI's form as a request to the Messages API: for any history, one that the API takes."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baatcheet.providers.adapters.anthropic.history import Untranslatable
from baatcheet.providers.adapters.anthropic.request import chat, translated
from baatcheet.providers.model import ModelCard
from tests.providers.adapters.fake_anthropic import check

MODEL = ModelCard(provider="lab", name="scripted", context_window=200_000, max_output=1_000)
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}
EPHEMERAL = {"type": "ephemeral"}


def call(id_: str, name: str = "weather", arguments: str = "{}") -> dict[str, Any]:
    return {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def said(content: Any, *calls: dict[str, Any]) -> dict[str, Any]:
    return {"role": "assistant", "content": content} | ({"tool_calls": list(calls)} if calls else {})


def result(id_: str, content: Any = "31 degrees") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id_, "content": content}


def plain(value: Any) -> Any:
    """Without marks for the cache."""
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items() if name != "cache_control"}
    return [plain(one) for one in value] if isinstance(value, list) else value


def turns(*messages: dict[str, Any], **more: Any) -> Any:
    return plain(sent(*messages, **more)["messages"])


def sent(*messages: dict[str, Any], **more: Any) -> Any:
    """The request, which the API would take."""
    return check(json.loads(chat({"messages": messages, **more}, MODEL, stream=True)))


def text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


texts = st.one_of(st.sampled_from(["", " ", "\n"]), st.text(st.characters(codec="utf-8"), max_size=20))
ids = st.sampled_from(["a", "b", "call_1", "functions.weather:0", "", "é"])
names = st.sampled_from(["weather", "a-b_c", "with space", ""])
parts = st.one_of(
    st.builds(lambda text: {"type": "text", "text": text}, texts),
    st.just(PICTURE),
    st.just({"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}),
)
contents = st.one_of(st.none(), texts, st.lists(parts, max_size=3))
wordy = st.one_of(
    st.none(), texts, st.lists(st.builds(lambda t: {"type": "text", "text": t}, texts), max_size=3)
)
arguments = st.sampled_from(["{}", "", '{"at": "Lahore"}', "[1]", "no json", '{"a": NaN}'])
messages = st.one_of(
    st.builds(lambda c: {"role": "system", "content": c}, wordy),
    st.builds(lambda c: {"role": "developer", "content": c}, wordy),
    st.builds(user, contents),
    st.builds(
        lambda c, calls: said(c, *calls), wordy, st.lists(st.builds(call, ids, names, arguments), max_size=3)
    ),
    st.builds(
        lambda name, args: {
            "role": "assistant",
            "content": None,
            "function_call": {"name": name, "arguments": args},
        },
        names,
        arguments,
    ),
    st.builds(result, ids, contents),
    st.builds(lambda name, c: {"role": "function", "name": name, "content": c}, names, texts),
)
tools = st.one_of(st.none(), st.just([{"type": "function", "function": {"name": "weather"}}]))
histories = st.lists(messages, max_size=8)


@settings(max_examples=500)
@given(histories, tools)
def test_any_history_is_one_that_the_api_takes(history: list[dict[str, Any]], tools: Any) -> None:
    body = sent(*history, **({"tools": tools} if tools else {}))
    assert all(turn["role"] != "system" for turn in body["messages"])


@given(histories)
def test_nothing_that_somebody_wrote_is_lost(history: list[dict[str, Any]]) -> None:
    body = sent(*history)
    written = [
        part["text"]
        for message in history
        for part in (
            message["content"] if isinstance(message["content"], list) else [text(message["content"] or "")]
        )
        if part["type"] == "text" and part["text"].strip()
    ]
    found: list[str] = [block["text"] for block in body.get("system", [])]
    for turn in body["messages"]:
        for block in turn["content"]:
            within = block.get("content", []) if block["type"] == "tool_result" else [block]
            found += [one["text"] for one in within if isinstance(one, dict) and one["type"] == "text"]
    for one in written:
        assert one in found
        found.remove(one)
    assert set(found) <= {"Continue.", "…"}


@given(histories)
def test_the_translation_does_not_touch_what_it_is_given(history: list[dict[str, Any]]) -> None:
    before = json.dumps(history)
    sent(*history)
    assert json.dumps(history) == before


@given(histories)
def test_what_comes_before_the_newest_reply_stays_as_it_is_at_the_next_turn(
    history: list[dict[str, Any]],
) -> None:
    # Or the provider's cache would never be hit.
    first = turns(*history, user("and now?"), said("this"), user("one"))
    second = turns(*history, user("and now?"), said("this"), user("one"), said("that"), user("two"))
    assert second[: len(first)] == first


def test_the_system_prompt_stands_apart_and_leading_ones_come_first() -> None:
    body = sent(
        {"role": "system", "content": "one"},
        {"role": "developer", "content": [text("two")]},
        user("hi"),
        {"role": "system", "content": "three"},
    )
    assert plain(body["system"]) == [text("one"), text("two"), text("three")]
    assert plain(body["messages"]) == [user([text("hi")])]
    assert [block.get("cache_control") for block in body["system"]] == [None, EPHEMERAL, None]


def test_neighbours_of_one_role_are_one_turn() -> None:
    assert turns(user("a"), user("b"), said("c"), said("d"), user("e")) == [
        user([text("a"), text("b")]),
        said([text("c"), text("d")]),
        user([text("e")]),
    ]


def test_results_come_at_the_beginning_of_the_turn_after_their_calls() -> None:
    made = turns(
        user("q"), said("I look.", call("x"), call("y")), user("wait"), result("y", "Y"), result("x", "X")
    )
    assert [block["type"] for block in made[1]["content"]] == ["text", "tool_use", "tool_use"]
    assert made[2]["content"] == [
        {"type": "tool_result", "tool_use_id": "y", "content": [text("Y")]},
        {"type": "tool_result", "tool_use_id": "x", "content": [text("X")]},
        text("wait"),
    ]


def test_a_call_that_nobody_answered_is_answered_as_failed() -> None:
    made = turns(user("q"), said(None, call("x")), said("never mind"), user("ok"))
    assert made[2]["content"] == [
        {"type": "tool_result", "tool_use_id": "x", "is_error": True, "content": "No result was given."}
    ]


def test_arguments_become_an_object() -> None:
    made = turns(
        user("q"),
        said(
            None, call("a", arguments='{"at":"Lahore"}'), call("b", arguments="oops"), call("c", arguments="")
        ),
    )
    assert [block["input"] for block in made[1]["content"]] == [{"at": "Lahore"}, {"arguments": "oops"}, {}]


def test_calls_in_the_history_have_their_tools_defined_though_none_may_be_called_now() -> None:
    body = sent(user("q"), said(None, call("x", "weather")), result("x"))
    assert plain(body["tools"]) == [{"name": "weather", "input_schema": {"type": "object"}}]
    assert body["tool_choice"] == {"type": "none"}


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, None),
        ({"tool_choice": "auto"}, None),
        ({"tool_choice": "none"}, {"type": "none"}),
        ({"tool_choice": "required"}, {"type": "any"}),
        ({"tool_choice": {"type": "function", "function": {"name": "a"}}}, {"type": "tool", "name": "a"}),
        ({"parallel_tool_calls": False}, {"type": "auto", "disable_parallel_tool_use": True}),
        (
            {"tool_choice": "required", "parallel_tool_calls": False},
            {"type": "any", "disable_parallel_tool_use": True},
        ),
    ],
    ids=str,
)
def test_the_choice_of_tools_is_told(given: dict[str, Any], wanted: Any) -> None:
    tool = {"type": "function", "function": {"name": "a", "parameters": {"properties": {"x": {}}}}}
    body = sent(user("hi"), tools=[tool], **given)
    assert body.get("tool_choice") == wanted
    schema = {"type": "object", "properties": {"x": {}}}
    assert plain(body["tools"]) == [{"name": "a", "input_schema": schema}]


def test_tools_of_the_older_form_are_told_too() -> None:
    body = sent(user("hi"), functions=[{"name": "a", "description": "does a"}], function_call={"name": "a"})
    assert body["tools"][0]["description"] == "does a"
    assert body["tool_choice"] == {"type": "tool", "name": "a"}


def test_pictures_and_documents_are_told() -> None:
    file = {"filename": "a.pdf", "file_data": "data:application/pdf;base64,aGk="}
    shown = [
        {"type": "image_url", "image_url": {"url": "data:image/jpg;base64,aGk="}},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "low"}},
        {"type": "file", "file": file},
    ]
    assert turns(user(shown)) == [
        user(
            [
                {"type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": "aGk="}},
                {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
                {
                    "type": "document",
                    "source": {"type": "base64", "media_type": "application/pdf", "data": "aGk="},
                    "title": "a.pdf",
                },
            ]
        )
    ]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"messages": [user([{"type": "input_audio", "input_audio": {}}])]}, "input_audio"),
        ({"messages": [user([{"type": "image_url", "image_url": {"url": "http://a/b"}}])]}, "https"),
        (
            {"messages": [user([{"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}])]},
            "https",
        ),
        (
            {"messages": [user([{"type": "image_url", "image_url": {"url": "data:image/bmp;base64,aa"}}])]},
            "bmp",
        ),
        ({"messages": [user([{"type": "file", "file": {"file_id": "f1"}}])]}, "data"),
        ({"messages": [{"role": "system", "content": [PICTURE]}]}, "users and tools only"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "wizard"),
        ({"messages": [user({"a": 1})]}, "neither"),
        ({"messages": ["hi"]}, "not an object"),
        ({"messages": None}, "list"),
        ({"messages": [user("hi")], "n": 2}, "n must be 1"),
        ({"messages": [user("hi")], "max_tokens": 0}, "max_tokens"),
        ({"messages": [user("hi")], "max_tokens": "many"}, "max_tokens"),
        ({"messages": [user("hi")], "tools": [{"type": "custom", "custom": {}}]}, "custom"),
        ({"messages": [user("hi")], "tools": [{"type": "function", "function": {}}]}, "no name"),
        ({"messages": [user("hi")], "response_format": {"type": "json_schema"}}, "schema"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_the_api_has_no_form_for_is_refused_with_words(body: dict[str, Any], reason: str) -> None:
    with pytest.raises(Untranslatable, match=reason):
        translated(body, MODEL)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, 1_000),
        ({"max_tokens": 10}, 10),
        ({"max_tokens": 10, "max_completion_tokens": 20}, 20),
        ({"max_tokens": 10_000}, 1_000),
    ],
    ids=str,
)
def test_a_reply_has_a_limit_always(given: dict[str, Any], wanted: int) -> None:
    assert sent(user("hi"), **given)["max_tokens"] == wanted


def test_what_the_api_has_no_word_for_is_left_out() -> None:
    body = sent(
        user("hi"),
        temperature=0,
        top_p=0.5,
        seed=1,
        presence_penalty=1,
        logprobs=True,
        user="me",
        n=1,
        metadata={"a": "b"},
        response_format={"type": "json_object"},
        stop=["", " ", "END"],
    )
    assert body.keys() == {"model", "max_tokens", "messages", "stop_sequences", "stream"}
    assert body["stop_sequences"] == ["END"]


def test_effort_a_schema_and_thinking_are_told() -> None:
    schema = {"type": "object", "properties": {}, "additionalProperties": False}
    wanted = {"type": "json_schema", "json_schema": {"name": "a", "strict": True, "schema": schema}}
    body = sent(
        user("hi"),
        reasoning_effort="minimal",
        response_format=wanted,
        thinking={"type": "adaptive", "display": "summarized"},
    )
    assert body["output_config"] == {"effort": "low", "format": {"type": "json_schema", "schema": schema}}
    assert body["thinking"] == {"type": "adaptive", "display": "summarized"}


def test_the_stable_parts_are_marked_for_the_cache() -> None:
    tool = {"type": "function", "function": {"name": "weather"}}
    body = sent(
        {"role": "system", "content": "Be brief."},
        user("Summary of what was said before."),
        user("And?"),
        said(None, call("x")),
        result("x"),
        said("It is warm."),
        user("Excerpts."),
        user("Now?"),
        tools=[tool],
    )
    assert body["system"][-1]["cache_control"] == EPHEMERAL
    assert body["messages"][0]["content"][0]["cache_control"] == EPHEMERAL
    assert body["messages"][3]["content"][-1] == text("It is warm.") | {"cache_control": EPHEMERAL}
    assert json.dumps(body).count("cache_control") == 3


def test_a_first_turn_marks_the_system_prompt_or_the_tools_alone() -> None:
    tool = {"type": "function", "function": {"name": "weather"}}
    assert json.dumps(sent(user("hi"))).count("cache_control") == 0
    assert sent(user("hi"), tools=[tool])["tools"][-1]["cache_control"] == EPHEMERAL
    both = sent({"role": "system", "content": "Be brief."}, user("hi"), tools=[tool])
    assert both["system"][-1]["cache_control"] == EPHEMERAL
    assert json.dumps(both).count("cache_control") == 1


def test_marks_of_the_clients_own_are_kept_and_none_are_added() -> None:
    mark = {"type": "ephemeral", "ttl": "1h"}
    body = sent(
        {"role": "system", "content": "Be brief."},
        user([text("a long text") | {"cache_control": mark}]),
        said("ok"),
        user("hi"),
    )
    assert body["messages"][0]["content"][0]["cache_control"] == mark
    assert json.dumps(body).count("cache_control") == 1
