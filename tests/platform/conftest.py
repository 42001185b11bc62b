"""A real PostgreSQL for the tests that need one, and fresh databases in it."""

import asyncio
import itertools
from collections.abc import Iterator

import asyncpg
import pytest

from baatcheet.platform.embedded import EmbeddedServices
from baatcheet.platform.migrate import upgrade
from tests.servers import postgres_settings


class Postgres:
    """The server at `url`; its socket is the file `socket`."""

    def __init__(self, url: str, sockets: str) -> None:
        self.url = url
        self.socket = f"{sockets}/.s.PGSQL.5432"
        self._numbers = itertools.count()
        self._template = ""

    async def empty(self, template: str = "template0") -> str:
        """A new database's address."""
        name = f"health{next(self._numbers)}"
        connection = await asyncpg.connect(self.url)
        try:
            await connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        finally:
            await connection.close()
        head, _, query = self.url.partition("?")
        return f"{head.rpartition('/')[0]}/{name}?{query}"

    async def migrated(self) -> str:
        """The address of a new database with the newest schema."""
        if not self._template:
            url = await self.empty()
            await asyncio.to_thread(upgrade, url)
            self._template = url.partition("?")[0].rpartition("/")[2]
        return await self.empty(self._template)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    settings = postgres_settings(tmp_path_factory.mktemp("postgres"))
    services = EmbeddedServices(settings, postgres=True, valkey=False, durable=False)
    addresses = services.start()
    try:
        assert addresses.database_url is not None
        yield Postgres(addresses.database_url, addresses.database_url.rpartition("host=")[2])
    finally:
        services.stop()
