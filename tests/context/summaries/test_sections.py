"""The rolling summary's invariants, over arbitrary histories."""

# ruff: noqa: RUF001 - several scripts, each meant

import asyncio
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baatcheet.context.counting import count
from baatcheet.context.summaries.clipping import clip
from baatcheet.context.summaries.extractive import ExtractiveSummarizer
from baatcheet.context.summaries.sections import (
    SMALLEST_BUDGET,
    Line,
    Section,
    Summarizer,
    SummaryFailed,
    extend,
    render,
)

WORDS = "My name is Omar and I paid 4,500 rupees on 3 May. We decided to meet in Quetta. "


class Verbatim:
    """Takes all the room that it is given."""

    name = "verbatim"

    async def summarize(self, lines: Sequence[Line], tokens: int) -> str:
        text = " ".join(line.text for line in lines)
        return clip(text * (1 + 8 * tokens // (len(text) + 1)), tokens)


class Overlong(Verbatim):
    """Breaks its promise."""

    async def summarize(self, lines: Sequence[Line], tokens: int) -> str:
        return "much more than was asked for " * (tokens + 5)


class Failing(Verbatim):
    async def summarize(self, lines: Sequence[Line], tokens: int) -> str:
        raise SummaryFailed("no model is there")


TEXTS = st.one_of(
    st.text(max_size=120),
    st.sampled_from(
        ["", "   ", WORDS * 3, "السلام علیکم، میرا نام علی ہے۔", "```\ndef f(): ...\n```", "x" * 3000]
    ),
)
BLOCKS = st.lists(
    st.lists(st.tuples(st.sampled_from(["user", "assistant", "tool"]), TEXTS), min_size=1, max_size=4),
    max_size=12,
)
SUMMARIZERS = st.sampled_from([Verbatim(), Overlong(), ExtractiveSummarizer()])


def deep(first: int, said: Sequence[tuple[str, str]]) -> list[tuple[int, Line]]:
    return [(first + at, Line(role, text, None)) for at, (role, text) in enumerate(said)]


def one_after_another(
    blocks: Sequence[Sequence[tuple[str, str]]], budget: int, section_tokens: int, summarizer: Summarizer
) -> list[list[Section]]:
    """The sections after each of `blocks`."""

    async def run() -> list[list[Section]]:
        states: list[list[Section]] = [[]]
        first = 0
        for said in blocks:
            states.append(
                await extend(
                    states[-1],
                    deep(first, said),
                    budget=budget,
                    section_tokens=section_tokens,
                    summarizer=summarizer,
                )
            )
            first += len(said)
        return states

    return asyncio.run(run())


@settings(max_examples=150, deadline=None)
@given(BLOCKS, st.integers(SMALLEST_BUDGET, 400), st.integers(1, 500), SUMMARIZERS)
def test_the_summary_stays_within_its_budget_and_covers_every_message_once(
    blocks: list[list[tuple[str, str]]], budget: int, section_tokens: int, summarizer: Summarizer
) -> None:
    for done, sections in enumerate(one_after_another(blocks, budget, section_tokens, summarizer)):
        assert count(render(sections)) <= budget
        assert [section.tokens for section in sections] == [count(section.text) for section in sections]
        for before, after in pairwise(sections):
            assert after.first == before.last + 1
            assert after.level <= before.level
        if done:
            assert sections[0].first == 0
            assert sections[-1].last == sum(len(said) for said in blocks[:done]) - 1
        assert all(section.first <= section.last for section in sections)


@settings(max_examples=100, deadline=None)
@given(BLOCKS, st.integers(SMALLEST_BUDGET, 400), st.integers(1, 200), SUMMARIZERS)
def test_what_was_rendered_before_stays_as_it_was_unless_sections_were_merged(
    blocks: list[list[tuple[str, str]]], budget: int, section_tokens: int, summarizer: Summarizer
) -> None:
    states = one_after_another(blocks, budget, section_tokens, summarizer)
    for said, (before, after) in zip(blocks, pairwise(states), strict=True):
        first = before[-1].last + 1 if before else 0
        alone = extend(
            [], deep(first, said), budget=budget, section_tokens=section_tokens, summarizer=summarizer
        )
        grown = [*before, *asyncio.run(alone)]
        if count(render(grown)) <= budget:
            assert after == grown
            assert render(after).startswith(render(before))
        else:
            assert len(after) < len(grown)


@given(st.lists(st.text(max_size=40), max_size=6), st.text(max_size=40))
def test_a_further_section_only_appends_to_what_is_rendered(texts: list[str], another: str) -> None:
    sections = [Section(0, at, at, text, count(text)) for at, text in enumerate(texts)]
    longer = [*sections, Section(0, len(texts), len(texts), another, count(another))]
    assert render(longer).startswith(render(sections))
    assert another in render(longer)


async def test_a_new_block_that_fits_leaves_the_earlier_sections_alone() -> None:
    first = await extend([], deep(0, [("user", WORDS)]), budget=400, section_tokens=60, summarizer=Verbatim())
    then = await extend(
        first, deep(1, [("user", WORDS)]), budget=400, section_tokens=60, summarizer=Verbatim()
    )
    assert then[:-1] == first
    assert render(then).startswith(render(first) + "\n")
    assert [(section.level, section.first, section.last) for section in then] == [(0, 0, 0), (0, 1, 1)]


async def test_the_oldest_of_one_level_are_merged_into_one_of_half_their_size() -> None:
    four = [Section(0, depth, depth, WORDS, count(WORDS)) for depth in range(4)]
    budget = count(render(four)) + 4
    five = await extend(
        four, deep(4, [("user", WORDS)]), budget=budget, section_tokens=60, summarizer=Verbatim()
    )
    assert [(section.level, section.first, section.last) for section in five] == [
        (1, 0, 2),
        (0, 3, 3),
        (0, 4, 4),
    ]
    assert five[0].tokens <= 3 * count(WORDS) // 2
    assert five[1] == four[3]
    six = await extend(
        five, deep(5, [("user", "Bye.")]), budget=budget, section_tokens=4, summarizer=Verbatim()
    )
    assert six[:3] == five, "while there is room, nothing is merged again"


async def test_when_no_two_are_of_one_level_the_oldest_two_are_merged() -> None:
    three = [Section(level, 3 - level, 3 - level, WORDS, count(WORDS)) for level in (3, 2, 1)]
    budget = count(render(three)) - 1
    made = await extend(three, [], budget=budget, section_tokens=60, summarizer=Verbatim())
    assert [(section.level, section.first, section.last) for section in made] == [(4, 0, 1), (1, 2, 2)]


async def test_messages_that_are_covered_already_are_passed_over() -> None:
    block = deep(0, [("user", WORDS), ("assistant", "Noted.")])
    once = await extend([], block, budget=300, section_tokens=80, summarizer=Verbatim())
    assert await extend(once, block, budget=300, section_tokens=80, summarizer=Failing()) == once
    more = await extend(
        once, [*block, *deep(2, [("user", "More.")])], budget=300, section_tokens=80, summarizer=Verbatim()
    )
    assert (more[-1].first, more[-1].last) == (2, 2)


@pytest.mark.parametrize("depths", [(4,), (3, 5), (4, 3)])
async def test_missing_messages_are_refused(depths: tuple[int, ...]) -> None:
    sections = [Section(0, 0, 2, "text", 1)]
    block = [(depth, Line("user", "hello", None)) for depth in depths]
    with pytest.raises(ValueError, match="covers all of them"):
        await extend(sections, block, budget=300, section_tokens=80, summarizer=Verbatim())


async def test_a_budget_that_has_come_down_shortens_what_there_is() -> None:
    sections = await extend(
        [], deep(0, [("user", WORDS * 9)]), budget=900, section_tokens=800, summarizer=Verbatim()
    )
    assert sections[0].tokens > 100
    shorter = await extend(sections, [], budget=100, section_tokens=50, summarizer=ExtractiveSummarizer())
    assert 0 < count(render(shorter)) <= 100
    assert (shorter[0].first, shorter[0].last) == (0, 0)


async def test_a_block_without_text_is_covered_without_words() -> None:
    sections = await extend([], deep(0, [("user", " ")]), budget=64, section_tokens=50, summarizer=Failing())
    assert sections == [Section(0, 0, 0, "", 0)]
    assert not render(sections)


async def test_a_failure_is_passed_on_and_a_budget_without_room_refused() -> None:
    with pytest.raises(SummaryFailed):
        await extend([], deep(0, [("user", "hi")]), budget=64, section_tokens=50, summarizer=Failing())
    with pytest.raises(ValueError, match="at least"):
        await extend([], [], budget=SMALLEST_BUDGET - 1, section_tokens=50, summarizer=Verbatim())


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=300), st.integers(0, 60))
def test_clipping_keeps_the_beginning_within_the_tokens(text: str, tokens: int) -> None:
    shorter = clip(text, tokens)
    assert count(shorter) <= tokens
    assert bool(shorter) == bool(text and tokens)
    assert shorter == text or text.startswith(shorter.removesuffix("…"))
