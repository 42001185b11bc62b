"""A page of a conversation reads a page's rows, however much else its owner has said."""

from collections.abc import AsyncIterator
from typing import Final
from uuid import UUID

import pytest
import pytest_asyncio
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from baatcheet.chat.models import Turn
from baatcheet.conversations import repository
from baatcheet.kit.ids import new_id
from baatcheet.platform.database import Database
from baatcheet.platform.settings import DatabaseSettings

PAGE: Final = 50
OTHERS: Final = 400  # conversations of the owner, of ten messages and ten turns each
LONG: Final = 1_000  # messages and turns of one conversation
STRANGERS: Final = 45_000  # messages and turns of others

_TALKS = """
INSERT INTO conversations (id, user_id, title) SELECT md5($2 || n)::uuid, $1, 't' FROM generate_series(1, $3::integer) n
"""
_SAID = """
INSERT INTO messages (id, conversation_id, user_id, role, content, created_at, branch_id, depth)
SELECT id, md5($2 || (n % $4::integer + 1))::uuid, $1, 'user', 'hello', now() + n * interval '1 second', id, 0
FROM (SELECT gen_random_uuid() AS id, n FROM generate_series(1, $3::integer) n) m
"""
_TURNS = """
INSERT INTO turns (id, user_id, conversation_id, status)
SELECT gen_random_uuid(), $1, md5($2 || (n % $4::integer + 1))::uuid, 'completed' FROM generate_series(1, $3::integer) n
"""
_READ = text("SELECT relname, idx_tup_fetch + seq_tup_read FROM pg_stat_xact_user_tables")


class Owner:
    """Somebody with many conversations, one of them long, among many others."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.user = new_id()
        self.long: UUID

    async def fill(self) -> None:
        stranger = new_id()
        async with self.db.hot(limit=60) as connection, connection.transaction():
            await connection.execute("SET LOCAL session_replication_role = replica")  # no triggers: quick
            for user, name, talks, rows in (
                (stranger, "of others ", STRANGERS // 10, STRANGERS),
                (self.user, "other ", OTHERS, OTHERS * 10),
                (self.user, "long ", 1, LONG),
            ):
                await connection.execute(
                    "INSERT INTO users (id, name) VALUES ($1, 'u') ON CONFLICT DO NOTHING", user
                )
                await connection.execute(_TALKS, user, name, talks)
                await connection.execute(_SAID, user, name, rows, talks)
                await connection.execute(_TURNS, user, name, rows, talks)
            self.long = await connection.fetchval("SELECT md5('long 1')::uuid")
            await connection.execute("ANALYZE")

    async def rows_read(self, session: AsyncSession) -> dict[str, int]:
        return {name: int(rows or 0) for name, rows in await session.execute(_READ)}


@pytest_asyncio.fixture
async def owner(migrated_database: str) -> AsyncIterator[Owner]:
    db = Database(DatabaseSettings(url=SecretStr(migrated_database)), pool_size=1)
    try:
        made = Owner(db)
        await made.fill()
        yield made
    finally:
        await db.close()


@pytest.mark.timeout(120)
async def test_a_page_of_messages_or_of_turns_reads_no_more_than_itself(owner: Owner) -> None:
    turns = Turn.__table__.select().where(Turn.user_id == owner.user, Turn.conversation_id == owner.long)
    async with owner.db.tenant(owner.user) as session:
        before = await owner.rows_read(session)
        messages, more = await repository.all_messages(session, owner.user, owner.long, "desc", None, PAGE)
        listed = (await session.execute(turns.order_by(Turn.id.desc()).limit(PAGE))).all()
        after = await owner.rows_read(session)

    assert (len(messages), more, len(listed)) == (PAGE, True, PAGE)
    # A page of messages is read twice: how large they are, and what of them fits.
    assert after["messages"] - before["messages"] <= 4 * PAGE
    assert after["turns"] - before["turns"] <= 2 * PAGE
