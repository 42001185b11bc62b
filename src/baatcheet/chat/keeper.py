"""Keeps turns alive and finds the dead: this process's lease, the durable text so far, and what others left behind.

Every process renews one row of `processes`. A running turn whose process has let that lapse is ended by whoever
sees it first, as `interrupted`, with the text that had become durable.
"""

import asyncio
import os
import platform
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from uuid import UUID

from baatcheet.chat.events import pack, unpack
from baatcheet.chat.feed import FIRST_CHUNK
from baatcheet.chat.reply import Reply
from baatcheet.chat.service import ChatService
from baatcheet.chat.store import Closing, Delta, Orphan, StoredReply, TurnStore
from baatcheet.context.history import tokens_of
from baatcheet.conversations.wire import stored_form
from baatcheet.platform.database import DatabaseUnavailable
from baatcheet.platform.logging import get_logger
from baatcheet.providers.model import Chunk

log = get_logger(__name__)

LEAVE_PATIENCE = 1.0  # seconds: a lease that is not given up lapses by itself


@dataclass(frozen=True)
class Rhythm:
    """Seconds between one round and the next."""

    flush: float = 0.8  # with the statement's own time, the text is durable within a second
    beat: float = 3.0
    lease: float = 12.0  # a process that has not been seen for this long is dead
    reap: float = 4.0
    sweep: float = 600.0


class Keeper:
    """Background work of one process. `chat` is None in a worker, which runs no turns of its own."""

    def __init__(
        self,
        store: TurnStore,
        process: UUID,
        *,
        kind: str,
        pool_size: int,
        chat: ChatService | None = None,
        rhythm: Rhythm | None = None,
    ) -> None:
        self._store = store
        self._process = process
        self._kind = kind
        self._pool_size = pool_size
        self._chat = chat
        self._rhythm = rhythm or Rhythm()
        self._tasks: list[asyncio.Task[None]] = []
        self._beat_at = 0.0  # when the lease was last renewed
        self._suspects: set[UUID] = set()  # turns that nobody seemed to run the last time

    async def start(self) -> None:
        """Register this process and begin. A database that is away is waited for in the background."""
        try:
            await self._register()
            self._beat_at = time.monotonic()
        except DatabaseUnavailable:
            log.warning("process.registers_later", process=str(self._process))
        rounds: list[tuple[Callable[[], Awaitable[None]], float]] = [
            (self.beat, self._rhythm.beat),
            (self.reap, self._rhythm.reap),
            (self._store.sweep, self._rhythm.sweep),
        ]
        if self._chat is not None:
            rounds.append((self.flush, self._rhythm.flush))
        self._tasks = [asyncio.create_task(self._every(pause, work)) for work, pause in rounds]

    async def stop(self) -> None:
        """Stop, and give up the lease: a process that leaves in good order has no running turns."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            async with asyncio.timeout(LEAVE_PATIENCE):
                await self._store.leave(self._process)
        except (DatabaseUnavailable, TimeoutError):
            log.warning("process.left_without_word", process=str(self._process))

    async def _every(self, pause: float, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(pause)
            try:
                await work()
            except DatabaseUnavailable:
                log.warning("keeper.waits_for_database", work=getattr(work, "__name__", "?"))
            except Exception as error:  # noqa: BLE001 - one bad round must not end the keeping
                log.error("keeper.round_failed", error=error, work=getattr(work, "__name__", "?"))

    async def _register(self) -> None:
        await self._store.register(
            self._process, kind=self._kind, host=platform.node(), pid=os.getpid(), pool_size=self._pool_size
        )

    async def beat(self) -> None:
        """Renew the lease, on a connection that no request can take; register again when somebody has removed it."""
        began = time.monotonic()
        known = await self._store.beat(self._process)
        if not known:
            await self._register()
        now = time.monotonic()
        if now - self._beat_at > self._rhythm.lease / 2 or now - began > self._rhythm.lease / 2:
            self._suspects.clear()  # the database was away, for the others too: they get time to renew theirs
        self._beat_at = now

    async def flush(self) -> None:
        """Make the text so far of every turn here durable, and stop the turns that somebody asked to stop."""
        assert self._chat is not None
        runs = [run for run in self._chat.runs.values() if run.feed.identity.reply_id is not None]
        if not runs:
            return
        deltas, marks = [], []
        for run in runs:
            chunks = run.feed.chunks
            if run.feed.outcome is None and len(chunks) > run.flushed:
                first = run.flushed + FIRST_CHUNK
                identity = run.feed.identity
                deltas.append(
                    Delta(identity.id, identity.user_id, first, len(chunks) + 1, pack(chunks[run.flushed :]))
                )
                marks.append((run, run.flushed, len(chunks)))
                run.flushed = len(
                    chunks
                )  # a turn that ends meanwhile must know that there is something to remove
        try:
            to_stop = await self._store.flush([run.feed.identity.id for run in runs], deltas)
        except BaseException:
            for run, before, _ in marks:
                run.flushed = before
            raise
        for id_, status in to_stop.items():
            run_here = self._chat.runs.get(id_)
            if run_here is not None:
                run_here.stop("cancelled" if status == "running" else "interrupted")

    async def reap(self) -> None:
        """End, as interrupted, the running turns that nobody runs.

        One must be found so twice, with a renewal of our own lease between: after the database was away for a
        while every lease has lapsed, and the living renew theirs at once.
        """
        if time.monotonic() - self._beat_at > 2 * self._rhythm.beat:
            self._suspects.clear()
            return
        alive = list(self._chat.runs) if self._chat is not None else []
        began = time.monotonic()
        orphans = await self._store.orphans(self._process, alive, self._rhythm.lease)
        if time.monotonic() - began > self._rhythm.beat:
            self._suspects.clear()
            return
        seen, self._suspects = self._suspects, {orphan.id for orphan in orphans}
        for orphan in orphans:
            if orphan.id in seen and await self.interrupt(orphan):
                log.warning("turn.interrupted", turn_id=str(orphan.id))

    async def interrupt(self, orphan: Orphan) -> bool:
        """Mark a turn interrupted with its durable text. False when somebody else has ended it."""
        reply = Reply()
        chunks: list[Chunk] = []
        pieces = await self._store.deltas(orphan.id, 0)
        for _first, _last, events in pieces:
            chunks += unpack(events)
        reply.take(chunks)
        plain = all(chunk.choice is None for chunk in chunks)
        message = None
        if not reply.empty:
            content, parts = stored_form(reply.message())
            message = StoredReply(content, parts, await tokens_of(content, parts))
        return await self._store.close(
            Closing(
                turn=orphan.id,
                user=orphan.user_id,
                conversation=orphan.conversation_id,
                status="interrupted",
                finish_reason="interrupted",
                message=message if orphan.conversation_id is not None else None,
                reply=reply.message() if orphan.conversation_id is None and not reply.empty else None,
                lengths=[len(chunk.text) for chunk in chunks] if plain else None,
                events=None if plain else pack(chunks),
                flushed=bool(pieces),
            )
        )
