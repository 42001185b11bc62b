"""What is received: the Messages API's answers and events as OpenAI's completions and chunks.

Sources: platform.claude.com/docs/en/build-with-claude/streaming, …/handling-stop-reasons, …/api/models/list.

Thinking becomes `reasoning_content`; its signatures, and what ran on the provider's own servers, are passed over.
Events and blocks of unknown types are too: the API says that there may be some at any time.
"""

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import msgspec

from baatcheet.providers.adapters.received import (
    UNREADABLE,
    ErrorEvent,
    UnreadableError,
    moment,
    read,
    read_object,
    tokens,
    tokens_by_kind,
)
from baatcheet.providers.model import MOST_TOKENS, Chunk, Completion, Usage

FINISHES: Mapping[str, str] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}

_encode = msgspec.json.encode


class _Delta(msgspec.Struct, gc=False):
    type: str = ""  # a message_delta's has none
    text: str = ""
    partial_json: str = ""
    thinking: str = ""
    stop_reason: str | None = None
    stop_details: Any = None


class _Event(msgspec.Struct, gc=False):
    type: str
    delta: _Delta | None = None
    index: int = 0
    message: dict[str, Any] | None = None
    content_block: dict[str, Any] | None = None
    usage: dict[str, Any] | None = None
    error: Any = None


_event = msgspec.json.Decoder(_Event)


class _Call:
    """A tool call that is being streamed."""

    def __init__(self, number: int, given: object) -> None:
        self.number = number
        self.given = given if isinstance(given, dict) else {}
        self.began = False  # whether any of its arguments came


