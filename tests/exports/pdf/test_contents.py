"""What a table of contents lists, for documents of any length."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from baatcheet.exports.pdf import contents
from baatcheet.exports.pdf.contents import Entry, choose
from baatcheet.exports.pdf.tree import Cell

START = datetime(2026, 1, 1, tzinfo=UTC)


def entry(level: int, title: str = "x", role: str = "", days: int = 0) -> Entry:
    return Entry(level, title, Cell(0, "", [title]), role, START + timedelta(days=days))


def day(at: datetime) -> str:
    return f"{at:%d.%m.%Y}"


def month(at: datetime) -> str:
    return f"{at:%m.%Y}"


def test_of_one_conversation_what_was_asked() -> None:
    entries = [entry(1), entry(2, role="user"), entry(2, role="assistant"), entry(3), entry(5)]

    assert [(one.level, one.mark) for one in choose(entries, day, month)] == [(1, 1), (2, 3)]


def test_a_conversation_in_which_nothing_was_asked_lists_all() -> None:
    entries = [entry(1), entry(2, role="assistant"), entry(2, role="tool")]

    assert [one.mark for one in choose(entries, day, month)] == [1, 2]


def test_several_conversations_stand_above_their_questions() -> None:
    entries = [entry(1), entry(2, role="user"), entry(1), entry(2, role="assistant")]

    assert [(one.level, one.mark) for one in choose(entries, day, month)] == [(1, 0), (2, 1), (1, 2), (2, 3)]


def test_of_very_many_conversations_their_titles() -> None:
    entries = [one for _ in range(1_000) for one in (entry(1), entry(2, role="user"))]

    assert [one.mark for one in choose(entries, day, month)] == list(range(0, 2_000, 2))


def test_of_a_conversation_of_a_thousand_years_its_first_questions() -> None:
    entries = [entry(1), *(entry(2, role="user", days=40 * number) for number in range(5_000))]

    assert len(choose(entries, day, month)) == contents.MOST_LINES


@given(
    st.lists(
        st.tuples(st.integers(1, 6), st.sampled_from(["user", "assistant"]), st.integers(0, 900)),
        max_size=900,
    )
)
def test_the_table_is_short_and_in_order(given: list[tuple[int, str, int]]) -> None:
    entries = [entry(level, role=role, days=days) for level, role, days in given]

    marks = [one.mark for one in choose(entries, day, month)]

    assert marks == sorted(set(marks))
    talks = sum(one.level == 1 for one in entries)
    assert len(marks) <= max(contents.MOST_LINES, talks)
