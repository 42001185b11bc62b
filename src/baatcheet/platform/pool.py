"""How many of PostgreSQL's connections one process may take."""

from dataclasses import dataclass, replace
from typing import Any

import asyncpg

from baatcheet.platform.database import (
    DEFAULT_POOL_MAX,
    DatabaseUnavailable,
    PoolShare,
    UnusableDatabaseUrl,
    connect,
    connect_arguments,
    parse_url,
    session_settings,
    whole_number,
)
from baatcheet.platform.logging import get_logger
from baatcheet.platform.pgbouncer import BouncerLimits, bouncer_limits
from baatcheet.platform.settings import DatabaseSettings, SettingsError

log = get_logger(__name__)

WARM = 10  # connections that the deployment keeps open when nobody needs them
SPARE = 5  # connections left for migrations, one-off commands and an administrator's psql
LEAST = 2  # one for the turns, one for everything else
BESIDE = 4  # of a process outside its pool: what renews its leases, and what hears notices (LISTEN)
LEASE = 15.0  # seconds after which a process that has not been seen is not counted

_LIMITS = """
SELECT current_setting('max_connections')::int, current_setting('superuser_reserved_connections')::int,
       coalesce(current_setting('reserved_connections', true)::int, 0),
       (SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user),
       (SELECT datconnlimit FROM pg_database WHERE datname = current_database())
"""
_RUNNING = "SELECT count(*) FROM processes WHERE seen_at > now() - make_interval(secs => $1)"


@dataclass(frozen=True)
class ServerLimits:
    """What a PostgreSQL server allows, in connections; and the PgBouncer before it, where that may be asked."""

    most: int
    for_superusers: int
    reserved: int = 0  # since PostgreSQL 16
    of_role: int = -1  # -1: no limit
    of_database: int = -1
    bouncer: BouncerLimits | None = None
    running: int = 0  # processes of the deployment that are registered and alive

    @property
    def for_us(self) -> int:
        """Connections of the server itself, before our own spare ones."""
        limits = [self.most - self.for_superusers - self.reserved, self.of_role, self.of_database]
        return min(one for one in limits if one >= 0)

    @property
    def usable(self) -> int:
        if self.bouncer is not None:
            return self.bouncer.clients - SPARE
        return self.for_us - SPARE

    def sum(self) -> str:
        """The arithmetic, for people."""
        if self.bouncer is not None:
            return f"PgBouncer's max_client_conn {self.bouncer.clients} - {SPARE} spare = {self.usable}"
        return f"{self.server_sum()} - {SPARE} spare = {self.usable}"

    def server_sum(self) -> str:
        """What PostgreSQL has for us."""
        whole = self.most - self.for_superusers - self.reserved
        if self.for_us == whole:
            return (
                f"max_connections {self.most} - superuser_reserved_connections {self.for_superusers} "
                f"- reserved_connections {self.reserved}"
            )
        if self.for_us == self.of_role:
            return f"the role's CONNECTION LIMIT {self.of_role}"
        return f"the database's CONNECTION LIMIT {self.of_database}"

    def bouncer_problem(self) -> str | None:
        """What is wrong with PgBouncer's own numbers, the sum written out; None when nothing is."""
        bouncer = self.bouncer
        if bouncer is None or bouncer.servers <= self.for_us:
            return None
        return (
            f"PgBouncer may open pool_size {bouncer.pool_size} + reserve {bouncer.reserve} = {bouncer.servers} "
            f"connections, more than PostgreSQL has: {self.server_sum()} = {self.for_us}"
        )