class MessageEvents:
    """Decodes the events of one stream."""

    def __init__(self, model: str) -> None:
        self._created = int(time.time())
        self._calls: dict[int, _Call] = {}  # by the index of their block
        self._usage: dict[str, Any] = {}
        self._thinking = False
        self._address(f"chatcmpl-{uuid4().hex}", model)

    @property
    def working(self) -> bool:
        return self._thinking

    def _address(self, id_: str, model: str) -> None:
        head = {"id": id_, "object": "chat.completion.chunk", "created": self._created, "model": model}
        self._head = _encode(head)[:-1] + b',"choices":['
        self._before = self._head + b'{"index":0,"delta":'
        self._before_text = self._before + b'{"content":'
        self._after = b',"logprobs":null,"finish_reason":null}]}'
        self._after_text = b"}" + self._after

    def take(self, data: bytes, chunks: list[Chunk]) -> bool:  # noqa: C901 - one branch for each type
        try:
            event = _event.decode(data)
        except UNREADABLE:
            event = _lenient(data)
        delta = event.delta
        if delta is not None and delta.type == "text_delta":  # the usual one
            text = delta.text
            if text:
                chunks.append(Chunk(self._before_text + _encode(text) + self._after_text, text))
            return False
        match event.type:
            case "content_block_delta":
                self._grow(event.index, delta, chunks)
            case "content_block_start":
                self._open(event.index, event.content_block or {}, chunks)
            case "content_block_stop":
                self._close(event.index, chunks)
            case "message_start":
                self._start(event.message or {}, chunks)
            case "message_delta":
                self._finish(delta, event.usage or {}, chunks)
            case "message_stop":
                return True
            case "error":
                raise ErrorEvent(event.error)
        return False

    def _start(self, message: dict[str, Any], chunks: list[Chunk]) -> None:
        id_, model = message.get("id"), message.get("model")
        if isinstance(id_, str) and id_ and isinstance(model, str) and model:
            self._address(id_, model)
        self._count(message.get("usage"))
        chunks.append(Chunk(self._raw({"role": "assistant", "content": ""})))

    def _open(self, index: int, block: dict[str, Any], chunks: list[Chunk]) -> None:
        kind = block.get("type")
        self._thinking = kind in {"thinking", "redacted_thinking"}
        if kind == "tool_use":
            call = self._calls[index] = _Call(len(self._calls), block.get("input"))
            function = {"name": str(block.get("name") or ""), "arguments": ""}
            self._tell_call(
                {
                    "index": call.number,
                    "id": str(block.get("id") or ""),
                    "type": "function",
                    "function": function,
                },
                chunks,
            )
        elif kind == "text" and isinstance(text := block.get("text"), str) and text:
            chunks.append(Chunk(self._before_text + _encode(text) + self._after_text, text))

    def _grow(self, index: int, delta: _Delta | None, chunks: list[Chunk]) -> None:
        if delta is None:
            raise UnreadableError("a delta is missing")
        if delta.type == "input_json_delta" and delta.partial_json and index in self._calls:
            call = self._calls[index]
            call.began = True
            self._tell_call({"index": call.number, "function": {"arguments": delta.partial_json}}, chunks)
        elif delta.type == "thinking_delta" and delta.thinking:
            self._tell({"reasoning_content": delta.thinking}, chunks)

    def _close(self, index: int, chunks: list[Chunk]) -> None:
        self._thinking = False
        call = self._calls.get(index)
        if call is not None and not call.began:
            # A tool without parameters: no arguments are streamed, but clients read them as JSON.
            call.began = True
            arguments = _encode(call.given).decode()
            self._tell_call({"index": call.number, "function": {"arguments": arguments}}, chunks)

    def _finish(self, delta: _Delta | None, usage: dict[str, Any], chunks: list[Chunk]) -> None:
        self._count(usage)
        if delta is None or delta.stop_reason is None:
            return
        if (explained := _explained(delta.stop_details)) is not None:
            self._tell({"refusal": explained}, chunks)
        finish = FINISHES.get(delta.stop_reason, "stop")
        raw = self._before + b'{},"logprobs":null,"finish_reason":' + _encode(finish) + b"}]}"
        chunks.append(Chunk(raw, finish_reason=finish))
        if (counted := usage_of(self._usage)) is not None:
            raw = self._head + b'],"usage":' + _encode(_usage_wire(counted)) + b"}"
            chunks.append(Chunk(raw, usage=counted))

    def _count(self, usage: object) -> None:
        """What is counted is the sum so far: the newest number of each kind is right."""
        if isinstance(usage, dict):
            self._usage |= {name: value for name, value in usage.items() if value is not None}

    def _tell_call(self, call: dict[str, Any], chunks: list[Chunk]) -> None:
        self._tell({"tool_calls": [call]}, chunks)

    def _tell(self, delta: dict[str, Any], chunks: list[Chunk]) -> None:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
        chunks.append(Chunk(self._raw(delta), choice=choice))

    def _raw(self, delta: dict[str, Any]) -> bytes:
        return self._before + _encode(delta) + self._after


def completion(data: bytes, model: str) -> Completion:
    """The whole reply in `data`. Raises UnreadableError or ErrorEvent."""
    value = read_object(data)
    if value.get("type") == "error" or value.get("error"):
        raise ErrorEvent(value.get("error"))
    content = value.get("content")
    if not isinstance(content, list):
        raise UnreadableError("the answer has no content")
    message = _message(content)
    message["refusal"] = _explained(value.get("stop_details"))
    finish = FINISHES.get(str(value.get("stop_reason")), "stop")
    id_, answering = value.get("id"), value.get("model")
    whole: dict[str, Any] = {
        "id": id_ if isinstance(id_, str) and id_ else f"chatcmpl-{uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": answering if isinstance(answering, str) and answering else model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish}],
    }
    usage = usage_of(value.get("usage"))
    if usage is not None:
        whole["usage"] = _usage_wire(usage)
    return Completion(_encode(whole), usage)


