"""OpenAI's own client against a real server, whose provider is scripted."""

from collections.abc import AsyncIterator

import httpx
import openai
import pytest

from tests.chat.conftest import Upstream, upstream

__all__ = ["Upstream", "upstream"]


@pytest.fixture
async def client(alice: httpx.AsyncClient) -> AsyncIterator[openai.AsyncOpenAI]:
    """A client as its user makes one: a key and a base URL, nothing else."""
    key = alice.headers["authorization"].removeprefix("Bearer ")
    async with openai.AsyncOpenAI(api_key=key, base_url=f"{alice.base_url}/v1", max_retries=0) as made:
        yield made
