"""A stage for the tests of recordings: an API, a worker and a provider of their own, on a database of their own."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI

from baatcheet.audio import endpoints as audio_endpoints
from baatcheet.audio.direct import DirectTranscriber
from baatcheet.audio.engines import build_engines
from baatcheet.audio.jobs import AudioParts, transcribe
from baatcheet.audio.service import Recordings
from baatcheet.audio.transcribing import Transcriber
from baatcheet.auth import endpoints as auth_endpoints
from baatcheet.auth.access import Door
from baatcheet.auth.bootstrap import ensure_admin
from baatcheet.auth.rate_limits import RateLimits
from baatcheet.auth.service import Authenticator, Tokens, Users
from baatcheet.budgets import endpoints as budget_endpoints
from baatcheet.budgets.admission import Budgets
from baatcheet.budgets.service import Budgeting
from baatcheet.chat.serving import Gate
from baatcheet.entrypoints.keyring import keys_of_environment
from baatcheet.jobs import endpoints as job_endpoints
from baatcheet.jobs.isolation import Sandbox
from baatcheet.jobs.service import Fleet, Jobs
from baatcheet.jobs.worker import Rhythm, Worker
from baatcheet.keys.pools import pools_with
from baatcheet.openai_api.audio import PATH, AudioApi
from baatcheet.platform import failures, openapi
from baatcheet.platform.asgi import Frame, Receive, Scope, Send
from baatcheet.platform.blobs import FolderBlobs
from baatcheet.platform.cache import Cache
from baatcheet.platform.database import Database, connect
from baatcheet.platform.http import client_session
from baatcheet.platform.settings import Settings, load
from baatcheet.platform.telemetry import Metrics, Telemetry
from baatcheet.platform.uploads import body_limit
from baatcheet.providers.catalogue import build_catalogue
from tests.audio.whisper import Whisper
from tests.conftest import ADMIN_TOKEN, database_on
from tests.servers import at, past_bouncer

QUICK = Rhythm(beat=0.2, lease=1.0, reap=0.2, tick=0.05, poll=0.3)
ENDED = {"succeeded", "dead", "cancelled"}
BASE = "http://stage"


@pytest_asyncio.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox(processes=1) as made:
        yield made


@pytest_asyncio.fixture
async def whisper() -> AsyncIterator[Whisper]:
    async with Whisper() as provider:
        yield provider


@pytest_asyncio.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with client_session() as made:
        yield made


@pytest.fixture(scope="session")
def audio_database(services: Mapping[str, str], template: str) -> Iterator[str]:
    """Nobody else's worker takes jobs from here."""
    with database_on(services["DATABASE_URL"], template) as url:
        ensure_admin(url, load({"BAATCHEET_ADMIN_TOKEN": ADMIN_TOKEN}, dotenv=None).auth)
        yield url


class Caller(httpx.AsyncClient):
    """A user of the stage."""

    def __init__(self, app: Any, token: str) -> None:
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        super().__init__(
            transport=transport, base_url=BASE, headers={"authorization": f"Bearer {token}"}, timeout=30
        )
        self.token = token

    async def upload(self, path: Path, *, key: str | None = None, **fields: str) -> httpx.Response:
        headers = {} if key is None else {"idempotency-key": key}
        with path.open("rb") as file:
            return await self.post(
                "/api/v1/audio", files={"file": (path.name, file)}, data=fields, headers=headers
            )

    async def ended(self, job_id: str, seconds: float = 60) -> dict[str, Any]:
        """The job, once it has ended."""
        async with asyncio.timeout(seconds):
            while (job := (await self.get(f"/api/v1/jobs/{job_id}")).json())["status"] not in ENDED:
                await asyncio.sleep(0.02)
        found: dict[str, Any] = job
        return found


@dataclass
class Stage:
    """Everything there is."""

    db: Database
    url: str
    app: Any
    whisper: Whisper
    blobs: FolderBlobs
    transcriber: Transcriber
    budgets: Budgets
    settings: Settings
    environment: Mapping[str, str]
    stack: AsyncExitStack
    admin: Caller

    async def caller(self, name: str) -> Caller:
        made = await self.admin.post("/api/v1/users", json={"name": name})
        assert made.status_code == 201, made.text
        token = await self.admin.post("/api/v1/tokens", json={"name": name, "user_id": made.json()["id"]})
        assert token.status_code == 201, token.text
        return await self.stack.enter_async_context(Caller(self.app, token.json()["token"]))

    async def work(self) -> Worker:
        """A worker, until the test ends."""
        parts = AudioParts(self.db, self.blobs, self.transcriber, self.budgets)
        worker = Worker(
            self.db,
            partial(connect, past_bouncer(self.url)),
            [transcribe.bind(parts)],
            rooms={"audio": 2},
            rhythm=QUICK,
        )
        await worker.start()
        self.stack.push_async_callback(worker.stop)
        return worker


