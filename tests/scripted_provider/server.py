"""The scripted provider on a socket: a raw ASGI application on uvicorn, in a thread of its own."""

import asyncio
import logging
import re
import socket
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import msgspec
import uvicorn

from .answers import last_user_text
from .embeddings import embed
from .frames import Act, Reply
from .requests import BadRequestError, check
from .steps import PRESETS, Step
from .transcriptions import hear

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_DIRECTIVE = re.compile(r"\[\[scripted (\{.*?\})\]\]", re.DOTALL)
_encode = msgspec.json.encode
_decode = msgspec.json.decode
_step = msgspec.json.Decoder(Step)

_MESSAGES = {
    400: ("The request is invalid.", "invalid_request_error", "messages", "invalid_value"),
    401: ("Incorrect API key provided.", "invalid_request_error", None, "invalid_api_key"),
    402: ("Insufficient balance.", "insufficient_quota", None, "insufficient_quota"),
    403: ("You are not allowed to use this model.", "permission_error", None, "forbidden"),
    404: ("The model does not exist.", "invalid_request_error", "model", "model_not_found"),
    429: ("Rate limit reached for requests.", "requests", None, "rate_limit_exceeded"),
    500: ("The server had an error.", "server_error", None, None),
    503: ("The model is overloaded.", "server_error", None, "overloaded"),
}


@dataclass
class Recorded:
    """One request that the provider was sent."""

    path: str
    headers: dict[str, str]  # names in lower case
    raw: bytes
    disconnected: bool = False  # the client left before the answer's end
    finished: bool = False
    sent_chunks: int = 0

    @property
    def body(self) -> Any:
        return _decode(self.raw)

    async def left(self, timeout: float = 2.0) -> bool:
        """Whether the client left before the end, waiting up to `timeout` seconds to see it."""
        end = time.monotonic() + timeout
        while not self.disconnected and time.monotonic() < end:
            await asyncio.sleep(0.005)
        return self.disconnected


