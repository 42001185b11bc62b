"""Who is asked for a name that stands for several models, in which order, and why.

Everything that a choice is made by is in memory: the routes, what the providers list, how long they took lately and
what they cost.
"""

import difflib
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from baatcheet.providers.adapters.demo import CARD as DEMO_CARD
from baatcheet.providers.catalogue import AUTO, Catalogue, UnknownModel
from baatcheet.providers.model import ModelCard, Provider, Target
from baatcheet.providers.prices import Prices
from baatcheet.providers.routing.choosing import Cost, Group, Means, arranged, drawn, sight_first
from baatcheet.providers.routing.latency import Latencies
from baatcheet.providers.routing.model import Route, RouteUnfit, Step, Task
from baatcheet.providers.routing.table import Routes

ABSENT: Final = 5.0  # seconds in which a model that nobody serves is not looked for again
MOST_ABSENT: Final = 10_000
STAND_INS: Final = 3  # models that stand in for those of a built-in route
_NEAR: Final = 3
_NAMED = "asked for by name"


def by_price(prices: Prices) -> Cost:
    """A model's price, at three tokens of prompt for each of the reply: about what chats come to."""

    def cost(card: ModelCard) -> Decimal | None:
        price = prices.of(card.id)
        return None if price is None else (price.prompt * 3 + price.completion) / 4

    return cost


def no_prices(_card: ModelCard) -> Decimal | None:
    """Nothing is known of prices: `cheapest` keeps to the order of the steps."""
    return None


@dataclass(frozen=True, slots=True)
class Speaker:
    """A model that turns speech into text, at its provider."""

    provider: Provider
    model: str


