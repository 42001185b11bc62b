"""A FAKE of Anthropic's Messages API for tests. It runs no model: its answers are made by a script.

It is the scripted provider (see there for its steps), with another protocol on the same real socket: POST /v1/messages
and GET /v1/models of API version 2026-10-21. What the API refuses is refused here, with its envelope: see `check`.
The vendor's own client, the package `anthropic`, is driven against it in `test_fake_anthropic.py`.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from tests.scripted_provider import ScriptedProvider, Step
from tests.scripted_provider.frames import Act, Frame, Reply, pieces
from tests.scripted_provider.requests import BadRequestError
from tests.scripted_provider.server import Application, Exchange

VERSION = "2026-10-21"
REMOVED = ("temperature", "top_p", "top_k")  # by that version
KNOWN = {
    *("model", "max_tokens", "messages", "system", "tools", "tool_choice", "stop_sequences", "stream"),
    *("output_config", "thinking", "metadata", "cache_control", "service_tier", "container", "speed"),
}
TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}
FINISHES = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}

_ID = re.compile(r"[a-zA-Z0-9_-]+")
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_encode = msgspec.json.encode


class FakeAnthropic(ScriptedProvider):
    """The fake, running for as long as the `with` block."""

    def __init__(self, *, default: Step | None = None, api_key: str | None = None) -> None:
        super().__init__()
        self.app = _Application(default or Step(), api_key=api_key)


class _Application(Application):
    async def _route(self, method: str, exchange: Exchange) -> None:
        headers = exchange.recorded.headers
        given = headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ")
        path = exchange.recorded.path.removeprefix("/v1")
        if self.api_key is not None and given != self.api_key:
            await self._fail(exchange, Step(status=401, leak_key=True))
        elif headers.get("anthropic-version") != VERSION:
            await self._refuse(exchange, BadRequestError("anthropic-version: header is required"))
        elif (method, path) == ("GET", "/models"):
            await self._list(exchange)
        elif (method, path) == ("POST", "/messages"):
            try:
                await self._chat(exchange, check(msgspec.json.decode(exchange.recorded.raw)))
            except msgspec.DecodeError:
                await self._refuse(exchange, BadRequestError("The request body is not valid JSON."))
            except BadRequestError as error:
                await self._refuse(exchange, error)
        else:
            await self._fail(exchange, Step(status=404))

    async def _list(self, exchange: Exchange) -> None:
        if self.models_step is not None:
            await super()._list(exchange)
            return
        entries = self.model_entries
        if entries is None:
            entries = [model_entry("scripted"), model_entry("scripted-blind", sees=False)]
        listed = {
            "data": entries,
            "has_more": False,
            "first_id": entries[0].get("id") if entries else None,
            "last_id": entries[-1].get("id") if entries else None,
        }
        await exchange.whole(200, _encode(listed), b"application/json")

    def reply(self, step: Step, body: Mapping[str, Any]) -> Reply:
        return _Message(step, body, self.served)

    @staticmethod
    async def _fail(exchange: Exchange, step: Step) -> None:
        headers = [(b"retry-after", step.retry_after.encode())] if step.retry_after is not None else []
        if step.location:
            headers.append((b"location", step.location.encode()))
        if step.raw_body is not None:
            kind = (step.content_type or "application/json").encode()
            await exchange.whole(step.status, step.raw_body.encode(), kind, headers)
            return
        message = f"Scripted {step.status}."
        if step.leak_key:
            message += f" You sent: {exchange.recorded.headers.get('x-api-key')}."
        error = step.error or {"type": TYPES.get(step.status, "api_error"), "message": message}
        await exchange.whole(step.status, _envelope(error), b"application/json", headers)

    @staticmethod
    async def _refuse(exchange: Exchange, error: BadRequestError) -> None:
        status = 404 if error.code == "model_not_found" else 400
        said = {"type": TYPES[status], "message": error.message}
        await exchange.whole(status, _envelope(said), b"application/json")


def _envelope(error: Mapping[str, Any]) -> bytes:
    return _encode({"type": "error", "error": error, "request_id": "req_scripted"})


def model_entry(name: str, *, sees: bool = True) -> dict[str, Any]:
    """What GET /v1/models says of one model, as far as anybody here reads it."""
    return {
        "type": "model",
        "id": name,
        "display_name": name.title(),
        "created_at": "2026-01-01T00:00:00Z",
        "lifecycle": "active",
        "max_input_tokens": 400_000,
        "max_tokens": 50_000,
        "capabilities": {"image_input": {"supported": sees}},
    }


class _Message(Reply):
    """A `message`, whole or as events."""

    def __init__(self, step: Step, body: Mapping[str, Any], number: int) -> None:
        asked = _as_openai(body)
        super().__init__(step, asked, number)
        self._asked = asked
        self._message = {
            "id": f"msg_scripted_{number}",
            "type": "message",
            "role": "assistant",
            "model": body["model"],
            "stop_sequence": None,
            "stop_details": None,
        }

    @property
    def _stop_reason(self) -> str:
        return FINISHES.get(self.finish, self.finish)

    def _counted(self, *, end: bool) -> dict[str, Any]:
        used = self.usage()
        return {
            "input_tokens": used["prompt_tokens"],
            "cache_read_input_tokens": 7,
            "cache_creation_input_tokens": 5,
            "output_tokens": used["completion_tokens"] if end else 1,
        }

    def whole(self) -> bytes:
        content: list[dict[str, Any]] = []
        if self.step.reasoning:
            content.append({"type": "thinking", "thinking": self.step.reasoning, "signature": "c2lnbmVk"})
        if self.calls:
            content += [
                {"type": "tool_use", "id": f"toolu_{at}", "name": call.name, "input": _json(call.arguments)}
                for at, call in enumerate(self.calls)
            ]
        else:
            content.append({"type": "text", "text": self.text})
        ended = {"content": content, "stop_reason": self._stop_reason, "usage": self._counted(end=True)}
        return _encode(self._message | ended | (self.step.extra or {}))

    def frames(self) -> Iterator[Frame]:
        step = self.step
        opened: dict[str, Any] = {"content": [], "stop_reason": None, "usage": self._counted(end=False)}
        wait = step.first_token_delay if step.hang != "first" else 0
        yield wait, self._named({"type": "message_start", "message": self._message | opened})
        yield 0, self._named({"type": "ping"})
        if step.hang == "first":
            yield 0, Act.HANG
        index = 0
        if step.reasoning:
            block = {"type": "thinking", "thinking": "", "signature": ""}
            deltas = [
                {"type": "thinking_delta", "thinking": one} for one in pieces(step.reasoning, None, None)
            ]
            deltas.append({"type": "signature_delta", "signature": "c2lnbmVk"})
            yield from self._block(index, block, deltas)
            index += 1
        yield from self._said(index)
        if step.finish:
            delta = {"stop_reason": self._stop_reason, "stop_sequence": None}
            ended = {"type": "message_delta", "delta": delta, "usage": self._counted(end=True)}
            yield 0, self._named(ended)
        if step.hang == "end":
            yield 0, Act.HANG
        if step.done:
            yield 0, self._named({"type": "message_stop"})

    def _said(self, index: int) -> Iterator[Frame]:
        step = self.step
        if self.calls:
            for at, call in enumerate(self.calls):
                block = {"type": "tool_use", "id": f"toolu_{at}", "name": call.name, "input": {}}
                size = step.chunk_size or 7
                parts = list(pieces("" if call.arguments == "{}" else call.arguments, None, size))
                deltas = [{"type": "input_json_delta", "partial_json": one} for one in ("", *parts)]
                yield from self._block(index + at, block, deltas)
            return
        texts = pieces(self.text, step.chunks, step.chunk_size)
        deltas = [{"type": "text_delta", "text": one} for one in texts]
        yield from self._block(index, {"type": "text", "text": ""}, deltas, eventful=True)

    def _block(
        self,
        index: int,
        block: Mapping[str, Any],
        deltas: Sequence[Mapping[str, Any]],
        *,
        eventful: bool = False,
    ) -> Iterator[Frame]:
        step = self.step
        yield 0, self._named({"type": "content_block_start", "index": index, "content_block": block})
        for at, delta in enumerate(deltas):
            if eventful:
                yield from self._happenings(at)
            wait = step.chunk_delay if at else 0
            yield wait, self._named({"type": "content_block_delta", "index": index, "delta": delta})
            if step.comments:
                yield 0, self._named({"type": "ping"}) + self._lines(b": comment\n\n")
        yield 0, self._named({"type": "content_block_stop", "index": index})

    def _happenings(self, at: int) -> Iterator[Frame]:
        step = self.step
        ends = {step.cut_after: Act.CUT, step.end_after: Act.END, 1 if step.hang == "mid" else None: Act.HANG}
        if at in ends:
            yield 0, ends[at]
        if at == step.malformed_after:
            yield 0, self._lines(b'event: content_block_delta\ndata: {"type": "content_block_delta", "x\n\n')
        if at == step.error_after:
            error = step.error or {"type": "overloaded_error", "message": "The scripted provider broke."}
            yield 0, self._named({"type": "error", "error": error, "request_id": "req_scripted"})
            yield 0, Act.END

    def _named(self, event: dict[str, Any]) -> bytes:
        return self._lines(b"event: " + event["type"].encode() + b"\n") + self._event(
            event | (self.step.extra or {})
        )


def _json(text: str) -> Any:
    return msgspec.json.decode(text)


def _as_openai(body: Mapping[str, Any]) -> dict[str, Any]:
    """What the script needs to make up an answer."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": _text(body.get("system"))}]
    for turn in body["messages"]:
        blocks = _blocks(turn["content"])
        results = [block for block in blocks if block["type"] == "tool_result"]
        messages += [{"role": "tool", "content": _text(one.get("content"))} for one in results]
        if len(results) < len(blocks):
            messages.append({"role": turn["role"], "content": _text(blocks)})
    asked: dict[str, Any] = {
        "model": body["model"],
        "messages": messages,
        "max_tokens": body["max_tokens"],
        "stop": body.get("stop_sequences"),
    }
    if body.get("tools"):
        asked["tools"] = [
            {"type": "function", "function": {"name": one["name"], "parameters": one["input_schema"]}}
            for one in body["tools"]
        ]
        choice = body.get("tool_choice") or {"type": "auto"}
        named = {"function": {"name": choice.get("name")}}
        asked["tool_choice"] = {"any": "required", "tool": named}.get(choice["type"], choice["type"])
    form = (body.get("output_config") or {}).get("format")
    if form:
        asked["response_format"] = {"type": "json_schema", "json_schema": {"schema": form["schema"]}}
    return asked


