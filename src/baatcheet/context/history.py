"""What a turn knows of its branch: the newest summary, and the messages after it word for word."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from baatcheet.context import counting
from baatcheet.context.planning import KEEP, Item, Summary
from baatcheet.context.summaries.sections import Section, render
from baatcheet.conversations.wire import stored_form, wire_form

YIELD_CHARACTERS = 1_024  # after a text longer than this is counted, others get their turn


class StoredMessage(msgspec.Struct, frozen=True):
    """A message as the database hands it over. `tokens` is its size by the stored encoding, without a chat's format."""

    id: UUID
    role: str
    content: str
    tokens: int
    parts: dict[str, Any] | None = None
    trimmed: bool = False  # the middle of its text was left out

    @property
    def uncounted(self) -> bool:
        """Whether `tokens` says nothing of this text: it was trimmed, or whoever wrote the row left it out."""
        return self.trimmed or (self.tokens <= 0 and bool(self.content))


class StoredSummary(msgspec.Struct, frozen=True):
    """A rolling summary as the database hands it over. `last`: depth of the last message that it covers."""

    last: int
    sections: tuple[Section, ...]
    made_by: str


class StoredHistory(msgspec.Struct, frozen=True):
    """The end of a branch: `messages` newest first; `start` is the depth of the oldest of them."""

    start: int
    messages: tuple[StoredMessage, ...] = ()
    summary: StoredSummary | None = None


class Bounds(msgspec.Struct, frozen=True):
    """How much of a branch is read for a turn (see the SQL function `branch_history`)."""

    messages: int
    tokens: int
    keep: int
    walk: int

    @classmethod
    def within(cls, max_tokens: int, max_messages: int) -> "Bounds":
        keep = min(KEEP, max_messages // 2)
        return cls(max_messages, max_tokens, keep, 3 * max_messages)


class History(NamedTuple):
    """The end of a branch as the planner takes it, oldest message first. `version` counts the summaries made."""

    head: UUID | None
    version: int
    items: tuple[Item, ...] = ()
    summary: Summary | None = None

    def grown(self, said: Sequence[Item]) -> "History":
        """The branch with `said` at its end."""
        placed = self.placed(said)
        return self._replace(head=placed[-1].id, items=(*self.items, *placed)) if placed else self

    def placed(self, said: Sequence[Item]) -> tuple[Item, ...]:
        """`said` with the depths that it has at the end of the branch."""
        depth = self.depth
        return tuple([item._replace(depth=depth + at) for at, item in enumerate(said)])

    @property
    def depth(self) -> int:
        """The depth that the next message of the branch has."""
        if self.items:
            return self.items[-1].depth + 1
        return self.summary.last + 1 if self.summary else 0


def read(head: UUID | None, version: int, stored: StoredHistory | None) -> History:
    """The history that the database handed over."""
    if stored is None:
        return History(head, version)
    items = [item_of(message) for message in reversed(stored.messages)]
    placed = tuple([item._replace(depth=stored.start + at) for at, item in enumerate(items)])
    return History(head, version, placed, summary_of(stored.summary))


def summary_of(stored: StoredSummary | None) -> Summary | None:
    """The message that a stored summary becomes. It speaks with the user's voice: it quotes what users wrote."""
    if stored is None or not stored.sections:
        return None
    text = render(stored.sections)
    item = Item({"role": "user", "content": text}, counting.count(text) + counting.MESSAGE_OVERHEAD)
    return Summary(item, stored.last, stored.made_by)


def item_of(message: StoredMessage) -> Item:
    """A message as the planner takes it."""
    wire = wire_form(message.role, message.content, message.parts)
    tokens = message.tokens + counting.MESSAGE_OVERHEAD
    if message.uncounted:
        text, beside = counting.countable(*stored_form(wire))
        tokens = counting.count(text) + beside
    return Item(wire, tokens, message.id, cut=message.trimmed)


async def tokens_of(content: str, parts: Mapping[str, Any] | None) -> int:
    """What is stored as a message's size."""
    return await counting.count_message(content, parts) - counting.MESSAGE_OVERHEAD


async def to_be_stored(id: UUID, message: Mapping[str, Any]) -> StoredMessage:  # noqa: A002 - the row's own word
    """A message from the wire, with its tokens counted."""
    content, parts = stored_form(message)
    tokens = await tokens_of(content, parts)
    if len(content) > YIELD_CHARACTERS:  # one of many, perhaps
        await asyncio.sleep(0)
    return StoredMessage(id, str(message["role"]), content, tokens, parts)
