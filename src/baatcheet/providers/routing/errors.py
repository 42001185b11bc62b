"""What can be wrong with a route, in words for an operator."""

from baatcheet.platform.errors import Conflict, Invalid, NotFound


class RouteNotFound(NotFound):
    """There is no such route."""

    type = "route-not-found"
    openai_code = "route_not_found"

    def __init__(self, name: str, *, yours: bool = False) -> None:
        """`yours`: there is one that is built in, but none that takes its place."""
        super().__init__(
            f"There is no route {name!r}{' of yours' if yours else ''}. GET /api/v1/routes lists them."
        )


class UnusableRoute(Invalid):
    """This route leads nowhere, or in a circle."""

    type = "unusable-route"
    openai_code = "unusable_route"


class RouteInUse(Conflict):
    """Other routes lead by way of this one."""

    type = "route-in-use"
    openai_code = "route_in_use"