def _blocks(content: Any) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content or []


def _text(content: Any) -> str:
    return " ".join(
        block["text"] if block["type"] == "text" else f"[{block['type']}]"
        for block in _blocks(content)
        if block["type"] != "tool_result"
    )


def check(body: Any) -> Any:
    """`body` as it is, or BadRequestError for what the API refuses."""
    _need(isinstance(body, dict), "The body is not an object.")
    for name in REMOVED:
        _need(name not in body, f"{name}: this parameter is not supported in this API version")
    unknown = sorted(body.keys() - KNOWN)
    _need(not unknown, f"{', '.join(unknown)}: Extra inputs are not permitted")
    most = body.get("max_tokens")
    _need(type(most) is int and most >= 1, "max_tokens: Input should be a valid integer, at least 1")
    _need(isinstance(body.get("model"), str), "model: Field required")
    for at, stop in enumerate(body.get("stop_sequences") or ()):
        _need(stop.strip() != "", f"stop_sequences.{at}: each stop sequence must contain non-whitespace")
    marks = [0]
    if "system" in body:
        for block in _blocks(body["system"]):
            _need(block.get("type") == "text", "system: only text is allowed")
            _check_block(block, marks)
    _check_tools(body, marks)
    _check_turns(body.get("messages"), bool(body.get("tools")), marks)
    _need(marks[0] <= 4, f"A maximum of 4 blocks with cache_control may be provided. Found {marks[0]}.")
    return body


