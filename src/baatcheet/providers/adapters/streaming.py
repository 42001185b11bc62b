"""Reading one streamed reply, with its time limits, in whatever protocol."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Protocol

import aiohttp

from baatcheet.kit import sse
from baatcheet.providers.adapters.errors import Reporter
from baatcheet.providers.adapters.http import TimeLimits
from baatcheet.providers.adapters.received import ErrorEvent, UnreadableError
from baatcheet.providers.model import Chunk, ProviderError

_FRAMING = 5.0  # seconds that usage and the protocol's own end may come after the finish_reason
_DRAIN = (
    0.1  # seconds given to a finished stream to end its response, so that the connection can be used again
)


class Events(Protocol):
    """Turns one stream's events into chunks."""

    @property
    def working(self) -> bool:
        """Whether the provider has said that the model is at work on something that is not shown."""
        ...

    def take(self, data: bytes, chunks: list[Chunk]) -> bool:
        """Append the chunks of one event, which is not empty; True for the protocol's own end of the stream.

        Raises UnreadableError or ErrorEvent.
        """
        ...


class _SilenceError(Exception):
    """No token came in time."""


class Stream(AsyncIterator[list[Chunk]]):
    """The chunks of one response, in the lots in which they arrived.

    A timer that is seldom moved watches over it: a chunk only notes the new deadline.
    """

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        events: Events,
        report: Reporter,
        limits: TimeLimits,
        deadline: float,
    ) -> None:
        """`deadline`: the loop's time until which the first token must have come."""
        self._response = response
        self._content = response.content
        self._report = report
        self._events = events
        self._take_event = events.take
        self._parser = sse.Parser()
        self._first_token_timeout = limits.first_token
        self._idle_timeout = limits.idle
        self._framing = min(_FRAMING, limits.idle)
        self._began = False
        self._finished = False  # a finish_reason was seen
        self._done = False  # the protocol's own end, or the end of a reply that had finished
        self._failure: ProviderError | None = None
        self._loop = asyncio.get_running_loop()
        self._read = 0  # bytes that were fetched so far
        self._deadline = self._rings_at = deadline
        self._timer = self._loop.call_at(deadline, self._look)

    def _expect_within(self, seconds: float) -> None:
        self._deadline = self._loop.time() + seconds
        if self._deadline < self._rings_at:  # after the first token and after the last, when they come early
            self._timer.cancel()
            self._ring_at(self._deadline)

    def _ring_at(self, moment: float) -> None:
        self._rings_at = moment
        self._timer = self._loop.call_at(moment, self._look)

    def _look(self) -> None:
        now = self._loop.time()
        if self._content.total_bytes > self._read:
            # Something came that nobody has fetched yet: it is our consumer who is slow.
            self._deadline = max(self._deadline, now + self._idle_timeout)
        if now < self._deadline:
            self._ring_at(self._deadline)
        else:
            self._content.set_exception(_SilenceError())

    async def __anext__(self) -> list[Chunk]:
        while True:
            if self._failure is not None:
                raise self._failure
            if self._done:
                raise StopAsyncIteration
            try:
                block = await self._content.readany()
            except _SilenceError:
                self._silent()
                continue
            except (aiohttp.ClientError, OSError):
                self._end()
                continue
            self._read = self._content.total_bytes
            chunks = self._parse(block)
            if chunks and self._began:
                self._expect_within(self._framing if self._finished else self._idle_timeout)
            elif self._events.working:
                self._deadline = max(self._deadline, self._loop.time() + self._idle_timeout)
            if chunks:
                return chunks

    def _parse(self, block: bytes) -> list[Chunk]:
        chunks: list[Chunk] = []
        try:
            if not block:
                self._take(self._parser.close(), chunks)
                self._end()
            else:
                self._take(self._parser.feed(block), chunks)
        except UnreadableError as error:
            self._failure = self._report.error("malformed", f"sent an event that can't be read: {error}")
        except ErrorEvent as event:
            self._failure = self._report.from_event(event.error)
        except ValueError as error:
            self._failure = self._report.error("malformed", str(error))
        return chunks

    def _take(self, events: list[bytes], chunks: list[Chunk]) -> None:
        for data in events:
            if data and self._take_event(data, chunks):
                self._done = True
                break
        for chunk in chunks:
            if chunk.finish_reason is not None:
                self._finished = self._began = True
            elif not self._began:
                self._began = bool(chunk.text) or chunk.choice is not None

    def _end(self) -> None:
        """The response is over. What is missing after a finish_reason is only framing."""
        if self._done or self._finished:
            self._done = True
        else:
            self._failure = self._report.error("cut", "ended the stream before the reply was complete")

    def _silent(self) -> None:
        if self._finished:
            self._done = True
        elif self._began:
            self._failure = self._report.error("timeout", f"sent nothing for {self._idle_timeout:g} s")
        else:
            waited = f"sent no token within {self._first_token_timeout:g} s"
            self._failure = self._report.error("timeout", waited)

    async def close(self) -> None:
        """Let go of the connection: back to the pool when its response has ended, closed otherwise."""
        self._timer.cancel()
        if self._done and not self._content.at_eof():
            with contextlib.suppress(TimeoutError, aiohttp.ClientError, OSError, _SilenceError):
                async with asyncio.timeout(_DRAIN):
                    while await self._content.readany():
                        pass
        if self._content.at_eof():
            self._response.release()
        else:
            self._response.close()
