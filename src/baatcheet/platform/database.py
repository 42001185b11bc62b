"""PostgreSQL: one engine per process, and the unit of work.

A request's work happens inside `tenant(user_id)`: one short transaction that runs under the role
`baatcheet_tenant`, for which row-level security shows only that user's rows, even to a query that forgets
its filter. `system()` is for work that is nobody's (maintenance, users, tokens). `hot()` lends the raw
asyncpg connection for the few hand-written statements of a chat turn, which take the tenant as an argument.
No unit of work is ever open while something outside the database is waited for.

A unit of work has one deadline, for the connection and all its statements together. When that passes, the socket
is cut: a server that has stopped answering (a paused machine, a lost network) would not answer a polite goodbye
or a request to cancel either, and whoever waits for one hangs with it.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from uuid import UUID
from weakref import WeakSet

import asyncpg
from sqlalchemy import URL, event, make_url, text
from sqlalchemy.exc import ArgumentError, InvalidatePoolError, NoSuchModuleError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.pool import QueuePool

from baatcheet.kit.ids import new_id
from baatcheet.platform.errors import Problem, Unavailable
from baatcheet.platform.settings import DatabaseSettings

TENANT_ROLE = "baatcheet_tenant"
DEFAULT_POOL_MAX = 100
CONNECT_RETRIES = 3
RETRY_PAUSE = 1.0  # seconds
CLOSE_PATIENCE = 2.0  # seconds that the server is given to see its connections closed in good order

# SQLSTATE classes and codes (PostgreSQL, appendix A) that say "not now" of the server, not "wrong" of the statement.
_UNAVAILABLE_STATES = (
    "08",  # connection exceptions
    "25006",  # read-only transaction: a standby, or a server being failed over
    "28",  # the role was refused
    "3D000",  # no such database
    "53",  # out of connections, memory or disk
    "55P03",  # a lock was not to be had in time
    "57014",  # the statement ran out of its time
    "57P",  # shutting down, starting up
    "58",  # the server's own system errors
)


class Base(DeclarativeBase):
    """Every table's base: constraint and index names are fixed, so that migrations can name them."""


