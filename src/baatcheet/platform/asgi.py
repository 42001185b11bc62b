"""The frame around every request, and the small tools of plain ASGI endpoints.

`Frame` is the outermost ASGI application: it names the request, finds the real client behind trusted proxies,
answers CORS preflights, holds bodies to their limit and their pace, adds security headers, turns what escapes
into an answer in the surface's shape, counts, traces and logs.
"""

import asyncio
import contextlib
import functools
import ipaddress
import re
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from types import MappingProxyType, TracebackType
from typing import Any, Final, Self

import msgspec
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from baatcheet.kit.ids import new_id
from baatcheet.platform import patience
from baatcheet.platform.errors import (
    PROBLEM_JSON,
    BadRequest,
    Problem,
    RequestTimeout,
    ServerFault,
    ShuttingDown,
    TooLarge,
)
from baatcheet.platform.logging import get_logger, request_id
from baatcheet.platform.settings import ServerSettings
from baatcheet.platform.telemetry import RequestSpan, Telemetry

__all__ = [
    "ASGIApp",
    "DisconnectWatch",
    "Disconnected",
    "Frame",
    "Message",
    "Receive",
    "Scope",
    "Send",
    "read_body",
    "send_json",
    "send_problem",
]

log = get_logger(__name__)

# An application that routes by itself says here which template it followed.
ROUTE: Final = "baatcheet.route"

BODY_SECONDS: Final = 30.0  # that a client may let pass between two parts of its body

# How long and how much a client that was refused may go on sending: most hear nothing before they have sent
# all, and a connection that is closed on them meanwhile takes the refusal with it.
DRAIN_SECONDS: Final = 10.0
STALLED_SECONDS: Final = 1.0  # of one that had stopped, or when we stop
DRAIN_BYTES: Final = 64 * 1024 * 1024

_STOPPING: Final = "This server is shutting down; another will take over."
GONE: Final = 499  # status in logs and metrics of a request whose client left before the answer began
_QUIET: Final = frozenset({"/live", "/ready", "/health", "/metrics"})
_SANE_ID = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._:\-]{0,127}")
_READ: Final = frozenset(
    {
        b"access-control-request-headers",
        b"access-control-request-method",
        b"content-length",
        b"expect",
        b"origin",
        b"traceparent",
        b"tracestate",
        b"transfer-encoding",
        b"x-forwarded-for",
        b"x-forwarded-proto",
        b"x-request-id",
    }
)
_POLICY: Final = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
_ALWAYS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
)
_NO_STORE: Final = (b"cache-control", b"no-store")
_HSTS: Final = (b"strict-transport-security", b"max-age=31536000")
_EXPOSED: Final = (
    b"x-request-id, retry-after, location,"
    b" x-ratelimit-limit-requests, x-ratelimit-remaining-requests, x-ratelimit-reset-requests,"
    b" x-ratelimit-limit-tokens, x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens"
)
_METHODS: Final = b"GET, HEAD, POST, PUT, PATCH, DELETE"


class Disconnected(Exception):
    """The client has left."""


