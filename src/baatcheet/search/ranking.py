"""Which documents a query finds, and in which order.

Relevance is BM25 (Robertson and Zaragoza, The Probabilistic Relevance Framework, 2009), in whole numbers: the tf part
of each posting was put on a scale of 255 when it was indexed, the idf part is put on one of thousandths here. Whole
numbers can be compared on the next page, which is ranked with the weights of the first: what is written meanwhile
moves nothing.

All is done on arrays of one value per document of a segment, at most 65,536 of them: a common word costs what a rare
one does.
"""

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Literal, NamedTuple

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from baatcheet.kit.pagination import microseconds
from baatcheet.search.postings import Posting
from baatcheet.search.query import Leaf, Query
from baatcheet.search.segments import impacts_of
from baatcheet.search.store import Fresh, SegmentView, View

Order = Literal["relevance", "newest", "oldest"]
Impacts = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Numbers = NDArray[np.int64]
Runs = NDArray[np.int64]  # pairs: the first of a message's pieces, and the last + 1

FRESH = -1  # stands for a segment: what no segment has yet
WEIGHT_SCALE = 1_000
_MOST_WEIGHT = 20_000  # times 255 times 32 words: a score fits 32 bits
_PAIR = "2"  # the first character of the terms that only filter
_PART = "kpart"  # the term of a message's pieces but for the first


class Wanted(Struct, frozen=True):
    """What is looked for: a query, terms of which each group must be there, moments in µs since 1970."""

    query: Query
    must: tuple[tuple[str, ...], ...] = ()
    since: int | None = None
    until: int | None = None  # exclusive
    order: Order = "relevance"

    def terms(self) -> set[str]:
        """Every term whose postings are needed."""
        leaves = [leaf for clause in self.query.clauses for leaf in clause.leaves]
        groups = [group for leaf in (*leaves, *self.query.excluded) for group in leaf.groups]
        return {_PART, *(term for group in (*groups, *self.must) for term in group)}

    def prefixes(self) -> set[str]:
        """Every prefix that is to be expanded."""
        return {
            leaf.prefix for clause in self.query.clauses for leaf in clause.leaves if leaf.prefix is not None
        }


class Position(NamedTuple):
    """Where a hit stands in its order: the later by `first`, then `second`, then the id, the earlier it is shown."""

    first: int
    second: int


class Place(NamedTuple):
    """A document that was found: its segment and number there."""

    position: Position
    segment: int
    number: int
    score: int


class Ranking(NamedTuple):
    """Some of what was found, best first; those that share the last one's position are all there."""

    places: list[Place]
    weights: tuple[int, ...]
    more: bool  # whether others follow


class Group(NamedTuple):
    """A conversation with hits: its best one, and how many there are."""

    best: Place
    conversation: bytes
    hits: int


def rank(view: View, wanted: Wanted, after: Position | None, most: int, weights: tuple[int, ...]) -> Ranking:
    """The best `most` at or after `after`. `weights`: those of the first page; none: they are made here."""
    found = _Found(view, wanted, weights)
    first, second = found.keys(wanted.order)
    chosen = _at_or_after(first, second, after)
    best, more = _best(first, second, chosen, most)
    return Ranking([found.place(at, first, second) for at in best], found.weights, more)


def rank_conversations(
    view: View, wanted: Wanted, after: Position | None, most: int, weights: tuple[int, ...]
) -> tuple[list[Group], tuple[int, ...], bool]:
    """As `rank`, one hit of each conversation: the best. Also the weights, and whether others follow."""
    found = _Found(view, wanted, weights)
    if not len(found.scores):
        return [], found.weights, False
    first, second = found.keys(wanted.order)
    conversations, names = found.conversations()
    ascending = np.lexsort((second, first))
    best = np.empty(len(names), np.int64)
    best[conversations[ascending]] = ascending  # of those of one conversation the last one stays: its best
    hits = np.bincount(conversations)
    chosen = _at_or_after(first[best], second[best], after)
    ranked, more = _best(first[best], second[best], chosen, most)
    groups = [Group(found.place(best[at], first, second), names[at], int(hits[at])) for at in ranked]
    return groups, found.weights, more


def unknown(view: View, wanted: Wanted) -> list[Leaf]:
    """The single words of the query that no document has."""
    segments = _segments(view, wanted)
    return [
        leaf
        for clause in wanted.query.clauses
        for leaf in clause.leaves
        if not leaf.phrase
        and len(leaf.groups) == 1
        and not any(
            _impacts(one, *pair) is not None for one in segments for pair in _with_prefix(leaf, leaf.groups)
        )
    ]


