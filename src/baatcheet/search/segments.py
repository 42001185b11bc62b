"""Segments: up to 65,536 documents with the terms that they have, built, merged, written as rows and read again.

Here every occurrence of a term in a document is one integer, term << 24 | number << 8 | impact, and a segment's
occurrences are one ascending array: merging segments is a sort.
"""

from array import array
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import count as counter
from itertools import groupby
from typing import Any, Final, NamedTuple
from uuid import UUID
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from baatcheet.kit.pagination import microseconds
from baatcheet.search.postings import (
    WITHOUT_IMPACTS,
    Chunk,
    chunks,
    pack,
    slices,
)
from baatcheet.search.terms import Analysis

MOST_DOCUMENTS: Final = 65_536
FULL: Final = 32_768  # documents of a segment that is merged no more
HEAVY: Final = 5_000_000  # occurrences of one that is not, however few its documents
SMALLEST: Final = 64  # documents below which a segment is written again by the next flush
FAN_IN: Final = 8
BLOCK: Final = 64  # documents of a row of `search_documents`
TITLE: Final = 1 << 31  # a title's `part` is this, and 31 bits that tell one title from another

# BM25's part of how often a term occurs: tf (K1 + 1) / (tf + K1 (1 - B + B length / AVERAGE)), of titles twice that.
K1: Final = 1.2
B: Final = 0.75
AVERAGE: Final = 60.0  # words
IMPACT_UNIT: Final = 2 * (K1 + 1) / 255  # what an impact of 1 is worth

_ID: Final = np.dtype("V16")


def part_of_title(title: str) -> int:
    """The `part` under which a title is indexed."""
    return TITLE | crc32(title.encode()) & (TITLE - 1)