class Frame:
    """Stands around `app`.

    A body may have `max_body_bytes`; at a path in `body_limits`, as many bytes as that says.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: ServerSettings,
        telemetry: Telemetry,
        body_limits: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        self.app = app
        self._limit = settings.max_body_bytes
        self._limits = dict(body_limits)
        self.telemetry = telemetry
        self.origins = frozenset(origin.rstrip("/").encode() for origin in settings.cors_origins)
        self.any_origin = b"*" in self.origins
        self.proxies = Proxies(settings.trusted_proxies)
        self.draining = False
        self._waits: set[asyncio.Timeout] = set()  # for what clients send

    def drain(self) -> None:
        """Wait for no client that has stopped sending: this server stops."""
        self.draining = True
        soon = asyncio.get_running_loop().time() + STALLED_SECONDS
        for wait in self._waits:
            if not wait.expired():
                wait.reschedule(min(wait.when() or soon, soon))

    @contextlib.asynccontextmanager
    async def waiting(self, seconds: float) -> AsyncIterator[None]:
        """Wait that long at most, and less after `drain`: then who sends is heard, and who has stopped is not.

        Raises TimeoutError.
        """
        async with asyncio.timeout(min(seconds, STALLED_SECONDS) if self.draining else seconds) as wait:
            self._waits.add(wait)
            try:
                yield
            finally:
                self._waits.discard(wait)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await _Exchange(self, scope, receive, send).run()
        else:
            await self.app(scope, receive, send)

    def limit(self, path: str) -> int:
        """Bytes that a body may have at `path`."""
        return self._limits.get(path, self._limit)

    def allows(self, origin: bytes) -> bool:
        return self.any_origin or origin in self.origins


class _Exchange:
    """One request and its answer."""

    __slots__ = (
        "_account",
        "_complete",
        "_expects",
        "_frame",
        "_head",
        "_limit",
        "_origin",
        "_read",
        "_receive",
        "_received",
        "_refusal",
        "_scope",
        "_secure",
        "_send",
        "_started",
        "id",
        "status",
    )

    def __init__(self, frame: Frame, scope: Scope, receive: Receive, send: Send) -> None:
        self._frame = frame
        self._scope = scope
        self._receive = receive
        self._send = send
        self._head = scope["method"] == "HEAD"
        self._origin: bytes | None = None
        self._secure = False
        self._expects = False
        self._received = 0  # bytes of the body
        self._limit = frame.limit(scope["path"])
        self._read = False  # whether these are all
        self._refusal: Problem | None = None  # of the body: it takes the place of the application's answer
        self._account: patience.Account | None = None  # of its waiting for the database
        self._started = False
        self._complete = False
        self.id = ""
        self.status = GONE

    async def run(self) -> None:
        begun = time.perf_counter()
        frame, scope = self._frame, self._scope
        method = scope["method"]
        read: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            if name in _READ:
                # Several forwarding headers are one list, in their order.
                read[name] = read[name] + b"," + value if name in read else value
        given = read.get(b"x-request-id")
        self.id = given.decode() if given is not None and _SANE_ID.fullmatch(given) else new_id().hex
        token = request_id.set(self.id)
        client = self._identify(read)
        span = self._span(method, read)
        if self._head:
            # A copy: the server below must go on seeing HEAD.
            self._scope = scope = {**scope, "method": "GET"}
        try:
            with patience.one_request() as self._account:
                await self._answer(method, read)
        except asyncio.CancelledError:
            if not frame.draining:
                raise
            await self._fail(
                ShuttingDown(_STOPPING)
            )  # its time was up; what it has begun is seen to elsewhere
        except Exception as error:  # noqa: BLE001 - the last catch
            await self._fail(error)
        finally:
            seconds = time.perf_counter() - begun
            route = _route(scope)
            frame.telemetry.metrics.request(method, route, self.status, seconds)
            if span is not None:
                span.end(route=route, status=self.status, request_id=self.id)
            write = log.debug if route in _QUIET else log.info
            write(
                "http.request",
                method=method,
                route=route,
                status=self.status,
                ms=round(seconds * 1000, 2),
                client=client,
            )
            request_id.reset(token)

    def _identify(self, read: Mapping[bytes, bytes]) -> str | None:
        """Put the real client and scheme into the scope."""
        scope, proxies = self._scope, self._frame.proxies
        scope.setdefault("state", {})["request_id"] = self.id
        self._origin = read.get(b"origin")
        peer = scope.get("client")
        client: str | None = peer[0] if peer else None
        if client is not None and proxies.trusted(client):
            forwarded = read.get(b"x-forwarded-for")
            if forwarded is not None:
                client = proxies.client(client, forwarded.decode("latin-1"))
                scope["client"] = (client, 0)
            scheme = read.get(b"x-forwarded-proto", b"").rpartition(b",")[2].strip().lower()
            if scheme in {b"http", b"https"}:
                scope["scheme"] = scheme.decode()
        self._secure = scope.get("scheme") == "https"
        return client

    def _span(self, method: str, read: Mapping[bytes, bytes]) -> RequestSpan | None:
        tracer = self._frame.telemetry.tracer
        if tracer is None:
            return None
        parent, state = read.get(b"traceparent"), read.get(b"tracestate")
        return tracer.request(
            method,
            traceparent=None if parent is None else parent.decode("latin-1"),
            tracestate=None if state is None else state.decode("latin-1"),
        )

    async def _answer(self, method: str, read: Mapping[bytes, bytes]) -> None:
        frame = self._frame
        if method == "OPTIONS" and frame.origins and b"access-control-request-method" in read:
            await self._preflight(read.get(b"access-control-request-headers"))
            return
        self._expects = b"expect" in read
        length = read.get(b"content-length")
        if length is not None:
            if not length.isdigit():
                raise BadRequest("Content-Length is not a number.")
            # The server below gives no more of a body than this.
            if int(length) > self._limit:
                raise self._refused(self._too_large())
        await frame.app(self._scope, self._receive_framed, self._send_framed)
        if self._refusal is not None and not self._started:
            raise self._refusal

    def _refused(self, problem: Problem) -> Problem:
        self._refusal = problem
        return problem

    def _too_large(self) -> Problem:
        return TooLarge(f"The body may have {self._limit} bytes at most.")

    async def _receive_framed(self) -> Message:
        if self._refusal is not None:
            raise self._refusal
        if self._complete:
            return {"type": "http.disconnect"}
        message = await (self._receive() if self._read or self._started else self._receive_in_time())
        if message["type"] == "http.request":
            self._read = not message.get("more_body", False)
            self._received += len(message.get("body", b""))
            if self._received > self._limit:
                raise self._refused(self._too_large())
        return message

    async def _receive_in_time(self) -> Message:
        try:
            async with self._frame.waiting(BODY_SECONDS):
                return await self._receive()
        except TimeoutError:
            if self._started:  # nobody waits for the body any longer
                return await self._receive()
            if self._frame.draining:
                problem: Problem = ShuttingDown(_STOPPING)
            else:
                problem = RequestTimeout(f"Nothing more of the body has come for {BODY_SECONDS:g} s.")
            raise self._refused(problem) from None

    async def _send_framed(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            if self._refusal is not None:
                return  # what the application makes of a body that was cut off is not the answer
            await self._start(message)
            if self._head:
                self._complete = True
                await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        elif self._started and not self._complete:
            self._complete = not message.get("more_body", False)
            await self._send(message)

    async def _start(self, message: Message) -> None:
        self._started = True
        if self._account is not None:
            self._account.closed = True
        self.status = message["status"]
        headers = list(message.get("headers", ()))
        names = {name for name, _ in headers}
        headers.append((b"x-request-id", self.id.encode()))
        headers += _ALWAYS
        if b"cache-control" not in names:
            headers.append(_NO_STORE)
        if b"content-security-policy" not in names:
            headers.append(_POLICY)
        if self._secure:
            headers.append(_HSTS)
        if self._frame.draining and b"connection" not in names:
            headers.append((b"connection", b"close"))
        if self._frame.origins:
            headers += self._cors(names)
        await self._send({**message, "headers": headers})

    def _cors(self, names: Iterable[bytes]) -> list[tuple[bytes, bytes]]:
        headers = [] if self._frame.any_origin else [(b"vary", b"origin")]
        if self._origin is not None and self._frame.allows(self._origin):
            ours = [name for name in names if name.startswith(b"x-baatcheet-")]
            headers += [
                (b"access-control-allow-origin", b"*" if self._frame.any_origin else self._origin),
                (b"access-control-expose-headers", b", ".join((_EXPOSED, *ours))),
            ]
        return headers

    async def _preflight(self, wanted: bytes | None) -> None:
        headers = [(b"content-length", b"0"), (b"vary", b"access-control-request-headers")]
        if self._origin is not None and self._frame.allows(self._origin):
            headers += [(b"access-control-allow-methods", _METHODS), (b"access-control-max-age", b"600")]
            if wanted:
                headers.append((b"access-control-allow-headers", wanted))
        self._scope[ROUTE] = "preflight"
        await self._send_framed({"type": "http.response.start", "status": 204, "headers": headers})
        await self._send_framed({"type": "http.response.body", "body": b"", "more_body": False})

    async def _fail(self, error: Exception) -> None:
        if isinstance(error, Disconnected | ClientDisconnect):
            log.debug("http.client_left")
            return
        if self._refusal is not None:
            if not self._started:
                await self._refuse_body(self._refusal)
            return
        if self._started:
            # An answer that is complete was the application's own, which has logged what it stands for. One
            # that is not can't be mended: the server closes the connection, which the client can't mistake.
            if not self._complete:
                log.error("http.broke_off", error=error)
            return
        if not isinstance(error, Problem):
            log.error("http.failed", error=error)
            error = ServerFault("The error has been logged.")
        await send_problem(self._scope, self._send_framed, error)

    async def _refuse_body(self, problem: Problem) -> None:
        self._refusal = None
        headers, body = _rendered(self._scope, problem)
        headers.append((b"connection", b"close"))
        await self._send_framed({"type": "http.response.start", "status": problem.status, "headers": headers})
        await self._send_framed({"type": "http.response.body", "body": body, "more_body": True})
        if not self._expects:
            sends_on = isinstance(problem, TooLarge)
            patience = self._frame.waiting(DRAIN_SECONDS) if sends_on else asyncio.timeout(STALLED_SECONDS)
            with contextlib.suppress(TimeoutError):
                async with patience:
                    await self._drain()
        await self._send_framed({"type": "http.response.body", "body": b"", "more_body": False})

    async def _drain(self) -> None:
        drained = 0
        while drained < DRAIN_BYTES:
            message = await self._receive()
            if message["type"] != "http.request" or not message.get("more_body", False):
                return
            drained += len(message.get("body", b""))


class Proxies:
    """The proxies whose word is taken for whom they speak."""

    def __init__(self, trusted: Iterable[str]) -> None:
        self._networks = [ipaddress.ip_network(one, strict=False) for one in trusted]
        self.trusted = functools.lru_cache(maxsize=4096)(self._trusted)

    def client(self, peer: str, forwarded: str) -> str:
        """Whom a trusted `peer` speaks for: the first address from the right that is no trusted proxy itself.

        An entry that is no address ends the walk: what stands left of it could be anyone's invention.
        """
        client = peer
        for entry in reversed(forwarded.split(",")):
            address = _address(entry)
            if address is None:
                break
            client = address
            if not self.trusted(address):
                break
        return client

    def _trusted(self, address: str) -> bool:
        found = _address(address)
        if found is None:
            return False
        parsed = ipaddress.ip_address(found)
        return any(parsed in network for network in self._networks if network.version == parsed.version)


def _address(text: str) -> str | None:
    """The IP address that `text` spells, its port left off; an IPv4 address in IPv6 clothes as itself."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        parsed = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(parsed)


