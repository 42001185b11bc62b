"""The door of the REST surface: who is asking, and may they."""

from typing import Annotated, Any

from fastapi import Request, Security
from fastapi.security import HTTPBearer
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from baatcheet.auth.principal import Principal
from baatcheet.auth.rate_limits import RateLimits
from baatcheet.auth.service import Authenticator
from baatcheet.platform.errors import Problem
from baatcheet.platform.failures import problem_response

PROTECTED = "/api/v1"

bearer = HTTPBearer(
    scheme_name="bearer",
    bearerFormat="bc_… or a JWT",
    description="An API token, from `baatcheet token create` or POST /api/v1/tokens; or, where the server is set up "
    "for one, a token (JWT) of an OpenID provider.",
    auto_error=False,
)


class Door:
    """Refuses every request under `/api/v1` that brings no valid token, before its body is read.

    It stands before the routes, so that a route which forgets to ask is closed and not open.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not (scope["path"] + "/").startswith(PROTECTED + "/"):
            await self._app(scope, receive, send)
            return
        authenticator: Authenticator = scope["app"].state.authenticator
        state: dict[str, Any] = scope.setdefault("state", {})
        try:
            header = next((value for name, value in scope["headers"] if name == b"authorization"), None)
            state["principal"] = await authenticator.authenticate(
                header.decode("latin-1") if header else None
            )
        except Problem as problem:
            await problem_response(problem, scope["path"])(scope, receive, send)
            return

        async def with_limits(message: Message) -> None:
            if message["type"] == "http.response.start" and "rate_limit" in state:
                message["headers"] = [*message["headers"], *state["rate_limit"]]
            await send(message)

        await self._app(scope, receive, with_limits)


class Requires:
    """A route's demand: a principal with `scope`. Raises Forbidden, RateLimited."""

    def __init__(self, scope: str) -> None:
        self._scope = scope

    async def __call__(self, request: Request, _: Annotated[Any, Security(bearer)]) -> Principal:
        who: Principal = request.state.principal
        who.require(self._scope)
        limits: RateLimits = request.app.state.rate_limits
        told = await limits.check(who.token_id)
        request.state.rate_limit = [(name.encode(), value.encode()) for name, value in told.headers().items()]
        return who


Reader = Annotated[Principal, Security(Requires("read"))]
Writer = Annotated[Principal, Security(Requires("write"))]
Admin = Annotated[Principal, Security(Requires("admin"))]
