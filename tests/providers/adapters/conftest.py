"""A bench for each protocol."""

from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest
import pytest_asyncio

from baatcheet.platform.redaction import register_secret
from tests.providers.adapters.bench import ANTHROPIC, KEY, PROTOCOLS, Bench, Protocol
from tests.scripted_provider import ScriptedProvider


@pytest.fixture(scope="session")
def _fakes() -> Iterator[dict[str, ScriptedProvider]]:
    register_secret(KEY)
    running = {protocol.name: protocol.fake() for protocol in PROTOCOLS}
    for fake in running.values():
        fake.__enter__()
    yield running
    for fake in running.values():
        fake.__exit__(None, None, None)


async def _bench(
    protocol: Protocol, fakes: dict[str, ScriptedProvider], session: aiohttp.ClientSession
) -> AsyncIterator[Bench]:
    upstream = fakes[protocol.name]
    upstream.reset()
    made = Bench(protocol, upstream, session)
    yield made
    for adapter in made.made:
        await adapter.close()


@pytest_asyncio.fixture(params=PROTOCOLS, ids=lambda protocol: protocol.name)
async def bench(
    request: pytest.FixtureRequest, _fakes: dict[str, ScriptedProvider], session: aiohttp.ClientSession
) -> AsyncIterator[Bench]:
    async for made in _bench(request.param, _fakes, session):
        yield made


@pytest_asyncio.fixture
async def claude(_fakes: dict[str, ScriptedProvider], session: aiohttp.ClientSession) -> AsyncIterator[Bench]:
    """The bench of the Messages API alone."""
    async for made in _bench(ANTHROPIC, _fakes, session):
        yield made
