"""Migrations of a database in use: nothing waits long for them, nothing is lost on the way down and up again."""

import asyncio
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pytest
from alembic.script import ScriptDirectory
from benchmarks.data.seeding import seed
from sqlalchemy import Engine, event

from baatcheet.kit.ids import new_id
from baatcheet.platform import migrate
from baatcheet.platform.database import connect
from baatcheet.platform.migrate import MigrationError, configuration, downgrade, upgrade
from tests.conftest import database_on

FIRST_ONLINE = "0016"  # migrations before this one were made when no database was in use
MESSAGES = 1_000
# What rests on the messages, whatever the schema: the texts, their order, their owners.
WHAT_STAYS = """
SELECT (SELECT count(*) || ' ' || md5(string_agg(m.content || m.role || m.user_id || m.parent_id, ',' ORDER BY m.id))
        FROM messages m) || ' ' ||
       (SELECT count(*) || ' ' || md5(string_agg(c.title || c.head_id || c.archived, ',' ORDER BY c.id))
        FROM conversations c) || ' ' ||
       (SELECT count(*) || ' ' || md5(string_agg(t.status || t.reply_id || t.usage, ',' ORDER BY t.id)) FROM turns t)
"""


def revisions() -> list[str]:
    """The oldest first."""
    return [one.revision for one in ScriptDirectory.from_config(configuration()).walk_revisions()][::-1]


async def ask(url: str, statement: str, *arguments: Any) -> Any:
    connection = await connect(url)
    try:
        return await connection.fetchval(statement, *arguments)
    finally:
        await connection.close()


def test_every_migration_goes_down_and_up_again_and_no_row_is_lost(empty_database: str) -> None:
    upgrade(empty_database)
    asyncio.run(seed(empty_database, MESSAGES))
    before = asyncio.run(ask(empty_database, WHAT_STAYS))
    assert before.startswith(f"{MESSAGES} ")
    walked = revisions()
    for revision in reversed(walked[:-1]):
        downgrade(empty_database, revision)
        assert asyncio.run(ask(empty_database, WHAT_STAYS)) == before, f"on the way down to {revision}"
    for revision in walked[1:]:
        upgrade(empty_database, revision)
        assert asyncio.run(ask(empty_database, WHAT_STAYS)) == before, f"on the way up to {revision}"


class Statement(NamedTuple):
    """One statement of a migration, and the tables that were there before that."""

    revision: str
    tables: frozenset[str]
    text: str


class Danger(NamedTuple):
    """What holds a large table up. `found` names the table in its first group."""

    found: re.Pattern[str]
    advice: str


_TABLE = r"(?:public\.)?\"?(\w+)\"?"
DANGERS = (
    Danger(
        re.compile(rf"CREATE (?:UNIQUE )?INDEX (?!CONCURRENTLY).*? ON (?:ONLY )?{_TABLE}", re.IGNORECASE),
        "writes wait until the index is there: CREATE INDEX CONCURRENTLY, in `op.get_context().autocommit_block()`",
    ),
    Danger(
        re.compile(rf"ALTER TABLE {_TABLE}.*ADD (?:CONSTRAINT \w+ )?(?:CHECK|FOREIGN)(?!.*NOT VALID)", re.IGNORECASE),
        "all rows are checked under a lock: ADD … NOT VALID, then VALIDATE CONSTRAINT in another transaction",
    ),
    Danger(
        re.compile(rf"ALTER TABLE {_TABLE}.*(?:SET NOT NULL|ALTER (?:COLUMN )?\w+ (?:SET DATA )?TYPE)", re.IGNORECASE),
        "all rows are read or written under a lock: add a column, or a CHECK that is NOT VALID",
    ),
    Danger(
        re.compile(rf"ALTER TABLE {_TABLE}.*ADD (?:COLUMN )?(?:IF NOT EXISTS )?\w+[^,]*"
                   r"(?:DEFAULT (?:clock_timestamp|gen_random_uuid|random|nextval)|GENERATED)", re.IGNORECASE),
        "a default that differs from row to row writes the whole table anew: add it empty, fill it in batches",
    ),
    Danger(
        re.compile(rf"(?:UPDATE|DELETE FROM) (?:ONLY )?{_TABLE}(?!.*\bLIMIT\b)", re.IGNORECASE),
        "one statement for all rows locks them all until it has ended: go through them in batches (LIMIT)",
    ),
    Danger(
        re.compile(rf"INSERT INTO \w+ .*SELECT .*FROM {_TABLE}(?!.*\bLIMIT\b)", re.IGNORECASE),
        "a table is read from end to end in one statement: go through it in batches (LIMIT)",
    ),
)  # fmt: skip
# What grows with what is said and done. Users, and what is summed up by the day, are few.
LARGE = {
    "messages", "turns", "conversations", "events", "jobs", "notifications", "webhook_deliveries", "webhook_attempts",
    "recall_passages", "context_summaries", "attachments", "attachment_pages", "audio", "audio_pieces",
    "audit_entries", "exports", "imports", "imported_conversations",
    "search_segments", "search_documents", "search_terms", "search_pieces", "search_fresh",
}  # fmt: skip


