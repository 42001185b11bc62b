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
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from uuid import UUID
from weakref import WeakSet

import asyncpg
from sqlalchemy import URL, event, make_url, text
from sqlalchemy.exc import ArgumentError, DisconnectionError, InvalidatePoolError, NoSuchModuleError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.util import greenlet_spawn

from baatcheet.platform import patience
from baatcheet.platform.errors import Problem, Unavailable
from baatcheet.platform.idle import IdleConnections
from baatcheet.platform.logging import get_logger
from baatcheet.platform.queueing import Places
from baatcheet.platform.settings import DatabaseSettings
from baatcheet.platform.statements import Watch, WatchedConnection

log = get_logger(__name__)

TENANT_ROLE = "baatcheet_tenant"
DEFAULT_POOL_MAX = 100
CONNECT_RETRIES = 3
RETRY_PAUSE = 1.0  # seconds
CLOSE_PATIENCE = 2.0  # seconds that the server is given to see its connections closed in good order
KEEP_EVERY = 5.0  # seconds between two looks at the connections that are not lent out
IDLE = 60.0  # seconds after which a connection that nobody needed is closed, down to the warm ones
IDLE_IN_TRANSACTION = 60.0  # seconds after which the server ends a transaction that nothing is said in

# A peer that is gone without a word (a machine that lost its power, a route) is found out after a minute.
KEEP_ALIVE_IDLE = 30  # seconds of silence
KEEP_ALIVE_INTERVAL = 10  # seconds between two questions …
KEEP_ALIVE_COUNT = 3  # … as many of which may stay without an answer

DOUBT_EVERY = 2.0  # seconds between two replacements of connections whose server refuses to write
READ_ONLY = "25006"  # read-only transaction: a standby, or a server being failed over

# SQLSTATE classes and codes (PostgreSQL, appendix A) that say "not now" of the server, not "wrong" of the statement.
_UNAVAILABLE_STATES = (
    "08",  # connection exceptions
    READ_ONLY,
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


def connect_arguments(query: Mapping[str, str]) -> dict[str, Any]:
    """What the address's query means to asyncpg's `connect`. Raises UnusableDatabaseUrl."""
    if (schema := query.get("schema", "public")) != "public":
        raise UnusableDatabaseUrl(
            f"has schema={schema}, and BaatCheet's tables are in the schema public of a database of their own; "
            "leave it out"
        )
    arguments: dict[str, Any] = {}
    if "host" in query:
        arguments["host"] = query["host"]
    if "sslmode" in query:
        arguments["ssl"] = query["sslmode"]
    if query.get("pgbouncer", "").lower() == "true":
        arguments["statement_cache_size"] = 0
    return arguments


def sqlalchemy_arguments(query: Mapping[str, str]) -> dict[str, Any]:
    """As `connect_arguments`, for SQLAlchemy's `connect_args`. Raises UnusableDatabaseUrl."""
    arguments = connect_arguments(query)
    if "statement_cache_size" in arguments:
        # A pooler's servers are shared: a statement with a name would be closed on another than keeps it, and pile up
        # there. The one without a name is replaced by the next.
        arguments["prepared_statement_cache_size"] = 0
        arguments["prepared_statement_name_func"] = str
    return arguments


def session_settings(settings: DatabaseSettings, name: str) -> dict[str, str]:
    """What the server is told of each connection of a pool. A pooler that is not told of refuses these."""
    return {
        "application_name": name,
        "statement_timeout": str(int(settings.statement_timeout * 1000)),
        "idle_in_transaction_session_timeout": str(int(IDLE_IN_TRANSACTION * 1000)),
        "tcp_keepalives_idle": str(KEEP_ALIVE_IDLE),
        "tcp_keepalives_interval": str(KEEP_ALIVE_INTERVAL),
        "tcp_keepalives_count": str(KEEP_ALIVE_COUNT),
        "jit": "off",
    }


async def connect(
    database_url: str,
    *,
    timeout: float = 10.0,  # noqa: ASYNC109 - asyncpg's
    database: str | None = None,
    server_settings: Mapping[str, str] | None = None,
) -> asyncpg.Connection:
    """One connection outside any pool, for the caller to close; to another `database` of the server's, where named.

    Raises DatabaseUnavailable, UnusableDatabaseUrl.
    """
    address, query = parse_url(database_url)
    arguments = {"host": address.host, "statement_cache_size": 0} | connect_arguments(query)
    try:
        connection = await asyncpg.connect(
            port=address.port,
            user=address.username,
            password=address.password,
            database=database or address.database,
            timeout=timeout,
            server_settings=None if server_settings is None else dict(server_settings),
            **arguments,
        )
    except Exception as error:
        if is_unstated_pooler(error):
            raise UnusableDatabaseUrl(
                "leads to PgBouncer, and does not say so: add pgbouncer=true to its query, "
                "as in postgresql://user:password@pgbouncer:6432/name?pgbouncer=true"
            ) from error
        if is_unavailable(error):
            raise DatabaseUnavailable(_WORDS) from error
        raise
    keep_alive(connection)
    return connection


def keep_alive(connection: Any) -> None:
    """Have the kernel ask, on a connection that is silent, whether its server is still there."""
    found = connection._transport.get_extra_info("socket")  # noqa: SLF001 - asyncpg has no name for it
    if found is None or found.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", KEEP_ALIVE_IDLE),
        ("TCP_KEEPINTVL", KEEP_ALIVE_INTERVAL),
        ("TCP_KEEPCNT", KEEP_ALIVE_COUNT),
    ):
        if hasattr(socket, option):  # macOS has another name for the first
            found.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def whole_number(query: Mapping[str, str], name: str) -> int | None:
    """A number above 0 of the address's query; None where there is none. Raises UnusableDatabaseUrl."""
    written = query.get(name)
    if written is None:
        return None
    if not (written.isascii() and written.isdigit()) or not 0 < len(written) < 10 or int(written) == 0:
        raise UnusableDatabaseUrl(
            f"has {name}={written}, which is not a number above 0; an example: {name}=10"
        )
    return int(written)