def word_of(leaf: Leaf) -> str:
    """The folded word that a single word's leaf is about."""
    return leaf.groups[0][0][1:]


class _Found:
    """What was found, one entry a document, segment after segment."""

    def __init__(self, view: View, wanted: Wanted, weights: tuple[int, ...]) -> None:
        segments = _segments(view, wanted)
        leaves = [leaf for clause in wanted.query.clauses for leaf in clause.leaves]
        groups = [pair for leaf in leaves for pair in _with_prefix(leaf, leaf.groups)]
        impacts = [[_impacts(one, group, prefix) for group, prefix in groups] for one in segments]
        self.weights = weights or _weights(groups, impacts, sum(one.count for one in segments))
        kept = []
        for segment, values in zip(segments, impacts, strict=True):
            numbers, scores = _matches(view, wanted, segment, values, self.weights)
            if len(numbers):
                kept.append((segment, numbers, scores))
        self._segments = [segment for segment, _, _ in kept]
        sizes = [len(numbers) for _, numbers, _ in kept]
        self._of = np.repeat(np.arange(len(kept)), sizes)
        self._numbers = _joined([numbers for _, numbers, _ in kept])
        self.scores = _joined([scores for _, _, scores in kept])
        self._created = _joined([segment.created[numbers] for segment, numbers, _ in kept])

    def keys(self, order: Order) -> tuple[Numbers, Numbers]:
        """By what the documents are sorted, the greatest first."""
        if order == "relevance":
            return self.scores, self._created
        return (self._created if order == "newest" else -self._created), np.zeros_like(self._created)

    def conversations(self) -> tuple[Numbers, list[bytes]]:
        """Each document's conversation, as its place in a list of their ids."""
        known: dict[bytes, int] = {}
        parts: list[Numbers] = []
        start = 0
        for segment in self._segments:
            end = start + int(np.count_nonzero(self._of == len(parts)))
            local = segment.conversations[self._numbers[start:end]]
            has = np.zeros(len(segment.conversation_ids), np.bool_)
            has[local] = True
            used = np.flatnonzero(has).tolist()
            numbers = np.zeros(len(has), np.int64)
            numbers[used] = [known.setdefault(segment.conversation_ids[one], len(known)) for one in used]
            parts.append(numbers[local])
            start = end
        return _joined(parts), list(known)

    def place(self, at: int, first: Numbers, second: Numbers) -> Place:
        return Place(
            Position(int(first[at]), int(second[at])),
            self._segments[int(self._of[at])].id,
            int(self._numbers[at]),
            int(self.scores[at]),
        )


def _segments(view: View, wanted: Wanted) -> list[SegmentView]:
    if not view.fresh:
        return view.segments
    return [*view.segments, _segment_of(view.fresh, wanted)]


def _segment_of(fresh: Sequence[Fresh], wanted: Wanted) -> SegmentView:
    """Documents that are in no segment yet, as if they were in one."""
    conversations = {one: at for at, one in enumerate({one.conversation_id.bytes: None for one in fresh})}
    postings = {}
    prefixes = {prefix: _expansion(fresh, prefix) for prefix in wanted.prefixes()}
    lengths = np.array([one.analysis.length for one in fresh], np.float64)
    titles = np.array([one.kind == "title" for one in fresh], np.bool_)
    for term in {*wanted.terms(), *(term for terms in prefixes.values() for term in terms)}:
        times = np.array([_times(one, term) for one in fresh], np.float64)
        if times.any():
            yes_or_no = term.startswith("k")
            postings[term] = Posting(
                None, times.astype(np.uint8) if yes_or_no else impacts_of(times, lengths, titles)
            )
    return SegmentView(
        id=FRESH,
        count=len(fresh),
        created=np.fromiter((microseconds(one.created) for one in fresh), np.int64, len(fresh)),
        conversations=np.fromiter((conversations[one.conversation_id.bytes] for one in fresh), np.uint32),
        conversation_ids=list(conversations),
        places=conversations,
        postings=postings,
        prefixes=prefixes,
    )


def _times(one: Fresh, term: str) -> int:
    if term.startswith("k"):
        filters = {f"k{one.kind}", f"krole:{one.role}", *([f"kmodel:{one.model}"] if one.model else ())}
        return int(one.kind == "message" and one.part > 0 if term == _PART else term in filters)
    return one.analysis.terms.get(term, 0)


def _expansion(fresh: Iterable[Fresh], prefix: str) -> list[str]:
    return sorted({"w" + word for one in fresh for word in one.analysis.words if word.startswith(prefix)})


