"""The relay: what was written to the outbox becomes numbered events, and everyone who lives by events is told.

One transaction takes a batch out of the outbox, numbers it, hands it to the subscribers and says so: whatever a
subscriber writes is there if and only if the event is, and a process that is killed anywhere leaves either all of
it or nothing. Rows are deleted, and no mark of how far one has come is kept: a row's `place` is given out before its
transaction commits, so a later place may be seen earlier.

Why a reader that has seen number n never misses a smaller one: numbers are given out under an advisory lock that
PostgreSQL releases after the commit has become visible. Whoever takes it next numbers on from there, so the order of
the numbers is the order of the commits. Nobody else writes to `events`.

Within a conversation, events have the order of their recording as far as their transactions committed in it.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from baatcheet.events.floor import Floor
from baatcheet.events.model import Event
from baatcheet.platform.database import Database, DatabaseUnavailable, is_unavailable
from baatcheet.platform.logging import get_logger
from baatcheet.platform.telemetry import Metrics

log = get_logger(__name__)

Subscriber = Callable[[AsyncSession, Sequence[Event]], Awaitable[None]]
"""Writes what follows from a batch of events, and waits for nothing but the database."""

CHANNEL = "baatcheet_events"  # what is told there is the number of the newest event
BATCH = 500
SLOW_SECONDS = 1.0  # for a batch and all its subscribers, above which the next one is half as large
FEWEST = 25  # events that a batch is not made smaller than because it is slow
BUSY_PAUSE = 0.05  # seconds between two batches while there are events
IDLE_PAUSE = 0.5
AWAY_PAUSE = 1.0  # after a failure
HAND_SECONDS = 10.0  # that a subscriber may take for a batch
FROZEN_SECONDS = 15.0  # without a sign of life in the middle of a batch, after which the server ends it
LIMIT = 60.0  # seconds for a batch and all its subscribers
STRIKES = 6  # times that a subscriber may take its transaction down, over ever fewer events, before one is put aside
RETRY_SECONDS = 300.0  # between two rounds of handing over again what was put aside
LOST = 3  # events at which a round may lose its transaction before it ends
LONGEST_ERROR = 2_000  # characters

_LOCK = 0x6261_6576  # an advisory lock of our own: "baev"

# A process that freezes with the lock in its hands is cut off sooner than others.
_BEGIN = text("""
SELECT o.age, coalesce(pg_sequence_last_value('outbox_place_seq'), 0) AS last,
       CASE WHEN o.age IS NOT NULL THEN pg_try_advisory_xact_lock(CAST(:lock AS bigint)) END AS mine,
       CASE WHEN o.age IS NOT NULL THEN set_config('idle_in_transaction_session_timeout', :frozen, true) END
