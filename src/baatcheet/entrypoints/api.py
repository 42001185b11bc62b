"""The API process: what it is made of, and running it (`python -m baatcheet.entrypoints.api`)."""

import argparse
import asyncio
import gc
import socket
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from hashlib import sha256
from types import FrameType
from typing import Any

import uvicorn
from aiohttp import ClientSession
from fastapi import FastAPI
from fastapi.responses import HTMLResponse, JSONResponse

from baatcheet import __version__
from baatcheet.analytics import endpoints as analytics_endpoints
from baatcheet.attachments import endpoints as attachment_endpoints
from baatcheet.audio import endpoints as audio_endpoints
from baatcheet.auth import endpoints as auth_endpoints
from baatcheet.auth import idempotency
from baatcheet.auth.access import Door
from baatcheet.auth.guard import FailureGuard
from baatcheet.auth.identities import Identities
from baatcheet.auth.oidc.verifying import Verifier, providers_of
from baatcheet.auth.rate_limits import FailureLimit, RateLimits
from baatcheet.auth.service import Authenticator, Tokens, Users
from baatcheet.budgets import endpoints as budget_endpoints
from baatcheet.budgets.admission import Budgets
from baatcheet.budgets.service import Budgeting
from baatcheet.chat import context_endpoints, token_counts, turns
from baatcheet.chat.serving import Gate
from baatcheet.console import endpoints as console_endpoints
from baatcheet.console.jobs.results import opens_exports
from baatcheet.context.calibration_keeper import CalibrationKeeper
from baatcheet.context.counting import count_aside, warm_up
from baatcheet.context.recents import cache_key
from baatcheet.context.tokenizers import Tokenizers
from baatcheet.conversations import endpoints as conversation_endpoints
from baatcheet.conversations.service import Conversations
from baatcheet.entrypoints import health as health_endpoints
from baatcheet.entrypoints.contexts import build_context
from baatcheet.entrypoints.features import Shared, body_limits, install_services, share
from baatcheet.entrypoints.keeping import build_keys
from baatcheet.entrypoints.keyring import open_ring
from baatcheet.entrypoints.notices import direct_connection, hears_notices
from baatcheet.entrypoints.refusal import refuse
from baatcheet.entrypoints.routing import open_routing
from baatcheet.entrypoints.streaming import StreamingRoutes, build_chat, describe
from baatcheet.events import endpoints as event_endpoints
from baatcheet.events.feed import EventFeed
from baatcheet.events.history import History
from baatcheet.exports import endpoints as export_endpoints
from baatcheet.exports.importing import endpoints as import_endpoints
from baatcheet.exports.jobs import render_export
from baatcheet.jobs import endpoints as job_endpoints
from baatcheet.jobs.depth import keep_measured
from baatcheet.keys import endpoints as key_endpoints
from baatcheet.kit.ids import new_id
from baatcheet.notifications import endpoints as notification_endpoints
from baatcheet.openai_api.audio import AudioApi
from baatcheet.platform import failures, logging, openapi
from baatcheet.platform.asgi import Frame
from baatcheet.platform.cache import Cache
from baatcheet.platform.database import Database, UnusableDatabaseUrl
from baatcheet.platform.health import Health
from baatcheet.platform.http import client_session
from baatcheet.platform.listening import admit_nobody_new
from baatcheet.platform.logging import get_logger
from baatcheet.platform.pool import plan_pool
from baatcheet.platform.settings import Settings, SettingsError, load
from baatcheet.platform.signed_links import SignedLinks
from baatcheet.platform.telemetry import Metrics, Sampler, Telemetry, connect_tracer
from baatcheet.projects import endpoints as project_endpoints
from baatcheet.projects.service import Projects
from baatcheet.providers.catalogue import AUTO, Catalogue, UnknownModel, build_catalogue
from baatcheet.providers.observed import Observed
from baatcheet.providers.routing import endpoints as route_endpoints
from baatcheet.providers.routing.latency import Latencies
from baatcheet.providers.routing.router import Router
from baatcheet.retention import endpoints as retention_endpoints
from baatcheet.retention.service import Deletions
from baatcheet.search import endpoints as search_endpoints
from baatcheet.search.service import Search
from baatcheet.webhooks import endpoints as webhook_endpoints

