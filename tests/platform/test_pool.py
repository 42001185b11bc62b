"""The connections of a deployment, divided among its processes."""

from collections.abc import Mapping

import pytest

from baatcheet.platform.database import DatabaseUnavailable
from baatcheet.platform.pool import ServerLimits, pool_share, server_limits
from baatcheet.platform.settings import DatabaseSettings, SettingsError, load

PLENTY = ServerLimits(most=500, for_superusers=3)
USUAL = ServerLimits(most=100, for_superusers=3, reserved=0)  # PostgreSQL's own default


def settings(pool_max: int | None = None, url: str = "postgresql://u@h/d") -> DatabaseSettings:
    environ = {"DATABASE_URL": url} | ({} if pool_max is None else {"BAATCHEET_POOL_MAX": str(pool_max)})
    return load(environ, dotenv=None).database


@pytest.mark.parametrize(
    ("pool_max", "limits", "processes", "share"),
    [
        (None, PLENTY, 1, 100),
        (None, PLENTY, 4, 25),
        (None, USUAL, 1, 92),
        (None, USUAL, 3, 30),
        (None, None, 2, 50),
        (4, USUAL, 1, 4),
        (4, USUAL, 4, 2),
        (92, USUAL, 2, 46),
    ],
)
def test_each_process_gets_an_equal_part_and_two_at_least(
    pool_max: int | None, limits: ServerLimits | None, processes: int, share: int
) -> None:
    assert pool_share(settings(pool_max), limits, processes) == share


def test_a_setting_beyond_what_the_server_allows_is_refused_with_the_sum() -> None:
    with pytest.raises(SettingsError) as refused:
        pool_share(settings(93), USUAL, 1)
    told = str(refused.value)
    assert told.startswith("BAATCHEET_POOL_MAX: 93 ")
    assert "100 - superuser_reserved_connections 3 - reserved_connections 0 - 5 spare = 92" in told


def test_more_processes_than_connections_are_refused() -> None:
    with pytest.raises(SettingsError, match="BAATCHEET_PROCESSES: 50 processes"):
        pool_share(settings(), USUAL, 50)


async def test_the_server_is_asked_what_it_allows(services: Mapping[str, str]) -> None:
    limits = await server_limits(settings(url=services["DATABASE_URL"]))
    assert limits is not None
    assert 0 < limits.usable < limits.most


async def test_behind_pgbouncer_the_servers_limits_are_not_ours_to_read(services: Mapping[str, str]) -> None:
    address = services["DATABASE_URL"]
    joined = address + ("&" if "?" in address else "?") + "pgbouncer=true"
    assert await server_limits(settings(url=joined)) is None


async def test_a_server_that_is_down_is_said_to_be_unavailable() -> None:
    with pytest.raises(DatabaseUnavailable):
        await server_limits(settings(url="postgresql://u@127.0.0.1:1/d"))