def _message(content: list[Any]) -> dict[str, Any]:
    """The blocks of a reply as one message. Raises UnreadableError."""
    text: list[str] = []
    thoughts: list[str] = []
    calls: list[dict[str, Any]] = []
    for block in content:
        if not isinstance(block, dict):
            raise UnreadableError("a block of the answer is not an object")
        match block:
            case {"type": "text", "text": str(said)}:
                text.append(said)
            case {"type": "thinking", "thinking": str(thought)}:
                thoughts.append(thought)
            case {"type": "tool_use", "id": str(id_), "name": str(name)}:
                given = block.get("input")
                arguments = _encode(given if isinstance(given, dict) else {}).decode()
                function = {"name": name, "arguments": arguments}
                calls.append({"id": id_, "type": "function", "function": function})
    message: dict[str, Any] = {
        "role": "assistant",
        "content": "".join(text) if text or not calls else None,
    }
    if thought := "".join(thoughts):
        message["reasoning_content"] = thought
    if calls:
        message["tool_calls"] = calls
    return message


def usage_of(value: object) -> Usage | None:
    """The API's `usage` in OpenAI's terms: a prompt's tokens include those read from the cache and written to it."""
    if not isinstance(value, dict):
        return None
    asked, made = tokens(value.get("input_tokens")), tokens(value.get("output_tokens"))
    if asked is None and made is None:
        return None
    cached = tokens(value.get("cache_read_input_tokens")) or 0
    written = tokens(value.get("cache_creation_input_tokens")) or 0
    prompt = min((asked or 0) + cached + written, MOST_TOKENS)
    details = value.get("output_tokens_details")
    thought = tokens(details.get("thinking_tokens")) if isinstance(details, dict) else None
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=made or 0,
        total_tokens=min(prompt + (made or 0), MOST_TOKENS),
        prompt_tokens_details=tokens_by_kind(
            {"cached_tokens": cached, **({"cache_write_tokens": written} if written else {})}
        ),
        completion_tokens_details=tokens_by_kind({"reasoning_tokens": thought}),
    )


def listing(data: bytes) -> list[object]:
    """The entries of a /models answer, in the form that `discovery` reads. Raises UnreadableError."""
    value = read(data)
    entries = value.get("data") if isinstance(value, dict) else None
    if not isinstance(entries, list):
        raise UnreadableError("the answer has no data")
    return [_entry(one) if isinstance(one, dict) else one for one in entries]


def _entry(entry: dict[str, Any]) -> dict[str, Any]:
    """`max_input_tokens` is the window; `capabilities` is missing where a server knows nothing of them."""
    capabilities = entry.get("capabilities")
    sees = capabilities.get("image_input") if isinstance(capabilities, dict) else None
    modalities = ["text", "image"] if isinstance(sees, dict) and sees.get("supported") is True else ["text"]
    return {
        "id": entry.get("id"),
        "context_length": entry.get("max_input_tokens"),
        "max_completion_tokens": entry.get("max_tokens"),
        "architecture": {"input_modalities": modalities},
        "created": _moment(entry.get("created_at")),
        "active": entry.get("lifecycle") != "retired",
    }


def _moment(value: object) -> int | None:
    """RFC 3339 as Unix seconds."""
    if not isinstance(value, str):
        return None
    try:
        when = datetime.fromisoformat(value)
        return moment((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError):
        return None


def _explained(details: object) -> str | None:
    explanation = details.get("explanation") if isinstance(details, dict) else None
    return explanation if isinstance(explanation, str) and explanation else None


def _usage_wire(usage: Usage) -> dict[str, Any]:
    """OpenAI's `usage` object, its three sums always there."""
    sums = {name: getattr(usage, name) for name in ("prompt_tokens", "completion_tokens", "total_tokens")}
    rest: dict[str, Any] = msgspec.to_builtins(usage)
    return rest | sums


def _lenient(data: bytes) -> _Event:
    """The slow way. Raises UnreadableError."""
    try:
        return msgspec.convert(read_object(data), _Event)
    except msgspec.ValidationError as error:
        raise UnreadableError(f"it is no event: {error}") from None
