"""A server of exports of these tests' own, and its users."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio
from pydantic import SecretStr
from sqlalchemy import text

from baatcheet.auth.principal import DEFAULT_SCOPES
from baatcheet.auth.secrets import new_token, shown_part, token_hash
from baatcheet.kit.ids import new_id
from baatcheet.platform.database import Database
from baatcheet.platform.settings import DatabaseSettings, ExportSettings, Settings
from tests.conftest import Caller, database_on
from tests.exports.application import Running, serving

NewSomebody = Callable[..., Awaitable[Caller]]


@pytest.fixture(scope="session")
def exports_database(services: Mapping[str, str], template: str) -> Iterator[str]:
    """Of these suites' own: no other worker is to take their jobs."""
    with database_on(services["DATABASE_URL"], template) as url:
        yield url


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def running(settings: Settings, exports_database: str, tmp_path_factory: Any) -> AsyncIterator[Running]:
    url = SecretStr(exports_database)
    db = Database(DatabaseSettings(url=url), pool_size=10, name="exports")
    folder = tmp_path_factory.mktemp("files")
    exports = ExportSettings(max_import_bytes=64_000_000)
    async with serving(settings, db, exports_database, folder, exports) as server:
        yield server
    await db.close()


@pytest_asyncio.fixture
async def somebody(running: Running) -> AsyncIterator[NewSomebody]:
    """Makes a new user's client."""
    async with AsyncExitStack() as stack:

        async def make(name: str = "somebody", *, scopes: frozenset[str] = DEFAULT_SCOPES["user"]) -> Caller:
            user, token = new_id(), new_token()
            async with running.db.system() as session:
                await session.execute(
                    text("INSERT INTO users (id, name) VALUES (:id, :name)"), {"id": user, "name": name}
                )
                await session.execute(
                    text(
                        "INSERT INTO api_tokens (id, user_id, name, prefix, hash, scopes) "
                        "VALUES (:id, :user, 'test', :prefix, :hash, :scopes)"
                    ),
                    {
                        "id": new_id(),
                        "user": user,
                        "prefix": shown_part(token),
                        "hash": token_hash(token),
                        "scopes": sorted(scopes),
                    },
                )
            return await stack.enter_async_context(Caller(running.url, token, user))

        yield make


@pytest_asyncio.fixture
async def alice(somebody: NewSomebody) -> Caller:
    return await somebody("Alice")


@pytest_asyncio.fixture
async def bob(somebody: NewSomebody) -> Caller:
    return await somebody("Bob")


@pytest_asyncio.fixture
async def worker(running: Running) -> AsyncIterator[None]:
    async with running.working():
        yield


async def ended(caller: Caller, job: dict[str, Any], *, seconds: float = 60) -> dict[str, Any]:
    """The job once it has ended."""
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        answer = await caller.get(f"/api/v1/jobs/{job['id']}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        if found["status"] in {"succeeded", "dead", "cancelled"}:
            return found
        assert asyncio.get_running_loop().time() < deadline, found
        await asyncio.sleep(0.05)
