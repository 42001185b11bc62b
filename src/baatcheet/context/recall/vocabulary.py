"""The words that recall knows: common ones, forms of one word, and words alike in meaning."""

import re
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import Stemmer

from baatcheet.context.recall import scripts

_FOLDER = Path(__file__).parent / "words"
_english = Stemmer.Stemmer("english", 0)


@dataclass(frozen=True, slots=True)
class Meanings:
    """Which concepts a word belongs to, by its stem; Roman Urdu by its spelling."""

    shown: dict[str, tuple[str, ...]] = field(
        default_factory=dict
    )  # what a text with the word gives to the index
    sought: dict[str, tuple[str, ...]] = field(
        default_factory=dict
    )  # what a question with the word looks for


@dataclass(frozen=True, slots=True)
class Vocabulary:
    english: frozenset[str]
    roman: frozenset[str]
    roman_marks: frozenset[str]
    other: frozenset[str]  # Urdu and Hindi, folded
    asking: frozenset[str]  # stems
    forms: dict[str, str]
    months: dict[str, int]
    plain: Meanings
    in_roman: Meanings
    near: dict[str, tuple[str, ...]]
    phrases: tuple[tuple[re.Pattern[str], tuple[str, ...]], ...]


@cache
def vocabulary() -> Vocabulary:
    """Read once from the files beside this one."""
    common, alike, kinds = (_read(name) for name in ("common", "alike", "kinds"))
    forms = {form: word for word, all_forms in common["forms"].items() for form in all_forms.split()}
    marks = frozenset(common["roman_marks"].split())
    plain, in_roman = Meanings(), Meanings()
    stem = _stemmer(forms)
    for concept, words in alike.items():
        _enter(plain, in_roman, stem, concept, words, shown=True, sought=True)
    near = kinds.pop("near")
    for concept, (heads, members) in kinds.items():
        _enter(plain, in_roman, stem, concept, heads, shown=False, sought=True)
        _enter(plain, in_roman, stem, concept, members, shown=True, sought=False)
    return Vocabulary(
        english=frozenset(common["english"].split()),
        roman=frozenset(map(scripts.roman_spelling, (common["roman"] + common["roman_marks"]).split())),
        roman_marks=marks,
        other=frozenset(scripts.folded(common["urdu"] + common["hindi"]).split()),
        asking=frozenset(stem(scripts.folded(word)) for word in common["asking"].split()),
        forms=forms,
        months={
            scripts.folded(name): int(number)
            for number, names in common["months"].items()
            for name in names.split()
        },
        plain=plain,
        in_roman=in_roman,
        near={f"~{one}": tuple(f"~{other}" for other in others.split()) for one, others in near.items()},
        phrases=tuple(
            (re.compile(rf"\b(?:{pattern})\b", re.IGNORECASE), tuple(words.split()))
            for pattern, words in common["phrases"].items()
        ),
    )


def english_stem(word: str) -> str:
    """The English stem of a lower-case word."""
    stemmed: str = _english.stemWord(word)
    return stemmed


def _read(name: str) -> dict[str, Any]:
    return tomllib.loads((_FOLDER / f"{name}.toml").read_text(encoding="utf-8"))


def _stemmer(forms: dict[str, str]) -> Callable[[str], str]:
    def stem(word: str) -> str:
        if scripts.is_arabic(word):
            return scripts.urdu_stem(word)
        if scripts.is_devanagari(word):
            return scripts.hindi_stem(word)
        return english_stem(forms.get(word, word))

    return stem


def _enter(
    plain: Meanings,
    in_roman: Meanings,
    stem: Callable[[str], str],
    concept: str,
    words: str,
    *,
    shown: bool,
    sought: bool,
) -> None:
    english, _, others = words.partition("|")
    rest = scripts.folded(others).split()
    known = [stem(word) for word in [*english.split(), *(one for one in rest if not one.isascii())]]
    for meanings, keys in (
        (plain, known),
        (in_roman, [scripts.roman_spelling(one) for one in rest if one.isascii()]),
    ):
        if shown:
            _add(meanings.shown, keys, concept)
        if sought:
            _add(meanings.sought, keys, concept)


def _add(table: dict[str, tuple[str, ...]], keys: Iterable[str], concept: str) -> None:
    term = "~" + concept
    for key in keys:
        if term not in table.get(key, ()):
            table[key] = (*table.get(key, ()), term)


@cache
def patterns(group: str) -> dict[str, re.Pattern[str]]:
    """The regular expressions of a `group`, by their names."""
    return {
        name: re.compile(pattern.strip().replace("\n", ""), re.IGNORECASE | re.MULTILINE)
        for name, pattern in _read("patterns")[group].items()
    }
