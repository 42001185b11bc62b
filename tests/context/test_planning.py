"""The invariants of the plan, over arbitrary histories."""

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baatcheet.context import counting
from baatcheet.context.cutting import cut_item, cut_middle
from baatcheet.context.planning import ContextTooSmall, Item, OrphanToolResult, Plan, plan
from baatcheet.conversations.wire import stored_form, wire_form
from baatcheet.kit.ids import new_id

TEXTS = st.one_of(
    st.text(max_size=200),
    st.sampled_from(["", "سلام، آپ کیسے ہیں؟", "def f(x):\n    return x\n", "👩‍👩‍👧‍👦" * 20, " " * 5000]),
    st.builds(lambda word, n: (word + " ") * n, st.text(min_size=1, max_size=12), st.integers(1, 600)),
)


def item(wire: dict[str, Any]) -> Item:
    content, parts = stored_form(wire)
    text, beside = counting.countable(content, parts)
    return Item(wire, counting.count(text) + beside, new_id())


@st.composite
def histories(draw: st.DrawFn) -> list[Item]:
    items: list[Item] = []
    for number in range(draw(st.integers(0, 25))):
        kind = draw(st.sampled_from(["user", "assistant", "tools", "image", "orphan"]))
        text = draw(TEXTS)
        if kind == "tools":
            ids = [f"call_{number}_{n}" for n in range(draw(st.integers(1, 3)))]
            calls = [{"id": i, "type": "function", "function": {"name": "f", "arguments": "{}"}} for i in ids]
            items.append(item({"role": "assistant", "content": None, "tool_calls": calls}))
            items += [item({"role": "tool", "content": text, "tool_call_id": i}) for i in ids]
        elif kind == "image":
            image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
            items.append(item({"role": "user", "content": [{"type": "text", "text": text}, image]}))
        elif kind == "orphan":
            items.append(item({"role": "tool", "content": text, "tool_call_id": f"lost_{number}"}))
        else:
            items.append(item({"role": kind, "content": text}))
    return items


def measured(made: Plan) -> int:
    """The plan's tokens by tiktoken's own count, with the format's overhead per message."""
    total = counting.REPLY_PRIMING + made.tool_tokens
    for message in made.messages:
        text, beside = counting.countable(*stored_form(message))
        total += counting.count(text) + beside
    return total


@settings(max_examples=200, deadline=None)
@given(
    history=histories(),
    system=st.one_of(st.none(), TEXTS),
    new=st.lists(TEXTS, min_size=1, max_size=3),
    budget=st.integers(64, 6000),
    max_messages=st.integers(3, 50),
)
def test_any_history_fits_any_budget_with_what_must_be_there_in_it(
    history: list[Item], system: str | None, new: list[str], budget: int, max_messages: int
) -> None:
    system_item = item({"role": "system", "content": system}) if system is not None else None
    new_items = [item({"role": "user", "content": text}) for text in new]
    small: ContextTooSmall | None = None
    made: Plan | None = None
    try:
        made = plan(
            system=system_item,
            history=history,
            new=new_items,
            tool_tokens=0,
            budget=budget,
            max_messages=max_messages,
            cut=cut_item,
        )
    except ContextTooSmall as error:
        small = error
    if small is not None or made is None:
        assert small is not None
        assert small.needed > budget
        return
    assert measured(made) <= budget
    assert made.tokens >= measured(made)
    assert len(made.messages) - (system_item is not None) <= max_messages
    if system_item is not None:
        assert made.messages[0] == system_item.wire
    ids = [one.id for one in made.chosen]
    assert ids[-len(new_items) :] == [one.id for one in new_items]
    everything = [one.id for one in (*history, *new_items)]
    assert [id_ for id_ in everything if id_ in set(ids)] == ids, "the order is kept"
    called: set[str] = set()
    for position, message in enumerate(made.messages):
        if message["role"] == "tool":
            assert message["tool_call_id"] in called, "a result is never without its call"
        for call in message.get("tool_calls") or ():
            called.add(call["id"])
            answers = [m.get("tool_call_id") for m in made.messages[position + 1 :]]
            assert call["id"] in answers, "a call is never without its result"


def call(*ids: str) -> Item:
    function = {"name": "f", "arguments": "{}"}
    calls = [{"id": id_, "type": "function", "function": function} for id_ in ids]
    return item({"role": "assistant", "content": None, "tool_calls": calls})


def result(id_: str, text: str = "42") -> Item:
    return item({"role": "tool", "content": text, "tool_call_id": id_})


def fit(history: list[Item], new: list[Item], budget: int = 500) -> Plan:
    return plan(
        system=None, history=history, new=new, tool_tokens=0, budget=budget, max_messages=50, cut=cut_item
    )


