"""Closing a turn: our one statement against the same through SQLAlchemy's ORM, on the same pool, side by side."""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

from baatcheet.chat.models import Turn
from baatcheet.chat.store import Closing as Item
from baatcheet.chat.store import StoredReply, TurnStore
from baatcheet.conversations.models import Conversation, Message
from baatcheet.kit.ids import new_id
from baatcheet.platform.database import Database
from benchmarks.report import Report, progress

TASKS = 16  # turns that end at once
TIMES_FASTER = 3.0  # than through the ORM, at least
SHARE_OF_CPU = 1 / 3  # of what the ORM takes of this process, at most
_REPLY = "A reply of some length, as they come, with a few sentences. " * 10
_USAGE = {"prompt_tokens": 900, "completion_tokens": 140}

_OPENED = """
WITH t AS (
    SELECT gen_random_uuid() AS conversation, gen_random_uuid() AS input, gen_random_uuid() AS turn,
           gen_random_uuid() AS reply FROM generate_series(1, $2::integer)
), c AS (
    INSERT INTO conversations (id, user_id, title, head_id, message_count, token_total)
    SELECT conversation, $1, 'benchmark', input, 1, 20 FROM t
), m AS (
    INSERT INTO messages (id, conversation_id, user_id, turn_id, role, content, token_count)
    SELECT input, conversation, $1, turn, 'user', 'What is this?', 20 FROM t
)
INSERT INTO turns (id, user_id, conversation_id, input_id, reply_id, model)
SELECT turn, $1, conversation, input, reply, 'openai/gpt-4o' FROM t RETURNING id, conversation_id, input_id, reply_id
"""


@dataclass(frozen=True)
class Opened:
    """A turn that runs."""

    id: UUID
    conversation: UUID
    input: UUID
    reply: UUID


@dataclass
class Side:
    """What one way of closing took, round by round."""

    rates: list[float] = field(default_factory=list)  # turns a second
    cpu: list[float] = field(default_factory=list)  # microseconds of this process for each


class ClosingTurns:
    """`turns`: how many each way closes in a round."""

    def __init__(self, db: Database, user: UUID, report: Report, *, turns: int, rounds: int) -> None:
        self._db = db
        self._user = user
        self._report = report
        self._turns = turns
        self._rounds = rounds

    async def run(self) -> None:
        ours, orm = Side(), Side()
        store = TurnStore(self._db, _no_connection)
        for number in range(self._rounds + 1):
            progress(f"closing turns, round {number} of {self._rounds}")
            # The first round of each warms it up.
            await self._round(Side() if not number else ours, lambda turn: self._by_statement(store, turn))
            await self._round(Side() if not number else orm, self._by_orm)
        await store.close_lanes()
        report, middle = self._report, statistics.median
        report.add("close.rate", middle(ours.rates), "turns/s", better="higher")
        report.add("close.rate_of_orm", middle(orm.rates), "turns/s", better="higher")
        report.add(
            "close.times_faster",
            middle(ours.rates) / middle(orm.rates),
            "x the ORM's",
            better="higher",
            target=TIMES_FASTER,
        )
        report.add("close.cpu", middle(ours.cpu), "us CPU/turn", better="lower")
        report.add("close.cpu_of_orm", middle(orm.cpu), "us CPU/turn", better="lower")
        share = middle(ours.cpu) / middle(orm.cpu)
        report.add("close.share_of_cpu", share, "of the ORM's", better="lower", target=SHARE_OF_CPU)

    async def _round(self, side: Side, close: Callable[[Opened], Awaitable[None]]) -> None:
        async with self._db.hot(limit=60.0) as connection:
            rows = await connection.fetch(_OPENED, self._user, self._turns)
        left = iter([Opened(*row) for row in rows])
        cpu, began = time.process_time(), time.perf_counter()
        await asyncio.gather(*[_each(left, close) for _ in range(TASKS)])
        seconds, spent = time.perf_counter() - began, time.process_time() - cpu
        side.rates.append(self._turns / seconds)
        side.cpu.append(spent / self._turns * 1e6)

    async def _by_statement(self, store: TurnStore, turn: Opened) -> None:
        closed = await store.close(
            Item(
                turn=turn.id,
                user=self._user,
                status="completed",
                conversation=turn.conversation,
                answered_by="openai/gpt-4o",
                finish_reason="stop",
                prompt_tokens=_USAGE["prompt_tokens"],
                completion_tokens=_USAGE["completion_tokens"],
                usage=dict(_USAGE),
                message=StoredReply(_REPLY, None, _USAGE["completion_tokens"]),
                lengths=[len(_REPLY)],
            )
        )
        assert closed

    async def _by_orm(self, turn: Opened) -> None:
        """As an ORM's user writes it: load what changes, change it, add the message, commit."""
        async with self._db.tenant(self._user) as session:
            talk = await session.get_one(Conversation, turn.conversation, with_for_update=True)
            row = await session.get_one(Turn, turn.id)
            assert row.status == "running"
            row.status = "completed"
            row.answered_by = "openai/gpt-4o"
            row.finish_reason = "stop"
            row.prompt_tokens = _USAGE["prompt_tokens"]
            row.completion_tokens = _USAGE["completion_tokens"]
            row.usage = dict(_USAGE)
            row.event_lengths = [len(_REPLY)]
            row.ended_at = datetime.now(UTC)
            session.add(
                Message(
                    id=turn.reply,
                    conversation_id=turn.conversation,
                    user_id=self._user,
                    parent_id=turn.input,
                    turn_id=turn.id,
                    role="assistant",
                    content=_REPLY,
                    model="openai/gpt-4o",
                    token_count=_USAGE["completion_tokens"],
                    finish_reason="stop",
                )
            )
            talk.head_id = turn.reply
            talk.token_total += _USAGE["completion_tokens"]
            talk.message_count += 1
            talk.updated_at = datetime.now(UTC)


async def _each(left: Iterator[Opened], close: Callable[[Opened], Awaitable[None]]) -> None:
    for turn in left:
        await close(turn)


async def new_user(db: Database) -> UUID:
    """A user with nothing."""
    user = new_id()
    async with db.hot() as connection:
        await connection.execute("INSERT INTO users (id, name) VALUES ($1, 'benchmark')", user)
    return user


async def _no_connection() -> object:
    raise AssertionError("nothing here renews a lease")