Base.metadata.naming_convention = {
    "ix": "idx_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


class DatabaseUnavailable(Unavailable):
    """The database is not available now."""

    type = "database-unavailable"
    openai_code = "database_unavailable"


class UnusableDatabaseUrl(ValueError):
    """DATABASE_URL can't be used."""


def parse_url(url: str) -> tuple[URL, dict[str, str]]:
    """An address as people write it (`postgres://`, `postgresql://`, Prisma's form) for asyncpg.

    Returns the address without its query, and the query's `host`, `sslmode`, `connection_limit`,
    `pool_timeout`, `pgbouncer` … for `Database` to honour. Raises UnusableDatabaseUrl.
    """
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
    except (ArgumentError, NoSuchModuleError, ValueError) as error:
        raise UnusableDatabaseUrl(
            "is not a database address; an example: postgresql://user:password@host:5432/name"
        ) from error
    if backend not in {"postgres", "postgresql"}:
        raise UnusableDatabaseUrl(
            f"names {backend!r}; BaatCheet needs PostgreSQL: postgresql://user:password@host:5432/name"
        )
    query = {name: value if isinstance(value, str) else value[-1] for name, value in parsed.query.items()}
    return parsed.set(drivername="postgresql+asyncpg", query={}), query


def connect_arguments(query: dict[str, str]) -> dict[str, Any]:
    """What the address's query means to asyncpg's `connect`."""
    arguments: dict[str, Any] = {}
    if "host" in query:
        arguments["host"] = query["host"]
    if "sslmode" in query:
        arguments["ssl"] = query["sslmode"]
    if query.get("pgbouncer", "").lower() == "true":
        arguments["statement_cache_size"] = 0
    return arguments


async def connect(database_url: str, *, timeout: float = 10.0) -> asyncpg.Connection:  # noqa: ASYNC109 - asyncpg's
    """One connection outside any pool, for the caller to close. Raises DatabaseUnavailable."""
    address, query = parse_url(database_url)
    arguments = {"host": address.host, "statement_cache_size": 0} | connect_arguments(query)
    try:
        return await asyncpg.connect(
            port=address.port,
            user=address.username,
            password=address.password,
            database=address.database,
            timeout=timeout,
            **arguments,
        )
    except Exception as error:
        if is_unavailable(error):
            raise DatabaseUnavailable(_WORDS) from error
        raise


def _number(query: Mapping[str, str], name: str, otherwise: float) -> float:
    text = query.get(name)
    if text is None:
        return otherwise
    if not text.isdigit() or int(text) == 0:
        raise UnusableDatabaseUrl(f"has {name}={text}, which is not a number above 0; an example: {name}=10")
    return float(text)


class PoolUse(NamedTuple):
    """Connections of one process: how many it may have, how many are lent out, how many callers wait."""

    size: int
    in_use: int
    waiting: int


class Database:
    """The process's engine and pool. `pool_size` is this process's own share of connections."""

    def __init__(self, settings: DatabaseSettings, *, pool_size: int, name: str = "baatcheet") -> None:
        if settings.url is None:
            raise UnusableDatabaseUrl("DATABASE_URL is not set")
        address, query = parse_url(settings.url.get_secret_value())
        self._timeout = settings.checkout_timeout
        self.pool_size = int(_number(query, "connection_limit", pool_size))
        self._waiting = 0
        arguments = connect_arguments(query) | {
            "timeout": settings.connect_timeout,
            # The server enforces its own limit; this one is for a server that has stopped answering.
            "command_timeout": settings.statement_timeout + 1,
        }
        self.pooled_by_transaction = "statement_cache_size" in arguments
        if self.pooled_by_transaction:
            # Such a pooler takes no session settings, and its servers are shared: names must be nobody else's.
            address = address.update_query_dict({"prepared_statement_cache_size": "0"})
            arguments["prepared_statement_name_func"] = lambda: f"baatcheet_{new_id().hex}"
        else:
            arguments["server_settings"] = {
                "application_name": name,
                "statement_timeout": str(int(settings.statement_timeout * 1000)),
                "idle_in_transaction_session_timeout": "60000",
                "jit": "off",
            }
        self.engine: AsyncEngine = create_async_engine(
            address,
            pool_size=self.pool_size,
            max_overflow=0,
            pool_timeout=_number(query, "pool_timeout", settings.checkout_timeout),
            pool_use_lifo=True,
            connect_args=arguments,
            hide_parameters=True,
        )
        self._open: WeakSet[Any] = WeakSet()
        event.listen(self.engine.sync_engine, "connect", self._remember)
        event.listen(self.engine.sync_engine, "checkout", _refuse_closed)

    def _remember(self, connection: Any, _record: object) -> None:
        self._open.add(connection.driver_connection)

    def pool_use(self) -> PoolUse:
        pool = self.engine.pool
        assert isinstance(pool, QueuePool)
        return PoolUse(self.pool_size, pool.checkedout(), self._waiting)

    @asynccontextmanager
    async def tenant(self, user_id: UUID, *, limit: float | None = None) -> AsyncIterator[AsyncSession]:
        """One transaction as `user_id`: commits at the end, rolls back on an exception.

        All of it together may take `limit` seconds, `checkout_timeout` when None. Raises DatabaseUnavailable
        when the database can't be reached in time or has not done the work by then.
        """
        async with self.system(limit=limit) as session:
            await session.execute(
                text("SELECT set_config('role', :role, true), set_config('baatcheet.user_id', :user, true)"),
                {"role": TENANT_ROLE, "user": str(user_id)},
            )
            yield session

    @asynccontextmanager
    async def system(self, *, limit: float | None = None) -> AsyncIterator[AsyncSession]:
        """One transaction that sees every row. Otherwise as `tenant`."""
        async with (
            self._connection(limit) as (connection, _),
            AsyncSession(connection, expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session

    @asynccontextmanager
    async def hot(self, *, limit: float | None = None) -> AsyncIterator[Any]:
        """The raw asyncpg connection. Each statement commits by itself; behind a transaction pooler, all at the end.

        A pooler may give every statement another server unless a transaction holds them together.
        `limit` as in `tenant`.
        """
        async with self._connection(limit) as (_, raw):
            if self.pooled_by_transaction:
                async with raw.transaction():
                    yield raw
            else:
                yield raw

    @asynccontextmanager
    async def _connection(self, limit: float | None) -> AsyncIterator[tuple[AsyncConnection, Any]]:
        loop = asyncio.get_running_loop()
        seconds = self._timeout if limit is None else limit
        deadline = loop.time() + seconds
        connection, raw = await self.take(loop.time() + min(seconds, self._timeout))
        # Not a cancellation: the body would answer that with a rollback, which waits for the server again.
        timer = loop.call_at(deadline, raw.terminate)
        try:
            yield connection, raw
        except Exception as error:
            if _is_away(error, raw):
                raise DatabaseUnavailable(_WORDS) from error
            raise
        finally:
            try:
                await give_back(connection, raw)
            finally:
                timer.cancel()

    async def take(self, deadline: float) -> tuple[AsyncConnection, Any]:
        """A connection until `give_back`, and its raw asyncpg one. `deadline` is in the loop's time.

        Raises DatabaseUnavailable.
        """
        self._waiting += 1
        try:
            connection = await self._connect(deadline)
        finally:
            self._waiting -= 1
        assert connection.sync_connection is not None
        return connection, connection.sync_connection.connection.driver_connection

    async def _connect(self, deadline: float) -> AsyncConnection:
        loop = asyncio.get_running_loop()
        for attempt in range(CONNECT_RETRIES + 1):
            try:
                async with asyncio.timeout_at(deadline):
                    return await self.engine.connect()
            except PoolTimeoutError as error:
                raise DatabaseUnavailable(
                    "Every database connection is in use. Try again in a moment."
                ) from error
            except Exception as error:
                if not is_unavailable(error):
                    raise
                if attempt == CONNECT_RETRIES or loop.time() + RETRY_PAUSE >= deadline:
                    raise DatabaseUnavailable(_WORDS) from error
            await asyncio.sleep(RETRY_PAUSE)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def lane(self) -> "Lane":
        """A connection for statements that come one after another. Behind a transaction pooler each takes its own."""
        return Lane(self, self._timeout)

    async def close(self, *, patience: float = CLOSE_PATIENCE) -> None:
        """Close every connection, those in use too. After `patience` seconds, without waiting for the server."""
        timer = asyncio.get_running_loop().call_later(patience, self._terminate)
        try:
            await self.engine.dispose()
        finally:
            timer.cancel()
            self._terminate()

    def _terminate(self) -> None:
        for raw in list(self._open):
            raw.terminate()


class Lane:
    """A connection that one kind of hand-written statement keeps to itself, for as long as it is good.

    Taking one from the pool costs more than such a statement. It counts towards the pool, and is not for two
    callers at once.
    """

    def __init__(self, db: Database, timeout: float) -> None:
        self._db = db
        self._timeout = timeout
        self._held: tuple[AsyncConnection, Any] | None = None

    async def fetch(self, statement: str, *arguments: Any) -> list[Any]:
        """The rows of one statement, which commits by itself. Raises DatabaseUnavailable."""
        if (
            self._db.pooled_by_transaction
        ):  # what is kept there is a transaction, and nothing would be committed
            async with self._db.hot() as connection:
                rows: list[Any] = await connection.fetch(statement, *arguments)
            return rows
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        try:
            if self._held is None or self._held[1].is_closed():
                await self.close()
                self._held = await self._db.take(deadline)
            raw = self._held[1]
            timer = loop.call_at(deadline, raw.terminate)
            try:
                rows = await raw.fetch(statement, *arguments)
            finally:
                timer.cancel()
        except BaseException as error:
            away = self._held is not None and _is_away(error, self._held[1])
            if self._held is not None:
                self._held[1].terminate()
            await self.close()
            if away:
                raise DatabaseUnavailable(_WORDS) from error
            raise
        return rows

    async def close(self) -> None:
        """Give the connection back."""
        held, self._held = self._held, None
        if held is not None:
            await give_back(*held)


async def give_back(connection: AsyncConnection, raw: Any) -> None:
    """Return what `Database.take` gave. One whose socket is closed is replaced, and the server not asked."""
    try:
        if raw.is_closed():
            await connection.invalidate()
        await connection.close()
    except BaseException:
        raw.terminate()
        raise


_WORDS = "The database can't be reached. Nothing was lost; try again in a moment."


def is_unavailable(error: BaseException | None) -> bool:
    """Whether `error` says that the server can't be reached or can't serve, rather than that a statement is wrong."""
    while error is not None:
        if isinstance(error, OSError | TimeoutError | asyncpg.PostgresConnectionError):
            return True
        if isinstance(error, asyncpg.InterfaceError) and "closed" in str(error):
            return True
        state = getattr(error, "sqlstate", None)
        if isinstance(state, str) and state.startswith(_UNAVAILABLE_STATES):
            return True
        error = getattr(error, "orig", None) or error.__cause__
    return False


def _is_away(error: BaseException, raw: Any) -> bool:
    """Whether `error` came of a server that is away, or of `raw` being closed: asyncpg fails on that in many ways."""
    if not isinstance(error, Exception):
        return False
    return is_unavailable(error) or (raw.is_closed() and not isinstance(error, Problem))


def _refuse_closed(connection: Any, _record: object, _proxy: object) -> None:
    """Asyncpg knows at once when its server hung up: such a connection is replaced before anyone uses it."""
    if connection.driver_connection.is_closed():
        raise InvalidatePoolError
