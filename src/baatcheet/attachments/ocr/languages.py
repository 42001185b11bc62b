"""The languages that pictures are read in, and telling them by their letters."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

Script = Literal["Latin", "Arabic", "Devanagari"]


@dataclass(frozen=True)
class Language:
    """`code` is ISO 639-1, `tesseract` the name of its data."""

    code: str
    name: str
    script: Script
    tesseract: str


LANGUAGES: Mapping[str, Language] = {
    one.code: one
    for one in (
        Language("en", "English", "Latin", "eng"),
        Language("ur", "Urdu", "Arabic", "urd"),
        Language("ar", "Arabic", "Arabic", "ara"),
        Language("hi", "Hindi", "Devanagari", "hin"),
    )
}
SCRIPT_OF: Mapping[str, Script] = {one.code: one.script for one in LANGUAGES.values()}

_LETTERS: Mapping[Script, re.Pattern[str]] = {
    "Latin": re.compile("[A-Za-z\u00c0-\u024f\u1e00-\u1eff]"),
    "Arabic": re.compile("[\u0620-\u06ff\u0750-\u077f\u08a0-\u08ff\ufb50-\ufdff\ufe70-\ufefc]"),
    "Devanagari": re.compile("[\u0900-\u0963\u0970-\u097f\ua8e0-\ua8ff]"),
}
_LETTER = re.compile(r"[^\W\d_]")

# Letters that only one of the two is written with: Urdu's retroflexes, nasal noon, heh, final yeh and full stop;
# Arabic's kaf, yeh and feminine ending, and its alef with a hamza below.
_URDU = re.compile("[\u0679\u0688\u0691\u06ba\u06be\u06c1\u06d2\u06d4]")
_ARABIC = re.compile("[\u0643\u064a\u0629\u0649\u0625]")

# Commonest words, which no other language of these letters has as often.
_ENGLISH_WORDS = """
the of and to in is that it for was on are as with his they at be this from have or by not but what all were we when
your can there an which their if will up about out them then she so these would like him into has more her two could
no than been who its now made may you i he my our
"""
_ENGLISH = frozenset(_ENGLISH_WORDS.split())
SURE = 0.5  # share of a text's letters, above which a script is the text's own
_ENGLISH_SHARE = 0.12  # of words: running English text has 0.3 to 0.5
_SOME = 200_000  # characters of a text that are looked at


def letters(text: str) -> dict[Script, int]:
    """How many letters of each script there are."""
    return {script: len(pattern.findall(text)) for script, pattern in _LETTERS.items()}


def script_of(text: str) -> Script | None:
    """The script of most of the letters; None when no script that is known here has most of them."""
    text = text[:_SOME]
    counts = letters(text)
    script = max(counts, key=lambda one: counts[one])
    total = len(_LETTER.findall(text))
    return script if counts[script] and counts[script] >= SURE * total else None


def language_of(text: str, among: Iterable[str] = LANGUAGES) -> str | None:
    """The language of most of `text`, as its letters and commonest words tell; None when they don't."""
    allowed = frozenset(among)
    script = script_of(text)
    found: str | None = None
    if script == "Devanagari":
        found = "hi"
    elif script == "Arabic":
        found = _of_arabic_letters(text[:_SOME])
    elif script == "Latin" and is_english(text):
        found = "en"
    return found if found in allowed else None


def _of_arabic_letters(text: str) -> str | None:
    urdu, arabic = len(_URDU.findall(text)), len(_ARABIC.findall(text))
    if urdu == arabic:  # Persian has neither, and a word or two may
        return None
    return "ur" if urdu > arabic else "ar"


def is_english(text: str) -> bool:
    """Whether enough of its words are English ones; a few words alone may be any language's."""
    words = re.findall(r"[a-z\u00c0-\u024f]+", text[:_SOME].lower())
    common = sum(word in _ENGLISH for word in words)
    return bool(words) and common >= _ENGLISH_SHARE * len(words)
