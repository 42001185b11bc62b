"""Facts come before pleasantries and questions, and before the words of an assistant that only asks."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from baatcheet.context.recall import signs
from baatcheet.context.recall.choosing import Found
from baatcheet.context.recall.query import Query
from baatcheet.context.recall.ranking import Scored
from baatcheet.context.recall.weighing import weighed

AT = datetime(2026, 5, 1, tzinfo=UTC)


def said(place: int, role: str, signals: int = 0) -> Found:
    return Found(place, 0, 1, role, AT, "words", 1, signals)


def order(ranked: list[Scored], *found: Found, query: Query | None = None) -> list[int]:
    made = weighed(query or Query(), ranked, {(one.place, one.part): one for one in found})
    return [one.place for one in made]


def test_what_only_asks_comes_after_what_tells() -> None:
    ranked = [Scored(1, 0, 10.0), Scored(2, 0, 9.0)]
    assert order(ranked, said(1, "user", signs.QUESTION), said(2, "user")) == [2, 1]


def test_a_good_hit_stays_before_what_was_only_said_lately() -> None:
    ranked = [Scored(1, 0, 10.0), Scored(2, 0, 4.0)]
    assert order(ranked, said(1, "user"), said(2, "user"), said(90, "user")) == [1, 2, 90]


def conversation(asking: str, telling: str) -> list[Found]:
    """Twenty messages of each: one side asks, the other one tells."""
    return [said(place, asking, signs.QUESTION) if place % 2 else said(place, telling) for place in range(40)]


def test_the_user_comes_first_where_the_assistant_mostly_asks() -> None:
    ranked = [Scored(100, 0, 10.0), Scored(101, 0, 9.5)]
    both = [said(100, "assistant"), said(101, "user")]
    talk = conversation("assistant", "user")
    assert order(ranked, *both, *talk)[:2] == [101, 100]
    asked = Query(role="assistant")
    assert order(ranked, *both, *talk, query=asked)[:2] == [100, 101], "unless its words are asked for"


def test_the_assistant_does_not_come_first_where_the_user_mostly_asks() -> None:
    ranked = [Scored(100, 0, 10.0), Scored(101, 0, 9.5)]
    both = [said(100, "user"), said(101, "assistant")]
    assert order(ranked, *both, *conversation("user", "assistant"))[:2] == [100, 101]


@given(
    st.lists(
        st.tuples(st.integers(0, 30), st.floats(0.01, 100), st.integers(0, 4095)),
        max_size=30,
        unique_by=lambda hit: hit[0],
    ),
    st.sampled_from(["user", "assistant", None]),
)
def test_what_was_found_is_weighed_once_in_a_fixed_order(
    hits: list[tuple[int, float, int]], role: str | None
) -> None:
    found = [said(place, "user" if place % 2 else "assistant", signals) for place, _, signals in hits]
    ranked = sorted([Scored(place, 0, score) for place, score, _ in hits], key=lambda one: -one.score)
    made = weighed(Query(role=role), ranked, {(one.place, one.part): one for one in found})
    assert len({(one.place, one.part) for one in made}) == len(made) == len({one.place for one in found})
    assert made == sorted(made, key=lambda one: (-one.score, one.place))
    assert made == weighed(Query(role=role), ranked, {(one.place, one.part): one for one in reversed(found)})
