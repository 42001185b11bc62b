"""`/console/keys`: for administrators."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import ValidationError
from starlette.responses import Response

from baatcheet.auth.principal import Principal
from baatcheet.console.frame import LIVE, Form, Here, RoomRoute
from baatcheet.console.keys.views import KeyViews
from baatcheet.console.pages import done, page, part, tag_of
from baatcheet.keys.audit import Actor
from baatcheet.keys.schemas import Why
from baatcheet.keys.service import Keys
from baatcheet.platform.database import Database
from baatcheet.platform.errors import Invalid

PATH: Final = "/console/keys"
RESTS: Final = {"10-minutes": timedelta(minutes=10), "an-hour": timedelta(hours=1)}

router = APIRouter(prefix=PATH, route_class=RoomRoute)


def _views(request: Request) -> KeyViews:
    views: KeyViews = request.app.state.console_keys
    return views


def _keys(request: Request) -> Keys:
    keys: Keys = request.app.state.keys
    return keys


def _database(request: Request) -> Database:
    database: Database = request.app.state.database
    return database


Views = Annotated[KeyViews, Depends(_views)]
Service = Annotated[Keys, Depends(_keys)]
Tables = Annotated[Database, Depends(_database)]
KeyId = Annotated[str, Path(pattern="^[0-9a-f]{32}$")]


def _actor(who: Principal, request: Request) -> Actor:
    """Who acts, as the audit knows them. Raises Forbidden for all but administrators."""
    who.require("admin")
    address = request.client.host if request.client is not None else None
    return Actor(who.name, "console", who.user_id, address)


def _reason(form: dict[str, str], *, needed: bool = False) -> str | None:
    """Why; None where nothing is said and nothing has to be. Raises Invalid."""
    text = form.get("reason") or None
    if text is None and needed:
        raise Invalid("Say why: others see the reason beside the key.", param="reason")
    try:
        return Why(reason=text).reason
    except ValidationError:
        raise Invalid("A reason is one line of at most 300 characters.", param="reason") from None


@router.get("")
async def show_keys(request: Request, here: Here, views: Views) -> Response:
    live = await views.everything(here.who)
    if LIVE in request.headers:
        return part(request, live)
    return page(request, "keys/list.html", live=live, tag=tag_of(live))


@router.get("/rotate")
async def ask_to_rotate(
    request: Request, here: Here, views: Views, provider: Annotated[str, Query(max_length=100)]
) -> Response:
    lines = await views.lines(here.who, provider)
    return page(
        request,
        "keys/rotate.html",
        title="Rotate these keys?",
        action=f"{PATH}/rotate",
        back=PATH,
        provider=provider,
        lines=lines,
    )


@router.post("/rotate")
async def rotate(
    request: Request, here: Here, form: Form, views: Views, keys: Service, database: Tables
) -> Response:
    actor, reason = _actor(here.who, request), _reason(form)
    async with database.system() as session:
        await keys.rotate(session, actor, form.get("provider", ""), reason=reason)
    views.forget()
    return done(request, "rotation-begun", PATH)


@router.get("/{key_id}/rest")
async def ask_to_rest(request: Request, here: Here, views: Views, key_id: KeyId) -> Response:
    return await _ask(request, here, views, key_id, "rest", "Let this key rest?")


@router.post("/{key_id}/rest")
async def rest(
    request: Request, here: Here, form: Form, views: Views, keys: Service, key_id: KeyId
) -> Response:
    actor, reason = _actor(here.who, request), _reason(form)
    length = RESTS.get(form.get("for", ""))
    if length is None:
        raise Invalid("The form does not say for how long.", param="for")
    await keys.rest(actor, key_id, datetime.now(UTC) + length, reason)
    views.forget()
    return done(request, "key-rested", PATH)


@router.get("/{key_id}/quarantine")
async def ask_to_quarantine(request: Request, here: Here, views: Views, key_id: KeyId) -> Response:
    return await _ask(request, here, views, key_id, "quarantine", "Quarantine this key?")


@router.post("/{key_id}/quarantine")
async def quarantine(
    request: Request, here: Here, form: Form, views: Views, keys: Service, key_id: KeyId
) -> Response:
    actor = _actor(here.who, request)
    await keys.quarantine(actor, key_id, _reason(form, needed=True))
    views.forget()
    return done(request, "key-quarantined", PATH)


@router.get("/{key_id}/restore")
async def ask_to_restore(request: Request, here: Here, views: Views, key_id: KeyId) -> Response:
    return await _ask(request, here, views, key_id, "restore", "Use this key again?")


@router.post("/{key_id}/restore")
async def restore(request: Request, here: Here, views: Views, keys: Service, key_id: KeyId) -> Response:
    await keys.restore(_actor(here.who, request), key_id)
    views.forget()
    return done(request, "key-restored", PATH)


@router.get("/{key_id}/check")
async def ask_to_check(request: Request, here: Here, views: Views, key_id: KeyId) -> Response:
    return await _ask(request, here, views, key_id, "check", "Check this key now?")


@router.post("/{key_id}/check")
async def check(request: Request, here: Here, views: Views, keys: Service, key_id: KeyId) -> Response:
    """What the provider says is told on the spot: its words are not put into an address."""
    checked = await keys.check(_actor(here.who, request), key_id)
    views.forget()
    return page(request, "keys/checked.html", checked=checked, line=await views.line(here.who, key_id))


async def _ask(request: Request, here: Here, views: KeyViews, key_id: str, verb: str, title: str) -> Response:
    return page(
        request,
        f"keys/{verb}.html",
        title=title,
        action=f"{PATH}/{key_id}/{verb}",
        back=PATH,
        line=await views.line(here.who, key_id),
    )