log = get_logger(__name__)

ROUTERS = (
    auth_endpoints.router,
    budget_endpoints.router,
    analytics_endpoints.router,
    retention_endpoints.router,
    project_endpoints.router,
    conversation_endpoints.router,
    search_endpoints.router,
    context_endpoints.router,
    token_counts.router,
    turns.router,
    job_endpoints.router,
    event_endpoints.router,
    attachment_endpoints.router,
    attachment_endpoints.engines_router,
    audio_endpoints.router,
    import_endpoints.router,
    export_endpoints.router,
    webhook_endpoints.router,
    notification_endpoints.router,
    route_endpoints.router,
    key_endpoints.router,
    health_endpoints.router,
    console_endpoints.router,
)

TAGS = [
    {"name": "chat", "description": "Say something and get a reply, streamed or not."},
    {"name": "turns", "description": "A turn is one question and its answer. It belongs to the server."},
    {"name": "openai", "description": "What OpenAI's clients call."},
    {"name": "me", "description": "Who is asking."},
    {"name": "conversations", "description": "A conversation is a tree of messages with an active branch."},
    {"name": "messages", "description": "What was said."},
    {"name": "projects", "description": "Folders of conversations."},
    search_endpoints.TAG,
    attachment_endpoints.TAG,
    {"name": "audio", "description": "Recordings, and what is said in them."},
    {"name": "exports", "description": "Taking conversations away, and bringing them."},
    {"name": "webhooks", "description": "Telling other servers what has happened."},
    {"name": "notifications", "description": "What a user is told."},
    {"name": "events", "description": "What happens, as it happens."},
    {"name": "jobs", "description": "Work that is done in the background."},
    route_endpoints.TAG,
    {"name": "tokens", "description": "What programs come in with."},
    {"name": "users", "description": "Administrators only."},
    budget_endpoints.TAG,
    analytics_endpoints.TAG,
    retention_endpoints.TAG,
    key_endpoints.TAG,
    health_endpoints.TAG,
]

DESCRIPTION = (
    "Every list is paged: ask again with cursor=next_cursor until has_more is false. "
    "Every POST that creates takes an Idempotency-Key. Errors are problem details (RFC 9457)."
)

SETTLING = 5  # seconds after the grace period in which interrupted turns are recorded and connections closed
LAST_CALL = 0.5  # seconds in which open connections are served on, so that no request is lost on its way
# Longer than load balancers keep idle connections (60 s by default): of the two, the one that closes must not be the
# one that may be sent a request just then.
KEEP_ALIVE = 75
LAST_WORD = 0.5  # seconds that each part may still take to leave in good order once these are over

# The page carries its own style sheet and needs nothing else.
_STYLE_HASH = b64encode(sha256(openapi.STYLE.encode()).digest()).decode()
_DOCS_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; frame-ancestors 'none'"
)


class Api(FastAPI):
    """FastAPI, with our own OpenAPI document."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            describe(openapi.document(self))
        return openapi.document(self)


def create_app(settings: Settings) -> FastAPI:
    """The REST application. Its parts are made when it starts, and are on `app.state` from then on."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        try:
            async with AsyncExitStack() as stack:
                await _open(app, settings, stack)
                yield
        except (SettingsError, UnusableDatabaseUrl) as error:
            refuse(error)

    app = Api(
        title="BaatCheet",
        version=__version__,
        summary="A self-hosted AI-chat backend.",
        description=DESCRIPTION,
        openapi_tags=TAGS,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=openapi.operation_id,
        lifespan=lifespan,
    )
    app.state.grace = Grace()
    app.state.telemetry = Telemetry(Metrics())
    app.state.cache = Cache(settings.cache)
    failures.install(app)
    for router in ROUTERS:
        app.include_router(router)
    app.add_api_route("/api/openapi.json", _document(app), include_in_schema=False)
    app.add_api_route("/api/docs", _docs(app), include_in_schema=False)
    app.add_middleware(Door)
    return app