FROM (SELECT) one LEFT JOIN (
    SELECT extract(epoch FROM clock_timestamp() - created_at)::float8 AS age
    FROM outbox WHERE place > :floor ORDER BY place LIMIT 1
) o ON true
""")
_TAKE = text("""
WITH taken AS MATERIALIZED (
    DELETE FROM outbox WHERE place = ANY(ARRAY(
        SELECT place FROM outbox WHERE place > :floor ORDER BY place LIMIT :most
    )) RETURNING *
), told AS (
    INSERT INTO events (id, user_id, type, conversation_id, data, created_at)
    SELECT t.id, t.user_id, t.type, t.conversation_id, t.data, t.created_at FROM taken t
    WHERE t.user_id IS NULL OR EXISTS (SELECT FROM users u WHERE u.id = t.user_id)
    ORDER BY t.place
    ON CONFLICT (id) DO NOTHING
    RETURNING seq, id, user_id, type, conversation_id, data::text AS data, created_at
)
SELECT n.taken, n.last, told.*
FROM (SELECT count(*) AS taken, max(place) AS last FROM taken) n LEFT JOIN told ON true ORDER BY told.seq
""")
# Whatever is wrong with what a subscriber wrote is wrong now, inside its savepoint, and not at the commit.
_CHECK = text("SET CONSTRAINTS ALL IMMEDIATE")
_NOTIFY = text("SELECT pg_notify(:channel, :seq)")
_POISON = text(
    "UPDATE events SET poisoned = coalesce(poisoned, '{}') "
    "|| jsonb_build_object(CAST(:name AS text), CAST(:why AS text)) WHERE seq = :seq"
)
_POISONED = text(
    "SELECT seq, id, user_id, type, conversation_id, data::text AS data, created_at, poisoned::text AS poisoned "
    "FROM events WHERE poisoned IS NOT NULL AND seq > :after ORDER BY seq LIMIT 1 FOR UPDATE SKIP LOCKED"
)
_HEAL = text("UPDATE events SET poisoned = nullif(poisoned - CAST(:name AS text), '{}') WHERE seq = :seq")


class TooMuch(Exception):
    """What a subscriber raises, before it writes anything, at a batch that one transaction should not do.

    `events`: how many from its beginning would not be too much. One event alone never is.
    """

    def __init__(self, events: int) -> None:
        super().__init__(f"a batch is too much: no more than {events} events")
        self.events = events


class Relay:
    """Relays, while no other process does. Any number of processes may run one.

    `subscribers` by name: an event that one of them can't take is put aside for that one alone, marked in
    `events.poisoned` under its name, and logged; the others and the stream get it. `retry_poisoned` hands such
    events over again; `run` does so at its start and every `retry_seconds`.

    A batch has `batch` events at the most, and fewer after one that failed, was slow or was too much for a subscriber;
    while there are more events than are taken, it grows back by a quarter each time.
    """

    def __init__(
        self,
        db: Database,
        subscribers: Mapping[str, Subscriber] | None = None,
        *,
        metrics: Metrics | None = None,
        batch: int = BATCH,
        hand_seconds: float = HAND_SECONDS,
        frozen_seconds: float = FROZEN_SECONDS,
        slow_seconds: float = SLOW_SECONDS,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        self._db = db
        self._subscribers = dict(subscribers or {})
        self._metrics = metrics
        self._batch = batch
        self._hand_seconds = hand_seconds
        self._frozen_seconds = frozen_seconds
        self._slow_seconds = slow_seconds
        self._retry_seconds = retry_seconds
        self._most = batch  # rows that the next batch takes
        self._more = False  # whether the last batch left some behind, as far as one can tell
        self._floor = Floor()
        self._handing: str | None = None  # the subscriber that is at work
        self._doubted = False  # whether the batch failed just now, and is to be taken apart if it does again
        self._strikes = 0
        self._struck: str | None = None  # the subscriber of the last strike

    async def run(self) -> None:
        """Relay until cancelled. A database that is away is waited for."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_relaying())
            if self._subscribers:
                tasks.create_task(self._keep_retrying())

    async def _keep_relaying(self) -> None:
        pause, away = BUSY_PAUSE, False
        while True:
            try:
                taken = await self.relay()
            except DatabaseUnavailable:
                if not away:
                    log.warning("relay.waits_for_database")
                taken, away, pause = 0, True, AWAY_PAUSE
            except Exception as error:  # noqa: BLE001 - the stream must go on
                log.error("relay.failed", error=error)
                taken, pause = 0, BUSY_PAUSE
            else:
                away = False
                pause = BUSY_PAUSE if taken else min(IDLE_PAUSE, pause * 2)
            await asyncio.sleep(0 if taken and self._more else pause)

    async def _keep_retrying(self) -> None:
        while True:
            try:
                if healed := await self.retry_poisoned():
                    log.info("relay.healed", events=healed)
            except Exception as error:  # noqa: BLE001 - the next round may go better
                log.warning("relay.retry_failed", cause=type(error).__name__)
            await asyncio.sleep(self._retry_seconds)

    async def relay(self) -> int:
        """Relay one batch: how many rows of the outbox are done with. 0: there is nothing, or another process does it.

        Raises DatabaseUnavailable, and what a subscriber raised; all of the batch is in the outbox then.
        """
        while True:
            most = self._most
            try:
                return await self._relay(most)
            except TooMuch as much:
                if most == 1:
                    self._note(much)
                    raise
                self._most = max(1, min(much.events, most - 1))

    async def _relay(self, most: int) -> int:
        self._handing = None
        floor = self._floor.look_from(time.monotonic())
        values = {"lock": _LOCK, "floor": floor, "frozen": str(round(self._frozen_seconds * 1000))}
        try:
            async with self._db.system(limit=LIMIT) as session:
                begun = (await session.execute(_BEGIN, values)).one()
                if not begun.mine:
                    self._measure(begun.age)
                    if begun.age is None:
                        self._floor.passed(begun.last, time.monotonic(), all_of_it=True)
                    return 0
                began = time.monotonic()
                rows = (await session.execute(_TAKE, {"floor": floor, "most": most})).all()
                events = [_event(row) for row in rows if row.seq is not None]
                if events:
                    await self._tell(session, events)
        except TooMuch:
            raise
        except Exception as error:
            self._note(error)
            raise
        self._doubted, self._strikes, self._struck = False, 0, None
        taken, last = int(rows[0].taken), rows[0].last
        self._more = taken >= most
        if taken:
            self._floor.passed(last, time.monotonic(), all_of_it=not self._more)
        if time.monotonic() - began > self._slow_seconds:
            self._most = max(min(most, FEWEST), taken // 2)
        elif self._more:
            self._most = min(self._batch, most + max(1, most // 4))
        if self._metrics is not None:
            self._metrics.events_relayed(len(events))
        self._measure(begun.age)
        return taken

    async def retry_poisoned(self) -> int:
        """Hand over again what was put aside for the subscribers here; how many of them took it.

        What another process hands over now is left to it. Raises DatabaseUnavailable.
        """
        after, healed, lost = 0, 0, 0
        while True:
            row = None
            try:
                async with self._db.system(limit=LIMIT) as session:
                    row = (await session.execute(_POISONED, {"after": after})).one_or_none()
                    if row is None:
                        return healed
                    after = row.seq
                    took = await self._hand_again(session, row)
            except DatabaseUnavailable:
                # A subscriber that ran out of its time, too: the next event is another matter.
                lost += 1
                if row is None or lost == LOST:
                    raise
            else:
                healed += took

    async def _hand_again(self, session: AsyncSession, row: Any) -> int:
        """Hand an event to those that it was put aside for; how many took it."""
        event, healed = _event(row), 0
        for name, before in msgspec.json.decode(row.poisoned, type=dict[str, str]).items():
            if name not in self._subscribers:
                continue
            try:
                await self._hand(session, name, [event])
            except Exception as error:  # it stays aside, with the new reason
                if is_unavailable(error):
                    raise
                if (why := _why(error)) != before:
                    await session.execute(_POISON, {"name": name, "why": why, "seq": event.seq})
            else:
                await session.execute(_HEAL, {"name": name, "seq": event.seq})
                healed += 1
        return healed

    async def _tell(self, session: AsyncSession, events: Sequence[Event]) -> None:
        for name in self._subscribers:
            self._handing = name
            if name == self._struck and self._strikes >= STRIKES:
                for event in events:
                    await self._put_aside(session, name, event, _TOOK_ALL_DOWN)
            else:
                await self._hand_over(session, name, events)
        self._handing = None
        await session.execute(_NOTIFY, {"channel": CHANNEL, "seq": str(events[-1].seq)})

    async def _hand_over(self, session: AsyncSession, name: str, events: Sequence[Event]) -> None:
        """Hand `events` to a subscriber. What it can't take twice is taken apart until the bad ones are found."""
        try:
            await self._hand(session, name, events)
        except Exception as error:
            if not self._doubted or _of_the_moment(error) or (isinstance(error, TooMuch) and len(events) > 1):
                raise
            failed = error
        else:
            return
        if len(events) == 1:
            await self._put_aside(session, name, events[0], failed)
            return
        middle = len(events) // 2
        await self._hand_over(session, name, events[:middle])
        await self._hand_over(session, name, events[middle:])

    async def _hand(self, session: AsyncSession, name: str, events: Sequence[Event]) -> None:
        async with asyncio.timeout(self._hand_seconds), session.begin_nested():
            await self._subscribers[name](session, events)
            await session.flush()
            await session.execute(_CHECK)

    async def _put_aside(self, session: AsyncSession, name: str, event: Event, error: Exception) -> None:
        await session.execute(_POISON, {"name": name, "why": _why(error), "seq": event.seq})
        log.error("relay.poisoned", error=error, subscriber=name, seq=event.seq, event_id=str(event.id))

    def _note(self, error: Exception) -> None:
        """Learn from a transaction that failed."""
        if self._handing is None:
            return
        log.warning("relay.subscriber_failed", subscriber=self._handing, cause=type(error).__name__)
        if self._doubted or _of_the_moment(error):
            self._strikes += 1
            self._most = max(1, self._most // 4)
            self._struck = self._handing
        self._doubted = True

    def _measure(self, age: float | None) -> None:
        if self._metrics is not None:
            self._metrics.relay_lag(max(0.0, age or 0.0))


_TOOK_ALL_DOWN = RuntimeError("its transaction ended without it, again and again")


def _of_the_moment(error: Exception) -> bool:
    """Whether `error` says that the transaction is lost, rather than that the events are bad."""
    if is_unavailable(error):  # a subscriber that ran out of its time, too
        return True
    state = getattr(getattr(error, "orig", error), "sqlstate", None)
    return isinstance(state, str) and state.startswith("40")  # a deadlock


def _why(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".replace("\0", "")[:LONGEST_ERROR]


def _event(row: Any) -> Event:
    return Event(
        row.seq,
        row.id,
        row.user_id,
        row.type,
        row.conversation_id,
        msgspec.json.decode(row.data),
        row.created_at,
    )
