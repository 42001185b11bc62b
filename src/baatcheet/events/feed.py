"""The live stream of this process: one listener and one reader for all who follow here.

A notice, or a second without one, makes a round: one statement reads what is new for everybody who follows here. A
follower holds no connection; one that asks for the past reads it page by page. When the database is away every stream
stays open, and goes on where it was when the database is back.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from baatcheet.auth.principal import Principal
from baatcheet.events.following import Follower, Roster
from baatcheet.events.reading import Events, Page, Past
from baatcheet.events.relay import CHANNEL
from baatcheet.events.stream import Stream
from baatcheet.platform.database import Database, DatabaseUnavailable
from baatcheet.platform.errors import RateLimited, ShuttingDown
from baatcheet.platform.logging import get_logger
from baatcheet.platform.notices import listen
from baatcheet.platform.telemetry import Metrics

log = get_logger(__name__)

POLL = 1.0  # seconds between two rounds when there is no notice
AWAY_PAUSE = 0.5  # after a round that failed
CHECK_EVERY = 3.0  # seconds between two looks at the followers' tokens: a revoked one's stream ends within 5
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
        self._open: set[Follower] = set()  # those in their past, too
        self._streams: Counter[UUID] = Counter()  # by user
        self._news = asyncio.Event()
        self._followed = asyncio.Event()
        self._draining = False
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        work = [self._run(), self._look_at_tokens()]
        if self._connect is not None:  # without notices, it takes a second
            work.append(listen(self._connect, CHANNEL, self._news.set, while_wanted=self._followed))
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
        for follower in list(self._open):
            follower.close("shutting down")

    # Following ---------------------------------------------------------------------------------------------

    async def open(
        self, who: Principal, *, after: int | None, everything: bool, types: frozenset[str] | None
    ) -> Stream:
        """A stream of `who`'s events after number `after`; None: from now on. To be closed by whoever opened it.

        Raises ShuttingDown, RateLimited, DatabaseUnavailable.
        """
        if self._draining:
            raise ShuttingDown("This server is shutting down; another will take over.")
        if self._streams[who.user_id] >= self._most_streams:
            raise RateLimited(
                f"You follow the events {self._most_streams} times already. Close a stream first.",
                headers={"retry-after": "5"},
            )
        follower = Follower(
            who.user_id, who.token_id, everything=everything, types=types, until=who.expires_at
        )
        stream = Stream(self, follower)
        self._open.add(follower)
        self._streams[who.user_id] += 1
        self._measure()
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
        self._open.discard(follower)
        self._streams[follower.user] -= 1
        if self._streams[follower.user] <= 0:
            del self._streams[follower.user]
        if not self._open:
            self._followed.clear()
        self._measure()

    @property
    def streams(self) -> int:
        """How many are open."""
        return len(self._open)

    @property
    def position(self) -> int:
        """The number up to which everybody here has been told everything."""
        return self._roster.position or 0

    async def past(self, follower: Follower, after: int, upto: int | None = None) -> Page:
        """A page of a follower's past. Raises DatabaseUnavailable."""
        asked = Past(follower.user, follower.everything, after)
        return await self._events.past(asked if upto is None else asked._replace(upto=upto))

    def _measure(self) -> None:
        if self._metrics is not None:
            self._metrics.event_followers(len(self._open))

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
            followers = list(self._open)
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
                over = follower.until is not None and follower.until <= datetime.now(UTC)
                if over or "read" not in scopes or (follower.everything and "admin" not in scopes):
                    follower.close("no longer allowed")
