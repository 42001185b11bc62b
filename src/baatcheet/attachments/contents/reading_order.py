"""Words of a page that is written from right to left, in the order in which they are read.

PDFium takes a page with any word of Arabic letters as written from right to left altogether, and turns its English
lines around. Where its words stand on the page tells how they are read.
"""

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from baatcheet.attachments.ocr.languages import letters

_RIGHT_TO_LEFT: Final = frozenset({"R", "AL"})
_VOWEL_BEFORE: Final = (
    "\u093f"  # the one sign of Devanagari that stands before the letter that it is spoken after
)
_JOINED: Final = "\u094d"  # what joins two consonants
_MIRRORED: Final = str.maketrans("()[]{}<>«»", ")(][}{><»«")  # which PDFium turns around too


@dataclass(frozen=True)
class Placed:
    """A character, and how far from the left its shape begins."""

    character: str
    left: float


def has_right_to_left(text: str) -> bool:
    return any(unicodedata.bidirectional(one) in _RIGHT_TO_LEFT for one in text)


def in_order(characters: Iterable[Placed]) -> str:
    """The text of `characters`, of which line breaks and blanks are some, each line in the order of reading."""
    lines: list[list[Placed]] = [[]]
    for one in characters:
        if one.character == "\n":
            lines.append([])
        elif one.character != "\r":
            lines[-1].append(one)
    text = "\n".join([_line(line) for line in lines])
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _line(line: Sequence[Placed]) -> str:
    words = _words(line)
    rightward = [_is_rightward(word) for word in words]
    leftward_letters = sum(len(word) for word, right in zip(words, rightward, strict=True) if not right)
    along = sum(len(word) for word in words) >= 2 * leftward_letters  # which way most of the line runs
    placed = sorted(
        zip(words, rightward, strict=True), key=lambda one: min(at.left for at in one[0]), reverse=not along
    )
    ordered: list[str] = []
    run: list[str] = []  # words that run against the line: read in the other order
    for word, right in placed:
        if right == along:
            ordered += reversed(run)
            run = []
            ordered.append(_spelt(word))
        else:
            run.append(_spelt(word))
    return " ".join([*ordered, *reversed(run)])


def _words(line: Sequence[Placed]) -> list[list[Placed]]:
    words: list[list[Placed]] = [[]]
    for one in line:
        if one.character.isspace():
            words.append([])
        else:
            words[-1].append(one)
    return [word for word in words if word]


def _is_rightward(word: Sequence[Placed]) -> bool:
    """Whether it is read from left to right: so are numbers, whatever is around them."""
    return not has_right_to_left("".join(one.character for one in word))


def _spelt(word: Sequence[Placed]) -> str:
    text = "".join(one.character for one in word)
    if word[0].left <= word[-1].left or not _is_rightward(word):
        return text
    if letters(text)["Devanagari"]:
        return _devanagari(word)
    return "".join(one.character for one in _by_place(word)).translate(_MIRRORED)


def _by_place(word: Sequence[Placed]) -> list[Placed]:
    """From left to right; a sign on a letter after it."""
    return sorted(word, key=lambda one: (one.left, unicodedata.category(one.character).startswith("M")))


def _devanagari(word: Sequence[Placed]) -> str:
    """A word that was turned around, by where its signs are."""
    signs = _by_place(word)
    spelt: list[str] = []
    waiting = ""
    for at, sign in enumerate(signs):
        if sign.character == _VOWEL_BEFORE:
            waiting += sign.character
            continue
        spelt.append(sign.character)
        joins = at + 1 < len(signs) and signs[at + 1].character == _JOINED
        if waiting and sign.character != _JOINED and not joins:
            spelt.append(waiting)
            waiting = ""
    return "".join(spelt) + waiting
