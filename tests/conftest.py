"""What the suites share: a real PostgreSQL, a real Valkey, a real server on a real socket, and its users.

Tests are kept apart by their users, not by emptying tables: each test has an Alice and a Bob of its own.
"""

import asyncio
import contextlib
import os
import secrets
import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

import httpx
import hypothesis
import pytest
import pytest_asyncio
from pydantic import SecretStr

from baatcheet.auth.bootstrap import ensure_admin
from baatcheet.platform.database import Database, connect
from baatcheet.platform.embedded import EmbeddedServices
from baatcheet.platform.migrate import upgrade
from baatcheet.platform.settings import DatabaseSettings, Settings, load
from tests import servers, zygote
from tests.running import worker_process
from tests.scripted_provider import ScriptedProvider

# How long one example takes says nothing on a machine that others use too. Where a result decides on a change, it is
# about the same examples every time; everybody else's runs look for new ones.
hypothesis.settings.register_profile("baatcheet", deadline=None, derandomize=bool(os.environ.get("CI")))
hypothesis.settings.load_profile("baatcheet")

ROOT = Path(__file__).parents[1]
ADMIN_TOKEN = "bc_administrator_of_the_tests_0123456789"
PATIENCE = 120.0  # seconds that a part may take to start: 5 s of a processor, and others may use all of them


class Caller(httpx.AsyncClient):
    """A client of the server. One with a token is somebody."""

    def __init__(self, url: str, token: str | None = None, user_id: UUID | None = None) -> None:
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        super().__init__(base_url=url, headers=headers, timeout=30, trust_env=False)
        self.token = token
        self._user_id = user_id

    @property
    def user_id(self) -> UUID:
        assert self._user_id is not None
        return self._user_id


@dataclass(frozen=True)
class RunningServer:
    """One API process."""

    url: str
    pid: int
    log: Path


NewCaller = Callable[..., Awaitable[Caller]]


@contextlib.contextmanager
def database_on(server_url: str, template: str | None = None) -> Iterator[str]:
    """A new database on a server that is there already: empty, or a copy of `template`."""
    name = f"baatcheet_test_{secrets.token_hex(6)}"
    direct = servers.past_bouncer(server_url)

    async def run(statement: str) -> None:
        connection = await connect(direct)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(run(f"CREATE DATABASE {name}" + (f" TEMPLATE {template}" if template else "")))
    try:
        yield urlunsplit(urlsplit(server_url)._replace(path=f"/{name}"))
    finally:
        asyncio.run(run(f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture(scope="session")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, str]]:
    """DATABASE_URL (migrated) and REDIS_URL: on the servers that these name, else on those of the kind that is chosen.

    Through PgBouncer, DATABASE_DIRECT_URL as well.
    """
    database, redis = os.environ.get("DATABASE_URL"), os.environ.get("REDIS_URL")
    with contextlib.ExitStack() as stack:
        if database is None or redis is None:
            # A socket's path is short, so not below pytest's own folders.
            folder = tmp_path_factory.mktemp("services")
            embedded = EmbeddedServices(
                servers.postgres_settings(folder),
                postgres=database is None,
                valkey=redis is None,
                durable=False,
            )
            stack.callback(embedded.stop)
            addresses = embedded.start()
            if database is None and servers.KIND == "pgbouncer":
                assert addresses.database_url is not None
                own = tmp_path_factory.mktemp("bouncer")
                bouncer = stack.enter_context(servers.pgbouncer(addresses.database_url, own))
                servers.session_bouncers.append(bouncer)
                stack.callback(servers.session_bouncers.clear)
                database = bouncer.url(addresses.database_url)
            database = database or addresses.database_url
            redis = redis or addresses.redis_url
        assert database is not None
        assert redis is not None
        database = stack.enter_context(database_on(database, os.environ.get("BAATCHEET_TEST_TEMPLATE")))
        upgrade(servers.past_bouncer(database))
        yield servers.at({"REDIS_URL": redis}, database)


@pytest.fixture(scope="session")
def template(services: Mapping[str, str]) -> Iterator[str]:
    """The name of a migrated database that nobody connects to: copying it is quicker than migrating another one."""
    with database_on(services["DATABASE_URL"]) as url:
        direct = servers.past_bouncer(url)
        upgrade(direct)
        yield urlsplit(url).path.removeprefix("/")


@pytest.fixture
def migrated_database(services: Mapping[str, str], template: str) -> Iterator[str]:
    """The address of a migrated database with nothing else in it, of the test's own."""
    with database_on(services["DATABASE_URL"], template) as url:
        yield url


