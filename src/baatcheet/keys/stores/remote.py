"""Asking a store on the network: off the event loop, three times at most, and with errors that hold no key.

A library's exception may hold the request or the answer it is about, and its traceback certainly does. So what runs in
a thread returns its failure as a value, and the error is raised afresh on the event loop's side.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, ParamSpec, TypeVar

from baatcheet.keys.stores.model import KeySet, StoreError, StoreUnavailable
from baatcheet.kit.backoff import exponential, jittered
from baatcheet.platform.threads import Threads

ATTEMPTS: Final = 3
_FIRST_PAUSE: Final = 0.2  # seconds

Result = TypeVar("Result")
Arguments = ParamSpec("Arguments")


@dataclass(frozen=True, slots=True)
class Failure:
    """How a request ended badly. `again`: asking once more may help; `found`: as of `StoreError`."""

    kind: type[StoreError]
    message: str
    again: bool = False
    found: Mapping[str, KeySet] = field(default_factory=dict)


class Remote:
    """The requests of one store. `store`: its name, which begins every error."""

    def __init__(self, store: str, threads: int) -> None:
        self._store = store
        self._threads = Threads(threads, f"{store}-secrets")
        self._under_way = 0
        self._closed = False
        self._idle = asyncio.Event()
        self._idle.set()

    async def ask(
        self,
        function: Callable[Arguments, Result | Failure],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Result:
        """What `function` returns, which runs in a thread. Raises the StoreError of its last Failure.

        `function` limits its own time. It is given no key but as a SecretKey: arguments are seen in tracebacks.
        """
        attempt = 1
        while isinstance(outcome := await self.once(function, *args, **kwargs), Failure):
            if not outcome.again or attempt == ATTEMPTS:
                raise outcome.kind(self._store, outcome.message, outcome.found)
            await asyncio.sleep(jittered(exponential(attempt, first=_FIRST_PAUSE)))
            attempt += 1
        return outcome

    async def once(
        self,
        function: Callable[Arguments, Result | Failure],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Result | Failure:
        """The same in one attempt, its failure returned."""
        if self._closed:
            return Failure(StoreUnavailable, "is closed.")
        self._under_way += 1
        self._idle.clear()
        try:
            return await self._threads.run(function, *args, **kwargs)
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()

    async def close(self) -> None:
        """Begin no request more, and wait for those under way."""
        self._closed = True
        await self._idle.wait()
        self._threads.close()