async def _open(app: FastAPI, settings: Settings, stack: AsyncExitStack) -> None:
    """Make the parts, in the order in which they need each other; `stack` closes them in reverse."""
    state = app.state
    state.settings = settings
    db = await _open_database(app, settings, stack)
    settling: Callable[[], float] = state.grace.settling
    cache: Cache = state.cache
    await cache.start()
    stack.push_async_callback(cache.close)
    state.rate_limits = RateLimits(settings.auth, cache)
    session = await stack.enter_async_context(client_session())
    state.authenticator = authenticator = Authenticator(db, _open_identities(settings, db, session, stack))
    stack.push_async_callback(lambda: authenticator.close(patience=settling()))
    state.tokens = Tokens(db, authenticator)
    state.users = Users(db, authenticator)
    state.budgeting, state.budgets = Budgeting(db), Budgets(db)
    await state.budgets.start()
    stack.push_async_callback(lambda: state.budgets.close(patience=settling()))
    state.projects = Projects(db)
    state.conversations = Conversations(
        db,
        count=count_aside,
        max_message_bytes=settings.server.max_message_bytes,
        forget=lambda conversation: cache.delete(cache_key(conversation)),
    )
    state.search = search = Search(db)
    stack.push_async_callback(search.close)
    telemetry: Telemetry = state.telemetry
    if telemetry.tracer is not None:
        stack.push_async_callback(asyncio.to_thread, telemetry.tracer.close)
    catalogue, router = await _open_models(app, settings, session, stack)
    shared = _open_features(app, settings, catalogue, router, stack)
    state.health = health = Health(
        db, cache, providers=lambda: [provider.name for provider in catalogue.providers]
    )
    stack.push_async_callback(health.close)
    sampler = Sampler(telemetry.metrics, pool=db.pool_use, cache_available=lambda: cache.available)
    sampler.start()
    stack.push_async_callback(sampler.close)
    state.tokenizers = tokenizers = Tokenizers()
    calibrations = CalibrationKeeper(tokenizers, db)
    await calibrations.start()
    stack.push_async_callback(calibrations.close)
    state.context = context = build_context(
        settings.context, db=db, cache=cache, catalogue=router, tokenizers=tokenizers
    )
    stack.push_async_callback(lambda: context.close(settling()))
    state.streaming = chat = build_chat(
        settings,
        db=db,
        cache=cache,
        catalogue=catalogue,
        router=router,
        context=context,
        attachments=state.attachments,
        authenticator=authenticator,
        limits=state.rate_limits,
        process=new_id(),
        metrics=telemetry.metrics,
        budgets=state.budgets,
    )
    state.transcriptions = AudioApi(
        gate=Gate(authenticator, state.rate_limits),
        direct=state.direct_transcriber,
        blobs=shared.blobs,
        budgets=state.budgets,
    )
    state.chat = chat.service
    warm_up()
    calm_collector()
    await chat.start()
    stack.push_async_callback(lambda: chat.stop(state.grace.left(), settling))
    _in_background(stack, authenticator.run(), "token_uses")
    _in_background(stack, idempotency.keep_tidy(db), "idempotency_keys")
    _in_background(stack, keep_measured(db, telemetry.metrics.jobs), "job_depth")
    default = settings.providers.default_model
    if default not in {None, AUTO}:
        _in_background(stack, _look_for_default(router, default), "default_model")


async def _open_database(app: FastAPI, settings: Settings, stack: AsyncExitStack) -> Database:
    """The process's pool, its size kept up to date. Raises SettingsError, UnusableDatabaseUrl."""
    plan = await plan_pool(settings.database, settings.server.processes + settings.jobs.workers)
    most, warm = plan.first
    app.state.database = db = Database(
        settings.database, pool_size=most, name="baatcheet api", warm=warm, divide=plan.share
    )
    stack.push_async_callback(lambda: db.close(patience=app.state.grace.settling()))
    _in_background(stack, db.keep(), "database_pool")
    return db


