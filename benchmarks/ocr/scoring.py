"""How much of a text was read right."""

# ruff: noqa: RUF001 - what is compared as one

import re
import unicodedata


def distance(one: str, other: str) -> int:
    """Characters to insert, delete or replace to make one of the other (Levenshtein).

    Myers' bit-parallel algorithm in Hyyrö's form: a whole column of the table is one integer.
    """
    if not one:
        return len(other)
    places: dict[str, int] = {}
    for at, character in enumerate(one):
        places[character] = places.get(character, 0) | 1 << at
    everything, last = (1 << len(one)) - 1, 1 << (len(one) - 1)
    rising, falling, score = everything, 0, len(one)
    for character in other:
        match = places.get(character, 0)
        diagonal = ((((match & rising) + rising) ^ rising) | match | falling) & everything
        up = falling | (everything & ~(diagonal | rising))
        down = rising & diagonal
        score += 1 if up & last else -1 if down & last else 0
        up = (up << 1 | 1) & everything
        down = down << 1 & everything
        rising = down | (everything & ~(diagonal | up))
        falling = up & diagonal
    return score


_SAME = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "—": "-", "–": "-", "ي": "ی", "ك": "ک"})
_BLANKS = re.compile(r"\s+")
_MARKS = re.compile("[\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]")


def plain(text: str) -> str:
    """`text` as it is compared: one kind of blank, of quote and of dash; composed; without direction marks."""
    composed = unicodedata.normalize("NFC", unicodedata.normalize("NFKC", text))
    return _BLANKS.sub(" ", _MARKS.sub("", composed).translate(_SAME)).strip()


def right(expected: str, found: str) -> float:
    """The share of characters that are right, from 0 to 1: one less the edit distance by the length of `expected`."""
    wanted = plain(expected)
    return max(0.0, 1.0 - distance(wanted, plain(found)) / max(1, len(wanted)))
