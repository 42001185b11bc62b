"""Webhooks from the request to the receiver: a small application, a relay and a worker on a database of their own.

Their settings are the suite's: loopback may be called, an attempt may take a second, and pauses are short.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from uuid import UUID

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI
from pydantic import SecretStr
from sqlalchemy import text

from baatcheet.auth.access import Door
from baatcheet.auth.rate_limits import RateLimits
from baatcheet.auth.secrets import new_token, shown_part, token_hash
from baatcheet.auth.service import Authenticator
from baatcheet.events.outbox import record
from baatcheet.events.relay import Relay
from baatcheet.jobs.worker import Rhythm, Worker
from baatcheet.kit.ids import new_id
from baatcheet.platform import failures
from baatcheet.platform.cache import Cache
from baatcheet.platform.database import Database, connect
from baatcheet.platform.outbound import Lookup, OutboundPolicy, guarded_session
from baatcheet.platform.settings import AuthSettings, CacheSettings, DatabaseSettings, WebhookSettings
from baatcheet.webhooks import endpoints
from baatcheet.webhooks.deliveries import Deliveries
from baatcheet.webhooks.delivering import DeliveryParts, tidy
from baatcheet.webhooks.service import Webhooks
from tests.conftest import database_on
from tests.servers import past_bouncer
from tests.webhooks.receiver import Receiver

SETTINGS = WebhookSettings(
    allowed_networks=("127.0.0.0/8",),
    retries="0.1s,0.1s,0.1s,0.1s,0.1s",
    timeout=1.0,
    disable_after_days=5.0,
    max_endpoints=10,
)
RHYTHM = Rhythm(beat=1, lease=5, reap=1, tick=0.05, poll=0.3)


class Person(httpx.AsyncClient):
    """A user of the application."""

    def __init__(self, app: FastAPI, user_id: UUID, token: str) -> None:
        super().__init__(
            transport=httpx.ASGITransport(app),
            base_url="http://hooks.test",
            headers={"authorization": f"Bearer {token}"},
        )
        self.user_id = user_id

    async def request(self, method: str, url: Any, **arguments: Any) -> httpx.Response:
        """`url` is what follows `/api/v1/webhooks`."""
        return await super().request(method, f"/api/v1/webhooks{url}", **arguments)

    async def make(self, url: str, **fields: Any) -> dict[str, Any]:
        made = await self.post("", json={"url": url, **fields})
        assert made.status_code == 201, made.text
        webhook: dict[str, Any] = made.json()
        return webhook

    async def look(self, webhook: Mapping[str, Any]) -> dict[str, Any]:
        answer = await self.get(f"/{webhook['id']}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def deliveries(self, webhook: Mapping[str, Any], **params: str) -> list[dict[str, Any]]:
        answer = await self.get(f"/{webhook['id']}/deliveries", params=params)
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()["data"]
        return found

    async def details(self, delivery: Mapping[str, Any]) -> dict[str, Any]:
        answer = await self.get(f"/{delivery['webhook_id']}/deliveries/{delivery['id']}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found


@dataclass
class Hooks:
    """The application and what runs behind it."""

    db: Database
    url: str
    app: FastAPI
    webhooks: Webhooks
    relay: Relay
    parts: DeliveryParts
    people: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def person(self, role: str = "user") -> Person:
        token, user = new_token(), new_id()
        scopes = ["read", "write", "chat"] + (["admin"] if role == "admin" else [])
        async with self.db.system() as session:
            await session.execute(
                text("INSERT INTO users (id, name, role) VALUES (:id, 'u', :role)"),
                {"id": user, "role": role},
            )
            await session.execute(
                text(
                    "INSERT INTO api_tokens (id, user_id, name, prefix, hash, scopes) "
                    "VALUES (:id, :user, 't', :prefix, :hash, :scopes)"
                ),
                {
                    "id": new_id(),
                    "user": user,
                    "prefix": shown_part(token),
                    "hash": token_hash(token),
                    "scopes": scopes,
                },
            )
        return await self.people.enter_async_context(Person(self.app, user, token))

    async def happens(
        self, type_: str, data: Mapping[str, Any], user: UUID | None, *, times: int = 1
    ) -> None:
        """`times` events, relayed."""
        async with self.db.system() as session:
            for _ in range(times):
                await record(session, type_, data, user=user)
        await self.relayed()

    async def relayed(self) -> None:
        while await self.relay.relay():
            pass

    @asynccontextmanager
    async def working(self, room: int = 32, rhythm: Rhythm = RHYTHM) -> AsyncIterator[Worker]:
        """A worker for as long as the block lasts."""
        kinds = [self.webhooks.deliver.bind(self.parts), tidy.bind(self.parts)]
        worker = Worker(
            self.db,
            partial(connect, past_bouncer(self.url)),
            kinds,
            rooms={"webhook": room},
            rhythm=rhythm,
        )
        await worker.start()
        try:
            yield worker
        finally:
            await worker.stop()

    async def worked_off(self, *, room: int = 32, seconds: float = 30) -> None:
        """Work until no delivery is pending."""
        async with self.working(room), asyncio.timeout(seconds):
            while await self.count("jobs", "status IN ('queued', 'waiting', 'running')"):
                await asyncio.sleep(0.02)

    async def count(self, table: str, where: str = "true") -> int:
        async with self.db.system() as session:
            return int(await session.scalar(text(f"SELECT count(*) FROM {table} WHERE {where}")) or 0)

    async def run(self, statement: str, **values: Any) -> None:
        async with self.db.system() as session:
            await session.execute(text(statement), values)


@asynccontextmanager
async def opened(
    url: str,
    settings: WebhookSettings = SETTINGS,
    *,
    lookup: Lookup | None = None,
    attempts: int = 1,
) -> AsyncIterator[Hooks]:
    """The application with `settings`. Pauses are those of `retries` from the `attempts`th failure on."""
    async with AsyncExitStack() as stack:
        db = Database(DatabaseSettings(url=SecretStr(url)), pool_size=8)
        stack.push_async_callback(db.close)
        cache = Cache(CacheSettings())
        app = FastAPI()
        failures.install(app)
        app.include_router(endpoints.router)
        app.add_middleware(Door)
        webhooks = Webhooks(db, settings)
        webhooks.deliver = replace(webhooks.deliver, attempts=attempts)
        app.state.database = db
        app.state.rate_limits = RateLimits(AuthSettings(), cache)
        app.state.authenticator = authenticator = Authenticator(db)
        stack.push_async_callback(authenticator.close)
        app.state.webhooks = webhooks
        app.state.deliveries = Deliveries(db, webhooks.deliver)
        session = await stack.enter_async_context(
            guarded_session(OutboundPolicy.allowing(settings.allowed_networks), lookup=lookup)
        )
        parts = DeliveryParts.of(db, session, settings)
        hooks = Hooks(db, url, app, webhooks, Relay(db, {"webhooks": webhooks.relayed}), parts)
        await stack.enter_async_context(hooks.people)
        yield hooks


@pytest.fixture(scope="session")
def hooks_database(services: Mapping[str, str], template: str) -> Iterator[str]:
    """A database that no other worker looks at."""
    with database_on(services["DATABASE_URL"], template) as url:
        yield url


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_hooks(hooks_database: str) -> AsyncIterator[Hooks]:
    async with opened(hooks_database) as hooks:
        yield hooks


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def strict_hooks(hooks_database: str) -> AsyncIterator[Hooks]:
    """The application as it is without any setting: nothing but the public internet may be called."""
    async with opened(hooks_database, WebhookSettings()) as hooks:
        yield hooks


@pytest_asyncio.fixture
async def hooks(shared_hooks: Hooks) -> AsyncIterator[Hooks]:
    """The application, with nothing left over from another test."""
    yield shared_hooks
    await shared_hooks.run("TRUNCATE jobs, outbox, events")


@pytest_asyncio.fixture
async def alice(hooks: Hooks) -> Person:
    return await hooks.person()


@pytest_asyncio.fixture
async def bob(hooks: Hooks) -> Person:
    return await hooks.person()


@pytest_asyncio.fixture
async def admin(hooks: Hooks) -> Person:
    return await hooks.person("admin")


@pytest_asyncio.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as one:
        yield one


def told(requests: Sequence[Any]) -> list[dict[str, Any]]:
    """The bodies of what a receiver was sent."""
    return [json.loads(one.body) for one in requests]
