"""What happens in one turn, as numbered events that any number of followers read at their own pace.

Event 1 says that the turn has started; then come the chunks of the reply; the last one says how it ended.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID

from baatcheet.kit.ids import made_at
from baatcheet.platform.errors import KINDS, BadGateway, Problem, ShuttingDown
from baatcheet.providers.model import Chunk, Usage

Status = Literal["running", "completed", "failed", "cancelled", "interrupted"]
FIRST_CHUNK = 2  # the number of the first chunk's event


@dataclass(frozen=True, slots=True)
class TurnIdentity:
    """Who and what a turn is; known from its opening."""

    id: UUID
    user_id: UUID
    model: str | None = None  # as asked for
    conversation_id: UUID | None = None
    input_id: UUID | None = None
    reply_id: UUID | None = None
    title: str | None = None

    @property
    def created(self) -> int:
        """Unix seconds; the same whoever tells of the turn, and whenever."""
        return made_at(self.id)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a turn ended."""

    status: Status
    message: dict[str, Any] | None = None  # the reply in OpenAI's form, as far as it got
    answered_by: str | None = None  # provider/model
    finish_reason: str | None = None
    usage: Usage | None = None
    error: dict[str, Any] | None = None  # see `error_of`


@dataclass(eq=False)
class TurnFeed:
    """The events of one turn."""

    identity: TurnIdentity
    joined: bool = False  # whether a repeated request found this turn instead of starting it
    answered_by: str | None = None
    chunks: list[Chunk] = field(default_factory=list)
    outcome: Outcome | None = None
    released: bool = False  # followers are to go elsewhere: this process stops, the turn does not
    _waiters: list[asyncio.Future[None]] = field(default_factory=list)

    @property
    def over(self) -> bool:
        """Whether nothing more will come from here."""
        return self.outcome is not None or self.released

    @property
    def last(self) -> int:
        """The number of the newest event."""
        return len(self.chunks) + (1 if self.outcome is None else 2)

    def push(self, chunks: Sequence[Chunk]) -> None:
        """Add chunks; every follower is woken."""
        self.chunks.extend(chunks)
        self._wake()

    def end(self, outcome: Outcome) -> None:
        """Add the last event."""
        self.outcome = outcome
        self._wake()

    def release(self) -> None:
        """Let every follower go without an end."""
        self.released = True
        self._wake()

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def changed(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - a wait of its own
        """Wait for the next event, `timeout` seconds at most."""
        if self.over:
            return
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        self._waiters.append(waiter)
        alarm = loop.call_later(timeout, _ring, waiter) if timeout is not None else None
        try:
            await waiter
        finally:
            if alarm is not None:
                alarm.cancel()

    async def follow(
        self, after: int = 0, *, keep_alive: float
    ) -> AsyncIterator[tuple[int, Sequence[Chunk]]]:
        """Batches of chunks with the number of the first one's event, from the event after `after` on.

        An empty batch says that nothing came for `keep_alive` seconds. Ends when the turn has ended.
        """
        loop = asyncio.get_running_loop()
        position = max(0, after + 1 - FIRST_CHUNK)
        waiter: asyncio.Future[None] | None = None
        active = loop.time()  # when something was last given
        alarm: asyncio.TimerHandle

        def look() -> None:
            # One timer for the whole stream, moved on when it rings: a chunk costs no timer of its own.
            nonlocal alarm
            silent = loop.time() - active
            if silent >= keep_alive and waiter is not None:
                _ring(waiter)
            alarm = loop.call_later(
                max(keep_alive - silent, 0.001) if silent < keep_alive else keep_alive, look
            )

        alarm = loop.call_later(keep_alive, look)
        try:
            while True:
                if position < len(self.chunks):
                    batch = self.chunks[position:]
                    active = loop.time()
                    yield position + FIRST_CHUNK, batch
                    position += len(batch)
                elif self.over:
                    return
                else:
                    waiter = loop.create_future()
                    self._waiters.append(waiter)
                    await waiter
                    waiter = None
                    # A follower may be ahead of the turn: what comes then is nothing to it.
                    if loop.time() - active >= keep_alive and position >= len(self.chunks) and not self.over:
                        active = loop.time()
                        yield position + FIRST_CHUNK, ()
        finally:
            alarm.cancel()

    async def first_sign(self, timeout: float) -> None:  # noqa: ASYNC109 - see `changed`
        """Wait until there is a chunk or an end, `timeout` seconds at most."""
        if not self.chunks and self.outcome is None:
            await self.changed(timeout)

    async def ended(self) -> Outcome:
        """Wait for the end. Raises ShuttingDown when this process stops before it."""
        while self.outcome is None:
            if self.released:
                raise ShuttingDown("This server is shutting down; ask again, another will take over.")
            await self.changed()
        return self.outcome


def _ring(waiter: asyncio.Future[Any]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def error_of(problem: Problem) -> dict[str, Any]:
    """A problem as a turn keeps it, for whoever asks for the turn later."""
    envelope = problem.envelope()["error"]
    kept = {
        "status": problem.status,
        "type": problem.type,
        "message": envelope["message"],
        "code": envelope["code"],
    }
    if problem.param is not None:
        kept["param"] = problem.param
    if "retry-after" in problem.headers:
        kept["retry_after"] = int(problem.headers["retry-after"])
    return kept


def problem_of(error: dict[str, Any]) -> Problem:
    """The problem that `error_of` kept."""
    kind = KINDS.get(str(error.get("type")), _kind_by_status(int(error.get("status", 500))))
    problem = Problem.__new__(kind)
    headers = {"retry-after": str(error["retry_after"])} if "retry_after" in error else {}
    # Its own constructor wants what it was about, which is in the message already.
    Problem.__init__(problem, str(error.get("message", "")), param=error.get("param"), headers=headers)
    problem.openai_code = error.get("code") or kind.openai_code  # type: ignore[misc]
    return problem


def _kind_by_status(status: int) -> type[Problem]:
    """The general kind, for a type that another version of ours had."""
    return next((kind for kind in Problem.__subclasses__() if kind.status == status), BadGateway)
