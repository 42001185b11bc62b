"""A small load balancer: it asks who is ready, sends each request there, and tries another where nobody accepts."""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Self

ASK_EVERY = 0.2  # seconds between two questions whether a server is ready
PATIENCE = 10.0  # seconds that a request waits for a server that accepts it


class Balancer:
    """Before the servers on `ports` of this machine; in use as a context.

    As those that people use, it sends a request again only where nothing of it was taken: a POST that was cut off may
    have been done.
    """

    def __init__(self, ports: Sequence[int]) -> None:
        self._ports = list(ports)
        self._ready: list[int] = []
        self._turn = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self.moved = 0  # requests that were sent elsewhere, because their server did not accept them
        self.url = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._admit, "127.0.0.1", 0, backlog=512)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        self._asking = asyncio.create_task(self._ask())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        tasks = [self._asking, *self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(self) -> None:
        while True:
            answers = await asyncio.gather(*map(_is_ready, self._ports))
            self._ready = [port for port, ready in zip(self._ports, answers, strict=True) if ready]
            await asyncio.sleep(ASK_EVERY)

    def _admit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request: what is answered says that the connection ends with it."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head[:-4].split(b"\r\n")
            fields = dict(line.lower().split(b": ", 1) for line in lines[1:])
            body = await reader.readexactly(int(fields.get(b"content-length", b"0")))
            kept = [line for line in lines if not line.lower().startswith(b"connection:")]
            request = b"\r\n".join([*kept, b"connection: close", b"", b""]) + body
            theirs, there = await self._connect()
            try:
                there.write(request)
                answered = False
                while data := await theirs.read(65536):
                    answered = True
                    writer.write(data)
                    await writer.drain()
                if not answered:
                    writer.write(
                        b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
                    )
            finally:
                there.close()
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client sees its connection end
        finally:
            writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """To the next that accepts; whoever was ready a moment ago may have stopped."""
        async with asyncio.timeout(PATIENCE):
            while True:
                self._turn += 1
                ports = self._ready or self._ports
                try:
                    return await asyncio.open_connection("127.0.0.1", ports[self._turn % len(ports)])
                except OSError:
                    self.moved += 1
                    await asyncio.sleep(0.01)


async def _is_ready(port: int) -> bool:
    with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
        async with asyncio.timeout(2):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(b"GET /ready HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                return b" 200 " in await reader.readuntil(b"\r\n")
            finally:
                writer.close()
    return False
