"""Health, told of a real database that is well, behind, ahead, full, hanging or gone."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import asyncpg
import pytest
from pydantic import SecretStr

from baatcheet.platform.cache import Cache
from baatcheet.platform.database import Database
from baatcheet.platform.health import Health
from baatcheet.platform.migrate import newest_revision
from baatcheet.platform.settings import CacheSettings, DatabaseSettings
from tests.platform.conftest import Postgres
from tests.valkey_server import ValkeyServer

NO_CACHE = CacheSettings.model_validate({})


def settings_for(url: str) -> DatabaseSettings:
    return DatabaseSettings.model_validate(
        {"url": SecretStr(url), "connect_timeout": 3, "checkout_timeout": 3}
    )


@contextlib.asynccontextmanager
async def health_of(url: str, cache: CacheSettings = NO_CACHE) -> AsyncIterator[Health]:
    db, connection = Database(settings_for(url), pool_size=2), Cache(cache)
    await connection.start()
    health = Health(db, connection, providers=lambda: ("groq", "ollama"))
    try:
        yield health
    finally:
        await health.close()
        await asyncio.wait_for(connection.close(), 5)
        await asyncio.wait_for(db.close(), 5)


async def seconds(work: Awaitable[object]) -> float:
    started = time.perf_counter()
    await work
    return time.perf_counter() - started


async def test_a_migrated_database_is_ready_and_told_of(postgres: Postgres) -> None:
    async with health_of(await postgres.migrated()) as health:
        assert await health.ready() == (True, {"status": "ready", "database": "ok", "cache": "none"})
        good, report = await health.report()
        assert good
        assert report["status"] == "ok"
        assert report["database"] == {
            "status": "ok",
            "revision": newest_revision(),
            "needed": newest_revision(),
        }
        assert report["providers"] == ["groq", "ollama"]


@pytest.mark.parametrize(
    ("change", "status", "ready"),
    [
        ("DROP TABLE alembic_version", "empty", False),
        ("UPDATE alembic_version SET version_num = '0001'", "behind", False),
        ("UPDATE alembic_version SET version_num = '9999'", "ahead", True),
    ],
)
async def test_the_schema_decides(postgres: Postgres, change: str, status: str, ready: bool) -> None:
    url = await postgres.migrated()
    connection = await asyncpg.connect(url)
    await connection.execute(change)
    await connection.close()
    async with health_of(url) as health:
        good, parts = await health.ready()
        assert (good, parts["database"]) == (ready, status)


async def test_a_draining_process_takes_no_more_work(postgres: Postgres) -> None:
    async with health_of(await postgres.migrated()) as health:
        health.drain()
        good, parts = await health.ready()
        assert (good, parts["status"]) == (False, "draining")


async def test_a_database_that_is_not_there_is_told_in_time() -> None:
    async with health_of("postgresql://postgres@127.0.0.1:9/none") as health:
        assert await seconds(health.ready()) < 2
        assert not (await health.ready())[0]


async def test_a_database_that_hangs_is_told_in_time_and_seen_when_it_is_back(postgres: Postgres) -> None:
    url = await postgres.migrated()
    gate = asyncio.Event()
    gate.set()
    async with hanging_proxy(postgres.socket, gate) as proxied, health_of(proxied(url)) as health:
        assert (await health.ready())[0]
        await asyncio.sleep(0.6)
        gate.clear()
        assert await seconds(health.ready()) < 2
        assert not (await health.ready())[0]
        gate.set()
        async with asyncio.timeout(10):
            while not (await health.ready())[0]:
                await asyncio.sleep(0.05)


async def test_many_askers_share_one_look(postgres: Postgres) -> None:
    async with health_of(await postgres.migrated()) as health:
        answers = await asyncio.wait_for(asyncio.gather(*(health.ready() for _ in range(200))), 5)
        assert all(good for good, _ in answers)


async def test_a_cache_that_is_gone_degrades_and_no_more(postgres: Postgres) -> None:
    with ValkeyServer() as server:
        async with health_of(await postgres.migrated(), server.settings()) as health:
            assert (await health.report())[1]["cache"] == {"status": "ok"}
        server.stop()
        async with health_of(await postgres.migrated(), server.settings()) as health:
            good, report = await health.report()
            assert good
            assert report["status"] == "degraded"
            assert (await health.ready())[0]


@contextlib.asynccontextmanager
async def hanging_proxy(socket: str, gate: asyncio.Event) -> AsyncIterator[Callable[[str], str]]:
    """A way to the database on which nothing moves while `gate` is clear."""
    pumps: set[asyncio.Task[None]] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while block := await reader.read(65_536):
            await gate.wait()
            writer.write(block)
        writer.close()

    async def join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, forth = await asyncio.open_unix_connection(socket)
        for pair in ((reader, forth), (back, writer)):
            pumps.add(asyncio.create_task(pump(*pair)))

    server = await asyncio.start_server(join, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield (
            lambda url: f"postgresql://baatcheet@127.0.0.1:{port}/{url.partition('?')[0].rpartition('/')[2]}"
        )
    finally:
        server.close()
        for task in pumps:
            task.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
