"""A number of places, and the queue of those who wait for one: first come, first served."""

import asyncio
from collections import deque


class Places:
    """`size` places, which may change at any time. For one event loop.

    A place that becomes free belongs at once to whoever has waited longest: nobody who comes just then gets ahead.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.taken = 0
        self._queue: deque[asyncio.Future[None]] = deque()

    @property
    def free(self) -> int:
        return max(0, self.size - self.taken)

    @property
    def waiting(self) -> int:
        return sum(1 for one in self._queue if not one.done())

    @property
    def contended(self) -> bool:
        """Whether anybody waits."""
        return any(not one.done() for one in self._queue)

    async def take(self, deadline: float) -> None:
        """Wait for a place until `deadline`, in the loop's time. Raises TimeoutError."""
        if self.taken < self.size and not self._queue:
            self.taken += 1
            return
        loop = asyncio.get_running_loop()
        place = loop.create_future()
        self._queue.append(place)
        timer = loop.call_at(deadline, _give_up, place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled() and place.exception() is None:
                self.leave()  # it was given one in the moment in which it was cancelled
            raise
        finally:
            timer.cancel()

    def leave(self) -> None:
        """Give a place back."""
        self.taken -= 1
        self._hand_out()

    def resize(self, size: int) -> None:
        """Have `size` places from now on. Those who have one keep it."""
        self.size = size
        self._hand_out()

    def _hand_out(self) -> None:
        while self._queue and (self._queue[0].done() or self.taken < self.size):
            place = self._queue.popleft()
            if not place.done():
                self.taken += 1
                place.set_result(None)


def _give_up(place: asyncio.Future[None]) -> None:
    if not place.done():
        place.set_exception(TimeoutError())
