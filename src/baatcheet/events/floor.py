"""From which place on the outbox has to be looked at.

Rows that are gone stay in the index for as long as any transaction may still see them: a dump of an hour, say. Whoever
looks from the beginning each time passes all of them each time. So the look begins where everything has been seen to
long ago; once in a while it begins at the beginning, for what was written by a transaction that took longer than that.
"""

from collections import deque

SETTLED = 30.0  # seconds after which a place that was passed is not looked at again …
SWEEP_EVERY = 30.0  # … but for once in so many seconds


class Floor:
    """`now` is in seconds, of a clock that does not go back."""

    def __init__(self) -> None:
        self._place = 0
        self._passed: deque[tuple[float, int]] = deque()
        self._sweeping = True
        self._swept = 0.0  # when

    def look_from(self, now: float) -> int:
        """The place after which to look. 0: at all there is."""
        while self._passed and self._passed[0][0] <= now - SETTLED:
            self._place = max(self._place, self._passed.popleft()[1])
        if now - self._swept >= SWEEP_EVERY:
            self._sweeping = True
        return 0 if self._sweeping else self._place

    def passed(self, place: int, now: float, *, all_of_it: bool) -> None:
        """What the look found up to `place` is done with; `all_of_it`: it found nothing more."""
        if self._sweeping and all_of_it:
            self._sweeping = False
            self._swept = now
        if not self._passed or now - self._passed[-1][0] >= 1:  # a mark for each second is enough
            self._passed.append((now, place))
