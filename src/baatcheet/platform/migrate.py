"""Bringing a database's schema up to this version's (Alembic), one process at a time."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection, event, pool
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from baatcheet.platform.database import parse_url, sqlalchemy_arguments

SCRIPTS = Path(__file__).parents[1] / "migrations"
TRIES = 10
TRY_AGAIN = 1.0  # seconds
ASK_AGAIN = 0.2  # seconds between two looks whether another process has done migrating
LOCK_PATIENCE = 5.0  # seconds that a migration waits for a lock: whoever comes after it waits behind it
_IN_THE_WAY = ("55P03", "40P01")  # a lock was not to be had in time; a deadlock
_LOCK = 0x6261_6174  # an advisory lock of our own: "baat"


class MigrationError(Exception):
    """The schema could not be brought up to date."""


def configuration(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS))
    config.attributes["connection"] = connection
    return config


def newest_revision() -> str:
    """The revision that this version of the code needs."""
    head = ScriptDirectory.from_config(configuration()).get_current_head()
    assert head is not None
    return head


async def current_revision(connection: AsyncConnection) -> str | None:
    """The revision that the database is at; None when it is empty."""
    return await connection.run_sync(lambda sync: MigrationContext.configure(sync).get_current_revision())


def upgrade(database_url: str, revision: str = "head") -> None:
    """Migrate the database at `database_url`; a second caller waits for the first. Not for use inside an event loop.

    Raises MigrationError with what to do.
    """
    _run(database_url, lambda config: command.upgrade(config, revision))


def downgrade(database_url: str, revision: str) -> None:
    """Take the schema back to `revision`; `base` removes everything. Raises MigrationError."""
    _run(database_url, lambda config: command.downgrade(config, revision))


def _run(database_url: str, action: Any) -> None:
    try:
        for _ in range(TRIES - 1):
            try:
                return asyncio.run(_with_lock(database_url, action))
            except DBAPIError as error:
                if getattr(error.orig, "sqlstate", None) not in _IN_THE_WAY:
                    raise
            time.sleep(TRY_AGAIN)
        return asyncio.run(_with_lock(database_url, action))
    except (SQLAlchemyError, asyncpg.PostgresError, OSError, CommandError) as error:
        cause = getattr(error, "orig", None) or error
        raise MigrationError(f"the database could not be migrated: {cause}") from error


async def _with_lock(database_url: str, action: Any) -> None:
    address, query = parse_url(database_url)
    arguments = sqlalchemy_arguments(query)
    engine = create_async_engine(address, poolclass=pool.NullPool, connect_args=arguments)
    event.listen(engine.sync_engine, "begin", _be_brief)
    alone = _alone_by_transaction if "statement_cache_size" in arguments else _alone_by_session
    try:
        async with engine.connect() as connection, alone(engine, connection):
            await connection.run_sync(lambda sync: action(configuration(sync)))
            await connection.commit()
    finally:
        await engine.dispose()


# Neither waits for the lock in a statement: that holds a snapshot, for whose end CREATE INDEX CONCURRENTLY waits.


@asynccontextmanager
async def _alone_by_session(_engine: AsyncEngine, connection: AsyncConnection) -> AsyncIterator[None]:
    while not (await connection.exec_driver_sql(f"SELECT pg_try_advisory_lock({_LOCK})")).scalar_one():
        await connection.commit()
        await asyncio.sleep(ASK_AGAIN)
    await connection.commit()
    try:
        yield
    finally:
        await connection.rollback()
        await connection.exec_driver_sql(f"SELECT pg_advisory_unlock({_LOCK})")
        await connection.commit()


@asynccontextmanager
async def _alone_by_transaction(engine: AsyncEngine, _connection: AsyncConnection) -> AsyncIterator[None]:
    """Behind a transaction pooler, a session's lock would stay with a session that others use."""
    async with engine.connect() as holder:
        while not (await holder.exec_driver_sql(f"SELECT pg_try_advisory_xact_lock({_LOCK})")).scalar_one():
            await holder.rollback()
            await asyncio.sleep(ASK_AGAIN)
        # Its portal holds a snapshot until the next statement, or until one of the simple protocol has no portal left.
        raw: Any = (await holder.get_raw_connection()).driver_connection
        await raw.execute("SELECT 1")
        try:
            yield
        finally:
            await holder.rollback()


def _be_brief(connection: Connection) -> None:
    """No transaction waits long for a lock. What is made CONCURRENTLY is in none: it may wait, and holds nobody up."""
    if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{int(LOCK_PATIENCE * 1000)}ms'")
