"""Putting messages in an order in which each stands after its parent."""

import heapq
from collections.abc import Sequence


class Loop(ValueError):
    """The parents of some messages lead back to themselves. `place`: the first of them."""

    def __init__(self, place: int) -> None:
        super().__init__(f"the parents of {place} lead back to it")
        self.place = place


def parents_first(parents: Sequence[int | None]) -> list[int]:
    """The places of `parents`, each after the one that it names, else in their own order. Raises Loop."""
    children: dict[int, list[int]] = {}
    ready = []
    for place, parent in enumerate(parents):
        if parent is None:
            ready.append(place)
        else:
            children.setdefault(parent, []).append(place)
    order: list[int] = []
    while ready:
        place = heapq.heappop(ready)
        order.append(place)
        for child in children.get(place, ()):
            heapq.heappush(ready, child)
    if len(order) < len(parents):
        raise Loop(_in_loop(parents, set(order)))
    return order


def _in_loop(parents: Sequence[int | None], placed: set[int]) -> int:
    """A place whose parents lead back to it: from any that found none, as many steps up as there are places."""
    at = next(place for place in range(len(parents)) if place not in placed)
    seen: set[int] = set()
    while at not in seen:
        seen.add(at)
        above = parents[at]
        assert above is not None
        at = above
    return at