def test_new_tool_results_keep_the_call_that_they_answer_however_small_the_budget() -> None:
    chatter = [item({"role": "user", "content": "word " * 300}) for _ in range(3)]
    made = fit([*chatter, call("a", "b"), result("a")], [result("b", "long " * 900)], budget=200)
    assert [m["role"] for m in made.messages][-3:] == ["assistant", "tool", "tool"]
    assert measured(made) <= 200


def test_a_tool_result_that_answers_nothing_is_refused() -> None:
    with pytest.raises(OrphanToolResult, match="tool_call_id lost"):
        fit([item({"role": "user", "content": "hi"})], [result("lost")])


def test_a_call_that_was_never_answered_is_left_out() -> None:
    made = fit(
        [item({"role": "user", "content": "hi"}), call("a")], [item({"role": "user", "content": "well?"})]
    )
    assert [m["content"] for m in made.messages] == ["hi", "well?"]


def test_a_call_with_very_many_results_is_planned_in_linear_time() -> None:
    ids = [f"call_{number}" for number in range(20_000)]
    calls = [{"id": id_, "type": "function", "function": {"name": "f", "arguments": "{}"}} for id_ in ids]
    called = Item({"role": "assistant", "content": None, "tool_calls": calls}, 50)
    results = [Item({"role": "tool", "content": "x", "tool_call_id": id_}, 5) for id_ in ids]
    began = time.perf_counter()
    made = plan(
        system=None,
        history=[called, *results],
        new=[item({"role": "user", "content": "so?"})],
        tool_tokens=0,
        budget=1_000_000,
        max_messages=30_000,
        cut=cut_item,
    )
    assert time.perf_counter() - began < 2, "quadratic, this takes minutes"
    assert len(made.messages) == len(ids) + 2


@pytest.mark.parametrize("odd", [[{"id": []}], [{"id": None}], [5], "x", {"a": 1}, []])
def test_a_stored_call_that_no_result_can_name_is_left_out(odd: Any) -> None:
    made = fit(
        [Item({"role": "assistant", "content": "hi", "tool_calls": odd}, 5)],
        [item({"role": "user", "content": "well?"})],
    )
    assert made.messages == ({"role": "assistant", "content": "hi"}, {"role": "user", "content": "well?"})


@pytest.mark.parametrize(
    "odd", [[5, {"type": "text", "text": 5}, {}, {"type": "text", "text": "word " * 900}], 7, {"a": 1}]
)
def test_a_stored_message_of_odd_parts_is_counted_and_cut_by_its_text(odd: Any) -> None:
    content, _ = stored_form({"role": "user", "content": odd})
    assert set(content.split()) <= {"word"}
    counting.countable(content, {"content": odd})
    tokens = counting.count(content) + counting.MESSAGE_OVERHEAD
    made = fit([], [Item({"role": "user", "content": odd}, tokens)], budget=200)
    assert made.tokens <= 200


def test_a_message_larger_than_the_budget_is_cut_in_its_middle_and_says_so() -> None:
    text = "The beginning. " + "filler words go here. " * 5000 + "The end."
    made = plan(
        system=None,
        history=[],
        new=[item({"role": "user", "content": text})],
        tool_tokens=0,
        budget=500,
        max_messages=50,
        cut=cut_item,
    )
    sent = made.messages[-1]["content"]
    assert sent.startswith("The beginning.")
    assert sent.endswith("The end.")
    assert "tokens left out" in sent
    assert 400 < measured(made) <= 500
    assert made.chosen[0].cut


def test_a_system_prompt_that_alone_exceeds_the_budget_is_refused_with_the_sum() -> None:
    with pytest.raises(ContextTooSmall, match=r"need \d+ tokens; the budget is 100"):
        plan(
            system=item({"role": "system", "content": "word " * 500}),
            history=[],
            new=[item({"role": "user", "content": "hello"})],
            tool_tokens=0,
            budget=100,
            max_messages=50,
            cut=cut_item,
        )


@settings(max_examples=200, deadline=None)
@given(text=TEXTS, tokens=st.integers(0, 400))
def test_a_cut_text_is_never_larger_than_asked(text: str, tokens: int) -> None:
    assert counting.count(cut_middle(text, tokens)) <= max(tokens, 0)


@given(content=st.text(max_size=50), name=st.one_of(st.none(), st.text(min_size=1, max_size=5)))
def test_a_message_survives_the_way_into_storage_and_back(content: str, name: str | None) -> None:
    wire = {"role": "user", "content": content} | ({"name": name} if name else {})
    assert wire_form("user", *stored_form(wire)) == wire
