"""Who follows the events here, and what each has still to be told: no I/O, so that it can be tried out at will.

A follower that begins at a number is told the past by reading, and the rest as it comes. The seam is its `floor`:
the number up to which the last round of reading had come when it was let in. All up to there is the past's, all
after it comes by `Roster.tell`; nothing is told twice or left out.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from datetime import datetime
from uuid import UUID

import msgspec

from baatcheet.events.model import moment
from baatcheet.kit import sse

MOST_WAITING = 1_000  # events, and bytes, that wait for a follower before it is let go
MOST_BYTES = 4 * 1024 * 1024


class Told:
    """An event, and its form on the wire, which is made once for all who get it. `data` is its JSON."""

    __slots__ = ("_at", "_data", "_frame", "_id", "_whole", "seq", "type", "user")

    def __init__(
        self,
        seq: int,
        id: UUID,  # noqa: A002 - what it is
        user: UUID | None,
        type: str,  # noqa: A002 - what it is
        data: str,
        at: datetime,
    ) -> None:
        self.seq = seq
        self.type = type
        self.user = user
        self._id = id
        self._data = data
        self._at = at
        self._frame: bytes | None = None
        self._whole: bytes | None = None

    def frame(self, *, whose: bool = False) -> bytes:
        """The event for its user, or with `whose` for an administrator, who is told whose it is."""
        if whose:
            if self._whole is None:
                user = f'"{self.user}"' if self.user is not None else "null"
                self._whole = self._framed(f',"user_id":{user}')
            return self._whole
        if self._frame is None:
            self._frame = self._framed("")
        return self._frame

    def _framed(self, more: str) -> bytes:
        said = f'{{"id":"{self._id}","type":"{self.type}","timestamp":"{moment(self._at)}"{more},"data":{self._data}}}'
        return sse.event(said.encode(), id=self.seq, name=self.type)


class Follower:
    """One stream. `types` None: all of them; `everything`: everybody's events, and those that are nobody's.

    `token`: the id by which its token is looked at; `until`: when that token ends, where only the token itself says so.
    """

    __slots__ = (
        "_bytes",
        "_waiter",
        "_waiting",
        "closed",
        "everything",
        "floor",
        "known",
        "on_close",
        "token",
        "types",
        "until",
        "user",
    )

    def __init__(
        self,
        user: UUID,
        token: UUID,
        *,
        everything: bool = False,
        types: frozenset[str] | None = None,
        until: datetime | None = None,
    ) -> None:
        self.user = user
        self.token = token
        self.until = until
        self.everything = everything
        self.types = types
        self.known = 0  # up to which number it had been told everything when it joined
        self.floor: int | None = None  # None: it is not let in yet
        self.closed: str | None = None  # why nothing more will come
        self.on_close: Callable[[], None] | None = None
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._bytes = 0
        self._waiter: asyncio.Future[None] | None = None

    @property
    def empty(self) -> bool:
        return not self._waiting

    def wants(self, event: Told) -> bool:
        return self.types is None or event.type in self.types

    def offer(self, event: Told) -> None:
        """Tell it something new. One that has too much waiting already is let go: it may begin again where it was."""
        if self.closed is not None or not self.wants(event):
            return
        if event.seq <= self.known:  # the round that let it in was asked for before it read its past
            return
        block = event.frame(whose=self.everything)
        self._bytes += len(block)
        if len(self._waiting) >= MOST_WAITING or self._bytes > MOST_BYTES:
            self.close("too slow")
            return
        self._waiting.append((event.seq, block))
        self._wake()

    def admit(self, floor: int) -> None:
        self.floor = floor
        self._wake()

    def close(self, why: str) -> None:
        """Nothing more will come, and what waits is forgotten."""
        if self.closed is None:
            self.closed = why
            self._waiting.clear()
            self._wake()
            if self.on_close is not None:
                self.on_close()

    def take(self) -> tuple[int, bytes] | None:
        """All that waits, for the wire, and the last one's number; None when nothing does."""
        if not self._waiting:
            return None
        last = self._waiting[-1][0]
        blocks = b"".join([block for _, block in self._waiting])
        self._waiting.clear()
        self._bytes = 0
        return last, blocks

    async def changed(self, seconds: float) -> None:
        """Wait until it is let in, told something or closed; `seconds` at most."""
        if self._waiting or self.closed is not None:
            return
        self._waiter = waiter = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(seconds):
                await waiter
        except TimeoutError:
            return
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Roster:
    """All followers here. A round of reading asks for `users`, or `everything`, after `position`; then comes `tell`.

    Who joins while a round is under way is let in at its end, and not told what it has found: it was not asked for.
    """

    def __init__(self) -> None:
        self.position: int | None = None
        self._own: dict[UUID, set[Follower]] = {}
        self._all: set[Follower] = set()
        self._joining: set[Follower] = set()

    @property
    def users(self) -> list[UUID]:
        """Whose events are asked for."""
        return list(self._own)

    @property
    def everything(self) -> bool:
        return bool(self._all)

    @property
    def joining(self) -> bool:
        return bool(self._joining)

    def join(self, follower: Follower) -> None:
        self._joining.add(follower)

    def leave(self, follower: Follower) -> None:
        self._joining.discard(follower)
        self._all.discard(follower)
        mine = self._own.get(follower.user)
        if mine is not None:
            mine.discard(follower)
            if not mine:
                del self._own[follower.user]

    def tell(self, events: Iterable[Told], upto: int) -> None:
        """The round's events, in order; there are no others up to `upto` of those who were asked for."""
        for event in events:
            if event.user is not None:
                for follower in list(self._own.get(event.user, ())):
                    follower.offer(event)
            for follower in list(self._all):
                follower.offer(event)
        # A user's end takes away their events: the highest number there is may be smaller than it was.
        self.position = max(upto, self.position or 0)
        joining, self._joining = self._joining, set()
        for follower in joining:
            if follower.everything:
                self._all.add(follower)
            else:
                self._own.setdefault(follower.user, set()).add(follower)
            follower.admit(self.position)


def reset_frame(after: int, kept_after: int, reason: str) -> bytes:
    """What is told in place of events that are not there any more: one begins anew after `kept_after`."""
    said = {"reason": reason, "after": after, "kept_after": kept_after}
    return sse.event(msgspec.json.encode(said), id=kept_after, name="reset")


def place_frame(seq: int) -> bytes:
    """A number to go on from, and no event."""
    return b"id: %d\n\n" % seq
