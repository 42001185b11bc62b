"""The invariants of the plan, over arbitrary histories."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baatcheet.context import counting
from baatcheet.context.cutting import cut_item, cut_middle
from baatcheet.context.planning import (
    KEEP,
    RECALL_LEAST,
    SMALLEST_CUT,
    SUMMARY_MOST,
    ContextTooSmall,
    Item,
    OrphanToolResult,
    Plan,
    Recalled,
    Summary,
    plan,
)
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


@dataclass
class Situation:
    """What a turn is planned from, and what was asked of the recall meanwhile."""

    system: Item | None
    summary: Summary | None
    groups: list[list[Item]]  # the history that may be sent: a call and its results are one group
    history: list[Item]  # the same, with results that answer nothing among it
    new: list[Item]
    tool_tokens: int
    budget: int
    max_messages: int
    keep: int
    excerpts: str | None  # what is recalled, None: nothing
    recalls: bool
    open_call: bool  # the newest message of the history is a call whose result is new
    asked: list[tuple[int, int]] = field(default_factory=list)

    @property
    def above(self) -> int:
        """Messages of the branch above the new ones."""
        if self.history:
            return self.history[-1].depth + 1
        return self.summary.last + 1 if self.summary else 0

    def recall(self, tokens: int, before: int) -> Recalled | None:
        self.asked.append((tokens, before))
        if self.excerpts is None:
            return None
        found = cut_item(item({"role": "user", "content": self.excerpts}), tokens)
        depths = tuple(sorted({0, before // 2, before - 1}))
        return Recalled(found, tuple([new_id() for _ in depths]), depths)

    def plan(self) -> Plan:
        return plan(
            system=self.system,
            history=self.history,
            new=self.new,
            tool_tokens=self.tool_tokens,
            budget=self.budget,
            max_messages=self.max_messages,
            cut=cut_item,
            summary=self.summary,
            recall=self.recall if self.recalls else None,
            keep=self.keep,
        )


@st.composite
def situations(draw: st.DrawFn) -> Situation:
    groups: list[list[Item]] = []
    history: list[Item] = []
    texts = st.one_of(TEXTS, st.builds(lambda n: "word " * n, st.integers(1, 40)))
    covered = draw(st.sampled_from([0, 0, 1, 7, 300]))
    depth = covered + draw(st.sampled_from([0, 0, 3]))

    def add(*wires: dict[str, Any], sent: bool = True) -> None:
        nonlocal depth
        placed = [item(wire)._replace(depth=depth + at) for at, wire in enumerate(wires)]
        depth += len(placed)
        history.extend(placed)
        if sent:
            groups.append(placed)

    for number in range(draw(st.integers(0, 40))):
        kind = draw(st.sampled_from(["user", "assistant", "user", "assistant", "tools", "orphan"]))
        text = draw(texts)
        if kind == "tools":
            ids = [f"call_{number}_{n}" for n in range(draw(st.integers(1, 3)))]
            add(calling(*ids), *[answering(id_, text) for id_ in ids])
        elif kind == "orphan":
            add(answering(f"lost_{number}", text), sent=False)
        else:
            add({"role": kind, "content": text})
    new: list[Item] = []
    open_call = draw(st.booleans())
    if open_call:
        add(calling("open", "too"), answering("open", draw(texts)))
        new.append(item(answering("too", draw(texts))))
    new += [item({"role": "user", "content": text}) for text in draw(st.lists(texts, max_size=2))]
    summary = None
    if covered:
        notes = item({"role": "user", "content": "Notes. " + draw(texts)})
        summary = Summary(notes, covered - 1, "extractive")
    prompt = draw(st.one_of(st.none(), texts))
    return Situation(
        system=item({"role": "system", "content": prompt}) if prompt is not None else None,
        summary=summary,
        groups=groups,
        history=history,
        new=[one._replace(depth=depth + at) for at, one in enumerate(new)],
        tool_tokens=draw(st.sampled_from([0, 0, 50])),
        budget=draw(st.integers(64, 3000)),
        max_messages=draw(st.integers(3, 50)),
        keep=draw(st.sampled_from([KEEP, KEEP, 4])),
        excerpts=draw(st.one_of(st.none(), texts)),
        recalls=draw(st.booleans()),
        open_call=open_call,
    )


@settings(max_examples=400, deadline=None)
@given(at=situations())
def test_every_part_of_a_plan_keeps_its_place_and_its_bounds(at: Situation) -> None:
    try:
        made = at.plan()
    except ContextTooSmall:
        assert not at.asked
        return
    assert measured(made) <= made.tokens <= at.budget
    recent = _check_layout(at, made)
    _check_newest(at, made, recent)
    _check_recall(at, made)
    _check_account(at, made)


def _check_layout(at: Situation, made: Plan) -> list[Item]:
    """System prompt, summary, recent messages, excerpts, new messages. Returns the recent ones."""
    fresh = {one.id for one in at.new}
    must = at.groups[-1] if at.open_call else []
    fresh |= {one.id for one in must}
    recent = [one for one in made.chosen if one.id not in fresh]
    new = [one for one in made.chosen if one.id in fresh]
    assert [one.id for one in new] == [one.id for one in (*must, *at.new)], "nothing new is left out"
    assert list(made.chosen) == [*recent, *new]
    first = [at.system.wire] if at.system else []
    notes = [made.summary.item.wire] if made.summary else []
    excerpts = [made.recalled.item.wire] if made.recalled else []
    parts = [first, notes, [one.wire for one in recent], excerpts, [one.wire for one in new]]
    assert list(made.messages) == [wire for part in parts for wire in part]
    assert made.summary is None or at.summary is not None
    assert len(made.chosen) <= at.max_messages or not recent
    sent = [one for group in at.groups for one in group]
    if recent:  # the end of the history, without a gap
        tail = sent[: len(sent) - len(must)]
        assert [one.id for one in recent] == [one.id for one in tail[-len(recent) :]]
    whole = {one.id: one.wire for one in (*sent, *at.new)}
    assert all(one.wire == whole[one.id] for one in made.chosen if not one.cut)
    return recent


def _check_newest(at: Situation, made: Plan, recent: Sequence[Item]) -> None:
    """The last `keep` are there word for word whenever they fit beside what must be there."""
    groups = at.groups[:-1] if at.open_call else at.groups
    places = at.max_messages - (len(made.chosen) - len(recent))
    fixed = made.system_tokens + made.tool_tokens + made.priming + made.new_tokens
    room = at.budget - fixed
    if made.summary is not None and at.summary is not None:
        assert made.summary.item.tokens <= int(room * SUMMARY_MOST)
        if at.summary.item.tokens <= int(room * SUMMARY_MOST):
            assert made.summary == at.summary, "a summary that fits is whole"
        room -= made.summary.item.tokens
    kept: list[Item] = []
    for group in reversed(groups):
        if len(kept) + len(group) > min(at.keep, places):
            break
        kept[:0] = group
    least = int(room * RECALL_LEAST) if at.recalls else 0
    if sum(one.tokens for one in kept) <= room - least:
        carried = {one.id for one in made.chosen if not one.cut}
        assert {one.id for one in kept} <= carried


def _check_recall(at: Situation, made: Plan) -> None:
    """It is asked once at most, for what nothing else carries, and within what is left."""
    assert len(at.asked) <= 1
    carried = {one.depth for one in made.chosen if one.depth < at.above}
    everything = at.summary is None and all(
        one.depth in carried for one in (one for group in at.groups for one in group)
    )
    starts_at_root = not at.history or at.history[0].depth == 0
    found = made.recalled.item.tokens if made.recalled else 0
    if everything and starts_at_root:
        assert not at.asked or any(one.cut for one in made.chosen), "there is nothing to be found"
    elif at.recalls and min(carried, default=at.above) > 0 and at.budget - made.tokens + found > SMALLEST_CUT:
        assert at.asked, "there is something to be found, and room for it"
    for tokens, before in at.asked:
        assert before > 0
        assert not [depth for depth in carried if depth < before], "it would find what is there already"
        beside = made.recalled.item.tokens if made.recalled else 0
        assert beside <= tokens <= at.budget - (made.tokens - beside)
    assert made.recalled is None or at.asked


def _check_account(at: Situation, made: Plan) -> None:
    """The receipt adds up, and says what is missing."""
    receipt = made.receipt(tokenizer="o200k_base", exact=True)
    assert sum(receipt["parts"].values()) == receipt["tokens"] - made.priming
    assert receipt["tokens"] == made.tokens
    assert sorted([*receipt["whole"], *receipt["cut"]], key=str) == sorted(
        [one.id for one in made.chosen], key=str
    )
    known = made.summary.last + 1 if made.summary else 0
    assert receipt["summarised"] == known
    carried = {one.depth for one in made.chosen} | set(made.recalled.depths if made.recalled else ())
    assert receipt["left_out"] == len([depth for depth in range(known, at.above) if depth not in carried])


def calling(*ids: str) -> dict[str, Any]:
    function = {"name": "f", "arguments": "{}"}
    calls = [{"id": id_, "type": "function", "function": function} for id_ in ids]
    return {"role": "assistant", "content": None, "tool_calls": calls}


def answering(id_: str, text: str = "42") -> dict[str, Any]:
    return {"role": "tool", "content": text, "tool_call_id": id_}


def call(*ids: str) -> Item:
    return item(calling(*ids))


def result(id_: str, text: str = "42") -> Item:
    return item(answering(id_, text))


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


def placed(history: Sequence[Item], first: int = 0) -> list[Item]:
    return [one._replace(depth=first + at) for at, one in enumerate(history)]


def words(count: int, role: str = "user") -> Item:
    return item({"role": role, "content": "word " * count})


class Asking:
    """A recall that notes what it is asked, and finds nothing."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    def __call__(self, tokens: int, before: int) -> None:
        self.asked.append((tokens, before))


