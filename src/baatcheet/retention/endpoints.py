"""Deleting a user with all that is theirs: `/api/v1/users/{id}`, `/api/v1/me`, and receipts."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from baatcheet.auth.access import Admin, Writer
from baatcheet.platform.openapi import accepted, problems
from baatcheet.platform.rest import LIMIT, Cursor, Id, Limit, PathId, page_fields
from baatcheet.retention.models import UserDeletion
from baatcheet.retention.schemas import DeletionMade, DeletionOut, DeletionPage
from baatcheet.retention.service import RECEIPTS, Deletions

router = APIRouter()

TAG = {"name": "deletions", "description": "Users deleted with all that was theirs: asked for, and receipts."}


def _deletions(request: Request) -> Deletions:
    service: Deletions = request.app.state.deletions
    return service


Service = Annotated[Deletions, Depends(_deletions)]

_MADE = accepted(
    "The deletion, which goes on in the background.",
    {"getDeletion": {"deletion_id": "$response.body#/id"}},
)
del _MADE[202]["headers"]["idempotent-replayed"]


async def _made(response: Response, deletion: UserDeletion, deletions: Deletions) -> DeletionMade:
    response.headers["location"] = f"/api/v1/deletions/{deletion.id}"
    shown: dict[str, Any] = DeletionOut.model_validate(deletion).model_dump()
    shown["subject"] = shown.pop("user_id")
    return DeletionMade(**shown, receipt=await deletions.link(deletion.id))


@router.delete(
    "/api/v1/me",
    tags=["me"],
    summary="Delete your account",
    status_code=202,
    responses=_MADE | problems(409, 422),
)
async def delete_me(
    response: Response,
    who: Writer,
    deletions: Service,
    confirm: Annotated[Id | None, Query(description="Your user's id.")] = None,
) -> DeletionMade:
    """Everything of yours, for good. Your tokens are no longer good when this is answered: keep the receipt's link."""
    return await _made(response, await deletions.request_own(who, confirm), deletions)


@router.delete(
    "/api/v1/users/{user_id}",
    tags=["users"],
    summary="Delete a user",
    status_code=202,
    responses=_MADE | problems(404, 409),
)
async def delete_user(response: Response, _: Admin, user_id: PathId, deletions: Service) -> DeletionMade:
    """Administrators only. With everything of theirs, for good. Asked again, it is the same deletion."""
    return await _made(response, await deletions.request(user_id), deletions)


@router.get("/api/v1/deletions", tags=["deletions"], summary="List deletions", responses=problems(400, 422))
async def list_deletions(
    _: Admin, deletions: Service, limit: Limit = LIMIT, cursor: Cursor = None
) -> DeletionPage:
    """Administrators only. Newest first."""
    rows = await deletions.list(limit=limit, cursor=cursor)
    return DeletionPage(**page_fields(rows, DeletionOut.model_validate))


@router.get(
    "/api/v1/deletions/{deletion_id}", tags=["deletions"], summary="Get a deletion", responses=problems(404)
)
async def get_deletion(_: Admin, deletion_id: PathId, deletions: Service) -> DeletionOut:
    """Administrators only."""
    return DeletionOut.model_validate(await deletions.get(deletion_id))


_LINKED = {status: told for status, told in problems(403, 404).items() if status not in {401, 429}}


@router.get(
    RECEIPTS + "/{deletion_id}", tags=["deletions"], summary="Get a deletion by its link", responses=_LINKED
)
async def open_deletion(
    request: Request,
    deletion_id: PathId,
    deletions: Service,
    expires: Annotated[str, Query(description="Until when: a part of the link.")] = "",
    signature: Annotated[str, Query(description="A part of the link.")] = "",
) -> DeletionOut:
    """Without a token: whoever was deleted has none."""
    signed = {"expires": expires, "signature": signature}
    return DeletionOut.model_validate(await deletions.linked(request.url.path, signed, deletion_id))
