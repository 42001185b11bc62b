"""What a unit is worth keeping for: names, numbers, dates, decisions, wishes, facts, open questions."""

# ruff: noqa: RUF001 - letters and punctuation of several scripts, each meant

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from baatcheet.context.summaries.cues import PLEASANTRIES, cues, fold, words
from baatcheet.context.summaries.units import Unit

_WORTH = {
    "decision": 3.5,
    "wish": 3.5,
    "identity": 3.5,
    "name": 2.5,
    "finding": 2.0,
    "time": 2.0,
    "amount": 2.0,
    "open": 1.5,
}
_PERSONAL = frozenset({"decision", "wish", "identity", "name", "finding", "open"})
_SECOND_HAND = 0.4  # what such a word is worth when it is not the user who says it
_ROLES = {"user": 1.0, "": 1.0, "assistant": 0.55, "tool": 0.4, "function": 0.4}
_CODE = 2.5
_BOILERPLATE = 0.25
_QUESTION = 1.5
_UNANSWERED = 5.0
_ANSWER_WORDS = 7  # a user's message as short as this may only make sense after what it answers

_NUMBER = re.compile(r"\d+(?:[.,:/-]\d+)*")
_NAME = re.compile(
    r"(?<=[^.!?:\s]\s)(?:[A-Z][\w'-]{2,}|[A-Z]{2,}\d*)|\b\w*[a-z][A-Z]\w*|\b\w+_\w+|\b[A-Z]{2,}-?\d+\b"
)
_REFERENCE = re.compile(
    r"https?://\S+|\S+@\S+\.\w+|`[^`]+`|[\"“«][^\"”»]{2,60}[\"”»]|\b\w+\.(?:py|js|ts|sql|json|ya?ml|toml|md|csv|pdf)\b"
)
_REFERENCE_SIGNS = frozenset(':@`"“«.')  # a look for these keeps the expression off most units
_QUESTION_MARK = re.compile(r"[?؟？][\"'”’)]*$")
_COMMON = frozenset(
    words("that this with have from your will would could they them there what when which about then also")
)
_SHORTEST_TERM = 4  # letters


class Weighed(NamedTuple):
    """A unit, what it is worth, and what to compare it by."""

    unit: Unit
    worth: float  # 0: it says nothing
    terms: frozenset[str]
    numbers: tuple[str, ...]
    answers: int | None = None  # the index of the question without which it makes no sense


def weigh(units: Sequence[Unit]) -> list[Weighed]:
    """All of `units`, in their order."""
    found = [words(fold(unit.text)) for unit in units]
    terms = [frozenset(w for w in one if len(w) >= _SHORTEST_TERM and w not in _COMMON) for one in found]
    frequency = Counter(term for one in terms for term in one)
    last_said = max((unit.message for unit in units if unit.role == "assistant"), default=-1)
    answered = _questions_answered(units, found)
    weighed = []
    for at, unit in enumerate(units):
        numbers = tuple(_NUMBER.findall(unit.text))
        worth = _worth(unit, found[at], len(numbers), is_open=unit.message > last_said)
        if worth > 0:
            shared = sum(frequency[term] > 1 for term in terms[at])
            worth += shared / (len(terms[at]) + 4)
        if at in answered:
            worth += 1.5
        weighed.append(Weighed(unit, worth, terms[at], numbers, answered.get(at)))
    return weighed


def _worth(unit: Unit, found: Sequence[str], numbers: int, *, is_open: bool) -> float:
    if not numbers and all(word in PLEASANTRIES for word in found):
        return 0.0
    counts = cues(found)
    worth = 0.3
    for category, base in _WORTH.items():
        if hits := counts.get(category, 0):
            meant = unit.role in {"user", ""} or category not in _PERSONAL
            worth += base * (1 + 0.25 * min(hits - 1, 2)) * (1 if meant else _SECOND_HAND)
    worth += _several(numbers, 2.0)
    if not unit.text.islower():
        worth += _several(len(_NAME.findall(unit.text)), 1.2)
    if not _REFERENCE_SIGNS.isdisjoint(unit.text):
        worth += _several(len(_REFERENCE.findall(unit.text)), 1.5)
    if unit.code:
        worth += _CODE
    if unit.role in {"user", ""} and _QUESTION_MARK.search(unit.text):
        worth += _UNANSWERED if is_open else _QUESTION
    if "boilerplate" in counts and unit.role == "assistant":
        worth *= _BOILERPLATE
    return worth * _ROLES.get(unit.role, 0.4)


def _several(count: int, first: float) -> float:
    """The first is worth most, more of the same a little each, beyond four nothing."""
    return first * (1 + 0.3 * (min(count, 4) - 1)) if count else 0.0


def _questions_answered(units: Sequence[Unit], found: Sequence[Sequence[str]]) -> dict[int, int]:
    """Short first sentences of a user that follow an assistant's question, and the index of that question."""
    return {
        at: at - 1
        for at in range(1, len(units))
        if units[at].role == "user"
        and units[at - 1].role == "assistant"
        and units[at - 1].message < units[at].message
        and 0 < len(found[at]) <= _ANSWER_WORDS
        and _QUESTION_MARK.search(units[at - 1].text)
        and "boilerplate" not in cues(found[at - 1])
    }
