"""What is received: chunks and completions, checked, and made well-formed where a dialect leaves things out.

A chunk that is well-formed as it came is decoded once into a small struct, and its bytes are passed on
untouched. Everything else takes the slow way: decode, complete, encode.
"""

import time
from typing import Annotated, Any
from uuid import uuid4

import msgspec

from baatcheet.providers.adapters.received import (
    LATEST,
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


class _Choice(msgspec.Struct, gc=False):
    delta: dict[str, Any]
    finish_reason: str | None = None


class _Chunk(msgspec.Struct, gc=False):
    # The required ones are what OpenAI's clients rely on.
    id: str
    object: str
    created: Annotated[int, msgspec.Meta(ge=0, lt=LATEST)]
    model: str
    choices: list[_Choice]
    usage: Usage | None = None
    error: Any = None


_chunk = msgspec.json.Decoder(_Chunk)
_encode = msgspec.json.encode


class Chunks:
    """Decodes the events of one stream."""

    working = False  # this protocol has no word for it

    def __init__(self, model: str) -> None:
        self._envelope = _Envelope(model, "chat.completion.chunk", "chatcmpl-")

    def take(self, data: bytes, chunks: list[Chunk]) -> bool:
        if data == b"[DONE]":
            return True
        chunks.append(self.decode(data))
        return False

    def decode(self, data: bytes) -> Chunk:  # noqa: C901 - the hot path: out as soon as possible
        """The chunk in one event's data. Raises UnreadableError or ErrorEvent."""
        try:
            chunk = _chunk.decode(data)
            if not data.isascii():
                data.decode()  # fields that the struct passes over have not been looked at
        except UNREADABLE:
            return self._repaired(data)
        if chunk.error is not None or b"\n" in data or chunk.object != "chat.completion.chunk":
            return self._repaired(data)
        choices = chunk.choices
        if not choices:
            return Chunk(data, usage=chunk.usage)
        choice = choices[0]
        delta = choice.delta
        text = delta.get("content")
        if text is None:
            text = ""
        elif text.__class__ is not str:
            return self._repaired(data)
        if choice.finish_reason == "":  # which clients take for an end
            return self._repaired(data)
        if len(delta) == 1 and text:  # the usual one
            return Chunk(data, text, None, choice.finish_reason, chunk.usage)
        # Anything but text in the delta, null apart, makes the chunk one that is not plain.
        for name, value in delta.items():
            if value is not None and name not in ("content", "role"):
                return Chunk(data, text, _first_choice(data), choice.finish_reason, chunk.usage)
        return Chunk(data, text, None, choice.finish_reason, chunk.usage)

    def _repaired(self, data: bytes) -> Chunk:
        """The slow way: a chunk that leaves something out, or has it in another form."""
        value = read_object(data)
        if value.get("error"):
            raise ErrorEvent(value["error"])
        choices = value.get("choices")
        if choices is None and "usage" in value:
            choices = []
        if not isinstance(choices, list):
            raise UnreadableError("a chunk has no choices")
        value["choices"] = [_choice(one, at) for at, one in enumerate(choices)]
        usage = _with_usage(value)
        raw = _encode(self._envelope.around(value))
        if not choices:
            return Chunk(raw, usage=usage)
        choice = value["choices"][0]
        delta = choice["delta"]
        plain = all(v is None or name in {"content", "role"} for name, v in delta.items())
        return Chunk(
            raw, delta.get("content") or "", None if plain else choice, choice["finish_reason"], usage
        )


def completion(data: bytes, model: str) -> Completion:
    """The whole reply in `data`. Raises UnreadableError or ErrorEvent."""
    value = read_object(data)
    if value.get("error"):
        raise ErrorEvent(value["error"])
    choices = value.get("choices")
    if not isinstance(choices, list) or not choices:
        raise UnreadableError("the answer has no choices")
    envelope = _Envelope(model, "chat.completion", "chatcmpl-")
    well_formed = envelope.fits(value) and all(_is_whole(choice) for choice in choices)
    given = value.copy()
    usage = _with_usage(value)
    if well_formed and b"\n" not in data and value == given:
        return Completion(data, usage)
    for at, choice in enumerate(choices):
        if not isinstance(choice, dict) or not isinstance(choice.get("message"), dict):
            raise UnreadableError("a choice of the answer has no message")
        if not isinstance(choice.get("index"), int):
            choice["index"] = at
        finish, message = choice.get("finish_reason"), choice["message"]
        choice["finish_reason"] = finish if isinstance(finish, str) and finish else "stop"
        if not isinstance(message.get("role"), str):
            message["role"] = "assistant"
        message["content"] = _content(message.get("content"))
    return Completion(_encode(envelope.around(value)), usage)


def embedding(data: bytes) -> bytes:
    """An embeddings answer, checked. Raises UnreadableError or ErrorEvent."""
    value = read_object(data)
    if value.get("error"):
        raise ErrorEvent(value["error"])
    if not isinstance(value.get("data"), list):
        raise UnreadableError("the answer has no data")
    return data


def transcription(data: bytes) -> bytes:
    """A transcription, checked to have a text and to be JSON. Raises UnreadableError or ErrorEvent."""
    value = read_object(data)
    if value.get("error"):
        raise ErrorEvent(value["error"])
    if not isinstance(value.get("text"), str):
        raise UnreadableError("the answer has no text")
    return _encode(value)


def listing(data: bytes) -> list[object]:
    """The entries of a /models answer. Raises UnreadableError."""
    value = read(data)
    entries = value.get("data") if isinstance(value, dict) else value
    if not isinstance(entries, list):
        raise UnreadableError("the answer has no data")
    return entries


class _Envelope:
    """The four fields around `choices`; those that a provider leaves out are the same in every chunk."""

    def __init__(self, model: str, kind: str, prefix: str) -> None:
        self._model = model
        self._kind = kind
        self._prefix = prefix
        self._id: str | None = None
        self._created = int(time.time())

    def fits(self, value: dict[str, Any]) -> bool:
        return (
            isinstance(value.get("id"), str)
            and value.get("object") == self._kind
            and isinstance(value.get("created"), int)
            and moment(value["created"]) is not None
            and isinstance(value.get("model"), str)
        )

    def around(self, value: dict[str, Any]) -> dict[str, Any]:
        if self._id is None:
            self._id = f"{self._prefix}{uuid4().hex}"
        given_id, created, model = value.get("id"), moment(value.get("created")), value.get("model")
        head = {
            "id": given_id if isinstance(given_id, str) and given_id else self._id,
            "object": self._kind,
            "created": self._created if created is None else created,
            "model": model if isinstance(model, str) and model else self._model,
        }
        return head | {name: v for name, v in value.items() if name not in head}


def _first_choice(data: bytes) -> dict[str, Any]:
    first: dict[str, Any] = msgspec.json.decode(data)["choices"][0]
    return first


def _is_whole(choice: object) -> bool:
    if not isinstance(choice, dict) or not isinstance(choice.get("message"), dict):
        return False
    message = choice["message"]
    return (
        isinstance(message.get("role"), str)
        and isinstance(message.get("content", 0), str | None)
        and isinstance(choice.get("finish_reason"), str)
        and isinstance(choice.get("index"), int)
    )


def _choice(choice: object, at: int) -> dict[str, Any]:
    if not isinstance(choice, dict):
        raise UnreadableError("a choice of a chunk is not an object")
    delta = choice.get("delta")
    if delta is None:
        # A server that answers a stream with a whole message, or with the older `text`.
        message = choice.pop("message", None)
        delta = message if isinstance(message, dict) else {"content": choice.pop("text", None)}
    if not isinstance(delta, dict):
        raise UnreadableError("a delta is not an object")
    if "content" in delta:
        delta["content"] = _content(delta["content"])
    finish, index = choice.get("finish_reason"), choice.get("index")
    return {
        **choice,
        "index": index if isinstance(index, int) else at,
        "delta": delta,
        "finish_reason": str(finish) if finish else None,
    }


def _content(content: object) -> str | None:
    """Text, where some servers give a list of parts."""
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, dict) and part.get("type") == "text"]
        return "".join(str(part.get("text") or "") for part in parts)
    if content is not None and not isinstance(content, str):
        raise UnreadableError("the content of a message is not text")
    return content


def _with_usage(value: dict[str, Any]) -> Usage | None:
    """The usage of a chunk or a completion, whose three sums are put right in it; what stands beside them stays."""
    given = value.pop("usage", None)
    usage = _usage(given)
    if usage is not None:
        sums = {name: getattr(usage, name) for name in ("prompt_tokens", "completion_tokens", "total_tokens")}
        value["usage"] = {**given, **sums}
    return usage


def _usage(value: object) -> Usage | None:
    if not isinstance(value, dict):
        return None
    asked, made = tokens(value.get("prompt_tokens")), tokens(value.get("completion_tokens"))
    total = tokens(value.get("total_tokens"))
    if asked is made is total is None:
        return None
    asked, made = asked or 0, made or 0
    return Usage(
        prompt_tokens=asked,
        completion_tokens=made,
        total_tokens=total or min(asked + made, MOST_TOKENS),
        prompt_tokens_details=tokens_by_kind(value.get("prompt_tokens_details")),
        completion_tokens_details=tokens_by_kind(value.get("completion_tokens_details")),
    )