def _check_tools(body: Mapping[str, Any], marks: list[int]) -> None:
    tools = body.get("tools") or []
    for tool in tools:
        _need(_NAME.fullmatch(tool.get("name", "")) is not None, "tools: name is malformed")
        _need(
            tool.get("input_schema", {}).get("type") == "object", "tools: input_schema.type: Field required"
        )
        marks[0] += "cache_control" in tool
    names = [tool["name"] for tool in tools]
    _need(len(names) == len(set(names)), "tools: Tool names must be unique.")
    choice = body.get("tool_choice")
    if choice is not None:
        _need(bool(tools), "tool_choice: may only be specified while providing tools")
        _need(choice.get("type") in {"auto", "any", "tool", "none"}, "tool_choice.type: is unknown")
        _need(choice["type"] != "tool" or choice.get("name") in names, "tool_choice: no such tool")
        _need(choice["type"] != "none" or choice.keys() == {"type"}, "tool_choice: Extra inputs")


def _check_turns(turns: Any, has_tools: bool, marks: list[int]) -> None:
    _need(isinstance(turns, list) and len(turns) > 0, "messages: at least one message is required")
    _need(turns[0].get("role") == "user", "messages: first message must use the user role")
    _need(turns[-1].get("role") == "user", "This model does not support assistant message prefill.")
    called: list[str] = []  # in the turn before
    seen: set[str] = set()
    before = None
    for at, turn in enumerate(turns):
        role, blocks = turn.get("role"), _blocks(turn.get("content"))
        _need(turn.keys() == {"role", "content"}, f"messages.{at}: Extra inputs are not permitted")
        _need(role in {"user", "assistant"}, f"messages.{at}.role: is unknown")
        _need(
            role != before, f"messages.{at}: roles must alternate"
        )  # stricter than the API, which joins them
        _need(len(blocks) > 0, f"messages.{at}: content must not be empty")
        before = role
        for block in blocks:
            _check_block(block, marks)
        results = [one["tool_use_id"] for one in blocks if one["type"] == "tool_result"]
        first = [one["tool_use_id"] for one in blocks[: len(results)] if one["type"] == "tool_result"]
        _need(results == first, f"messages.{at}: tool_result blocks must come first")
        _need(role == "user" or not results, f"messages.{at}: tool_result is the user's")
        _need(sorted(results) == sorted(called), f"messages.{at}: each tool_use must have its tool_result")
        called = [one["id"] for one in blocks if one["type"] == "tool_use"]
        _need(role == "assistant" or not called, f"messages.{at}: tool_use is the assistant's")
        _need(not called or has_tools, f"messages.{at}: tool_use needs tools to be defined")
        _need(len(set(called)) == len(called) and not seen & set(called), "tool_use ids must be unique")
        seen |= set(called)


