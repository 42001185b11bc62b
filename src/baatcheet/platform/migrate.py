"""Bringing a database's schema up to this version's (Alembic), one process at a time."""

import asyncio
import time
from pathlib import Path
from typing import Any

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection, pool
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from baatcheet.platform.database import connect_arguments, parse_url

SCRIPTS = Path(__file__).parents[1] / "migrations"
TRIES = 10
TRY_AGAIN = 1.0  # seconds
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
    engine = create_async_engine(address, poolclass=pool.NullPool, connect_args=connect_arguments(query))
    try:
        async with engine.connect() as connection:
            await connection.exec_driver_sql(f"SELECT pg_advisory_lock({_LOCK})")
            await connection.commit()
            try:
                await connection.run_sync(lambda sync: action(configuration(sync)))
                await connection.commit()
            finally:
                await connection.rollback()
                await connection.exec_driver_sql(f"SELECT pg_advisory_unlock({_LOCK})")
                await connection.commit()
    finally:
        await engine.dispose()
