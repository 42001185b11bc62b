"""The piece of a text that shows best why it was found."""

# ruff: noqa: RUF001 - letters that look like others are what this is about.

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Collection, Iterable
from contextlib import suppress
from itertools import accumulate
from typing import NamedTuple

import msgspec

from baatcheet.context.recall import scripts
from baatcheet.search import terms
from baatcheet.search.query import Leaf, Query
from baatcheet.search.terms import TOKEN, Token, known

CUT = "…"
_SLACK = 24  # characters from where a cut would be to a blank
_PART = re.compile(  # of an identifier, a path or a run of letters of several scripts
    rf"[{scripts.UNSPACED}]+|[^-'’./:@,_+#{scripts.UNSPACED}]+(?:['’][^-'’./:@,_+#{scripts.UNSPACED}]+)*"
)


class Snippet(msgspec.Struct, frozen=True):
    """`highlights`: where the sought words begin and end, in characters of `text`; in their order, disjoint."""

    text: str
    highlights: tuple[tuple[int, int], ...] = ()


class _Place(NamedTuple):
    start: int
    end: int
    leaf: int


class _Marked:
    """The runs of characters that were looked at, and what is sought in some of them: texts have most in common."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self.spans: dict[str, list[tuple[int, int, int]]] = {}


class Snippets:
    """Makes the snippets of what one query has found.

    `words`: other folded words that were looked for, in the place of mistyped and of unfinished ones.
    """

    def __init__(self, query: Query, *, words: Collection[str] = (), characters: int = 240) -> None:
        leaves = [leaf for clause in query.clauses for leaf in clause.leaves]
        self._characters = characters
        self._sought = _sought(leaves, words)
        self._prefixes = {
            "w" + leaf.prefix: number
            for number, leaf in reversed([*enumerate(leaves)])
            if leaf.prefix and not leaf.phrase
        }
        self._phrases = [(leaf, number) for number, leaf in enumerate(leaves) if leaf.phrase]
        self._may_be_roman = any(term[0] == "r" for term in self._sought)
        self._nothing_in = (self._sought.keys() | {"p" + prefix[1:3] for prefix in self._prefixes}).isdisjoint
        self._marked = {True: _Marked(), False: _Marked()}  # in a text of Roman Urdu, and in another

    def of(self, text: str) -> Snippet:
        """A piece of `text`, where most of what the query looks for is near each other.

        Cut at words, with "…" at a cut end.
        """
        places = self._places(text)
        start, end = _window(text, places, self._characters)
        before, after = CUT if start > 0 else "", CUT if end < len(text) else ""
        shift = len(before) - start
        shown = [(max(one.start, start) + shift, min(one.end, end) + shift)
                 for one in places if one.start < end and start < one.end]  # fmt: skip
        return Snippet(before + text[start:end] + after, tuple(_joined(shown)))

    def _places(self, text: str) -> list[_Place]:
        """Where in `text` the words of the leaves are, in their order; each with the number of its leaf."""
        found = text.split()
        roman = self._may_be_roman and terms.looks_roman(terms.tokens_of(found[: terms.SAMPLE]))
        marked = self._marked[roman]
        runs = set(found) if self._sought else set()
        for characters in runs - marked.seen:
            token = known(characters)
            if self._nothing_in(token.terms) and not (roman and not self._nothing_in(token.roman)):
                continue
            if spans := self._spans(characters, token, roman=roman):
                marked.spans[characters] = spans
        marked.seen |= runs
        places: list[_Place] = []
        for characters in runs & marked.spans.keys():
            spans = marked.spans[characters]
            starts = list(_occurrences(text, characters))
            places += [_Place(at + start, at + end, leaf) for at in starts for start, end, leaf in spans]
        if self._phrases:
            places += _phrases(text, found, self._phrases)
        return sorted(places)

    def _spans(self, characters: str, token: Token, *, roman: bool) -> list[tuple[int, int, int]]:
        """What is sought in a run of characters: parts of a token, or, for what no part of it is, all of it.

        With the leaf of each.
        """
        if not self._sought_in(token, roman=roman):
            return []
        made: list[tuple[int, int, int]] = []
        for found in TOKEN.finditer(characters):
            of_token = token if found[0] == characters else known(found[0])
            rest = self._sought_in(of_token, roman=roman)
            if not rest:
                continue
            for at, part in _parts(found[0], letters=True):
                of_part = self._sought_in(known(part), roman=roman)
                if of_part and not (
                    len(part) == 2 and scripts.IS_UNSPACED.match(part) and "w" + part not in of_part
                ):
                    start = found.start() + at
                    made.append((start, start + len(part), min(of_part.values())))
                    rest = {term: leaf for term, leaf in rest.items() if term not in of_part}
            if rest:
                made.append((*found.span(), min(rest.values())))
        return made

    def _sought_in(self, token: Token, *, roman: bool) -> dict[str, int]:
        """The terms of a token that are sought, and the beginnings of words, with the leaf of each."""
        there = token.terms + token.roman if roman else token.terms
        found = {term: self._sought[term] for term in there if term in self._sought}
        if not self._prefixes:
            return found
        return found | {
            one: leaf
            for one, leaf in self._prefixes.items()
            if any(term.startswith(one) for term in token.terms)
        }


def _sought(leaves: list[Leaf], words: Collection[str]) -> dict[str, int]:
    """The terms that are to be highlighted, and the leaf that each is of: with `words`, of one more where of none."""
    sought: dict[str, int] = {}
    for number, leaf in enumerate(leaves):
        if not leaf.phrase:
            for group in leaf.groups:
                for term in group:
                    sought.setdefault(term, number)
    for word in words:
        begun = [at for at, leaf in enumerate(leaves) if leaf.prefix and word.startswith(leaf.prefix)]
        sought.setdefault("w" + word, begun[0] if begun else len(leaves))
    return sought


def _parts(token: str, *, letters: bool = False) -> Iterable[tuple[int, str]]:
    """The parts of a token and where they begin; of a script without blanks each two letters, or each one as well."""
    for found in _PART.finditer(token):
        start, part = found.span()[0], found[0]
        if not scripts.IS_UNSPACED.match(part):
            yield start, part
            continue
        yield from ((start + at, part[at : at + 2]) for at in range(max(1, len(part) - 1)))
        if letters:
            yield from ((start + at, letter) for at, letter in enumerate(part))


def _occurrences(text: str, characters: str) -> Iterable[int]:
    """Where `characters` stand in `text` between blanks."""
    at = text.find(characters)
    while at >= 0:
        end = at + len(characters)
        if (at == 0 or text[at - 1].isspace()) and (end == len(text) or text[end].isspace()):
            yield at
        at = text.find(characters, end)


def _phrases(text: str, found: list[str], phrases: list[tuple[Leaf, int]]) -> Iterable[_Place]:
    """Where the words of a phrase follow each other: from its first to its last word as one."""
    words = [word for characters in found for word in known(characters).words]
    matches = [
        (at, at + len(leaf.phrase) - 1, number) for leaf, number in phrases for at in _beginnings(leaf, words)
    ]
    if not matches:
        return
    starts: list[int] = []
    at = 0
    for characters in found:
        at = text.index(characters, at)
        starts.append(at)
        at += len(characters)
    firsts = [
        0,
        *accumulate(len(known(characters).words) for characters in found),
    ]  # a run's first word, by its number
    spans: dict[str, list[tuple[int, int]]] = {}
    for first, last, number in matches:
        one, other = (bisect_right(firsts, word) - 1 for word in (first, last))
        for run in (found[one], found[other]):
            if run not in spans:
                spans[run] = _word_spans(run)
        yield _Place(
            starts[one] + spans[found[one]][first - firsts[one]][0],
            starts[other] + spans[found[other]][last - firsts[other]][1],
            number,
        )


def _beginnings(leaf: Leaf, words: list[str]) -> Iterable[int]:
    """The numbers of the words with which the phrase of `leaf` begins."""
    first, *middle, last = leaf.phrase
    at = -1
    with suppress(ValueError):  # no more of the first word
        while True:
            at = words.index(first, at + 1, len(words) - 1 - len(middle))
            end = at + 1 + len(middle)
            if words[at + 1 : end] == middle and (
                words[end] == last or (leaf.is_open and words[end].startswith(last))
            ):
                yield at


def _word_spans(characters: str) -> list[tuple[int, int]]:
    """Where each word of a run of characters is in it; all of its token, where that cannot be told."""
    spans: list[tuple[int, int]] = []
    for found in TOKEN.finditer(characters):
        words = known(found[0]).words
        parts = [(at, part) for at, part in _parts(found[0]) if known(part).words]
        if len(parts) == len(words):
            spans += [(found.start() + at, found.start() + at + len(part)) for at, part in parts]
        else:
            spans += [found.span()] * len(words)
    return spans


def _window(text: str, places: list[_Place], characters: int) -> tuple[int, int]:
    """The best piece of `text` to show."""
    if len(text) <= characters:
        return 0, len(text)
    room = max(1, characters - 2 * len(CUT))
    first, last = _best(places, room)
    start = max(0, min(first - (room - (last - first)) // 3, len(text) - room))
    return _cut(text, start, min(len(text), start + room), first, last)


def _best(places: list[_Place], room: int) -> tuple[int, int]:
    """From where to where most of the leaves are, and of such windows the one with most places; the earliest."""
    best, chosen = (0, 0), (0, 0)
    counts: dict[int, int] = {}
    left = 0
    for right, place in enumerate(places):
        counts[place.leaf] = counts.get(place.leaf, 0) + 1
        while left < right and place.end - places[left].start > room:
            leaf = places[left].leaf
            counts[leaf] -= 1
            if not counts[leaf]:
                del counts[leaf]
            left += 1
        worth = (len(counts), right - left)
        if worth > best:
            best, chosen = worth, (places[left].start, min(place.end, places[left].start + room))
    return chosen


def _cut(text: str, start: int, end: int, first: int, last: int) -> tuple[int, int]:
    """A piece that begins and ends with a word, or at least with a character that can stand alone."""
    if start > 0 and not text[start - 1].isspace():
        blank = next((at for at in range(start, min(start + _SLACK, first)) if text[at].isspace()), None)
        start = start if blank is None else blank
    while start < first and (text[start].isspace() or unicodedata.combining(text[start])):
        start += 1
    if end < len(text) and not text[end].isspace():
        blank = next(
            (at for at in range(end - 1, max(end - _SLACK, last - 1), -1) if text[at].isspace()), None
        )
        end = end if blank is None else blank
    while end > last and (text[end - 1].isspace() or (end < len(text) and unicodedata.combining(text[end]))):
        end -= 1
    return start, end


def _joined(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans in their order, those together that overlap or touch."""
    made: list[tuple[int, int]] = []
    for start, end in spans:
        if made and start <= made[-1][1]:
            made[-1] = (made[-1][0], max(end, made[-1][1]))
        else:
            made.append((start, end))
    return made
