"""Segments say of every term which documents have it, however these were put together."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from baatcheet.kit.pagination import moment_of
from baatcheet.search import segments
from baatcheet.search.postings import find
from baatcheet.search.segments import (
    AVERAGE,
    FULL,
    HEAVY,
    IMPACT_UNIT,
    MOST_DOCUMENTS,
    TITLE,
    Builder,
    Segment,
    columns_of,
    impacts_of,
    merge,
    part_of_title,
    read,
    to_merge,
)
from baatcheet.search.terms import Analysis

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


class Made(NamedTuple):
    """A document of a test."""

    id: UUID
    part: int
    conversation: UUID
    created: datetime
    terms: dict[str, int]


TERMS = st.dictionaries(
    st.sampled_from(["wone", "wtwo", "wبتخ", "sfour", "2abc", "krole:user", "pfi", "wsix_seven"]),
    st.integers(1, 30),
    max_size=6,
)
DOCUMENT = st.builds(
    Made,
    # An id with zeros at its end, too: they are part of it.
    st.integers(0, 30).map(lambda n: UUID(int=n << 120 if n % 2 else n)),
    st.sampled_from([0, 1, 2, TITLE, TITLE + 5]),
    st.integers(0, 5).map(lambda n: UUID(int=n << 64)),
    st.just(BEGIN),
    TERMS,
)


def dated(documents: Sequence[Made]) -> list[Made]:
    """The same; a document's time follows from its id, as it does for a message."""
    return [one._replace(created=BEGIN + timedelta(seconds=one.id.int % 7)) for one in documents]


def built(documents: Sequence[Made]) -> Segment:
    builder = Builder()
    for one in documents:
        builder.add(
            one.id,
            one.part,
            one.conversation,
            one.created,
            Analysis(one.terms, frozenset(), sum(one.terms.values())),
        )
    return builder.build()


def content(segment: Segment) -> dict[tuple[UUID, int], tuple[UUID, datetime, frozenset[str]]]:
    """What a segment says, read from its rows as a query would."""
    rows = list(segment.chunks())
    columns = columns_of(segment)
    owners = [
        UUID(bytes=columns.conversation_ids[at : at + 16])
        for at in range(0, len(columns.conversation_ids), 16)
    ]
    terms: list[set[str]] = [set() for _ in range(segment.count)]
    for term in segment.terms:
        payload = [row.payload for row in rows if row.first <= term][-1]
        posting = find(payload, term, segment.count)
        assert posting is not None
        numbers = (
            posting.numbers
            if posting.impacts is None or posting.numbers is not None
            else np.flatnonzero(posting.impacts)
        )
        assert numbers is not None
        for number in numbers.tolist():
            terms[number].add(term)
    keys = [(UUID(bytes=columns.ids[at * 16 : at * 16 + 16]), part) for at, part in enumerate(columns.parts)]
    assert len(set(keys)) == len(keys)
    order = [(int(segment.created[n]), key) for n, key in enumerate(keys)]
    assert order == sorted(order)
    return {
        key: (owners[segment.conversations[n]], moment_of(int(segment.created[n])), frozenset(terms[n]))
        for n, key in enumerate(keys)
    }


def expected(documents: Sequence[Made]) -> dict[tuple[UUID, int], tuple[UUID, datetime, frozenset[str]]]:
    # Of a document that was given twice, the first is kept.
    return {
        (one.id, one.part): (one.conversation, one.created, frozenset(one.terms))
        for one in reversed(documents)
    }


@given(st.lists(DOCUMENT, min_size=1, max_size=40))
@settings(max_examples=40)
def test_a_segment_says_what_its_documents_say(documents: list[Made]) -> None:
    documents = dated(documents)
    assert content(built(documents)) == expected(documents)


@given(st.lists(st.lists(DOCUMENT, min_size=1, max_size=12), min_size=1, max_size=4))
@settings(max_examples=40)
def test_merged_ones_say_what_they_said_each(groups: list[list[Made]]) -> None:
    groups = [dated(group) for group in groups]
    merged = merge([built(group) for group in groups])
    assert content(merged) == expected([one for group in groups for one in group])


