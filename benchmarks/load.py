"""A cheap HTTP/1.1 load generator: one keep-alive connection per client, parsed by httptools.

It is made to cost little, so that on few cores what it takes is not taken from what is measured.
"""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

import httptools

PATIENCE = 60.0  # seconds for one answer
STAMP = re.compile(rb'"content":"(\d+) "')


class FailedError(Exception):
    """A request was not answered as it should be."""


@dataclass
class Answer:
    """One answer. `stamps`: for each stamped chunk when it was written upstream and when it came here, ns."""

    status: int = 0
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""
    stamps: list[tuple[int, int]] = field(default_factory=list)


class Connection(asyncio.Protocol):
    """One keep-alive connection, one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._parser: httptools.HttpResponseParser
        self._answer = Answer()
        self._parts: list[bytes] = []
        self._stamped = False
        self._tail = b""
        self._now = 0
        self._waiter: asyncio.Future[Answer] | None = None

    async def ask(self, request: bytes, *, stamped: bool = False) -> Answer:
        """The answer to `request`. Raises FailedError when the connection ends or nothing comes."""
        self._parser = httptools.HttpResponseParser(self)
        self._answer, self._parts, self._stamped, self._tail = Answer(), [], stamped, b""
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        alarm = loop.call_later(PATIENCE, self._fail, "nothing came in time")
        self._transport.write(request)
        try:
            return await self._waiter
        finally:
            alarm.cancel()

    def close(self) -> None:
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own class is none by name

    def connection_lost(self, _error: Exception | None) -> None:
        self._fail("the connection was closed")

    def data_received(self, data: bytes) -> None:
        self._now = time.monotonic_ns()
        self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._answer.headers[name.lower()] = value

    def on_body(self, body: bytes) -> None:
        if not self._stamped:
            self._parts.append(body)
            return
        text, newline, self._tail = (self._tail + body).rpartition(b"\n")
        if newline:
            now = self._now
            self._answer.stamps += [(int(match), now) for match in STAMP.findall(text)]

    def on_message_complete(self) -> None:
        self._answer.status = self._parser.get_status_code()
        self._answer.body = b"".join(self._parts)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(self._answer)

    def _fail(self, why: str) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(FailedError(why))


@dataclass(frozen=True)
class Server:
    """Where requests go."""

    host: str
    port: int
    token: str | None = None

    @classmethod
    def at(cls, base_url: str, token: str | None = None) -> "Server":
        parts = urlsplit(base_url)
        assert parts.hostname is not None
        assert parts.port is not None
        return cls(parts.hostname, parts.port, token)

    async def connect(self) -> Connection:
        _, connection = await asyncio.get_running_loop().create_connection(Connection, self.host, self.port)
        return connection

    def post(self, body: bytes, path: str = "/v1/chat/completions") -> bytes:
        """The bytes of a POST."""
        auth = "" if self.token is None else f"authorization: Bearer {self.token}\r\n"
        head = (
            f"POST {path} HTTP/1.1\r\nhost: {self.host}:{self.port}\r\ncontent-type: application/json\r\n"
            f"{auth}content-length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    def get(self, path: str) -> bytes:
        """The bytes of a GET."""
        return f"GET {path} HTTP/1.1\r\nhost: {self.host}:{self.port}\r\n\r\n".encode()


Script = Callable[[Connection], Awaitable[None]]
"""Makes one request on a connection and checks its answer; raises FailedError."""


@dataclass
class Round:
    """What one round of load did."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)  # seconds, one of each answered request
    failures: list[str] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Answered requests per second."""
        return len(self.latencies) / self.seconds if self.seconds else 0.0


async def press(
    server: Server, scripts: Sequence[Script], *, seconds: float = 60.0, requests: int | None = None
) -> Round:
    """Let each script run over and over on a connection of its own, all at once.

    Ends after `seconds`, or when `requests` have been begun altogether; what is under way is waited for.
    """
    done = Round()
    connections = [await server.connect() for _ in scripts]
    left = requests if requests is not None else 1 << 60
    clock = time.perf_counter
    begun = clock()
    end = begun + seconds

    async def client(connection: Connection, script: Script) -> None:
        nonlocal left
        while left > 0 and (start := clock()) < end:
            left -= 1
            try:
                await script(connection)
            except FailedError as error:
                done.failures.append(str(error))
                return
            done.latencies.append(clock() - start)

    try:
        await asyncio.gather(*map(client, connections, scripts))
        done.seconds = clock() - begun
    finally:
        for connection in connections:
            connection.close()
    return done
