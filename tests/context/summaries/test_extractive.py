"""What the summariser without a model keeps."""

# ruff: noqa: RUF001 - several scripts, each meant

import asyncio
import random
import time
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baatcheet.context.counting import count
from baatcheet.context.summaries.extractive import ExtractiveSummarizer, extract
from baatcheet.context.summaries.sampling import bounded, sampled
from baatcheet.context.summaries.sections import EARLIER, Line
from baatcheet.context.summaries.units import LONGEST, units
from tests.context.summaries.blocks import BLOCKS, ENGLISH, Block

SHARE = 0.15
LINES = st.lists(
    st.builds(
        Line,
        st.sampled_from(["user", "assistant", "tool", "system", EARLIER]),
        st.one_of(st.text(max_size=200), st.sampled_from([line.text for b in BLOCKS for line in b.lines])),
        st.one_of(st.none(), st.datetimes(timezones=st.just(UTC))),
    ),
    max_size=8,
)


def said(*texts: str, role: str = "user") -> list[Line]:
    return [Line(role, text, None) for text in texts]


def size(block: Block) -> int:
    return sum(count(line.text) for line in block.lines)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.name)
def test_planted_facts_survive_in_a_seventh_of_the_block(block: Block) -> None:
    text = extract(block.lines, int(size(block) * SHARE))
    assert [fact for fact in block.facts if fact not in text] == []


def test_choosing_at_random_would_lose_them() -> None:
    tokens = int(size(ENGLISH) * SHARE)
    pieces = [unit.text for unit in units(ENGLISH.lines)]
    random.Random(7).shuffle(pieces)
    text = ""
    for piece in pieces:
        text += f"{piece}\n" if count(text + piece) < tokens else ""
    assert sum(fact in text for fact in ENGLISH.facts) < len(ENGLISH.facts) // 2


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.name)
def test_facts_survive_a_second_summary_at_half_the_size(block: Block) -> None:
    tokens = int(size(block) * 0.2)
    once = extract(block.lines, tokens)
    twice = extract([Line(EARLIER, once, None)], tokens // 2)
    kept = [fact for fact in block.facts if fact in twice]
    assert len(kept) >= len(block.facts) // 2


@settings(max_examples=150, deadline=None)
@given(LINES, st.integers(1, 120))
def test_an_extract_is_bounded_deterministic_and_never_empty(lines: list[Line], tokens: int) -> None:
    text = extract(lines, tokens)
    assert count(text) <= tokens
    assert bool(text) == any(line.text.strip() for line in lines)
    assert extract(list(lines), tokens) == text


@settings(max_examples=150, deadline=None)
@given(LINES)
def test_units_are_short_and_in_the_order_of_their_messages(lines: list[Line]) -> None:
    made = units(lines)
    assert [unit.message for unit in made] == sorted(unit.message for unit in made)
    assert all(unit.text.strip() and len(unit.text) <= LONGEST + 2 for unit in made)


def test_it_is_written_in_order_with_the_day_and_the_speaker() -> None:
    lines = [
        Line("user", "I live in Multan.", datetime(2026, 3, 2, 9, tzinfo=UTC)),
        Line("assistant", "The train leaves at 7:45.", datetime(2026, 3, 2, 10, tzinfo=UTC)),
        Line("user", "We decided to fly.", datetime(2026, 3, 5, tzinfo=UTC)),
    ]
    expected = (
        "[2026-03-02]\nUser: I live in Multan.\nAssistant: The train leaves at 7:45.\n"
        "[2026-03-05]\nUser: We decided to fly."
    )
    assert extract(lines, 100) == expected
    assert extract([Line(EARLIER, expected, None)], 100) == expected


def test_a_short_answer_brings_the_question_that_it_answers() -> None:
    lines = [
        Line("assistant", "Good. Which colour do you want for the door?", None),
        Line("user", "Teal, code 5024.", None),
    ]
    lines += said(*["the rain goes on and on and on"] * 30, role="assistant")
    assert extract(lines, 30) == "Assistant: Which colour do you want for the door?\nUser: Teal, code 5024."


def test_pleasantries_stay_out_and_nothing_is_said_twice() -> None:
    text = extract(
        said("Hello! How are you?", "شکریہ", "I prefer tea.", "Thanks a lot!", "I prefer tea."), 100
    )
    assert text == "User: I prefer tea."


def test_the_same_words_with_another_number_are_both_kept() -> None:
    text = extract(said("The rent is 40,000 rupees a month.", "The rent is 45,000 rupees a month."), 100)
    assert "40,000" in text
    assert "45,000" in text


def test_what_the_user_says_goes_before_what_the_assistant_says() -> None:
    lines = [
        Line("assistant", "The meeting is on 4 May.", None),
        Line("user", "The meeting is on 5 May!", None),
    ]
    assert extract(lines, 14) == "User: The meeting is on 5 May!"


def test_abbreviations_and_numbers_do_not_end_a_sentence() -> None:
    found = [unit.text for unit in units(said("I met Dr. Ayesha Khan. It cost Rs. 3.50 then.\n1. Buy milk"))]
    assert found == ["I met Dr. Ayesha Khan.", "It cost Rs. 3.50 then.", "1. Buy milk"]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("یہ پہلا ہے۔ یہ دوسرا ہے؟ ہاں", 3),
        ("यह पहला है। यह दूसरा है।", 2),
        ("这是第一句。这是第二句。", 2),
        ("one\ntwo\n\nthree", 3),
        ("“Really?” she asked. Yes!", 3),
    ],
)
def test_sentences_end_as_their_script_ends_them(text: str, sentences: int) -> None:
    assert len(units(said(text))) == sentences


