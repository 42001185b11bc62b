"""The built-in demo: what answers when no provider is configured. It runs no model and uses no network."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any
from uuid import uuid4

import msgspec

from baatcheet.kit.text import headline
from baatcheet.providers.model import Body, Chunk, Completion, ModelCard, ProviderError, Speech, Usage

NAME = "demo"
CARD = ModelCard(provider=NAME, name=NAME, context_window=8_192, vision=True, tools=False)
_QUOTE = 200  # characters of a message that are repeated


class DemoProvider:
    """Answers word by word, `delay` seconds apart, says that it is a demo, and shows what it remembers."""

    def __init__(self, delay: float = 0.015) -> None:
        self._delay = delay

    @property
    def name(self) -> str:
        return NAME

    async def models(self) -> Sequence[ModelCard]:
        return (CARD,)

    def stream(self, model: ModelCard, body: Body) -> AbstractAsyncContextManager[AsyncIterator[list[Chunk]]]:
        return self._stream(model, body)

    @contextlib.asynccontextmanager
    async def _stream(self, model: ModelCard, body: Body) -> AsyncIterator[AsyncIterator[list[Chunk]]]:
        blocks = self._blocks(model, body)
        try:
            yield blocks
        finally:
            await blocks.aclose()  # type: ignore[attr-defined]  # an async generator has it

    async def _blocks(self, model: ModelCard, body: Body) -> AsyncIterator[list[Chunk]]:
        head = _head("chat.completion.chunk", model)
        text = reply(body)
        words = text.split(" ")
        role: Mapping[str, Any] = {"role": "assistant"}
        for at, word in enumerate(words):
            await asyncio.sleep(self._delay)
            piece = word if at == len(words) - 1 else word + " "
            yield [Chunk(_chunk(head, {**role, "content": piece}), piece)]
            role = {}
        yield [Chunk(_chunk(head, {}, "stop"), finish_reason="stop")]
        usage = _usage(body, text)
        yield [Chunk(msgspec.json.encode({**head, "choices": [], "usage": usage}), usage=usage)]

    async def complete(self, model: ModelCard, body: Body) -> Completion:
        text = reply(body)
        usage = _usage(body, text)
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        value = {**_head("chat.completion", model), "choices": [choice], "usage": usage}
        return Completion(msgspec.json.encode(value), usage)

    async def embed(self, model: ModelCard, body: Body) -> bytes:
        raise ProviderError(NAME, "rejected", "the demo has no embeddings; configure a provider that does")

    async def transcribe(self, model: str, speech: Speech) -> bytes:
        raise ProviderError(NAME, "rejected", "the demo hears nothing; configure a provider that does")

    async def close(self) -> None:
        """It holds nothing."""


def reply(body: Body) -> str:
    """What the demo says to the messages in `body`."""
    messages = [m for m in body.get("messages") or () if isinstance(m, Mapping)]
    users = [_text(m.get("content")) for m in messages if m.get("role") == "user"]
    said = [m for m in messages if m.get("role") in {"user", "assistant"}]
    now = f"You wrote: “{_quote(users[-1])}”. " if users else ""
    count = f"{len(said)} message{'' if len(said) == 1 else 's'}"
    before = (
        f"before that you wrote: “{_quote(users[-2])}”" if len(users) > 1 else "this is the first from you"
    )
    return (
        "This is BaatCheet's built-in demo, not a language model: no provider is configured yet. "
        f"{now}I was given {count} of this conversation, and {before}. "
        "To talk to a real model, put a key into the file .env, for example GROQ_API_KEY=gsk_your_key, "
        "and start the server again."
    )


def _quote(text: str) -> str:
    return headline(text, _QUOTE)


def _text(content: object) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = [p.get("text") for p in content if isinstance(p, Mapping)]
        return " ".join(part for part in parts if isinstance(part, str))
    return ""


def _head(kind: str, model: ModelCard) -> dict[str, Any]:
    return {"id": f"chatcmpl-{uuid4().hex}", "object": kind, "created": int(time.time()), "model": model.name}


def _chunk(head: Mapping[str, Any], delta: Mapping[str, Any], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return msgspec.json.encode({**head, "choices": [choice]})


def _usage(body: Body, text: str) -> Usage:
    """An estimate, one token per four characters: the demo has no tokenizer."""
    asked = sum(
        len(_text(m.get("content"))) // 4 + 4 for m in body.get("messages") or () if isinstance(m, Mapping)
    )
    made = len(text) // 4
    return Usage(prompt_tokens=asked, completion_tokens=made, total_tokens=asked + made)
