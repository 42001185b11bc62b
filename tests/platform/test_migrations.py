"""The schema is what the models say, and can be taken back."""

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, inspect, pool
from sqlalchemy.ext.asyncio import create_async_engine

from baatcheet.kit.ids import new_id
from baatcheet.migrations.tables import metadata
from baatcheet.platform.database import connect, connect_arguments, parse_url
from baatcheet.platform.migrate import MigrationError, current_revision, downgrade, newest_revision, upgrade


def drift(connection: Connection) -> list[object]:
    context = MigrationContext.configure(
        connection,
        opts={"compare_type": True, "compare_server_default": True, "target_metadata": metadata},
    )
    return list(compare_metadata(context, metadata))


def tables(connection: Connection) -> set[str]:
    return set(inspect(connection).get_table_names())


async def look(url: str) -> tuple[str | None, list[object], set[str]]:
    address, query = parse_url(url)
    engine = create_async_engine(address, poolclass=pool.NullPool, connect_args=connect_arguments(query))
    try:
        async with engine.connect() as connection:
            return (
                await current_revision(connection),
                await connection.run_sync(drift),
                await connection.run_sync(tables),
            )
    finally:
        await engine.dispose()


async def rows_of(url: str, query: str) -> list[asyncpg.Record]:
    connection = await connect(url)
    try:
        return list(await connection.fetch(query))
    finally:
        await connection.close()


def test_the_schema_is_what_the_models_say(empty_database: str) -> None:
    upgrade(empty_database)
    revision, differences, _ = asyncio.run(look(empty_database))
    assert revision == newest_revision()
    assert differences == []


def test_migrations_go_down_and_up_again(empty_database: str) -> None:
    upgrade(empty_database)
    downgrade(empty_database, "base")
    revision, _, left = asyncio.run(look(empty_database))
    assert revision is None
    assert left <= {"alembic_version"}
    upgrade(empty_database)
    revision, differences, _ = asyncio.run(look(empty_database))
    assert (revision, differences) == (newest_revision(), [])


def test_no_table_of_a_new_database_is_known_to_be_empty(empty_database: str) -> None:
    """The planner would take it for one that stays empty, and plans that are kept would read it from end to end."""
    upgrade(empty_database)
    tables = "relkind = 'r' AND relnamespace = 'public'::regnamespace"
    empty = f"SELECT relname FROM pg_class WHERE {tables} AND reltuples = 0"
    assert asyncio.run(rows_of(empty_database, empty)) == []


def test_a_second_upgrade_changes_nothing(empty_database: str) -> None:
    upgrade(empty_database)
    upgrade(empty_database)
    assert asyncio.run(look(empty_database))[1] == []


def test_a_database_that_is_not_there_is_said_so() -> None:
    with pytest.raises(MigrationError, match="could not be migrated"):
        upgrade("postgresql://nobody@127.0.0.1:1/nothing")


MESSAGE = """
INSERT INTO messages (id, conversation_id, user_id, parent_id, role, content, created_at)
VALUES ($1, $2, $3, $4, 'user', 'x', $5)
"""
MANY = """
INSERT INTO messages (id, conversation_id, user_id, parent_id, role, content)
SELECT m.id, $1, $2, m.parent, 'user', 'x'
FROM unnest($3::uuid[], $4::uuid[]) WITH ORDINALITY AS m(id, parent, at) ORDER BY m.at
"""


@dataclass
class Tree:
    """A conversation's messages as they are written, and where each should stand: its branch and its depth."""

    connection: asyncpg.Connection
    user: UUID
    id: UUID = field(default_factory=new_id)
    places: dict[UUID, tuple[UUID, int]] = field(default_factory=dict)
    minute: int = 0

    async def open(self) -> None:
        await self.connection.execute(
            "INSERT INTO users (id, name) VALUES ($1, 'u') ON CONFLICT DO NOTHING", self.user
        )
        await self.connection.execute(
            "INSERT INTO conversations (id, user_id) VALUES ($1, $2)", self.id, self.user
        )

    async def say(self, parent: UUID | None, *, branches: bool = False, count: int = 1) -> list[UUID]:
        """`count` messages, each after the one before; the first begins a branch if `branches`."""
        said: list[UUID] = []
        for _ in range(count):
            at = self.place(parent, branches=branches)
            when = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=self.minute)
            self.minute += 1
            await self.connection.execute(MESSAGE, at, self.id, self.user, parent, when)
            parent, branches = at, False
            said.append(at)
        return said

    def place(self, parent: UUID | None, *, branches: bool = False) -> UUID:
        at = new_id()
        if parent is None:
            self.places[at] = at, 0
        else:
            branch, depth = self.places[parent]
            self.places[at] = at if branches else branch, depth + 1
        return at

    async def stored(self) -> dict[UUID, tuple[UUID, int]]:
        rows = await self.connection.fetch(
            "SELECT id, branch_id, depth FROM messages WHERE conversation_id = $1", self.id
        )
        return {row[0]: (row[1], row[2]) for row in rows}


