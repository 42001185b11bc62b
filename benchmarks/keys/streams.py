"""Streams that begin at a fixed rate, however long those before them take (an open loop)."""

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from benchmarks.clients import body
from benchmarks.keys.upstream import WORD
from benchmarks.load import Connection, FailedError, Server

QUESTION: Final = [{"role": "user", "content": "What happens to a message on its way through the server?"}]


@dataclass(frozen=True)
class Asked:
    """What one stream asks, and how many words it is to bring."""

    model: str
    words: int


@dataclass(frozen=True)
class Done:
    """A stream that has ended. `due`: when it was to begin, by the event loop's clock; `failure`: why it is none."""

    model: str
    due: float
    seconds: float  # from then on
    failure: str | None


class _Kept(Connection):
    """A connection that knows whether it is open."""

    open = True

    def connection_lost(self, error: Exception | None) -> None:
        self.open = False
        super().connection_lost(error)


@dataclass
class Streams:
    """The clients. `next_one` says what the next stream asks."""

    server: Server
    next_one: Callable[[], Asked]
    done: list[Done] = field(default_factory=list)
    under_way: int = 0
    behind: float = 0.0  # seconds that the generator itself was late, at most
    _idle: deque[_Kept] = field(default_factory=deque)

    async def run(self, rate: float, seconds: float) -> None:
        """Begin `rate` streams a second, and wait for the last of them."""
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(seconds, stop.set)
        await self.run_until(stop, rate)

    async def run_until(self, stop: asyncio.Event, rate: float) -> None:
        """As `run`, until `stop`."""
        loop = asyncio.get_running_loop()
        begun, running = loop.time(), set[asyncio.Task[None]]()
        for number in itertools.count():
            due = begun + number / rate
            if (ahead := due - loop.time()) > 0:
                await asyncio.sleep(ahead)
            else:
                self.behind = max(self.behind, -ahead)
            if stop.is_set():
                break
            task = asyncio.create_task(self._one(self.next_one(), due))
            running.add(task)
            task.add_done_callback(running.discard)
        await asyncio.gather(*running)

    def close(self) -> None:
        for connection in self._idle:
            connection.close()

    async def _one(self, asked: Asked, due: float) -> None:
        loop = asyncio.get_running_loop()
        self.under_way += 1
        failure = None
        try:
            connection = await self._connection()
            request = self.server.post(body(model=asked.model, messages=QUESTION, stream=True))
            answer = await connection.ask(request)
            self._idle.append(connection)
            if answer.status != 200:
                failure = f"answered {answer.status}: {answer.body[:300].decode(errors='replace')}"
            elif b"data: [DONE]" not in answer.body or answer.body.count(WORD.encode()) != asked.words:
                failure = f"ended early: {answer.body[-300:].decode(errors='replace')}"
        except (FailedError, OSError) as error:
            failure = f"{type(error).__name__}: {error}"
        finally:
            self.under_way -= 1
        self.done.append(Done(asked.model, due, loop.time() - due, failure))

    async def _connection(self) -> _Kept:
        while self._idle:
            connection = self._idle.popleft()
            if connection.open:
                return connection
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(_Kept, self.server.host, self.server.port)
        return connection


def clock_offset() -> float:
    """What is added to `time.time()` to have the clock by which the FAKE provider writes down what comes, seconds."""
    return time.monotonic() - time.time()
