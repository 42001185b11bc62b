"""The database that a one-off command works on."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg
from alembic.script import ScriptDirectory

from baatcheet.platform.database import connect
from baatcheet.platform.embedded import attach
from baatcheet.platform.migrate import MigrationError, configuration, newest_revision, upgrade
from baatcheet.platform.settings import Settings


@contextmanager
def database_url(settings: Settings, *, direct: bool = False) -> Iterator[str]:
    """DATABASE_URL, else the embedded PostgreSQL: the one that a running `serve` has, or started meanwhile.

    `direct`: past PgBouncer, where DATABASE_DIRECT_URL says how. Raises EmbeddedError.
    """
    given = (settings.database.direct_url if direct else None) or settings.database.url
    if given is not None:
        yield given.get_secret_value()
        return
    with attach(settings.embedded) as addresses:
        assert addresses.database_url is not None
        yield addresses.database_url


def ensure_schema(settings: Settings, url: str) -> None:
    """See to it that the schema is one that this version can work on. Not for use inside an event loop.

    The embedded database is brought up to date, as `serve` does; any other is its administrator's to migrate.
    Raises MigrationError, DatabaseUnavailable.
    """
    if settings.database.url is None:
        upgrade(url)
    elif problem := asyncio.run(_problem_at(url)):
        raise MigrationError(f"{problem}. Run `baatcheet db upgrade` (`baatcheet serve` does it by itself).")


async def _problem_at(url: str) -> str | None:
    connection = await connect(url)
    try:
        return schema_problem(await schema_revision(connection))
    finally:
        await connection.close()


async def schema_revision(connection: asyncpg.Connection) -> str | None:
    """The revision that the database is at; None when it is empty."""
    try:
        revision: str | None = await connection.fetchval("SELECT version_num FROM alembic_version")
    except asyncpg.UndefinedTableError:
        return None
    return revision


def schema_problem(revision: str | None) -> str | None:
    """Why this version can't work on a schema at `revision`; None when it can, as on that of a newer version."""
    needed = newest_revision()
    if revision is None:
        return "the database is empty"
    older = {one.revision for one in ScriptDirectory.from_config(configuration()).walk_revisions()} - {needed}
    if revision in older:
        return f"the schema is at {revision}, and this version needs {needed}"
    return None
