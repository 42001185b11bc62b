"""`/api/v1/usage`, and the limits of users and tokens."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request

from baatcheet.auth.access import Admin, Reader
from baatcheet.auth.principal import Principal
from baatcheet.budgets.admission import Budgets
from baatcheet.budgets.schemas import LimitsIn, LimitsOut, StandingOut, Usage, UsedOut, UserUsage
from baatcheet.budgets.service import Budgeting
from baatcheet.keys.audit import Actor
from baatcheet.platform.openapi import problems
from baatcheet.platform.rest import PathId

router = APIRouter(prefix="/api/v1", tags=["usage"])
TAG = {"name": "usage", "description": "What was used and spent, and what may be."}


def _budgeting(request: Request) -> Budgeting:
    service: Budgeting = request.app.state.budgeting
    return service


Service = Annotated[Budgeting, Depends(_budgeting)]
Days = Annotated[int, Query(ge=1, le=92, description="How many days' usage, today with them.")]


def _actor(who: Principal, request: Request) -> Actor:
    return Actor(who.name, "api", who.user_id, request.client.host if request.client is not None else None)


@router.get("/usage", summary="What have I used?", responses=problems(422))
async def get_usage(who: Reader, budgeting: Service, days: Days = 31) -> Usage:
    """One's own usage and what is left of one's limits. A request is counted within a second of its end."""
    return Usage(
        user=StandingOut.of(await budgeting.standing(who.user_id, who.user_id)),
        token=StandingOut.of(await budgeting.standing(who.user_id, who.token_id)),
        models=[UsedOut.of(used) for used in await budgeting.used(who.user_id, days)],
    )


@router.get("/users/{user_id}/usage", summary="Get what a user has used", responses=problems(404, 422))
async def get_user_usage(_: Admin, user_id: PathId, budgeting: Service, days: Days = 31) -> UserUsage:
    """Administrators only."""
    await budgeting.known_user(user_id)
    return UserUsage(
        user=StandingOut.of(await budgeting.standing(user_id, user_id)),
        models=[UsedOut.of(used) for used in await budgeting.used(user_id, days)],
    )


@router.get("/users/{user_id}/limits", summary="Get a user's limits", responses=problems(404))
async def get_user_limits(_: Admin, user_id: PathId, budgeting: Service) -> LimitsOut:
    """Administrators only."""
    return LimitsOut.of(await budgeting.of_user(user_id))


@router.put("/users/{user_id}/limits", summary="Set a user's limits", responses=problems(404, body=True))
async def set_user_limits(
    request: Request, who: Admin, user_id: PathId, body: LimitsIn, budgeting: Service
) -> LimitsOut:
    """Administrators only. They hold for all of the user's tokens together, everywhere within 5 seconds."""
    limits = await budgeting.limit_user(_actor(who, request), user_id, body.limits())
    await _obey(request)
    return LimitsOut.of(limits)


@router.get("/tokens/{token_id}/limits", summary="Get a token's limits", responses=problems(404))
async def get_token_limits(_: Admin, token_id: PathId, budgeting: Service) -> LimitsOut:
    """Administrators only."""
    return LimitsOut.of(await budgeting.of_token(token_id))


@router.put("/tokens/{token_id}/limits", summary="Set a token's limits", responses=problems(404, body=True))
async def set_token_limits(
    request: Request, who: Admin, token_id: PathId, body: LimitsIn, budgeting: Service
) -> LimitsOut:
    """Administrators only. They hold beside its user's, everywhere within 5 seconds."""
    limits = await budgeting.limit_token(_actor(who, request), token_id, body.limits())
    await _obey(request)
    return LimitsOut.of(limits)


async def _obey(request: Request) -> None:
    """In this process at once; the others find the change by themselves."""
    budgets: Budgets = request.app.state.budgets
    await budgets.refresh()
