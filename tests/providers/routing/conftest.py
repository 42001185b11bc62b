"""Catalogues of providers that nobody asks: what they list is known beforehand, so that no network is needed."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence

import aiohttp
import pytest_asyncio

from baatcheet.keys.pool import KeyPool
from baatcheet.platform.http import client_session
from baatcheet.providers.adapters.demo import DemoProvider
from baatcheet.providers.adapters.openai import OpenAIAdapter, TimeLimits
from baatcheet.providers.catalogue import Catalogue
from baatcheet.providers.pooled import PooledProvider
from baatcheet.providers.profiles import Known, Profile

NOWHERE = "http://127.0.0.1:9/v1"
MakeCatalogue = Callable[..., Catalogue]


@pytest_asyncio.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with client_session() as made:
        yield made


@pytest_asyncio.fixture
async def catalogue_of(session: aiohttp.ClientSession) -> AsyncIterator[MakeCatalogue]:
    """Makes a catalogue of providers by name; `keyless`: those that can't be used have no key."""
    made: list[Catalogue] = []

    def make(
        providers: Mapping[str, Sequence[str | Known]],
        *,
        default_model: str | None = None,
        without_key: Sequence[str] = (),
        transcribes: Mapping[str, Sequence[str]] = {},
    ) -> Catalogue:
        pooled = []
        for name, models in providers.items():
            known = tuple([Known(one, 32_768) if isinstance(one, str) else one for one in models])
            profile = Profile(
                name=name,
                base_url=NOWHERE,
                models=known,
                discover=False,
                transcribes=tuple(transcribes.get(name, ())),
            )
            adapter = OpenAIAdapter(profile, session, access=lambda: None, limits=TimeLimits(1, 1, 1))
            pooled.append(PooledProvider(adapter, KeyPool(name), keyless=name not in without_key))
        made.append(Catalogue(pooled, demo=DemoProvider(), default_model=default_model, wait=0.1))
        return made[-1]

    yield make
    for catalogue in made:
        await catalogue.close()
