"""A whole database's content, from one PostgreSQL to another of any version that BaatCheet runs on.

The tables are made by the migrations, as in a new database, and filled by COPY in its text form, which every version
reads. So nothing of the one server's own (its version, its users, its settings) goes over to the other.

Filling is one transaction: all of it is there in the end, or nothing. Every table is read back and compared, by its
rows and its SHA-256, with what was read at first.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import asyncpg
import msgspec
from alembic.script import ScriptDirectory
from sqlalchemy import make_url

from baatcheet.platform.database import DatabaseUnavailable, connect
from baatcheet.platform.migrate import configuration, newest_revision, upgrade

OLDEST_SERVER = 15
REVISIONS = "alembic_version"  # the table that the migrations keep for themselves
# What the migrations themselves put a row into.
SEEDED = frozenset({"event_horizon", "key_changes", "spending_changes"})
_CHUNKS_AHEAD = 8  # of at most 512 KB or one row each, between two servers

# What decides how values are written; and no limit of time, however large the database is.
_SESSION = """
SET LOCAL datestyle = 'ISO, YMD';
SET LOCAL intervalstyle = 'postgres';
SET LOCAL timezone = 'UTC';
SET LOCAL bytea_output = 'hex';
SET LOCAL extra_float_digits = 1;
SET LOCAL synchronize_seqscans = off;
SET LOCAL row_security = off;
SET LOCAL statement_timeout = 0;
SET LOCAL idle_in_transaction_session_timeout = 0;
"""
_TABLES = """
SELECT c.relname::text AS name,
    array_agg(a.attname::text ORDER BY a.attnum) FILTER (WHERE a.attgenerated = '') AS columns
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r'
GROUP BY c.relname ORDER BY c.relname
"""
_SEQUENCES = """
SELECT sequencename::text AS name, last_value FROM pg_sequences
WHERE schemaname = 'public' AND last_value IS NOT NULL ORDER BY 1
"""
_REFERENCES = """
SELECT conrelid::regclass::text AS on_table, quote_ident(conname) AS name, pg_get_constraintdef(oid) AS meaning
FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND contype = 'f' AND conparentid = 0 ORDER BY 1, 2
"""
_INDEXES = """
SELECT indexrelid::regclass::text AS name, pg_get_indexdef(indexrelid) AS meaning
FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r'
    AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = i.indexrelid)
ORDER BY 1
"""

Result = TypeVar("Result")
Say = Callable[[str], None]


class CopyError(Exception):
    """A database's content can't be copied. `str(error)` says why and what to do."""


class TargetInUse(CopyError):
    """There is data already where the copy should go."""


class TableSum(msgspec.Struct, frozen=True):
    """What one table holds."""

    name: str
    columns: list[str]
    rows: int
    bytes: int  # of COPY's text
    sha256: str  # of that text, in the order of the table


class Content(msgspec.Struct, frozen=True):
    """What is to be known of a database to fill another one with its rows."""

    revision: str
    tables: list[TableSum]
    sequences: dict[str, int]  # name -> the last number given


class Source:
    """A database as it was at one moment. Made by `reading`."""

    def __init__(self, connection: asyncpg.Connection, revision: str) -> None:
        self._connection = connection
        self.revision = revision
        self.tables: dict[str, list[str]] = {}
        self.sequences: dict[str, int] = {}

    async def look(self) -> None:
        """Read what there is."""
        self.tables = await _tables(self._connection)
        self.sequences = {row["name"]: row["last_value"] for row in await self._connection.fetch(_SEQUENCES)}

    async def read(self, table: str, sink: Callable[[bytes], Awaitable[None]]) -> TableSum:
        """Give the table's rows to `sink`, in pieces of any length."""
        return await _read(self._connection, table, self.tables[table], sink)

    async def content(self) -> Content:
        """The sums of every table."""
        sums = [await self.read(table, _drop) for table in self.tables]
        return Content(self.revision, sums, self.sequences)


@asynccontextmanager
async def reading(url: str) -> AsyncIterator[Source]:
    """The database at `url` as it is now, while others go on using it. Raises CopyError."""
    connection = await _connect(url)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            await _prepare(connection)
            revision = await _revision(connection)
            if revision is None:
                raise CopyError(f"the database {shown(url)} is empty: there is nothing to copy.")
            source = Source(connection, revision)
            await source.look()
            yield source
    finally:
        await connection.close()


