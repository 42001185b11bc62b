"""A Redis that stays polite while somebody introduces himself, and then talks nonsense."""

import asyncio
import threading
from types import TracebackType
from typing import Any, Final, Self

import hiredis

# By name: what every command is answered but the first PING of a connection. None: the connection is closed.
NONSENSE: Final[dict[str, bytes | None]] = {
    "another protocol": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "bytes": bytes(range(128, 256)),
    "a word": b"+OK\r\n",
    "a number": b":-7\r\n",
    "text": b"$10\r\n" + b"\xd8\xb3\xd9\x84\xd8\xa7\xd9\x85\xd8\xaa" + b"\r\n",
    "nothing": b"$-1\r\n",
    "an empty list": b"*0\r\n",
    "a list of lists": b"*6\r\n" + b"*1\r\n$3\r\nfoo\r\n" * 6,
    "numbers from nowhere": b"*6\r\n" + b":1\r\n:99999999999999\r\n:-5\r\n:3\r\n:0\r\n:0\r\n",
    "no such command": b"-ERR unknown command\r\n",
    "no permission": b"-NOPERM this user has no permissions to run the 'evalsha' command\r\n",
    "a password is needed": b"-NOAUTH Authentication required.\r\n",
    "a script that runs": b"-BUSY Redis is busy running a script.\r\n",
    "another kind": b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n",
    "an error in no alphabet": b"-\xff\xfe\xfd\r\n",
    "lists in lists": b"*1\r\n" * 40,
    "a number that is none": b":seven\r\n",
    "more than there is": b"$-17\r\n",
    "still loading": b"-LOADING Redis is loading the dataset in memory\r\n",
    "half an answer": b"$100\r\nhal",
    "two answers for one": b"+OK\r\n+OK\r\n",
    "the line is cut": None,
}

LONGEST = 5.0  # seconds that starting and stopping may take


class GarblingRedis:
    """On a thread of its own; gone with the `with` block. `answer`: what it says next."""

    def __init__(self) -> None:
        self.answer: bytes | None = b"+OK\r\n"
        self.asked = 0  # commands that were answered so
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="garbling redis", daemon=True)
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/0"

    def __enter__(self) -> Self:
        self._thread.start()
        opening = asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._server = asyncio.run_coroutine_threadsafe(opening, self._loop).result(LONGEST)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(LONGEST)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(LONGEST)
        self._loop.close()

    async def _close(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        parser = hiredis.Reader()
        polite = True
        try:
            while data := await reader.read(65536):
                parser.feed(data)
                while (command := parser.gets()) is not False:
                    if polite and _name(command) in {b"PING", b"SELECT", b"CLIENT"}:
                        polite = _name(command) != b"PING"
                        writer.write(b"+OK\r\n" if polite else b"+PONG\r\n")
                        continue
                    self.asked += 1
                    if self.answer is None:
                        return
                    writer.write(self.answer)
                await writer.drain()
        except (ConnectionError, asyncio.CancelledError):
            return  # cancelled by us alone, at the end
        finally:
            writer.close()


def _name(command: Any) -> bytes:
    return bytes(command[0]).upper()
