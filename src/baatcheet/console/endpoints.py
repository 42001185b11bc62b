"""`/console`: coming in and going out, the files that pages need, and the rooms."""

from contextlib import suppress
from datetime import timedelta
from types import MappingProxyType
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Request
from starlette.responses import Response

from baatcheet.auth.guard import is_loopback
from baatcheet.auth.rate_limits import FailureLimit, RateLimits
from baatcheet.console.frame import COOKIE, Form, PageRoute, RoomRoute
from baatcheet.console.jobs import endpoints as job_endpoints
from baatcheet.console.jobs.results import Openers
from baatcheet.console.jobs.views import JobViews
from baatcheet.console.keys import endpoints as key_endpoints
from baatcheet.console.keys.views import KeyViews
from baatcheet.console.pages import HOME, SIGN_IN, leave_for, page, query
from baatcheet.console.sessions import LIFETIME, Sessions
from baatcheet.console.static_files import ASSETS
from baatcheet.platform.errors import NotFound, Unauthenticated
from baatcheet.platform.logging import get_logger
from baatcheet.platform.settings import ConsoleSettings

log = get_logger(__name__)


def install(app: FastAPI, settings: ConsoleSettings, openers: Openers = MappingProxyType({})) -> None:
    """Make what the pages below need. `app.state` has the services of the API already.

    `openers`: for each kind of job that makes something to be opened, how.
    """
    state = app.state
    state.console_sessions = Sessions(
        state.database, state.authenticator, idle=timedelta(hours=settings.idle_hours)
    )
    state.console_guesses = FailureLimit(state.cache)
    state.console_jobs = JobViews(state.database, state.jobs, state.fleet, state.users, openers)
    state.console_keys = KeyViews(state.keys)


def _sessions(request: Request) -> Sessions:
    sessions: Sessions = request.app.state.console_sessions
    return sessions


Open = Annotated[Sessions, Depends(_sessions)]

public = APIRouter(prefix="/console", route_class=PageRoute)
private = APIRouter(prefix="/console", route_class=RoomRoute)


@public.get("/sign-in")
async def show_sign_in(
    request: Request,
    sessions: Open,
    next: str = "",  # noqa: A002 - the field's name
    over: str = "",
) -> Response:
    going = _own_path(next)
    known = request.cookies.get(COOKIE)
    if known is not None:
        with suppress(Unauthenticated):
            await sessions.visitor(known, active=True)
            return leave_for(going or HOME)
    # A link on another site's page brings no cookie: whether there is one is seen when this page asks by itself.
    foreign = known is None and request.headers.get("sec-fetch-site") == "cross-site"
    hop = SIGN_IN + query(next=going) if going and foreign else None
    return _form(request, going, over=bool(over), hop=hop)


@public.post("/sign-in")
async def sign_in(request: Request, form: Form, sessions: Open) -> Response:
    limits: RateLimits = request.app.state.rate_limits
    try:
        name, who = await sessions.begin(form.get("token", ""), limits)
    except Unauthenticated as refusal:
        await _count_guess(request)
        words = refusal.detail if form.get("token") else "Enter a token."
        going = _own_path(form.get("next", ""))
        return _form(request, going, refused=words)
    log.info("console.signed_in", user_id=str(who.user_id), token_id=str(who.token_id))
    await sessions.end(request.cookies.get(COOKIE))
    answer = leave_for(_own_path(form.get("next", "")) or HOME)
    secure = request.url.scheme == "https" or request.headers.get("origin", "").startswith("https://")
    seconds = int(LIFETIME.total_seconds())
    answer.set_cookie(
        COOKIE, name, max_age=seconds, path="/console", secure=secure, httponly=True, samesite="strict"
    )
    return answer


def _form(
    request: Request, going: str, *, over: bool = False, hop: str | None = None, refused: str | None = None
) -> Response:
    status = 200 if refused is None else 401
    return page(request, "sign_in.html", status=status, next=going, over=over, hop=hop, refused=refused)


async def _count_guess(request: Request) -> None:
    """Raises RateLimited when this address has guessed too often. As before the API, loopback is not counted."""
    address = request.client.host if request.client is not None else None
    if address is not None and not is_loopback(address):
        guesses: FailureLimit = request.app.state.console_guesses
        await guesses.failed(address)


def _own_path(path: str) -> str:
    """`path` where it leads into the console, and nothing where it leads elsewhere."""
    ours = path.startswith("/console/") and path.isprintable() and "\\" not in path and "//" not in path
    return path if ours and not path.startswith(SIGN_IN) else ""


@private.post("/sign-out")
async def sign_out(request: Request, sessions: Open) -> Response:
    await sessions.end(request.cookies.get(COOKIE))
    answer = leave_for(SIGN_IN + "?said=signed-out")
    answer.delete_cookie(COOKIE, path="/console", httponly=True, samesite="strict")
    return answer


@public.get("/static/{name}")
async def show_static(request: Request, name: str) -> Response:
    asset = ASSETS.get(name)
    if asset is None:
        raise NotFound("There is no such file.")
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(asset.packed, headers={**asset.headers, "content-encoding": "gzip"})
    return Response(asset.body, headers=asset.headers)


@private.get("")
@private.get("/")
async def enter() -> Response:
    return leave_for(HOME)


_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


@private.api_route("/{rest:path}", methods=_METHODS)
async def miss(rest: str) -> Response:
    raise NotFound("There is nothing at this address.")


def _routes() -> APIRouter:
    """All of the console, in the order in which an address is looked for."""
    whole = APIRouter(include_in_schema=False)
    rooms: tuple[APIRouter, ...] = (job_endpoints.router, key_endpoints.router)
    for one in (public, *rooms, private):
        whole.include_router(one)
    return whole


router = _routes()
