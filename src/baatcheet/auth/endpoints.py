"""`/api/v1/me`, `/api/v1/tokens`, `/api/v1/users`."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import Response

from baatcheet.auth.access import Admin, Reader, Writer
from baatcheet.auth.idempotency import Made, Once
from baatcheet.auth.schemas import (
    IdentityOut,
    MadeToken,
    Me,
    NewToken,
    NewUser,
    TokenOut,
    TokenPage,
    UserChanges,
    UserOut,
    UserPage,
)
from baatcheet.auth.service import Tokens, Users
from baatcheet.platform.openapi import created, found, problems
from baatcheet.platform.rest import LIMIT, Cursor, Id, Limit, PathId, changes, page_fields

router = APIRouter(prefix="/api/v1")


def _tokens(request: Request) -> Tokens:
    service: Tokens = request.app.state.tokens
    return service


def _users(request: Request) -> Users:
    service: Users = request.app.state.users
    return service


TokenService = Annotated[Tokens, Depends(_tokens)]
UserService = Annotated[Users, Depends(_users)]

_TOKEN = {"token_id": "$response.body#/id"}
_USER = {"user_id": "$response.body#/id"}


@router.get("/me", tags=["me"], summary="Who am I?", responses=problems())
async def get_me(who: Reader, users: UserService, tokens: TokenService) -> Me:
    """The user, and the token or the identity that this request was made with."""
    user = UserOut.model_validate(await users.get(who.user_id))
    if who.kind == "identity":
        identity = await users.identity(who.token_id)
        return Me(user=user, token=None, identity=IdentityOut.model_validate(identity))
    token = TokenOut.model_validate(await tokens.get(who, who.token_id))
    return Me(user=user, token=token, identity=None)


@router.post(
    "/tokens",
    tags=["tokens"],
    summary="Make a token",
    status_code=201,
    response_model=MadeToken,
    responses=created("The token; its text is shown this once.", {"getToken": _TOKEN, "revokeToken": _TOKEN})
    | problems(404, 409, body=True),
)
async def create_token(who: Writer, body: NewToken, tokens: TokenService, once: Once) -> Response:
    """A token can't be given scopes that the token which makes it does not have."""

    async def make(session: AsyncSession) -> Made[MadeToken]:
        row, text = await tokens.create(
            session,
            who,
            name=body.name,
            scopes=body.scopes,
            expires_at=body.expires_at,
            user_id=body.user_id,
        )
        shown: dict[str, Any] = TokenOut.model_validate(row).model_dump()
        return Made(
            MadeToken(**shown, token=text), f"/api/v1/tokens/{row.id}", kept=MadeToken(**shown, token=None)
        )

    for_another = body.user_id is not None and body.user_id != who.user_id
    if for_another:
        who.require("admin")
    return await once.run(who, body, MadeToken, make, as_system=for_another)


@router.get("/tokens", tags=["tokens"], summary="List tokens", responses=problems(400, 422))
async def list_tokens(
    who: Reader,
    tokens: TokenService,
    user_id: Annotated[Id | None, Query(description="Another user's: administrators only.")] = None,
    limit: Limit = LIMIT,
    cursor: Cursor = None,
) -> TokenPage:
    """One's own, newest first, the revoked and expired ones included."""
    rows = await tokens.list(who, user_id=user_id, limit=limit, cursor=cursor)
    return TokenPage(**page_fields(rows, TokenOut.model_validate))


@router.get(
    "/tokens/{token_id}",
    tags=["tokens"],
    summary="Get a token",
    responses=found("The token.", {"revokeToken": _TOKEN}) | problems(404),
)
async def get_token(who: Reader, token_id: PathId, tokens: TokenService) -> TokenOut:
    return TokenOut.model_validate(await tokens.get(who, token_id))


@router.delete(
    "/tokens/{token_id}",
    tags=["tokens"],
    summary="Revoke a token",
    status_code=204,
    responses=problems(404),
)
async def revoke_token(who: Writer, token_id: PathId, tokens: TokenService) -> None:
    """It is refused everywhere within 5 seconds. Revoking it again changes nothing."""
    await tokens.revoke(who, token_id)


@router.post(
    "/users",
    tags=["users"],
    summary="Add a user",
    status_code=201,
    response_model=UserOut,
    responses=created("The user.", {"getUser": _USER, "updateUser": _USER, "listTokens": _USER})
    | problems(409, body=True),
)
async def create_user(who: Admin, body: NewUser, users: UserService, once: Once) -> Response:
    """Administrators only. Give them a token with POST /api/v1/tokens and their `user_id`."""

    async def make(session: AsyncSession) -> Made[UserOut]:
        user = await users.create(session, name=body.name, email=body.email, role=body.role)
        return Made(UserOut.model_validate(user), f"/api/v1/users/{user.id}")

    return await once.run(who, body, UserOut, make, as_system=True)


@router.get("/users", tags=["users"], summary="List users", responses=problems(400, 422))
async def list_users(_: Admin, users: UserService, limit: Limit = LIMIT, cursor: Cursor = None) -> UserPage:
    """Administrators only. Newest first."""
    return UserPage(**page_fields(await users.list(limit=limit, cursor=cursor), UserOut.model_validate))


@router.get(
    "/users/{user_id}",
    tags=["users"],
    summary="Get a user",
    responses=found("The user.", {"updateUser": _USER, "listTokens": _USER}) | problems(404),
)
async def get_user(_: Admin, user_id: PathId, users: UserService) -> UserOut:
    """Administrators only."""
    return UserOut.model_validate(await users.get(user_id))


@router.patch(
    "/users/{user_id}",
    tags=["users"],
    summary="Change a user",
    responses=problems(404, 409, body=True),
)
async def update_user(_: Admin, user_id: PathId, body: UserChanges, users: UserService) -> UserOut:
    """Administrators only. The last active administrator can't be demoted or deactivated."""
    return UserOut.model_validate(await users.update(user_id, changes(body)))