class Target:
    """An empty database that is being filled. Made by `filling`."""

    def __init__(self, connection: asyncpg.Connection, revision: str, tables: dict[str, list[str]]) -> None:
        self._connection = connection
        self.revision = revision
        self.tables = tables

    def left_out(self, tables: Sequence[str]) -> list[str]:
        """Which of the other database's tables have no place here: somebody's own."""
        return [name for name in tables if name not in self.tables]

    async def write(self, table: str, columns: list[str], rows: AsyncIterator[bytes]) -> None:
        """Fill one table. Raises CopyError when it has other columns."""
        if set(columns) != set(self.tables[table]):
            different = ", ".join(sorted(set(columns) ^ set(self.tables[table])))
            raise CopyError(f"the table {table} differs at the same revision {self.revision}: {different}.")
        await self._connection.copy_to_table(
            table, schema_name="public", columns=columns, source=rows, format="text"
        )

    async def check(self, wanted: TableSum) -> None:
        """Read a table back. Raises CopyError when it isn't as `wanted`."""
        found = await _read(self._connection, wanted.name, wanted.columns, _drop)
        if found != wanted:
            raise CopyError(
                f"the table {wanted.name} is not the same after it was copied: {wanted.rows:,} rows "
                f"(SHA-256 {wanted.sha256[:16]}…) became {found.rows:,} ({found.sha256[:16]}…). Nothing was kept."
            )

    async def count_on(self, sequences: dict[str, int]) -> None:
        """Let the sequences go on after the last number that was given."""
        for name, last in sequences.items():
            await self._connection.execute("SELECT setval($1::text::regclass, $2)", f'public."{name}"', last)


@asynccontextmanager
async def filling(url: str) -> AsyncIterator[Target]:
    """The migrated, empty database at `url`: filled and committed in the end, else as it was.

    Raises TargetInUse when it isn't empty, CopyError.
    """
    connection = await _connect(url)
    try:
        async with connection.transaction():
            await _prepare(connection)
            revision = await _revision(connection)
            if revision is None:
                raise CopyError(f"the database {shown(url)} has no tables.")
            tables = await _tables(connection)
            names = ", ".join(f'public."{name}"' for name in tables)
            # Locked first, so that nobody can put anything in after we have looked.
            await connection.execute(f"LOCK TABLE {names} IN ACCESS EXCLUSIVE MODE")
            if used := await _used(connection, tables):
                raise TargetInUse(
                    f"the database {shown(url)} holds data already (in {', '.join(used)}). Nothing is overwritten: "
                    "name an empty one."
                )
            await connection.execute(f"TRUNCATE {names}")
            references = await connection.fetch(_REFERENCES)
            indexes = await connection.fetch(_INDEXES)
            for table in tables:
                await connection.execute(f'ALTER TABLE public."{table}" DISABLE TRIGGER USER')
            for one in references:
                await connection.execute(f"ALTER TABLE {one['on_table']} DROP CONSTRAINT {one['name']}")
            for one in indexes:
                await connection.execute(f"DROP INDEX {one['name']}")
            yield Target(connection, revision, tables)
            await connection.execute("SET LOCAL maintenance_work_mem = '256MB'")
            for one in indexes:
                await connection.execute(one["meaning"])
            for one in references:
                await connection.execute(
                    f"ALTER TABLE {one['on_table']} ADD CONSTRAINT {one['name']} {one['meaning']}"
                )
            for table in tables:
                await connection.execute(f'ALTER TABLE public."{table}" ENABLE TRIGGER USER')
        for table in tables:
            await connection.execute(f'ANALYZE public."{table}"')
    finally:
        await connection.close()


def copy_database(source_url: str, target_url: str, say: Say) -> Content:
    """Fill the empty database at `target_url` with everything of the one at `source_url`.

    The target gets the source's schema, whatever revision that is at; `upgrade` may follow. `say` hears of each
    table. Not for use inside an event loop. Raises TargetInUse, CopyError, MigrationError.
    """
    prepare_target(target_url, run(_revision_at(source_url)))
    return run(_copy(source_url, target_url, say))


def same_content(source_url: str, target_url: str) -> bool:
    """Whether both hold exactly the same rows. Not for use inside an event loop. Raises CopyError."""
    return run(_same(source_url, target_url))


def prepare_target(url: str, revision: str | None) -> None:
    """Make the tables of `revision` in the database at `url`. Not for use inside an event loop.

    Raises CopyError where the server, the database or the revision is none that we can work with, MigrationError.
    """
    if revision is None:
        raise CopyError("the database is empty: there is nothing to copy.")
    known = {one.revision for one in ScriptDirectory.from_config(configuration()).walk_revisions()}
    if revision not in known:
        raise CopyError(
            f"the data is at the schema's revision {revision}, which this version of BaatCheet does not know (it has "
            f"{newest_revision()}). Take a newer BaatCheet."
        )
    run(_fit(url))
    upgrade(url, revision)


