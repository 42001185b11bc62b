"""A rotation's surroundings: a store, a provider, the database, and a name of the test's own for the provider."""

import secrets
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from pydantic import SecretStr
from sqlalchemy import text

from baatcheet.keys.models import KeyRotation
from baatcheet.keys.rotation import record
from baatcheet.keys.rotation.machine import RotationParts, Rotator
from baatcheet.keys.rotation.provisioners import OpenRouterKeys
from baatcheet.keys.secret import SecretKey
from baatcheet.keys.service import Keys
from baatcheet.keys.stores.model import KeySet
from baatcheet.platform.database import Database
from baatcheet.platform.http import client_session
from baatcheet.platform.settings import DatabaseSettings
from tests.conftest import database_on
from tests.keys.rotation.dying_rotation import QUICK, prober
from tests.keys.rotation.fake_providers import PROVISIONING_KEY, FakeProviders
from tests.keys.rotation.fake_store import FakeRing, FakeStore
from tests.servers import at


@dataclass
class Bench:
    """One provider's keys, and rotations of them."""

    db: Database
    path: Path
    fake: FakeProviders
    parts: RotationParts
    store: FakeStore
    ring: FakeRing
    provider: str = field(default_factory=lambda: f"provider-{secrets.token_hex(4)}")
    old: list[str] = field(default_factory=list)

    def pace(self, **fields: Any) -> None:
        self.parts = replace(self.parts, pace=replace(self.parts.pace, **fields))

    @property
    def keys(self) -> Keys:
        return Keys(self.db, self.ring, self.parts.probe)

    async def has(self, count: int = 3, **limits: Any) -> list[str]:
        """The provider's keys, in the store, and known to the ledger."""
        self.old = self.fake.sell(count, **limits)
        await self.store.replace(self.provider, [SecretKey(key) for key in self.old])
        await self.know(self.old)
        return self.old

    async def know(self, keys: list[str]) -> None:
        """As the ring does when it serves new keys."""
        statement = text(
            "INSERT INTO provider_keys (id, provider, hint, store) VALUES (:id, :provider, :hint, 'file') "
            "ON CONFLICT DO NOTHING"
        )
        async with self.db.system() as session:
            for key in keys:
                values = {"id": self.id(key), "provider": self.provider, "hint": SecretKey(key).hint}
                await session.execute(statement, values)

    def id(self, key: str) -> str:
        return self.ring.fingerprint(self.provider, SecretKey(key))

    def makes(self, *, makes: bool = True) -> None:
        """The provider has a key API, or has none."""
        maker = OpenRouterKeys(
            self._session, lambda: SecretKey(PROVISIONING_KEY), f"{self.fake.url}/openrouter"
        )
        self.parts = replace(self.parts, provisioners={self.provider: maker} if makes else {})

    async def begin(self, key_id: str | None = None) -> UUID:
        """A rotation without a job, for the test to run."""
        async with self.db.system() as session:
            row = await record.add(session, self.provider, key_id, "a test")
        assert row is not None
        return row.id

    async def rotate(self, key_id: str | None = None) -> KeyRotation:
        id_ = await self.begin(key_id)
        await Rotator(self.parts).run(id_)
        return await self.row(id_)

    async def row(self, id_: UUID) -> KeyRotation:
        async with self.db.system() as session:
            found = await session.get(KeyRotation, id_)
        assert found is not None
        return found

    async def set_of(self, name: str = "current") -> list[str]:
        """The texts of one of the store's sets."""
        found: KeySet | None = getattr(await self.store.versions(self.provider), name)
        return [] if found is None else [key.reveal() for key in found.keys]

    async def told(self) -> list[tuple[str, dict[str, Any]]]:
        """The events about this provider, relayed or not."""
        statement = text(
            "SELECT type, data FROM outbox WHERE data->>'provider' = :provider "
            "UNION ALL SELECT type, data FROM events WHERE data->>'provider' = :provider"
        )
        async with self.db.system() as session:
            rows = await session.execute(statement, {"provider": self.provider})
            return [(row.type, row.data) for row in rows]

    async def audited(self) -> list[str]:
        statement = text(
            "SELECT action FROM audit_entries WHERE subject = :provider OR subject LIKE :provider || '/%' ORDER BY id"
        )
        async with self.db.system() as session:
            return list((await session.scalars(statement, {"provider": self.provider})).all())

    async def watcher(self, *, sets: int, in_flight: str = "{}", holds: str = "[]") -> UUID:
        """A process that says of itself what a ring says."""
        statement = text(
            "INSERT INTO key_watchers (process, sets, in_flight, holds) "
            "VALUES (gen_random_uuid(), :sets, CAST(:f AS jsonb), CAST(:h AS jsonb)) RETURNING process"
        )
        async with self.db.system() as session:
            found: UUID | None = await session.scalar(statement, {"sets": sets, "f": in_flight, "h": holds})
        assert found is not None
        return found

    _session: Any = None


@pytest.fixture(scope="package")
def own_services(services: Mapping[str, str], template: str) -> Iterator[Mapping[str, str]]:
    """As `services`, with a database that no worker but the tests' own looks after."""
    with database_on(services["DATABASE_URL"], template) as url:
        yield at(services, url)


@pytest_asyncio.fixture
async def own_database(own_services: Mapping[str, str]) -> AsyncIterator[Database]:
    settings = DatabaseSettings(url=SecretStr(own_services["DATABASE_URL"]))
    opened = Database(settings, pool_size=4, name="tests of rotations")
    yield opened
    await opened.close()


@pytest_asyncio.fixture
async def bench(own_database: Database, tmp_path: Path) -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        fake = await stack.enter_async_context(FakeProviders())
        session = await stack.enter_async_context(client_session())
        store = FakeStore(tmp_path / "store.json")
        ring = FakeRing(store)
        parts = RotationParts(own_database, ring, prober(session, fake.url), {}, QUICK)
        made = Bench(own_database, tmp_path / "store.json", fake, parts, store, ring)
        made._session = session
        yield made
        async with own_database.system() as cleaning:
            await cleaning.execute(text("DELETE FROM key_watchers"))