def dangers(statement: Statement) -> list[str]:
    """What is wrong with a statement; a function's body is not looked into: it runs when it is called."""
    text = re.sub(r"\$(\w*)\$.*?\$\1\$", "", re.sub(r"--.*", "", statement.text), flags=re.DOTALL)
    text = re.sub(r"'[^']*'", "''", re.sub(r"\s+", " ", text)).strip()
    if re.match(r"(?:CREATE|DROP|ALTER)(?: OR REPLACE)? (?:FUNCTION|TRIGGER|POLICY)\b", text, re.IGNORECASE):
        return []
    return [
        f"{statement.revision}: {danger.advice}\n    {text[:300]}"
        for danger in DANGERS
        if (found := danger.found.search(text)) and found[1] in LARGE & statement.tables
    ]


TABLES = "SELECT array_agg(relname::text) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"


def statements(url: str) -> Iterator[Statement]:
    """What the online migrations do, on a database that is taken up step by step."""
    seen: list[str] = []

    def note(_connection: Any, _cursor: Any, text: str, *_: Any) -> None:
        seen.append(text)

    every = revisions()
    upgrade(url, every[every.index(FIRST_ONLINE) - 1])
    event.listen(Engine, "before_cursor_execute", note)
    try:
        for revision in every[every.index(FIRST_ONLINE) :]:
            tables = frozenset(asyncio.run(ask(url, TABLES)))
            seen.clear()
            upgrade(url, revision)
            for text in seen:
                yield Statement(revision, tables, text)
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def test_no_migration_holds_a_large_table_up(empty_database: str) -> None:
    seen = list(statements(empty_database))
    assert {statement.revision for statement in seen} == {one for one in revisions() if one >= FIRST_ONLINE}
    assert [danger for statement in seen for danger in dangers(statement)] == []


@pytest.mark.parametrize(
    "text",
    [
        "CREATE INDEX idx_x ON messages (role)",
        "CREATE UNIQUE INDEX IF NOT EXISTS idx_x ON public.messages (role)",
        "ALTER TABLE messages ADD CONSTRAINT ck_x CHECK (depth > 0)",
        "ALTER TABLE messages ALTER COLUMN role SET NOT NULL",
        "ALTER TABLE messages ALTER COLUMN depth TYPE bigint",
        "ALTER TABLE messages ADD COLUMN x uuid NOT NULL DEFAULT gen_random_uuid()",
        "UPDATE messages\n    SET depth = 0",
        "DELETE FROM messages WHERE depth = 0",
        "INSERT INTO search_fresh (id)\nSELECT id FROM messages",
    ],
)
def test_the_lint_finds_what_holds_a_table_up(text: str) -> None:
    assert dangers(Statement("9999", frozenset({"messages"}), text))
    assert not dangers(Statement("9999", frozenset(), text)), "a table of its own is nobody else's yet"


