"""Turns across processes: what a turn says goes to a short-lived stream in Redis, from which any process follows it.

Nothing depends on it. A follower in another process that finds no stream reads the durable text from PostgreSQL
instead, coarser. The writer sends a few times a second, one pipeline for all turns of the process; a turn that is
over before the first of these is never sent, because by then all of it is in the database.
"""

import asyncio
import time
from collections.abc import Sequence
from uuid import UUID

from baatcheet.chat.events import pack, unpack
from baatcheet.chat.feed import FIRST_CHUNK, TurnFeed, TurnIdentity
from baatcheet.chat.finished import finished_feed
from baatcheet.chat.run import Run
from baatcheet.chat.service import ChatService
from baatcheet.chat.store import TurnRow, TurnStore
from baatcheet.platform.cache import CACHE_ERRORS, MISS, Cache, tolerated
from baatcheet.platform.database import DatabaseUnavailable
from baatcheet.platform.logging import get_logger
from baatcheet.providers.model import Chunk

log = get_logger(__name__)

WRITE_PAUSE = 0.1  # seconds between two sendings
KEPT = 3600  # seconds that a stream outlives the process that writes it; renewed while the turn runs
KEPT_ENDED = 60  # seconds that it outlives its end: by then a follower reads on in the database
READ_BLOCK = 1.0  # seconds that a reader waits at Redis before it looks at the database
POLL = 0.5  # seconds between two looks at the database when there is no Redis


def stream_name(turn: UUID) -> str:
    return f"baatcheet:turn:{turn}"


