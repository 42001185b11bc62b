"""Nobody waits at a batcher for ever, or for a failure that has already been met."""

import asyncio
from collections.abc import Sequence

import pytest

from baatcheet.kit.batching import Abandoned, Batcher


class Away(Exception):
    """What serves every item is away."""


async def gather(batcher: Batcher[int, int], items: Sequence[int]) -> list[int | BaseException]:
    async with asyncio.timeout(5):
        return await asyncio.gather(*(batcher.submit(item) for item in items), return_exceptions=True)


async def test_who_waits_behind_a_batch_that_fails_for_everyone_fails_with_it() -> None:
    flushed: list[list[int]] = []
    away = asyncio.Event()

    async def flush(items: Sequence[int]) -> Sequence[int]:
        flushed.append(list(items))
        await away.wait()
        raise Away

    batcher: Batcher[int, int] = Batcher(flush, shared=(Away,))
    first = asyncio.create_task(batcher.submit(1))
    while not flushed:
        await asyncio.sleep(0)
    others = asyncio.create_task(gather(batcher, [2, 3]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    away.set()
    with pytest.raises(Away):
        await asyncio.wait_for(first, 5)
    assert [type(error) for error in await others] == [Away, Away]
    assert flushed == [[1]]


async def test_after_a_failure_for_everyone_the_next_item_is_tried_again() -> None:
    failures = [Away()]

    async def flush(items: Sequence[int]) -> Sequence[int]:
        if failures:
            raise failures.pop()
        return list(items)

    batcher: Batcher[int, int] = Batcher(flush, shared=(Away,))
    with pytest.raises(Away):
        await batcher.submit(1)
    assert await asyncio.wait_for(batcher.submit(2), 5) == 2


async def test_one_bad_item_fails_nobody_elses() -> None:
    async def flush(items: Sequence[int]) -> Sequence[int]:
        if 2 in items:
            raise ValueError("2 is bad")
        return list(items)

    first, second, third = await gather(Batcher(flush, shared=(Away,)), [1, 2, 3])
    assert (first, third) == (1, 3)
    assert isinstance(second, ValueError)


async def test_a_flush_with_too_few_results_fails_its_callers_and_is_not_repeated() -> None:
    flushed: list[list[int]] = []

    async def flush(items: Sequence[int]) -> Sequence[int]:
        flushed.append(list(items))
        return list(items)[1:]

    batcher: Batcher[int, int] = Batcher(flush)
    results = await gather(batcher, [1, 2, 3])
    assert [type(one) for one in results] == [Abandoned] * 3
    assert flushed == [[1, 2, 3]]


async def test_a_flush_that_is_cancelled_tells_its_callers_and_those_behind_them() -> None:
    begun = asyncio.Event()
    cancelled = asyncio.Event()

    async def flush(items: Sequence[int]) -> Sequence[int]:
        if not begun.is_set():
            begun.set()
            await cancelled.wait()
            raise asyncio.CancelledError
        return list(items)

    batcher: Batcher[int, int] = Batcher(flush)
    first = asyncio.create_task(gather(batcher, [1]))
    await asyncio.wait_for(begun.wait(), 5)
    second = asyncio.create_task(gather(batcher, [2]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    cancelled.set()
    assert [type(one) for one in [*await first, *await second]] == [Abandoned, Abandoned]
    assert await asyncio.wait_for(batcher.submit(3), 5) == 3
