"""The chat's parts put together, and the paths at which its plain ASGI endpoints answer."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

from starlette.types import ASGIApp

from baatcheet.attachments.service import Attachments
from baatcheet.auth.rate_limits import RateLimits
from baatcheet.auth.service import Authenticator
from baatcheet.budgets.admission import Budgets
from baatcheet.chat import openapi as chat_openapi
from baatcheet.chat.attaching import Attaching
from baatcheet.chat.endpoints import ChatApi
from baatcheet.chat.keeper import Keeper
from baatcheet.chat.relay import Relay
from baatcheet.chat.service import ChatService
from baatcheet.chat.serving import Gate
from baatcheet.chat.store import TurnStore
from baatcheet.context.manager import ContextManager
from baatcheet.openai_api import audio as openai_audio
from baatcheet.openai_api import openapi as openai_openapi
from baatcheet.openai_api.endpoints import OpenAiApi
from baatcheet.platform.asgi import ROUTE, Receive, Scope, Send
from baatcheet.platform.cache import Cache
from baatcheet.platform.database import Database, connect
from baatcheet.platform.errors import MethodNotAllowed
from baatcheet.platform.logging import get_logger
from baatcheet.platform.settings import Settings
from baatcheet.platform.telemetry import Metrics
from baatcheet.providers.catalogue import Catalogue
from baatcheet.providers.routing.router import Router

CONNECT_TIMEOUT = 3.0  # seconds, of the connection that renews the lease
log = get_logger(__name__)

Endpoint = Callable[[Scope, Receive, Send], Awaitable[None]]


@dataclass(frozen=True)
class Chat:
    """What runs turns in this process."""

    service: ChatService
    native: ChatApi
    openai: OpenAiApi
    keeper: Keeper
    relay: Relay
    store: TurnStore

    async def start(self) -> None:
        await self.keeper.start()
        self.relay.start(self.service)

    async def stop(self, grace: float, settling: Callable[[], float]) -> None:
        """Let running turns end within `grace` seconds, mark the rest interrupted, leave in good order.

        `settling` tells how many seconds a step after that may take: the database or Redis may be away.
        """
        await _within(grace + settling(), self.service.drain(grace), "drain")
        await _within(settling(), self.relay.stop(), "relay")
        await _within(settling(), self.keeper.stop(), "keeper")
        await _within(settling(), self.store.close_lanes(), "store")


def build_chat(
    settings: Settings,
    *,
    db: Database,
    cache: Cache,
    catalogue: Catalogue,
    context: ContextManager,
    authenticator: Authenticator,
    limits: RateLimits,
    process: UUID,
    metrics: Metrics,
    budgets: Budgets,
    attachments: Attachments | None = None,
    router: Router | None = None,
) -> Chat:
    """`router`: finds the models; the catalogue alone, without routes, unless given."""
    assert settings.database.url is not None
    store = TurnStore(db, partial(connect, settings.database.url.get_secret_value(), timeout=CONNECT_TIMEOUT))
    attaching = Attaching(attachments, settings.server.max_message_bytes)
    service = ChatService(
        store=store,
        catalogue=router or catalogue,
        seeing=router.for_task("vision") if router is not None else None,
        context=context,
        process=process,
        spend=limits.spend_tokens,
        metrics=metrics,
        attaching=attaching,
        budgets=budgets,
        truncation=settings.context.truncation,
    )
    gate = Gate(authenticator, limits)
    return Chat(
        service=service,
        native=ChatApi(gate=gate, chat=service, store=store, server=settings.server, attaching=attaching),
        openai=OpenAiApi(
            gate=gate,
            chat=service,
            catalogue=router or catalogue,
            server=settings.server,
            attaching=attaching,
            routes=router,
        ),
        keeper=Keeper(store, process, kind="api", pool_size=db.pool_size, chat=service),
        relay=Relay(store, cache),
        store=store,
    )


async def _within(seconds: float, work: Awaitable[None], name: str) -> None:
    """Wait for `work` that long, and then go on without it."""
    try:
        async with asyncio.timeout(seconds):
            await work
    except TimeoutError:
        log.warning("chat.stopped_without", part=name)


class StreamingRoutes:
    """Answers the chat's paths itself and hands everything else to the REST application."""

    def __init__(self, app: ASGIApp, state: Any) -> None:
        self._app = app
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            found = self._find(scope["path"])
            if found is not None:
                method, template, endpoint = found
                scope[ROUTE] = template
                if scope["method"] != method:
                    raise MethodNotAllowed(f"Use {method}.", headers={"allow": method})
                await endpoint(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _find(self, path: str) -> tuple[str, str, Endpoint] | None:
        chat: Chat = self._state.streaming
        match path:
            case "/v1/chat/completions":
                return "POST", path, chat.openai.chat_completions
            case "/v1/models":
                return "GET", path, chat.openai.models
            case "/v1/embeddings":
                return "POST", path, chat.openai.embeddings
            case "/v1/audio/transcriptions":
                return "POST", path, self._state.transcriptions.transcriptions
            case "/api/v1/chat/completions":
                return "POST", path, chat.native.completions
            case "/api/v1/chat/regenerate":
                return "POST", path, chat.native.regenerate
            case "/api/v1/chat/edit":
                return "POST", path, chat.native.edit
        if path.startswith("/v1/models/"):
            return "GET", "/v1/models/{model}", chat.openai.model
        if path.startswith("/api/v1/turns/") and path.endswith("/events") and path.count("/") == 5:
            return "GET", "/api/v1/turns/{turn_id}/events", chat.native.events
        return None


def describe(document: dict[str, Any]) -> None:
    """Add the streaming endpoints to the OpenAPI document."""
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    document["paths"] |= (
        chat_openapi.paths(schemas) | openai_openapi.paths(schemas) | openai_audio.paths(schemas)
    )
