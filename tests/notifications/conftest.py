"""A database of the notifications' own, its users, and the endpoints as they see them."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI
from pydantic import SecretStr
from sqlalchemy import text

from baatcheet.auth.access import Door
from baatcheet.auth.models import ApiToken, User
from baatcheet.auth.principal import DEFAULT_SCOPES
from baatcheet.auth.rate_limits import RateLimits
from baatcheet.auth.secrets import new_token, shown_part, token_hash
from baatcheet.auth.service import Authenticator
from baatcheet.events.outbox import record
from baatcheet.events.relay import Relay
from baatcheet.kit.ids import new_id
from baatcheet.notifications.endpoints import router
from baatcheet.notifications.service import Notifications
from baatcheet.notifications.subscriber import Notifier
from baatcheet.platform import failures
from baatcheet.platform.cache import Cache
from baatcheet.platform.database import Database
from baatcheet.platform.settings import AuthSettings, CacheSettings, DatabaseSettings
from tests.conftest import database_on


@pytest.fixture(scope="session")
def own_database(services: Mapping[str, str], template: str) -> Iterator[str]:
    with database_on(services["DATABASE_URL"], template) as url:
        yield url


@pytest_asyncio.fixture(loop_scope="session")
async def db(own_database: str) -> AsyncIterator[Database]:
    """The database, empty."""
    opened = Database(DatabaseSettings(url=SecretStr(own_database)), pool_size=6, name="notifications")
    async with opened.system() as session:
        for table in ("jobs", "users", "outbox", "events"):
            await session.execute(text(f"DELETE FROM {table}"))
    yield opened
    await opened.close()


@dataclass
class Person:
    """A user, and what they see over HTTP."""

    id: UUID
    api: httpx.AsyncClient

    async def listed(self, **parameters: Any) -> list[dict[str, Any]]:
        answer = await self.api.get("/api/v1/notifications", params=parameters)
        assert answer.status_code == 200, answer.text
        data: list[dict[str, Any]] = answer.json()["data"]
        return data

    async def unread(self) -> int:
        return int((await self.api.get("/api/v1/notifications")).json()["unread"])

    async def want(self, kind: str, **wishes: bool) -> None:
        answer = await self.api.patch(f"/api/v1/notifications/preferences/{kind}", json=wishes)
        assert answer.status_code == 200, answer.text


NewPerson = Callable[..., Awaitable[Person]]


@pytest_asyncio.fixture(loop_scope="session")
async def app(db: Database, services: Mapping[str, str]) -> AsyncIterator[FastAPI]:
    made = FastAPI()
    failures.install(made)
    made.include_router(router)
    made.add_middleware(Door)
    cache = Cache(CacheSettings(url=SecretStr(services["REDIS_URL"])))
    await cache.start()
    made.state.authenticator = authenticator = Authenticator(db)
    made.state.rate_limits = RateLimits(AuthSettings(), cache)
    made.state.notifications = Notifications(db, email=True)
    yield made
    await authenticator.close()
    await cache.close()


@pytest_asyncio.fixture(loop_scope="session")
async def new_person(db: Database, app: FastAPI) -> AsyncIterator[NewPerson]:
    async with AsyncExitStack() as stack:

        async def make(
            name: str = "somebody",
            *,
            email: str | None = None,
            role: str = "user",
            active: bool = True,
            scopes: list[str] | None = None,
        ) -> Person:
            token, user = new_token(), new_id()
            async with db.system() as session:
                session.add(User(id=user, name=name, email=email, role=role, active=active))
                await session.flush()
                session.add(
                    ApiToken(
                        id=new_id(),
                        user_id=user,
                        name="test",
                        prefix=shown_part(token),
                        hash=token_hash(token),
                        scopes=scopes or sorted(DEFAULT_SCOPES[role]),
                    )
                )
            client = httpx.AsyncClient(
                transport=httpx.ASGITransport(app),
                base_url="http://test",
                headers={"authorization": f"Bearer {token}"},
            )
            return Person(user, await stack.enter_async_context(client))

        yield make


@pytest_asyncio.fixture(loop_scope="session")
async def alice(new_person: NewPerson) -> Person:
    return await new_person("Alice", email="alice@example.com")


@pytest_asyncio.fixture(loop_scope="session")
async def bob(new_person: NewPerson) -> Person:
    return await new_person("Bob", email="bob@example.com")


@pytest_asyncio.fixture(loop_scope="session")
async def root(new_person: NewPerson) -> Person:
    return await new_person("Root", email="root@example.com", role="admin")


class Teller:
    """Records events and relays them, until nothing is left."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.email = False

    async def __call__(self, type: str, user: UUID | None, *many: Mapping[str, Any], **data: Any) -> None:  # noqa: A002
        """Record an event of a type for each of `many`, or one with `data`."""
        async with self.db.system() as session:
            for one in many or (data,):
                await record(session, type, one, user=user)
        await self.relay()

    async def relay(self) -> None:
        relay = Relay(self.db, {"notifications": Notifier(email=self.email).relayed})
        while await relay.relay():
            pass


@pytest.fixture
def tell(db: Database) -> Teller:
    return Teller(db)


async def told_live(db: Database, user: UUID, type: str = "notification.created") -> list[dict[str, Any]]:  # noqa: A002
    """What the live stream has for a user."""
    async with db.system() as session:
        found = await session.execute(
            text("SELECT data FROM events WHERE user_id = :user AND type = :type ORDER BY seq"),
            {"user": user, "type": type},
        )
        return list(found.scalars())
