"""From stored messages to a plan: what the chat asks of the context."""

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any
from uuid import UUID

import msgspec

from baatcheet.context import counting, cutting
from baatcheet.context.planning import Item, Plan, plan
from baatcheet.conversations.wire import stored_form, text_of, wire_form
from baatcheet.platform.settings import ContextSettings
from baatcheet.providers.model import ModelCard

INLINE_ITEMS = 2_000  # more messages than this take a while to go through
YIELD_CHARACTERS = 1_024  # after a text longer than this is counted, others get their turn


class StoredMessage(msgspec.Struct, frozen=True):
    """A message of the history as the database hands it over."""

    id: UUID
    role: str
    content: str
    tokens: int
    parts: dict[str, Any] | None = None


class Window:
    """Plans within the deployment's context settings."""

    def __init__(self, settings: ContextSettings) -> None:
        self._settings = settings

    @property
    def max_tokens(self) -> int:
        return self._settings.max_tokens

    @property
    def max_messages(self) -> int:
        return self._settings.max_messages

    def budget(self, model: ModelCard, reply_tokens: int | None) -> int:
        """Tokens of prompt for `model` when its reply may take `reply_tokens`."""
        reserve = min(max(reply_tokens or 0, self._settings.reply_reserve), model.context_window // 2)
        return min(self._settings.max_tokens, model.context_window - reserve)

    async def plan(
        self,
        model: ModelCard,
        *,
        system_prompt: str | None,
        history: Sequence[Item],
        new: Sequence[Item],
        tools: Sequence[Any] | None = None,
        reply_tokens: int | None = None,
    ) -> Plan:
        """Fit a turn into `model`'s window. `history` and `new` are oldest first.

        Raises ContextTooSmall when the system prompt and the tools alone are too large, OrphanToolResult.
        """
        system = None
        if system_prompt:
            tokens = await counting.count_message(system_prompt, None)
            system = Item({"role": "system", "content": system_prompt}, tokens)
        arguments: dict[str, Any] = {
            "system": system,
            "history": history,
            "new": new,
            "tool_tokens": await counting.count_tools(tools),
            "budget": self.budget(model, reply_tokens),
            "max_messages": self._settings.max_messages,
            "cut": cutting.cut_item,
        }
        # Of the history one message at most is cut; of the new ones, all may be.
        largest = max([_length(item) for item in history], default=0)
        cuttable = max(largest, sum([_length(item) for item in new]))
        if cuttable > counting.INLINE_CHARACTERS or len(history) + len(new) > INLINE_ITEMS:
            return await counting.aside(cuttable, partial(plan, **arguments))
        return plan(**arguments)

    def item(self, message: StoredMessage) -> Item:
        """A message as the planner takes it."""
        tokens = message.tokens
        if tokens > self.max_tokens and len(message.content) <= self.max_tokens * 16 + 8:
            # What the database sent may have its middle left out already: its stored count is not this text's.
            text, beside = counting.countable(message.content, message.parts)
            tokens = counting.count(text) + beside
        return Item(wire_form(message.role, message.content, message.parts), tokens, message.id)


def _length(item: Item) -> int:
    return len(text_of(item.wire.get("content")))


async def to_be_stored(id: UUID, message: Mapping[str, Any]) -> StoredMessage:  # noqa: A002 - the row's own word
    """A message from the wire, with its tokens counted."""
    content, parts = stored_form(message)
    tokens = await counting.count_message(content, parts)
    if len(content) > YIELD_CHARACTERS:  # one of many, perhaps
        await asyncio.sleep(0)
    return StoredMessage(id, str(message["role"]), content, tokens, parts)
