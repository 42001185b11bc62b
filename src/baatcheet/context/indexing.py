"""Making older messages findable: their passages, with hashed terms, in the order in which they were said."""

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import blake2b
from uuid import UUID

from baatcheet.context import counting
from baatcheet.context.recall.analysis import passages
from baatcheet.context.store import ContextStore, Marker, PassageRow, PathMessage
from baatcheet.platform.database import DatabaseUnavailable
from baatcheet.platform.logging import get_logger

log = get_logger(__name__)

BATCH = 256  # messages that are read at once
BATCH_CHARACTERS = 200_000  # that are analysed and written at once; one message is, whatever it has
INLINE_CHARACTERS = 1_500  # some milliseconds of analysis, which is far slower than counting
CLOSE_PATIENCE = 1.0  # seconds that a statement is given to be broken off
_thread = ThreadPoolExecutor(1, thread_name_prefix="recall-index")  # its own: nobody's count waits behind it


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


def batches(messages: Sequence[PathMessage]) -> Iterator[list[PathMessage]]:
    """Consecutive messages in lists of at most `BATCH_CHARACTERS`."""
    batch: list[PathMessage] = []
    characters = 0
    for message in messages:
        characters += len(message.content)
        if batch and characters > BATCH_CHARACTERS:
            yield batch
            batch, characters = [], len(message.content)
        batch.append(message)
    if batch:
        yield batch


class Indexer:
    """Brings a path's index up to date. Doing it twice changes nothing."""

    def __init__(self, store: ContextStore) -> None:
        self._store = store
        self._running: dict[UUID, asyncio.Task[None]] = {}
        self._closed = False

    async def catch_up(
        self, user: UUID, conversation: UUID, head: UUID, *, upto: int, patience: float | None
    ) -> bool:
        """As `index`, but wait `patience` seconds at most (None: for ever); it goes on after that.

        Of several callers for one conversation one does the work at a time. Returns whether it is done; after
        `close` it is not.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience if patience is not None else None
        while not self._closed:
            task = self._running.get(conversation)
            mine = task is None
            if task is None:
                task = asyncio.create_task(self.index(user, conversation, head, upto=upto))
                self._running[conversation] = task
                task.add_done_callback(partial(self._ended, conversation))
            left = max(0.0, deadline - loop.time()) if deadline is not None else None
            await asyncio.wait([task], timeout=left)
            if not task.done() or task.cancelled():
                return False
            if mine:
                task.result()
                return True
        return False

    def _ended(self, conversation: UUID, task: asyncio.Task[None]) -> None:
        """Whoever began it may have gone on, and would not learn of its failure."""
        del self._running[conversation]
        error = None if task.cancelled() else task.exception()
        if isinstance(error, DatabaseUnavailable):
            log.warning("context.indexed_later", conversation_id=str(conversation))
        elif error is not None:
            log.error("context.indexing_failed", error=error, conversation_id=str(conversation))

    async def index(self, user: UUID, conversation: UUID, head: UUID, *, upto: int) -> None:
        """Index the way to `head` as far as depth `upto`. Raises DatabaseUnavailable."""
        marker = await self._store.marker(user, conversation, head)
        while marker.depth < upto:
            last = min(upto, marker.depth + BATCH)
            messages = await self._store.messages(user, conversation, head, marker.depth + 1, last)
            if not messages:
                return
            for batch in batches(messages):
                rows = await _analysed(conversation, batch, marker)
                await self._store.add_passages(user, conversation, rows)
                newest = rows[-1]
                marker = Marker(newest.depth, newest.ordinal, newest.total_length)

    async def close(self) -> None:
        """End what runs, and begin nothing any more: the next turn of a conversation goes on from there."""
        self._closed = True
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSE_PATIENCE)


async def _analysed(conversation: UUID, messages: Sequence[PathMessage], marker: Marker) -> list[PassageRow]:
    work = partial(rows_of, conversation, messages, marker)
    if sum([len(message.content) for message in messages]) <= INLINE_CHARACTERS:
        return work()
    return await asyncio.get_running_loop().run_in_executor(_thread, work)
