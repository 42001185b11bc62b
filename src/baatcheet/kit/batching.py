"""Work that is done for many callers at once, as soon as the last lot is done."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Abandoned(RuntimeError):
    """The work on an item was broken off: whether it was done is not known."""


class Batcher(Generic[Item, Result]):
    """Gathers what arrives while the previous batch is under way, and hands it on as one.

    Alone, an item waits for nothing. Under load, one statement serves as many callers as came while
    the one before it ran (a group commit). `flush` gets the items in order and returns one result each;
    a result that is an exception is raised to its own caller only. When `flush` itself raises and the
    batch had several items, each is tried alone, so that one bad item fails nobody else's (`flush` must
    therefore do all or nothing), unless the error is one of `shared`, which is everyone's: of the batch, and
    of those that wait behind it, who would meet it too after another such wait.
    """

    def __init__(
        self,
        flush: Callable[[Sequence[Item]], Awaitable[Sequence[Result | Exception]]],
        *,
        max_items: int = 64,
        lanes: int = 1,
        shared: tuple[type[Exception], ...] = (),
    ) -> None:
        self._flush = flush
        self._shared = shared
        self._max_items = max_items
        self._lanes = lanes
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self._running: set[asyncio.Task[None]] = set()

    async def submit(self, item: Item) -> Result:
        """The result for `item`. A caller that is cancelled leaves its item's work to be done.

        Raises what `flush` raised, and Abandoned when its work was broken off.
        """
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if len(self._running) < self._lanes:
            task = asyncio.create_task(self._drain())
            self._running.add(task)
        return await asyncio.shield(future)

    async def _drain(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        batch: list[tuple[Item, asyncio.Future[Result]]] = []
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[: self._max_items], self._waiting[self._max_items :]
                await self._settle(batch)
        except BaseException:  # this task is being stopped, and nobody else would tell them
            left, self._waiting = batch + self._waiting, []
            _answer(left, [Abandoned("The work was broken off.")] * len(left))
            raise
        finally:
            # Here and not in a done callback: an item that came between the two would wait for ever.
            self._running.discard(task)

    async def _settle(self, batch: list[tuple[Item, asyncio.Future[Result]]]) -> None:
        results: Sequence[Result | Exception]
        try:
            results = await self._flush([item for item, _ in batch])
        except Exception as error:  # noqa: BLE001 - every caller is told
            if isinstance(error, self._shared):
                batch, self._waiting = batch + self._waiting, []
            elif len(batch) > 1:
                for one in batch:
                    await self._settle([one])
                return
            results = [error] * len(batch)
        if len(results) != len(batch):  # whose is whose can't be told, and the work is done: not again
            wrong = Abandoned(f"{len(results)} results came for {len(batch)} items.")
            results = [wrong] * len(batch)
        _answer(batch, results)


def _answer(
    batch: Sequence[tuple[Item, asyncio.Future[Result]]], results: Sequence[Result | Exception]
) -> None:
    for (_, future), result in zip(batch, results, strict=True):
        if future.done():
            continue
        if isinstance(result, Exception):
            future.set_exception(result)
            future.exception()  # a caller that has left must not be reported as a forgotten error
        else:
            future.set_result(result)
