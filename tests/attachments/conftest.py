"""A stage for the tests of attachments: an API, a worker and what is elsewhere, on a database of their own."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import msgspec
import pytest
import pytest_asyncio
from fastapi import FastAPI

from baatcheet.attachments import endpoints as attachment_endpoints
from baatcheet.attachments.building import build_parts
from baatcheet.attachments.jobs import AttachmentParts, extract, tidy
from baatcheet.attachments.ocr.availability import Tessdata, find_tessdata
from baatcheet.attachments.ocr.ocr_space import PROVIDER as OCR_SPACE
from baatcheet.attachments.service import PATH, Attachments
from baatcheet.auth import endpoints as auth_endpoints
from baatcheet.auth.access import Door
from baatcheet.auth.bootstrap import ensure_admin
from baatcheet.auth.rate_limits import RateLimits
from baatcheet.auth.service import Authenticator, Tokens, Users
from baatcheet.budgets.admission import Budgets
from baatcheet.context.counting import count_aside
from baatcheet.context.tokenizers import Tokenizers
from baatcheet.conversations import endpoints as conversation_endpoints
from baatcheet.conversations.service import Conversations
from baatcheet.entrypoints.contexts import build_context
from baatcheet.entrypoints.keyring import keys_of_environment
from baatcheet.entrypoints.streaming import StreamingRoutes, build_chat
from baatcheet.jobs import endpoints as job_endpoints
from baatcheet.jobs.isolation import Sandbox
from baatcheet.jobs.service import Fleet, Jobs
from baatcheet.jobs.worker import Rhythm, Worker
from baatcheet.keys.pools import pools_with
from baatcheet.kit.ids import new_id
from baatcheet.platform import failures, openapi
from baatcheet.platform.asgi import Frame
from baatcheet.platform.blobs import FolderBlobs
from baatcheet.platform.cache import Cache
from baatcheet.platform.database import Database, connect
from baatcheet.platform.http import client_session
from baatcheet.platform.settings import Settings, load
from baatcheet.platform.telemetry import Metrics, Telemetry
from baatcheet.platform.uploads import body_limit
from baatcheet.providers.catalogue import build_catalogue
from tests.attachments.fakes import FakeModels, FakeOcrSpace
from tests.conftest import ADMIN_TOKEN, database_on
from tests.servers import at, past_bouncer

QUICK = Rhythm(beat=0.2, lease=1.0, reap=0.2, tick=0.05, poll=0.3)
ENDED = {"succeeded", "dead", "cancelled"}
BASE = "http://stage"


@pytest.fixture(scope="session")
def tessdata() -> Tessdata:
    """Tesseract's data for all four languages."""
    found = find_tessdata(None, Path("data"))
    if found is None or len(found.languages) < 4:
        pytest.skip("there is no data of Tesseract's for all four languages: run scripts/ocr-data")
    return found


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def sandbox() -> AsyncIterator[Sandbox]:
    """One for all tests: its children have loaded what they need."""
    async with Sandbox(processes=2) as made:
        yield made


@pytest.fixture(scope="session")
def attachment_database(services: Mapping[str, str], template: str) -> Iterator[str]:
    """Nobody else's worker takes jobs from here."""
    with database_on(services["DATABASE_URL"], template) as url:
        ensure_admin(url, load({"BAATCHEET_ADMIN_TOKEN": ADMIN_TOKEN}, dotenv=None).auth)
        yield url