class Router:
    """The catalogue, with routes before it: a route goes before a model that is called the same.

    `default_model` (BAATCHEET_DEFAULT_MODEL) may name a route; a route called `auto` takes the place of all defaults.
    `draw` gives numbers from 0 up to, not including, 1.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        routes: Routes | None = None,
        *,
        default_model: str | None = None,
        latencies: Latencies | None = None,
        cost: Cost = no_prices,
        draw: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.routes = routes or Routes()
        self._catalogue = catalogue
        self.default_model = default_model
        self._means = Means(draw, latencies or Latencies(), cost)
        self._clock = clock
        self._known = frozenset(provider.name for provider in catalogue.known)
        self._absent: dict[str, float] = {}  # until when

    # What a catalogue does -----------------------------------------------------------------------------------

    async def models(self) -> list[ModelCard]:
        return await self._catalogue.models()

    def named(self, name: str) -> Provider | None:
        return self._catalogue.named(name)

    def transcribers(self) -> list[tuple[Provider, tuple[str, ...]]]:
        return self._catalogue.transcribers()

    async def resolve_embedding(self, name: str | None) -> tuple[Target, ...]:
        """As the catalogue's: vectors of different models can't be compared, so that no route leads to any."""
        if name != AUTO and (route := self.routes.get(name)) is not None:
            raise RouteUnfit(
                route.name,
                f"{route.name!r} is a route, and embeddings of different models can't be compared: name one model.",
            )
        return await self._catalogue.resolve_embedding(name)

    async def resolve(self, name: str | None, task: Task = "chat") -> tuple[Target, ...]:
        """Who is to be asked for `name`, first to last, each with the reason; never empty.

        A route's name: the models that it leads to, as its strategy puts them. Everything else as the catalogue has it.
        Raises UnknownModel; RouteUnfit for a route that is not for `task`, or none of whose models is served.
        """
        if name is None or name == AUTO:
            return await self._resolve_auto(task)
        route = self.routes.get(name)
        if route is not None:
            return tuple(await self._follow(route, task))
        try:
            found = await self._catalogue.resolve(name)
        except UnknownModel as unknown:
            unknown.near = (self._alike(name) + unknown.near)[:_NEAR]
            raise
        return tuple([_because(one, _NAMED) for one in found])

    # Routes --------------------------------------------------------------------------------------------------

    def for_task(self, task: Task) -> "RouterForTask":
        """The same, for those who ask for models for one task only."""
        return RouterForTask(self, task)

    async def serves(self, route: Route, step: Step) -> bool:
        """Whether anybody can be asked for a step of `route` at the moment."""
        if self.routes.get(step.model) is not None:
            return True
        if route.suits("transcription"):
            return bool(self._transcribed(step.model))
        return bool(await self._served(step.model))

    async def usable(self, task: Task = "chat") -> list[Route]:
        """The routes that lead to a model now, by name."""
        return [
            route
            for route in self.routes.all()
            if route.suits(task) and await self._leads_somewhere(route, task)
        ]

    def speakers(self, name: str) -> list[Speaker]:
        """Who turns speech into text on the route `name`, first to last.

        Raises RouteUnfit when it is not for that, or nobody on it can be asked.
        """
        route = self.routes.get(name)
        if route is None or not route.suits("transcription"):
            raise RouteUnfit(name, f"There is no route {name!r} for transcription.")
        found = list(dict.fromkeys(self._spoken(route, frozenset({name}))))
        if not found:
            raise RouteUnfit(name, _nobody(route))
        return found

    def _spoken(self, route: Route, seen: frozenset[str]) -> list[Speaker]:
        groups: list[tuple[Step, list[Speaker]]] = []
        for step in route.steps:
            inner = self.routes.get(step.model)
            if inner is not None:
                if inner.name not in seen:
                    groups.append((step, self._spoken(inner, seen | {inner.name})))
                continue
            groups.append((step, self._transcribed(step.model)))
        if route.strategy == "weighted":
            order = drawn([step.weight for step, _ in groups], self._means.draw)
            groups = [groups[at] for at in order]
        return [one for _, speakers in groups for one in speakers]

    def _transcribed(self, model: str) -> list[Speaker]:
        """Who is to be asked for a transcription by `model`, `provider/name`."""
        prefix, _, rest = model.partition("/")
        provider = self._catalogue.named(prefix)
        return [Speaker(provider, rest)] if provider is not None and rest else []

    async def _resolve_auto(self, task: Task) -> tuple[Target, ...]:
        route = self.routes.get(AUTO)
        if route is not None:
            return tuple(await self._follow(route, task))
        default = self.routes.get(self.default_model)
        if default is None:
            found = await self._catalogue.resolve(AUTO)
            first, *others = found
            return (
                _because(first, "auto: the default model"),
                *[_because(one, "auto: another provider's default") for one in others],
            )
        chosen = await self._follow(default, task)
        asked = {one.model.provider for one in chosen}
        others = [one for one in await self._providers_defaults() if one.model.provider not in asked]
        return (*chosen, *[_because(one, "auto: another provider's default") for one in others])

    async def _follow(self, route: Route, task: Task) -> list[Target]:
        if not route.suits(task):
            raise RouteUnfit(
                route.name, f"The route {route.name!r} is for {', '.join(route.tasks)}, not for {task}."
            )
        found = await self._targets(route, frozenset({route.name}))
        if not found:
            raise RouteUnfit(route.name, _nobody(route))
        return sight_first(found) if route.prefers_sight and task in {"vision", "ocr"} else found

    async def _targets(self, route: Route, seen: frozenset[str]) -> list[Target]:
        groups = []
        for step in route.steps:
            inner = self.routes.get(step.model)
            if inner is not None:
                # What leads back is refused when a route is set; two that were written past that are cut here.
                targets = [] if inner.name in seen else await self._targets(inner, seen | {inner.name})
            else:
                targets = list(await self._served(step.model))
            if targets:
                groups.append(Group(targets, step.weight))
        return arranged(route, groups, self._means) if groups else await self._otherwise(route)

    async def _otherwise(self, route: Route) -> list[Target]:
        """Who stands in for a built-in route whose models are all elsewhere."""
        found: tuple[Target, ...]
        if route.otherwise == "auto":
            found, why = await self._served(AUTO) or await self._providers_defaults(), "auto"
        elif route.otherwise == "sees":
            seeing = [card for card in await self._chat_models() if card.vision]
            found, why = await self._each(seeing), "it sees pictures"
        elif route.otherwise == "widest":
            widest = sorted(await self._chat_models(), key=lambda card: -card.context_window)
            found, why = await self._each(widest), "the widest window"
        else:
            return []
        return [_because(one, f"route {route.name}: none of its models is served; {why}") for one in found]

    async def _each(self, cards: Sequence[ModelCard]) -> tuple[Target, ...]:
        return tuple([target for card in cards[:STAND_INS] for target in await self._served(card.id)])

    async def _chat_models(self) -> list[ModelCard]:
        return [card for card in await self._catalogue.models() if not card.embedding]

    async def _served(self, model: str) -> tuple[Target, ...]:
        """The targets of a model, or of `auto`; none when nobody serves it."""
        now = self._clock()
        until = self._absent.get(model)
        if until is not None and now < until:
            return ()
        prefix = model.partition("/")[0]
        if prefix in self._known and self._catalogue.named(prefix) is None:
            # A provider that has no key. Nobody is waited for, and its first key is served at once; a router of models
            # may list this very name.
            return self._listed(model)
        if model == AUTO and self.routes.get(self.default_model) is not None:
            return await self._providers_defaults()
        try:
            found = await self._catalogue.resolve(model)
        except UnknownModel:
            if len(self._absent) >= MOST_ABSENT:
                self._absent.clear()
            self._absent[model] = now + ABSENT
            return ()
        self._absent.pop(model, None)
        return found

    def _listed(self, model: str) -> tuple[Target, ...]:
        """Who lists a model of exactly this name, as far as that is known without waiting."""
        return tuple(
            [
                Target(provider, card)
                for one in self._catalogue.providers
                if (card := one.listing.find(model)) is not None
                and (provider := self._catalogue.named(one.name)) is not None
            ]
        )

    async def _providers_defaults(self) -> tuple[Target, ...]:
        """Every provider's own default, as far as that is known without waiting; the demo where there is none."""
        found = tuple(
            [
                Target(provider, card)
                for one in self._catalogue.providers
                if (card := one.listing.default) is not None
                and (provider := self._catalogue.named(one.name)) is not None
            ]
        )
        if found:
            return found
        try:
            return await self._catalogue.resolve(DEMO_CARD.id)
        except UnknownModel:
            return ()

    async def _leads_somewhere(self, route: Route, task: Task) -> bool:
        try:
            await self._follow(route, task)
        except UnknownModel:
            return False
        return True

    def _alike(self, name: str) -> list[str]:
        return difflib.get_close_matches(name.lower(), [one.name for one in self.routes.all()], n=1)


class RouterForTask:
    """A router as those see it who ask for models for one task only."""

    def __init__(self, router: Router, task: Task) -> None:
        self._router = router
        self._task = task

    async def models(self) -> list[ModelCard]:
        return await self._router.models()

    async def resolve(self, name: str | None) -> tuple[Target, ...]:
        return await self._router.resolve(name, self._task)

    async def resolve_embedding(self, name: str | None) -> tuple[Target, ...]:
        return await self._router.resolve_embedding(name)

    def named(self, name: str) -> Provider | None:
        return self._router.named(name)

    def transcribers(self) -> list[tuple[Provider, tuple[str, ...]]]:
        return self._router.transcribers()


def _because(target: Target, reason: str) -> Target:
    return Target(target.provider, target.model, reason)


def _nobody(route: Route) -> str:
    steps = [step.model for step in route.steps]
    return f"None of the models of the route {route.name!r} is served by any configured provider: {', '.join(steps)}."
