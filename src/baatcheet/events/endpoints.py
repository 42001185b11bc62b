"""`/api/v1/events`: what happens, live and resumable; `/api/v1/events/history`: what has happened."""

import asyncio
from contextlib import suppress
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Query, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from baatcheet.auth.access import Reader
from baatcheet.auth.principal import Principal
from baatcheet.events.catalogue import UnknownEventType, expand
from baatcheet.events.feed import EventFeed
from baatcheet.events.history import EventOut, EventPage, History
from baatcheet.events.stream import Stream
from baatcheet.platform.asgi import DisconnectWatch
from baatcheet.platform.errors import Invalid, bad_header
from baatcheet.platform.openapi import problems
from baatcheet.platform.rest import LIMIT, Cursor, Limit, page_fields
from baatcheet.platform.settings import Settings

LAST_WORD = 1.0  # seconds that a stream which ends may take to send what it is at: its client may have stopped reading
LONGEST_ID = 18  # digits

router = APIRouter(prefix="/api/v1/events", tags=["events"])


class EventStream(Response):
    """An answer that is the blocks of a stream, as they come."""

    media_type = "text/event-stream"

    def __init__(
        self, stream: Stream | None = None, *, keep_alive: float = 15.0, seconds: float | None = None
    ) -> None:
        # Not through super(): this answer's length is not known.
        self.status_code = 200
        self.background = None
        self._stream = stream
        self._keep_alive = keep_alive
        self._seconds = seconds
        self.init_headers({"cache-control": "no-cache, no-transform", "x-accel-buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        stream = self._stream
        assert stream is not None
        try:
            with suppress(TimeoutError):
                async with DisconnectWatch(receive) as watch, asyncio.timeout(None) as patience:
                    watch.left.add_done_callback(lambda _: stream.end("its client has left"))
                    await self._run(stream, send, patience)
        finally:
            stream.close()

    async def _run(self, stream: Stream, send: Send, patience: asyncio.Timeout) -> None:
        loop = asyncio.get_running_loop()
        stream.on_end(lambda: patience.reschedule(loop.time() + LAST_WORD))
        alarm = loop.call_later(self._seconds, stream.end, "its time is up") if self._seconds else None
        try:
            await self._send(stream, send)
        finally:
            stream.close()  # from here on, nothing is left to be hurried
            if alarm is not None:
                alarm.cancel()

    async def _send(self, stream: Stream, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async for block in stream.blocks(keep_alive=self._keep_alive, follow=self._seconds != 0):
            await send({"type": "http.response.body", "body": block, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _feed(request: Request) -> EventFeed:
    feed: EventFeed = request.app.state.events
    return feed


def _history(request: Request) -> History:
    history: History = request.app.state.event_history
    return history


def _keep_alive(request: Request) -> float:
    settings: Settings = request.app.state.settings
    return settings.server.keep_alive_seconds


Types = Annotated[
    str | None,
    Query(
        max_length=2_000,
        description="Only these types, comma-separated; `turn.*` is all that begin so.",
        examples=["conversation.created,turn.*"],
    ),
]
Whose = Annotated[
    Literal["own", "all"],
    Query(description="`all`: everybody's events, and those that are nobody's. Administrators only."),
]

_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The events, as they come.",
        "content": {
            "text/event-stream": {
                "schema": {
                    "type": "object",
                    "description": "A server-sent event.",
                    "required": ["data"],
                    "properties": {
                        "id": {"type": "string", "description": "Its number, for Last-Event-ID."},
                        "event": {"type": "string", "description": "Its type, or `reset`."},
                        "data": {"type": "string", "description": "JSON: `id`, `type`, `timestamp`, `data`."},
                    },
                }
            }
        },
    }
}


@router.get(
    "",
    summary="Follow the events",
    status_code=200,  # said here, for the document: the class takes no other
    response_class=EventStream,
    responses=_STREAM | problems(400, 422),
)
async def follow_events(
    who: Reader,
    feed: Annotated[EventFeed, Depends(_feed)],
    keep_alive: Annotated[float, Depends(_keep_alive)],
    types: Types = None,
    scope: Whose = "own",
    after: Annotated[
        int | None,
        Query(ge=0, lt=10**LONGEST_ID, description="As Last-Event-ID, which goes before it."),
    ] = None,
    seconds: Annotated[
        float | None,
        Query(ge=0, le=86_400, description="End the stream after that time; 0: when the past has been told."),
    ] = None,
    last_event_id: Annotated[
        str | None,
        Header(
            alias="Last-Event-ID",
            description="The number of the last event that was received: what came after it is told first.",
        ),
    ] = None,
) -> Response:
    """A stream of server-sent events: from now on, or from after an event. It stays open; a comment keeps it so.

    Resumed with the number of the last event, it goes on with the next one: none is left out, none is told twice.
    Events are kept for some days; whoever comes later is told so by an event `reset`, and should load anew what they
    show.
    """
    if scope == "all":
        who.require("admin")
    wanted = _wanted(types)
    number = _number(last_event_id)
    stream = await feed.open(
        who, after=after if number is None else number, everything=scope == "all", types=wanted
    )
    return EventStream(stream, keep_alive=keep_alive, seconds=seconds)


@router.get("/history", summary="List past events", responses=problems(400, 422))
async def list_events(
    who: Reader,
    history: Annotated[History, Depends(_history)],
    types: Types = None,
    scope: Whose = "own",
    limit: Limit = LIMIT,
    cursor: Cursor = None,
) -> EventPage:
    """Newest first, for as long as they are kept."""
    rows = await history.list(
        who, types=_wanted(types), everything=_everything(who, scope), limit=limit, cursor=cursor
    )
    return EventPage(**page_fields(rows, EventOut.of))


def _everything(who: Principal, scope: str) -> bool:
    if scope == "all":
        who.require("admin")
    return scope == "all"


def _wanted(types: str | None) -> frozenset[str] | None:
    if types is None:
        return None
    try:
        return expand(name for name in types.split(",") if name)
    except UnknownEventType as error:
        raise Invalid(f"types: {error}.", param="types") from None


def _number(last_event_id: str | None) -> int | None:
    text = (last_event_id or "").strip()
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > LONGEST_ID:
        raise bad_header("Last-Event-ID")
    return int(text)
