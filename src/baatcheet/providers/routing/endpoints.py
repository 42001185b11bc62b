"""`/api/v1/routes`."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request

from baatcheet.auth.access import Admin, Reader
from baatcheet.keys.audit import Actor
from baatcheet.platform.openapi import found, problems
from baatcheet.platform.rest import Line
from baatcheet.providers.routing.schemas import NewRoute, RouteList, RouteOut
from baatcheet.providers.routing.service import RouteService

router = APIRouter(prefix="/api/v1/routes", tags=["routes"])
TAG = {"name": "routes", "description": "Names that stand for several models."}


def _routes(request: Request) -> RouteService:
    service: RouteService = request.app.state.routes
    return service


Service = Annotated[RouteService, Depends(_routes)]
PathName = Annotated[Line, Path(min_length=1, max_length=100, examples=["fast"])]

_LINKS = {name: {"name": "$response.body#/name"} for name in ("setRoute", "deleteRoute")}


def _actor(request: Request, who: Admin) -> Actor:
    address = request.client.host if request.client is not None else None
    return Actor(who.name, "api", who.user_id, address)


Acting = Annotated[Actor, Depends(_actor)]


@router.get("", summary="List routes", responses=problems(403))
async def list_routes(_: Reader, routes: Service) -> RouteList:
    """By name; those that come with BaatCheet among them."""
    return RouteList(data=[RouteOut.of(one) for one in await routes.list()])


@router.get("/{name}", summary="Get a route", responses=found("The route.", _LINKS) | problems(404))
async def get_route(_: Reader, name: PathName, routes: Service) -> RouteOut:
    return RouteOut.of(await routes.get(name))


@router.put("/{name}", summary="Make or replace a route", responses=problems(403, 404, body=True))
async def set_route(actor: Acting, name: PathName, body: NewRoute, routes: Service) -> RouteOut:
    """In force in every process within two seconds."""
    return RouteOut.of(await routes.put(actor, body.route(name)))


@router.delete("/{name}", summary="Remove a route", status_code=204, responses=problems(403, 404, 409))
async def delete_route(actor: Acting, name: PathName, routes: Service) -> None:
    """A built-in route that it had taken the place of is in force again."""
    await routes.remove(actor, name)
