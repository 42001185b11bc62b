"""Excerpts: within the budget, in order, to the letter."""

from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from baatcheet.context.counting import count
from baatcheet.context.recall.choosing import FIRST_LINE, Excerpts, Found, choose, render
from baatcheet.context.recall.ranking import Scored

NOW = datetime(2024, 6, 15, 12, tzinfo=UTC)
TEXTS = st.one_of(
    st.text(min_size=1, max_size=80),
    st.sampled_from(
        ["سلام، آپ کیسے ہیں؟", "ok", "The penguin is called Otto.", "x " * 300, "def f():\n    return 1\n"]
    ),
)


def a_message(place: int, text: str, *, part: int = 0, parts: int = 1, days: int = 0) -> Found:
    at = NOW + timedelta(days=days, minutes=place)
    return Found(place, part, parts, "user" if place % 2 == 0 else "assistant", at, text, count(text))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(TEXTS, st.integers(0, 9)), max_size=40), st.integers(0, 400))
def test_excerpts_fit_the_budget_and_keep_every_text_to_the_letter(
    said: list[tuple[str, int]], budget: int
) -> None:
    found = {(place, 0): a_message(place, text, days=days) for place, (text, days) in enumerate(said)}
    ranked = [Scored(place, None if place % 3 == 0 else 0, 100.0 - place) for place in range(len(said))]
    made = choose(ranked, found, budget, count=count)
    assert made.tokens == count(made.text) <= budget or made == Excerpts()
    assert list(made.places) == sorted(set(made.places))
    for place in made.places:
        assert found[place, 0].text.rstrip() in made.text
    assert not made.cut


def test_the_best_are_taken_and_shown_in_the_order_they_were_said() -> None:
    found = {(place, 0): a_message(place, f"message number {place}") for place in range(50)}
    ranked = [
        Scored(30, 0, 9.0),
        Scored(3, 0, 8.0),
        Scored(4, None, 7.0),
        *[Scored(n, 0, 1.0) for n in range(9, 29)],
    ]
    made = choose(ranked, found, 60, count=count)
    assert {3, 4, 30} <= set(made.places)
    assert made.text.index("number 3") < made.text.index("number 4") < made.text.index("number 30")
    assert len(made.places) < 20


def test_a_large_budget_is_used_up() -> None:
    found = {
        (place, 0): a_message(place, f"message number {place} about a thing", days=place // 20)
        for place in range(400)
    }
    ranked = [Scored(place, 0, 500.0 - place) for place in range(0, 400, 2)]
    for budget in (500, 1_000, 2_000):
        assert choose(ranked, found, budget, count=count).tokens > 0.95 * budget


def test_a_passage_too_large_is_passed_over_for_smaller_ones() -> None:
    found = {(0, 0): a_message(0, "word " * 500), (5, 0): a_message(5, "small")}
    made = choose([Scored(0, 0, 2.0), Scored(5, 0, 1.0)], found, 60, count=count)
    assert made.places == (5,)


def test_the_date_is_shown_once_a_sitting_and_gaps_are_marked() -> None:
    text = render(
        [a_message(0, "one"), a_message(1, "two"), a_message(7, "three"), a_message(8, "four", days=2)]
    )
    assert text == (
        f"{FIRST_LINE}\n[2024-06-15]\nuser: one\nassistant: two\n…\nassistant: three\n[2024-06-17]\nuser: four"
    )


def test_the_passages_of_one_message_are_joined_and_what_is_missing_is_marked() -> None:
    pieces = [a_message(0, text, part=part, parts=6) for part, text in ((1, "b\n"), (2, "c "), (4, "e"))]
    assert render(pieces).endswith("user: … b\nc  … e …")


def test_a_message_with_missing_passages_counts_as_cut() -> None:
    found = {(0, part): a_message(0, f"part {part}. ", part=part, parts=3) for part in range(3)}
    ranked = [Scored(0, part, 3.0 - part) for part in range(2)]
    made = choose(ranked, found, 500, count=count)
    assert made.cut == {0}
    ranked.append(Scored(0, 2, 0.5))
    assert choose(ranked, found, 500, count=count).cut == frozenset()


def test_nothing_found_gives_nothing() -> None:
    assert choose([Scored(1, 0, 1.0)], {}, 1_000, count=count) == Excerpts()
