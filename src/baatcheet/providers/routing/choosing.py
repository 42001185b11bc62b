"""The order in which a route's models are asked, and why: pure functions, so that each choice can be tried out.

Each takes groups of targets, one for each step of the route, and returns all of them with their reasons set.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final

from baatcheet.providers.model import ModelCard, Target
from baatcheet.providers.routing.latency import Latencies
from baatcheet.providers.routing.model import Route, Strategy

EXPLORES: Final = (
    0.05  # of the requests of a `fastest` route that look at a model nobody has measured of late
)
STALE: Final = 60.0  # seconds after which a measurement is an old one

Cost = Callable[[ModelCard], Decimal | None]
"""USD per million tokens, prompt and reply mixed as they usually are; None: unknown."""


@dataclass(frozen=True, slots=True)
class Group:
    """The targets of one step, in their order."""

    targets: Sequence[Target]
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Means:
    """What a choice is made by. `draw` gives numbers from 0 up to, not including, 1."""

    draw: Callable[[], float]
    latencies: Latencies
    cost: Cost


def arranged(route: Route, groups: Sequence[Group], means: Means) -> list[Target]:
    """The targets in the order in which they are to be asked; none of them twice."""
    return _once(_STRATEGIES[route.strategy](f"route {route.name}", groups, means))


def sight_first(targets: Sequence[Target]) -> list[Target]:
    """Those that see pictures before the others."""
    seeing = [replace(one, reason=f"{one.reason}; sees pictures") for one in targets if one.model.vision]
    return seeing + [one for one in targets if not one.model.vision]


def drawn(weights: Sequence[int], draw: Callable[[], float]) -> list[int]:
    """The places of `weights` in an order drawn by them: each comes first as often as its share of their sum.

    A weight of 0 comes last. Efraimidis and Spirakis, "Weighted random sampling with a reservoir", 2006: sorting by
    u^(1/w) draws without putting back; here by its logarithm, which does not round small ones to nothing.
    """
    keys = [math.log(1 - draw()) / weight if weight else -math.inf for weight in weights]
    return sorted(range(len(weights)), key=lambda at: -keys[at])


def _ordered(name: str, groups: Sequence[Group], _means: Means) -> list[Target]:
    targets = [target for group in groups for target in group.targets]
    return [
        _because(one, f"{name}: {place} of {len(targets)} in its order")
        for place, one in enumerate(targets, 1)
    ]


def _weighted(name: str, groups: Sequence[Group], means: Means) -> list[Target]:
    total = sum(group.weight for group in groups)
    return [
        _because(one, f"{name}: drawn with a weight of {groups[at].weight} in {total}")
        for at in drawn([group.weight for group in groups], means.draw)
        for one in groups[at].targets
    ]


def _fastest(name: str, groups: Sequence[Group], means: Means) -> list[Target]:
    latencies, now = means.latencies, means.latencies.clock()
    measured: list[tuple[float, int, Target]] = []
    unmeasured: list[Target] = []
    old: list[tuple[float, int, Target]] = []  # by when they were last seen
    for at, one in enumerate([target for group in groups for target in group.targets]):
        known = latencies.of(one.model.provider, one.model.name)
        if known is None:
            unmeasured.append(_because(one, f"{name}: fastest; not measured yet"))
            old.append((-math.inf, at, unmeasured[-1]))
            continue
        found = _because(one, f"{name}: fastest; {known.seconds:.2f} s to the first token")
        measured.append((known.seconds, at, found))
        if now - known.at > STALE:
            old.append((known.at, at, found))
    best = [one for _, _, one in sorted(measured, key=_rank)] + unmeasured
    if old and measured and means.draw() < EXPLORES:
        _, _, looked_at = min(old, key=_rank)
        best.remove(looked_at)
        best.insert(0, replace(looked_at, reason=f"{looked_at.reason}; its turn to be looked at"))
    return best


def _cheapest(name: str, groups: Sequence[Group], means: Means) -> list[Target]:
    priced: list[tuple[Decimal, int, Target]] = []
    unpriced: list[Target] = []
    for at, one in enumerate([target for group in groups for target in group.targets]):
        cost = means.cost(one.model)
        if cost is None:
            unpriced.append(_because(one, f"{name}: cheapest; its price is not known"))
        else:
            priced.append((cost, at, _because(one, f"{name}: cheapest; {cost:.2f} USD per million tokens")))
    return [one for _, _, one in sorted(priced, key=_rank)] + unpriced


def _rank(one: tuple[float | Decimal, int, Target]) -> tuple[float | Decimal, int]:
    return one[0], one[1]


def _because(target: Target, reason: str) -> Target:
    return Target(target.provider, target.model, reason)


def _once(targets: Sequence[Target]) -> list[Target]:
    found: dict[tuple[str, str], Target] = {}
    for one in targets:
        found.setdefault((one.model.provider, one.model.name), one)
    return list(found.values())


_STRATEGIES: Final[dict[Strategy, Callable[[str, Sequence[Group], Means], list[Target]]]] = {
    "ordered": _ordered,
    "weighted": _weighted,
    "fastest": _fastest,
    "cheapest": _cheapest,
}
