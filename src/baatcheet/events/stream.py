"""One follower's stream: the past that it asks for, then what comes."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from baatcheet.events.following import Follower, place_frame, reset_frame
from baatcheet.events.reading import Page
from baatcheet.kit import sse
from baatcheet.platform.database import DatabaseUnavailable

OPEN_SECONDS = 5.0  # that a new stream waits for its first round before it is refused
AWAY_PAUSE = 0.5  # seconds between two tries to read the past while the database is away


class Source(Protocol):
    """Where a stream's events come from."""

    @property
    def position(self) -> int: ...

    def join(self, follower: Follower) -> None: ...

    def leave(self, follower: Follower) -> None: ...

    async def past(self, follower: Follower, after: int, upto: int | None = None) -> Page: ...


class Stream:
    """To be begun, read once as `blocks`, and closed."""

    def __init__(self, source: Source, follower: Follower) -> None:
        self._source = source
        self._follower = follower
        self._first: Page | None = None
        self._told = 0  # up to which number it has been told everything
        self._sent = 0  # the number that the client knows
        self._closed = False

    @property
    def ended(self) -> str | None:
        """Why nothing more will come; None while it may."""
        return self._follower.closed

    def on_end(self, call: Callable[[], None]) -> None:
        """`call` when nothing more will come, until `close`."""
        self._follower.on_close = call

    def end(self, why: str) -> None:
        """Let nothing more come."""
        self._follower.close(why)

    def close(self) -> None:
        self._follower.on_close = None
        self._follower.close("closed")
        if not self._closed:
            self._closed = True
            self._source.leave(self._follower)

    async def begin(self, after: int | None) -> None:
        """What has to be known before the stream is promised. Raises DatabaseUnavailable."""
        follower = self._follower
        if after is not None:
            self._told = self._sent = after
            self._first = await self._source.past(follower, after)
            return
        self._source.join(follower)
        await self._until_let_in(OPEN_SECONDS)
        if follower.floor is None and follower.closed is None:
            raise DatabaseUnavailable("The database can't be reached. Try again in a moment.")
        self._told = follower.floor or 0

    async def blocks(self, *, keep_alive: float, follow: bool = True) -> AsyncIterator[bytes]:
        """Bytes for the wire, until nothing more will come; without `follow` until the past has been told.

        After `keep_alive` seconds of silence comes a comment, with the number to go on from where that has grown.
        """
        follower = self._follower
        yield sse.KEEP_ALIVE + self._place()
        if self._first is not None:
            async for block in self._past(self._first, keep_alive, follow=follow):
                yield block
        while follow and follower.closed is None:
            found = follower.take()
            if found is not None:
                self._sent, block = found
                yield block
                continue
            await follower.changed(keep_alive)
            if follower.empty and follower.closed is None:
                # Nothing waits: all that was read up to here has been told.
                self._told = max(self._told, self._source.position)
                yield sse.KEEP_ALIVE + self._place()

    async def _past(self, first: Page, keep_alive: float, *, follow: bool) -> AsyncIterator[bytes]:
        """Page by page; when the end is near the follower is let in, and told what is left up to its floor."""
        follower, page = self._follower, first
        while follower.closed is None:
            if block := self._block(page):
                yield block
            if not page.more:
                self._told = max(self._told, follower.floor or 0)
                if follower.floor is not None or not follow:
                    return
                follower.known = self._told
                self._source.join(follower)
                while not await self._until_let_in(keep_alive):
                    yield sse.KEEP_ALIVE
            async for found in self._pages():
                if isinstance(found, Page):
                    page = found
                elif follow:
                    yield found
                else:
                    return

    async def _pages(self) -> AsyncIterator[Page | bytes]:
        """The next page, once it is to be had, and a comment for each time that it was not."""
        while self._follower.closed is None:
            try:
                yield await self._source.past(self._follower, self._told, self._follower.floor)
            except DatabaseUnavailable:
                yield sse.KEEP_ALIVE
                await asyncio.sleep(AWAY_PAUSE)
            else:
                return

    async def _until_let_in(self, seconds: float) -> bool:
        """Wait that long at most. False: not yet."""
        follower = self._follower
        deadline = asyncio.get_running_loop().time() + seconds
        while follower.floor is None and follower.closed is None:
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                return False
            await follower.changed(left)
        return True

    def _block(self, page: Page) -> bytes:
        """A page for the wire. One who asks for what is not kept, or from a number that is not known, is told so."""
        blocks: list[bytes] = []
        if self._told > page.given:
            blocks.append(reset_frame(self._told, page.head, "unknown"))
            self._told = page.head
        elif self._told < page.horizon:
            blocks.append(reset_frame(self._told, page.horizon, "forgotten"))
            self._told = page.horizon
        if blocks:
            self._sent = self._told
        wanted = [event for event in page.events if self._follower.wants(event)]
        blocks += [event.frame(whose=self._follower.everything) for event in wanted]
        if wanted:
            self._sent = wanted[-1].seq
        if page.events:
            self._told = page.events[-1].seq
        return b"".join(blocks)

    def _place(self) -> bytes:
        """The number to go on from, where the client does not know it."""
        if self._told <= self._sent:
            return b""
        self._sent = self._told
        return place_frame(self._told)
