"""The plain ASGI endpoints that stream turns: what the native and the OpenAI surface share."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol, TypeVar

from baatcheet.auth.principal import Principal
from baatcheet.auth.rate_limits import RateLimits
from baatcheet.auth.service import Authenticator
from baatcheet.chat.feed import TurnFeed
from baatcheet.kit import sse
from baatcheet.platform.asgi import Disconnected, DisconnectWatch, Receive, Scope, Send
from baatcheet.providers.model import Chunk

Result = TypeVar("Result")

CONVERSATION_HEADER = "x-baatcheet-conversation"
TURN_HEADER = "x-baatcheet-turn"
STREAM_HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache, no-transform",
    "x-accel-buffering": "no",
}


def headers_of(scope: Scope) -> dict[str, str]:
    """The request's headers by lower-case name; of a repeated one, the last."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


def turn_headers(feed: TurnFeed) -> dict[str, str]:
    """What an answer says of its turn before its body."""
    headers = {TURN_HEADER: str(feed.identity.id)}
    if feed.identity.conversation_id is not None:
        headers[CONVERSATION_HEADER] = str(feed.identity.conversation_id)
    if feed.joined:
        headers["idempotent-replayed"] = "true"
    return headers


class Gate:
    """Lets a request in: who is asking, may they, and have they asked too often."""

    def __init__(self, authenticator: Authenticator, limits: RateLimits) -> None:
        self._authenticator = authenticator
        self._limits = limits

    async def admit(
        self, scope: Scope, headers: Mapping[str, str], needs: str
    ) -> tuple[Principal, dict[str, str]]:
        """The caller, and the rate-limit headers of the answer.

        Raises Unauthenticated, Forbidden, RateLimited, DatabaseUnavailable.
        """
        who = await self._authenticator.authenticate(headers.get("authorization"))
        who.require(needs)
        state = await self._limits.check(who.token_id)
        return who, state.headers()


class Rendering(Protocol):
    """How one surface puts a turn's events on the wire."""

    def start(self, feed: TurnFeed, after: int) -> bytes:
        """What comes before the first chunk."""
        ...

    def chunks(self, feed: TurnFeed, first: int, chunks: Sequence[Chunk]) -> bytes:
        """Chunks, the first of which is event number `first`."""
        ...

    def end(self, feed: TurnFeed) -> bytes:
        """How it ended."""
        ...


@asynccontextmanager
async def listening(
    receive: Receive, on_leave: Callable[[], None] | None = None
) -> AsyncIterator[DisconnectWatch]:
    """Watch the client while it is answered. `on_leave` is called when it leaves before the answer's end."""
    async with DisconnectWatch(receive) as watch:
        if on_leave is not None:
            watch.left.add_done_callback(lambda _: on_leave())
        yield watch


async def stream(
    feed: TurnFeed,
    rendering: Rendering,
    watch: DisconnectWatch,
    send: Send,
    *,
    headers: Mapping[str, str],
    after: int,
    keep_alive: float,
) -> None:
    """Send a turn's events from the one after `after` on, until it ends or the client leaves."""
    raw = [(name.encode(), value.encode()) for name, value in {**STREAM_HEADERS, **headers}.items()]
    await send({"type": "http.response.start", "status": 200, "headers": raw})
    if opening := rendering.start(feed, after):
        await _send(send, opening)
    async for first, chunks in feed.follow(after, keep_alive=keep_alive):
        if watch.gone:
            return
        await _send(send, rendering.chunks(feed, first, chunks) if chunks else sse.KEEP_ALIVE)
    if feed.outcome is not None:
        await _send(send, rendering.end(feed))
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def unless_gone(watch: DisconnectWatch, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of `work`, which is cancelled when the client leaves. Raises Disconnected then."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait([task, watch.left], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Disconnected
        return task.result()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait([task])


async def _send(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})
