"""A turn's chunks in their stored form: a JSON array in which a text is text and anything else is a choice."""

from collections.abc import Sequence
from typing import Any

import msgspec

from baatcheet.providers.model import Chunk


def says_something(chunk: Chunk) -> bool:
    """Whether a follower is shown this chunk; one that brings only usage is not."""
    return (
        bool(chunk.text) or chunk.usage is None or chunk.choice is not None or chunk.finish_reason is not None
    )


def choice_of(chunk: Chunk) -> dict[str, Any] | None:
    """The chunk's choice, where it is more than a piece of text."""
    if chunk.choice is None and chunk.finish_reason is not None:
        delta = {"content": chunk.text} if chunk.text else {}
        return {"index": 0, "delta": delta, "finish_reason": chunk.finish_reason}
    return chunk.choice


def pack(chunks: Sequence[Chunk]) -> str:
    """`chunks` as a JSON array of texts and choices."""
    return msgspec.json.encode([choice_of(chunk) or chunk.text for chunk in chunks]).decode()


def unpack(events: str | bytes) -> list[Chunk]:
    """The chunks that `pack` packed, without their raw form.

    Raises msgspec.DecodeError, TypeError or AttributeError on anything else.
    """
    return [chunk_of(event) for event in msgspec.json.decode(events)]


def chunk_of(event: str | dict[str, Any]) -> Chunk:
    if isinstance(event, str):
        return Chunk(raw=b"", text=event)
    delta = event.get("delta") or {}
    return Chunk(
        raw=b"", text=delta.get("content") or "", choice=event, finish_reason=event.get("finish_reason")
    )


def raw_chunk(chunk: Chunk, *, id: str, created: int, model: str) -> bytes:  # noqa: A002 - OpenAI's own word
    """The `chat.completion.chunk` JSON of a chunk; made anew when it came from storage."""
    if chunk.raw:
        return chunk.raw
    choice = choice_of(chunk) or {"index": 0, "delta": {"content": chunk.text}, "finish_reason": None}
    return msgspec.json.encode(
        {
            "id": id,
            "object": "chat.completion.chunk",
            "created": created,
            "model": model,
            "choices": [{"index": 0, "finish_reason": None, "logprobs": None, **choice}],
        }
    )
