"""`/api/v1/keys` and `/api/v1/audit`: for administrators."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Path, Query, Request
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import Response

from baatcheet.auth.access import Admin
from baatcheet.auth.idempotency import Made, Once
from baatcheet.auth.principal import Principal
from baatcheet.keys.audit import Actor
from baatcheet.keys.schemas import (
    AuditOut,
    AuditPage,
    CheckOut,
    KeyOut,
    KeyPage,
    NewRotation,
    RefreshOut,
    Rest,
    RotationOut,
    RotationPage,
    Why,
)
from baatcheet.keys.service import Keys
from baatcheet.platform.openapi import accepted, found, problems
from baatcheet.platform.rest import LIMIT, Cursor, Limit, Line, PathId, QueryFlag, page_fields

router = APIRouter(prefix="/api/v1", tags=["keys"])

TAG: Final = {
    "name": "keys",
    "description": "Providers' keys, and who did what to them. Administrators only.",
}


def _keys(request: Request) -> Keys:
    service: Keys = request.app.state.keys
    return service


Service = Annotated[Keys, Depends(_keys)]
PathKey = Annotated[str, Path(pattern="^[0-9a-f]{32}$", examples=["3f0c2b8e6d103f0c2b8e6d103f0c2b8e"])]
OfProvider = Annotated[Line | None, Query(max_length=100, examples=["groq"])]
Exactly = Annotated[Line | None, Query(max_length=200)]

_KEY = {"key_id": "$response.body#/id"}
_KEY_LINKS = dict.fromkeys(("restKey", "quarantineKey", "restoreKey", "checkKey"), _KEY)
_ROTATION = {"rotation_id": "$response.body#/id"}


def actor_of(who: Principal, request: Request) -> Actor:
    """Who acts by way of the API."""
    return Actor(who.name, "api", who.user_id, request.client.host if request.client is not None else None)


@router.get("/keys", summary="List providers' keys", responses=problems(400, 422))
async def list_keys(
    _: Admin,
    keys: Service,
    provider: OfProvider = None,
    retired: Annotated[QueryFlag, Query(description="Also those that no store has any more.")] = False,
    limit: Limit = LIMIT,
    cursor: Cursor = None,
) -> KeyPage:
    """Administrators only. By provider, the oldest first; never a key itself."""
    rows = await keys.list(provider=provider, retired=retired, limit=limit, cursor=cursor)
    return KeyPage(**page_fields(rows, KeyOut.model_validate))


@router.post(
    "/keys/rotations",
    summary="Replace a provider's keys",
    status_code=202,
    response_model=RotationOut,
    responses=accepted("The rotation, which goes on in the background.", {"getKeyRotation": _ROTATION})
    | problems(404, 409, body=True),
)
async def create_key_rotation(
    who: Admin, body: NewRotation, keys: Service, once: Once, request: Request
) -> Response:
    """Administrators only. All keys of a provider, or one of them, while requests are served as ever."""

    async def make(session: AsyncSession) -> Made[RotationOut]:
        actor = actor_of(who, request)
        row = await keys.rotate(session, actor, body.provider, body.key_id, body.reason)
        return Made(RotationOut.of(row), f"/api/v1/keys/rotations/{row.id}")

    return await once.run(who, body, RotationOut, make, as_system=True, status=202)


@router.get("/keys/rotations", summary="List rotations of keys", responses=problems(400, 422))
async def list_key_rotations(
    _: Admin, keys: Service, provider: OfProvider = None, limit: Limit = LIMIT, cursor: Cursor = None
) -> RotationPage:
    """Administrators only. Newest first."""
    rows = await keys.rotations(provider=provider, limit=limit, cursor=cursor)
    return RotationPage(**page_fields(rows, RotationOut.of))


@router.post("/keys/refresh", summary="Read the secret stores now", responses=problems())
async def refresh_keys(who: Admin, keys: Service, request: Request) -> RefreshOut:
    """Administrators only. Within 5 seconds every process serves what is in them; they are read every minute anyway."""
    return RefreshOut(failing=dict(await keys.refresh(actor_of(who, request))))


@router.get("/keys/rotations/{rotation_id}", summary="Get a rotation of keys", responses=problems(404))
async def get_key_rotation(_: Admin, rotation_id: PathId, keys: Service) -> RotationOut:
    """Administrators only."""
    return RotationOut.of(await keys.rotation(rotation_id))


@router.get(
    "/keys/{key_id}", summary="Get a provider's key", responses=found("The key.", _KEY_LINKS) | problems(404)
)
async def get_key(_: Admin, key_id: PathKey, keys: Service) -> KeyOut:
    """Administrators only. How it fares; never the key itself."""
    return KeyOut.model_validate(await keys.get(key_id))


@router.post(
    "/keys/{key_id}/rest", summary="Let a provider's key rest", responses=problems(404, 409, body=True)
)
async def rest_key(who: Admin, key_id: PathKey, body: Rest, keys: Service, request: Request) -> KeyOut:
    """Administrators only. Within 5 seconds no process uses it, until then; requests under way end."""
    return KeyOut.model_validate(await keys.rest(actor_of(who, request), key_id, body.until, body.reason))


@router.post(
    "/keys/{key_id}/quarantine",
    summary="Quarantine a provider's key",
    responses=problems(404, 409, body=True),
)
async def quarantine_key(who: Admin, key_id: PathKey, body: Why, keys: Service, request: Request) -> KeyOut:
    """Administrators only. Within 5 seconds no process uses it, until it is restored; requests under way end."""
    return KeyOut.model_validate(await keys.quarantine(actor_of(who, request), key_id, body.reason))


@router.post("/keys/{key_id}/restore", summary="Use a provider's key again", responses=problems(404, 409))
async def restore_key(who: Admin, key_id: PathKey, keys: Service, request: Request) -> KeyOut:
    """Administrators only. It rests no longer, and is quarantined no longer."""
    return KeyOut.model_validate(await keys.restore(actor_of(who, request), key_id))


@router.post("/keys/{key_id}/check", summary="Check a provider's key", responses=problems(404, 409))
async def check_key(who: Admin, key_id: PathKey, keys: Service, request: Request) -> CheckOut:
    """Administrators only. Asks the provider, by its cheapest call, whether the key is good; changes nothing."""
    return CheckOut.model_validate(await keys.check(actor_of(who, request), key_id))


@router.get("/audit", summary="Read the audit", responses=problems(400, 422))
async def list_audit_entries(
    _: Admin,
    keys: Service,
    action: Exactly = None,
    subject: Exactly = None,
    actor: Exactly = None,
    limit: Limit = LIMIT,
    cursor: Cursor = None,
) -> AuditPage:
    """Administrators only. Newest first: who did what to keys, secrets, routes and limits, and from where."""
    given: dict[str, Any] = {"action": action, "subject": subject, "actor": actor}
    filters = {name: value for name, value in given.items() if value is not None}
    rows = await keys.audit(filters=filters, limit=limit, cursor=cursor)
    return AuditPage(**page_fields(rows, AuditOut.model_validate))
