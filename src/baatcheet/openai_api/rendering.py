"""A turn in OpenAI's words."""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import msgspec

from baatcheet.chat.errors import TurnInterrupted
from baatcheet.chat.events import raw_chunk, says_something
from baatcheet.chat.feed import FIRST_CHUNK, Outcome, TurnFeed, problem_of
from baatcheet.kit import sse
from baatcheet.platform.errors import Problem
from baatcheet.providers.model import Chunk, Usage


def completion_id(feed: TurnFeed) -> str:
    return f"chatcmpl-{feed.identity.id.hex}"


def model_name(feed: TurnFeed) -> str:
    """The model as the provider calls it."""
    return (
        (feed.answered_by or feed.identity.model or "").partition("/")[2] or feed.identity.model or "unknown"
    )


def failure(feed: TurnFeed, outcome: Outcome) -> Problem | None:
    """What an ended turn is to a client that asked for a completion; None when it is one."""
    if outcome.error is not None:
        return problem_of(outcome.error)
    if outcome.status in {"interrupted", "failed"}:
        return TurnInterrupted(feed.identity.id)
    return None


def usage_of(usage: Usage | None) -> dict[str, Any]:
    """OpenAI's `usage` object, its three sums always there."""
    usage = usage or Usage()
    sums = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
    }
    details: dict[str, Any] = msgspec.to_builtins(usage)
    return details | sums


class _Likely(msgspec.Struct):
    logprobs: Any = None


class _LikelyChunk(msgspec.Struct):
    choices: list[_Likely]


_likely = msgspec.json.Decoder(_LikelyChunk)


def logprobs_of(feed: TurnFeed) -> dict[str, list[Any] | None] | None:
    """The `logprobs` of all chunks as one object. They are not stored: a reply that is told again is without them."""
    found = [
        choice.logprobs for chunk in feed.chunks if chunk.raw for choice in _likely.decode(chunk.raw).choices
    ]
    whole: dict[str, list[Any] | None] = {"content": None, "refusal": None}
    for kind in whole:
        tokens = [one[kind] for one in found if isinstance(one, dict) and isinstance(one.get(kind), list)]
        whole[kind] = list(chain.from_iterable(tokens)) or None
    return whole if any(whole.values()) else None


def completion(feed: TurnFeed, outcome: Outcome, logprobs: dict[str, Any] | None = None) -> bytes:
    """The `chat.completion` of a turn that was completed, or cancelled with what it had."""
    message = {"refusal": None, **(outcome.message or {"role": "assistant", "content": ""})}
    return msgspec.json.encode(
        {
            "id": completion_id(feed),
            "object": "chat.completion",
            "created": feed.identity.created,
            "model": model_name(feed),
            "choices": [
                {
                    "index": 0,
                    "message": message,
                    "logprobs": logprobs,
                    "finish_reason": outcome.finish_reason or "stop",
                }
            ],
            "usage": usage_of(outcome.usage),
        }
    )


class _Head(msgspec.Struct):
    """What the chunks of one stream have in common."""

    id: str
    created: int
    model: str


_head = msgspec.json.Decoder(_Head)


def head_of(feed: TurnFeed) -> _Head:
    """The provider's, where its chunks are passed on as they came; ours, where they are made anew."""
    if feed.chunks and (raw := feed.chunks[0].raw):
        return _head.decode(raw)
    return _Head(completion_id(feed), feed.identity.created, model_name(feed))


class CompletionStream:
    """The turn's chunks as `chat.completion.chunk` events, each with its number as the event's id."""

    def __init__(self, *, include_usage: bool) -> None:
        self._include_usage = include_usage

    def start(self, feed: TurnFeed, after: int) -> bytes:
        return b""

    def chunks(self, feed: TurnFeed, first: int, chunks: Sequence[Chunk]) -> bytes:
        if len(chunks) == 1 and chunks[0].raw:  # the usual case, as it came
            return b"id: %d\ndata: %b\n\n" % (first, chunks[0].raw)
        id_, created, model = completion_id(feed), feed.identity.created, model_name(feed)
        head = b""
        if first == FIRST_CHUNK and chunks and not chunks[0].raw:  # from storage: say who speaks first
            head = sse.event(self._made(feed, {"delta": {"role": "assistant", "content": ""}}))
        return head + b"".join(
            b"id: %d\ndata: %b\n\n" % (number, raw_chunk(chunk, id=id_, created=created, model=model))
            for number, chunk in enumerate(chunks, first)
            if chunk.raw or says_something(chunk)
        )

    def end(self, feed: TurnFeed) -> bytes:
        outcome = feed.outcome
        assert outcome is not None
        problem = failure(feed, outcome)
        if problem is not None:
            return sse.event(msgspec.json.encode(problem.envelope()), id=feed.last)
        end = b""
        if outcome.status != "completed" or not feed.chunks or feed.chunks[-1].finish_reason is None:
            end += sse.event(
                self._made(feed, {"delta": {}, "finish_reason": outcome.finish_reason or "stop"})
            )
        if self._include_usage:
            end += sse.event(self._made(feed, None, usage=usage_of(outcome.usage)), id=feed.last)
        return end + sse.DONE

    def _made(self, feed: TurnFeed, choice: dict[str, Any] | None, **more: Any) -> bytes:
        head = head_of(feed)
        return msgspec.json.encode(
            {
                "id": head.id,
                "object": "chat.completion.chunk",
                "created": head.created,
                "model": head.model,
                "choices": []
                if choice is None
                else [{"index": 0, "finish_reason": None, "logprobs": None, **choice}],
                **more,
            }
        )
