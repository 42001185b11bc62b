"""Which messages a question is about: what the index found, and what stands beside it."""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from baatcheet.context.recall import scoring
from baatcheet.context.recall.hits import CAP, Hit, Statistics
from baatcheet.context.recall.query import Query

__all__ = ["CAP", "PAUSE", "Hit", "Scored", "Statistics", "rank"]

SHARES = (0.45, 0.28, 0.15, 0.07)  # what a message gets of its neighbour's score, and of those beyond
SITTING = 0.3  # what a sitting's messages get of its best score
BESIDE = 0.3  # what a passage gets of the score of the one before or after it in a long message
PAUSE = timedelta(hours=2)  # longer than this, and another sitting begins
CLOSELY = 500  # hits that are looked at closely
MOST = 1_500  # passages that are ranked: more than any budget holds
_FULL = 35  # terms: a passage with as many has others beside it


class Scored(NamedTuple):
    """A passage worth recalling; with no `part`, a message that was not found but stands beside one that was."""

    place: int
    part: int | None
    score: float


def rank(
    query: Query,
    hits: Sequence[Hit],
    statistics: Statistics,
    sessions: Mapping[int, int] | None = None,
) -> list[Scored]:
    """The passages to recall, best first.

    `sessions` tells the sitting of a place where that is known; otherwise pauses between the hits tell.
    """
    scored = scoring.score(query, hits, statistics)
    if len(scored) > CLOSELY:
        scored = heapq.nlargest(CLOSELY, scored)
    best: dict[int, float] = {}  # by place
    times: dict[int, datetime] = {}
    for worth, index in scored:
        hit = hits[index]
        if worth > best.get(hit.place, 0.0):
            best[hit.place] = worth
            times[hit.place] = hit.at
    around = _neighbours(best, statistics.messages)
    bonus = _bonus(best, sessions or _sittings(times))
    ranked: list[tuple[float, int, int]] = []
    for place in around:
        around[place] += _nearest(bonus, place)
        if place not in best:
            ranked.append((-around[place], place, -1))
    for worth, index in scored:
        place, part = hits[index].place, hits[index].part
        ranked.append((-worth - around[place], place, part))
    ranked += _beside([hits[index] for _, index in scored], ranked[-len(scored) :])
    ranked.sort()
    return [Scored(place, part if part >= 0 else None, -score) for score, place, part in ranked[:MOST]]


def _neighbours(best: Mapping[int, float], messages: int) -> dict[int, float]:
    """What each place gets of the scores around it."""
    around = dict.fromkeys(best, 0.0)
    get = around.get
    for place in sorted(best):  # so that the sums are the same whatever the order of the hits
        worth = best[place]
        for distance, part in enumerate(SHARES, 1):
            share = part * worth
            before, after = place - distance, place + distance
            if before >= 0:
                around[before] = get(before, 0.0) + share
            if after < messages or after in best:
                around[after] = get(after, 0.0) + share
    return around


def _sittings(times: Mapping[int, datetime]) -> dict[int, int]:
    """The sitting of each place, by number; with one only, or none that can be told, nothing."""
    made: dict[int, int] = {}
    number, before = 0, None
    for place in sorted(times):
        at = times[place]
        if before is not None and at - before > PAUSE:
            number += 1
        made[place] = number
        before = at
    return made if number else {}


def _bonus(best: Mapping[int, float], sittings: Mapping[int, int]) -> dict[int, float]:
    """What each place gets for its sitting."""
    top: dict[int, float] = {}
    for place, worth in best.items():
        sitting = sittings.get(place)
        if sitting is not None and worth > top.get(sitting, 0.0):
            top[sitting] = worth
    return {place: SITTING * top[sittings[place]] for place in best if place in sittings}


def _nearest(values: Mapping[int, float], place: int) -> float:
    """The value of a place, or of the nearest one that has any."""
    if place in values or not values:
        return values.get(place, 0.0)
    for beside in (place - 1, place + 1, place - 2, place + 2):
        if beside in values:
            return values[beside]
    return 0.0


def _beside(hits: Iterable[Hit], ranked: Sequence[tuple[float, int, int]]) -> list[tuple[float, int, int]]:
    """The passages before and after those of long messages, which were no hits themselves. They may not be there."""
    found = {(place, part) for _, place, part in ranked}
    made: dict[tuple[int, int], float] = {}
    for hit, (score, place, part) in zip(hits, ranked, strict=True):
        if part > 0 or hit.length >= _FULL:
            for one in (part - 1, part + 1):
                if one >= 0 and (place, one) not in found:
                    made[place, one] = min(made.get((place, one), 0.0), BESIDE * score)
    return [(score, place, part) for (place, part), score in made.items()]
