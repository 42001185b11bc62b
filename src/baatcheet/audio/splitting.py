"""Where a long recording is cut into pieces: in its pauses, never later than a piece may be long. Pure.

Loudness comes as levels: the mean amplitude of each fiftieth of a second, 0 to 32,767.
"""

from collections.abc import Sequence
from dataclasses import dataclass

LEVELS_PER_SECOND = 50
PAUSE = 15  # levels that a pause takes: 0.3 s
AUDIBLE = 33  # a level above this is heard: 60 dB below full scale
HEARD = 5  # levels above that, for a piece to have anything in it


@dataclass(frozen=True)
class Bounds:
    """How long a piece may be, in levels: it is cut in the last half of `longest`."""

    longest: int

    @property
    def earliest(self) -> int:
        return max(1, self.longest // 2)


def cut(levels: Sequence[int], bounds: Bounds) -> int:
    """Where the first piece of `levels` ends, in levels: `len(levels)` when it is short enough as it is.

    Otherwise in the middle of the longest of the quietest pauses between `earliest` and `longest`; of pauses that are
    as long, in the last one.
    """
    if len(levels) <= bounds.longest:
        return len(levels)
    width = min(PAUSE, bounds.longest - bounds.earliest)
    if width < 1:
        return bounds.longest
    sums = _sums(levels[bounds.earliest : bounds.longest], width)
    # Twice as loud counts as louder: noise is never the same twice.
    loudness = [total.bit_length() for total in sums]
    quietest = min(loudness)
    first, last = _longest_run([one == quietest for one in loudness])
    return bounds.earliest + (first + last + width) // 2


def _sums(levels: Sequence[int], width: int) -> list[int]:
    total = sum(levels[:width])
    sums = [total]
    for gone, new in zip(levels, levels[width:], strict=False):
        total += new - gone
        sums.append(total)
    return sums


def _longest_run(held: Sequence[bool]) -> tuple[int, int]:
    """The first and the last index of the longest run of True; the last of several."""
    best = (0, -1)
    begun = None
    for index, one in enumerate([*held, False]):
        if one and begun is None:
            begun = index
        elif not one and begun is not None:
            if index - 1 - begun >= best[1] - best[0]:
                best = (begun, index - 1)
            begun = None
    return best


def is_audible(levels: Sequence[int]) -> bool:
    """Whether there is anything to be heard, if only noise."""
    return sum(level > AUDIBLE for level in levels) >= max(1, min(HEARD, len(levels) // 2))
