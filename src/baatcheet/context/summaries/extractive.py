"""A summary without a model: the sentences that carry most, as they were said. Deterministic."""

# ruff: noqa: RUF001 - letters and punctuation of several scripts, each meant

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from baatcheet.context import counting
from baatcheet.context.summaries.clipping import clip
from baatcheet.context.summaries.sampling import bounded
from baatcheet.context.summaries.sections import Line
from baatcheet.context.summaries.units import SEAM, Unit, units
from baatcheet.context.summaries.weighing import Weighed, weigh

INLINE_CHARACTERS = 4_096  # some four milliseconds; more goes to the thread
MOST_CHARACTERS = 160_000  # of a block that are looked at
_OVERHEAD = 1  # tokens that a unit costs beside its own: its seam, its share of the speaker
_FADING = 0.94  # what the next best unit of the same message is worth, of what it would be
_LEAST = 0.6  # worth; less is kept only when there is nothing else
_ALIKE = 0.75  # of the terms shared
_ENDS = tuple(".!?؟۔।。！？…:")

# One at a time, and none of the threads that requests count in.
_thread = ThreadPoolExecutor(1, thread_name_prefix="summaries")


class ExtractiveSummarizer:
    """Quotes what carries most."""

    name = "extractive"

    async def summarize(self, lines: Sequence[Line], tokens: int) -> str:
        if sum(len(line.text) for line in lines) <= INLINE_CHARACTERS:
            return extract(lines, tokens)
        return await asyncio.get_running_loop().run_in_executor(_thread, partial(extract, lines, tokens))


def extract(lines: Sequence[Line], tokens: int) -> str:
    """What carries most in `lines`, in at most `tokens` tokens, in the order in which it was said."""
    looked_at = bounded(lines, MOST_CHARACTERS)
    weighed = weigh(units(looked_at))
    chosen = _choose(weighed, tokens)
    text = _written([weighed[at].unit for at in sorted(chosen)])
    while chosen and counting.count(text) > tokens:
        chosen.pop()
        text = _written([weighed[at].unit for at in sorted(chosen)])
    if text:
        return text
    best = max(weighed, key=lambda one: one.worth, default=None)
    if best is not None:
        return clip(_written([best.unit]), tokens)
    return clip(next((line.text.strip() for line in lines if line.text.strip()), ""), tokens)


def _choose(weighed: Sequence[Weighed], tokens: int) -> list[int]:
    """Indices of what fits, the best first."""
    chosen: list[int] = []
    left = tokens
    days: set[str] = set()
    for at in _ranked(weighed):
        together = [index for index in (weighed[at].answers, at) if index is not None and index not in chosen]
        if chosen and weighed[at].worth < _LEAST:
            continue
        if at in chosen or _said_already(weighed[at], [weighed[one] for one in chosen]):
            continue
        cost = sum(_cost(weighed[index].unit) for index in together)
        new_days = {weighed[index].unit.day for index in together} - days - {""}
        cost += 8 * len(new_days)
        if cost <= left:
            chosen += together
            left -= cost
            days |= new_days
        if left < 4:
            break
    return chosen


def _ranked(weighed: Sequence[Weighed]) -> list[int]:
    """Indices by what a token of the unit is worth; of many from one message, the later the less."""
    seen: dict[int, int] = {}
    ranked = []
    for at in sorted(range(len(weighed)), key=lambda at: (-weighed[at].worth, at)):
        one = weighed[at]
        if one.worth <= 0:
            continue
        faded = one.worth * _FADING ** seen.get(one.unit.message, 0)
        seen[one.unit.message] = seen.get(one.unit.message, 0) + 1
        ranked.append((-faded / (len(one.unit.text.encode()) + 60) ** 0.5, at))
    return [at for _, at in sorted(ranked)]


def _said_already(one: Weighed, chosen: Sequence[Weighed]) -> bool:
    """Whether one of `chosen` says the same: nearly the same words, and no other number."""
    if not one.terms:
        return any(one.unit.text == other.unit.text for other in chosen)
    return any(
        one.numbers == other.numbers
        and len(one.terms & other.terms) >= _ALIKE * max(len(one.terms), len(other.terms))
        for other in chosen
    )


def _cost(unit: Unit) -> int:
    return counting.count(unit.text) + _OVERHEAD


def _written(chosen: Sequence[Unit]) -> str:
    """`chosen` as lines: a day when it changes, then who said what."""
    rows: list[str] = []
    day, role = "", None
    for unit in chosen:
        if unit.day and unit.day != day:
            rows.append(f"[{unit.day}]")
            day, role = unit.day, None
        text = f"`{unit.text.replace('`', '')}`" if unit.code else unit.text
        if unit.role == role:
            rows[-1] += (" " if rows[-1].endswith(_ENDS) else SEAM) + text
        else:
            rows.append(f"{unit.role.capitalize()}: {text}" if unit.role else text)
            role = unit.role
    return "\n".join(rows)
