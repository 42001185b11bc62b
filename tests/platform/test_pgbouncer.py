"""PgBouncer in transaction mode, before Debian's PostgreSQL 15: real ones."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from baatcheet.kit.ids import new_id
from baatcheet.platform.database import Database, connect
from baatcheet.platform.embedded import EmbeddedServices
from baatcheet.platform.migrate import upgrade
from baatcheet.platform.pgbouncer import BouncerLimits, bouncer_limits
from baatcheet.platform.pool import plan_pool, server_limits
from baatcheet.platform.settings import DatabaseSettings, EmbeddedSettings, SettingsError
from tests.servers import DEBIAN, PGBOUNCER, Bouncer, pgbouncer

pytestmark = pytest.mark.skipif(
    not (DEBIAN.exists() and PGBOUNCER.exists()), reason="needs Debian's postgresql-15 and pgbouncer"
)


@dataclass
class Deployed:
    """A PostgreSQL 15 with the newest schema, and a PgBouncer before it."""

    server: str
    bouncer: Bouncer
    url: str


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    settings = EmbeddedSettings(data_dir=tmp_path_factory.mktemp("debian"), postgres_bin=DEBIAN)
    services = EmbeddedServices(settings, postgres=True, valkey=False, durable=False)
    try:
        server = services.start().database_url
        assert server is not None
        folder = tmp_path_factory.mktemp("bouncer")
        with pgbouncer(
            server, folder, default_pool_size=4, max_client_conn=60, reserve_pool_size=1
        ) as bouncer:
            url = bouncer.url(server)
            upgrade(url)  # without a way past it
            yield Deployed(server, bouncer, url)
    finally:
        services.stop()


def settings(url: str, **more: Any) -> DatabaseSettings:
    return DatabaseSettings(url=SecretStr(url), **more)


async def test_its_own_limits_are_asked_of_its_console(deployed: Deployed) -> None:
    assert await bouncer_limits(deployed.url) == BouncerLimits(60, 4, 1, "transaction")
    limits = await server_limits(settings(deployed.url))
    assert limits is not None
    assert limits.sum() == "PgBouncer's max_client_conn 60 - 5 spare = 55"
    assert limits.most == 120


async def test_the_default_shrinks_to_what_it_takes_and_a_setting_beyond_is_refused(
    deployed: Deployed,
) -> None:
    assert (await plan_pool(settings(deployed.url), 2)).share().most == (55 - 8) // 2
    with pytest.raises(SettingsError, match=r"max_client_conn 60 - 5 spare = 55.*Set it to 47 or less"):
        await plan_pool(settings(deployed.url, pool_max=48), 2)


async def test_where_its_console_may_not_be_asked_nothing_is_assumed(
    deployed: Deployed, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("silent")
    with pgbouncer(deployed.server, folder, stats_users="somebody", max_client_conn=30) as silent:
        url = silent.url(deployed.server)
        assert await bouncer_limits(url) is None
        assert (await plan_pool(settings(url), 2)).share().most == 50


async def test_an_address_that_does_not_say_that_it_leads_there_is_refused_with_what_to_write(
    deployed: Deployed,
) -> None:
    with pytest.raises(SettingsError, match=r"DATABASE_URL: leads to PgBouncer.*pgbouncer=true"):
        await plan_pool(settings(deployed.url.replace("?pgbouncer=true", "")), 1)


async def test_two_who_migrate_through_it_take_turns(deployed: Deployed) -> None:
    connection = await connect(deployed.server)
    await connection.execute("CREATE DATABASE twice")
    await connection.close()
    url = deployed.url.replace("/baatcheet?", "/twice?")
    await asyncio.gather(asyncio.to_thread(upgrade, url), asyncio.to_thread(upgrade, url))
    migrated = await connect(url)
    assert await migrated.fetchval("SELECT count(*) FROM alembic_version") == 1
    await migrated.close()


async def test_users_who_share_its_sessions_never_see_each_others_rows(deployed: Deployed) -> None:
    db = Database(settings(deployed.url), pool_size=20)
    try:
        people = [new_id() for _ in range(8)]
        async with db.system() as session:
            for person in people:
                await session.execute(
                    text("INSERT INTO users (id, name, role) VALUES (:id, 'somebody', 'user')"),
                    {"id": person},
                )

        async def look(number: int) -> None:
            me = people[number % len(people)]
            async with db.tenant(me) as session:
                assert list(await session.scalars(text("SELECT id FROM users"))) == [me]
            async with db.hot() as connection:
                assert await connection.fetchval("SELECT current_setting('baatcheet.user_id', true)") in {
                    None,
                    "",
                }
                assert await connection.fetchval("SELECT current_user") == "baatcheet"

        async with asyncio.timeout(20):
            await asyncio.gather(*(look(number) for number in range(300)))
    finally:
        await db.close()


async def test_no_statement_is_left_behind_on_its_sessions(deployed: Deployed) -> None:
    db = Database(settings(deployed.url), pool_size=20)

    async def work() -> None:
        for _ in range(5):
            async with db.tenant(new_id()) as session:
                await session.execute(text("SELECT id FROM users WHERE name = :name"), {"name": "nobody"})

    async def left_behind() -> tuple[int, int]:
        async with db.system() as session:
            asked = "SELECT pg_backend_pid(), (SELECT count(*) FROM pg_prepared_statements), pg_sleep(0.2)"
            server, count, _ = (await session.execute(text(asked))).one()
        return server, count

    try:
        async with asyncio.timeout(30):
            await asyncio.gather(*(work() for _ in range(20)))
            # The pause makes each look a different session of the four.
            found = dict(await asyncio.gather(*(left_behind() for _ in range(4))))
        assert set(found.values()) == {0}
    finally:
        await db.close()


async def test_a_lane_through_it_commits_each_statement(deployed: Deployed) -> None:
    db = Database(settings(deployed.url), pool_size=2)
    try:
        lane, id_ = db.lane(), new_id()
        await lane.fetch("INSERT INTO users (id, name, role) VALUES ($1, 'lane', 'user')", id_)
        direct = await connect(deployed.server)
        assert await direct.fetchval("SELECT count(*) FROM users WHERE id = $1", id_) == 1
        await direct.close()
        await lane.close()
    finally:
        await db.close()


def test_the_doctor_tells_of_it_and_of_limits_that_the_role_has_not(
    deployed: Deployed, tmp_path: Path
) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BAATCHEET_")}
    done = subprocess.run(
        [str(Path(sys.executable).with_name("baatcheet")), "doctor", "--json"],
        env={**kept, "DATABASE_URL": deployed.url, "REDIS_URL": "redis://127.0.0.1:1", "OLLAMA_HOST": ""},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    findings = {one["part"]: one for one in json.loads(done.stdout)["findings"]}
    assert "PgBouncer's max_client_conn 60" in findings["pool"]["what"]
    assert "it opens 5 to PostgreSQL at most" in findings["pool"]["what"]
    assert findings["pgbouncer"]["level"] == "WARN"
    assert "DATABASE_DIRECT_URL" in findings["pgbouncer"]["remedy"]
    assert "ALTER ROLE baatcheet SET statement_timeout = '30s'" in findings["timeouts"]["remedy"]
