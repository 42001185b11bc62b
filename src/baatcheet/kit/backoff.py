"""How long to wait before trying again."""

import random
from collections.abc import Sequence

FIRST = 2.0  # seconds
LONGEST = 3600.0
SPREAD = 0.1  # of the wait: those that failed together don't come back together


def exponential(failures: int, *, first: float = FIRST, longest: float = LONGEST) -> float:
    """Seconds to wait after the `failures`th failure in a row: `first`, then twice as long each time."""
    return min(longest, first * 2.0 ** min(failures - 1, 60))


def scheduled(failures: int, attempts: int, later: Sequence[float]) -> float | None:
    """Seconds to wait after the `failures`th failure: exponential up to `attempts`, then along `later`.

    None when there is no further attempt.
    """
    if failures < attempts:
        return exponential(failures)
    place = failures - attempts
    return later[place] if place < len(later) else None


def jittered(seconds: float) -> float:
    """`seconds`, up to a tenth more or less."""
    return seconds * random.uniform(1 - SPREAD, 1 + SPREAD)  # noqa: S311 - spreads, keeps no secret
