"""What stands around every page: who is there, where a form came from, and a page for whatever goes wrong."""

from collections.abc import Callable, Coroutine
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.responses import Response

from baatcheet.auth.rate_limits import RateLimits
from baatcheet.console.forms import read_form, require_own_page, require_word
from baatcheet.console.pages import HEADERS, SIGN_IN, is_part, leave_for, problem_page
from baatcheet.console.sessions import Sessions, Visitor
from baatcheet.kit.pagination import BadCursor
from baatcheet.platform.asgi import Disconnected
from baatcheet.platform.errors import BadRequest, NotFound, Problem, ServerFault, Unauthenticated
from baatcheet.platform.logging import get_logger

log = get_logger(__name__)

COOKIE = "baatcheet_console"
LIVE = "x-console-live"  # the header of a page that keeps itself up to date

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class PageRoute(APIRoute):
    """A page for everybody. A form that was sent here comes from a page of ours; `request.state.form` holds it."""

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()

        async def with_pages(request: Request) -> Response:
            try:
                if request.method == "POST":
                    require_own_page(request.headers)
                    request.state.form = await read_form(request)
                return await self.let_in(request, handle)
            except Disconnected:
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, a person is to read it
                return problem_page(request, _problem(request, error))

        return with_pages

    async def let_in(self, request: Request, handle: Handler) -> Response:
        return await handle(request)


class RoomRoute(PageRoute):
    """A page for those who have signed in: a route that forgets to ask is closed and not open."""

    async def let_in(self, request: Request, handle: Handler) -> Response:
        sessions: Sessions = request.app.state.console_sessions
        limits: RateLimits = request.app.state.rate_limits
        try:
            visitor = await sessions.visitor(request.cookies.get(COOKIE), active=LIVE not in request.headers)
        except Unauthenticated:
            return _to_sign_in(request)
        request.state.visitor = visitor
        await limits.check(visitor.who.token_id)
        if request.method == "POST":
            require_word(request.state.form, visitor.csrf)
        return await handle(request)


def _to_sign_in(request: Request) -> Response:
    """To the sign-in page, and from there back to where one was going."""
    going = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    known = COOKIE in request.cookies
    fields = ({"next": going} if request.method == "GET" else {}) | ({"over": "1"} if known else {})
    address = f"{SIGN_IN}?{urlencode(fields)}" if fields else SIGN_IN
    if is_part(request):
        if LIVE in request.headers:
            # The part knows less of where one is than the page that it is in.
            address = SIGN_IN + "?over=1"
        return Response(status_code=401, headers={**HEADERS, "hx-redirect": address})
    return leave_for(address)


def _problem(request: Request, error: Exception) -> Problem:
    match error:
        case Problem():
            return error
        case BadCursor():
            return BadRequest("This page of the list is not there. Begin at the first one.")
        case RequestValidationError() | HTTPException():
            return NotFound("There is nothing at this address.")
    log.error("console.failed", error=error, method=request.method, path=request.url.path)
    return ServerFault("It has been logged.")


def _visitor(request: Request) -> Visitor:
    visitor: Visitor = request.state.visitor
    return visitor


def _form(request: Request) -> dict[str, str]:
    form: dict[str, str] = request.state.form
    return form


Here = Annotated[Visitor, Depends(_visitor)]
Form = Annotated[dict[str, str], Depends(_form)]
