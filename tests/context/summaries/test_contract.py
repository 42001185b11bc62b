"""What every summariser keeps to."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from baatcheet.context.counting import count
from baatcheet.context.summaries.by_model import ModelSummarizer
from baatcheet.context.summaries.extractive import ExtractiveSummarizer
from baatcheet.context.summaries.fallback import WithFallback
from baatcheet.context.summaries.sections import EARLIER, Line, Summarizer, extend, render
from tests.context.summaries.blocks import BLOCKS, Block
from tests.context.summaries.conftest import MakeTargets
from tests.scripted_provider import ScriptedProvider, Step

NOTES = "User: my name is Zainab, and I want short answers. Assistant: noted.\n" * 20


@pytest.fixture(params=["extractive", "model", "model that fails"])
def summarizer(
    request: pytest.FixtureRequest, make_targets: MakeTargets, upstream: ScriptedProvider
) -> Summarizer:
    if request.param == "extractive":
        return ExtractiveSummarizer()
    upstream.script(*[Step(reply=NOTES) if request.param == "model" else Step(status=500)] * 20)
    by_model = ModelSummarizer(make_targets())
    return by_model if request.param == "model" else WithFallback(by_model, ExtractiveSummarizer())


@pytest.mark.parametrize("tokens", [1, 7, 60, 400])
@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.name)
async def test_a_summary_is_not_empty_and_within_its_tokens(
    summarizer: Summarizer, block: Block, tokens: int
) -> None:
    text = await summarizer.summarize(block.lines, tokens)
    assert text.strip()
    assert count(text) <= tokens


@pytest.mark.parametrize(
    "text",
    ["ok", "?!", "-----", "```\n```", "👩‍👩‍👧‍👦", "\x00 \ud800", "# ", "x" * 50_000, "\n" * 50_000 + "end"],
    ids=ascii,
)
async def test_there_is_something_to_say_of_any_text(summarizer: Summarizer, text: str) -> None:
    made = await summarizer.summarize([Line("user", "  ", None), Line("user", text, None)], 30)
    assert made
    assert count(made) <= 30


async def test_of_nothing_nothing_is_said(summarizer: Summarizer) -> None:
    assert not await summarizer.summarize([Line("user", " \n", datetime(2026, 1, 1, tzinfo=UTC))], 30)
    assert not await summarizer.summarize([], 30)


async def test_its_own_summaries_can_be_summarised(summarizer: Summarizer) -> None:
    once = await summarizer.summarize(BLOCKS[0].lines, 200)
    twice = await summarizer.summarize([Line(EARLIER, once, None)], 80)
    assert twice
    assert count(twice) <= 80


async def test_it_writes_the_sections_of_a_long_conversation(summarizer: Summarizer) -> None:
    sections: list = []  # type: ignore[type-arg]
    depth = 0
    for block in BLOCKS:
        said = [(depth + at, line) for at, line in enumerate(block.lines)]
        sections = await extend(sections, said, budget=500, section_tokens=160, summarizer=summarizer)
        depth += len(said)
        assert count(render(sections)) <= 500
    assert (sections[0].first, sections[-1].last) == (0, depth - 1)


async def test_it_says_who_wrote(summarizer: Summarizer) -> None:
    await summarizer.summarize(BLOCKS[0].lines, 100)
    names: dict[type, Callable[[str], bool]] = {
        ExtractiveSummarizer: lambda name: name == "extractive",
        WithFallback: lambda name: name == "extractive",
        ModelSummarizer: lambda name: name == "lab0/scripted",
    }
    assert names[type(summarizer)](summarizer.name)