def _route(scope: Scope) -> str:
    """The template of the route that was followed; `unmatched` when there was none."""
    given: str | None = scope.get(ROUTE)
    if given is not None:
        return given
    if "endpoint" not in scope:
        return "unmatched"
    path: str = scope["path"]
    parameters: Mapping[str, Any] = scope.get("path_params") or {}
    for name, value in parameters.items():
        path = f"{path}/".replace(f"/{value}/", f"/{{{name}}}/", 1)[:-1]
    return path


def _is_openai(scope: Scope) -> bool:
    path: str = scope["path"]
    return path == "/v1" or path.startswith("/v1/")


def _rendered(scope: Scope, problem: Problem) -> tuple[list[tuple[bytes, bytes]], bytes]:
    openai = _is_openai(scope)
    body = msgspec.json.encode(problem.envelope() if openai else problem.document())
    kind = b"application/json" if openai else PROBLEM_JSON.encode()
    headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body))]
    headers += [(name.encode("latin-1"), value.encode("latin-1")) for name, value in problem.headers.items()]
    return headers, body


async def send_problem(scope: Scope, send: Send, problem: Problem) -> None:
    """Answer with `problem`, in OpenAI's envelope under `/v1` and as a problem detail elsewhere."""
    headers, body = _rendered(scope, problem)
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def send_json(send: Send, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
    """Answer with `body`, which is JSON, and `headers` (lower-case names) beside its type and length."""
    raw = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if headers:
        raw += [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def read_body(receive: Receive, limit: int) -> bytes:
    """The whole body. Raises TooLarge beyond `limit` bytes, Disconnected when the client leaves too early."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        part: bytes = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise TooLarge(f"The body may have {limit} bytes at most.")
        if not message.get("more_body", False):
            return b"".join((*parts, part)) if parts else part
        parts.append(part)


class DisconnectWatch:
    """Notices the client's leaving while its answer is made. To be entered once the body has been read.

    async with DisconnectWatch(receive) as watch:
        await asyncio.wait([work, watch.left], return_when=asyncio.FIRST_COMPLETED)
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.left: asyncio.Task[None]

    @property
    def gone(self) -> bool:
        return self.left.done()

    async def __aenter__(self) -> Self:
        self.left = asyncio.create_task(self._watch())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.left.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.left

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
