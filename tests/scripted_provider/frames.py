"""The bytes of an answer, in order, with the pauses between them."""

import json
import time
from collections.abc import Iterator, Mapping
from enum import Enum, auto
from typing import Any

import msgspec

from .answers import Answer, answer, content_text
from .steps import Call, Step

_encode = msgspec.json.encode


class Act(Enum):
    """What is done instead of sending bytes."""

    STAMP = auto()  # send a content chunk made now
    HANG = auto()
    CUT = auto()
    END = auto()


Frame = tuple[float, bytes | Act]  # seconds to wait first, then what to send or do


def tokens(text: str) -> int:
    return (len(text) + 3) // 4


class Reply:
    """One answer to one request, ready to be framed as a stream or as a whole."""

    def __init__(self, step: Step, body: Mapping[str, Any], number: int) -> None:
        self.step = step
        self._id = f"chatcmpl-scripted-{number}"
        self._created = int(time.time())
        self._model = str(body["model"])
        made = self._answer(step, body)
        self.calls = made.calls
        self.text, self.finish = _limited(made.text, body, "tool_calls" if made.calls else "stop")
        if step.finish_reason:
            self.finish = step.finish_reason
        asked = (body.get("stream_options") or {}).get("include_usage") is True
        self._n: int = body.get("n") or 1
        self._logprobs_asked = body.get("logprobs") is True
        self._usage_asked = step.usage == "always" or (step.usage == "asked" and asked)
        self._body = body

    @staticmethod
    def _answer(step: Step, body: Mapping[str, Any]) -> Answer:
        if step.tool_calls:
            return Answer(calls=step.tool_calls)
        return Answer(text=step.reply) if step.reply is not None else answer(body)

    def usage(self) -> dict[str, Any]:
        asked = sum(tokens(content_text(m.get("content"))) + 4 for m in self._body["messages"])
        thought = tokens(self.step.reasoning or "")
        made = tokens(self.text) + thought + sum(tokens(c.name + c.arguments) for c in self.calls)
        return {
            "prompt_tokens": asked,
            "completion_tokens": made * self._n,
            "total_tokens": asked + made * self._n,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": thought * self._n,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        }

    def whole(self) -> bytes:
        """A `chat.completion`."""
        message: dict[str, Any] = {
            "role": "assistant",
            "content": None if self.calls else self.text,
            "refusal": None,
        }
        if self.step.reasoning:
            message["reasoning_content"] = self.step.reasoning
        if self.calls:
            message["tool_calls"] = [_call(i, call) for i, call in enumerate(self.calls)]
        reply: dict[str, Any] = {}
        if not self.step.bare:
            reply = {
                "id": self._id,
                "object": "chat.completion",
                "created": self._created,
                "model": self._model,
            }
        choice = {
            "message": message,
            "logprobs": self._logprobs(self.text),
            "finish_reason": self.finish,
        }
        reply["choices"] = [{"index": index, **choice} for index in range(self._n)]
        if self.step.usage != "never":
            reply["usage"] = self.usage()
        return _encode(reply | (self.step.extra or {}))

    def frames(self) -> Iterator[Frame]:
        """The stream, event by event."""
        step = self.step
        yield step.first_token_delay if step.hang != "first" else 0, self._role() if step.role_chunk else b""
        if step.hang == "first":
            yield 0, Act.HANG
        if step.reasoning:
            for piece in pieces(step.reasoning, None, None):
                yield step.chunk_delay, self._chunk({"reasoning_content": piece})
        yield from self._content()
        usage = self.usage() if step.usage == "last_chunk" else None
        if step.finish:
            yield 0, self._chunk({}, self.finish, usage)
        if step.hang == "end":
            yield 0, Act.HANG
        if self._usage_asked:
            yield 0, self._event({**self._head(), "choices": [], "usage": self.usage()})
        if step.done:
            yield 0, self._frame(b"[DONE]")

    def _content(self) -> Iterator[Frame]:
        step = self.step
        happenings = {
            step.cut_after: Act.CUT,
            step.end_after: Act.END,
            1 if step.hang == "mid" else None: Act.HANG,
        }
        for at, delta in enumerate(self._deltas()):
            if at in happenings:
                yield 0, happenings[at]
            if at == step.malformed_after:
                yield 0, self._frame(b'{"choices": [{"delta": {"content": "x')
            if at == step.error_after:
                yield (
                    0,
                    self._event(
                        {
                            "error": {
                                "message": "The scripted provider broke.",
                                "type": "server_error",
                                "code": None,
                            }
                        }
                    ),
                )
                yield 0, Act.END
            yield (step.chunk_delay if at else 0), (Act.STAMP if step.stamp else delta)
            if step.comments:
                yield 0, self._lines(b": SCRIPTED PROCESSING\n\n")

    def _deltas(self) -> Iterator[bytes]:
        if self.calls:
            for index, call in enumerate(self.calls):
                opened = _call(index, call) | {"index": index}
                opened["function"] = {"name": call.name, "arguments": ""}
                yield self._chunk({"tool_calls": [opened]})
                for piece in pieces(call.arguments, None, self.step.chunk_size or 7):
                    yield self._chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
            return
        before, after = self._around()
        for piece in pieces(self.text, self.step.chunks, self.step.chunk_size):
            yield before + _encode(piece) + after if before else self._chunk({"content": piece})

    def _around(self) -> tuple[bytes, bytes]:
        """What stands before and after the text in a plain content chunk; empty where chunks are unusual."""
        if self.step.pretty or self.step.crlf or self._n > 1 or self._logprobs_asked:
            return b"", b""
        before, _, after = self._chunk({"content": "\x00"}).partition(b'"\\u0000"')
        return before, after

    def stamp(self) -> bytes:
        return self._chunk({"content": f"{time.monotonic_ns()} "})

    def _head(self) -> dict[str, Any]:
        if self.step.bare:
            return {}
        return {
            "id": self._id,
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": self._model,
            "system_fingerprint": "fp_scripted",
        }

    def _role(self) -> bytes:
        return self._chunk({"role": "assistant", "content": None if self.calls else ""})

    def _chunk(
        self, delta: dict[str, Any], finish: str | None = None, usage: dict[str, Any] | None = None
    ) -> bytes:
        """One event for each of the `n` choices."""
        chunk = self._head()
        if usage or self._usage_asked:
            chunk["usage"] = usage
        choice: dict[str, Any] = {"delta": delta, "finish_reason": finish}
        if not self.step.bare:
            choice["logprobs"] = self._logprobs(delta.get("content"))
        return b"".join(
            self._event({**chunk, "choices": [{"index": index, **choice}], **(self.step.extra or {})})
            for index in range(self._n)
        )

    def _logprobs(self, text: str | None) -> dict[str, Any] | None:
        """A token a word, each the less likely the longer it is."""
        if not text or not self._logprobs_asked:
            return None
        made = [
            {"token": piece, "logprob": -len(piece) / 8, "bytes": list(piece.encode()), "top_logprobs": []}
            for piece in pieces(text, None, None)
        ]
        return {"content": made, "refusal": None}

    def _event(self, value: dict[str, Any]) -> bytes:
        return self._frame(json.dumps(value, indent=1).encode() if self.step.pretty else _encode(value))

    def _frame(self, data: bytes) -> bytes:
        return self._lines(b"data: " + data.replace(b"\n", b"\ndata: ") + b"\n\n")

    def _lines(self, text: bytes) -> bytes:
        return text.replace(b"\n", b"\r\n") if self.step.crlf else text


def _call(index: int, call: Call) -> dict[str, Any]:
    return {
        "id": f"call_scripted_{index}",
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    }


def _limited(text: str, body: Mapping[str, Any], finish: str) -> tuple[str, str]:
    """`text` as far as `stop` and `max_tokens` let it go."""
    stop = body.get("stop") or ()
    ends = [text.find(mark) for mark in ([stop] if isinstance(stop, str) else stop) if mark and mark in text]
    if ends:
        text = text[: min(ends)]
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    if isinstance(limit, int) and tokens(text) > limit:
        return text[: limit * 4], "length"
    return text, finish


def pieces(text: str, count: int | None, size: int | None) -> Iterator[str]:
    """`text` in `count` pieces, or pieces of `size` characters, or words. Their sum is `text`."""
    if count is None and size is None:
        start = 0
        while start < len(text):
            end = text.find(" ", start + 1)
            end = len(text) if end < 0 else end
            yield text[start:end]
            start = end
        return
    if count is not None:
        for i in range(count):
            yield text[len(text) * i // count : len(text) * (i + 1) // count]
        return
    assert size is not None
    for start in range(0, len(text), size):
        yield text[start : start + size]
