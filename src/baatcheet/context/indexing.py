"""Making older messages findable: their passages, with hashed terms, in the order in which they were said."""

import asyncio
from collections.abc import Sequence
from functools import partial
from hashlib import blake2b
from uuid import UUID

from baatcheet.context import counting
from baatcheet.context.recall.analysis import passages
from baatcheet.context.store import ContextStore, Marker, PassageRow, PathMessage

BATCH = 256  # messages that are read, analysed and written at once


def key(conversation: UUID, term: str) -> int:
    """What stands for `term` in the index. It is hashed with the conversation: no other's passages have it."""
    digest = blake2b(term.encode(), digest_size=8, key=conversation.bytes).digest()
    return int.from_bytes(digest, "big", signed=True)


def rows_of(conversation: UUID, messages: Sequence[PathMessage], marker: Marker) -> list[PassageRow]:
    """The passages of consecutive messages, the first of which follows `marker`. Every message has one at least."""
    rows: list[PassageRow] = []
    ordinal, total = marker.ordinal, marker.total_length
    for message in messages:
        found = passages(message.content)
        alone = len(found) <= 1 and message.whole
        for part, passage in enumerate(found or [None]):
            length = sum(passage.terms.values()) if passage is not None else 0
            text = message.content[passage.start : passage.end] if passage is not None else ""
            ordinal += 1
            total += length
            rows.append(
                PassageRow(
                    message_id=message.id,
                    branch_id=message.branch_id,
                    depth=message.depth,
                    part=part,
                    parts=max(1, len(found)),
                    role=message.role,
                    length=length,
                    tokens=counting.count(message.content if alone else text),
                    signals=passage.signals if passage is not None else 0,
                    ordinal=ordinal,
                    total_length=total,
                    keys=sorted({key(conversation, term) for term in passage.terms}) if passage else [],
                    created_at=message.at,
                    content=None if alone else text,
                )
            )
    return rows


class Indexer:
    """Brings a path's index up to date. Doing it twice changes nothing."""

    def __init__(self, store: ContextStore) -> None:
        self._store = store
        self._running: dict[UUID, asyncio.Task[None]] = {}

    async def catch_up(
        self, user: UUID, conversation: UUID, head: UUID, *, upto: int, patience: float | None
    ) -> bool:
        """As `index`, but wait `patience` seconds at most (None: for ever); it goes on after that.

        Of several callers for one conversation one does the work at a time. Returns whether it is done.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience if patience is not None else None
        while True:
            task = self._running.get(conversation)
            mine = task is None
            if task is None:
                task = asyncio.create_task(self.index(user, conversation, head, upto=upto))
                self._running[conversation] = task
                task.add_done_callback(lambda _: self._running.pop(conversation, None))
            left = max(0.0, deadline - loop.time()) if deadline is not None else None
            await asyncio.wait([task], timeout=left)
            if not task.done():
                return False
            if mine:
                task.result()
                return True

    async def index(self, user: UUID, conversation: UUID, head: UUID, *, upto: int) -> None:
        """Index the way to `head` as far as depth `upto`. Raises DatabaseUnavailable."""
        marker = await self._store.marker(user, conversation, head)
        while marker.depth < upto:
            last = min(upto, marker.depth + BATCH)
            messages = await self._store.messages(user, conversation, head, marker.depth + 1, last)
            if not messages:
                return
            length = sum([len(message.content) for message in messages])
            work = partial(rows_of, conversation, messages, marker)
            rows = await counting.aside(length, work) if length > counting.INLINE_CHARACTERS else work()
            await self._store.add_passages(user, conversation, rows)
            newest = rows[-1]
            marker = Marker(newest.depth, newest.ordinal, newest.total_length)
