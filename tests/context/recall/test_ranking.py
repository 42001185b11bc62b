"""Ranking: found by its words, by its neighbour's, by its sitting; the same every time."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from baatcheet.context.recall.analysis import passages
from baatcheet.context.recall.hits import CAP
from baatcheet.context.recall.query import Query, understand
from baatcheet.context.recall.ranking import Hit, Scored, Statistics, rank

NOW = datetime(2024, 6, 15, 12, tzinfo=UTC)
Said = tuple[str, str]


def found(query: Query, messages: Sequence[Said], gap: timedelta = timedelta(minutes=1)) -> list[Scored]:
    """What an index over `messages` would rank."""
    frequency = dict.fromkeys(query.weights, 0)
    hits = []
    total = count = 0
    for place, (role, text) in enumerate(messages):
        for part, passage in enumerate(passages(text)):
            counts = {term: passage.terms[term] for term in query.weights if term in passage.terms}
            for term in counts:
                frequency[term] += 1
            total, count = total + passage.length, count + 1
            if counts:
                at = NOW + place * gap
                hits.append(Hit(place, part, role, at, passage.length, counts, passage.signals))
    return rank(query, hits, Statistics(len(messages), count, total / max(1, count), frequency))


def ask(text: str, *messages: str) -> list[Scored]:
    said = [("user" if place % 2 == 0 else "assistant", one) for place, one in enumerate(messages)]
    return found(understand([text], [], NOW), said)


FILLER = ["The bus was late", "I see", "It rains a lot here", "Indeed it does", "Soup again", "Again?"] * 3


def test_what_has_the_words_comes_first_and_its_neighbours_follow() -> None:
    ranked = ask("Which penguin was it?", *FILLER, "The penguin was called Otto", "Nice", *FILLER)
    assert ranked[0][:2] == (18, 0)
    assert {one.place for one in ranked[1:3]} == {17, 19}
    assert all(one.part is None for one in ranked[1:3])


def test_an_answer_that_shares_no_word_is_found_beside_its_question() -> None:
    ranked = ask("What is the code of the archive?", *FILLER, "What's the archive code?", "Pine 88", *FILLER)
    assert 19 in [one.place for one in ranked[:3]]


def test_another_word_for_the_same_is_found() -> None:
    ranked = ask("What is my profession?", *FILLER, "I work as a nurse", *FILLER)
    assert ranked[0].place == 18


def test_the_asked_speakers_words_come_first() -> None:
    chat = ["Let us take the blue sofa", "I say take the green sofa"]
    assert ask("Which sofa did you recommend?", *FILLER, *chat, *FILLER)[0].place == 19
    assert ask("Which sofa did I say?", *FILLER, *chat, *FILLER)[0].place == 18


def test_who_is_called_by_name_is_the_other_one() -> None:
    calls = [text for n in range(10) for text in (f"Number {n} is done, Nora", "Good, go on")]
    chat = ["I planted a lemon tree", "I planted a cherry tree"]
    ranked = ask("Which tree did Nora plant?", *calls, *chat, *calls)
    assert ranked[0].place == 21


def test_the_newest_come_first_when_they_are_asked_for() -> None:
    chat = ["The rent is 900", "ok", *FILLER, "The rent is 950", "ok", *FILLER, "The rent is 990", "ok"]
    order = [
        one.place for one in ask("What is the rent now?", *chat) if one.part == 0 and one.place in {0, 20, 40}
    ]
    assert order == [40, 20, 0]


def test_a_long_silence_parts_two_sittings_and_a_good_one_gains_as_a_whole() -> None:
    near = ["The penguin Otto swam and the penguin dived", *FILLER[:5], "We saw birds"]
    far = [*FILLER[:6], "We saw birds"]
    query = understand(["Which birds, the penguin?"], [], NOW)
    hits, frequency = [], dict.fromkeys(query.weights, 0)
    for place, text in enumerate([*near, *far]):
        passage = passages(text)[0]
        counts = {term: 1 for term in query.weights if term in passage.terms}
        for term in counts:
            frequency[term] += 1
        if counts:
            at = NOW + timedelta(minutes=place, days=place // len(near))
            hits.append(Hit(place, 0, "user", at, passage.length, counts, passage.signals))
    scores = {one.place: one.score for one in rank(query, hits, Statistics(14, 14, 4.0, frequency))}
    assert scores[6] > scores[13]


def test_a_passage_beside_the_best_one_of_a_long_message_is_ranked_too() -> None:
    text = "The committee met again and agreed on the whole plan without a long debate. " * 12
    ranked = ask("Which penguin?", *FILLER, text + "The penguin is Otto. " + text, *FILLER)
    parts = {one.part for one in ranked if one.place == 18}
    assert len(parts) == 3


HITS = st.lists(
    st.builds(
        Hit,
        place=st.integers(0, 60),
        part=st.integers(0, 3),
        role=st.sampled_from(["user", "assistant", "tool"]),
        at=st.integers(0, 10**6).map(lambda seconds: NOW + timedelta(seconds=seconds)),
        length=st.integers(0, 200),
        counts=st.dictionaries(st.sampled_from(["a", "b", "c"]), st.integers(1, 9), max_size=3),
        signals=st.integers(0, 4095),
    ),
    max_size=40,
    unique_by=lambda hit: (hit.place, hit.part),
)


@settings(max_examples=200, deadline=None)
@given(HITS, st.integers(0, CAP))
def test_any_hits_are_ranked_in_order_within_the_conversation(hits: list[Hit], frequency: int) -> None:
    query = Query(
        weights={"a": 1.0, "b": 0.5, "c": 0.1}, aspects={"a": 0, "b": 1, "c": 0}, wanted=3, recent=1.0
    )
    statistics = Statistics(61, 100, 20.0, {"a": frequency, "b": 3, "c": 1})
    ranked = rank(query, hits, statistics)
    assert ranked == rank(query, list(reversed(hits)), statistics)
    assert [one.score for one in ranked] == sorted([one.score for one in ranked], reverse=True)
    assert len({(one.place, one.part) for one in ranked}) == len(ranked)
    assert all(0 <= one.place < 61 for one in ranked)


def test_a_term_that_only_the_newest_were_looked_up_for_counts_as_common_as_it_is() -> None:
    query = Query(weights={"often": 1.0, "rare": 1.0}, aspects={"often": 0, "rare": 1})
    hits = [Hit(place, 0, "user", NOW, 5, {"often": 1}, 0) for place in range(9_000, 10_000)]
    hits.append(Hit(100, 0, "user", NOW, 5, {"rare": 1}, 0))
    ranked = rank(query, hits, Statistics(10_000, 10_000, 5.0, {"often": CAP, "rare": 1}))
    assert ranked[0].place == 100
    assert ranked[0].score > 20 * next(one.score for one in ranked if one.place == 9_500)