@dataclass(frozen=True)
class Plan:
    """The deployment's connections, to be divided among its processes."""

    total: int
    processes: int  # at least: those of this machine's settings
    running: int = 0  # of the deployment, when it was made
    each: int | None = None  # `connection_limit` of the address: of every process, however many there are

    def share(self, running: int = 0) -> PoolShare:
        """One process's part when so many are running on all machines: an equal one, and two connections at least."""
        count = max(self.processes, running, 1)
        most = self.each or max(LEAST, self.total // count)
        return PoolShare(most, min(most, max(1, WARM // count)))

    @property
    def first(self) -> PoolShare:
        """The part to start with, of one that is not registered yet."""
        return self.share(self.running + 1)


def divide(settings: DatabaseSettings, limits: ServerLimits | None, processes: int) -> Plan:
    """How the deployment's connections are divided, where `processes` of it run on this machine.

    Without a setting, the deployment has 100, or what the server allows (`limits`, where they are known). Raises
    SettingsError, the sum written out, when the setting or the least of all processes is beyond it.
    """
    total = settings.pool_max or DEFAULT_POOL_MAX
    each = _each(settings)
    if limits is None:
        return Plan(total, processes, each=each)
    if limits.bouncer is not None and limits.bouncer.mode == "statement":
        raise SettingsError(
            "DATABASE_URL: this PgBouncer has pool_mode = statement, in which there are no transactions. "
            "Set pool_mode = transaction for this database."
        )
    beside = processes * BESIDE
    allowed = limits.usable - beside
    told = f"{limits.sum()}, of which {processes} x {BESIDE} are needed beside the pools: {allowed} are left"
    if each is not None and processes * each > allowed:
        raise SettingsError(
            f"DATABASE_URL: connection_limit={each} of {processes} processes makes {processes * each} connections, "
            f"more than the server allows: {told}. Set it to {max(1, allowed // processes)} or less, or leave it out."
        )
    if each is None and settings.pool_max is not None and settings.pool_max > allowed:
        raise SettingsError(
            f"BAATCHEET_POOL_MAX: {settings.pool_max} connections are more than the server allows: {told}. "
            f"Set it to {allowed} or less, or raise {_raisable(limits)}."
        )
    if processes * LEAST > allowed:
        raise SettingsError(
            f"BAATCHEET_PROCESSES: {processes} processes need {processes} x {LEAST} connections at least, "
            f"more than the server allows: {told}."
        )
    if each is None and allowed < total:
        log.warning("pool.smaller", wanted=total, allowed=allowed, sum=told)
        total = allowed
    if problem := limits.bouncer_problem():
        log.warning("pool.pgbouncer_too_large", sum=problem)
    return Plan(total, processes, limits.running, each)


def _each(settings: DatabaseSettings) -> int | None:
    assert settings.url is not None
    return whole_number(parse_url(settings.url.get_secret_value())[1], "connection_limit")


def _raisable(limits: ServerLimits) -> str:
    if limits.bouncer is not None:
        return "PgBouncer's max_client_conn"
    return "the server's max_connections" if limits.server_sum().startswith("max") else "that limit"


async def plan_pool(settings: DatabaseSettings, processes: int) -> Plan:
    """How the connections are divided. Raises SettingsError.

    A database that is down doesn't keep a process from starting: whoever needs it will say so.
    """
    try:
        limits = await server_limits(settings)
    except DatabaseUnavailable as error:
        log.warning("database.unavailable_at_start", error=error)
        limits = None
    except UnusableDatabaseUrl as error:
        raise SettingsError(f"DATABASE_URL: {error}.") from error
    return divide(settings, limits, processes)


async def server_limits(settings: DatabaseSettings) -> ServerLimits | None:
    """What the server at DATABASE_URL allows; None behind a PgBouncer that does not tell its own limits.

    Raises DatabaseUnavailable, UnusableDatabaseUrl.
    """
    assert settings.url is not None
    url = settings.url.get_secret_value()
    pooled = "statement_cache_size" in connect_arguments(parse_url(url)[1])
    # As every connection of the pool is made, so that what refuses those refuses this one.
    told = None if pooled else session_settings(settings, "baatcheet start")
    connection = await connect(url, timeout=settings.connect_timeout, server_settings=told)
    try:
        limits = await _asked(connection)
    finally:
        await connection.close()
    if not pooled:
        return limits
    bouncer = await bouncer_limits(url)
    if bouncer is None:
        log.info("pool.pgbouncer_not_asked", reason="the user is not among PgBouncer's stats_users")
        return None
    return replace(limits, bouncer=bouncer)


async def _asked(connection: Any) -> ServerLimits:
    async with connection.transaction():  # behind a pooler, a statement and its answer come from one server
        limits = ServerLimits(*await connection.fetchrow(_LIMITS))
    try:
        async with connection.transaction():
            running = await connection.fetchval(_RUNNING, LEASE)
    except asyncpg.UndefinedTableError:
        return limits
    return replace(limits, running=running)
