"""How many of PostgreSQL's connections one process may take."""

from dataclasses import dataclass

from baatcheet.platform.database import (
    DEFAULT_POOL_MAX,
    DatabaseUnavailable,
    connect,
    connect_arguments,
    parse_url,
)
from baatcheet.platform.logging import get_logger
from baatcheet.platform.settings import DatabaseSettings, SettingsError

log = get_logger(__name__)

SPARE = 5  # connections left for migrations, one-off commands and an administrator's psql
LEAST = 2  # one for the turns, one for everything else

_LIMITS = """
SELECT current_setting('max_connections')::int, current_setting('superuser_reserved_connections')::int,
       coalesce(current_setting('reserved_connections', true)::int, 0)
"""


@dataclass(frozen=True)
class ServerLimits:
    """What a PostgreSQL server allows, in connections."""

    most: int
    for_superusers: int
    reserved: int = 0  # since PostgreSQL 16

    @property
    def usable(self) -> int:
        return self.most - self.for_superusers - self.reserved - SPARE

    def sum(self) -> str:
        """The arithmetic, for people."""
        return (
            f"max_connections {self.most} - superuser_reserved_connections {self.for_superusers} "
            f"- reserved_connections {self.reserved} - {SPARE} spare = {self.usable}"
        )


def pool_share(settings: DatabaseSettings, limits: ServerLimits | None, processes: int) -> int:
    """One process's connections: an equal part of the deployment's, and two at least.

    Without a setting, the deployment has 100, or what the server allows (`limits`, where they are known).
    Raises SettingsError, the sum written out, when the setting or the least of all processes is beyond it.
    """
    total = settings.pool_max or DEFAULT_POOL_MAX
    if limits is not None:
        if settings.pool_max is not None and settings.pool_max > limits.usable:
            raise SettingsError(
                f"BAATCHEET_POOL_MAX: {settings.pool_max} connections are more than the server allows: "
                f"{limits.sum()}. Set it to {limits.usable} or less, or raise the server's max_connections."
            )
        if processes * LEAST > limits.usable:
            raise SettingsError(
                f"BAATCHEET_PROCESSES: {processes} processes need {processes} x {LEAST} connections at least, "
                f"more than the server allows: {limits.sum()}."
            )
        if limits.usable < total:
            log.warning("pool.smaller", wanted=total, allowed=limits.usable, sum=limits.sum())
            total = limits.usable
    return max(LEAST, total // processes)


async def pool_size(settings: DatabaseSettings, processes: int) -> int:
    """The connections of this one of `processes`. Raises SettingsError.

    A database that is down doesn't keep a process from starting: whoever needs it will say so.
    """
    try:
        limits = await server_limits(settings)
    except DatabaseUnavailable as error:
        log.warning("database.unavailable_at_start", error=error)
        limits = None
    return pool_share(settings, limits, processes)


async def server_limits(settings: DatabaseSettings) -> ServerLimits | None:
    """What the server at DATABASE_URL allows; None behind PgBouncer, which has limits of its own.

    Raises DatabaseUnavailable.
    """
    assert settings.url is not None
    url = settings.url.get_secret_value()
    _, query = parse_url(url)
    if "statement_cache_size" in connect_arguments(query):
        return None
    connection = await connect(url, timeout=settings.connect_timeout)
    try:
        return ServerLimits(*await connection.fetchrow(_LIMITS))
    finally:
        await connection.close()