class Caller(httpx.AsyncClient):
    """A user of the stage."""

    def __init__(self, app: Any, token: str) -> None:
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        super().__init__(
            transport=transport, base_url=BASE, headers={"authorization": f"Bearer {token}"}, timeout=60
        )

    async def upload(self, data: bytes, name: str = "page.png", *, key: str | None = None) -> httpx.Response:
        headers = {} if key is None else {"idempotency-key": key}
        return await self.post(PATH, files={"file": (name, data)}, headers=headers)

    async def uploaded(self, data: bytes, name: str = "page.png") -> dict[str, Any]:
        answer = await self.upload(data, name)
        assert answer.status_code == 202, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def ended(self, job_id: str, seconds: float = 90) -> dict[str, Any]:
        """The job, once it has ended."""
        async with asyncio.timeout(seconds):
            while (job := (await self.get(f"/api/v1/jobs/{job_id}")).json())["status"] not in ENDED:
                await asyncio.sleep(0.02)
        found: dict[str, Any] = job
        return found

    async def read(self, data: bytes, name: str = "page.png") -> dict[str, Any]:
        """The attachment, once its job has ended."""
        made = await self.uploaded(data, name)
        await self.ended(made["job"]["id"])
        return await self.attachment(made["attachment"]["id"])

    async def attachment(self, attachment_id: str) -> dict[str, Any]:
        answer = await self.get(f"{PATH}/{attachment_id}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found


@dataclass
class Stage:
    """Everything there is."""

    db: Database
    url: str
    app: Any
    blobs: FolderBlobs
    parts: AttachmentParts
    sandbox: Sandbox
    settings: Settings
    models: FakeModels
    ocr_space: FakeOcrSpace
    stack: AsyncExitStack
    admin: Caller
    workers: list[Worker] = field(default_factory=list)

    async def caller(self, name: str) -> Caller:
        made = await self.admin.post("/api/v1/users", json={"name": name})
        assert made.status_code == 201, made.text
        token = await self.admin.post("/api/v1/tokens", json={"name": name, "user_id": made.json()["id"]})
        assert token.status_code == 201, token.text
        return await self.stack.enter_async_context(Caller(self.app, token.json()["token"]))

    async def work(self) -> Worker:
        """A worker, until the test ends."""
        worker = Worker(
            self.db,
            partial(connect, past_bouncer(self.url)),
            [extract.bind(self.parts), tidy.bind(self.parts)],
            rooms={"ocr": 2},
            rhythm=QUICK,
        )
        await worker.start()
        self.stack.push_async_callback(worker.stop)
        return worker

    async def events(self, attachment_id: str) -> list[dict[str, Any]]:
        """What was recorded of an attachment, in order."""
        async with self.db.hot() as connection:
            rows = await connection.fetch(
                "SELECT data::text FROM outbox WHERE type = 'image.ocr_completed' "
                "AND data->>'attachment_id' = $1 ORDER BY place",
                attachment_id,
            )
        return [msgspec.json.decode(row[0]) for row in rows]

    async def forget_users(self) -> None:
        """Whoever a test made, and with them what waits in the queue."""
        async with self.db.hot() as connection:
            await connection.execute("DELETE FROM jobs WHERE queue = 'ocr' AND status <> 'running'")


@pytest.fixture
def attachment_settings() -> dict[str, str]:
    """Settings of the stage that a test module has otherwise."""
    return {}


@pytest_asyncio.fixture
async def models() -> AsyncIterator[FakeModels]:
    async with FakeModels() as provider:
        yield provider


@pytest_asyncio.fixture
async def ocr_space() -> AsyncIterator[FakeOcrSpace]:
    async with FakeOcrSpace() as server:
        yield server


@pytest_asyncio.fixture
async def stage(
    services: Mapping[str, str],
    attachment_database: str,
    attachment_settings: dict[str, str],
    models: FakeModels,
    ocr_space: FakeOcrSpace,
    sandbox: Sandbox,
    tmp_path: Path,
) -> AsyncIterator[Stage]:
    settings = load(
        {
            **at(services, attachment_database),
            "OLLAMA_HOST": "",
            "OPENAI_BASE_URL": models.base_url,
            "OPENAI_API_KEY": "sk-fake",
            "BAATCHEET_DATA_DIR": str(tmp_path),
            "BAATCHEET_ADMIN_TOKEN": ADMIN_TOKEN,
            "BAATCHEET_OCR_ENGINES": "tesseract",
            "BAATCHEET_OCR_SPACE_URL": ocr_space.address,
            "BAATCHEET_ATTACHMENT_WAIT_SECONDS": "30",
            **attachment_settings,
        },
        dotenv=None,
    )
    async with AsyncExitStack() as stack:
        db = Database(settings.database, pool_size=8, name="attachment tests")
        stack.push_async_callback(db.close)
        cache = Cache(settings.cache)
        await cache.start()
        stack.push_async_callback(cache.close)
        session = await stack.enter_async_context(client_session())
        catalogue = build_catalogue(settings.providers, session, pools_with(keys_of_environment(settings)))
        stack.push_async_callback(catalogue.close)
        blobs = FolderBlobs(tmp_path / "files")
        parts = build_parts(
            settings.attachments,
            db=db,
            blobs=blobs,
            sandbox=sandbox,
            session=session,
            catalogue=catalogue,
            data_dir=tmp_path,
        )
        app = FastAPI(generate_unique_id_function=openapi.operation_id)
        failures.install(app)
        for router in (
            auth_endpoints.router,
            conversation_endpoints.router,
            job_endpoints.router,
            attachment_endpoints.router,
            attachment_endpoints.engines_router,
        ):
            app.include_router(router)
        app.add_middleware(Door)
        state = app.state
        state.settings, state.database, state.cache = settings, db, cache
        state.rate_limits = RateLimits(settings.auth, cache)
        state.authenticator = authenticator = Authenticator(db)
        stack.push_async_callback(authenticator.close)
        state.tokens, state.users = Tokens(db, authenticator), Users(db, authenticator)
        state.conversations = Conversations(
            db, count=count_aside, max_message_bytes=settings.server.max_message_bytes
        )
        state.jobs, state.fleet = Jobs(db, [extract.bind(parts)]), Fleet(db, lease=1)
        state.attachments = attachments = Attachments(
            db, blobs, state.jobs, settings.attachments, tmp_path, ocr_space=catalogue.pools.of(OCR_SPACE)
        )
        context = build_context(
            settings.context, db=db, cache=cache, catalogue=catalogue, tokenizers=Tokenizers()
        )
        stack.push_async_callback(context.close, 1.0)
        state.streaming = chat = build_chat(
            settings,
            db=db,
            cache=cache,
            catalogue=catalogue,
            context=context,
            authenticator=authenticator,
            limits=state.rate_limits,
            process=new_id(),
            metrics=Metrics(),
            budgets=Budgets(db),
            attachments=attachments,
        )
        await chat.start()
        stack.push_async_callback(chat.stop, 0.5, lambda: 1.0)
        frame = Frame(
            StreamingRoutes(app, state),
            settings.server,
            Telemetry(Metrics()),
            {PATH: body_limit(attachments.limits)},
        )
        admin = await stack.enter_async_context(Caller(frame, ADMIN_TOKEN))
        made = Stage(
            db, attachment_database, frame, blobs, parts, sandbox, settings, models, ocr_space, stack, admin
        )
        yield made
        await made.forget_users()


@pytest_asyncio.fixture
async def alice(stage: Stage) -> Caller:
    return await stage.caller("alice")


@pytest_asyncio.fixture
async def bob(stage: Stage) -> Caller:
    return await stage.caller("bob")


def id_of(made: Mapping[str, Any]) -> UUID:
    return UUID(made["attachment"]["id"])
