"""The turns' hand-written statements, on the process's own pool.

Opening and closing go through a batcher: under load one call of the SQL function, and one commit, serves many turns.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

import msgspec

from baatcheet.context.history import Bounds, StoredHistory, StoredMessage
from baatcheet.kit.batching import Batcher
from baatcheet.platform import patience
from baatcheet.platform.database import Database, DatabaseUnavailable, is_unavailable
from baatcheet.platform.pool import LEASE

Refusal = Literal["reused", "busy", "no-conversation", "no-project", "no-message"]
Outcome = Literal["opened", "joined", "locked"] | Refusal


class NewConversation(msgspec.Struct, frozen=True):
    """A conversation that the turn opens."""

    title: str
    system_prompt: str | None = None
    project: UUID | None = None
    model: str | None = None


class Opening(msgspec.Struct, frozen=True):
    """One item of `open_turns`."""

    turn: UUID
    user: UUID
    process: UUID
    reply: UUID
    bounds: Bounds
    conversation: UUID | None = None
    new: NewConversation | None = None
    at: str = "head"  # "head", "root", or the id of the message to continue from
    answer: UUID | None = None  # an existing message to answer again
    known: UUID | None = None  # the head whose history the caller has …
    known_version: int = 0  # … and the version of the context that it is of
    model: str | None = None
    key: str | None = None
    fingerprint: str | None = None  # hexadecimal
    messages: tuple[StoredMessage, ...] = ()


class Opened(msgspec.Struct, frozen=True):
    """What the conversation holds; `history` is None when the caller knows it."""

    head: UUID | None = None
    answer: UUID | None = None  # the message that is answered, where it was there already
    title: str | None = None
    system_prompt: str | None = None
    model: str | None = None
    version: int = 0
    history: StoredHistory | None = None
    turn: UUID | None = None  # the other turn, where one stood in the way


class StoredReply(msgspec.Struct, frozen=True):
    content: str
    parts: dict[str, Any] | None
    tokens: int


class Closing(msgspec.Struct, frozen=True):
    """One item of `close_turns`."""

    turn: UUID
    user: UUID
    status: str
    conversation: UUID | None = None
    record: bool = False
    created: float | None = None
    model: str | None = None
    answered_by: str | None = None
    finish_reason: str | None = None
    error: dict[str, Any] | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    usage: dict[str, Any] | None = None
    receipt: dict[str, Any] | None = None
    reply: dict[str, Any] | None = None
    message: StoredReply | None = None
    lengths: list[int] | None = None
    events: str | None = None
    flushed: bool = False
    free: bool = False  # whether the idempotency key may be used again


class Delta(msgspec.Struct, frozen=True):
    """Events of a running turn that are not yet in the database: `events` is a JSON array."""

    turn: UUID
    user: UUID
    first: int
    last: int
    events: str


class TurnRow(msgspec.Struct, frozen=True):
    """A turn as stored, with its reply's message when it has one."""

    id: UUID
    user_id: UUID
    status: str
    conversation_id: UUID | None = None
    input_id: UUID | None = None
    reply_id: UUID | None = None
    model: str | None = None
    answered_by: str | None = None
    finish_reason: str | None = None
    usage: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    reply: dict[str, Any] | None = None
    lengths: list[int] | None = None
    events: str | None = None
    content: str | None = None
    parts: dict[str, Any] | None = None
    title: str | None = None
    stored: bool = False  # whether the reply's message exists


