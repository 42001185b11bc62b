"""Requests whose client sends the whole history itself: whether they fit a model, and making them fit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec

from baatcheet.context import counting, cutting
from baatcheet.context.planning import Item, Plan, plan
from baatcheet.context.tokenizers import Tokenizer
from baatcheet.conversations.wire import stored_form
from baatcheet.providers.model import ModelCard

MOST_BYTES_A_CHARACTER = 4  # and no vocabulary makes more than one token of a byte
_SYSTEM = frozenset({"system", "developer"})


@dataclass(frozen=True)
class Prompt:
    """What a client sent. `reply_tokens`: what it asked the reply to be limited to."""

    messages: Sequence[Mapping[str, Any]]
    beside: Sequence[Any] = ()  # what is sent as JSON: tools, the reply's schema
    reply_tokens: int = 0

    def surely_fits(self, model: ModelCard) -> bool:
        """Whether it fits however it is counted: most do, and are not counted at all."""
        room = model.context_window - self.reply_tokens
        size = counting.REPLY_PRIMING
        for message in self.messages:
            content = message.get("content")
            if not isinstance(content, str) or len(message) > 2:
                return False
            size += len(content) * MOST_BYTES_A_CHARACTER + 2 * counting.MESSAGE_OVERHEAD
            if size > room:
                return False
        return size + sum([len(msgspec.json.encode(part)) for part in self.beside]) <= room

    async def items(self, tokenizer: Tokenizer) -> list[Item]:
        """The messages with what they cost."""
        length = sum([len(str(message.get("content") or "")) for message in self.messages])
        work = partial(_items, self.messages, tokenizer)
        return await counting.aside(length, work) if length > counting.INLINE_CHARACTERS else work()

    async def tokens(self, tokenizer: Tokenizer) -> int:
        """What all of it costs."""
        return sum([item.tokens for item in await self.items(tokenizer)]) + _beside(self, tokenizer)

    async def fitted(self, tokenizer: Tokenizer, budget: int) -> Plan:
        """The system prompt, the newest message and as much of the rest as goes into `budget`.

        Raises ContextTooSmall, OrphanToolResult.
        """
        items = await self.items(tokenizer)
        first = 0
        while first < len(items) - 1 and items[first].wire["role"] in _SYSTEM:
            first += 1
        last = len(items) - 1
        while last > first and items[last].wire["role"] == items[last - 1].wire["role"] == "tool":
            last -= 1
        work = partial(
            plan,
            system=_joined(items[:first], tokenizer),
            history=items[first:last],
            new=items[last:],
            tool_tokens=_beside(self, tokenizer) - tokenizer.priming,
            budget=budget,
            max_messages=len(items),
            cut=partial(cutting.cut_item, tokenizer=tokenizer),
            priming=tokenizer.priming,
        )
        return await counting.aside(counting.INLINE_CHARACTERS, work)


def _items(messages: Sequence[Mapping[str, Any]], tokenizer: Tokenizer) -> list[Item]:
    return [
        Item(dict(message), tokenizer.message(*stored_form(message)), depth=depth)
        for depth, message in enumerate(messages)
    ]


def _beside(prompt: Prompt, tokenizer: Tokenizer) -> int:
    return tokenizer.priming + sum([tokenizer.json(part) for part in prompt.beside])


def _joined(system: Sequence[Item], tokenizer: Tokenizer) -> Item | None:
    """The system prompt: of several, one that says it all."""
    if len(system) <= 1:
        return system[0] if system else None
    text = "\n\n".join([stored_form(item.wire)[0] for item in system])
    return Item({"role": system[0].wire["role"], "content": text}, tokenizer.message(text, None))
