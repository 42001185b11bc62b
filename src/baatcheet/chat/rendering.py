"""A turn in BaatCheet's own words."""

from collections.abc import Sequence
from typing import Any

import msgspec

from baatcheet.chat.events import choice_of
from baatcheet.chat.feed import Outcome, TurnFeed
from baatcheet.kit import sse
from baatcheet.providers.model import Chunk


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def turn_object(feed: TurnFeed, outcome: Outcome | None) -> dict[str, Any]:
    """What a client is told of a turn: ids, how it stands, and the reply when there is one."""
    identity = feed.identity
    message = None
    if outcome is not None and outcome.message is not None:
        message = {"id": _text(identity.reply_id), **outcome.message}
    usage = None
    if outcome is not None and outcome.usage is not None:
        usage = msgspec.to_builtins(outcome.usage)
    return {
        "turn_id": str(identity.id),
        "conversation_id": _text(identity.conversation_id),
        "user_message_id": _text(identity.input_id),
        "message_id": _text(identity.reply_id),
        "title": identity.title,
        "status": outcome.status if outcome is not None else "running",
        # At its start nobody has answered yet: then as in a replay, it is the model that was asked for.
        "model": (feed.answered_by if outcome is not None else None) or identity.model,
        "message": message,
        "finish_reason": outcome.finish_reason if outcome is not None else None,
        "usage": usage,
        "error": outcome.error if outcome is not None else None,
    }


class TurnStream:
    """Events `turn.started`, `message.delta` … and `turn.completed|failed|cancelled|interrupted`, numbered from 1."""

    def start(self, feed: TurnFeed, after: int) -> bytes:
        if after >= 1:
            return b""
        return sse.event(msgspec.json.encode(turn_object(feed, None)), id=1, name="turn.started")

    def chunks(self, feed: TurnFeed, first: int, chunks: Sequence[Chunk]) -> bytes:
        return b"".join(
            b"id: %d\nevent: message.delta\ndata: %b\n\n" % (number, _delta(chunk))
            for number, chunk in enumerate(chunks, first)
        )

    def end(self, feed: TurnFeed) -> bytes:
        assert feed.outcome is not None
        data = msgspec.json.encode(turn_object(feed, feed.outcome))
        return sse.event(data, id=feed.last, name=f"turn.{feed.outcome.status}")


def _delta(chunk: Chunk) -> bytes:
    choice = choice_of(chunk)
    if choice is None:
        return msgspec.json.encode({"text": chunk.text})
    delta = choice.get("delta") or {}
    more = {
        key: value for key, value in delta.items() if key not in {"role", "content"} and value is not None
    }
    if chunk.finish_reason is not None:
        more["finish_reason"] = chunk.finish_reason
    return msgspec.json.encode({"text": chunk.text, **more})
