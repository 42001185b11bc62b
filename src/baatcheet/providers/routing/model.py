"""What a route is, and what those who ask for models need of whoever finds them."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Final, Literal, Protocol, get_args

import msgspec

from baatcheet.providers.catalogue import UnknownModel
from baatcheet.providers.model import ModelCard, Provider, Target

Task = Literal["chat", "vision", "ocr", "transcription"]
Strategy = Literal["ordered", "weighted", "fastest", "cheapest"]
Otherwise = Literal["auto", "sees", "widest"]

TASKS: Final[tuple[Task, ...]] = get_args(Task)
STRATEGIES: Final[tuple[Strategy, ...]] = get_args(Strategy)
NAME: Final = r"^[a-z0-9][a-z0-9._-]{0,63}$"
MOST_STEPS: Final = 32  # of one route
MOST_ROUTES: Final = 1_000
MOST_WEIGHT: Final = 1_000

_NAME = re.compile(NAME)
# A task, and what a route must be for to be asked for it. Whoever talks about pictures can talk.
_SUITS: Final[dict[Task, frozenset[Task]]] = {
    "chat": frozenset({"chat", "vision"}),
    "vision": frozenset({"chat", "vision"}),
    "ocr": frozenset({"ocr", "vision"}),
    "transcription": frozenset({"transcription"}),
}


def is_name(text: str) -> bool:
    """Whether a route may be called so."""
    return _NAME.match(text) is not None


@dataclass(frozen=True, slots=True)
class Step:
    """One place on a route: a model (`provider/name`, or a bare name), another route, or `auto`.

    `weight` counts for the strategy `weighted` alone; 0: only when all others have failed.
    """

    model: str
    weight: Annotated[int, msgspec.Meta(ge=0, le=MOST_WEIGHT)] = 1


@dataclass(frozen=True, slots=True)
class Route:
    """A name that stands for models. `otherwise`: who is asked when none of its steps is served here."""

    name: str
    steps: tuple[Step, ...]
    strategy: Strategy = "ordered"
    tasks: tuple[Task, ...] = ("chat",)
    description: str = ""
    otherwise: Otherwise | None = None
    updated_at: datetime | None = None  # None: it comes with BaatCheet

    @property
    def built_in(self) -> bool:
        return self.updated_at is None

    def suits(self, task: Task) -> bool:
        return not _SUITS[task].isdisjoint(self.tasks)

    @property
    def prefers_sight(self) -> bool:
        """Whether a request with a picture goes to the models that see before it goes to others."""
        return not {"vision", "ocr"}.isdisjoint(self.tasks)


class RouteUnfit(UnknownModel):
    """A route can't be used for what it was asked for. `words` say why, for a client."""

    def __init__(self, name: str, words: str) -> None:
        super().__init__(name, [])
        self.words = words

    def __str__(self) -> str:
        return self.words


class Models(Protocol):
    """Who finds the models that are asked for: a catalogue, or a router in front of one."""

    async def models(self) -> list[ModelCard]: ...

    async def resolve(self, name: str | None) -> tuple[Target, ...]:
        """Who is to be asked, first to last; never empty. Raises UnknownModel."""
        ...

    async def resolve_embedding(self, name: str | None) -> tuple[Target, ...]: ...

    def named(self, name: str) -> Provider | None: ...

    def transcribers(self) -> list[tuple[Provider, tuple[str, ...]]]: ...


def loop_of(route: Route, others: Iterable[Route]) -> list[str] | None:
    """The names on the way from `route` back to it, itself first and last; None when it leads nowhere twice."""
    known = {one.name: one for one in others} | {route.name: route}

    def search(name: str, way: Sequence[str]) -> list[str] | None:
        for step in known[name].steps:
            if step.model == route.name:
                return [*way, step.model]
            if step.model in known and step.model not in way:
                found = search(step.model, [*way, step.model])
                if found is not None:
                    return found
        return None

    return search(route.name, [route.name])