def shown(url: str) -> str:
    """The address without its password, to be shown."""
    address = make_url(url)
    where = {name: value for name, value in address.query.items() if name == "host"}
    return address.set(drivername="postgresql", query=where).render_as_string(hide_password=True)


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """`work` in an event loop of its own; what a server says of it, as a CopyError."""
    try:
        return asyncio.run(work)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        raise CopyError(f"the copy was given up, and nothing of it kept: {error}") from error


async def _copy(source_url: str, target_url: str, say: Say) -> Content:
    async with reading(source_url) as source, filling(target_url) as target:
        if source.revision != target.revision:
            raise CopyError(
                f"the database {shown(target_url)} is at the schema's revision {target.revision}, and the data is at "
                f"{source.revision}. Name a new database."
            )
        if own := target.left_out(list(source.tables)):
            say(f"Left out, since not BaatCheet's: {', '.join(own)}")
        sums = []
        for table in source.tables:
            if table in target.tables:
                sums.append(await _copy_table(source, target, table))
                say_of(sums[-1], say)
        await target.count_on(source.sequences)
        return Content(source.revision, sums, source.sequences)


async def _copy_table(source: Source, target: Target, table: str) -> TableSum:
    chunks: asyncio.Queue[bytes | None] = asyncio.Queue(_CHUNKS_AHEAD)

    async def rows() -> AsyncIterator[bytes]:
        while (chunk := await chunks.get()) is not None:
            yield chunk

    async def read() -> TableSum:
        found = await source.read(table, chunks.put)
        await chunks.put(None)
        return found

    try:
        async with asyncio.TaskGroup() as both:
            reader = both.create_task(read())
            both.create_task(target.write(table, source.tables[table], rows()))
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    await target.check(reader.result())
    return reader.result()


def say_of(table: TableSum, say: Say) -> None:
    """Tell of a table that is there, if it has anything in it."""
    if table.rows:
        say(f"{table.name}: {table.rows:,} rows")


async def _same(source_url: str, target_url: str) -> bool:
    async with reading(source_url) as source, reading(target_url) as target:
        if source.revision != target.revision or source.sequences != target.sequences:
            return False
        if not set(target.tables) <= set(source.tables):
            return False
        for table in target.tables:
            if await source.read(table, _drop) != await target.read(table, _drop):
                return False
        return True


async def _connect(url: str) -> asyncpg.Connection:
    try:
        return await connect(url)
    except DatabaseUnavailable as error:
        raise CopyError(f"the database {shown(url)} can't be used: {error.__cause__ or error}") from error


async def _prepare(connection: asyncpg.Connection) -> None:
    await connection.execute(_SESSION)
    if connection.get_server_version().major >= 17:  # the first with this limit
        await connection.execute("SET LOCAL transaction_timeout = 0")


async def _fit(url: str) -> None:
    connection = await _connect(url)
    try:
        major = connection.get_server_version().major
        if major < OLDEST_SERVER:
            raise CopyError(f"PostgreSQL {OLDEST_SERVER} or newer is needed, and {shown(url)} is {major}.")
        encoding = await connection.fetchval("SHOW server_encoding")
        if encoding != "UTF8":
            raise CopyError(
                f"the database {shown(url)} keeps text as {encoding}, which has not every letter. Make one with "
                "CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0."
            )
    finally:
        await connection.close()


async def _revision_at(url: str) -> str | None:
    connection = await _connect(url)
    try:
        return await _revision(connection)
    finally:
        await connection.close()


async def _revision(connection: asyncpg.Connection) -> str | None:
    if await connection.fetchval("SELECT to_regclass('public.alembic_version')") is None:
        return None
    revision: str | None = await connection.fetchval("SELECT version_num FROM public.alembic_version")
    return revision


async def _tables(connection: asyncpg.Connection) -> dict[str, list[str]]:
    found = await connection.fetch(_TABLES)
    return {row["name"]: row["columns"] for row in found if row["name"] != REVISIONS}


async def _used(connection: asyncpg.Connection, tables: dict[str, list[str]]) -> list[str]:
    looked_at = [table for table in tables if table not in SEEDED]
    return [
        table
        for table in looked_at
        if await connection.fetchval(f'SELECT EXISTS (SELECT FROM public."{table}")')  # noqa: S608 - a name of ours
    ]


async def _read(
    connection: asyncpg.Connection, table: str, columns: list[str], sink: Callable[[bytes], Awaitable[None]]
) -> TableSum:
    digest, size = hashlib.sha256(), 0

    async def take(chunk: bytes) -> None:
        nonlocal size
        digest.update(chunk)
        size += len(chunk)
        await sink(chunk)

    said = await connection.copy_from_table(
        table, schema_name="public", columns=columns, output=take, format="text"
    )
    return TableSum(table, columns, int(said.rpartition(" ")[2]), size, digest.hexdigest())


async def _drop(_chunk: bytes) -> None: ...
