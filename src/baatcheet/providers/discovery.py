"""Which models a provider serves, asked from it and kept up to date in the background."""

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from baatcheet.kit.text import unstorable
from baatcheet.providers.model import ModelCard
from baatcheet.providers.profiles import GUESS, Profile, encoding_of

REFRESH = 300.0  # seconds between two looks at a provider that answers
RETRY = 30.0  # at one that does not, or that may come and go

_EMBEDS = re.compile(r"embed|(?:^|[-/])(?:bge|e5|gte|minilm)(?:[-:]|$)", re.IGNORECASE)
_WINDOW_FIELDS = (
    "context_length",
    "context_window",
    "max_model_len",
    "max_context_length",
    "max_input_tokens",
)

Entries = Callable[[], Awaitable[Sequence[object] | None]]


class Listing:
    """One provider's models: at first those of its profile, then those that it lists itself.

    The first `cards` call starts the background refresh. A refresh that fails leaves what there was, except
    for a provider that may come and go, which then has no models until it is back.
    """

    def __init__(
        self, profile: Profile, entries: Entries, *, refresh: float = REFRESH, retry: float = RETRY
    ) -> None:
        self._profile = profile
        self._entries = entries
        self.refresh = refresh
        self.retry = retry
        self._cards = {known.name: known.card(profile.name) for known in profile.models}
        self._task: asyncio.Task[None] | None = None
        self._looked = asyncio.Event()
        self.reached = False

    def find(self, name: str) -> ModelCard | None:
        """The card of a model that is listed now."""
        return self._cards.get(name)

    @property
    def default(self) -> ModelCard | None:
        """The profile's default while it is listed, else the first chat model."""
        preferred = self._cards.get(self._profile.default_model or "")
        if preferred is not None:
            return preferred
        if self._profile.default_model and (self._profile.open or not self._cards):
            return self.unlisted(self._profile.default_model)
        return next((card for card in self._cards.values() if not card.embedding), None)

    def unlisted(self, name: str) -> ModelCard:
        """A card for a model that the list does not hold."""
        encoding = self._profile.default_encoding or encoding_of(name)
        return ModelCard(
            provider=self._profile.name,
            name=name,
            context_window=self._profile.default_window,
            window_stated=self._profile.window_stated,
            encoding=encoding or GUESS,
            exact_encoding=encoding is not None,
            embedding=_EMBEDS.search(name) is not None,
        )

    @property
    def passes_on(self) -> bool:
        """Whether a model that is not listed is asked for all the same."""
        if self._profile.open:
            return True
        return (
            self._profile.discover
            and not self._profile.optional
            and not self.reached
            and not self._profile.models
        )

    async def cards(self, *, wait: float) -> Sequence[ModelCard]:
        """What is listed now. The first time, waits up to `wait` seconds for what can't be known before."""
        await self.look(wait=wait)
        return tuple(self._cards.values())

    def start(self) -> None:
        """See to it that the list is kept up to date, from now until `close`."""
        if self._task is None and self._profile.discover:
            self._task = asyncio.create_task(self._keep_up(), name=f"models of {self._profile.name}")

    @property
    def settled(self) -> bool:
        """Whether there is nothing to wait for: `look` would return at once."""
        if self._task is None:
            return not self._profile.discover
        return self._looked.is_set() or not (self._profile.open or not self._profile.models)

    async def look(self, *, wait: float) -> None:
        """`start`, and wait as `cards` does."""
        self.start()
        if self._task is None:
            return
        if not self._looked.is_set() and (self._profile.open or not self._profile.models):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._looked.wait()

    async def _keep_up(self) -> None:
        while True:
            entries = await self._entries()
            if entries is not None:
                self._cards = {card.name: card for card in cards_of(self._profile, entries)}
                self.reached = True
            elif self._profile.optional:
                self._cards = {}
            self._looked.set()
            await asyncio.sleep(self.retry if entries is None or self._profile.optional else self.refresh)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


def cards_of(profile: Profile, entries: Sequence[object]) -> list[ModelCard]:
    """A card for each entry of a `/models` list that can be used; what is known beforehand comes first."""
    known = {one.name: one.card(profile.name) for one in profile.models}
    hidden = re.compile(profile.not_chat, re.IGNORECASE) if profile.not_chat else None
    found: dict[str, ModelCard] = {}
    for entry in entries:
        if (
            not isinstance(entry, Mapping)
            or not isinstance(entry.get("id"), str)
            or unstorable(entry["id"])
            or entry.get("active") is False
        ):
            continue
        name = entry["id"].removeprefix(profile.id_prefix)
        if name and (name in known or hidden is None or not hidden.search(name)):
            found[name] = _card(profile, name, entry, known.get(name))
    first = [found[name] for name in known if name in found]
    return first + [card for name, card in found.items() if name not in known]


def _card(profile: Profile, name: str, entry: Mapping[str, Any], known: ModelCard | None) -> ModelCard:
    window = _window(entry)
    output = _first_size(
        entry.get("max_completion_tokens"), _part(entry, "top_provider").get("max_completion_tokens")
    )
    encoding = profile.default_encoding or encoding_of(name)
    card = known or ModelCard(
        provider=profile.name,
        name=name,
        context_window=window or profile.default_window,
        window_stated=window is not None or profile.window_stated,
        encoding=encoding or GUESS,
        exact_encoding=encoding is not None,
        embedding=_EMBEDS.search(name) is not None,
        vision="image" in _names(_part(entry, "architecture").get("input_modalities")),
        tools="supported_parameters" not in entry or "tools" in _names(entry["supported_parameters"]),
    )
    return replace(
        card,
        context_window=window or card.context_window,
        window_stated=window is not None or card.window_stated,
        max_output=output or card.max_output,
        created=_first_number(entry.get("created"), below=2**40) or card.created,
    )


def _window(entry: Mapping[str, Any]) -> int | None:
    stated = _first_size(
        *(entry.get(name) for name in _WINDOW_FIELDS), _part(entry, "meta").get("n_ctx_train")
    )
    if stated is not None:
        return stated
    # A router does not say which of its backends will answer: the smallest window fits them all.
    backends = entry.get("providers")
    sizes = (
        [_first_size(_as_mapping(one).get("context_length")) for one in backends]
        if isinstance(backends, list)
        else []
    )
    return min((size for size in sizes if size is not None), default=None)


def _first_size(*values: object) -> int | None:
    return _first_number(*values, below=2**31)


def _first_number(*values: object, below: int) -> int | None:
    return next((v for v in values if isinstance(v, int) and not isinstance(v, bool) and 0 < v < below), None)


def _part(entry: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return _as_mapping(entry.get(name))


def _as_mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _names(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