@pytest_asyncio.fixture
async def stage(
    services: Mapping[str, str],
    audio_database: str,
    whisper: Whisper,
    tmp_path: Path,
) -> AsyncIterator[Stage]:
    environment = {
        **at(services, audio_database),
        "OLLAMA_HOST": "",
        "OPENAI_BASE_URL": whisper.url,
        "OPENAI_API_KEY": "sk-whisper-secret",
        "BAATCHEET_ADMIN_TOKEN": ADMIN_TOKEN,
        "BAATCHEET_AUDIO_ENGINES": "openai/whisper-1",
        "BAATCHEET_AUDIO_PIECE_SECONDS": "10",
        "BAATCHEET_AUDIO_DIRECT_SECONDS": "30",
        "BAATCHEET_AUDIO_MAX_BYTES": "3000000",
        "BAATCHEET_FILES_DIR": str(tmp_path / "files"),
        "BAATCHEET_JOB_LEASE_SECONDS": "1",
    }
    settings = load(environment, dotenv=None)
    async with AsyncExitStack() as stack:
        db = Database(settings.database, pool_size=6, name="audio tests")
        stack.push_async_callback(db.close)
        cache = Cache(settings.cache)
        await cache.start()
        stack.push_async_callback(cache.close)
        session = await stack.enter_async_context(client_session())
        pools = pools_with(keys_of_environment(settings))
        catalogue = build_catalogue(settings.providers, session, pools)
        stack.push_async_callback(catalogue.close)
        sandbox = await stack.enter_async_context(Sandbox(processes=2))
        blobs = FolderBlobs(tmp_path / "files")
        engines = build_engines(settings.audio, catalogue, sandbox)
        transcriber = Transcriber(sandbox, engines, settings.audio)
        app = FastAPI(generate_unique_id_function=openapi.operation_id)
        failures.install(app)
        routers = (
            auth_endpoints.router,
            job_endpoints.router,
            audio_endpoints.router,
            budget_endpoints.router,
        )
        for router in routers:
            app.include_router(router)
        app.add_middleware(Door)
        state = app.state
        state.settings, state.database, state.cache = settings, db, cache
        state.rate_limits = RateLimits(settings.auth, cache)
        state.authenticator = authenticator = Authenticator(db)
        stack.push_async_callback(authenticator.close)
        state.tokens, state.users = Tokens(db, authenticator), Users(db, authenticator)
        state.budgets = budgets = Budgets(db)
        await budgets.start()
        stack.push_async_callback(budgets.close)
        state.budgeting = Budgeting(db)
        parts = AudioParts(db, blobs, transcriber)
        state.jobs, state.fleet = Jobs(db, [transcribe.bind(parts)]), Fleet(db, lease=1)
        state.recordings = Recordings(db, blobs, transcriber, state.jobs, settings.audio)
        direct = AudioApi(
            gate=Gate(authenticator, state.rate_limits),
            direct=DirectTranscriber(transcriber, settings.audio),
            blobs=blobs,
            budgets=budgets,
        )

        async def routed(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["path"] == PATH:
                await direct.transcriptions(scope, receive, send)
            else:
                await app(scope, receive, send)

        limit = body_limit(settings.audio.max_bytes)
        frame = Frame(
            routed, settings.server, Telemetry(Metrics()), {audio_endpoints.PATH: limit, PATH: limit}
        )
        admin = await stack.enter_async_context(Caller(frame, ADMIN_TOKEN))
        yield Stage(
            db,
            audio_database,
            frame,
            whisper,
            blobs,
            transcriber,
            budgets,
            settings,
            environment,
            stack,
            admin,
        )


@pytest_asyncio.fixture
async def alice(stage: Stage) -> Caller:
    return await stage.caller("alice")


@pytest_asyncio.fixture
async def bob(stage: Stage) -> Caller:
    return await stage.caller("bob")
