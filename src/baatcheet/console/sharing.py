"""What many open pages show is asked for once."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

MOST_KEPT = 200


class Shared(Generic[Key, Value]):
    """Makes a value for all who ask for it within `seconds`, and for those who ask while it is being made.

    What takes long to make is believed for `patience` times as long: making it may take a share of one worker's or
    one connection's time, however many look.
    """

    def __init__(self, seconds: float, *, patience: float) -> None:
        self._seconds = seconds
        self._patience = patience
        self._kept: dict[Key, tuple[float, Value]] = {}
        self._making: dict[Key, asyncio.Task[Value]] = {}

    async def get(self, key: Key, make: Callable[[], Awaitable[Value]]) -> Value:
        """Raises what `make` raises, which is not kept."""
        kept = self._kept.get(key)
        if kept is not None and kept[0] > time.monotonic():
            return kept[1]
        task = self._making.get(key)
        if task is None:
            task = self._making[key] = asyncio.create_task(self._make(key, make))
            task.add_done_callback(_seen)
        # A browser that leaves must not fail the others that wait for the same.
        return await asyncio.shield(task)

    def forget(self) -> None:
        """Make everything anew, what is under way too: something was changed."""
        self._kept.clear()
        self._making.clear()

    async def _make(self, key: Key, make: Callable[[], Awaitable[Value]]) -> Value:
        mine = asyncio.current_task()
        began = time.monotonic()
        try:
            value = await make()
            now = time.monotonic()
            if self._making.get(key) is mine:
                self._tidy(now)
                self._kept[key] = now + max(self._seconds, self._patience * (now - began)), value
            return value
        finally:
            if self._making.get(key) is mine:
                del self._making[key]

    def _tidy(self, now: float) -> None:
        if len(self._kept) >= MOST_KEPT:
            self._kept = {key: one for key, one in self._kept.items() if one[0] > now}
            if len(self._kept) >= MOST_KEPT:
                self._kept.clear()


def _seen(task: asyncio.Task[Value]) -> None:
    """Its error is whoever's waits for it; where nobody does any more, it is nobody's."""
    if not task.cancelled():
        task.exception()
