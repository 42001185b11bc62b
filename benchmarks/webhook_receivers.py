"""Receivers of webhooks in a process of their own: `python -m benchmarks.webhook_receivers HEALTHY HANGING`.

Prints its control address, a number of ports for healthy ones and as many for hanging ones as asked. A healthy one
answers at once; a hanging one takes what it is sent and says nothing. `GET /arrived` at the control address gives, for
each healthy one's request, when it came (CLOCK_MONOTONIC, which all processes share), and forgets them.
"""

import asyncio
import contextlib
import sys
import time
from functools import partial

import msgspec
import uvloop

_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Receivers:
    """What has arrived."""

    def __init__(self) -> None:
        self.arrived: list[float] = []

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, hangs: bool = False
    ) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(_length(head))
            if hangs:
                await reader.read()  # until the other end gives up
            else:
                self.arrived.append(time.monotonic())
                writer.write(_OK)
                await writer.drain()
        writer.close()

    async def control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body, self.arrived = msgspec.json.encode(self.arrived), []
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)
        await writer.drain()
        writer.close()


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


async def run(healthy: int, hanging: int) -> None:
    receivers = Receivers()
    servers = [await asyncio.start_server(receivers.control, "127.0.0.1", 0)]
    for number in range(healthy + hanging):
        serve = partial(receivers.serve, hangs=number >= healthy)
        servers.append(await asyncio.start_server(serve, "127.0.0.1", 0, backlog=512))
    print(*(server.sockets[0].getsockname()[1] for server in servers), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(run(int(sys.argv[1]), int(sys.argv[2])))
