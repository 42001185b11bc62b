"""The ends of branches that were seen lately, so that a turn need not read them again.

Messages never change, so the id of a branch's last message names the whole branch: what is kept under it can be
forgotten but never stale. The database is asked for a history only when it knows another head.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from baatcheet.context.planning import Item

MOST_CHARACTERS = 8_000_000  # of text kept in all, some 20 MB of memory
OVERHEAD = 300  # what a message weighs beside its text
LARGEST = 256_000  # characters of one branch; a larger one is read again


class Recent(NamedTuple):
    """The end of a branch, oldest message first."""

    head: UUID
    items: tuple[Item, ...]
    characters: int


class RecentBranches:
    """Per conversation, the branch that ended last. The least recently used go first."""

    def __init__(self, *, most_messages: int, budget: int, capacity: int = MOST_CHARACTERS) -> None:
        self._most_messages = most_messages
        self._budget = budget
        self._capacity = capacity
        self._kept: OrderedDict[UUID, Recent] = OrderedDict()
        self._characters = 0

    def get(self, conversation: UUID) -> Recent | None:
        """What is known of the conversation. The caller must compare its head with the database's."""
        found = self._kept.get(conversation)
        if found is not None:
            self._kept.move_to_end(conversation)
        return found

    def put(self, conversation: UUID, items: Sequence[Item]) -> None:
        """Keep the end of a branch: as much of it as the database itself would read for a turn."""
        old = self._kept.pop(conversation, None)
        if old is not None:
            self._characters -= old.characters
        tokens = characters = 0
        kept: list[Item] = []
        for item in reversed(items):
            if len(kept) == self._most_messages or tokens > self._budget:
                break
            content = item.wire["content"]
            if content.__class__ is not str or characters > LARGEST:
                return  # images, or too much text: it is read again when it is needed
            kept.append(item)
            tokens += item.tokens
            characters += len(content) + OVERHEAD
        if not kept or (head := kept[0].id) is None:
            return
        self._kept[conversation] = Recent(head, tuple(reversed(kept)), characters)
        self._characters += characters
        while self._characters > self._capacity:
            _, gone = self._kept.popitem(last=False)
            self._characters -= gone.characters
