"""A provider of the house's adapter, speaking to the scripted provider."""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager

import aiohttp
import pytest
import pytest_asyncio

from baatcheet.keys.secret import SecretKey
from baatcheet.platform.http import client_session
from baatcheet.platform.redaction import register_secret
from baatcheet.providers.adapters.openai import OpenAIAdapter, TimeLimits
from baatcheet.providers.model import Access, Adapter, Body, Chunk, Completion, ModelCard, Speech
from baatcheet.providers.profiles import Profile
from tests.scripted_provider import ScriptedProvider

KEY = "sk-secret/key+1234"
MODEL = ModelCard(provider="lab", name="scripted", context_window=32_768)


class OneKey:
    """A key that is lent to every call, and of which nobody keeps account."""

    def __init__(self, key: str) -> None:
        self.key = SecretKey(key)

    def heard(self, headers: Mapping[str, str]) -> None:
        """Nothing is made of it."""


class Direct:
    """An adapter, asked with the one key that it is given, and no pool around it."""

    def __init__(self, adapter: Adapter, access: Access | None, wait: float) -> None:
        self.adapter = adapter
        self.access = access
        self.wait = wait
        self.name = adapter.profile.name
        self.profile = adapter.profile
        self.listing = adapter.listing

    async def models(self) -> Sequence[ModelCard]:
        return await self.listing.cards(wait=self.wait)

    def stream(self, model: ModelCard, body: Body) -> AbstractAsyncContextManager[AsyncIterator[list[Chunk]]]:
        return self.adapter.stream(model, body, self.access)

    async def complete(self, model: ModelCard, body: Body) -> Completion:
        return await self.adapter.complete(model, body, self.access)

    async def embed(self, model: ModelCard, body: Body) -> bytes:
        return await self.adapter.embed(model, body, self.access)

    async def transcribe(self, model: str, speech: Speech) -> bytes:
        return await self.adapter.transcribe(model, speech, self.access)

    async def check(self) -> int:
        return await self.adapter.check(self.access)

    async def close(self) -> None:
        await self.adapter.close()


MakeProvider = Callable[..., Direct]


@pytest.fixture(scope="session")
def _running_upstream() -> Iterator[ScriptedProvider]:
    with ScriptedProvider() as provider:
        yield provider


@pytest.fixture
def upstream(_running_upstream: ScriptedProvider) -> ScriptedProvider:
    _running_upstream.reset()
    return _running_upstream


@pytest.fixture
def second() -> Iterator[ScriptedProvider]:
    """Another provider, somewhere else."""
    with ScriptedProvider() as provider:
        yield provider


@pytest_asyncio.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with client_session() as made:
        yield made


@pytest_asyncio.fixture
async def make_provider(
    upstream: ScriptedProvider, session: aiohttp.ClientSession
) -> AsyncIterator[MakeProvider]:
    made: list[Direct] = []

    def make(
        name: str = "lab",
        base_url: str | None = None,
        limits: TimeLimits | None = None,
        key: str | None = KEY,
        **profile: object,
    ) -> Direct:
        described = Profile(name=name, base_url=base_url or upstream.base_url, **profile)  # type: ignore[arg-type]  # any field
        access = OneKey(key) if key else None
        if key:
            register_secret(key)
        times = limits or TimeLimits(2, 2, 2)
        adapter = OpenAIAdapter(described, session, access=lambda: access, limits=times)
        made.append(Direct(adapter, access, times.connect))
        return made[-1]

    yield make
    for provider in made:
        await provider.close()
