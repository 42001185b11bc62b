"""The frame, as clients on real sockets see it."""

import asyncio
import contextlib
import io
import json
import logging
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI, Request
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import ASGIApp, Receive, Scope, Send

from baatcheet.platform import logging as logs
from baatcheet.platform.asgi import DisconnectWatch, Frame, Proxies, read_body, send_json
from baatcheet.platform.errors import Conflict
from baatcheet.platform.settings import ServerSettings, TelemetrySettings
from baatcheet.platform.telemetry import Metrics, Telemetry

LIMIT = 100_000
METRICS = Metrics()


def rest() -> FastAPI:
    app = FastAPI()

    @app.get("/api/v1/things/{thing_id}")
    async def thing(thing_id: str, request: Request) -> dict[str, Any]:
        client = request.client.host if request.client else None
        return {"id": thing_id, "client": client, "scheme": request.url.scheme}

    @app.post("/api/v1/things")
    async def create(body: dict[str, Any]) -> dict[str, Any]:
        return {"size": len(str(body))}

    return app


class App:
    """Plain endpoints beside a FastAPI application."""

    def __init__(self) -> None:
        self._rest = rest()
        self.left = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope.get("path"):
            case "/v1/echo" | "/echo":
                body = await read_body(receive, LIMIT)
                await send_json(send, 200, b"%d" % len(body), {"x-baatcheet-turn": "t1"})
            case "/v1/fault" | "/fault":
                raise RuntimeError("a secret detail")
            case "/v1/conflict" | "/conflict":
                raise Conflict("Taken.", headers={"retry-after": "3"}, turn="t1")
            case "/broken-off":
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": b"begun", "more_body": True})
                raise RuntimeError("in the middle")
            case "/page":
                headers = [
                    (b"content-security-policy", b"script-src 'self'"),
                    (b"cache-control", b"max-age=60"),
                ]
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                await send({"type": "http.response.body", "body": b"<p>", "more_body": False})
            case "/endless":
                await self._endless(receive, send)
            case _:
                await self._rest(scope, receive, send)

    async def _endless(self, receive: Receive, send: Send) -> None:
        await read_body(receive, LIMIT)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        async with DisconnectWatch(receive) as watch:
            while not watch.gone:
                await send({"type": "http.response.body", "body": b"x", "more_body": True})
                await asyncio.wait([watch.left], timeout=0.02)
        self.left.set()


def framed(app: ASGIApp, **settings: Any) -> Frame:
    return Frame(
        app,
        ServerSettings.model_validate({"max_body_bytes": LIMIT, **settings}),
        Telemetry(METRICS),
    )


@contextlib.asynccontextmanager
async def serving(app: ASGIApp) -> AsyncIterator[str]:
    config = uvicorn.Config(
        app,
        port=0,
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        lifespan="off",
    )
    server = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    async with asyncio.timeout(10):
        while not server.started:
            await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await asyncio.wait_for(task, 10)
        listener.close()


@contextlib.asynccontextmanager
async def client_of(app: ASGIApp | None = None, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        serving(framed(app or App(), **settings)) as url,
        httpx.AsyncClient(base_url=url, timeout=10) as client,
    ):
        yield client


@pytest.fixture
def out() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    kept, level, hooks = root.handlers[:], root.level, (sys.excepthook, threading.excepthook)
    buffer = io.StringIO()
    logs.configure(TelemetrySettings.model_validate({}), stream=buffer)
    yield buffer
    root.handlers[:] = kept
    root.setLevel(level)
    sys.excepthook, threading.excepthook = hooks
    logging.captureWarnings(capture=False)


