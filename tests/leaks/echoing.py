"""A FAKE of providers that tell the key that they were sent, in every way in which an answer can go wrong.

One server stands for all of them: OpenAI's protocol, OpenAI's admin API and OCR.space's. It speaks HTTP by hand, since
much of what it says no server would let through. It runs no model.
"""

import asyncio
import base64
import html
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import cycle
from typing import Final
from urllib.parse import quote


def _envelope(message: str, **more: object) -> bytes:
    return json.dumps({"error": {"message": message, "type": "invalid_request_error", **more}}).encode()


_PADDING: Final = "All that was sent is repeated here so that it can be looked at. " * 8

# How an error's body tells the key.
BODIES: Final[Mapping[str, Callable[[str], bytes]]] = {
    "plain": lambda key: _envelope(f"Incorrect API key provided: {key}. Find yours on the page of keys."),
    "base64": lambda key: _envelope(f"Bad header {base64.b64encode(key.encode()).decode()}"),
    "base64 of the header": lambda key: _envelope(base64.b64encode(f"Bearer {key}\r\n".encode()).decode()),
    "base64 from the third byte": lambda key: _envelope(base64.b64encode(b"k=" + key.encode()).decode()),
    "URL-safe base64": lambda key: _envelope(base64.urlsafe_b64encode(f"u:{key}".encode()).decode()),
    "URL-encoded": lambda key: _envelope(f"GET /v1/check?key={quote(key, safe='')}&v=2 is not allowed"),
    "hexadecimal": lambda key: _envelope(f"unexpected bytes {key.encode().hex()}"),
    "hexadecimal in capitals": lambda key: _envelope(f"unexpected bytes {key.encode().hex().upper()}"),
    "first half": lambda key: _envelope(f"no account for {key[: len(key) // 2 + 4]}…"),
    "second half": lambda key: _envelope(f"no account for …{key[len(key) // 2 - 4 :]}"),
    "all but the ends": lambda key: _envelope(f"no account for {key[4:-4]}"),
    "split over two fields": lambda key: _envelope(
        key[: len(key) // 2], code=key[len(key) // 2 :], param=f"headers.{key}", type=key
    ),
    "in quotes": lambda key: _envelope(f"bad json: {json.dumps({'authorization': f'Bearer {key}'})}"),
    "HTML": lambda key: (
        f"<html><title>401</title><body><pre>Authorization: {html.escape(key)}</pre>".encode()
    ),
    "text": lambda key: f"upstream error: apikey={key} rejected\n".encode(),
    "detail": lambda key: json.dumps({"detail": [{"loc": ["header"], "input": f"Bearer {key}"}]}).encode(),
    "Google's list": lambda key: json.dumps([{"error": {"message": f"API key not valid: {key}"}}]).encode(),
    "at the limit": lambda key: _envelope(_PADDING[: 500 - len(key) // 2] + key),
    "at 300 characters": lambda key: _envelope(_PADDING[: 300 - len(key) // 2 - 20] + key),
    "OCR.space's": lambda key: json.dumps(
        {"OCRExitCode": 99, "IsErroredOnProcessing": True, "ErrorMessage": [f"apikey {key}", key[:13]]}
    ).encode(),
    "a string alone": lambda key: json.dumps(f"The API key {key} is invalid").encode(),
    "with escapes": lambda key: _envelope("key").replace(
        b"key", "".join(f"\\u{ord(one):04x}" for one in key).encode()
    ),
    "as a name": lambda key: json.dumps({"error": {key: key, "message": {key: [key]}}}).encode(),
}

# What is wrong with the answer around it.
BROKEN: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "in the reason phrase": lambda key: b"HTTP/1.1 401 " + key + b"\r\ncontent-length: 0\r\n\r\n",
    "in the status line": lambda key: b"HTTP/1.1 " + key + b"\r\n\r\n",
    "not HTTP": lambda key: b"Authorization: Bearer " + key + b"\r\n\r\n",
    "in a header": lambda key: _answer(b"400 Bad", b"{}", b"x-your-key: " + key, b"retry-after: " + key),
    "in rate-limit headers": lambda key: _answer(
        b"429 Busy",
        b"{}",
        *(
            b"x-ratelimit-" + name + b": " + key
            for name in (b"limit-requests", b"remaining-requests", b"reset-requests", b"reset-tokens")
        ),
    ),
    "in a bad header": lambda key: b"HTTP/1.1 200 OK\r\n" + key + b"\x00bad header\r\n\r\n",
    "in the media type": lambda key: (
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-type: text/"
        + re.sub(rb"[^A-Za-z0-9_-]", b"", key)
        + b"\r\n\r\n{}"
    ),
    "in a redirect": lambda key: _answer(
        b"307 Go", b"", b"location: http://127.0.0.1:9/?key=" + quote(key).encode()
    ),
    "in a chunk's length": lambda key: (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
        b"transfer-encoding: chunked\r\n\r\n" + key + b"\r\n" + key + b"\r\n"
    ),
    "as gzip that is none": lambda key: _answer(b"500 No", key, b"content-encoding: gzip"),
    "in malformed JSON": lambda key: _answer(b"200 OK", b'{"choices": [{"message": ' + key + b"}]"),
    "in JSON of another shape": lambda key: _answer(
        b"200 OK", json.dumps({"choices": key.decode(), "data": key.decode(), "usage": key.decode()}).encode()
    ),
    "in a 200 that is an error": lambda key: _answer(
        b"200 OK", json.dumps({"error": {"message": f"bad key {key.decode()}", "code": 401}}).encode()
    ),
    "in half an answer": lambda key: (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
        b'content-length: 5000\r\n\r\n{"choices": [{"error": "' + key
    ),
}

_BEGUN: Final = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":"Well, "}}]}\n\n'

# What comes in the middle of a stream.
STREAMS: Final[Mapping[str, Callable[[str], bytes]]] = {
    "an error event": lambda key: b"data: " + _envelope(f"key {key} was revoked", code=401) + b"\n\n",
    "an error event's half": lambda key: b"data: " + _envelope(key[: len(key) // 2 + 4], code=key) + b"\n\n",
    "an error that is a string": lambda key: (
        b"data: " + json.dumps({"error": f"no {key}"}).encode() + b"\n\n"
    ),
    "a named error event": lambda key: b"event: error\ndata: " + _envelope(f"no {key}") + b"\n\n",
    "a malformed event": lambda key: f'data: {{"choices": [{{"delta": {key}\n\n'.encode(),
    "an event of another shape": lambda key: (
        b"data: " + json.dumps({"choices": [{"delta": key}]}).encode() + b"\n\n"
    ),
    "an event that is a string": lambda key: b"data: " + json.dumps(key).encode() + b"\n\n",
    "a usage of another shape": lambda key: (
        b"data: "
        + json.dumps({"choices": [], "usage": {"prompt_tokens": key}}).encode()
        + b"\n\ndata: [DONE]\n\n"
    ),
    "half an event": lambda key: f'data: {{"error": {{"message": "{key}'.encode(),
    "a comment": lambda key: f": {key}\n\n".encode(),
    "silence": lambda key: b"",
}

GOOD: Final = "good"
SILENT: Final = "silent"
Manner = str | tuple[int, str]
GONE: Final = "gone"


def _answer(status: bytes, body: bytes, *headers: bytes) -> bytes:
    lines = [b"HTTP/1.1 " + status, b"content-type: application/json", b"content-length: %d" % len(body)]
    return b"\r\n".join([*lines, *headers, b"", body])


@dataclass
class Asked:
    """One request."""

    method: str
    path: str
    key: str
    body: bytes


class EchoingProvider:
    """Listens for as long as the block lasts. `manner`: what it does with whatever it is asked.

    `good`, `silent`, `gone`, a name of `BROKEN` or `STREAMS`, or `(status, name of BODIES)`.
    """

    def __init__(self) -> None:
        self.manner: Manner = GOOD
        self.refused: set[str] = set()  # keys that are answered 401 with themselves, whatever the manner
        self.new_keys: list[str] = []  # what the admin API gives out
        self.on_new_key: Callable[[], None] = lambda: None
        self.told: Counter[str] = Counter()  # manners in which a key was told
        self.asked: Counter[str] = Counter()  # keys that were sent
        self.port = 0
        self._made = 0
        self._ways = cycle(BODIES)

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self._server.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (asked := await _request(reader)) is not None:
                self.asked[asked.key] += 1
                whole = await self._answer(asked, writer)
                await writer.drain()
                if not whole:
                    break
        except (OSError, asyncio.IncompleteReadError):
            pass  # whoever asked has gone
        finally:
            writer.close()

    async def _answer(self, asked: Asked, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection may be used again."""
        manner, key = self.manner, asked.key
        if key in self.refused:
            manner = 401, next(self._ways)
        if "/organization/" in asked.path and key not in self.refused and self.new_keys:
            writer.write(self._admin(asked))
            return True
        streamed = b'"stream":true' in asked.body.replace(b" ", b"")
        if manner == GOOD:
            writer.write(_good(asked, streamed=streamed))
            return not streamed
        self.told[manner if isinstance(manner, str) else f"{manner[0]} {manner[1]}"] += 1
        if isinstance(manner, tuple):
            status, body = manner
            writer.write(_answer(b"%d No" % status, BODIES[body](key)))
            return True
        if manner == GONE:
            return False
        if manner == SILENT:
            await asyncio.sleep(30)
            return False
        if manner in STREAMS and streamed:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + _BEGUN)
            await writer.drain()
            writer.write(STREAMS[manner](key))
            await writer.drain()
            if manner in {"silence", "a comment"}:
                await asyncio.sleep(3)
            return False
        if manner in STREAMS:
            writer.write(_answer(b"400 No", BODIES["plain"](key)))
            return True
        writer.write(BROKEN[manner](key.encode()))
        return False

    def _admin(self, asked: Asked) -> bytes:
        """OpenAI's admin API: it makes keys, and fails with the rest in the admin key's own words."""
        if asked.method == "POST":
            self._made += 1
            key = self.new_keys.pop(0)
            name = json.loads(asked.body)["name"]
            self.on_new_key()
            made = {"object": "organization.project.service_account.api_key", "value": key, "id": "key_1"}
            account = {"object": "organization.project.service_account", "name": name, "api_key": made}
            return _answer(b"200 OK", json.dumps({**account, "id": f"svc_{self._made}"}).encode())
        if asked.method == "GET":
            return _answer(b"200 OK", json.dumps({"object": "list", "data": [], "has_more": False}).encode())
        return _answer(b"500 No", BODIES["plain"](asked.key))


def _good(asked: Asked, *, streamed: bool) -> bytes:
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    if asked.path.endswith("/models"):
        return _answer(b"200 OK", json.dumps({"object": "list", "data": [{"id": "talks"}]}).encode())
    if asked.path.endswith("/embeddings"):
        vectors = [{"object": "embedding", "index": 0, "embedding": [0.6, 0.8]}]
        return _answer(b"200 OK", json.dumps({"object": "list", "data": vectors, "usage": usage}).encode())
    if asked.path.endswith("/transcriptions"):
        return _answer(b"200 OK", json.dumps({"text": "good morning"}).encode())
    if streamed:
        end = b'data: {"choices":[{"index":0,"delta":{"content":"yes."},"finish_reason":"stop"}]}\n\n'
        return (
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + _BEGUN + end + b"data: [DONE]\n\n"
        )
    message = {"role": "assistant", "content": "Well, yes."}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    return _answer(b"200 OK", json.dumps({"choices": choices, "usage": usage}).encode())


async def _request(reader: asyncio.StreamReader) -> Asked | None:
    """The next request; None when there is none any more."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    except asyncio.IncompleteReadError:
        return None
    method, path, _ = head[0].split(" ", 2)
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
    if "chunked" in headers.get("transfer-encoding", ""):
        body = b"".join([chunk async for chunk in _chunks(reader)])
    else:
        body = await reader.readexactly(int(headers.get("content-length", "0")))
    key = headers.get("apikey") or headers.get("authorization", "").removeprefix("Bearer ")
    return Asked(method, path.partition("?")[0], key, body)


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while size := int((await reader.readline()).split(b";")[0], 16):
        yield await reader.readexactly(size)
        await reader.readexactly(2)
    await reader.readline()


def manners() -> Iterator[Manner]:
    """Every way in which a request itself is refused."""
    for body in BODIES:
        yield 400, body
    yield from BROKEN
    yield from STREAMS
