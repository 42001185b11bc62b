"""Understanding a question: what to look for, whose words, when."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baatcheet.context.recall import signs
from baatcheet.context.recall.query import MOST_TERMS, understand

NOW = datetime(2024, 6, 15, 12, tzinfo=UTC)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.text(max_size=2000), max_size=3), st.lists(st.text(max_size=300), max_size=4))
def test_any_message_gives_a_bounded_query(new: list[str], before: list[str]) -> None:
    query = understand(new, before, NOW)
    assert len(query.weights) <= MOST_TERMS
    assert all(weight > 0 for weight in query.weights.values())
    assert query == understand(new, before, NOW)
    assert all(start < end for start, end in query.spans)


def test_the_questions_own_words_weigh_more_than_what_they_stand_for() -> None:
    weights = understand(["What is my profession?"], [], NOW).weights
    assert weights["profess"] > weights["~job"] > 0


def test_a_follow_up_leans_on_what_was_said_before() -> None:
    before = ["Tell me about the pottery studio", "It opened in May"]
    assert "potteri" in understand(["and where is it?"], before, NOW).weights
    whole = understand(["Which colour did we choose for the nursery walls and the ceiling?"], before, NOW)
    assert "potteri" not in whole.weights


def test_words_about_the_talk_itself_weigh_little() -> None:
    weights = understand(["Do you remember when I mentioned the gate?"], [], NOW).weights
    assert weights["mention"] < weights["gate"] / 2


@pytest.mark.parametrize(
    ("text", "role"),
    [
        ("What did I say about the gate?", "user"),
        ("Which laptop did you recommend?", "assistant"),
        ("میں نے کیا کہا تھا؟", "user"),
        ("आपने क्या सुझाव दिया?", "assistant"),
        ("aapne kaunsi kitab batayi?", "assistant"),
        ("How tall is the tower?", None),
    ],
)
def test_whose_words_are_asked_for_is_known(text: str, role: str | None) -> None:
    assert understand([text], [], NOW).role == role


@pytest.mark.parametrize(
    ("text", "sign"),
    [
        ("When did she leave?", signs.DATE),
        ("How much was it?", signs.MONEY),
        ("Who came?", signs.NAME),
        ("Where is it?", signs.PLACE),
        ("Why not?", signs.REASON),
        ("شادی کب ہے؟", signs.DATE),
        ("kitne paise lage?", signs.NUMBER),
    ],
)
def test_the_kind_of_answer_is_known(text: str, sign: int) -> None:
    assert understand([text], [], NOW).wanted & sign


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("What did we do in May 2023?", datetime(2023, 5, 20, tzinfo=UTC), datetime(2023, 8, 1, tzinfo=UTC)),
        ("What happened on 5 March?", datetime(2024, 3, 5, 9, tzinfo=UTC), datetime(2024, 3, 1, tzinfo=UTC)),
        ("And in November?", datetime(2023, 11, 9, tzinfo=UTC), datetime(2024, 5, 1, tzinfo=UTC)),
        ("What did I say two weeks ago?", NOW - timedelta(days=14), NOW - timedelta(days=60)),
        ("What did I eat yesterday?", NOW - timedelta(days=1), NOW - timedelta(days=3)),
        (
            "What was said on 2024-02-03?",
            datetime(2024, 2, 3, 8, tzinfo=UTC),
            datetime(2024, 1, 3, tzinfo=UTC),
        ),
    ],
)
def test_a_time_in_a_question_is_a_span(text: str, inside: datetime, outside: datetime) -> None:
    spans = understand([text], [], NOW).spans
    assert any(start <= inside < end for start, end in spans)
    assert not any(start <= outside < end for start, end in spans)


def test_absurd_dates_are_no_spans() -> None:
    for text in (
        "0000-13-45",
        "99999999999999 days ago",
        "400000 years ago",
        "31 February 2023",
        "9999-12-31",
    ):
        understand([text], [], NOW)


def test_of_a_pasted_document_the_question_at_its_end_counts() -> None:
    text = "lorem ipsum dolor sit amet. " * 400 + "Which clause is about penguins?"
    assert "penguin" in understand([text], [], NOW).weights