@pytest.fixture
def empty_database(services: Mapping[str, str]) -> Iterator[str]:
    """The address of a database with nothing in it, of the test's own."""
    with database_on(services["DATABASE_URL"]) as url:
        yield url


@pytest.fixture(scope="session")
def scripted_provider() -> Iterator[ScriptedProvider]:
    with ScriptedProvider() as provider:
        yield provider


@pytest.fixture(scope="session")
def environment_of_server(
    services: Mapping[str, str], scripted_provider: ScriptedProvider
) -> Mapping[str, str]:
    """The settings of the server that the suites speak to."""
    return {
        **services,
        "OPENAI_BASE_URL": scripted_provider.base_url,
        "OPENROUTER_PROVISIONING_KEY": "provisioning-key-of-the-tests",
        "OLLAMA_HOST": "",
        "BAATCHEET_ADMIN_TOKEN": ADMIN_TOKEN,
        "BAATCHEET_POOL_MAX": "16",
        "BAATCHEET_MAX_MESSAGE_BYTES": "2000000",
        "BAATCHEET_MAX_BODY_BYTES": "8000000",
        "BAATCHEET_GRACE_SECONDS": "3",
        "BAATCHEET_LOG_FORMAT": "json",
        "BAATCHEET_AUDIO_ENGINES": "openai/whisper-1",
    }


@pytest.fixture(scope="session")
def settings(environment_of_server: Mapping[str, str]) -> Settings:
    return load(environment_of_server, dotenv=None)


@pytest.fixture(scope="session")
def server(
    settings: Settings, environment_of_server: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    """A real API process on a real socket."""
    ensure_admin(environment_of_server["DATABASE_URL"], settings.auth)
    folder = tmp_path_factory.mktemp("server")
    log = folder / "api.log"
    ours = ("BAATCHEET_", "OPENAI_", "OTEL_")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener, log.open("wb") as output:
        process = zygote.popen(
            ["-m", "baatcheet.entrypoints.api", "--fd", str(listener.fileno())],
            env=inherited | dict(environment_of_server),
            cwd=folder,
            pass_fds=(listener.fileno(),),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        # The socket listens already: this waits until the process accepts.
        assert httpx.get(f"{url}/live", timeout=PATIENCE, trust_env=False).status_code == 200
        yield RunningServer(url, process.pid, log)
    except httpx.TransportError as error:
        raise RuntimeError(f"the server did not start: {log.read_text()[-4000:]}") from error
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


@pytest.fixture(scope="session")
def worker(
    server: RunningServer,
    environment_of_server: Mapping[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[int]:
    """A real worker process beside the server; its id."""
    with worker_process(environment_of_server, server.log.parent / "worker.log") as running:
        assert running.process is not None
        yield running.process.pid


@pytest_asyncio.fixture
async def client(server: RunningServer) -> AsyncIterator[httpx.AsyncClient]:
    """Nobody in particular: no token."""
    async with Caller(server.url) as caller:
        yield caller


@pytest_asyncio.fixture
async def admin(server: RunningServer) -> AsyncIterator[Caller]:
    async with Caller(server.url, ADMIN_TOKEN) as caller:
        me = await caller.get("/api/v1/me")
        assert me.status_code == 200, me.text
        caller._user_id = UUID(me.json()["user"]["id"])
        yield caller


@pytest_asyncio.fixture
async def new_caller(server: RunningServer, admin: Caller) -> AsyncIterator[NewCaller]:
    """Makes a new user's client, or with `user_id` another one of a user's."""
    async with AsyncExitStack() as stack:

        async def make(
            name: str = "user",
            *,
            scopes: list[str] | None = None,
            role: str = "user",
            user_id: UUID | None = None,
        ) -> Caller:
            if user_id is None:
                made = await admin.post("/api/v1/users", json={"name": name, "role": role})
                assert made.status_code == 201, made.text
                user_id = UUID(made.json()["id"])
            wanted = {"name": f"{name}'s", "user_id": str(user_id)} | ({"scopes": scopes} if scopes else {})
            token = await admin.post("/api/v1/tokens", json=wanted)
            assert token.status_code == 201, token.text
            return await stack.enter_async_context(Caller(server.url, token.json()["token"], user_id))

        yield make


@pytest_asyncio.fixture
async def alice(new_caller: NewCaller) -> Caller:
    return await new_caller("alice")


@pytest_asyncio.fixture
async def bob(new_caller: NewCaller) -> Caller:
    return await new_caller("bob")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def database(services: Mapping[str, str]) -> AsyncIterator[Database]:
    """The database itself, for what no endpoint shows."""
    settings = DatabaseSettings(url=SecretStr(services["DATABASE_URL"]))
    opened = Database(settings, pool_size=4, name="tests")
    yield opened
    await opened.close()
