"""How long turns took, as counts of so many up to each bound: they add up over days, models and users."""

from collections.abc import Mapping
from typing import Final

BOUNDS: Final = (250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 128_000, 256_000)  # ms
TOOK: Final = tuple(
    f"took_{one}" for one in BOUNDS
)  # completed turns up to that bound and above the one before


def percentile(counts: Mapping[str, int], share: float) -> int | None:
    """What `share` of the completed turns took at most, in ms; None without any.

    It is between the same two bounds as the true one, and never above the slowest. `counts`: of `TOOK`,
    `completed` and `slowest_ms`; the completed ones that are in no count took longer than the last bound.
    """
    completed, slowest = counts["completed"], counts["slowest_ms"]
    if not completed:
        return None
    wanted, below, lower = share * completed, 0, 0
    for bound, name in zip(BOUNDS, TOOK, strict=True):
        here = counts[name]
        if here and below + here >= wanted:
            upper = min(bound, slowest)
            return round(min(upper, lower + (upper - lower) * (wanted - below) / here))
        below, lower = below + here, bound
    if completed <= below:
        return slowest
    return round(min(slowest, lower + (slowest - lower) * (wanted - below) / (completed - below)))