def test_of_code_the_signatures_stay_or_its_first_line() -> None:
    code = "```py\nimport os\n\nclass Shop(Base):\n    x = 1\n    def open(self) -> None:\n        run()\n```"
    assert [unit.text for unit in units(said(code))] == ["class Shop(Base):", "def open(self) -> None:"]
    assert [unit.text for unit in units(said("look:\n```\nmake all\nmake test\n```\ndone"))] == [
        "look:",
        "make all",
        "done",
    ]
    assert extract(said(code), 40) == "User: `class Shop(Base):` · `def open(self) -> None:`"


def test_a_long_sentence_is_taken_apart_at_its_clauses() -> None:
    text = "so it went on, " * 30 + "and my daughter Mahnoor is 9 years old, " + "and so it went on, " * 30
    made = extract(said(text), 80)
    assert "Mahnoor is 9 years old" in made


@pytest.mark.parametrize(
    "text",
    [
        "word 1. " * 2_000_000,
        "x" * 16_000_000,
        "\n" * 16_000_000,
        "```\n" * 4_000_000,
        '."' * 8_000_000,
        "> " * 8_000_000,
    ],
    ids=["prose", "one word", "blank", "fences", "quotes", "marks"],
)
def test_a_text_of_16_mb_costs_no_more_than_its_samples(text: str) -> None:
    begun = time.process_time()
    extract(said(text), 160)
    assert time.process_time() - begun < 3  # tenths of a second, on a machine that does nothing else


def test_both_ends_of_a_long_text_are_looked_at() -> None:
    text = "My name is Hira. " + "blah " * 3_000_000 + "We decided to sell the house for 9 crore."
    made = extract(said(text), 100)
    assert "Hira" in made
    assert "9 crore" in made


@given(st.lists(st.integers(0, 400), max_size=30), st.integers(500, 4000))
def test_bounding_shortens_the_longest_only(lengths: list[int], most: int) -> None:
    lines = said(*["y" * length for length in lengths])
    kept = bounded(lines, most)
    assert sum(len(line.text) for line in kept) <= most + 40 * len(kept)
    if sum(lengths) <= most:
        assert kept == lines


def test_samples_are_spread_over_the_text() -> None:
    text = " ".join(f"n{number}" for number in range(100_000))
    made = sampled(text, 12_000)
    assert len(made) < 12_100
    assert made.startswith("n0 n1 ")
    assert made.endswith("n99999")
    assert made.count("…") == 9


async def test_others_go_on_while_a_large_block_is_summarised() -> None:
    turns = 0

    async def go_on() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    others = asyncio.create_task(go_on())
    await ExtractiveSummarizer().summarize(said("I have 3 cats in Quetta. " * 40_000), 100)
    others.cancel()
    assert turns > 10
