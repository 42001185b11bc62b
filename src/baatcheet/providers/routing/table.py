"""The routes of this process: in memory, and kept as the database has them."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final

import msgspec

from baatcheet.kit.backoff import jittered
from baatcheet.platform.database import Database, DatabaseUnavailable
from baatcheet.platform.logging import get_logger
from baatcheet.platform.notices import listen
from baatcheet.providers.routing.defaults import BUILT_IN
from baatcheet.providers.routing.model import MOST_ROUTES, Route, Step, Strategy, Task

log = get_logger(__name__)

CHANNEL: Final = "baatcheet_routes"
POLL: Final = 1.5  # seconds between two looks at whether anything has changed

_COUNT = "SELECT routes FROM key_changes"
_ROWS = """
SELECT name, description, strategy, tasks, steps::text AS steps, updated_at FROM routes ORDER BY name LIMIT $1
"""


class Routes:
    """The built-in routes, with an operator's own over them."""

    def __init__(self, routes: Iterable[Route] = ()) -> None:
        self._routes: dict[str, Route] = {}
        self.replace(routes)

    def replace(self, routes: Iterable[Route]) -> None:
        """`routes`, in place of all that were given before."""
        self._routes = {one.name: one for one in (*BUILT_IN, *routes)}

    def get(self, name: str | None) -> Route | None:
        return self._routes.get(name) if name is not None else None

    def all(self) -> list[Route]:
        """By name."""
        return sorted(self._routes.values(), key=lambda one: one.name)


class _Row(msgspec.Struct):
    """What a row must be to be used, whoever wrote it."""

    name: str
    strategy: Strategy
    tasks: list[Task]
    steps: list[Step]
    description: str = ""


def read_row(row: Mapping[str, Any]) -> Route | None:
    """The route of a row; None for one that can't be used. `steps` are JSON text, or decoded already."""
    steps = row["steps"]
    try:
        decoded = msgspec.json.decode(steps) if isinstance(steps, str) else steps
        read = msgspec.convert({**row, "steps": decoded}, _Row)
    except (msgspec.MsgspecError, RecursionError) as error:
        log.warning("routes.unusable", route=row["name"], reason=str(error))
        return None
    return Route(
        name=read.name,
        steps=tuple(read.steps),
        strategy=read.strategy,
        tasks=tuple(read.tasks),
        description=read.description,
        updated_at=row["updated_at"],
    )


class RouteKeeper:
    """Keeps `routes` as the database has them: a change that any process makes is in force here within two seconds.

    `connect`: opens a connection on which notices are heard, so that it is at once; None: changes are polled only.
    """

    def __init__(
        self, db: Database, routes: Routes, *, connect: Callable[[], Awaitable[Any]] | None = None
    ) -> None:
        self._db = db
        self._routes = routes
        self._connect = connect
        self._known = -1  # the change that is in force
        self._news = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._failing = False

    async def start(self) -> None:
        """Read the routes, and keep up with them until `close`. While the database is away, the built-in ones serve."""
        await self._look()
        self._tasks = [asyncio.create_task(self._keep_up(), name="routes")]
        if self._connect is not None:
            heard = listen(self._connect, CHANNEL, self._news.set)
            self._tasks.append(asyncio.create_task(heard, name="notices of routes"))

    async def refresh(self) -> None:
        """Read the routes now, if they have changed. Raises DatabaseUnavailable."""
        async with self._db.hot() as connection:
            # The counter first: what is read after it is at least as new.
            count = await connection.fetchval(_COUNT)
            if count == self._known:
                return
            rows = await connection.fetch(_ROWS, MOST_ROUTES)
        read = [read_row(row) for row in rows]
        self._routes.replace([one for one in read if one is not None])
        self._known = count

    async def _look(self) -> None:
        try:
            await self.refresh()
        except DatabaseUnavailable:
            if not self._failing:
                log.warning("routes.not_read")
            self._failing = True
        except Exception as error:  # noqa: BLE001 - what is in force stays so, and is looked at again
            log.warning("routes.not_read", error=error)
            self._failing = True
        else:
            self._failing = False

    async def _keep_up(self) -> None:
        while True:
            try:
                async with asyncio.timeout(jittered(POLL)):
                    await self._news.wait()
            except TimeoutError:
                pass
            self._news.clear()
            await self._look()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