_OPEN = "SELECT place, outcome, data::text FROM open_turns($1::text::jsonb)"
_CLOSE = "SELECT place, outcome FROM close_turns($1::text::jsonb)"
_FLUSH = """
INSERT INTO turn_deltas (turn_id, user_id, first_seq, last_seq, events)
SELECT d.turn, d."user", d.first, d.last, d.events
FROM jsonb_to_recordset($1::text::jsonb) AS d(turn uuid, "user" uuid, first integer, last integer, events text)
JOIN turns t ON t.id = d.turn AND t.user_id = d."user" AND t.status = 'running'
-- Sent again, and with more, when the first sending's answer was lost after its commit.
ON CONFLICT (turn_id, first_seq) DO UPDATE SET last_seq = excluded.last_seq, events = excluded.events
WHERE turn_deltas.last_seq < excluded.last_seq
"""
_TO_STOP = (
    "SELECT id, status FROM turns WHERE id = ANY($1::uuid[]) AND (status <> 'running' OR cancel_requested)"
)
_REQUEST_CANCEL = """
UPDATE turns SET cancel_requested = true WHERE id = $1 AND user_id = $2 AND status = 'running' RETURNING id
"""
_ROW = """
SELECT json_build_object(
    'id', t.id, 'user_id', t.user_id, 'status', t.status,
    'conversation_id', t.conversation_id, 'input_id', t.input_id, 'reply_id', t.reply_id, 'model', t.model,
    'answered_by', t.answered_by, 'finish_reason', t.finish_reason, 'usage', t.usage, 'error', t.error,
    'reply', t.reply, 'lengths', t.event_lengths, 'events', t.events,
    'content', m.content, 'parts', m.parts, 'stored', m.id IS NOT NULL, 'title', c.title
)::text
FROM turns t
LEFT JOIN messages m ON m.id = t.reply_id AND m.turn_id = t.id
LEFT JOIN conversations c ON c.id = t.conversation_id
WHERE t.id = $1 AND t.user_id = $2 AND c.deleted_at IS NULL
"""
_DELTAS = "SELECT first_seq, last_seq, events FROM turn_deltas WHERE turn_id = $1 AND last_seq > $2 ORDER BY first_seq"
_REGISTER = "INSERT INTO processes (id, kind, host, pid, pool_size) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING"
# The others count as they were before this statement, this process as what it is now.
_BEAT = """
WITH mine AS (
    UPDATE processes SET seen_at = clock_timestamp(), pool_size = $2, in_use = $3, waiting = $4
    WHERE id = $1 RETURNING id
)
SELECT EXISTS (SELECT FROM mine),
       1 + (SELECT count(*) FROM processes WHERE id <> $1 AND seen_at > clock_timestamp() - make_interval(secs => $5))
"""
_LEAVE = "DELETE FROM processes WHERE id = $1"
_ORPHANS = """
SELECT t.id, t.user_id, t.conversation_id FROM turns t
WHERE t.status = 'running' AND (
    (t.process_id = $1 AND t.id <> ALL($2::uuid[]) AND t.created_at < clock_timestamp() - make_interval(secs => $3))
    OR t.process_id IS DISTINCT FROM $1 AND NOT EXISTS (
        SELECT FROM processes p
        WHERE p.id = t.process_id AND p.seen_at > clock_timestamp() - make_interval(secs => $3)
    )
)
ORDER BY t.id LIMIT 200
"""
_SWEEP = """
WITH dead AS (
    DELETE FROM processes p WHERE p.seen_at < clock_timestamp() - interval '1 hour'
), late AS (
    -- a text that was made durable while its turn ended
    DELETE FROM turn_deltas d USING turns t WHERE t.id = d.turn_id AND t.status <> 'running'
)
UPDATE turns SET idempotency_key = NULL, fingerprint = NULL, reply = NULL
WHERE idempotency_key IS NOT NULL AND created_at < clock_timestamp() - interval '24 hours' AND status <> 'running'
"""


_BY_KEY = "SELECT id, encode(fingerprint, 'hex') FROM turns WHERE user_id = $1 AND idempotency_key = $2"


_MESSAGE = """
SELECT m.id, m.conversation_id, m.parent_id, m.role
FROM messages m JOIN conversations c ON c.id = m.conversation_id AND c.deleted_at IS NULL
WHERE m.user_id = $1 AND m.id = coalesce($2, (
    SELECT c.head_id FROM conversations c WHERE c.id = $3 AND c.user_id = $1
))
"""


