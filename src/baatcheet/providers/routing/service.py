"""Routes as an operator sees and changes them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import delete, func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from baatcheet.keys.audit import Actor, note
from baatcheet.platform.database import Database
from baatcheet.providers.catalogue import AUTO, UnknownModel
from baatcheet.providers.routing.defaults import BUILT_IN
from baatcheet.providers.routing.errors import RouteInUse, RouteNotFound, UnusableRoute
from baatcheet.providers.routing.model import MOST_ROUTES, Route, Step, is_name, loop_of
from baatcheet.providers.routing.models import RouteRow
from baatcheet.providers.routing.router import Router
from baatcheet.providers.routing.table import CHANNEL, RouteKeeper, read_row

TAKEN: Final = frozenset({"demo"})  # what a route may not be called
_BUILT_IN: Final = {one.name: one for one in BUILT_IN}

# Whoever changes a route holds this row, so that two changes can't make half a circle each.
_HOLD = text("SELECT routes FROM key_changes FOR UPDATE")
_TELL = text("UPDATE key_changes SET routes = routes + 1")
_NOTIFY = text("SELECT pg_notify(:channel, '')")


@dataclass(frozen=True)
class Standing:
    """A route, and which of its steps can be asked for now, in their order."""

    route: Route
    served: Sequence[bool]


class RouteService:
    """Lists the routes, and changes them for all processes."""

    def __init__(self, db: Database, router: Router, keeper: RouteKeeper) -> None:
        self._db = db
        self._router = router
        self._keeper = keeper

    async def list(self) -> list[Standing]:
        """All of them, by name."""
        return [await self._standing(route) for route in self._router.routes.all()]

    async def get(self, name: str) -> Standing:
        """Raises RouteNotFound."""
        route = self._router.routes.get(name)
        if route is None:
            raise RouteNotFound(name)
        return await self._standing(route)

    async def put(self, actor: Actor, route: Route) -> Standing:
        """Make a route, or put it in the place of the one that is called the same. In force here when this returns.

        Raises UnusableRoute, DatabaseUnavailable.
        """
        through = await self._check(route)
        async with self._db.system() as session:
            others = await _hold(session)
            _check_way(route, others, through)
            if len(others) >= MOST_ROUTES and route.name not in {one.name for one in others}:
                raise UnusableRoute(f"There are {MOST_ROUTES:,} routes, which is the most there may be.")
            before = next((one for one in others if one.name == route.name), None)
            values = {
                "description": route.description,
                "strategy": route.strategy,
                "tasks": list(route.tasks),
                "steps": [{"model": step.model, "weight": step.weight} for step in route.steps],
            }
            made = insert(RouteRow).values(name=route.name, **values)
            await session.execute(
                made.on_conflict_do_update(
                    index_elements=[RouteRow.name], set_={**values, "updated_at": func.clock_timestamp()}
                )
            )
            note(session, actor, "route.set", route.name, {"before": _told(before), "after": _told(route)})
            await _tell(session)
        await self._keeper.refresh()
        return await self.get(route.name)

    async def remove(self, actor: Actor, name: str) -> None:
        """A built-in route of that name is in force again. Raises RouteNotFound, RouteInUse, DatabaseUnavailable."""
        async with self._db.system() as session:
            others = await _hold(session)
            before = next((one for one in others if one.name == name), None)
            if before is None:
                raise RouteNotFound(name, yours=name in _BUILT_IN)
            users = [one.name for one in others if any(step.model == name for step in one.steps)]
            if users and name not in _BUILT_IN and name != AUTO:
                raise RouteInUse(
                    f"{', '.join(users)} lead{'s' if len(users) == 1 else ''} by way of {name!r}. Change them first."
                )
            if name == self._router.default_model and name not in _BUILT_IN:
                raise RouteInUse(f"BAATCHEET_DEFAULT_MODEL names {name!r}. Change that first.")
            await session.execute(delete(RouteRow).where(RouteRow.name == name))
            note(session, actor, "route.removed", name, {"before": _told(before)})
            await _tell(session)
        await self._keeper.refresh()

    async def _standing(self, route: Route) -> Standing:
        return Standing(route, [await self._router.serves(route, step) for step in route.steps])

    async def _check(self, route: Route) -> set[str]:
        """See that every step leads to a model. Returns the other routes among them, which are still to be held.

        Asks providers for what they list, and so comes before the transaction.
        """
        _check_form(route)
        named = [step.model for step in route.steps]
        through: set[str] = set()
        for at, step in enumerate(route.steps):
            where = f"steps[{at}].model"
            if step.model in named[:at]:
                raise UnusableRoute(f"{where}: {step.model!r} is on this route twice.", param=where)
            if step.model == route.name or self._router.routes.get(step.model) is not None:
                through.add(step.model)
            elif "transcription" in route.tasks:
                self._check_speaker(step, where)
            elif step.model != AUTO:
                await self._check_model(step, where)
        return through

    async def _check_model(self, step: Step, where: str) -> None:
        try:
            found = await self._router.resolve(step.model)
        except UnknownModel as unknown:
            raise UnusableRoute(f"{where}: {unknown}", param=where) from None
        if found[0].model.embedding:
            raise UnusableRoute(f"{where}: {step.model!r} makes embeddings and can't chat.", param=where)

    def _check_speaker(self, step: Step, where: str) -> None:
        prefix, _, rest = step.model.partition("/")
        if not rest or self._router.named(prefix) is None:
            raise UnusableRoute(
                f"{where}: no provider that is configured is meant by {step.model!r}. "
                "Write provider/model, for example groq/whisper-large-v3-turbo.",
                param=where,
            )
        offered = {provider.name: models for provider, models in self._router.transcribers()}.get(prefix)
        if offered is not None and rest not in offered:
            raise UnusableRoute(f"{where}: {prefix} transcribes by {', '.join(offered)}.", param=where)


def _check_form(route: Route) -> None:
    """What can be seen of a route by itself."""
    if not is_name(route.name):
        raise UnusableRoute(
            "A route is called by 1 to 64 small letters, digits, '.', '_' and '-', the first a letter or digit.",
            param="name",
        )
    if route.name in TAKEN:
        raise UnusableRoute(
            f"No route can be called {route.name!r}: that is the built-in model.", param="name"
        )
    if not route.steps:
        raise UnusableRoute("A route needs at least one step.", param="steps")
    if "transcription" in route.tasks and len(route.tasks) > 1:
        raise UnusableRoute(
            "Models that transcribe do nothing else: give transcription a route of its own.",
            param="tasks",
        )
    if sum(step.weight for step in route.steps) == 0:
        raise UnusableRoute("At least one step needs a weight above 0.", param="steps")


def _check_way(route: Route, others: Iterable[Route], through: set[str]) -> None:
    """See that a route leads by way of routes that are there and for the same, and not back to itself."""
    known = {**_BUILT_IN, **{one.name: one for one in others}}
    if gone := through - {*known, route.name}:
        raise UnusableRoute(f"There is no route {min(gone)!r} any more.", param="steps")
    loop = loop_of(route, known.values())
    if loop is not None:
        raise UnusableRoute(f"This route would lead in a circle: {' → '.join(loop)}.", param="steps")
    for at, step in enumerate(route.steps):
        inner = known.get(step.model)
        where = f"steps[{at}].model"
        if inner is not None and ("transcription" in inner.tasks) != ("transcription" in route.tasks):
            raise UnusableRoute(
                f"{where}: the route {inner.name!r} is for {', '.join(inner.tasks)}, this one for "
                f"{', '.join(route.tasks)}.",
                param=where,
            )
    for one in known.values():
        if any(step.model == route.name for step in one.steps) and (
            ("transcription" in one.tasks) != ("transcription" in route.tasks)
        ):
            raise UnusableRoute(
                f"The route {one.name!r} leads by way of this one, and is for {', '.join(one.tasks)}.",
                param="tasks",
            )


async def _hold(session: AsyncSession) -> list[Route]:
    """The operator's routes, which nobody else changes before the transaction ends."""
    await session.execute(_HOLD)
    rows = await session.scalars(select(RouteRow).order_by(RouteRow.name))
    found = [read_row({name: getattr(row, name) for name in _COLUMNS}) for row in rows]
    return [one for one in found if one is not None]


_COLUMNS = ("name", "description", "strategy", "tasks", "steps", "updated_at")


async def _tell(session: AsyncSession) -> None:
    """Every process reads the routes anew once the transaction is committed."""
    await session.execute(_TELL)
    await session.execute(_NOTIFY, {"channel": CHANNEL})


def _told(route: Route | None) -> dict[str, object] | None:
    """A route for the audit."""
    if route is None:
        return None
    return {
        "strategy": route.strategy,
        "tasks": list(route.tasks),
        "steps": [[step.model, step.weight] for step in route.steps],
    }