def _runs(segment: SegmentView) -> Runs:
    """First and last + 1 of the pieces of each message of several."""
    posting = segment.postings.get(_PART)
    if posting is None:
        return _NO_RUNS
    if posting.numbers is not None:
        later = posting.numbers.astype(np.int64)
    else:
        assert posting.impacts is not None
        later = np.flatnonzero(posting.impacts)
    begins = np.flatnonzero(np.diff(later, prepend=-2) != 1)
    ends = np.append(begins[1:], len(later)) - 1
    return np.stack((later[begins] - 1, later[ends] + 1), axis=1)


def _with_prefix(leaf: Leaf, groups: Sequence[tuple[str, ...]]) -> list[tuple[tuple[str, ...], str | None]]:
    """The groups of a leaf; with the last of them goes its prefix."""
    return [(group, leaf.prefix if at == len(groups) - 1 else None) for at, group in enumerate(groups)]


def _impacts(segment: SegmentView, group: tuple[str, ...], prefix: str | None) -> Impacts | None:
    """The impact in every document of the term of `group` that has most; None when none of them is anywhere."""
    terms = (*group, *segment.prefixes.get(prefix, ())) if prefix is not None else group
    values: Impacts | None = None
    for posting in [segment.postings[term] for term in terms if term in segment.postings]:
        if values is None:
            if posting.numbers is None and posting.impacts is not None and len(terms) == 1:
                values = posting.impacts
                continue
            values = np.zeros(segment.count, np.uint8)
        if posting.numbers is None:
            assert posting.impacts is not None
            np.maximum(values, posting.impacts, out=values)
        elif posting.impacts is None:
            values[posting.numbers] = np.maximum(values[posting.numbers], 1)
        else:
            values[posting.numbers] = np.maximum(values[posting.numbers], posting.impacts)
    return values


def _where(leaf: Leaf, values: Sequence[Impacts | None], runs: Runs) -> Mask | None:
    """The documents that have `leaf`; None when none has. A phrase stands in one piece, a name may be in several."""
    if leaf.phrase or len(values) == 1:
        return _all_of(values)
    return _all_of([one if one is None else _spread(one, runs) for one in values])


def _spread(values: Impacts, runs: Runs) -> Impacts:
    """What one piece of a message has, its others have as well, if only just."""
    everywhere = _anywhere(values > 0, runs)
    return np.maximum(values, everywhere.astype(np.uint8))


def _anywhere(mask: Mask, runs: Runs) -> Mask:
    """The documents of which a piece of the same message is in `mask`."""
    if not len(runs):
        return mask
    spread = mask
    held = np.logical_or.reduceat(mask, runs[:, 0])  # up to the next run, so some too many
    for start, end in runs[held].tolist():
        if mask[start:end].any():
            if spread is mask:
                spread = mask.copy()
            spread[start:end] = True
    return spread


def _weights(
    groups: Sequence[tuple[tuple[str, ...], str | None]],
    impacts: Sequence[Sequence[Impacts | None]],
    documents: int,
) -> tuple[int, ...]:
    weights = []
    for at, (group, _) in enumerate(groups):
        if group[0].startswith(_PAIR):
            weights.append(0)
            continue
        found = sum(int(np.count_nonzero(one)) for values in impacts if (one := values[at]) is not None)
        idf = np.log1p((documents - found + 0.5) / (found + 0.5))
        weights.append(max(1, min(_MOST_WEIGHT, round(idf * WEIGHT_SCALE))))
    return tuple(weights)


_NO_RUNS: Runs = np.zeros((0, 2), np.int64)
_NOTHING: tuple[Numbers, Numbers] = (np.zeros(0, np.int64), np.zeros(0, np.int64))


def _matches(
    view: View,
    wanted: Wanted,
    segment: SegmentView,
    impacts: Sequence[Impacts | None],
    weights: Sequence[int],
) -> tuple[Numbers, Numbers]:
    """The numbers of a segment's documents that are found, and their scores."""
    mask = _allowed(view, wanted, segment)
    if mask is None:
        return _NOTHING
    runs = _runs(segment)
    weighed = iter(zip(impacts, weights, strict=True))
    scored: list[tuple[Impacts, int, Mask]] = []
    phrases: list[Mask] = []
    for clause in wanted.query.clauses:
        either: Mask | None = None
        for leaf in clause.leaves:
            pairs = list(islice(weighed, len(leaf.groups)))
            here = _where(leaf, [values for values, _ in pairs], runs)
            if here is None:
                continue
            everywhere = _anywhere(here, runs)
            either = everywhere if either is None else either | everywhere
            if leaf.phrase:
                phrases.append(here)
            scored += [(values, factor, here) for values, factor in pairs if factor and values is not None]
        if either is None:
            return _NOTHING
        mask &= either
    mask &= ~_excluded(wanted.query, segment, runs)
    numbers = np.flatnonzero(mask)
    # Most queries leave few of the documents that have one of their words: only those are scored.
    scores = np.zeros(len(numbers), np.int64)
    for values, factor, here in scored:
        scores += np.multiply(values[numbers], factor, dtype=np.int32) * here[numbers]
    if len(runs) and len(numbers):
        own = sum((here[numbers].astype(np.int64) for here in phrases), np.zeros(len(numbers), np.int64))
        kept = _one_of_each(numbers, (own << 32) + scores, runs)
        return numbers[kept], scores[kept]
    return numbers, scores