def _open_identities(
    settings: Settings, db: Database, session: ClientSession, stack: AsyncExitStack
) -> Identities | None:
    """What takes tokens of OpenID providers, where there are any. Raises SettingsError."""
    providers = providers_of(settings.auth)
    if not providers:
        return None
    verifier = Verifier(providers, session)
    _in_background(stack, verifier.run(), "oidc_keys")
    return Identities(db, verifier)


async def _open_models(
    app: FastAPI, settings: Settings, session: ClientSession, stack: AsyncExitStack
) -> tuple[Catalogue, Router]:
    """The providers with their keys, and the routes in front of them. Raises SettingsError."""
    state, telemetry, latencies = app.state, app.state.telemetry, Latencies()
    state.key_ring = ring = await open_ring(
        settings, state.database, stack, telemetry.metrics, patience=state.grace.settling
    )
    catalogue = build_catalogue(
        settings.providers, session, ring.pools, observe=lambda one: Observed(one, telemetry, latencies)
    )
    stack.push_async_callback(catalogue.close)
    routing = await open_routing(
        settings, state.database, catalogue, stack, latencies=latencies, prices=state.budgets.prices
    )
    state.keys = build_keys(settings, state.database, ring, catalogue, session)
    state.routes = routing.service
    state.catalogue = routing.router
    return catalogue, routing.router


def _open_features(
    app: FastAPI, settings: Settings, catalogue: Catalogue, router: Router, stack: AsyncExitStack
) -> Shared:
    """What has background work, what tells of it, and the console that shows it."""
    state = app.state
    shared = share(settings, state.database, catalogue, stack, router)
    install_services(app, shared)
    state.deletions = Deletions(shared.db, state.authenticator, SignedLinks(shared.db))
    state.events = events = EventFeed(
        shared.db,
        direct_connection(settings) if hears_notices(settings, shared.db) else None,
        metrics=state.telemetry.metrics,
        most_streams=settings.events.streams_per_user,
    )
    events.start()
    stack.push_async_callback(events.close)
    state.event_history = History(shared.db)
    console_endpoints.install(app, settings.console, {render_export.name: opens_exports(state.exports)})
    return shared


async def _look_for_default(catalogue: Router, default: str | None) -> None:
    """A provider may list it yet, so it is no reason not to start; until then, a chat that names no model fails."""
    try:
        await catalogue.resolve(default)
    except UnknownModel as error:
        log.warning("models.default_unknown", setting="BAATCHEET_DEFAULT_MODEL", reason=str(error))


def _in_background(stack: AsyncExitStack, work: Coroutine[Any, Any, None], name: str) -> None:
    """Run `work` until the application ends."""
    task = asyncio.create_task(work, name=name)

    def tell(ended: asyncio.Task[None]) -> None:
        if not ended.cancelled() and (error := ended.exception()) is not None:
            log.error("background.died", error=error, work=name)

    async def end() -> None:
        task.cancel()
        await asyncio.wait([task], timeout=LAST_WORD)

    task.add_done_callback(tell)
    stack.push_async_callback(end)


def _document(app: FastAPI) -> Any:
    async def show() -> JSONResponse:
        return JSONResponse(app.openapi())

    return show


def _docs(app: FastAPI) -> Any:
    async def show() -> HTMLResponse:
        return HTMLResponse(openapi.page(app.openapi()), headers={"content-security-policy": _DOCS_POLICY})

    return show


def frame(app: FastAPI, settings: Settings, telemetry: Telemetry) -> Frame:
    """The whole application: the frame around the streaming endpoints and the REST application."""
    guarded = FailureGuard(StreamingRoutes(app, app.state), FailureLimit(app.state.cache))
    return Frame(guarded, settings.server, telemetry, body_limits(settings))


