"""What a mistyped word may have been meant to be."""

from collections.abc import Collection, Iterable

from rapidfuzz.distance import OSA
from rapidfuzz.process import extract

MOST = 5  # words that are looked for in a mistyped one's place
_SHORTEST = 4  # letters: what is shorter resembles too much
_LONG = 8  # letters, from which on two slips are allowed


def initials(word: str) -> set[str]:
    """The first letters of what `word` may have been meant to be: its own, or the second if the two changed places."""
    return set(word[:2]) if len(word) >= _SHORTEST else set()


def meant(word: str, words: Collection[str]) -> list[str]:
    """Those of `words` that are nearest to `word`, `MOST` at most, by letters added, lost, exchanged or swapped.

    One such slip is allowed, two in a word of eight letters or more (optimal string alignment distance).
    """
    if len(word) < _SHORTEST:
        return []
    allowed = 2 if len(word) >= _LONG else 1
    similar = [one for one in words if abs(len(one) - len(word)) <= allowed]
    found: Iterable[tuple[str, int, int]] = extract(
        word, similar, scorer=OSA.distance, score_cutoff=allowed, limit=None
    )
    near = sorted((distance, one) for one, distance, _ in found if one != word)
    return [one for distance, one in near if distance == near[0][0]][:MOST]
