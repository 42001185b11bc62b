"""How people spell: no two of them, and no one person on two devices, write the same word alike."""

import random
import re
import unicodedata
from collections.abc import Callable
from functools import cache
from pathlib import Path

Spelling = Callable[[str], str]

_ENGLISH = {"he", "hen", "main", "say", "bad", "or", "par", "pay", "me"}  # words of the other language, too
_WORD = re.compile(r"[A-Za-z]+")
# What an Arabic keyboard has where an Urdu one has yeh, kaf and heh.
_ARABIC = str.maketrans({"\u06cc": "\u064a", "\u06a9": "\u0643", "\u06c1": "\u0647"})
_NUKTA = re.compile(
    "(?<=[\u0915\u0916\u0917\u091c\u092b])\u093c"
)  # the dot of q, kh, gh, z, f that many leave out


@cache
def _variants() -> dict[str, list[str]]:
    """Roman Urdu has no orthography: words and the other ways to write them."""
    text = (Path(__file__).parent / "worlds" / "roman_spelling.txt").read_text(encoding="utf-8")
    groups = [line.split() for line in text.splitlines() if line.strip()]
    return {word: group for group in groups for word in group}


def spelling(language: str, rng: random.Random) -> Spelling:
    """How the user writes in one sitting."""
    match language:
        case "roman" | "mixed":
            return lambda text: _WORD.sub(lambda found: _roman(found.group(), rng), text)
        case "urdu" if rng.random() < 0.2:
            return lambda text: text.translate(_ARABIC)
        case "hindi" if rng.random() < 0.4:
            return lambda text: _NUKTA.sub("", unicodedata.normalize("NFD", text))
        case "english" | "code" if rng.random() < 0.3:
            return lambda text: text if "```" in text else text.lower()
        case _:
            return lambda text: text


def _roman(word: str, rng: random.Random) -> str:
    group = _variants().get(word.lower())
    if group is None or word.lower() in _ENGLISH or rng.random() < 0.55:
        return word
    other = rng.choice(group)
    return other.capitalize() if word[0].isupper() else other