def _check_block(block: Mapping[str, Any], marks: list[int]) -> None:
    marks[0] += "cache_control" in block
    match block:
        case {"type": "text", "text": str(text)}:
            _need(text.strip() != "", "text content blocks must contain non-whitespace text")
        case {"type": "image", "source": {"type": "url", "url": str(url)}}:
            _need(url.startswith("https://"), "only HTTPS URLs are supported")
        case {"type": "image", "source": {"type": "base64", "media_type": str(kind), "data": str(data)}}:
            _need(kind in {"image/jpeg", "image/png", "image/gif", "image/webp"}, "media_type: is unknown")
            _need(data != "", "image: is empty")
        case {"type": "document", "source": {"type": "base64", "media_type": "application/pdf"}}:
            pass
        case {"type": "tool_use", "id": str(id_), "name": str(name), "input": dict()}:
            _need(_ID.fullmatch(id_) is not None, "tool_use.id: String should match pattern")
            _need(_NAME.fullmatch(name) is not None, "tool_use.name: String should match pattern")
        case {"type": "tool_result", "tool_use_id": str()}:
            for inner in _blocks(block.get("content")):
                _need(inner.get("type") in {"text", "image", "document"}, "tool_result: is malformed")
                _check_block(inner, marks)
        case _:
            _need(False, f"a block of type {block.get('type')!r} is malformed")


def _need(so: bool, otherwise: str) -> None:
    if not so:
        raise BadRequestError(otherwise)