@dataclass
class Exchange:
    """One request under way."""

    recorded: Recorded
    receive: Receive
    send: Send
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    watcher: asyncio.Task[None] | None = None

    def watch(self) -> None:
        if self.watcher is None:
            self.watcher = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass
        if not self.recorded.finished:
            self.recorded.disconnected = True
        self.gone.set()

    async def pause(self, seconds: float) -> None:
        if seconds > 0 and not self.gone.is_set():
            await asyncio.sleep(seconds)

    async def hang(self) -> None:
        self.watch()
        await self.gone.wait()

    async def start(self, status: int, kind: bytes, more: Sequence[tuple[bytes, bytes]] = ()) -> None:
        headers = [(b"content-type", kind), (b"x-request-id", b"req_scripted"), *more]
        await self.send({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, data: bytes, *, more: bool = True) -> None:
        await self.send({"type": "http.response.body", "body": data, "more_body": more})

    async def whole(
        self, status: int, data: bytes, kind: bytes, more: Sequence[tuple[bytes, bytes]] = ()
    ) -> None:
        self.recorded.finished = True
        await self.start(status, kind, [(b"content-length", b"%d" % len(data)), *more])
        await self.write(data, more=False)


class Application:
    """The ASGI application."""

    def __init__(
        self,
        default: Step = PRESETS["scripted"],
        models: Sequence[str] = (),
        api_key: str | None = None,
        keep: int = 1000,
    ) -> None:
        self.default = default
        self.models = tuple(models)
        self.api_key = api_key
        self.requests: deque[Recorded] = deque(maxlen=keep)
        self.queue: deque[Step] = deque()
        self.models_step: Step | None = None  # what GET /models does instead
        self.model_entries: list[dict[str, Any]] | None = None  # what GET /models lists instead
        self.key_steps: dict[str, Step] = {}  # what a key is answered instead, whatever it asks for
        self.served = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        raw = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            raw += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        recorded = Recorded(scope["path"], headers, raw)
        self.requests.append(recorded)
        self.served += 1
        exchange = Exchange(recorded, receive, send)
        try:
            await self._route(scope["method"], exchange)
        finally:
            recorded.finished = True
            if exchange.watcher is not None:
                exchange.watcher.cancel()

    async def _route(self, method: str, exchange: Exchange) -> None:
        path = exchange.recorded.path.removeprefix("/v1")
        given = exchange.recorded.headers.get("authorization", "").removeprefix("Bearer ")
        if (of_key := self.key_steps.get(given)) is not None:
            await (exchange.hang() if of_key.hang else self._fail(exchange, of_key))
        elif self.api_key is not None and given != self.api_key:
            await self._fail(exchange, Step(status=401, leak_key=True))
        elif (method, path) == ("GET", "/models"):
            await self._list(exchange)
        elif (method, path) == ("POST", "/audio/transcriptions"):
            heard = hear(exchange.recorded.raw)
            if heard is None:
                await self._refuse(exchange, BadRequestError("There is no file.", "file"))
            else:
                await exchange.whole(200, _encode(heard), b"application/json")
        elif (method, path) in {("POST", "/chat/completions"), ("POST", "/embeddings")}:
            try:
                body = _decode(exchange.recorded.raw)
                if path == "/embeddings":
                    self._known(body)
                    await exchange.whole(200, _encode(embed(body)), b"application/json")
                else:
                    await self._chat(exchange, check(body))
            except msgspec.DecodeError:
                refused = BadRequestError("We could not parse the JSON body of your request.")
                await self._refuse(exchange, refused)
            except BadRequestError as error:
                await self._refuse(exchange, error)
        else:
            await self._fail(exchange, Step(status=404))

    async def _list(self, exchange: Exchange) -> None:
        if self.models_step is not None:
            await exchange.pause(self.models_step.latency)
            if self.models_step.hang:
                await exchange.hang()
            elif self.models_step.status != 200 or self.models_step.raw_body is not None:
                await self._fail(exchange, self.models_step)
            return
        entries = self.model_entries
        if entries is None:
            names = [*self.models, *(() if self.models else PRESETS), "text-embedding-scripted"]
            entries = [
                {"id": n, "object": "model", "created": 1_767_225_600, "owned_by": "tests"} for n in names
            ]
        await exchange.whole(200, _encode({"object": "list", "data": entries}), b"application/json")

    def _known(self, body: Any) -> None:
        model = str(body.get("model")) if isinstance(body, dict) else ""
        if not model.startswith(("scripted", "text-embedding")) and model not in self.models:
            raise BadRequestError(f"The model `{model}` does not exist", "model", "model_not_found")

    def _choose(self, body: Any) -> Step:
        if self.queue:
            return self.queue.popleft()
        said = last_user_text(body["messages"])
        if "[[scripted " in said and (found := _DIRECTIVE.search(said)):
            try:
                return _step.decode(found.group(1))
            except msgspec.DecodeError as error:
                raise BadRequestError(f"The directive can't be read: {error}", "messages") from None
        return PRESETS.get(body["model"], self.default)

    def reply(self, step: Step, body: Mapping[str, Any]) -> Reply:
        """The answer to a valid request, in the protocol's form."""
        return Reply(step, body, self.served)

    async def _chat(self, exchange: Exchange, body: Any) -> None:
        self._known(body)
        step = self._choose(body)
        if step.latency or step.hang or step.chunk_delay or step.first_token_delay:
            exchange.watch()
        await exchange.pause(step.latency)
        if step.hang == "headers":
            await exchange.hang()
        elif step.status != 200 or step.raw_body is not None:
            await self._fail(exchange, step)
        elif body.get("stream"):
            await self._stream(exchange, self.reply(step, body))
        else:
            reply = self.reply(step, body)
            await exchange.pause(step.first_token_delay)
            if step.hang:
                await exchange.start(200, b"application/json")
                await exchange.hang()
            elif step.cut_after is not None:
                await exchange.start(200, b"application/json", [(b"content-length", b"100000")])
                await exchange.write(reply.whole()[: step.cut_after])
            else:
                await exchange.whole(200, reply.whole(), b"application/json")

    @staticmethod
    async def _stream(exchange: Exchange, reply: Reply) -> None:  # noqa: C901 - one branch for each act
        await exchange.start(200, b"text/event-stream; charset=utf-8")
        clock = asyncio.get_running_loop().time
        due = clock()
        held: list[bytes] = []

        async def flush() -> None:
            data = b"".join(held)
            held.clear()
            size = reply.step.split or max(len(data), 1)
            for start in range(0, len(data), size):
                await exchange.write(data[start : start + size])
                if reply.step.split:
                    await asyncio.sleep(0)

        for wait, frame in reply.frames():
            if wait:
                await flush()
                due += wait
                await exchange.pause(due - clock())
                if exchange.gone.is_set():
                    return
            if isinstance(frame, bytes):
                held.append(frame)
                exchange.recorded.sent_chunks += 1
            elif frame is Act.STAMP:
                held.append(reply.stamp())
                exchange.recorded.sent_chunks += 1
            elif frame is Act.HANG:
                await flush()
                await exchange.hang()
                return
            else:
                await flush()
                if frame is Act.CUT:
                    await asyncio.sleep(0.01)
                    return  # uvicorn closes the socket under an answer that has no end
                break
        await flush()
        exchange.recorded.finished = True
        await exchange.write(b"", more=False)

    @staticmethod
    async def _fail(exchange: Exchange, step: Step) -> None:
        headers = [(b"retry-after", step.retry_after.encode())] if step.retry_after is not None else []
        status = step.status
        if step.location:
            headers.append((b"location", step.location.encode()))
        if step.raw_body is not None:
            kind = (step.content_type or "application/json").encode()
            await exchange.whole(status, step.raw_body.encode(), kind, headers)
            return
        message, kind_name, param, code = _MESSAGES.get(status, (f"Status {status}.", "error", None, None))
        if step.leak_key:
            message += (
                f" You sent: {exchange.recorded.headers.get('authorization', '').removeprefix('Bearer ')}."
            )
        error = step.error or {"message": message, "type": kind_name, "param": param, "code": code}
        await exchange.whole(status, _encode({"error": error}), b"application/json", headers)

    @staticmethod
    async def _refuse(exchange: Exchange, error: BadRequestError) -> None:
        body = {
            "message": error.message,
            "type": "invalid_request_error",
            "param": error.param,
            "code": error.code,
        }
        status = 404 if error.code == "model_not_found" else 400
        await exchange.whole(status, _encode({"error": body}), b"application/json")


def configure(app: Application) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        lifespan="off",
        ws="none",
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=0,
    )


