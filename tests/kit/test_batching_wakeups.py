"""A batcher that has just run dry must notice the next item at once."""

import asyncio
from collections.abc import Sequence

from baatcheet.kit.batching import Batcher


async def test_an_item_that_comes_as_the_last_batch_ends_is_not_forgotten() -> None:
    gate = asyncio.Event()

    async def flush(items: Sequence[int]) -> Sequence[int]:
        await gate.wait()
        return list(items)

    batcher: Batcher[int, int] = Batcher(flush)
    first = asyncio.create_task(batcher.submit(1))
    for _ in range(5):
        await asyncio.sleep(0)
    gate.set()
    # Runs after the draining task's last step and before that task's done callbacks.
    second = asyncio.create_task(batcher.submit(2))
    assert list(await asyncio.wait_for(asyncio.gather(first, second), 5)) == [1, 2]
