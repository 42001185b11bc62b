"""Ending a text early, where it hurts least."""

# ruff: noqa: RUF001 - letters and punctuation of several scripts, each meant

import re

from baatcheet.context import counting
from baatcheet.context.cutting import LONGEST, beginning

ELLIPSIS = "…"
_END = re.compile(r"[.!?؟۔।。！？]+(?=\s)|[。！？]|\n")


def clip(text: str, tokens: int) -> str:
    """The beginning of `text` in at most `tokens` tokens, with an ellipsis where it was left.

    It ends with a sentence or a line when one ends in its second half, else with a word. Not empty when `text` is
    not and `tokens` is not 0.
    """
    if tokens < 1:
        return ""
    if len(text) <= tokens * LONGEST and counting.count(text) <= tokens:
        return text
    keep = tokens - 1
    while keep > 0:
        shorter = _ended_well(beginning(text, keep, counting.count)) + ELLIPSIS
        over = counting.count(shorter) - tokens
        if over <= 0:
            return shorter
        keep -= over
    return ELLIPSIS


def _ended_well(text: str) -> str:
    ends = [found.end() for found in _END.finditer(text, len(text) // 2)]
    if ends:
        return text[: ends[-1]].rstrip()
    space = text.rfind(" ", len(text) // 2)
    return text[:space].rstrip() if space > 0 else text
