"""`baatcheet routes`: names that stand for several models."""

import re
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Annotated, Final, TypeVar

import typer

from baatcheet.entrypoints.cli.session import with_database
from baatcheet.entrypoints.keyring import build_ring
from baatcheet.entrypoints.routing import build_routing
from baatcheet.keys.audit import Actor
from baatcheet.kit.text import printable, uncontrolled, unstorable
from baatcheet.platform.database import Database, DatabaseUnavailable
from baatcheet.platform.errors import Problem
from baatcheet.platform.http import client_session
from baatcheet.platform.settings import load
from baatcheet.providers.catalogue import build_catalogue
from baatcheet.providers.prices import Prices
from baatcheet.providers.routing.latency import Latencies
from baatcheet.providers.routing.model import (
    MOST_STEPS,
    MOST_WEIGHT,
    STRATEGIES,
    TASKS,
    Route,
    Step,
    Strategy,
    Task,
    is_name,
)
from baatcheet.providers.routing.service import RouteService, Standing

app = typer.Typer(help="Names that stand for several models.", no_args_is_help=True)

Result = TypeVar("Result")

OPERATOR: Final = Actor("command line", "cli")
MOST_TEXT: Final = 1_000  # characters of a description


@app.command("list")
def show() -> None:
    """List the routes by name, with their steps. What no configured provider serves now is marked with a dash."""
    for standing in _with_service(lambda service: service.list()):
        _print(standing)


@app.command("set")
def put(
    name: Annotated[
        str, typer.Argument(help="Small letters, digits, '.', '_' and '-'; auto: what nobody named.")
    ],
    steps: Annotated[
        list[str],
        typer.Argument(
            help="Models (provider/name), other routes or auto, in their order. With a weight: provider/name=3.",
            metavar="STEP...",
        ),
    ],
    strategy: Annotated[str, typer.Option(help=f"One of {', '.join(STRATEGIES)}.")] = "ordered",
    tasks: Annotated[
        str, typer.Option("--for", help=f"Of {', '.join(TASKS)}; comma-separated.", metavar="TASKS")
    ] = "chat",
    description: Annotated[str, typer.Option(help="What it is for.")] = "",
) -> None:
    """Make a route, or replace it. Every process follows it within two seconds."""
    route = Route(
        name=_name(name),
        steps=tuple([_step(step) for step in steps]),
        strategy=_strategy(strategy),
        tasks=_tasks(tasks),
        description=_description(description),
    )
    if len(route.steps) > MOST_STEPS:
        raise typer.BadParameter(f"a route has at most {MOST_STEPS} steps")
    _print(_with_service(lambda service: service.put(OPERATOR, route)))


@app.command("remove")
def remove(name: Annotated[str, typer.Argument(help="The route's name.")]) -> None:
    """Remove a route. A built-in one that it had taken the place of is in force again."""
    _with_service(lambda service: service.remove(OPERATOR, _name(name)))
    print(f"{name} is removed.")


def _with_service(work: Callable[[RouteService], Awaitable[Result]]) -> Result:
    """Run `work` with the providers and the database that the settings name. A problem ends the command."""
    settings = load()

    async def run(database: Database) -> Result:
        async with AsyncExitStack() as stack:
            session = await stack.enter_async_context(client_session())
            ring = build_ring(settings, database, listens=False)
            stack.push_async_callback(ring.close)
            await ring.start(serving=False)
            catalogue = build_catalogue(settings.providers, session, ring.pools)
            stack.push_async_callback(catalogue.close)
            routing, keeper = build_routing(settings, database, catalogue, Latencies(), Prices())
            await keeper.refresh()
            return await work(routing.service)

    try:
        return with_database(run)
    except DatabaseUnavailable:
        raise
    except Problem as problem:
        raise typer.BadParameter(str(problem)) from problem


def _print(standing: Standing) -> None:
    route = standing.route
    origin = "built in" if route.built_in else "yours"
    about = f"  {printable(route.description)}" if route.description else ""
    print(f"{route.name}  {route.strategy}  {','.join(route.tasks)}  {origin}{about}")
    for step, served in zip(route.steps, standing.served, strict=True):
        weight = f"={step.weight}" if route.strategy == "weighted" else ""
        print(f"  {'+' if served else '-'} {printable(step.model)}{weight}")


def _name(text: str) -> str:
    if not is_name(text):
        raise typer.BadParameter(
            "a route is called by 1 to 64 small letters, digits, '.', '_' and '-', the first a letter or digit"
        )
    return text


def _step(text: str) -> Step:
    model, equals, weight = text.rpartition("=")
    if not equals:
        model, weight = text, "1"
    if not re.fullmatch("[0-9]{1,4}", weight) or int(weight) > MOST_WEIGHT:
        raise typer.BadParameter(f"a weight is a number from 0 to {MOST_WEIGHT:,}: {printable(text)}")
    if not model or len(model) > 300 or unstorable(model) or uncontrolled(model):
        raise typer.BadParameter(f"this names no model: {printable(text)[:300]!r}")
    return Step(model, int(weight))


def _strategy(text: str) -> Strategy:
    for strategy in STRATEGIES:
        if strategy == text:
            return strategy
    raise typer.BadParameter(f"strategies are: {', '.join(STRATEGIES)}")


def _tasks(text: str) -> tuple[Task, ...]:
    wanted = [one.strip() for one in text.split(",") if one.strip()]
    found = tuple([task for task in TASKS if task in wanted])
    if not found or set(wanted) - set(TASKS):
        raise typer.BadParameter(f"tasks are: {', '.join(TASKS)}")
    return found


def _description(text: str) -> str:
    if len(text) > MOST_TEXT or unstorable(text):
        raise typer.BadParameter(
            f"a description has at most {MOST_TEXT:,} characters, all of which can be stored"
        )
    return text
