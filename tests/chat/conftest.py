"""The chat's tests speak to a real server, whose provider is scripted."""

import asyncio
from typing import Any

import pytest

from tests.scripted_provider import ScriptedProvider


class Upstream:
    """What the scripted provider was asked."""

    def __init__(self, provider: ScriptedProvider) -> None:
        self.provider = provider

    def _asked(self, words: str) -> list[Any]:
        return [
            request
            for request in self.provider.chats
            if words in str(request.body["messages"][-1].get("content"))
        ]

    def last_messages(self, words: str) -> list[dict[str, Any]]:
        """The messages of the newest request whose last message holds `words`."""
        messages: list[dict[str, Any]] = self._asked(words)[-1].body["messages"]
        return messages

    def times_asked(self, words: str) -> int:
        return len(self._asked(words))

    async def abandoned(self, words: str, limit: float = 5) -> bool:
        """Whether our side closes the connection of that request before its end, within `limit` seconds."""
        async with asyncio.timeout(limit):
            while not any(request.disconnected for request in self._asked(words)):
                await asyncio.sleep(0.02)
        return True


@pytest.fixture(scope="session")
def upstream(scripted_provider: ScriptedProvider) -> Upstream:
    return Upstream(scripted_provider)
