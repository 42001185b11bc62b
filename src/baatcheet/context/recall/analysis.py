"""What is put into the index of a message: its terms, and the passages it is cut into."""

import re
from collections import Counter
from functools import cache
from typing import NamedTuple

from baatcheet.context.recall import scripts, signs
from baatcheet.context.recall.tokens import TOKEN, Tokens
from baatcheet.context.recall.vocabulary import english_stem, vocabulary

SHORT = 700  # characters: a message of at most these is one passage
_LARGEST = 600
_SMALLEST = 250
_BLANK_LINE = re.compile(r"\n[ \t]*\n\s*")
_BREAKS = (  # the better first
    re.compile(r"\n"),
    re.compile(rf"[.!?{scripts.STOPS}][{scripts.CLOSING}]*(?:\s+|(?<=[{scripts.WIDE_STOPS}]))"),
    re.compile(rf"[{scripts.COMMAS}]\s*"),
    re.compile(r"\s+"),
)
_SPEAKER = re.compile(r"\s*\**([A-Z][\w.-]{1,24}(?: [A-Z][\w.-]{1,24})?)\**: ")
_SAMPLE = 60  # tokens that show whether a text is in Roman Urdu


class Passage(NamedTuple):
    """A piece of a text, by its place in it, and what the index keeps of it."""

    start: int
    end: int
    terms: dict[str, int]
    signals: int

    @property
    def length(self) -> int:
        """How many words count: concepts and skeletons are said of a word, they are none."""
        return sum([count for term, count in self.terms.items() if term[0] not in "~^@"])


@cache
def _tokens(roman: bool) -> Tokens:
    return Tokens(roman=roman)


def is_roman(text: str) -> bool:
    """Whether `text` is Urdu or Hindi in Latin letters."""
    return _looks_roman(TOKEN.findall(text[:2_000]))


def terms(text: str) -> list[str]:
    """The index terms of `text` in their order. `~` begins a concept, `^` a word's consonants."""
    text = scripts.folded(text)
    speaker = _SPEAKER.match(text)
    found: list[str] = TOKEN.findall(text, speaker.end() if speaker else 0)
    known = _tokens(_looks_roman(found))
    made = [term for token in found for term in known[token]]
    return ["@" + english_stem(one.lower()) for one in speaker[1].split()] + made if speaker else made


def terms_of(token: str, *, roman: bool) -> tuple[str, ...]:
    """The index terms of one token of a folded text."""
    return _tokens(roman)[token]


def _looks_roman(found: list[str]) -> bool:
    marks = vocabulary().roman_marks
    sample = found if len(found) <= _SAMPLE else found[:_SAMPLE]
    hits = [token for one in sample if (token := one.lower()) in marks]
    return len(hits) * 8 >= len(sample) and (len(set(hits)) >= 2 or len(sample) <= 4) and bool(hits)


def passages(text: str) -> list[Passage]:
    """`text` in pieces that can be found and recalled one by one. Together they are all of it."""
    if len(text) <= SHORT and not (len(text) > _SMALLEST and _densely_written(text)):
        return [_passage(text, 0, len(text))]
    made: list[Passage] = []
    at = 0
    while at < len(text):
        end = _end(text, at)
        made.append(_passage(text, at, end))
        at = end
    return made


def _passage(text: str, start: int, end: int) -> Passage:
    piece = text[start:end]
    counted = dict(Counter(terms(piece)))
    return Passage(start, end, counted, signs.of(piece, counted))


def _end(text: str, at: int) -> int:
    """Where the passage that begins at `at` ends: at the best break between the smallest and the largest size."""
    shrink = 3 if _densely_written(text[at : at + _LARGEST]) else 1
    smallest, largest = at + _SMALLEST // shrink, at + _LARGEST // shrink
    if len(text) <= largest + _SMALLEST // (2 * shrink):
        return len(text)
    window = text[smallest:largest]
    if blank_line := _BLANK_LINE.search(window):
        return smallest + blank_line.end()
    for pattern in _BREAKS:
        ends = [found.end() for found in pattern.finditer(window)]
        if ends:
            return smallest + ends[-1]
    return largest


def _densely_written(text: str) -> bool:
    """Whether most of a piece is in a script whose every letter is a word, or nearly."""
    return not text.isascii() and len(scripts.IS_UNSPACED.findall(text)) * 2 > len(text)
