"""An API of nothing but tokens and events, on a real socket."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

import uvicorn
from fastapi import FastAPI

from baatcheet.auth import endpoints as auth_endpoints
from baatcheet.auth.access import Door
from baatcheet.auth.rate_limits import RateLimits
from baatcheet.auth.service import Authenticator, Tokens, Users
from baatcheet.events import endpoints as event_endpoints
from baatcheet.events.feed import EventFeed
from baatcheet.events.history import History
from baatcheet.platform import failures
from baatcheet.platform.asgi import Frame
from baatcheet.platform.cache import Cache
from baatcheet.platform.database import Database, connect
from baatcheet.platform.settings import Settings
from baatcheet.platform.telemetry import Metrics, Telemetry
from tests.servers import past_bouncer


@dataclass
class Running:
    """A server of events in this process."""

    url: str
    app: FastAPI
    feed: EventFeed
    server: uvicorn.Server

    def drain(self) -> None:
        """As SIGTERM does."""
        self.feed.drain()
        self.server.should_exit = True


@asynccontextmanager
async def serving(
    settings: Settings, db: Database, *, listens: bool = True, check_every: float = 0.5
) -> AsyncIterator[Running]:
    """Serves until left. `listens` False: as behind a transaction pooler."""
    async with AsyncExitStack() as stack:
        app = FastAPI()
        cache = Cache(settings.cache)
        await cache.start()
        stack.push_async_callback(cache.close)
        metrics = Metrics()
        assert settings.database.url is not None
        feed = EventFeed(
            db,
            partial(connect, past_bouncer(settings.database.url.get_secret_value())) if listens else None,
            metrics=metrics,
            most_streams=settings.events.streams_per_user,
            check_every=check_every,
        )
        state = app.state
        state.settings, state.cache, state.database = settings, cache, db
        state.telemetry = Telemetry(metrics)
        state.rate_limits = RateLimits(settings.auth, cache)
        state.authenticator = authenticator = Authenticator(db)
        state.tokens, state.users = Tokens(db, authenticator), Users(db, authenticator)
        state.events, state.event_history = feed, History(db)
        failures.install(app)
        for router in (auth_endpoints.router, event_endpoints.router):
            app.include_router(router)
        app.add_middleware(Door)
        feed.start()
        stack.push_async_callback(feed.close)
        with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
            config = uvicorn.Config(
                Frame(app, settings.server, state.telemetry),
                lifespan="off",
                log_config=None,
                access_log=False,
                http="httptools",
                ws="none",
                timeout_graceful_shutdown=10,
            )
            server = uvicorn.Server(config)
            server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
            serving_it = asyncio.create_task(server._serve([listener]))
            while not server.started:
                await asyncio.sleep(0.01)
            try:
                url = f"http://127.0.0.1:{listener.getsockname()[1]}"
                yield Running(url, app, feed, server)
            finally:
                feed.drain()
                server.should_exit = True
                await serving_it
