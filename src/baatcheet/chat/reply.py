"""Putting a reply together from its chunks.

What a provider sends is not trusted: any JSON may stand where a delta or a tool call belongs, and none of it makes
a reply fail or grow beyond its bounds.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from baatcheet.chat.events import says_something
from baatcheet.kit.text import storable
from baatcheet.platform.errors import BadGateway
from baatcheet.providers.model import Chunk, Usage

MAX_REPLY = 16_000_000  # characters of text, tool calls and other fields together
MAX_RECEIVED = 256_000_000  # bytes of chunks as they came: the feed holds them for its followers
MAX_TOOL_CALLS = 1024
MAX_DEPTH = 64  # nesting of a field; what lies deeper is left out
_ENTRY = 16  # what a value that is no text counts as, in characters


class ReplyTooLong(BadGateway):
    """The provider's reply is too long."""

    type = "reply-too-long"
    openai_code = "reply_too_long"

    def __init__(self) -> None:
        super().__init__(
            f"The provider's reply is longer than {MAX_REPLY:,} characters, or came in more than "
            f"{MAX_RECEIVED:,} bytes: it was stopped. What it had said is kept."
        )


@dataclass(slots=True)
class _Growing:
    """A text that comes in pieces."""

    pieces: list[str] = field(default_factory=list)

    def whole(self) -> str:
        if len(self.pieces) > 1:
            self.pieces = ["".join(self.pieces)]
        return self.pieces[0] if self.pieces else ""


@dataclass(slots=True)
class _ToolCall:
    id: str = ""
    type: str = "function"
    name: _Growing = field(default_factory=_Growing)
    arguments: _Growing = field(default_factory=_Growing)

    def wire(self) -> dict[str, Any]:
        function = {"name": self.name.whole(), "arguments": self.arguments.whole()}
        return {"id": self.id, "type": self.type, "function": function}


class Reply:
    """The message so far. Text pieces are joined; tool calls are merged by their index; other fields by their kind."""

    def __init__(self) -> None:
        self._text = _Growing()
        self._calls: dict[int, _ToolCall] = {}  # by the provider's index, which may be any
        self._beside: dict[str, Any] = {}  # the texts that a dict in here holds are `_Growing`
        self._size = 0
        self._received = 0
        self.finish_reason: str | None = None
        self.usage: Usage | None = None
        self.held: list[Chunk] = []  # what ends the reply: to be shown once it is committed

    def take(self, chunks: Sequence[Chunk]) -> list[Chunk]:
        """Take in what arrived. Returns the chunks that can be shown at once; one of nothing but usage never is.

        Raises ReplyTooLong, and takes nothing, once what came before is beyond the bounds: what was taken is always
        what was returned or held.
        """
        if self._size > MAX_REPLY or self._received > MAX_RECEIVED:
            raise ReplyTooLong
        shown: list[Chunk] = []
        for chunk in chunks:
            text, choice = chunk.text, chunk.choice
            self._received += len(chunk.raw)
            if text:
                self._text.pieces.append(text)
                self._size += len(text)
            if choice is not None:
                self._merge(choice)
            if chunk.finish_reason is not None:
                self.finish_reason = chunk.finish_reason
            if chunk.usage is not None:
                self.usage = chunk.usage
                if not says_something(chunk):
                    continue
            (shown if self.finish_reason is None else self.held).append(chunk)
        return shown

    def _merge(self, choice: Any) -> None:
        delta = choice.get("delta") if isinstance(choice, dict) else None
        if not isinstance(delta, dict):
            return
        for key, value in delta.items():
            if key in {"role", "content"} or value is None:
                continue
            if key == "tool_calls":
                for call in value if isinstance(value, list) else [value]:
                    if isinstance(call, dict):
                        self._merge_call(call)
            else:
                self._add(self._beside, storable(key), _kept(value))

    def _merge_call(self, delta: dict[str, Any]) -> None:
        """Fold one of a delta's `tool_calls` in: by index, and by order where a provider leaves the index out."""
        index, id_, kind = delta.get("index"), _kept(delta.get("id")), _kept(delta.get("type"))
        if not isinstance(index, int):
            newest = max(self._calls, default=-1)
            index = newest + 1 if id_ or not self._calls else newest
        call = self._calls.get(index)
        if call is None:
            if len(self._calls) >= MAX_TOOL_CALLS:
                return
            call = self._calls[index] = _ToolCall()
            self._size += _ENTRY
        if id_ and isinstance(id_, str):
            self._size += len(id_) - len(call.id)
            call.id = id_
        if kind and isinstance(kind, str):
            self._size += len(kind) - len(call.type)
            call.type = kind
        function = delta.get("function")
        if isinstance(function, dict):
            self._grow(call.name, function.get("name"))
            self._grow(call.arguments, function.get("arguments"))

    def _grow(self, text: _Growing, piece: Any) -> None:
        """Add a piece of a name or of arguments; some servers send these as an object, which is meant as its JSON."""
        piece = _kept(piece)
        if piece is not None and not isinstance(piece, str):
            piece = msgspec.json.encode(piece).decode()
        if piece:
            text.pieces.append(piece)
            self._size += len(piece)

    def _add(self, into: dict[str, Any], key: str, new: Any) -> None:
        """How a field that is streamed in pieces adds up: texts and lists join, objects merge, the rest is replaced."""
        if key not in into:
            self._size += len(key) + _ENTRY
        old = into.get(key)
        if isinstance(new, str):
            if not isinstance(old, _Growing):
                old = into[key] = _Growing()
            old.pieces.append(new)
            self._size += len(new)
        elif isinstance(new, dict):
            if not isinstance(old, dict):
                old = into[key] = {}
            for name, value in new.items():
                self._add(old, name, value)
        elif isinstance(new, list):
            if not isinstance(old, list):
                old = into[key] = []
            old.extend(new)
            self._size += _size(new)
        else:
            into[key] = new

    @property
    def text(self) -> str:
        return self._text.whole()

    @property
    def empty(self) -> bool:
        return not self._text.pieces and not self._beside and not self._calls

    def message(self) -> dict[str, Any]:
        """The assistant's message in OpenAI's form, fit to be stored."""
        message: dict[str, Any] = {
            "role": "assistant",
            "content": storable(self.text) or (None if self._calls else ""),
            **{key: _whole(value) for key, value in self._beside.items()},
        }
        if self._calls:
            message["tool_calls"] = [self._calls[index].wire() for index in sorted(self._calls)]
        return message


def _kept(value: Any, depth: int = MAX_DEPTH) -> Any:
    """A copy of `value`, as JSON was decoded, of which everything can be stored."""
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, list | dict) and depth == 0:
        return None
    if isinstance(value, list):
        return [_kept(item, depth - 1) for item in value]
    if isinstance(value, dict):
        return {storable(key): _kept(item, depth - 1) for key, item in value.items()}
    if isinstance(value, int) and not -(2**63) <= value < 2**64:  # no JSON encoder of ours writes these
        return None
    return value


def _size(value: Any) -> int:
    """What a value takes, in characters."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, list):
        return sum([_ENTRY + _size(item) for item in value])
    if isinstance(value, dict):
        return sum([_ENTRY + len(key) + _size(item) for key, item in value.items()])
    return 0


def _whole(value: Any) -> Any:
    """`value` with its texts in one piece."""
    if isinstance(value, _Growing):
        return value.whole()
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    return value
