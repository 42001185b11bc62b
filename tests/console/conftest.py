"""People in front of the console: over plain HTTP, as a browser without scripts would be."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from html import unescape

import httpx
import pytest_asyncio
from fastapi import FastAPI

from baatcheet.auth.rate_limits import RateLimits
from baatcheet.auth.service import Authenticator, Users
from baatcheet.console.endpoints import install, router
from baatcheet.console.frame import COOKIE
from baatcheet.jobs.service import Fleet, Jobs
from baatcheet.keys.probing import Probed
from baatcheet.keys.secret import SecretKey
from baatcheet.keys.service import Keys
from baatcheet.platform.asgi import Frame
from baatcheet.platform.cache import Cache
from baatcheet.platform.database import Database
from baatcheet.platform.settings import AuthSettings, CacheSettings, ConsoleSettings, ServerSettings
from baatcheet.platform.telemetry import Metrics, Telemetry
from tests.conftest import Caller, RunningServer
from tests.jobs.conftest import Bench, bench
from tests.keys.rotation.fake_store import FakeRing

_CSRF = re.compile(r'name="csrf" value="([^"]+)"')


class Person(httpx.AsyncClient):
    """A browser without scripts. It follows no redirect."""

    def __init__(self, url: str) -> None:
        headers = {"sec-fetch-site": "same-origin"}
        super().__init__(base_url=url, headers=headers, timeout=30, trust_env=False)

    async def sign_in(self, token: str, **fields: str) -> httpx.Response:
        return await self.post("/console/sign-in", data={"token": token, **fields})

    async def csrf(self) -> str:
        """The word that this session's forms carry."""
        found = _CSRF.search((await self.get("/console/jobs")).text)
        assert found is not None
        return unescape(found[1])

    async def submit(self, path: str, **fields: str) -> httpx.Response:
        """Send the form of a page."""
        return await self.post(path, data={"csrf": await self.csrf(), **fields})

    @property
    def session(self) -> str | None:
        return self.cookies.get(COOKIE)


async def eventually(holds: Callable[[], Awaitable[bool]], *, seconds: float = 30) -> None:
    """Wait until it holds; `seconds` at most."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not await holds():
        assert asyncio.get_running_loop().time() < deadline, "it never came about"
        await asyncio.sleep(0.05)


NewPerson = Callable[[Caller], Awaitable[Person]]


@pytest_asyncio.fixture
async def stranger(server: RunningServer) -> AsyncIterator[Person]:
    """Somebody who has not signed in."""
    async with Person(server.url) as person:
        yield person


@pytest_asyncio.fixture
async def signed_in(server: RunningServer) -> AsyncIterator[NewPerson]:
    """Signs in with a caller's token."""
    async with AsyncExitStack() as stack:

        async def enter(caller: Caller) -> Person:
            person = await stack.enter_async_context(Person(server.url))
            assert caller.token is not None
            answer = await person.sign_in(caller.token)
            assert answer.status_code == 303, answer.text
            return person

        yield enter


async def _ask_nobody(_provider: str, _key: SecretKey) -> Probed:
    return Probed("unknown")


@asynccontextmanager
async def console_for(
    database: Database, *, address: str = "127.0.0.1", idle: float = 12, keys: Keys | None = None
) -> AsyncIterator[tuple[httpx.AsyncClient, FastAPI]]:
    """A console in this process, and a browser at `address`."""
    app = FastAPI()
    cache = Cache(CacheSettings.model_validate({}))
    state = app.state
    state.database, state.cache = database, cache
    state.authenticator = Authenticator(database)
    state.rate_limits = RateLimits(AuthSettings(), cache)
    state.jobs = Jobs(database)
    state.fleet = Fleet(database, lease=25)
    state.users = Users(database, state.authenticator)
    state.keys = keys or Keys(database, FakeRing(), _ask_nobody)
    install(app, ConsoleSettings(idle_hours=idle))
    app.include_router(router)
    framed = Frame(app, ServerSettings.model_validate({}), Telemetry(Metrics()))
    transport = httpx.ASGITransport(framed, client=(address, 1))
    headers = {"sec-fetch-site": "same-origin"}
    async with httpx.AsyncClient(transport=transport, base_url="http://x", headers=headers) as browser:
        yield browser, app


__all__ = ["Bench", "NewPerson", "Person", "bench", "console_for", "eventually"]
