"""An API of conversations, exports and imports on a real socket, and a worker for its jobs."""

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from baatcheet.auth import endpoints as auth_endpoints
from baatcheet.auth.access import Door
from baatcheet.auth.rate_limits import RateLimits
from baatcheet.auth.service import Authenticator, Tokens, Users
from baatcheet.context.counting import count_aside
from baatcheet.context.history import tokens_of
from baatcheet.conversations import endpoints as conversation_endpoints
from baatcheet.conversations.service import Conversations
from baatcheet.exports import endpoints as export_endpoints
from baatcheet.exports.importing import endpoints as import_endpoints
from baatcheet.exports.importing.jobs import ImportParts, import_conversations
from baatcheet.exports.importing.normal import Limits
from baatcheet.exports.importing.service import Imports
from baatcheet.exports.jobs import ExportParts, expire_exports, render_export
from baatcheet.exports.service import Exports
from baatcheet.jobs import endpoints as job_endpoints
from baatcheet.jobs.declaration import BoundKind
from baatcheet.jobs.isolation import Sandbox
from baatcheet.jobs.service import Jobs
from baatcheet.jobs.worker import Rhythm, Worker
from baatcheet.platform import failures
from baatcheet.platform.asgi import Frame
from baatcheet.platform.blobs import Blobs, FolderBlobs
from baatcheet.platform.cache import Cache
from baatcheet.platform.database import Database, connect
from baatcheet.platform.settings import ExportSettings, Settings
from baatcheet.platform.signed_links import SignedLinks
from baatcheet.platform.telemetry import Metrics, Telemetry
from baatcheet.projects import endpoints as project_endpoints
from baatcheet.projects.service import Projects
from tests.servers import past_bouncer

QUICK = Rhythm(beat=0.2, lease=1.0, reap=0.2, tick=0.05, poll=0.3)
LIMITS = Limits(content=2_000_000, parts=4_000_000)


@dataclass
class Running:
    """A server of exports in this process, and what its jobs are made of."""

    url: str
    database_url: str
    db: Database
    folder: Path
    blobs: Blobs
    sandbox: Sandbox
    settings: ExportSettings
    jobs: Jobs

    @property
    def export_parts(self) -> ExportParts:
        return ExportParts(self.db, self.blobs, self.sandbox, self.settings)

    @property
    def import_parts(self) -> ImportParts:
        return ImportParts(self.db, self.blobs, self.sandbox, self.settings, tokens_of, LIMITS)

    def kinds(self) -> list[BoundKind]:
        return [
            render_export.bind(self.export_parts),
            expire_exports.bind(self.export_parts),
            import_conversations.bind(self.import_parts),
        ]

    @asynccontextmanager
    async def working(self, kinds: Sequence[BoundKind] | None = None) -> AsyncIterator[Worker]:
        """A worker, until left."""
        worker = Worker(
            self.db,
            partial(connect, past_bouncer(self.database_url)),
            self.kinds() if kinds is None else kinds,
            rooms={"export": 2, "import": 2},
            rhythm=QUICK,
        )
        await worker.start()
        try:
            yield worker
        finally:
            await worker.stop()


@asynccontextmanager
async def serving(
    settings: Settings, db: Database, database_url: str, folder: Path, exports: ExportSettings
) -> AsyncIterator[Running]:
    """Serves until left."""
    async with AsyncExitStack() as stack:
        cache = Cache(settings.cache)
        await cache.start()
        stack.push_async_callback(cache.close)
        sandbox = await stack.enter_async_context(Sandbox())
        running = Running(
            "",
            database_url,
            db,
            folder,
            FolderBlobs(folder),
            sandbox,
            exports,
            Jobs(db),
        )
        running.jobs = Jobs(db, running.kinds())
        app = FastAPI()
        state = app.state
        state.settings, state.cache, state.database = settings, cache, db
        state.telemetry = Telemetry(Metrics())
        state.rate_limits = RateLimits(settings.auth, cache)
        state.authenticator = authenticator = Authenticator(db)
        stack.push_async_callback(authenticator.close)
        state.tokens, state.users = Tokens(db, authenticator), Users(db, authenticator)
        state.projects = Projects(db)
        state.conversations = Conversations(
            db, count=count_aside, max_message_bytes=settings.server.max_message_bytes
        )
        state.jobs = running.jobs
        state.exports = Exports(db, running.blobs, SignedLinks(db), running.jobs, exports)
        state.imports = Imports(db, running.blobs, exports)
        failures.install(app)
        for router in (
            auth_endpoints.router,
            project_endpoints.router,
            import_endpoints.router,
            conversation_endpoints.router,
            job_endpoints.router,
            export_endpoints.router,
        ):
            app.include_router(router)
        app.add_middleware(Door)
        frame = Frame(app, settings.server, state.telemetry, import_endpoints.body_limits(exports))
        with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
            running.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            config = uvicorn.Config(
                frame, lifespan="off", log_config=None, access_log=False, http="httptools", ws="none"
            )
            server = uvicorn.Server(config)
            server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
            serving_it = asyncio.create_task(server._serve([listener]))
            while not server.started:
                await asyncio.sleep(0.01)
            try:
                yield running
            finally:
                server.should_exit = True
                await serving_it
