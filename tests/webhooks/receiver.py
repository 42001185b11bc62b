"""A receiver of webhooks: a real HTTP server, with every manner that receivers have, the bad ones included.

The path says the manner: `/ok`, `/status/500`, `/fail/2/name` (fails twice, then takes it), `/hang`, `/drip`,
`/drip-head`, `/redirect`, `/cut`, `/cut-body`, `/huge`, `/busy/SECONDS`, `/nonsense`, `/slow/SECONDS`.
What it was sent is in `requests`.
"""

import asyncio
import contextlib
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Self


@dataclass(frozen=True)
class Received:
    """One request; header names are in lower case."""

    path: str
    headers: dict[str, str]
    body: bytes
    at: float

    @property
    def event(self) -> str:
        return self.headers["x-baatcheet-event"]

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


@dataclass
class Receiver:
    """Listens on `host` for as long as the block lasts."""

    host: str = "127.0.0.1"
    requests: list[Received] = field(default_factory=list)
    connections: int = 0
    port: int = 0

    async def __aenter__(self) -> Self:
        self._changed = asyncio.Event()
        self._failed: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = await asyncio.start_server(self._accept, self.host, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def url(self, path: str = "/ok") -> str:
        return f"http://{self.host}:{self.port}{path}"

    def at(self, path: str) -> list[Received]:
        """What was sent to `path`, in order."""
        return [one for one in self.requests if one.path == path]

    async def wait_for(self, count: int, path: str = "/ok", seconds: float = 30) -> list[Received]:
        """The requests to `path`, once there are `count`."""
        async with asyncio.timeout(seconds):
            while len(self.at(path)) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.at(path)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            path = head[0].split(" ")[1]
            headers = {
                name.lower(): value for name, value in (line.split(": ", 1) for line in head[1:] if line)
            }
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            self.requests.append(Received(path, headers, body, time.monotonic()))
            self._changed.set()
            await self._answer(path, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            return  # the other end hung up, as it may
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _answer(self, path: str, writer: asyncio.StreamWriter) -> None:
        manner, *rest = path.partition("?")[0].strip("/").split("/")
        match manner:
            case "status":
                await _say(writer, int(rest[0]), b"because of this")
            case "fail":
                self._failed[path] += 1
                await _say(writer, 500 if self._failed[path] <= int(rest[0]) else 200, b"not yet")
            case "hang":
                await asyncio.sleep(3600)
            case "slow":
                await asyncio.sleep(float(rest[0]))
                await _say(writer, 200, b"at last")
            case "redirect":
                await _say(writer, 302, b"", f"Location: {self.url('/ok')}")
            case "busy":
                await _say(writer, 429, b"slow down", f"Retry-After: {rest[0]}")
            case _ if manner in _BROKEN:
                await _drip(writer, *_BROKEN[manner])
            case _:
                await _say(writer, 200, b"thank you")


# What is sent first, what is sent again and again, and how many seconds lie between.
_BROKEN: dict[str, tuple[bytes, bytes, float]] = {
    "drip-head": (b"HTTP/1.1 200 OK\r\nX-Long: ", b"x", 0.05),
    "drip": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n", 0.05),
    "huge": (b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n", b"y" * 65536, 0),
    "cut": (b"HTTP/1.1 200 OK\r\nContent-Le", b"", 0),
    "cut-body": (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this", b"", 0),
    "nonsense": (b"SSH-2.0-OpenSSH_9.2\r\n", b"", 0),
}


async def _say(writer: asyncio.StreamWriter, status: int, body: bytes, *headers: str) -> None:
    lines = [f"HTTP/1.1 {status} As asked", f"Content-Length: {len(body)}", *headers, "", ""]
    writer.write("\r\n".join(lines).encode() + body)
    await writer.drain()


async def _drip(writer: asyncio.StreamWriter, first: bytes, again: bytes, pause: float) -> None:
    writer.write(first)
    await writer.drain()
    while again:
        writer.write(again)
        await writer.drain()
        await asyncio.sleep(pause)