def test_nothing_is_recalled_when_everything_fits() -> None:
    recall = Asking()
    made = plan(
        system=None,
        history=placed([words(5) for _ in range(10)]),
        new=[words(5)],
        tool_tokens=0,
        budget=1000,
        max_messages=50,
        cut=cut_item,
        recall=recall,
    )
    assert recall.asked == []
    assert (len(made.messages), made.left_out) == (11, 0)


def test_what_a_new_tool_result_answers_is_not_recalled_beside_itself() -> None:
    """The call that is brought in with its result is no older message any more, whatever else is left out."""
    recall = Asking()
    history = placed([words(100) for _ in range(5)]) + placed([call("a")], first=5)
    made = plan(
        system=None,
        history=history,
        new=[result("a", "word " * 20)._replace(depth=6)],
        tool_tokens=0,
        budget=200,
        max_messages=2,
        cut=cut_item,
        recall=recall,
    )
    assert [message["role"] for message in made.messages] == ["assistant", "tool"]
    assert [before for _, before in recall.asked] == [5], "depth 5 is the call, which is sent"
    assert made.left_out == 5


def test_the_newest_messages_stay_word_for_word_when_older_ones_are_large() -> None:
    recall = Asking()
    history = placed([*[words(300) for _ in range(30)], *[words(20) for _ in range(KEEP)]])
    made = plan(
        system=words(30, "system"),
        history=history,
        new=[words(10)._replace(depth=50)],
        tool_tokens=0,
        budget=800,
        max_messages=50,
        cut=cut_item,
        recall=recall,
    )
    recent = made.chosen[:-1]
    assert [one.id for one in recent] == [one.id for one in history[-KEEP:]]
    assert not any(one.cut for one in recent)
    assert [before for _, before in recall.asked] == [30]
    assert made.left_out == 30