def _seconds(query: Mapping[str, str], name: str, otherwise: float) -> float:
    """Prisma's 0 means no limit: ours stays."""
    if query.get(name) == "0":
        return otherwise
    return float(whole_number(query, name) or otherwise)


class PoolUse(NamedTuple):
    """Connections of one process, and since its start: callers who got none in time, statements that were slow."""

    size: int  # how many it may have
    in_use: int
    waiting: int  # callers who wait for one
    idle: int = 0  # open, and not lent out
    refused: int = 0
    slow_statements: int = 0


class PoolShare(NamedTuple):
    """One process's part of the deployment's connections: at most, and kept open when nobody needs them."""

    most: int
    warm: int


class Database:
    """The process's engine and pool. `pool_size` is this process's own share of connections, `warm` of them stay open.

    `divide` says what the share is when so many processes of the deployment are running.
    """

    def __init__(
        self,
        settings: DatabaseSettings,
        *,
        pool_size: int,
        name: str = "baatcheet",
        warm: int = 0,
        divide: Callable[[int], PoolShare] | None = None,
    ) -> None:
        if settings.url is None:
            raise UnusableDatabaseUrl("DATABASE_URL is not set")
        address, query = parse_url(settings.url.get_secret_value())
        self._timeout = settings.checkout_timeout
        self._statement_timeout = settings.statement_timeout
        self._queue_timeout = _seconds(query, "pool_timeout", settings.checkout_timeout)
        self._divide = divide
        self._warm = warm
        self._watch = Watch(settings.slow_statement)
        self._places = Places(whole_number(query, "connection_limit") or pool_size)
        self._connecting = 0
        self._refused = 0
        arguments = sqlalchemy_arguments(query) | {
            "timeout": min(
                settings.connect_timeout, _seconds(query, "connect_timeout", settings.connect_timeout)
            ),
            # The server enforces its own limit; this one is for a server that has stopped answering.
            "command_timeout": settings.statement_timeout + 1,
            "connection_class": WatchedConnection,
        }
        self.pooled_by_transaction = "statement_cache_size" in arguments
        name = query.get("application_name", name)
        if self.pooled_by_transaction:
            arguments["server_settings"] = {"application_name": name}  # a pooler takes no other
        else:
            arguments["server_settings"] = session_settings(settings, name)
        self.engine: AsyncEngine = create_async_engine(
            address, poolclass=IdleConnections, connect_args=arguments, hide_parameters=True
        )
        self._idle.most = self.pool_size
        self._open: WeakSet[Any] = WeakSet()
        self._doubtful: WeakSet[Any] = WeakSet()
        self._doubted_at = float("-inf")
        self._lanes: WeakSet[Lane] = WeakSet()
        event.listen(self.engine.sync_engine, "connect", self._remember)
        event.listen(self.engine.sync_engine, "checkout", self._refuse_useless)
        self._watch.listen(self.engine.sync_engine)

    @property
    def pool_size(self) -> int:
        """How many connections this process may have now."""
        return self._places.size

    @property
    def _idle(self) -> IdleConnections:
        pool = self.engine.pool
        assert isinstance(pool, IdleConnections)
        return pool

    def _remember(self, connection: Any, _record: object) -> None:
        raw = connection.driver_connection
        raw.watch = self._watch
        keep_alive(raw)
        self._open.add(raw)

    def _refuse_useless(self, connection: Any, _record: object, _proxy: object) -> None:
        """Asyncpg knows at once when its server hung up: such a connection is replaced before anyone uses it."""
        raw = connection.driver_connection
        if raw.is_closed():
            raise InvalidatePoolError
        if not self.useful(raw):
            raw.terminate()
            raise DisconnectionError

    @property
    def timeout(self) -> float:
        """Seconds that a request waits for the database, in all."""
        return self._timeout

    def pool_use(self) -> PoolUse:
        return PoolUse(
            size=self.pool_size,
            in_use=self._places.taken,
            waiting=self._places.waiting,
            idle=self._idle.count,
            refused=self._refused,
            slow_statements=self._watch.slow_seen,
        )

    def share_among(self, processes: int) -> None:
        """Take this process's part of the deployment's connections, of which `processes` are running now.

        Nothing that is lent out is taken back; what is above the part goes when it is returned.
        """
        if self._divide is None:
            return
        share = self._divide(processes)
        if share.most != self.pool_size:
            log.info("pool.share", processes=processes, before=self.pool_size, now=share.most)
        self._warm = share.warm
        self._idle.most = share.most
        self._places.resize(share.most)

    async def keep(self) -> None:
        """Keep the warm connections open, and close what nobody has needed for a minute. Until cancelled."""
        while True:
            try:
                await self._look_after()
            except Exception as error:  # noqa: BLE001 - one bad round must not end the keeping
                if not is_unavailable(error):
                    log.error("pool.round_failed", error=error)
            await asyncio.sleep(KEEP_EVERY)

    async def _look_after(self) -> None:
        for lane in list(self._lanes):
            await lane.drop_useless()
        for record in self._idle.surplus(self._warm, IDLE):
            # Not by the record, whose goodbye has no limit.
            if (raw := record.driver_connection) is not None:
                with contextlib.suppress(Exception):
                    await raw.close(timeout=CLOSE_PATIENCE)
        for _ in range(self._warm):
            if self._places.taken + self._idle.count >= min(self._warm, self.pool_size):
                break
            await self._open_one()

    async def _open_one(self) -> None:
        """Open one more, to be there when it is needed. Meanwhile it has a place, which must be free."""
        await self._places.take(asyncio.get_running_loop().time())
        self._connecting += 1
        try:
            await greenlet_spawn(self._idle.open_one)
        finally:
            self._connecting -= 1
            self._places.leave()

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

    async def allow(self, session: AsyncSession, seconds: float) -> None:
        """Let each statement of this transaction run for `seconds`, instead of the usual statement timeout.

        The transaction's own `limit` holds all the same.
        """
        await session.execute(
            text("SELECT set_config('statement_timeout', :limit, true)"), {"limit": str(int(seconds * 1000))}
        )
        pooled = await (await session.connection()).get_raw_connection()
        assert isinstance(pooled.driver_connection, WatchedConnection)
        pooled.driver_connection.allow(seconds + 1)

    @asynccontextmanager
    async def _connection(self, limit: float | None) -> AsyncIterator[tuple[AsyncConnection, Any]]:
        loop = asyncio.get_running_loop()
        usual = patience.left(self._timeout)
        seconds = usual if limit is None else limit if limit > self._timeout else min(limit, usual)
        if usual <= 0:
            raise DatabaseUnavailable(_WORDS)
        deadline = loop.time() + seconds
        with patience.counted():
            connection, raw = await self.take(loop.time() + min(seconds, usual))
            # Not a cancellation: the body would answer that with a rollback, which waits for the server again.
            timer = loop.call_at(deadline, raw.terminate)
            try:
                yield connection, raw
            except Exception as error:
                self.doubt(error)
                if _is_away(error, raw):
                    raise DatabaseUnavailable(_WORDS) from error
                raise
            finally:
                try:
                    await self.give_back(connection, raw)
                finally:
                    timer.cancel()

    def useful(self, raw: Any) -> bool:
        """Whether an open connection that leads where it should is behind `raw`, as far as is known."""
        return not raw.is_closed() and raw not in self._doubtful

    def doubt(self, error: BaseException) -> None:
        """After a refusal to write, have every connection that is open now replaced before it is used again.

        They may lead to a server that is no longer the primary, and would for as long as they live. Where it is the
        only one there is, they are not replaced all the time.
        """
        now = asyncio.get_running_loop().time()
        if now - self._doubted_at > DOUBT_EVERY and _says(error, READ_ONLY):
            self._doubted_at = now
            self._doubtful.update(self._open)

    async def take(self, deadline: float) -> tuple[AsyncConnection, Any]:
        """A connection until `give_back`, and its raw asyncpg one. `deadline` is in the loop's time.

        Who asks first is served first. Raises DatabaseUnavailable.
        """
        while not self._places.free and not self._places.contended:
            held = next((held for lane in list(self._lanes) if (held := lane.surrender()) is not None), None)
            if held is None:
                break
            if self.useful(held[1]):
                return held
            await self.give_back(*held)  # its place is what is wanted
        try:
            await self._places.take(min(deadline, asyncio.get_running_loop().time() + self._queue_timeout))
        except TimeoutError as error:
            self._refused += 1
            if self._connecting >= self._places.taken:  # nobody has one: the server is away
                raise DatabaseUnavailable(_WORDS) from error
            raise DatabaseUnavailable(
                "Every database connection is in use. Try again in a moment."
            ) from error
        try:
            connection = await self._connect(deadline)
        except BaseException:
            self._places.leave()
            raise
        assert connection.sync_connection is not None
        return connection, connection.sync_connection.connection.driver_connection

    async def give_back(self, connection: AsyncConnection, raw: Any) -> None:
        """Return what `take` gave. One whose socket is closed is replaced, and the server not asked."""
        try:
            if not self.useful(raw):
                raw.terminate()
                await connection.invalidate()
            else:
                raw.allow(None)
            await connection.close()
        except BaseException:
            raw.terminate()
            raise
        finally:
            self._places.leave()

    async def _connect(self, deadline: float) -> AsyncConnection:
        loop = asyncio.get_running_loop()
        self._connecting += 1
        try:
            for attempt in range(CONNECT_RETRIES + 1):
                try:
                    async with asyncio.timeout_at(deadline):
                        return await self.engine.connect()
                except Exception as error:
                    if not is_unavailable(error):
                        raise
                    if attempt == CONNECT_RETRIES or loop.time() + RETRY_PAUSE >= deadline:
                        self._refused += 1
                        raise DatabaseUnavailable(_WORDS) from error
                await asyncio.sleep(RETRY_PAUSE)
        finally:
            self._connecting -= 1
        raise AssertionError("unreachable: the last attempt returns or raises")

    @property
    def awaited(self) -> bool:
        """Whether somebody waits for a connection."""
        return self._places.contended

    def lane(self) -> "Lane":
        """A connection for statements that come one after another. Behind a transaction pooler each takes its own."""
        lane = Lane(self, self._timeout)
        self._lanes.add(lane)
        return lane

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

    Taking one from the pool costs more than such a statement. It counts towards the pool, is not for two callers at
    once, and goes to whoever needs it when the pool has no other left.
    """

    def __init__(self, db: Database, timeout: float) -> None:
        self._db = db
        self._timeout = timeout
        self._held: tuple[AsyncConnection, Any] | None = None
        self._busy = False

    def surrender(self) -> tuple[AsyncConnection, Any] | None:
        """The connection that is kept and not needed now; None where there is none.

        It is the caller's, with its place in the pool. It may be one that is no longer useful.
        """
        if self._busy or self._held is None:
            return None
        held, self._held = self._held, None
        return held

    async def drop_useless(self) -> None:
        """Give back what is kept, if it is no longer useful: its place is for those who can use it."""
        if not self._busy and self._held is not None and not self._db.useful(self._held[1]):
            await self.close()

    async def fetch(self, statement: str, *arguments: Any) -> list[Any]:
        """The rows of one statement, which commits by itself. Raises DatabaseUnavailable."""
        if (
            self._db.pooled_by_transaction
        ):  # what is kept there is a transaction, and nothing would be committed
            with patience.of_nobody():
                async with self._db.hot() as connection:
                    rows: list[Any] = await connection.fetch(statement, *arguments)
            return rows
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        self._busy = True
        try:
            if self._held is None or not self._db.useful(self._held[1]):
                await self.close()
                self._held = await self._db.take(deadline)
            raw = self._held[1]
            timer = loop.call_at(deadline, raw.terminate)
            try:
                rows = await raw.fetch(statement, *arguments)
            finally:
                timer.cancel()
            if self._db.awaited:
                await self.close()
        except BaseException as error:
            self._db.doubt(error)
            away = self._held is not None and _is_away(error, self._held[1])
            if self._held is not None:
                self._held[1].terminate()
            await self.close()
            if away:
                raise DatabaseUnavailable(_WORDS) from error
            raise
        finally:
            self._busy = False
        return rows

    async def close(self) -> None:
        """Give the connection back."""
        held, self._held = self._held, None
        if held is not None:
            await self._db.give_back(*held)


_WORDS = "The database can't be reached. Nothing was lost; try again in a moment."


def is_unavailable(error: BaseException | None) -> bool:
    """Whether `error` says that the server can't be reached or can't serve, rather than that a statement is wrong."""
    for cause in _causes(error):
        if isinstance(cause, OSError | TimeoutError | asyncpg.PostgresConnectionError):
            return True
        if isinstance(cause, asyncpg.InterfaceError) and "closed" in str(cause):
            return True
    return _says(error, *_UNAVAILABLE_STATES)


def _says(error: BaseException | None, *states: str) -> bool:
    """Whether the server said one of these SQLSTATEs, or one that begins so."""
    found = (getattr(cause, "sqlstate", None) for cause in _causes(error))
    return any(isinstance(state, str) and state.startswith(states) for state in found)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = getattr(error, "orig", None) or error.__cause__


def is_unstated_pooler(error: BaseException) -> bool:
    """Whether `error` is PgBouncer's refusal of what PostgreSQL takes at connecting."""
    return isinstance(error, asyncpg.ProtocolViolationError) and "unsupported startup parameter" in str(error)


def _is_away(error: BaseException, raw: Any) -> bool:
    """Whether `error` came of a server that is away, or of `raw` being closed: asyncpg fails on that in many ways."""
    if not isinstance(error, Exception):
        return False
    return is_unavailable(error) or (raw.is_closed() and not isinstance(error, Problem))
