"""What a hit is worth by itself: BM25 over the question's terms, and whether it is the kind of text asked for."""

from collections.abc import Sequence
from math import log
from operator import itemgetter

from baatcheet.context.recall import signs
from baatcheet.context.recall.hits import CAP, Hit, Statistics
from baatcheet.context.recall.query import Query

SATURATION, LENGTH_NORM = 0.9, 0.35  # BM25's k1 and b
WANTED = 1.15  # for a text with a sign of an answer, such as a date
DULL = 0.8  # for pleasantries, and for questions: what they ask is told beside them
SAME_SPEAKER = 1.6  # for the words of whom is asked about
TIMELY = 1.3  # for what was said in the time that is asked about
NEWER = 0.3  # what the newest gain over the oldest, when the newest are asked for
CALLED = 0.05  # of a name's weight, where it is a speaker's
_OFTEN, _NEARLY = 6, 0.75  # how often a name is called, and by one role, for it to be the other's
_PLACE = itemgetter(0)  # of a hit
_OTHER = {"user": "assistant", "assistant": "user"}


def score(query: Query, hits: Sequence[Hit], statistics: Statistics) -> list[tuple[float, int]]:
    """What each hit is worth, with its index; those that are worth nothing are left out."""
    role, signed, called = _speaker(query, hits)
    weight_of = _weights(query, hits, statistics, called).get
    base = SATURATION * (1 - LENGTH_NORM)
    slope = SATURATION * LENGTH_NORM / max(statistics.average_length, 1.0)
    wanted, dull, spans = query.wanted, signs.CHATTER | signs.QUESTION, query.spans
    trend = NEWER * query.recent / max(statistics.messages, 1)
    scored: list[tuple[float, int]] = []
    for index, (place, _, said_by, at, length, counts, signals) in enumerate(hits):
        norm = base + slope * length
        worth = 0.0
        for term, count in counts.items():
            worth += weight_of(term, 0.0) * count / (count + norm)
        if worth <= 0.0:
            continue
        if signals & wanted:
            worth *= WANTED
        if signals & dull:
            worth *= DULL
        if signed in counts if signed else said_by == role:
            worth *= SAME_SPEAKER
        if trend:
            worth *= 1 + trend * place
        for start, end in spans:
            if start <= at < end:
                worth *= TIMELY
                break
        scored.append((worth, index))
    return scored


def _weights(
    query: Query, hits: Sequence[Hit], statistics: Statistics, called: frozenset[str]
) -> dict[str, float]:
    """What a term of the question counts: the rarer, the more; speakers' names next to nothing."""
    passages = max(statistics.passages, 1)
    named = {query.aspects.get(name) for name in called}
    frequencies = _frequencies(query, hits, statistics)
    weights: dict[str, float] = {}
    for term, weight in query.weights.items():
        if term[0] == "@":
            continue
        having = min(frequencies[term], passages)
        rarity = log(1 + (passages - having + 0.5) / (having + 0.5))
        weights[term] = weight * (SATURATION + 1) * rarity
        if called and query.aspects.get(term) in named:
            weights[term] *= CALLED
    return weights


def _frequencies(query: Query, hits: Sequence[Hit], statistics: Statistics) -> dict[str, float]:
    """How many passages have each term. Where only the newest were looked up, as many as their density suggests."""
    known: dict[str, float] = {term: statistics.frequency.get(term, 0) for term in query.weights}
    if max(known.values(), default=0) < CAP:
        return known
    lowest: dict[str, int] = {}
    for hit in sorted(hits, key=_PLACE, reverse=True):
        lowest.update(dict.fromkeys(hit.counts, hit.place))
    for term, count in known.items():
        if count >= CAP:
            reach = statistics.messages - lowest.get(term, 0)
            known[term] = count * statistics.messages / max(1, reach)
    return known


def _speaker(query: Query, hits: Sequence[Hit]) -> tuple[str | None, str | None, frozenset[str]]:
    """Whose words are asked for, as a role or as a term that only that speaker's messages have; and their names.

    Who is called by name is the other one: a name that stands in one role's messages nearly always is the other's.
    """
    role, signed, called = query.role, None, set()
    for name in sorted(query.names):
        by: dict[str, int] = {}
        mark = "@" + name
        for hit in hits:
            counts = hit.counts
            if name in counts:
                by[hit.role] = by.get(hit.role, 0) + 1
            if mark in counts:
                signed = signed or mark
        total, most = sum(by.values()), max(by, key=lambda one: (by[one], one), default="")
        if mark == signed:
            called.add(name)
        elif total >= _OFTEN and by[most] >= _NEARLY * total:
            called.add(name)
            role = _OTHER.get(most, role)
    return role, signed, frozenset(called)