def impacts_of(times: NDArray[Any], lengths: NDArray[Any], titles: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The impacts of a term that documents of `lengths` words have so many times each; 0 where that is 0."""
    values = times * (K1 + 1) / (times + K1 * (1 - B + B * lengths / AVERAGE)) * np.where(titles, 2.0, 1.0)
    return np.where(times > 0, np.clip(np.rint(values / IMPACT_UNIT), 1, 255), 0).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class Segment:
    """Documents in the order of (created, id, part), and every term of each."""

    created: NDArray[np.int64]
    ids: NDArray[Any]  # 16 bytes each
    parts: NDArray[np.int64]
    conversations: NDArray[np.uint32]  # places in `conversation_ids`
    conversation_ids: NDArray[Any]  # 16 bytes each, all of them in use
    terms: list[str]  # ascending, all of them in use
    occurrences: NDArray[np.int64]  # ascending

    @property
    def count(self) -> int:
        return len(self.created)

    def words(self) -> Iterator[tuple[str, str]]:
        """The distinct words by their first letter, each letter's joined by line feeds."""
        words = (term[1:] for term in self.terms if term[0] == "w" and len(term) > 1)
        for initial, same in groupby(words, key=lambda word: word[0]):
            yield initial, "\n".join(same)

    def chunks(self) -> Iterator[Chunk]:
        """The rows of the index."""
        return chunks(self._packed())

    def _packed(self) -> Iterator[tuple[str, bytes]]:
        occurrences = self.occurrences
        if not len(occurrences):
            return
        numbers = ((occurrences >> 8) & 0xFFFF).astype("<u2").tobytes()
        impacts = (occurrences & 0xFF).astype(np.uint8).tobytes()
        ends = np.append(np.flatnonzero(np.diff(occurrences >> 24)) + 1, len(occurrences)).tolist()
        documents = self.count
        begin = 0
        for term, end in zip(self.terms, ends, strict=True):
            some = impacts[begin:end] if term[0] not in WITHOUT_IMPACTS else None
            yield term, pack(numbers[2 * begin : 2 * end], some, documents)
            begin = end


class Builder:
    """A segment in the making. Documents come in any order; what is kept of one is some hundred bytes."""

    def __init__(self) -> None:
        self._places: defaultdict[str, int] = defaultdict(counter().__next__)
        self._terms = array("I")
        self._frequencies = array("I")
        self._sizes = array("I")  # distinct terms of each document
        self._lengths = array("I")
        self._created = array("q")
        self._ids: list[bytes] = []
        self._parts = array("q")
        self._conversations: list[bytes] = []

    @property
    def documents(self) -> int:
        return len(self._ids)

    @property
    def occurrences(self) -> int:
        return len(self._terms)

    def add(
        self,
        document: UUID,
        part: int,
        conversation: UUID,
        created: datetime,
        analysis: Analysis,
        filters: Collection[str] = (),
    ) -> None:
        """One more document. `filters` are terms that begin with "k"."""
        place = self._places.__getitem__
        self._terms.extend(map(place, analysis.terms))
        self._frequencies.extend(analysis.terms.values())
        if filters:
            self._terms.extend(map(place, filters))
            self._frequencies.extend([1] * len(filters))
        self._sizes.append(len(analysis.terms) + len(filters))
        self._lengths.append(analysis.length)
        self._created.append(microseconds(created))
        self._ids.append(document.bytes)
        self._parts.append(part)
        self._conversations.append(conversation.bytes)

    def build(self) -> Segment:
        """The segment of all that was added; of a document that was added twice, one."""
        parts = np.array(self._parts, np.int64)
        lengths = np.array(self._lengths, np.float64)
        sizes = np.array(self._sizes, np.int64)
        numbers = np.repeat(np.arange(len(self._ids)), sizes)
        frequencies = np.array(self._frequencies, np.float64)
        impacts = impacts_of(frequencies, lengths[numbers], (parts >= TITLE)[numbers]).astype(np.int64)
        conversation_ids, conversations = _distinct(b"".join(self._conversations))
        raw = Segment(
            np.array(self._created, np.int64),
            np.frombuffer(b"".join(self._ids), _ID),
            parts,
            conversations,
            conversation_ids,
            [term.replace("\n", " ") for term in self._places],
            np.array(self._terms, np.int64) << 24 | numbers << 8 | impacts,
        )
        return merge([raw])


def _distinct(whole: bytes) -> tuple[NDArray[Any], NDArray[np.uint32]]:
    """The distinct ones of many of 16 bytes each, and the place among them of each."""
    places: defaultdict[bytes, int] = defaultdict(counter().__next__)
    found = [places[whole[at : at + 16]] for at in range(0, len(whole), 16)]
    return np.frombuffer(b"".join(places), _ID), np.array(found, np.uint32)


def merge(segments: Sequence[Segment], keep: Sequence[NDArray[np.bool_]] | None = None) -> Segment:
    """One segment of all the documents of `segments`, or of those that `keep` says of each; never one twice."""
    offsets = np.cumsum([0, *(segment.count for segment in segments)])
    created = np.concatenate([segment.created for segment in segments])
    ids = np.concatenate([segment.ids for segment in segments])
    parts = np.concatenate([segment.parts for segment in segments])
    owners = np.concatenate([segment.conversation_ids[segment.conversations] for segment in segments])
    halves = np.frombuffer(ids.tobytes(), ">u8").reshape(-1, 2)
    order = np.lexsort((parts, halves[:, 1], halves[:, 0], created))
    same = np.zeros(len(order), np.bool_)
    if len(order) > 1:
        one, next_ = order[:-1], order[1:]
        same[1:] = (parts[one] == parts[next_]) & (halves[one] == halves[next_]).all(axis=1)
    kept = ~same
    if keep is not None:
        kept &= np.concatenate(list(keep))[order]
    order = order[kept]
    numbers = np.full(len(created), -1, np.int64)
    numbers[order] = np.arange(len(order))

    terms = sorted(set().union(*(segment.terms for segment in segments)))
    place = {term: n for n, term in enumerate(terms)}
    moved = []
    for segment, offset in zip(segments, offsets, strict=False):
        occurrences = segment.occurrences
        new_terms = np.fromiter((place[term] for term in segment.terms), np.int64, len(segment.terms))
        number = numbers[((occurrences >> 8) & 0xFFFF) + offset]
        here = new_terms[occurrences >> 24] << 24 | number << 8 | occurrences & 0xFF
        moved.append(here[number >= 0])
    occurrences = np.concatenate(moved)
    occurrences.sort()
    # Two terms of one segment may have become the same (a line feed in a name): one document has it once.
    if len(occurrences):
        occurrences = occurrences[np.append(True, np.diff(occurrences >> 8) > 0)]
    first = np.append(True, np.diff(occurrences >> 24) > 0)[: len(occurrences)]
    used = occurrences[first] >> 24
    if len(used) < len(terms):
        terms = [terms[n] for n in used.tolist()]
        occurrences = np.cumsum(first) - 1 << 24 | occurrences & 0xFFFFFF
    conversation_ids, conversations = _distinct(owners[order].tobytes())
    return Segment(
        created[order], ids[order], parts[order], conversations, conversation_ids, terms, occurrences
    )


class Columns(NamedTuple):
    """A segment's documents as they are stored."""

    created: bytes
    conversations: bytes
    conversation_ids: bytes
    ids: bytes
    parts: list[int]


def read(columns: Columns, rows: Iterable[bytes]) -> Segment:
    """A segment again, from its columns and the payloads of its chunks in ascending order."""
    created = np.frombuffer(columns.created, "<i8").astype(np.int64)
    documents = len(created)
    terms: list[str] = []
    sizes: list[int] = []
    numbers: list[bytes] = []
    impacts: list[bytes] = []
    for payload in rows:
        for term, begin, end in slices(payload):
            size = end - begin
            if size == documents:
                dense = np.frombuffer(payload, np.uint8, size, begin)
                places = np.flatnonzero(dense)
                n = len(places)
                numbers.append(places.astype("<u2").tobytes())
                impacts.append(dense[places].tobytes())
            elif term[0] in WITHOUT_IMPACTS:
                n = size // 2
                numbers.append(payload[begin:end])
                impacts.append(b"\x01" * n)
            else:
                n = size // 3
                numbers.append(payload[begin : begin + 2 * n])
                impacts.append(payload[begin + 2 * n : end])
            terms.append(term)
            sizes.append(n)
    occurrences = np.repeat(np.arange(len(terms), dtype=np.int64), sizes) << 24
    occurrences |= np.frombuffer(b"".join(numbers), "<u2").astype(np.int64) << 8
    occurrences |= np.frombuffer(b"".join(impacts), np.uint8)
    return Segment(
        created,
        np.frombuffer(columns.ids, _ID),
        np.array(columns.parts, np.int64),
        np.frombuffer(columns.conversations, "<u4").astype(np.uint32),
        np.frombuffer(columns.conversation_ids, _ID),
        terms,
        occurrences,
    )


def columns_of(segment: Segment) -> Columns:
    """The documents of `segment` as they are stored."""
    return Columns(
        segment.created.astype("<i8").tobytes(),
        segment.conversations.astype("<u4").tobytes(),
        segment.conversation_ids.tobytes(),
        segment.ids.tobytes(),
        segment.parts.tolist(),
    )


def to_merge(sizes: Sequence[tuple[int, int]]) -> list[int] | None:
    """Which of segments with so many documents and occurrences are to become one (their places), or None.

    Eight of about one size, so that a document is written again three or four times in all; and whatever makes a full
    segment, which nothing touches after that.
    """
    tiers: dict[int, list[int]] = {}
    for place, (documents, occurrences) in enumerate(sizes):
        if documents < FULL and occurrences < HEAVY:
            tiers.setdefault(_tier(documents), []).append(place)
    for _, places in sorted(tiers.items()):
        chosen: list[int] = []
        documents = occurrences = 0
        for place in sorted(places, key=lambda one: (sizes[one], one)):
            more, heavier = sizes[place]
            if documents + more > MOST_DOCUMENTS or occurrences + heavier > 2 * HEAVY:
                break
            chosen.append(place)
            documents += more
            occurrences += heavier
        if len(chosen) > 1 and (len(chosen) >= FAN_IN or documents >= FULL or occurrences >= HEAVY):
            return sorted(chosen)
    return None


def _tier(documents: int) -> int:
    tier, most = 0, SMALLEST
    while documents >= most:
        tier, most = tier + 1, most * FAN_IN
    return tier