class ScriptedProvider:
    """The provider, running for as long as the `with` block.

    `models`: the names that it lists and serves, instead of the presets'. `api_key`: the only key that it
    accepts. `keep`: how many requests it remembers.
    """

    def __init__(
        self,
        *,
        default: Step = PRESETS["scripted"],
        models: Sequence[str] = (),
        api_key: str | None = None,
        keep: int = 1000,
        port: int = 0,
    ) -> None:
        self.app = Application(default, models, api_key, keep)
        self._wanted_port = port
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self.port = 0

    @property
    def base_url(self) -> str:
        """What a client is given as its base URL: ends in `/v1`."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def requests(self) -> deque[Recorded]:
        """What it was sent, oldest first."""
        return self.app.requests

    @property
    def chats(self) -> list[Recorded]:
        """What it was sent at /chat/completions, oldest first."""
        return [one for one in self.app.requests if one.path.endswith("/chat/completions")]

    def script(self, *steps: Step) -> None:
        """Queue behaviours for the next chat requests, one each."""
        self.app.queue.extend(steps)

    def reset(self) -> None:
        """Forget what was asked, and what was scripted."""
        self.app.requests.clear()
        self.app.queue.clear()
        self.app.models_step = self.app.model_entries = None
        self.app.key_steps.clear()

    def __enter__(self) -> Self:
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        listener = socket.create_server(("127.0.0.1", self._wanted_port), backlog=2048)
        self.port = listener.getsockname()[1]
        server = self._server = uvicorn.Server(configure(self.app))

        def run() -> None:
            with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
                runner.run(server.serve(sockets=[listener]))

        self._thread = threading.Thread(target=run, name="scripted-provider", daemon=True)
        self._thread.start()
        end = time.monotonic() + 10
        while not server.started:
            if time.monotonic() > end or not self._thread.is_alive():
                raise RuntimeError("the scripted provider did not start")
            time.sleep(0.002)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(timeout=10)
            if self._thread.is_alive():
                raise RuntimeError("the scripted provider did not stop")
