"""Routes in the database: changed by one process, followed by all."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import select, text

from baatcheet.keys.audit import Actor
from baatcheet.keys.models import AuditEntry
from baatcheet.platform.database import Database
from baatcheet.providers.profiles import Known
from baatcheet.providers.routing.errors import RouteInUse, RouteNotFound, UnusableRoute
from baatcheet.providers.routing.model import Route, Step
from baatcheet.providers.routing.router import Router
from baatcheet.providers.routing.service import RouteService
from baatcheet.providers.routing.table import RouteKeeper, Routes
from tests.providers.routing.conftest import MakeCatalogue

WHO = Actor("Zoya", "cli")
TWO = {"lab": ["small", "large"], "den": ["small", "wide"]}


def route(name: str, *steps: str, **more: Any) -> Route:
    return Route(name, tuple([Step(one) for one in steps]), **more)


class Process:
    """What one process has of the routes."""

    def __init__(self, db: Database, catalogue: Any, default_model: str | None = None) -> None:
        self.routes = Routes()
        self.keeper = RouteKeeper(db, self.routes)
        router = Router(catalogue, self.routes, default_model=default_model)
        self.service = RouteService(db, router, self.keeper)

    def steps(self, name: str) -> list[str] | None:
        found = self.routes.get(name)
        return [one.model for one in found.steps] if found is not None else None


@asynccontextmanager
async def none_left(database: Database) -> AsyncIterator[None]:
    """Nothing of this test stays."""

    async def forget() -> None:
        async with database.system() as session:
            await session.execute(text("DELETE FROM routes"))
            await session.execute(text("UPDATE key_changes SET routes = routes + 1"))

    await forget()
    try:
        yield
    finally:
        await forget()


async def within(seconds: float, true: Any) -> float:
    begun = time.monotonic()
    while not true():
        assert time.monotonic() - begun < seconds, "not in time"
        await asyncio.sleep(0.02)
    return time.monotonic() - begun


async def test_a_change_is_in_force_here_at_once_and_elsewhere_within_two_seconds(
    database: Database, catalogue_of: MakeCatalogue
) -> None:
    catalogue = catalogue_of(TWO)
    async with none_left(database):
        here, there = Process(database, catalogue), Process(database, catalogue)
        await there.keeper.start()
        try:
            made = await here.service.put(WHO, route("way", "lab/small", "den/wide", description="Mine"))
            assert made.route.description == "Mine"
            assert made.route.updated_at is not None
            assert list(made.served) == [True, True]
            assert here.steps("way") == ["lab/small", "den/wide"]
            await within(2.0, lambda: there.steps("way") == ["lab/small", "den/wide"])
            await here.service.put(WHO, route("way", "lab/large"))
            await within(2.0, lambda: there.steps("way") == ["lab/large"])
            await here.service.remove(WHO, "way")
            assert here.steps("way") is None
            await within(2.0, lambda: there.steps("way") is None)
        finally:
            await there.keeper.close()


async def test_a_built_in_route_comes_back_when_its_stand_in_goes(
    database: Database, catalogue_of: MakeCatalogue
) -> None:
    async with none_left(database):
        here = Process(database, catalogue_of(TWO))
        built_in = here.steps("fast")
        await here.service.put(WHO, route("fast", "den/wide"))
        assert here.steps("fast") == ["den/wide"]
        await here.service.remove(WHO, "fast")
        assert here.steps("fast") == built_in
        with pytest.raises(RouteNotFound):
            await here.service.remove(WHO, "fast")


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (
            route("way", "lab/smal"),
            r"steps\[0\].model: The model 'lab/smal' is not served.*Did you mean lab/small",
        ),
        (route("way", "lab/small", "lab/small"), "is on this route twice"),
        (route("way", "way"), "lead in a circle: way → way"),
        (route("one", "two"), "lead in a circle: one → two → one"),
        (route("demo", "lab/small"), "built-in model"),
        (route("way"), "at least one step"),
        (Route("way", (Step("lab/small", 0),)), "a weight above 0"),
        (route("way", "lab/small", tasks=("chat", "transcription")), "a route of its own"),
        (route("way", "nobody/whisper", tasks=("transcription",)), "no provider that is configured"),
        (route("way", "lab/small", tasks=("transcription",)), "lab transcribes by whisper-1"),
        (route("way", "fast", tasks=("transcription",)), "the route 'fast' is for chat"),
        (route("two", "den/whisper", tasks=("transcription",)), "'three' leads by way of this one"),
        (route("way", "lab/vectors"), "makes embeddings"),
    ],
)
async def test_what_leads_nowhere_or_in_a_circle_is_refused_with_words(
    database: Database, catalogue_of: MakeCatalogue, made: Route, words: str
) -> None:
    models = {**TWO, "lab": [*TWO["lab"], Known("vectors", 8_192, embedding=True)]}
    async with none_left(database):
        here = Process(database, catalogue_of(models, transcribes={"lab": ["whisper-1"]}))
        await here.service.put(WHO, route("one", "lab/small"))
        await here.service.put(WHO, route("two", "one", "lab/small"))
        await here.service.put(WHO, route("three", "two"))
        with pytest.raises(UnusableRoute, match=words):
            await here.service.put(WHO, made)
        assert here.steps("way") is None
        assert here.steps("one") == ["lab/small"]


async def test_two_halves_of_a_circle_are_not_both_made(
    database: Database, catalogue_of: MakeCatalogue
) -> None:
    async with none_left(database):
        here = Process(database, catalogue_of(TWO))
        for name in ("one", "two"):
            await here.service.put(WHO, route(name, "lab/small"))
        async with database.system() as other:  # another process makes the other half
            await other.execute(text("SELECT routes FROM key_changes FOR UPDATE"))
            await other.execute(
                text("UPDATE routes SET steps = :steps WHERE name = 'two'"),
                {"steps": '[{"model": "one", "weight": 1}]'},
            )
            half = asyncio.create_task(here.service.put(WHO, route("one", "two")))
            await waiting_for_a_lock(database)
        with pytest.raises(UnusableRoute, match="one → two → one"):
            await half


async def waiting_for_a_lock(database: Database) -> None:
    """Somebody waits for a row that this test holds."""
    query = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' "
        "AND query LIKE '%key_changes%'"
    )
    async with asyncio.timeout(10):
        while True:
            async with database.system() as session:
                if await session.scalar(query):
                    return
            await asyncio.sleep(0.02)


async def test_a_route_that_somebody_has_just_removed_is_not_led_by_way_of(
    database: Database, catalogue_of: MakeCatalogue
) -> None:
    catalogue = catalogue_of(TWO)
    async with none_left(database):
        here, there = Process(database, catalogue), Process(database, catalogue)
        await here.service.put(WHO, route("inner", "lab/small"))
        await there.keeper.refresh()
        await here.service.remove(WHO, "inner")
        with pytest.raises(UnusableRoute, match="There is no route 'inner' any more"):
            await there.service.put(WHO, route("outer", "inner"))


async def test_what_others_lead_by_way_of_is_not_removed(
    database: Database, catalogue_of: MakeCatalogue
) -> None:
    async with none_left(database):
        here = Process(database, catalogue_of(TWO), default_model="basis")
        await here.service.put(WHO, route("inner", "lab/small"))
        await here.service.put(WHO, route("outer", "inner"))
        await here.service.put(WHO, route("basis", "lab/small"))
        with pytest.raises(RouteInUse, match="outer leads by way of 'inner'"):
            await here.service.remove(WHO, "inner")
        with pytest.raises(RouteInUse, match="BAATCHEET_DEFAULT_MODEL names 'basis'"):
            await here.service.remove(WHO, "basis")
        await here.service.remove(WHO, "outer")
        await here.service.remove(WHO, "inner")


async def test_who_changed_what_is_in_the_audit(database: Database, catalogue_of: MakeCatalogue) -> None:
    async with none_left(database):
        here = Process(database, catalogue_of(TWO))
        await here.service.put(WHO, route("audited", "lab/small"))
        await here.service.put(WHO, route("audited", "lab/large", strategy="weighted"))
        await here.service.remove(WHO, "audited")
        async with database.system() as session:
            query = select(AuditEntry).where(AuditEntry.subject == "audited").order_by(AuditEntry.id)
            entries = list(await session.scalars(query))
    assert [(one.actor, one.via, one.action) for one in entries] == [
        ("Zoya", "cli", "route.set"),
        ("Zoya", "cli", "route.set"),
        ("Zoya", "cli", "route.removed"),
    ]
    assert entries[0].detail["before"] is None
    assert entries[1].detail["before"]["steps"] == [["lab/small", 1]]
    assert entries[1].detail["after"]["strategy"] == "weighted"


async def test_a_row_that_nobody_can_use_costs_only_itself(
    database: Database, catalogue_of: MakeCatalogue
) -> None:
    async with none_left(database):
        here = Process(database, catalogue_of(TWO))
        await here.service.put(WHO, route("good", "lab/small"))
        async with database.system() as session:
            await session.execute(
                text(
                    "INSERT INTO routes (name, strategy, tasks, steps) VALUES ('bad', 'ordered', '{chat}', :steps)"
                ),
                {"steps": '[{"weight": "heavy"}]'},
            )
            await session.execute(text("UPDATE key_changes SET routes = routes + 1"))
        await here.keeper.refresh()
        assert here.steps("good") == ["lab/small"]
        assert here.steps("bad") is None
        await here.service.put(WHO, route("bad", "lab/large"))
        assert here.steps("bad") == ["lab/large"]
