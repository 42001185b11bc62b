"""The schema is what the models say, and can be taken back."""

import asyncio

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, inspect, pool
from sqlalchemy.ext.asyncio import create_async_engine

import baatcheet.auth.models
import baatcheet.chat.models
import baatcheet.context.models
import baatcheet.conversations.models
import baatcheet.projects.models  # noqa: F401 - importing a module declares its tables
from baatcheet.platform.database import Base, connect_arguments, parse_url
from baatcheet.platform.migrate import MigrationError, current_revision, downgrade, newest_revision, upgrade


def drift(connection: Connection) -> list[object]:
    context = MigrationContext.configure(
        connection,
        opts={"compare_type": True, "compare_server_default": True, "target_metadata": Base.metadata},
    )
    return list(compare_metadata(context, Base.metadata))


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


def test_a_second_upgrade_changes_nothing(empty_database: str) -> None:
    upgrade(empty_database)
    upgrade(empty_database)
    assert asyncio.run(look(empty_database))[1] == []


def test_a_database_that_is_not_there_is_said_so() -> None:
    with pytest.raises(MigrationError, match="could not be migrated"):
        upgrade("postgresql://nobody@127.0.0.1:1/nothing")