def events(out: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


async def test_a_request_is_named_and_logged_with_its_template(out: io.StringIO) -> None:
    async with client_of() as client:
        answer = await client.get("/api/v1/things/7?secret=1")
        assert answer.status_code == 200
        (line,) = [line for line in events(out) if line["event"] == "http.request"]
        assert line["request_id"] == answer.headers["x-request-id"]
        assert line["route"] == "/api/v1/things/{thing_id}"
        assert (line["method"], line["status"]) == ("GET", 200)
        assert "secret" not in str(line)
        assert b'route="/api/v1/things/{thing_id}",status="200"' in METRICS.render()


async def test_a_sane_request_id_is_kept_and_another_replaced() -> None:
    async with client_of() as client:
        kept = await client.get("/api/v1/things/7", headers={"x-request-id": "trace:abc-1.2_3"})
        assert kept.headers["x-request-id"] == "trace:abc-1.2_3"
        for insane in ("a b", "x" * 129, "<script>", ""):
            answer = await client.get("/api/v1/things/7", headers={"x-request-id": insane})
            assert len(answer.headers["x-request-id"]) == 32


async def test_answers_carry_security_headers() -> None:
    async with client_of() as client:
        api = (await client.get("/api/v1/things/7")).headers
        assert api["x-content-type-options"] == "nosniff"
        assert api["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert api["referrer-policy"] == "no-referrer"
        assert api["cache-control"] == "no-store"
        assert "strict-transport-security" not in api
        assert "server" not in api
        page = (await client.get("/page")).headers
        assert page["cache-control"] == "max-age=60"
        assert page["content-security-policy"] == "script-src 'self'"


async def test_https_is_believed_of_a_trusted_proxy_only() -> None:
    forwarded = {"x-forwarded-proto": "https", "x-forwarded-for": "203.0.113.9"}
    async with client_of(trusted_proxies=("127.0.0.1",)) as client:
        answer = await client.get("/api/v1/things/7", headers=forwarded)
        assert answer.json() == {"id": "7", "client": "203.0.113.9", "scheme": "https"}
        assert "max-age" in answer.headers["strict-transport-security"]
    async with client_of() as client:
        answer = await client.get("/api/v1/things/7", headers=forwarded)
        assert answer.json() == {"id": "7", "client": "127.0.0.1", "scheme": "http"}
        assert "strict-transport-security" not in answer.headers


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("1.1.1.1, 203.0.113.9", "203.0.113.9"),
        ("1.1.1.1, 203.0.113.9, 10.0.0.2", "203.0.113.9"),
        ("10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("203.0.113.9, nonsense, 10.0.0.2", "10.0.0.2"),
        ("203.0.113.9:4711", "203.0.113.9"),
        ("[2001:db8::1]:4711", "2001:db8::1"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("", "10.0.0.1"),
    ],
)
def test_forwarded_addresses_are_walked_from_the_right(forwarded: str, client: str) -> None:
    assert Proxies(["10.0.0.0/8"]).client("10.0.0.1", forwarded) == client


@given(st.text(max_size=100))
def test_no_forwarded_header_can_break_the_walk(forwarded: str) -> None:
    assert Proxies(["10.0.0.0/8", "::1"]).client("10.0.0.1", forwarded)


@pytest.mark.parametrize("surface", ["", "/v1"])
async def test_what_escapes_is_an_answer_in_the_surfaces_shape(out: io.StringIO, surface: str) -> None:
    async with client_of() as client:
        fault = await client.get(f"{surface}/fault")
        conflict = await client.get(f"{surface}/conflict")
    assert (fault.status_code, conflict.status_code) == (500, 409)
    assert "secret detail" not in fault.text
    assert conflict.headers["retry-after"] == "3"
    if surface:
        assert fault.json()["error"]["type"] == "server_error"
        assert conflict.json()["error"]["message"] == "Taken."
    else:
        assert fault.headers["content-type"] == "application/problem+json"
        assert fault.json()["status"] == 500
        assert conflict.json()["turn"] == "t1"
    (failed,) = [line for line in events(out) if line["event"] == "http.failed"]
    assert "a secret detail" in failed["traceback"]
    assert failed["request_id"] == fault.headers["x-request-id"]


async def test_an_answer_that_breaks_off_is_not_taken_for_a_whole_one(out: io.StringIO) -> None:
    async with client_of() as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get("/broken-off")
    assert "http.broke_off" in [line["event"] for line in events(out)]


@pytest.mark.parametrize("path", ["/v1/echo", "/echo", "/api/v1/things"])
async def test_a_body_that_says_it_is_too_long_is_refused(path: str) -> None:
    async with client_of() as client:
        answer = await client.post(path, content=b"x" * (LIMIT + 1))
        assert answer.status_code == 413
        told = answer.json()
        assert (
            told["error"]["code"] == "request_too_large" if path.startswith("/v1") else told["status"] == 413
        )
        assert (await client.post("/echo", content=b"x" * LIMIT)).json() == LIMIT


@pytest.mark.parametrize("path", ["/v1/echo", "/echo", "/api/v1/things"])
async def test_a_chunked_body_is_cut_off_at_the_limit(path: str) -> None:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(50):
            yield b'{"a": "' + b"x" * 10_000

    async with client_of() as client:
        answer = await client.post(path, content=body(), headers={"content-type": "application/json"})
        assert answer.status_code == 413
        assert "x-request-id" in answer.headers


async def test_fifty_megabytes_are_refused_without_being_kept() -> None:
    async with client_of() as client:
        answer = await client.post("/v1/echo", content=b"x" * 50_000_000)
        assert answer.status_code == 413


async def test_a_client_that_sends_for_ever_is_answered_and_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("baatcheet.platform.asgi.DRAIN_SECONDS", 0.3)
    async with serving(framed(App())) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        writer.write(b"POST /v1/echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")

        async def send_for_ever() -> None:
            while True:
                writer.write(b"2710\r\n" + b"x" * 10_000 + b"\r\n")
                await writer.drain()
                await asyncio.sleep(0.001)

        sending = asyncio.create_task(send_for_ever())
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        assert head.startswith(b"HTTP/1.1 413 ")
        with contextlib.suppress(ConnectionError):
            await asyncio.wait_for(sending, 5)
        assert sending.done()
        writer.close()


async def test_a_client_that_stops_sending_after_its_refusal_is_let_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("baatcheet.platform.asgi.DRAIN_SECONDS", 0.3)
    async with serving(framed(App())) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        writer.write(b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 999999999999\r\n\r\nabc")
        answer = await asyncio.wait_for(reader.read(), 5)
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b'"too-large"' in answer
        writer.close()


UNFINISHED = b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 20\r\n\r\n"


@contextlib.asynccontextmanager
async def sending(url: str, path: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A client that has sent 3 bytes of 20."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    writer.write(UNFINISHED % path.encode() + b'{"a')
    await writer.drain()
    try:
        yield reader, writer
    finally:
        writer.close()


async def ended(reader: asyncio.StreamReader) -> tuple[bytes, dict[str, Any]]:
    """The head and the JSON of an answer after which the connection is closed."""
    head, _, body = (await asyncio.wait_for(reader.read(), 5)).partition(b"\r\n\r\n")
    assert b"\r\nconnection: close" in head
    return head, json.loads(body)


def kind(told: dict[str, Any]) -> str:
    return str(told["error"]["code"] if "error" in told else told["type"]).replace("_", "-")


PATHS = ["/v1/echo", "/echo", "/api/v1/things"]


@pytest.mark.parametrize("path", PATHS)
async def test_a_body_that_stops_coming_is_given_up(
    monkeypatch: pytest.MonkeyPatch, out: io.StringIO, path: str
) -> None:
    monkeypatch.setattr("baatcheet.platform.asgi.BODY_SECONDS", 0.3)
    async with serving(framed(App())) as url, sending(url, path) as (reader, _):
        head, told = await ended(reader)
    assert head.startswith(b"HTTP/1.1 408 ")
    assert kind(told) == "request-timeout"
    assert ("error" in told) == (path == "/v1/echo")
    (line,) = events(out)
    assert (line["status"], line["level"]) == (408, "info")


async def test_a_body_that_comes_slowly_but_comes_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("baatcheet.platform.asgi.BODY_SECONDS", 0.3)
    async with serving(framed(App())) as url, sending(url, "/echo") as (reader, writer):
        for _ in range(17):
            await asyncio.sleep(0.03)
            writer.write(b"x")
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    assert head.startswith(b"HTTP/1.1 200 ")


async def test_an_answer_may_take_longer_than_a_body(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("baatcheet.platform.asgi.BODY_SECONDS", 0.1)
    async with client_of() as client, client.stream("POST", "/endless", content=b"x") as answer:
        began = time.monotonic()
        async for _ in answer.aiter_raw():
            if time.monotonic() - began > 0.5:
                break


@pytest.mark.parametrize("path", PATHS)
async def test_a_stop_waits_for_no_body(out: io.StringIO, path: str) -> None:
    whole = framed(App())
    async with serving(whole) as url, sending(url, path) as (reader, _):
        async with httpx.AsyncClient(base_url=url) as client:  # the first request is being read by now
            assert (await client.get("/page")).status_code == 200
        whole.drain()
        head, told = await ended(reader)
        async with sending(url, path) as (late, _):
            assert (await ended(late))[0].startswith(b"HTTP/1.1 503 ")
        async with httpx.AsyncClient(base_url=url) as client:  # what has come whole is for the application
            assert (await client.post("/echo", content=b"x" * 20)).json() == 20
    assert head.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nretry-after: " in head
    assert kind(told) == "shutting-down"
    assert "error" not in {line["level"] for line in events(out)}


async def test_a_stop_hears_a_client_out_that_goes_on_sending(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("baatcheet.platform.asgi.STALLED_SECONDS", 0.5)
    whole = framed(App())
    async with serving(whole) as url, sending(url, "/echo") as (reader, writer):
        async with httpx.AsyncClient(base_url=url) as client:  # the first request is being read by now
            assert (await client.get("/page")).status_code == 200
        whole.drain()
        for _ in range(17):
            await asyncio.sleep(0.05)
            writer.write(b"x")
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    assert head.startswith(b"HTTP/1.1 200 ")


async def test_what_the_grace_is_over_for_is_told_that_this_server_stops(out: io.StringIO) -> None:
    async def never(_scope: Scope, _receive: Receive, _send: Send) -> None:
        working.append(asyncio.current_task())
        await asyncio.Event().wait()

    working: list[asyncio.Task[Any] | None] = []
    whole = framed(never)
    async with serving(whole) as url, httpx.AsyncClient(base_url=url) as client:
        asking = asyncio.create_task(client.get("/v1/models"))
        while not working:
            await asyncio.sleep(0.01)
        whole.drain()
        assert working[0] is not None
        working[0].cancel()  # as uvicorn does when its time is up
        answer = await asyncio.wait_for(asking, 5)
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "shutting_down"
    assert "error" not in {line["level"] for line in events(out)}


async def test_a_stop_waits_for_no_client_that_was_refused() -> None:
    whole = framed(App())
    async with serving(whole) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        writer.write(b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 999999999999\r\n\r\nabc")
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        whole.drain()
        await asyncio.wait_for(reader.read(), 2)
        writer.close()
    assert head.startswith(b"HTTP/1.1 413 ")


async def test_a_client_that_asks_first_is_refused_before_it_sends() -> None:
    async with serving(framed(App())) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        writer.write(
            b"POST /echo HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 999999\r\n\r\n"
        )
        started = time.perf_counter()
        answer = await asyncio.wait_for(reader.read(), 5)
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert time.perf_counter() - started < 1
        writer.close()


ORIGIN = "https://app.example.com"
PREFLIGHT = {
    "origin": ORIGIN,
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type",
}


async def test_a_preflight_of_an_allowed_origin_is_answered_here() -> None:
    async with client_of(cors_origins=(ORIGIN,)) as client:
        allowed = await client.options("/v1/echo", headers=PREFLIGHT)
        assert allowed.status_code == 204
        assert allowed.headers["access-control-allow-origin"] == ORIGIN
        assert allowed.headers["access-control-allow-headers"] == "authorization,content-type"
        assert "POST" in allowed.headers["access-control-allow-methods"]
        assert "origin" in allowed.headers["vary"]
        other = await client.options("/v1/echo", headers=PREFLIGHT | {"origin": "https://evil.example"})
        assert "access-control-allow-origin" not in other.headers


async def test_a_page_may_read_the_answers_headers() -> None:
    async with client_of(cors_origins=("*",)) as client:
        answer = await client.post("/v1/echo", headers={"origin": "https://any.example"})
        assert answer.headers["access-control-allow-origin"] == "*"
        exposed = answer.headers["access-control-expose-headers"]
        for name in (
            "x-request-id",
            "retry-after",
            "location",
            "x-ratelimit-reset-tokens",
            "x-baatcheet-turn",
        ):
            assert name in exposed
        fault = await client.get("/v1/fault", headers={"origin": "https://any.example"})
        assert fault.headers["access-control-allow-origin"] == "*"


async def test_without_the_setting_no_origin_is_let_in() -> None:
    async with client_of() as client:
        answer = await client.get("/api/v1/things/7", headers={"origin": ORIGIN})
        assert "access-control-allow-origin" not in answer.headers
        preflight = await client.options("/api/v1/things/7", headers=PREFLIGHT)
        assert preflight.status_code == 405
        assert "access-control-allow-origin" not in preflight.headers


async def test_head_is_get_without_its_body() -> None:
    async with client_of() as client:
        got, head = await client.get("/api/v1/things/7"), await client.head("/api/v1/things/7")
        assert head.status_code == 200
        assert head.content == b""
        assert head.headers["content-length"] == got.headers["content-length"]
        assert (await client.head("/fault")).status_code == 500


async def test_head_of_a_stream_ends_at_once() -> None:
    app = App()
    async with client_of(app) as client:
        assert (await client.head("/endless")).status_code == 200
        await asyncio.wait_for(app.left.wait(), 5)


async def test_a_client_that_leaves_is_noticed() -> None:
    app = App()
    async with client_of(app) as client:
        async with client.stream("GET", "/endless") as answer:
            await anext(answer.aiter_raw())
            assert not app.left.is_set()
        await asyncio.wait_for(app.left.wait(), 5)


async def test_a_client_that_leaves_while_sending_is_no_error(out: io.StringIO) -> None:
    async with serving(framed(App())) as url:
        _, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        writer.write(b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nabc")
        await writer.drain()
        writer.close()
        async with asyncio.timeout(5):
            while "http.request" not in out.getvalue():
                await asyncio.sleep(0.01)
    (line,) = events(out)
    assert line["status"] == 499


async def test_the_lifespan_passes_through() -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    async def nothing(*_: Any) -> Any:
        raise AssertionError("not to be called")

    await framed(app)({"type": "lifespan"}, nothing, nothing)
    assert seen == ["lifespan"]
