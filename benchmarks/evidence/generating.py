"""The conversations of a run: every language in several sizes, from one seed."""

import random
from collections.abc import Iterator

from benchmarks.evidence.composing import compose
from benchmarks.evidence.model import LANGUAGES, Conversation

_SIZES = (10_000, 30_000, 30_000, 100_000)
_QUICK = (10_000, 30_000)
_LARGEST = 300_000


def conversations(seed: int, *, quick: bool = False) -> Iterator[Conversation]:
    """The conversations of `seed`, the same every time; each by itself depends on nothing but its place."""
    for number, size in enumerate(_QUICK if quick else _SIZES):
        for language in LANGUAGES:
            yield compose(random.Random(f"{seed} {language} {number}"), language, size)
    if not quick:
        yield compose(random.Random(f"{seed} largest"), "english", _LARGEST)
