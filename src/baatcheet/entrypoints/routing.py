"""The routes of one process put together."""

from contextlib import AsyncExitStack
from dataclasses import dataclass

from baatcheet.platform.database import Database
from baatcheet.platform.settings import Settings
from baatcheet.providers.catalogue import Catalogue
from baatcheet.providers.prices import Prices
from baatcheet.providers.routing.latency import Latencies
from baatcheet.providers.routing.router import Router, by_price
from baatcheet.providers.routing.service import RouteService
from baatcheet.providers.routing.table import RouteKeeper, Routes


@dataclass(frozen=True)
class Routing:
    """Who finds the models, and who changes the routes."""

    router: Router
    service: RouteService


def build_routing(
    settings: Settings, db: Database, catalogue: Catalogue, latencies: Latencies, prices: Prices
) -> tuple[Routing, RouteKeeper]:
    """The routes, of which the built-in ones serve until the keeper has been started or refreshed."""
    routes = Routes()
    # Polled only: a connection that hears notices is dear, and a change is in force within two seconds as it is.
    keeper = RouteKeeper(db, routes)
    router = Router(
        catalogue,
        routes,
        default_model=settings.providers.default_model,
        latencies=latencies,
        cost=by_price(prices),
    )
    return Routing(router, RouteService(db, router, keeper)), keeper


async def open_routing(
    settings: Settings,
    db: Database,
    catalogue: Catalogue,
    stack: AsyncExitStack,
    *,
    latencies: Latencies,
    prices: Prices,
) -> Routing:
    """The routes, as the database has them from now on; `stack` closes them. `latencies`: what calls are timed by."""
    routing, keeper = build_routing(settings, db, catalogue, latencies, prices)
    stack.push_async_callback(keeper.close)
    await keeper.start()
    return routing