@pytest.mark.parametrize(
    "text",
    [
        "CREATE INDEX CONCURRENTLY idx_x ON messages (role)",
        "ALTER TABLE messages ADD CONSTRAINT ck_x CHECK (depth > 0) NOT VALID",
        "ALTER TABLE messages ADD COLUMN tags text[] NOT NULL DEFAULT '{}'",
        "UPDATE messages SET depth = 0 WHERE id IN (SELECT id FROM messages WHERE depth IS NULL LIMIT 1000)",
        "CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $$ BEGIN UPDATE messages SET depth = 0; END $$",
        "CREATE TABLE x (id uuid REFERENCES messages)",
    ],
)
def test_the_lint_lets_what_is_safe_pass(text: str) -> None:
    assert not dangers(Statement("9999", frozenset({"messages"}), text))


class Blocked(NamedTuple):
    """How a migration fared that somebody was in the way of, and the longest that a writer waited meanwhile."""

    error: Exception | None
    longest: float


UNLOCKED, LOCKING = "0018", "0019"  # a migration that needs a table which others use, and the one before


@pytest.fixture
def in_use(services: Any) -> Iterator[str]:
    with database_on(services["DATABASE_URL"]) as url:
        upgrade(url, UNLOCKED)
        yield url


async def migrated_beside(url: str, *, released_after: float) -> Blocked:
    """Migrate while somebody has read the tables and stays in their transaction, and somebody else writes."""
    reader = await connect(url)
    writer = await connect(url)
    longest = 0.0
    try:
        transaction = reader.transaction()
        await transaction.start()
        for table in ("messages", "conversations", "turns", "processes", "users"):
            await reader.fetchval(f"SELECT count(*) FROM {table}")
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(upgrade, url, LOCKING)
            began = time.monotonic()
            released = False
            while not running.done():
                asked = time.monotonic()
                await writer.execute("INSERT INTO users (id, name) VALUES ($1, 'u')", new_id())
                await writer.execute(
                    "INSERT INTO processes (id, kind, host, pid, pool_size) VALUES ($1, 'api', 'h', 1, 1)",
                    new_id(),
                )
                longest = max(longest, time.monotonic() - asked)
                if not released and time.monotonic() - began > released_after:
                    await transaction.rollback()
                    released = True
                await asyncio.sleep(0.01)
            if not released:
                await transaction.rollback()
            error = running.exception()
        assert error is None or isinstance(error, Exception)
        return Blocked(error, longest)
    finally:
        await reader.close()
        await writer.close()


def test_a_migration_that_finds_a_table_in_use_lets_the_others_pass_and_tries_again(
    in_use: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "LOCK_PATIENCE", 0.3)
    monkeypatch.setattr(migrate, "TRY_AGAIN", 0.2)
    blocked = asyncio.run(migrated_beside(in_use, released_after=1.5))
    assert blocked.error is None
    assert blocked.longest < 1.4, "a writer waited for as long as the reader stayed"
    assert asyncio.run(ask(in_use, "SELECT version_num FROM alembic_version")) == LOCKING


def test_a_migration_that_never_gets_its_lock_says_so_and_changes_nothing(
    in_use: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "LOCK_PATIENCE", 0.2)
    monkeypatch.setattr(migrate, "TRY_AGAIN", 0.05)
    monkeypatch.setattr(migrate, "TRIES", 3)
    blocked = asyncio.run(migrated_beside(in_use, released_after=60))
    assert isinstance(blocked.error, MigrationError)
    assert "lock timeout" in str(blocked.error)
    assert asyncio.run(ask(in_use, "SELECT version_num FROM alembic_version")) == UNLOCKED