class Relay:
    """Publishes this process's turns, and follows those of others."""

    def __init__(self, store: TurnStore, cache: Cache) -> None:
        self._store = store
        self._cache = cache
        self._chat: ChatService | None = None
        self._ended: list[Run] = []
        self._writer: asyncio.Task[None] | None = None
        self._mirrors: dict[UUID, TurnFeed] = {}
        self._readers: set[asyncio.Task[None]] = set()

    def start(self, chat: ChatService) -> None:
        """Publish the turns of `chat` from now on, and let it follow those of other processes."""
        self._chat = chat
        chat.mirror = self.mirror
        chat.on_drain = self.release
        if self._cache.configured:
            chat.on_end = self._ended_one
            self._writer = asyncio.create_task(self._write())

    async def stop(self) -> None:
        """Publish what is left and stop."""
        tasks = [task for task in (self._writer, *self._readers) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._writer is not None:
            with tolerated(because="their followers find them in the database"):
                await self._publish()

    def release(self) -> None:
        """This process stops: whoever follows another's turn here is to follow it elsewhere."""
        for feed in self._mirrors.values():
            feed.release()

    def _ended_one(self, run: Run) -> None:
        if run.published:
            self._ended.append(run)

    # Writing -----------------------------------------------------------------------------------------------

    async def _write(self) -> None:
        renewed = time.monotonic()
        while True:
            await asyncio.sleep(WRITE_PAUSE)
            try:
                await self._publish()
                if time.monotonic() - renewed > KEPT / 4:
                    await self._renew()
                    renewed = time.monotonic()
            except CACHE_ERRORS as error:
                log.warning("relay.refused", cause=type(error).__name__)
                self._ended.clear()  # their followers find them in the database

    async def _publish(self) -> None:
        assert self._chat is not None
        ended, self._ended = self._ended, []
        runs = [
            run
            for run in self._chat.runs.values()
            if len(run.feed.chunks) > run.published and run.feed.identity.reply_id is not None
        ]
        await asyncio.gather(*(self._publish_one(run) for run in (*runs, *ended)))

    async def _renew(self) -> None:
        assert self._chat is not None
        names = [stream_name(id_) for id_, run in self._chat.runs.items() if run.published]
        await asyncio.gather(*(self._cache.execute("EXPIRE", name, KEPT) for name in names))

    async def _publish_one(self, run: Run) -> None:
        """Send what is new. When the cache is away it is sent the next time; an ended turn is left to the database."""
        name, chunks = stream_name(run.feed.identity.id), run.feed.chunks
        upto, over = len(chunks), run.feed.outcome is not None
        first = run.published + FIRST_CHUNK
        fields = ("first", first, "events", pack(chunks[run.published : upto]), *(("end", 1) if over else ()))
        if await self._cache.execute("XADD", name, "*", *fields) is MISS:
            return
        if over or not run.published:
            await self._cache.execute("EXPIRE", name, KEPT_ENDED if over else KEPT)
        run.published = upto

    # Reading -----------------------------------------------------------------------------------------------

    def mirror(self, row: TurnRow) -> TurnFeed:
        """The events of a turn that runs in another process, fed from Redis or the database until it ends."""
        feed = self._mirrors.get(row.id)
        if feed is None:
            identity = TurnIdentity(
                row.id, row.user_id, row.model, row.conversation_id, row.input_id, row.reply_id, row.title
            )
            feed = self._mirrors[row.id] = TurnFeed(identity)
            task = asyncio.create_task(self._feed(feed))
            self._readers.add(task)
            task.add_done_callback(self._readers.discard)
        return feed

    async def _feed(self, feed: TurnFeed) -> None:
        identity, position = feed.identity, "0"
        try:
            while True:
                try:
                    await self._from_database(feed)
                    if feed.outcome is not None:
                        return
                except DatabaseUnavailable:
                    log.warning("relay.waits_for_database", turn_id=str(identity.id))
                try:
                    position, ended = await self._from_redis(feed, position)
                    if ended:
                        continue  # the database has the rest
                except (*CACHE_ERRORS, AttributeError, TypeError, ValueError, LookupError):
                    await asyncio.sleep(POLL)
        except Exception as error:  # noqa: BLE001 - a defect of ours must not leave followers waiting
            log.error("relay.follow_failed", error=error, turn_id=str(identity.id))
            feed.release()
        finally:
            self._mirrors.pop(identity.id, None)

    async def _from_database(self, feed: TurnFeed) -> None:
        identity = feed.identity
        row = await self._store.row(identity.user_id, identity.id)
        if row is None:  # deleted with its conversation
            feed.end(finished_feed(_vanished(identity)).outcome)  # type: ignore[arg-type]
            return
        if row.status != "running":
            done = finished_feed(row)
            feed.answered_by = done.answered_by
            feed.push(done.chunks[len(feed.chunks) :])
            assert done.outcome is not None
            feed.end(done.outcome)
            return
        for first, _last, events in await self._store.deltas(identity.id, len(feed.chunks) + 1):
            _add(feed, first, unpack(events))

    async def _from_redis(self, feed: TurnFeed, position: str) -> tuple[str, bool]:
        """Read on from `position` for a while. Returns the new position and whether the turn has ended."""
        redis = self._cache.streams
        if redis is None:
            await asyncio.sleep(POLL)
            return position, False
        name = stream_name(feed.identity.id)
        until = asyncio.get_running_loop().time() + 2 * READ_BLOCK
        while asyncio.get_running_loop().time() < until:
            async with asyncio.timeout(2 * READ_BLOCK):
                found = await redis.xread({name: position}, block=int(READ_BLOCK * 1000))
            if not found:
                return position, False
            for entry, fields in _entries(found):
                position = entry
                first = int(fields[b"first"])
                if not _add(feed, first, unpack(fields[b"events"])):
                    return position, True  # a gap: the database closes it
                if b"end" in fields:
                    return position, True
        return position, False


def _entries(found: object) -> list[tuple[str, dict[bytes, bytes]]]:
    """The entries of an XREAD answer, which comes as a mapping (RESP3) or as a list (RESP2)."""
    streams = next(iter(found.values())) if isinstance(found, dict) else found[0][1]  # type: ignore[index]
    if streams and isinstance(streams[0], list):
        streams = streams[0]
    return [(entry.decode() if isinstance(entry, bytes) else str(entry), fields) for entry, fields in streams]


def _add(feed: TurnFeed, first: int, chunks: Sequence[Chunk]) -> bool:
    """Append the chunks that are new. False when there is a gap before them."""
    known = len(feed.chunks) + FIRST_CHUNK - first
    if known < 0:
        return False
    if known < len(chunks):
        feed.push(chunks[known:])
    return True


def _vanished(identity: TurnIdentity) -> TurnRow:
    return TurnRow(identity.id, identity.user_id, "interrupted")
