"""A FAKE model provider that knows keys, for benchmarks. It runs no model.

`python -m benchmarks.keys.upstream` prints its address and serves until it is ended: `/ANY/v1` is a provider. It
refuses (401) what comes with a key that it was not told of, asks to wait (429) for those of which it was told so, and
answers the rest. `keyless` as ANY asks for no key. Models: `stream` (10 words in half a second), `long` (20 words
in four), `late` (all at once after 50 ms, refusals too), `fixed` (at once).

`POST /keys` with `Told`; `GET /seen` answers `Seen`.
"""

import asyncio
import socket
import sys
import time
from typing import Any, Final, Literal, cast

import httptools
import msgspec
import uvloop

Manner = Literal["good", "limited", "revoked"]

LATE: Final = 0.05  # seconds
WAIT: Final = 1  # seconds, that a limited key is asked to
WORD: Final = "word "
PACES: Final = {"stream": (10, 0.05), "long": (20, 0.2)}  # words, seconds between them
MODELS: Final = (*PACES, "late", "fixed")


class Told(msgspec.Struct, frozen=True):
    """What becomes of requests with these keys from now on."""

    keys: list[str]
    manner: Manner


class Account(msgspec.Struct):
    """The chat requests that came with one key. Moments are `time.monotonic_ns()`."""

    answered: int = 0
    refused: int = 0
    limited: int = 0
    first: int = 0
    last: int = 0


class Seen(msgspec.Struct):
    """`after_revocation`: requests of any kind that came with a key that had been good before."""

    accounts: dict[str, Account]
    after_revocation: int


class _Asked(msgspec.Struct):
    model: str
    stream: bool | None = None


_asked = msgspec.json.Decoder(_Asked)
_told = msgspec.json.Decoder(Told)


def _response(body: object, status: str = "200 OK", header: str = "") -> bytes:
    data = msgspec.json.encode(body)
    head = (
        f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{header}content-length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data


def _error(status: str, message: str, code: str, header: str = "") -> bytes:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return _response({"error": error}, status, header)


def _event(**members: Any) -> bytes:
    head = {
        "id": "chatcmpl-fake",
        "object": "chat.completion.chunk",
        "created": 1_767_225_600,
        "model": "fake",
    }
    return b"data: %b\n\n" % msgspec.json.encode(head | members)


def _delta(delta: dict[str, str], finish: str | None = None) -> bytes:
    return _event(choices=[{"index": 0, "delta": delta, "finish_reason": finish}])


def _part(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


_USAGE = {"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30}
_STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_BEGIN = _STREAM_HEAD + _part(_delta({"role": "assistant", "content": ""}))
_WORD = _part(_delta({"content": WORD}))
_LAST = _part(_delta({}, "stop") + _event(choices=[], usage=_USAGE) + b"data: [DONE]\n\n") + b"0\r\n\r\n"
_WHOLE = _response(
    {
        "id": "chatcmpl-fake",
        "object": "chat.completion",
        "created": 1_767_225_600,
        "model": "fake",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": WORD}, "finish_reason": "stop"},
        ],
        "usage": _USAGE,
    }
)
_MODELS = _response({"object": "list", "data": [{"id": name, "object": "model"} for name in MODELS]})
_REFUSED = _error("401 Unauthorized", "Invalid API key.", "invalid_api_key")
_LIMITED = _error("429 Too Many Requests", "Wait.", "rate_limit_exceeded", f"retry-after: {WAIT}\r\n")
_DONE = _response({})


class Upstream(asyncio.Protocol):
    """One connection."""

    manners: Final[dict[str, Manner]] = {}
    seen: Final = Seen({}, 0)

    def __init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport
        self._timer: asyncio.TimerHandle | None = None
        self._url, self._key = "", ""
        self._body: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own class is none by name

    def connection_lost(self, _error: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._url, self._key = url.decode(), ""
        self._body.clear()

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"authorization":
            self._key = value.decode().removeprefix("Bearer ")

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        body = b"".join(self._body)
        if self._url == "/keys":
            told = _told.decode(body)
            self.manners.update(dict.fromkeys(told.keys, told.manner))
            self._transport.write(_DONE)
        elif self._url == "/seen":
            self._transport.write(_response(self.seen))
        else:
            keyless = self._url.startswith("/keyless/")
            manner = "good" if keyless else self.manners.get(self._key)
            self.seen.after_revocation += manner == "revoked"
            if self._url.endswith("/chat/completions"):
                self._chat(_asked.decode(body), manner)
            else:
                self._transport.write(_MODELS if manner in {"good", "limited"} else _REFUSED)

    def _chat(self, asked: _Asked, manner: Manner | None) -> None:
        account = self.seen.accounts.setdefault(self._key, Account())
        account.last = time.monotonic_ns()
        account.first = account.first or account.last
        if manner == "good":
            account.answered += 1
        elif manner == "limited":
            account.limited += 1
        else:
            account.refused += 1
        if manner == "good" and asked.model in PACES:
            self._transport.write(_BEGIN)
            words, pause = PACES[asked.model]
            self._later(pause, self._say, words, pause, asyncio.get_running_loop().time())
            return
        if manner != "good":
            answer = _LIMITED if manner == "limited" else _REFUSED
        else:
            answer = _BEGIN + _WORD + _LAST if asked.stream else _WHOLE
        if asked.model == "late":
            self._later(LATE, self._transport.write, answer)
        else:
            self._transport.write(answer)

    def _say(self, left: int, pause: float, begun: float) -> None:
        self._transport.write(_WORD if left > 1 else _WORD + _LAST)
        if left > 1:
            self._later(pause, self._say, left - 1, pause, begun)

    def _later(self, seconds: float, call: Any, *arguments: Any) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, call, *arguments)


async def serve() -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    server = await asyncio.get_running_loop().create_server(Upstream, sock=listener)
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    try:
        uvloop.run(serve())
    except KeyboardInterrupt:
        sys.exit(0)
