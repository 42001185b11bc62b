"""Following the events of a turn, in this process."""

import asyncio
import time
from collections.abc import Sequence

import pytest

from baatcheet.chat.feed import Outcome, TurnFeed, TurnIdentity
from baatcheet.kit.ids import new_id
from baatcheet.providers.model import Chunk

QUIET = 0.1  # seconds after which a follower is given a sign of life


def say(feed: TurnFeed, words: str) -> None:
    feed.push([Chunk(raw=b"", text=word) for word in words.split()])


async def followed(feed: TurnFeed, after: int) -> list[tuple[int, Sequence[str]]]:
    return [
        (first, [chunk.text for chunk in chunks])
        async for first, chunks in feed.follow(after, keep_alive=QUIET)
    ]


@pytest.mark.parametrize("ahead", [0, 1, 1000])
async def test_a_quiet_turn_gives_signs_of_life_wherever_its_follower_is(ahead: int) -> None:
    feed = TurnFeed(TurnIdentity(new_id(), new_id()))
    say(feed, "one two")
    async with asyncio.timeout(5):
        batches = feed.follow(feed.last + ahead, keep_alive=QUIET)
        for _ in range(3):
            _, chunks = await anext(batches)
            assert not chunks
        await batches.aclose()  # type: ignore[attr-defined]


async def test_a_follower_that_is_ahead_gets_signs_of_life_while_the_turn_catches_up() -> None:
    feed = TurnFeed(TurnIdentity(new_id(), new_id()))
    async with asyncio.timeout(5):
        began = time.monotonic()
        following = asyncio.create_task(followed(feed, 20))
        for _ in range(30):  # events 2 to 31, more often than signs of life
            await asyncio.sleep(QUIET / 3)
            say(feed, "word")
        feed.end(Outcome("completed"))
        seen = await following
    signs = [first for first, words in seen if not words]
    assert 2 <= len(signs) <= (time.monotonic() - began) / QUIET
    assert [first for first, words in seen if words] == list(range(21, 32))


async def test_a_follower_beyond_the_end_is_let_go() -> None:
    feed = TurnFeed(TurnIdentity(new_id(), new_id()))
    say(feed, "one two")
    feed.end(Outcome("completed"))
    async with asyncio.timeout(5):
        assert await followed(feed, 1000) == []