async def grown(tree: Tree) -> list[UUID]:
    """Two branches from the third message on, a third one in the second of these, and another beginning."""
    await tree.open()
    trunk = await tree.say(None, count=5)
    other = await tree.say(trunk[2], branches=True, count=3)
    await tree.say(other[0], branches=True, count=2)
    await tree.say(trunk[4], count=2)  # the first branch goes on after the second has begun
    await tree.say(None, count=2)
    return trunk


def test_messages_of_before_get_their_branches_and_depths(empty_database: str) -> None:
    async def written() -> tuple[Tree, Tree]:
        connection = await connect(empty_database)
        try:
            user = new_id()
            one, other = Tree(connection, user), Tree(connection, user)
            await grown(one)
            await other.open()
            await other.say(None, count=3)
        finally:
            await connection.close()
        return one, other

    async def read(*trees: Tree) -> None:
        connection = await connect(empty_database)
        try:
            for tree in trees:
                tree.connection = connection
                assert await tree.stored() == tree.places
            first = next(iter(trees[0].places))
            await trees[0].say(first, branches=True, count=2)  # what is written from now on, too
            assert await trees[0].stored() == trees[0].places
        finally:
            await connection.close()

    upgrade(empty_database, "0003")
    trees = asyncio.run(written())
    upgrade(empty_database)
    asyncio.run(read(*trees))
    downgrade(empty_database, "0003")
    upgrade(empty_database)
    asyncio.run(read_again(empty_database, trees[0]))


async def read_again(url: str, tree: Tree) -> None:
    """The way down and up finds the same places."""
    tree.connection = await connect(url)
    try:
        assert await tree.stored() == tree.places
    finally:
        await tree.connection.close()


def test_a_message_is_given_its_branch_and_its_depth_when_it_is_written(empty_database: str) -> None:
    async def write() -> None:
        connection = await connect(empty_database)
        try:
            tree = Tree(connection, new_id())
            trunk = await grown(tree)
            assert await tree.stored() == tree.places
            # Several in one statement: each sees those before it.
            head = max(tree.places, key=lambda one: (tree.places[one][0] == trunk[0], tree.places[one][1]))
            chain = [tree.place(head)]
            chain.append(tree.place(chain[0]))
            chain.append(tree.place(chain[1]))
            chain += [tree.place(chain[0], branches=True), tree.place(trunk[1], branches=True)]
            parents = [head, chain[0], chain[1], chain[0], trunk[1]]
            await connection.execute(MANY, tree.id, tree.user, chain, parents)
            assert await tree.stored() == tree.places
            # A parent of another conversation is none.
            stray = Tree(connection, tree.user)
            await stray.open()
            at = stray.place(None)
            await connection.execute(MANY, stray.id, stray.user, [at], [head])
            assert await stray.stored() == stray.places
        finally:
            await connection.close()

    upgrade(empty_database)
    asyncio.run(write())


def test_what_a_downgrade_puts_back_is_nobodys_to_call(empty_database: str) -> None:
    upgrade(empty_database)
    downgrade(empty_database, "0003")

    async def callable_by_anyone() -> list[str]:
        connection = await connect(empty_database)
        try:
            rows = await connection.fetch(
                "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace "
                "AND proname IN ('open_turns', 'recent_messages') "
                "AND has_function_privilege('baatcheet_tenant', oid, 'EXECUTE')"
            )
        finally:
            await connection.close()
        return [row["proname"] for row in rows]

    assert asyncio.run(callable_by_anyone()) == []