_EXISTS = "SELECT EXISTS (SELECT FROM conversations WHERE id = $1 AND user_id = $2 AND deleted_at IS NULL)"


Connect = Callable[[], Awaitable[Any]]

BEAT_TIMEOUT = 3.0  # seconds
SWEEP_LIMIT = 60.0  # seconds
LOCK_PATIENCE = 8.0  # seconds that a request waits for a conversation that somebody else holds
LOCK_PAUSE = 0.05


@dataclass(frozen=True, slots=True)
class Place:
    """Where a message stands in its tree."""

    id: UUID
    conversation_id: UUID
    parent_id: UUID | None
    role: str


@dataclass(frozen=True, slots=True)
class Orphan:
    """A running turn that nobody runs."""

    id: UUID
    user_id: UUID
    conversation_id: UUID | None


class TurnStore:
    """Every method raises DatabaseUnavailable when the database can't be reached in time."""

    def __init__(self, db: Database, connect: Connect) -> None:
        self._db = db
        self._connect = connect  # a connection outside the pool
        self._beacon: Any = None
        self._opening_lane = db.lane()
        self._closing_lane = db.lane()
        self._openings: Batcher[Opening, tuple[Outcome, Opened]] = Batcher(
            self._open_many, shared=(DatabaseUnavailable,)
        )
        self._closings: Batcher[Closing, str] = Batcher(self._close_many, shared=(DatabaseUnavailable,))

    async def open(self, opening: Opening) -> tuple[Outcome, Opened]:
        """Commit the opening of a turn, or learn what stands in its way. The same opening may be made again."""
        deadline = time.monotonic() + LOCK_PATIENCE
        try:
            async with patience.within(self._db.timeout):
                while True:
                    outcome, opened = await self._openings.submit(opening)
                    if outcome != "locked":
                        return outcome, opened
                    if time.monotonic() > deadline:
                        raise DatabaseUnavailable(
                            "Somebody else holds this conversation. Try again in a moment."
                        )
                    await asyncio.sleep(LOCK_PAUSE)
        except TimeoutError:
            raise DatabaseUnavailable("The turn could not be begun in time. Try again in a moment.") from None

    async def close(self, closing: Closing) -> bool:
        """Commit the end of a turn, however long somebody holds its conversation. False when it has ended already."""
        while True:
            outcome = await self._closings.submit(closing)
            if outcome != "locked":
                return outcome == "closed"
            await asyncio.sleep(LOCK_PAUSE)

    async def _open_many(self, openings: Sequence[Opening]) -> list[tuple[Outcome, Opened] | Exception]:
        rows = await self._opening_lane.fetch(_OPEN, msgspec.json.encode(openings).decode())
        results: list[Any] = [None] * len(openings)
        for place, outcome, data in rows:
            opened = msgspec.json.decode(data, type=Opened) if data is not None else Opened()
            results[place] = (outcome, opened)
        return results

    async def _close_many(self, closings: Sequence[Closing]) -> list[str | Exception]:
        rows = await self._closing_lane.fetch(_CLOSE, msgspec.json.encode(closings).decode())
        results: list[Any] = ["lost"] * len(closings)
        for place, outcome in rows:
            results[place] = outcome
        return results

    async def flush(self, turns: Sequence[UUID], deltas: Sequence[Delta]) -> dict[UUID, str]:
        """Make `deltas` durable. Returns those of `turns` that are to be stopped, and how they stand.

        One that is still running was cancelled by its user; another was ended in this process's place.
        """
        async with self._db.hot() as connection:
            if deltas:
                await connection.execute(_FLUSH, msgspec.json.encode(deltas).decode())
            return dict(await connection.fetch(_TO_STOP, list(turns)))

    async def request_cancel(self, user: UUID, turn: UUID) -> bool:
        """Ask whichever process runs `turn` to stop it. False when it does not run."""
        async with self._db.hot() as connection:
            return await connection.fetchval(_REQUEST_CANCEL, turn, user) is not None

    async def row(self, user: UUID, turn: UUID) -> TurnRow | None:
        """The user's turn, or None."""
        async with self._db.hot() as connection:
            found = await connection.fetchval(_ROW, turn, user)
        return msgspec.json.decode(found, type=TurnRow) if found is not None else None

    async def by_key(self, user: UUID, key: str) -> tuple[UUID, str] | None:
        """The user's turn that `key` has started, and the fingerprint of its request; None when there is none."""
        async with self._db.hot() as connection:
            found = await connection.fetchrow(_BY_KEY, user, key)
        return (found[0], found[1]) if found is not None else None

    async def place(
        self, user: UUID, *, message: UUID | None = None, conversation: UUID | None = None
    ) -> Place | None:
        """Where the user's message, or the newest message of their conversation, stands; None when there is none."""
        async with self._db.hot() as connection:
            found = await connection.fetchrow(_MESSAGE, user, message, conversation)
        return Place(*found) if found is not None else None

    async def conversation_exists(self, user: UUID, conversation: UUID) -> bool:
        """Whether the user has this conversation."""
        async with self._db.hot() as connection:
            return bool(await connection.fetchval(_EXISTS, conversation, user))

    async def deltas(self, turn: UUID, after: int) -> list[tuple[int, int, str]]:
        """The durable events of a running turn after event `after`: first and last number, JSON array."""
        async with self._db.hot() as connection:
            return [tuple(row) for row in await connection.fetch(_DELTAS, turn, after)]

    async def register(self, process: UUID, *, kind: str, host: str, pid: int, pool_size: int) -> None:
        """Make this process known, so that its turns are known to be alive."""
        async with self._db.hot() as connection:
            await connection.execute(_REGISTER, process, kind, host, pid, pool_size)

    async def beat(self, process: UUID) -> bool:
        """Renew this process's lease, on a connection of its own: requests may take all of the pool's.

        The pool gets its part of the deployment's connections, by how many processes are running. False when this one
        is no longer known.
        """
        try:
            if self._beacon is None or self._beacon.is_closed():
                self._beacon = await self._connect()
            use = self._db.pool_use()
            # Held together for a pooler; and cut off, since a transaction would answer a cancellation with a rollback.
            timer = asyncio.get_running_loop().call_later(BEAT_TIMEOUT, self._beacon.terminate)
            try:
                async with self._beacon.transaction():
                    known, running = await self._beacon.fetchrow(
                        _BEAT, process, use.size, use.in_use, use.waiting, LEASE
                    )
            finally:
                timer.cancel()
        except BaseException as error:
            cut = self._beacon is not None and self._beacon.is_closed()
            if self._beacon is not None:
                self._beacon.terminate()
                self._beacon = None
            if isinstance(error, Exception) and (cut or is_unavailable(error)):
                raise DatabaseUnavailable("The lease could not be renewed.") from error
            raise
        self._db.share_among(running)
        return bool(known)

    async def leave(self, process: UUID) -> None:
        """Give the lease up."""
        async with self._db.hot() as connection:
            await connection.execute(_LEAVE, process)

    async def orphans(self, process: UUID, alive: Sequence[UUID], lease: float) -> list[Orphan]:
        """Running turns whose process let its lease of `lease` seconds lapse, or that this process does not know."""
        async with self._db.hot() as connection:
            return [Orphan(*row) for row in await connection.fetch(_ORPHANS, process, list(alive), lease)]

    async def close_lanes(self) -> None:
        """Give back the connections that were kept."""
        if self._beacon is not None:
            self._beacon.terminate()
        await self._opening_lane.close()
        await self._closing_lane.close()

    async def sweep(self) -> None:
        """Forget dead processes after an hour, and the idempotency keys of turns after a day."""
        async with self._db.hot(limit=SWEEP_LIMIT) as connection:
            await connection.execute(_SWEEP)
