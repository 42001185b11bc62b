"""The live stream of this process: one listener and one reader for all who follow here.

A notice, or a second without one, makes a round: one statement reads what is new for everybody who follows here. A
follower holds no connection; one that asks for the past reads it page by page. When the database is away every stream
stays open, and goes on where it was when the database is back.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any
from uuid import UUID

from baatcheet.auth.principal import Principal
from baatcheet.events.following import Follower, Roster, place_frame, reset_frame
from baatcheet.events.reading import Events, Page, Past
from baatcheet.events.relay import CHANNEL
from baatcheet.kit import sse
from baatcheet.platform.database import Database, DatabaseUnavailable, is_unavailable
from baatcheet.platform.errors import RateLimited, ShuttingDown
from baatcheet.platform.logging import get_logger
from baatcheet.platform.telemetry import Metrics

log = get_logger(__name__)

POLL = 1.0  # seconds between two rounds when there is no notice
AWAY_PAUSE = 0.5  # after a round that failed
PROBE = 30.0  # seconds between two looks at whether the listener's connection is alive
PROBE_SECONDS = 5.0
CHECK_EVERY = 3.0  # seconds between two looks at the followers' tokens: a revoked one's stream ends within 5
OPEN_SECONDS = 5.0  # that a new stream waits for its first round before it is refused
MOST_STREAMS = 100  # of one user in one process

Connect = Callable[[], Awaitable[Any]]


class EventFeed:
    """The events of this process's followers.

    `connect` opens a connection that can LISTEN; None where there is none, as behind a transaction pooler: then new
    events are looked for once a second.
    """

    def __init__(
        self,
        db: Database,
        connect: Connect | None = None,
        *,
        metrics: Metrics | None = None,
        most_streams: int = MOST_STREAMS,
        check_every: float = CHECK_EVERY,
    ) -> None:
        self._events = Events(db)
        self._connect = connect
        self._metrics = metrics
        self._most_streams = most_streams
        self._check_every = check_every
        self._roster = Roster()
        self._streams: dict[UUID, int] = {}  # by user
        self._news = asyncio.Event()
        self._followed = asyncio.Event()
        self._draining = False
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        work = [self._run(), self._look_at_tokens()] + ([self._listen()] if self._connect is not None else [])
        self._tasks = [asyncio.create_task(one) for one in work]

    async def close(self) -> None:
        """Let all go and stop."""
        self.drain()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def drain(self) -> None:
        """This process stops: every stream ends now, to be resumed at another."""
        self._draining = True
        for follower in self._roster:
            follower.close("shutting down")

    # Following ---------------------------------------------------------------------------------------------

    async def open(
        self, who: Principal, *, after: int | None, everything: bool, types: frozenset[str] | None
    ) -> "Stream":
        """A stream of `who`'s events after number `after`; None: from now on. To be closed by whoever opened it.

        Raises ShuttingDown, RateLimited, DatabaseUnavailable.
        """
        if self._draining:
            raise ShuttingDown("This server is shutting down; another will take over.")
        if self._streams.get(who.user_id, 0) >= self._most_streams:
            raise RateLimited(
                f"You follow the events {self._most_streams} times already. Close a stream first.",
                headers={"retry-after": "5"},
            )
        follower = Follower(who.user_id, who.token_id, everything=everything, types=types)
        stream = Stream(self, follower)
        self._streams[who.user_id] = self._streams.get(who.user_id, 0) + 1
        self._count()
        try:
            await stream.begin(after)
        except BaseException:
            stream.close()
            raise
        return stream

    def join(self, follower: Follower) -> None:
        """Let it in at the end of the next round."""
        self._roster.join(follower)
        self._followed.set()
        self._news.set()

    def leave(self, follower: Follower) -> None:
        self._roster.leave(follower)
        left = self._streams.get(follower.user, 0) - 1
        if left > 0:
            self._streams[follower.user] = left
        else:
            self._streams.pop(follower.user, None)
        if not self._streams:
            self._followed.clear()
        self._count()

    @property
    def position(self) -> int:
        """The number up to which everybody here has been told everything."""
        return self._roster.position or 0

    @property
    def draining(self) -> bool:
        return self._draining

    async def past(self, follower: Follower, after: int, upto: int | None = None) -> Page:
        """A page of a follower's past. Raises DatabaseUnavailable."""
        asked = Past(follower.user, follower.everything, follower.types, after)
        return await self._events.past(asked if upto is None else asked._replace(upto=upto))

    def _count(self) -> None:
        if self._metrics is not None:
            self._metrics.event_followers(sum(self._streams.values()))

    # Reading -----------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        away = False
        while True:
            await self._followed.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL):
                    await self._news.wait()
            self._news.clear()
            try:
                while await self._round():
                    pass
                away = False
            except DatabaseUnavailable:
                if not away:
                    log.warning("events.wait_for_database")
                away = True
                await asyncio.sleep(AWAY_PAUSE)
            except Exception as error:  # noqa: BLE001 - the streams are open, and must go on
                log.error("events.round_failed", error=error)
                await asyncio.sleep(AWAY_PAUSE)

    async def _round(self) -> bool:
        """Read what is new, and tell it. Whether there is more."""
        roster = self._roster
        users, everything, after = roster.users, roster.everything, roster.position
        if after is None or not (users or everything):
            if roster.joining:
                roster.tell((), await self._events.head())
            return False
        events, upto, more = await self._events.news(after, users, everything=everything)
        roster.tell(events, upto)
        return more

    async def _look_at_tokens(self) -> None:
        while True:
            await asyncio.sleep(self._check_every)
            followers = list(self._roster)
            if not followers:
                continue
            try:
                good = await self._events.good_tokens(list({one.token for one in followers}))
            except DatabaseUnavailable:
                continue  # it could not have been revoked since
            except Exception as error:  # noqa: BLE001 - it is looked at again
                log.error("events.tokens_not_checked", error=error)
                continue
            for follower in followers:
                scopes = good.get(follower.token, frozenset())
                if "read" not in scopes or (follower.everything and "admin" not in scopes):
                    follower.close("no longer allowed")

    # Listening ---------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        """Hear the relay's notices, from the first follower on. Without them it takes a second instead."""
        assert self._connect is not None
        while True:
            await self._followed.wait()
            try:
                connection = await self._connect()
            except DatabaseUnavailable:
                await asyncio.sleep(AWAY_PAUSE)
                continue
            try:
                await self._hear(connection)
            except Exception as error:
                if not is_unavailable(error):
                    log.error("events.listening_failed", error=error)
                await asyncio.sleep(AWAY_PAUSE)
            finally:
                connection.terminate()

    async def _hear(self, connection: Any) -> None:
        """Until the connection is lost."""
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _: lost.set())
        await connection.add_listener(CHANNEL, lambda *_: self._news.set())
        self._news.set()  # what was told before was not heard
        while not lost.is_set():
            try:
                async with asyncio.timeout(PROBE):
                    await lost.wait()
            except TimeoutError:
                await connection.execute("SELECT 1", timeout=PROBE_SECONDS)


