"""A provider of the house's adapter, speaking to the scripted provider."""

from collections.abc import AsyncIterator, Callable, Iterator

import aiohttp
import pytest
import pytest_asyncio
from pydantic import SecretStr

from baatcheet.platform.http import client_session
from baatcheet.providers.adapters.openai import OpenAIProvider, TimeLimits
from baatcheet.providers.model import ModelCard
from baatcheet.providers.profiles import Profile
from tests.scripted_provider import ScriptedProvider

KEY = "sk-secret/key+1234"
MODEL = ModelCard(provider="lab", name="scripted", context_window=32_768)
MakeProvider = Callable[..., OpenAIProvider]


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
    made: list[OpenAIProvider] = []

    def make(
        name: str = "lab",
        base_url: str | None = None,
        limits: TimeLimits | None = None,
        key: str | None = KEY,
        **profile: object,
    ) -> OpenAIProvider:
        described = Profile(name=name, base_url=base_url or upstream.base_url, **profile)  # type: ignore[arg-type]  # any field
        secret = SecretStr(key) if key else None
        made.append(OpenAIProvider(described, session, key=secret, limits=limits or TimeLimits(2, 2, 2)))
        return made[-1]

    yield make
    for provider in made:
        await provider.close()