def calm_collector() -> None:
    """Let the garbage collector look less often, and never again at what start-up made.

    Measured: at its defaults it takes 8 % of a busy process; almost nothing here is a cycle.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


class Grace:
    """The time that running turns are given after SIGTERM."""

    def __init__(self) -> None:
        self._until: float | None = None

    @property
    def begun(self) -> bool:
        return self._until is not None

    def begin(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds

    def end(self) -> None:
        self._until = time.monotonic()

    def left(self) -> float:
        """Seconds; 0 when nobody asked to stop."""
        return max(0.0, self._until - time.monotonic()) if self._until is not None else 0.0

    def settling(self) -> float:
        """Seconds that a part may take to leave in good order: what is left until `SETTLING` after the grace."""
        if self._until is None:
            return float(SETTLING)
        return max(LAST_WORD, self._until + SETTLING - time.monotonic())


class Server(uvicorn.Server):
    """Gives running turns the grace period when it is told to stop, and lets their followers see the end."""

    def __init__(self, config: uvicorn.Config, app: FastAPI, whole: Frame, grace: float) -> None:
        super().__init__(config)
        self._app = app
        self._whole = whole
        self._grace = grace

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._last_call(sockets or [])
        self._end_turns()
        await super().shutdown(sockets)

    async def _last_call(self, sockets: list[socket.socket]) -> None:
        """Accept nobody more, and serve whoever has come, or is about to ask on a connection that is open.

        Until they are told so, clients and load balancers do not know that we stop; a request that comes just as its
        connection is closed would be lost.
        """
        if sockets:  # others listen on them too: who waits is theirs
            self._listen_no_more(sockets)
        else:
            for one in [one for each in self.servers for one in each.sockets]:
                admit_nobody_new(one.fileno())
        for _ in range(2):  # rounds of the loop, in which all that wait to be accepted are
            await asyncio.sleep(0)
        grace = self._app.state.grace
        over = time.monotonic() + LAST_CALL
        while self.server_state.connections and time.monotonic() < over and grace.left() > 0:  # noqa: ASYNC110 - uvicorn's
            await asyncio.sleep(0.01)

    def _listen_no_more(self, sockets: list[socket.socket]) -> None:
        for listening in self.servers:
            listening.close()
        for one in sockets:
            one.close()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        grace = self._app.state.grace
        if grace.begun:  # asked twice: at once, but in good order
            grace.end()
        else:
            grace.begin(self._grace)
            # Not through super(): it would raise the signal again at the end, and a clean stop exits with 0.
            self.should_exit = True
        health = getattr(self._app.state, "health", None)
        if health is not None:
            health.drain()
            self._loop.call_soon_threadsafe(self._whole.drain)
            if grace.left() <= 0:
                self._loop.call_soon_threadsafe(self._end_turns)

    def _end_turns(self) -> None:
        """Begin no turn any more, and give those that run what is left of the grace."""
        state = self._app.state
        if (events := getattr(state, "events", None)) is not None:
            events.drain()
        if (chat := getattr(state, "streaming", None)) is not None:
            asyncio.ensure_future(chat.service.drain(state.grace.left()))  # noqa: RUF006 - it holds its own tasks


def server(settings: Settings, app: FastAPI, telemetry: Telemetry) -> Server:
    """The server as we run it: no access log (ours has the request's id), and the grace period on SIGTERM."""
    grace = settings.server.grace_seconds
    app.state.telemetry = telemetry
    whole = frame(app, settings, telemetry)
    return Server(
        uvicorn.Config(
            whole,
            host=settings.server.host,
            port=settings.server.port,
            loop="uvloop",
            http="httptools",
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=round(grace) + SETTLING,
        ),
        app,
        whole,
        grace,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="One API process. `baatcheet serve` runs these.")
    parser.add_argument("--fd", type=int, help="a listening socket that was inherited")
    parser.add_argument("--port", type=int, help="a port to listen on instead (BAATCHEET_PORT)")
    arguments = parser.parse_args()
    try:
        _run(arguments.fd, arguments.port)
    except (SettingsError, UnusableDatabaseUrl) as error:
        refuse(error)


def _run(fd: int | None, port: int | None) -> None:
    settings = load()
    if port is not None:
        listening = settings.server.model_copy(update={"port": port})
        settings = settings.model_copy(update={"server": listening})
    logging.configure(settings.telemetry)
    logging.register_secrets(settings)
    inherited = [socket.socket(fileno=fd)] if fd is not None else None
    telemetry = Telemetry(Metrics(), connect_tracer(settings.telemetry.otlp_endpoint))
    server(settings, create_app(settings), telemetry).run(sockets=inherited)


if __name__ == "__main__":
    main()