class Stream:
    """One follower's stream: `blocks` for the wire, once, and then `close`."""

    def __init__(self, feed: EventFeed, follower: Follower) -> None:
        self._feed = feed
        self._follower = follower
        self._first: Page | None = None
        self._told = 0  # up to which number it has been told everything
        self._sent = 0  # the number that the client knows
        self._closed = False

    @property
    def ended(self) -> str | None:
        """Why nothing more will come; None while it may."""
        return self._follower.closed

    def on_end(self, call: Callable[[], None]) -> None:
        """`call` once nothing more will come; not for the end by `close`."""
        self._follower.on_close = call

    def end(self, why: str) -> None:
        self._follower.close(why)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._feed.leave(self._follower)

    async def begin(self, after: int | None) -> None:
        """What has to be known before the stream is promised. Raises DatabaseUnavailable."""
        follower = self._follower
        if after is not None:
            self._told = self._sent = after
            self._first = await self._feed.past(follower, after)
            return
        self._feed.join(follower)
        deadline = asyncio.get_running_loop().time() + OPEN_SECONDS
        while follower.floor is None and follower.closed is None:
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                raise DatabaseUnavailable("The database can't be reached. Try again in a moment.")
            await follower.changed(left)
        self._told = follower.floor or 0

    async def blocks(self, *, keep_alive: float, follow: bool = True) -> AsyncIterator[bytes]:
        """Bytes for the wire, until nothing more will come; without `follow` until the past has been told.

        A comment follows every `keep_alive` seconds of silence, with the number to go on from where that has grown.
        """
        follower = self._follower
        if self._first is None:
            yield self._place()
        else:
            async for block in self._history(keep_alive):
                yield block
        while follow and follower.closed is None:
            if block := follower.take():
                # All that was told up to here is in it, or was filtered.
                self._told = self._sent = self._feed.position
                yield block
                continue
            await follower.changed(keep_alive)
            if follower.closed is None and not (block := follower.take()):
                self._told = max(self._told, self._feed.position)
                yield sse.KEEP_ALIVE + self._place()
            elif block:
                self._told = self._sent = self._feed.position
                yield block

    def _place(self) -> bytes:
        """The number to go on from, where the client does not know it."""
        if self._told <= self._sent:
            return b""
        self._sent = self._told
        return place_frame(self._told)