@given(st.lists(DOCUMENT, min_size=1, max_size=30), st.integers(0, 5))
@settings(max_examples=40)
def test_what_is_not_kept_leaves_nothing(documents: list[Made], gone: int) -> None:
    documents = dated(documents)
    whole = built(documents)
    ids = [UUID(bytes=bytes(one)) for one in whole.conversation_ids]
    keep = np.array([ids[n] != UUID(int=gone << 64) for n in whole.conversations])
    left = merge([whole], [keep])
    wanted = {key: said for key, said in expected(documents).items() if said[0] != UUID(int=gone << 64)}
    assert content(left) == wanted
    assert set(left.terms) == {term for _, _, terms in wanted.values() for term in terms}
    assert {UUID(bytes=bytes(one)) for one in left.conversation_ids} == {said[0] for said in wanted.values()}


@given(st.lists(DOCUMENT, min_size=1, max_size=40))
@settings(max_examples=40)
def test_a_segment_is_read_as_it_was_written(documents: list[Made]) -> None:
    whole = built(dated(documents))
    again = read(columns_of(whole), [row.payload for row in whole.chunks()])
    assert again.terms == whole.terms
    assert list(again.chunks()) == list(whole.chunks())
    assert np.array_equal(again.occurrences >> 8, whole.occurrences >> 8)
    assert columns_of(again) == columns_of(whole)


def indexed(times: int, length: int, part: int) -> int:
    """The impact of a term that a document of so many words has so often."""
    builder = Builder()
    builder.add(UUID(int=1), part, UUID(int=1), BEGIN, Analysis({"wone": times}, frozenset(), length))
    return int(builder.build().occurrences[0]) & 0xFF


def test_impacts_are_bm25_and_titles_count_double() -> None:
    assert abs(indexed(3, int(AVERAGE), 0) * IMPACT_UNIT - 3 * 2.2 / (3 + 1.2)) < IMPACT_UNIT
    assert abs(indexed(1, 240, 0) * IMPACT_UNIT - 2.2 / (1 + 1.2 * (0.25 + 0.75 * 4))) < IMPACT_UNIT
    assert abs(indexed(1, 5, TITLE) - 2 * indexed(1, 5, 0)) <= 1
    assert indexed(1, 100_000, 0) == 1


@given(st.integers(1, 1_000), st.integers(1, 2_000), st.booleans())
def test_what_is_fresh_has_the_impact_that_it_will_have(times: int, length: int, title: bool) -> None:
    said = impacts_of(np.array([times, 0]), np.array([length, length]), np.array([title, title]))
    assert said.tolist() == [indexed(times, length, TITLE if title else 0), 0]


def test_a_term_is_one_line() -> None:
    builder = Builder()
    builder.add(
        UUID(int=1), 0, UUID(int=1), BEGIN, Analysis({"wa": 1}, frozenset(), 1), ("kmodel:a\nb", "kmodel:a b")
    )
    assert builder.build().terms == ["kmodel:a b", "wa"]


def test_words_are_told_by_their_first_letter() -> None:
    builder = Builder()
    terms = dict.fromkeys(["wbee", "want", "wara", "sstem", "pan", "wعربی"], 1)
    builder.add(UUID(int=1), 0, UUID(int=1), BEGIN, Analysis(terms, frozenset(), 6))
    assert dict(builder.build().words()) == {"a": "ant\nara", "b": "bee", "ع": "عربی"}


@given(st.text(), st.text())
def test_one_title_is_told_from_another(one: str, two: str) -> None:
    assert TITLE <= part_of_title(one) < 2 * TITLE
    assert part_of_title(one) == part_of_title(one)
    assert one == two or part_of_title(one) != part_of_title(two)


@given(st.lists(st.integers(1, 60_000), max_size=60))
def test_merging_ends_with_few_segments_and_writes_a_document_few_times(flushes: list[int]) -> None:
    sizes: list[tuple[int, int]] = []
    written = 0
    for documents in flushes:
        sizes.append((documents, documents * 150))
        while (chosen := to_merge(sizes)) is not None:
            assert len(chosen) > 1
            total = tuple(map(sum, zip(*(sizes[place] for place in chosen), strict=True)))
            assert total[0] <= MOST_DOCUMENTS
            assert total[1] <= 2 * HEAVY
            sizes = [size for place, size in enumerate(sizes) if place not in chosen] + [(total[0], total[1])]
            written += total[0]
    small = [documents for documents, occurrences in sizes if documents < FULL and occurrences < HEAVY]
    assert len(small) <= 4 * (segments.FAN_IN - 1)
    assert written <= 5 * sum(flushes)
