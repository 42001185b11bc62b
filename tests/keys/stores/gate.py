"""A gate before a server on this machine: it lets through, is shut, hangs, or answers for it."""

import asyncio
import contextlib
from typing import Literal

Mode = Literal["open", "hanging", "answering"]


class Gate:
    """A TCP proxy in the test's own event loop."""

    def __init__(self, host: str, port: int) -> None:
        self._behind = (host, port)
        self._mode: Mode = "open"
        self._answer = b""
        self._server: asyncio.Server | None = None
        self._going: set[asyncio.Task[None]] = set()
        self.port = 0
        self.passed = 0  # connections

    async def open(self) -> None:
        self._mode = "open"
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]
        else:
            await self._drop()

    async def shut(self) -> None:
        """Nobody listens any more."""
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._drop()

    async def hang(self) -> None:
        self._mode = "hanging"
        await self._drop()

    async def answer(self, status: str, kind: str, body: bytes) -> None:
        """Answer every request so, whatever it is."""
        head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        self._answer = head.encode() + body
        self._mode = "answering"
        await self._drop()

    async def _drop(self) -> None:
        """End what is connected."""
        for task in list(self._going):
            task.cancel()
        await asyncio.gather(*self._going, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._going.add(task)
        self.passed += 1
        try:
            await self._pass(reader, writer)
        except (OSError, asyncio.CancelledError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # one of the two has gone, or the gate was turned
        finally:
            self._going.discard(task)
            writer.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._mode == "hanging":
            await asyncio.Event().wait()
        if self._mode == "answering":
            head = await reader.readuntil(b"\r\n\r\n")
            for line in head.lower().split(b"\r\n"):
                if line.startswith(b"content-length:"):
                    await reader.readexactly(int(line.partition(b":")[2]))
            writer.write(self._answer)
            await writer.drain()
            writer.write_eof()
            await reader.read()
            return
        there, back = await asyncio.open_connection(*self._behind)
        ways = [asyncio.create_task(_copy(reader, back)), asyncio.create_task(_copy(there, writer))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            # The other way has nothing to carry any more: left alone, it would keep its sockets for another test.
            back.transport.abort()
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while chunk := await source.read(65_536):
            target.write(chunk)
            await target.drain()
