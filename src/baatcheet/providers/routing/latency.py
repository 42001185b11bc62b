"""How long models take to their first token, as this process has seen it lately."""

import time
from collections.abc import Callable
from typing import Final, NamedTuple

KEEPS: Final = 0.8  # of what was known, when another measurement comes at once
HALF_LIFE: Final = 60.0  # seconds after which what was known weighs half of that
FAILED: Final = 30.0  # seconds that a failure before the first token counts for
MOST: Final = 4_096  # models that are remembered


class Measured(NamedTuple):
    """`seconds` to the first token, and when that was last seen, in the clock's time."""

    seconds: float
    at: float


class Latencies:
    """An exponentially weighted mean of each model's time to its first token. Old measurements soon weigh little."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._known: dict[tuple[str, str], Measured] = {}

    def first_token(self, provider: str, model: str, seconds: float) -> None:
        now = self.clock()
        before = self._known.pop((provider, model), None)
        if before is not None:
            keeps = KEEPS * 0.5 ** ((now - before.at) / HALF_LIFE)
            seconds = keeps * before.seconds + (1 - keeps) * seconds
        elif len(self._known) >= MOST:
            del self._known[next(iter(self._known))]  # the one that was longest unseen
        self._known[provider, model] = Measured(seconds, now)

    def failed(self, provider: str, model: str) -> None:
        """It was asked, and had nothing to say."""
        self.first_token(provider, model, FAILED)

    def of(self, provider: str, model: str) -> Measured | None:
        return self._known.get((provider, model))
