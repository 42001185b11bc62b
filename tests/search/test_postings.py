"""Whatever terms and documents there are, a chunk gives back what was put into it."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from baatcheet.search.postings import (
    ALONE_BYTES,
    CHUNK_BYTES,
    Posting,
    chunks,
    find,
    pack,
    slices,
    terms_of,
    unpack,
)

DOCUMENTS = st.integers(1, 3_000)
TERM = st.builds(
    "".join,
    st.tuples(st.sampled_from("wsrp2k"), st.text(st.sampled_from("abcdأكहि一é\U0001f600"), max_size=12)),
)


@st.composite
def indexes(draw: st.DrawFn) -> tuple[int, dict[str, dict[int, int]]]:
    """How many documents there are, and of each term the impact in each document that has it."""
    documents = draw(DOCUMENTS)
    terms = draw(st.lists(TERM, unique=True, min_size=1, max_size=60))
    index = {}
    for term in terms:
        few = draw(st.integers(1, min(documents, draw(st.sampled_from([1, 8, 3_000])))))
        step = max(1, documents // few)
        impact = 1 if term[0] in "2k" else draw(st.integers(1, 255))
        index[term] = dict.fromkeys(range(0, documents, step), impact)
    return documents, index


def packed(term: str, impacts: dict[int, int], documents: int) -> bytes:
    numbers = np.array(list(impacts), "<u2").tobytes()
    return pack(numbers, None if term[0] in "2k" else bytes(impacts.values()), documents)


def as_dict(posting: Posting) -> dict[int, int]:
    if posting.numbers is None:
        assert posting.impacts is not None
        return {int(n): int(posting.impacts[n]) for n in np.flatnonzero(posting.impacts)}
    numbers = posting.numbers.tolist()
    impacts = [1] * len(numbers) if posting.impacts is None else posting.impacts.tolist()
    return dict(zip(numbers, impacts, strict=True))


@given(indexes())
def test_every_term_is_found_in_the_chunk_that_begins_at_or_before_it(
    index: tuple[int, dict[str, dict[int, int]]],
) -> None:
    documents, terms = index
    made = list(chunks((term, packed(term, terms[term], documents)) for term in sorted(terms)))
    assert [chunk.first for chunk in made] == sorted(chunk.first for chunk in made)
    for term, impacts in terms.items():
        payload = [chunk.payload for chunk in made if chunk.first.encode() <= term.encode()][-1]
        posting = find(payload, term, documents)
        assert posting is not None
        assert as_dict(posting) == impacts
        assert find(payload, term + "~", documents) is None
        assert find(payload, term[:-1], documents) is None or term[:-1] in terms


@given(indexes())
def test_a_chunk_gives_back_all_that_it_has_in_order(index: tuple[int, dict[str, dict[int, int]]]) -> None:
    documents, terms = index
    found = {}
    for chunk in chunks((term, packed(term, terms[term], documents)) for term in sorted(terms)):
        assert terms_of(chunk.payload)[0] == chunk.first
        assert [term for term, *_ in slices(chunk.payload)] == terms_of(chunk.payload)
        for term, start, end in slices(chunk.payload):
            found[term] = as_dict(unpack(term, chunk.payload, start, end, documents))
    assert list(found) == sorted(terms)
    assert found == terms


@given(indexes())
def test_a_chunk_is_small_unless_one_term_alone_is_large(
    index: tuple[int, dict[str, dict[int, int]]],
) -> None:
    documents, terms = index
    for chunk in chunks((term, packed(term, terms[term], documents)) for term in sorted(terms)):
        if len(chunk.payload) > CHUNK_BYTES:
            (one,) = slices(chunk.payload)
            assert one[2] - one[1] > ALONE_BYTES


def test_a_frequent_term_has_one_byte_for_every_document() -> None:
    often = packed("wa", dict.fromkeys(range(0, 1_000, 4), 7), 1_000)
    seldom = packed("wa", dict.fromkeys(range(0, 1_000, 10), 7), 1_000)
    assert len(often) == 1_000
    assert len(seldom) == 300
    assert unpack("wa", often, 0, 1_000, 1_000).numbers is None
    assert unpack("wa", seldom, 0, 300, 1_000).numbers is not None
