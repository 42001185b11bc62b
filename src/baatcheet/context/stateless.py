"""Requests whose client sends the whole history itself: whether they fit a model, and making them fit."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, TypeVar

import msgspec

from baatcheet.context import counting, cutting
from baatcheet.context.planning import Item, Plan, plan
from baatcheet.context.tokenizers import Tokenizer
from baatcheet.conversations.wire import stored_form
from baatcheet.providers.model import ModelCard

Answer = TypeVar("Answer")

MOST_BYTES_A_CHARACTER = 4  # and no vocabulary makes more than one token of a byte
A_MESSAGE, A_PART = 64, 256  # characters that it takes as long to go through
JSON_SHARE = 0.75  # of the tokens of tools and schemas as JSON: providers write them shorter
_SYSTEM = frozenset({"system", "developer"})


@dataclass(frozen=True)
class Prompt:
    """What a client sent. `reply_tokens`: what it asked the reply to be limited to."""

    messages: Sequence[Mapping[str, Any]]
    beside: Sequence[Any] = ()  # what is sent as JSON: tools, the reply's schema
    reply_tokens: int = 0

    @cached_property
    def _beside_bytes(self) -> int:
        return sum([len(msgspec.json.encode(part)) for part in self.beside])

    @cached_property
    def size(self) -> int:
        """How much there is to count, in characters."""
        return self._beside_bytes + sum([A_MESSAGE + _characters(message) for message in self.messages])

    def room(self, model: ModelCard, reserve: int = 0) -> int:
        """Tokens that the reply leaves of `model`'s window; `reserve` is kept for one of which nothing is said."""
        reply = min(self.reply_tokens or reserve, model.max_output or model.context_window)
        return model.context_window - min(reply, model.context_window)

    def surely_fits(self, model: ModelCard) -> bool:
        """Whether it fits however it is counted: most do, and are not counted at all."""
        room = self.room(model)
        size = 2 * A_MESSAGE  # what some formats say before a conversation
        for message in self.messages:
            content = message.get("content")
            if not isinstance(content, str) or len(message) > 2:
                return False
            size += len(content) * MOST_BYTES_A_CHARACTER + 2 * counting.MESSAGE_OVERHEAD
            if size > room:
                return False
        return size + self._beside_bytes <= room

    async def least(self, tokenizer: Tokenizer) -> int:
        """The tokens that it takes at least: pictures and the like, which nobody can count for sure, left out."""
        return await self._aside(partial(_least, self, tokenizer))

    async def fitted(self, tokenizer: Tokenizer, budget: int) -> Plan:
        """The system prompt, the newest message and as much of the rest as goes into `budget`.

        Raises ContextTooSmall, OrphanToolResult.
        """
        return await self._aside(partial(_fitted, self, tokenizer, budget))

    async def _aside(self, work: Callable[[], Answer]) -> Answer:
        return await counting.aside(self.size, work) if self.size > counting.INLINE_CHARACTERS else work()


def _characters(message: Mapping[str, Any]) -> int:
    content = message.get("content")
    size = len(content) if isinstance(content, str) else 0
    for part in content if isinstance(content, list) else ():
        text = part.get("text") if isinstance(part, Mapping) else None
        size += A_PART + (len(text) if isinstance(text, str) else 0)
    if len(message) > 2:  # names, calls
        size += sum([len(msgspec.json.encode(value)) for key, value in message.items() if key != "content"])
    return size


def _least(prompt: Prompt, tokenizer: Tokenizer) -> int:
    total = int(JSON_SHARE * sum([tokenizer.json(part) for part in prompt.beside]))
    for message in prompt.messages:
        content, parts = stored_form(message)
        spoken = {key: value for key, value in (parts or {}).items() if key != "content"}
        total += tokenizer.message(content, spoken or None)
    return total


def _fitted(prompt: Prompt, tokenizer: Tokenizer, budget: int) -> Plan:
    items = [
        Item(dict(message), tokenizer.message(*stored_form(message)), depth=depth)
        for depth, message in enumerate(prompt.messages)
    ]
    first = 0
    while first < len(items) - 1 and items[first].wire["role"] in _SYSTEM:
        first += 1
    last = len(items) - 1
    while last > first and items[last].wire["role"] == items[last - 1].wire["role"] == "tool":
        last -= 1
    return plan(
        system=_joined(items[:first], tokenizer),
        history=items[first:last],
        new=items[last:],
        tool_tokens=sum([tokenizer.json(part) for part in prompt.beside]),
        budget=budget,
        max_messages=len(items),
        cut=partial(cutting.cut_item, tokenizer=tokenizer),
        priming=tokenizer.priming,
    )


def _joined(system: Sequence[Item], tokenizer: Tokenizer) -> Item | None:
    """The system prompt: of several, one that says it all."""
    if len(system) <= 1:
        return system[0] if system else None
    text = "\n\n".join([stored_form(item.wire)[0] for item in system])
    return Item({"role": system[0].wire["role"], "content": text}, tokenizer.message(text, None))