def _excluded(query: Query, segment: SegmentView, runs: Runs) -> Mask:
    """The documents that have what must not be there. Whether a phrase is, only the text can tell."""
    mask = np.zeros(segment.count, np.bool_)
    for leaf in query.excluded:
        if not leaf.phrase:
            values = [_impacts(segment, *pair) for pair in _with_prefix(leaf, leaf.groups)]
            there = _where(leaf, values, runs)
            if there is not None:
                mask |= _anywhere(there, runs)
    return mask


def _allowed(view: View, wanted: Wanted, segment: SegmentView) -> Mask | None:
    """The documents that filters leave; None when there are none."""
    start = 0 if wanted.since is None else int(np.searchsorted(segment.created, wanted.since))
    end = segment.count if wanted.until is None else int(np.searchsorted(segment.created, wanted.until))
    if start >= end:
        return None
    mask = np.zeros(segment.count, np.bool_)
    mask[start:end] = True
    if view.removed or view.scope is not None:
        allowed = np.ones(len(segment.places), np.bool_)
        if view.scope is not None:
            allowed = _are_among(segment, view.scope)
        if view.removed:
            allowed &= ~_are_among(segment, view.removed)
        if not allowed.all():
            mask &= allowed[segment.conversations]
    for group in wanted.must:
        values = _impacts(segment, group, None)
        if values is None:
            return None
        mask &= values > 0
    return mask if mask.any() else None


def _are_among(segment: SegmentView, conversations: frozenset[bytes]) -> Mask:
    """Of each of the segment's conversations, whether it is one of these."""
    if len(conversations) * 4 > len(segment.places):
        those = map(conversations.__contains__, segment.conversation_ids)
        return np.fromiter(those, np.bool_, len(segment.places))
    mask = np.zeros(len(segment.places), np.bool_)
    mask[[place for one in conversations if (place := segment.places.get(one)) is not None]] = True
    return mask


def _all_of(values: Iterable[Impacts | None]) -> Mask | None:
    """The documents that have each; None when there are none."""
    mask: Mask | None = None
    for value in values:
        if value is None:
            return None
        mask = value > 0 if mask is None else mask & (value > 0)
    return mask


def _one_of_each(numbers: Numbers, scores: Numbers, runs: Runs) -> Mask:
    """Which of the documents are kept: of the pieces of one message, the one that has most of what is looked for."""
    starts = np.searchsorted(numbers, runs[:, 0])
    ends = np.searchsorted(numbers, runs[:, 1])
    kept = np.ones(len(numbers), np.bool_)
    several = ends > starts + 1
    for start, end in zip(starts[several].tolist(), ends[several].tolist(), strict=True):
        kept[start:end] = False
        kept[start + int(np.argmax(scores[start:end]))] = True
    return kept


def _at_or_after(first: Numbers, second: Numbers, after: Position | None) -> Numbers:
    if after is None:
        return np.arange(len(first))
    return np.flatnonzero((first < after.first) | ((first == after.first) & (second <= after.second)))


def _best(first: Numbers, second: Numbers, chosen: Numbers, most: int) -> tuple[list[int], bool]:
    """The greatest `most` of `chosen`, in order, with all that equal the last; and whether others follow."""
    if len(chosen) > most:
        bound = np.partition(first[chosen], len(chosen) - most)[len(chosen) - most]
        above, level = chosen[first[chosen] > bound], chosen[first[chosen] == bound]
        missing = most - len(above)
        if len(level) > missing:
            bound = np.partition(second[level], len(level) - missing)[len(level) - missing]
            level = level[second[level] >= bound]
        best = np.concatenate((above, level))
    else:
        best = chosen
    ordered = best[np.lexsort((-second[best], -first[best]))]
    return ordered.tolist(), len(best) < len(chosen)


def _joined(parts: Sequence[NDArray[np.int64]]) -> Numbers:
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)