def test_without_a_new_message_the_plan_is_what_there_would_be_beside_it() -> None:
    history = placed([words(20) for _ in range(60)], first=40)
    notes = Summary(item({"role": "user", "content": "Notes. " + "word " * 50}), 39, "extractive")

    def fit_beside(new: list[Item], budget: int, **changed: Any) -> Plan:
        common: dict[str, Any] = {"system": words(10, "system"), "history": history, "summary": notes}
        asked = {**common, **changed}
        return plan(new=new, tool_tokens=0, budget=budget, max_messages=51, cut=cut_item, **asked)

    new = words(30)._replace(depth=100)
    beside = fit_beside([], 900)
    whole = fit_beside([new], 900 + new.tokens)
    assert beside.new_tokens == 0
    assert whole.messages == (*beside.messages, new.wire)
    assert whole.tokens == beside.tokens + new.tokens
    assert whole.left_out == beside.left_out > 0
    empty = fit_beside([], 900, history=[], summary=None, system=None)
    assert (empty.messages, empty.tokens, empty.left_out) == ((), empty.priming, 0)


@pytest.mark.parametrize("beside", [{"name": "n " * 30_000}, {"refusal": "I can not do that. " * 5_000}])
def test_what_can_not_be_cut_is_left_out_when_it_is_too_large(beside: dict[str, str]) -> None:
    large = item({"role": "assistant", "content": "no", **beside})
    made = fit([large], [item({"role": "user", "content": "well?"})], budget=800)
    assert measured(made) <= made.tokens <= 800
    assert [message["content"] for message in made.messages] == ["well?"]
