"""A FAKE model provider for benchmarks: fixed answers at almost no cost, so that it is not what is measured.

`python -m benchmarks.fake_upstream` prints its base URL and serves until it is ended. It runs no model and
checks nothing. Models: `fake-fixed` answers at once (whole, or as one write of a chunk per word);
`fake-50x20ms` streams 50 chunks at 20 ms, the content of each being the `time.monotonic_ns()` of its writing.
`GET /seen` says how many chat requests came and how many bytes they had.
"""

import asyncio
import socket
import sys
import time
from typing import Any, cast

import httptools
import msgspec
import uvloop

CHUNKS, PAUSE = 50, 0.02
REPLY = (
    "A turn is kept by the server: the message is committed first, then the provider is asked, and what it "
    "says is passed on and written down, so that nothing is lost when a client leaves."
)
_HEAD = {"id": "chatcmpl-fake", "object": "chat.completion", "created": 1_767_225_600, "model": "fake-fixed"}
_USAGE = {"prompt_tokens": 500, "completion_tokens": 40, "total_tokens": 540}


class Asked(msgspec.Struct):
    """What of a chat request matters here."""

    model: str
    stream: bool | None = None


_asked = msgspec.json.Decoder(Asked)


def _response(body: bytes, kind: bytes = b"application/json") -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n%b" % (kind, len(body), body)


def _part(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _event(**members: Any) -> bytes:
    head = {**_HEAD, "object": "chat.completion.chunk"}
    return b"data: %b\n\n" % msgspec.json.encode({**head, **members})


def _delta(delta: dict[str, str], finish: str | None = None) -> bytes:
    return _event(choices=[{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}])


_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
)
_ROLE = _delta({"role": "assistant", "content": ""})
_END = _delta({}, "stop") + _event(choices=[], usage=_USAGE) + b"data: [DONE]\n\n"
_LAST = _part(_END) + b"0\r\n\r\n"
_BEFORE_STAMP, _AFTER_STAMP = _delta({"content": "@"}).split(b"@")
_WORDS = [word + " " for word in REPLY.split()]
_STREAM = (
    _STREAM_HEAD + _part(_ROLE + b"".join(_delta({"content": word}) for word in _WORDS) + _END) + b"0\r\n\r\n"
)
_WHOLE = _response(
    msgspec.json.encode(
        {
            **_HEAD,
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": "".join(_WORDS), "refusal": None},
                    "logprobs": None,
                    "finish_reason": "stop",
                }
            ],
            "usage": _USAGE,
        }
    )
)
_MODELS = _response(
    msgspec.json.encode(
        {
            "object": "list",
            "data": [
                {"id": name, "object": "model", "created": 1_767_225_600, "owned_by": "benchmarks"}
                for name in ("fake-fixed", "fake-50x20ms")
            ],
        }
    )
)


class Upstream(asyncio.Protocol):
    """One connection."""

    requests = 0
    body_bytes = 0

    def __init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport
        self._timer: asyncio.TimerHandle | None = None
        self._url = b""
        self._body: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own class is none by name

    def connection_lost(self, _error: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._url = url
        self._body.clear()

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        if self._url.endswith(b"/chat/completions"):
            body = b"".join(self._body)
            Upstream.requests += 1
            Upstream.body_bytes += len(body)
            asked = _asked.decode(body)
            if not asked.stream:
                self._transport.write(_WHOLE)
            elif asked.model == "fake-50x20ms":
                self._transport.write(_STREAM_HEAD + _part(_ROLE))
                loop = asyncio.get_running_loop()
                due = loop.time() + PAUSE
                self._timer = loop.call_at(due, self._tick, CHUNKS, due)
            else:
                self._transport.write(_STREAM)
        elif self._url.endswith(b"/seen"):
            seen = {"requests": Upstream.requests, "body_bytes": Upstream.body_bytes}
            self._transport.write(_response(msgspec.json.encode(seen)))
        else:
            self._transport.write(_MODELS)

    def _tick(self, left: int, due: float) -> None:
        self._transport.write(_part(b"%b%d %b" % (_BEFORE_STAMP, time.monotonic_ns(), _AFTER_STAMP)))
        if left == 1:
            self._timer = None
            self._transport.write(_LAST)
        else:
            due += PAUSE
            self._timer = asyncio.get_running_loop().call_at(due, self._tick, left - 1, due)


async def serve() -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    server = await asyncio.get_running_loop().create_server(Upstream, sock=listener)
    print(f"http://127.0.0.1:{listener.getsockname()[1]}/v1", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    try:
        uvloop.run(serve())
    except KeyboardInterrupt:
        sys.exit(0)
