"""A branch is walked message by message, even where the planner takes every conversation for a short one."""

from collections.abc import AsyncIterator
from typing import Final
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio

from baatcheet.kit.ids import new_id
from baatcheet.platform.database import connect

SHORT: Final = 6_000  # conversations of one message
LONG: Final = 2_000  # messages of one conversation
BOUNDS: Final = '{"messages": 100, "tokens": 100000, "keep": 10, "walk": 100}'

_FILL = """
WITH talk AS (
    INSERT INTO conversations (id, user_id, title)
    SELECT gen_random_uuid(), $1, 'short' FROM generate_series(1, $2) RETURNING id
)
INSERT INTO messages (id, conversation_id, user_id, role, content)
SELECT gen_random_uuid(), t.id, $1, 'user', 'hello' FROM talk t
"""
_CHAIN = """
INSERT INTO messages (id, conversation_id, user_id, parent_id, role, content)
SELECT c.id, $1, $2, c.parent, 'user', 'hello'
FROM unnest($3::uuid[], $4::uuid[]) WITH ORDINALITY AS c(id, parent, place) ORDER BY c.place
"""
_READ = "SELECT idx_tup_fetch + seq_tup_read FROM pg_stat_xact_user_tables WHERE relname = 'messages'"


class Filled:
    """A database in which nearly every conversation has one message, and the head of one that has many."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self.connection = connection
        self.user, self.talk = new_id(), new_id()
        self.head: UUID

    async def fill(self) -> None:
        async with self.connection.transaction():
            await self.connection.execute("INSERT INTO users (id, name) VALUES ($1, 'a')", self.user)
            await self.connection.execute(_FILL, self.user, SHORT)
            await self.connection.execute(
                "INSERT INTO conversations (id, user_id, title) VALUES ($1, $2, 'long')", self.talk, self.user
            )
            chain = [new_id() for _ in range(LONG)]
            self.head = chain[-1]
            await self.connection.execute(_CHAIN, self.talk, self.user, chain, [None, *chain[:-1]])
        await self.connection.execute("ANALYZE messages")

    async def read_by(self, call: str, *values: object) -> int:
        """How many messages are read by a statement that has been asked often enough to have a plan for any values."""
        for _ in range(8):
            await self.connection.fetch(call, *values)
        async with self.connection.transaction():
            before = await self.connection.fetchval(_READ) or 0
            await self.connection.fetch(call, *values)
            return int(await self.connection.fetchval(_READ)) - int(before)


@pytest_asyncio.fixture
async def filled(migrated_database: str) -> AsyncIterator[Filled]:
    connection = await connect(migrated_database)
    try:
        made = Filled(connection)
        await made.fill()
        yield made
    finally:
        await connection.close()


@pytest.mark.timeout(120)
async def test_a_turn_reads_no_more_messages_than_it_looks_at(filled: Filled) -> None:
    history = "SELECT branch_history($1, $2, $3, $4::text::jsonb)"

    read = await filled.read_by(history, filled.user, filled.talk, filled.head, BOUNDS)

    assert 100 <= read <= 300


async def test_the_way_to_a_message_reads_a_few_messages_of_each_branch(filled: Filled) -> None:
    path = "SELECT * FROM branch_path($1, $2, $3)"

    assert 1 <= await filled.read_by(path, filled.user, filled.talk, filled.head) <= 5
