"""The beginning of a streamed reply: until there is one, somebody else can still be asked."""

from collections.abc import AsyncIterator

from baatcheet.providers.model import Chunk, ProviderError


async def beginning(provider: str, blocks: AsyncIterator[list[Chunk]]) -> list[list[Chunk]]:
    """What arrives up to and with the first chunk that has anything in it. Raises ProviderError."""
    first: list[list[Chunk]] = []
    async for block in blocks:
        first.append(block)
        if any(chunk.text or chunk.choice is not None or chunk.finish_reason for chunk in block):
            return first
    raise ProviderError(provider, "malformed", "answered with an empty stream")


class Resumed(AsyncIterator[list[Chunk]]):
    """What was read already, then the rest."""

    def __init__(self, first: list[list[Chunk]], rest: AsyncIterator[list[Chunk]]) -> None:
        self._first = first[::-1]
        self._rest = rest

    async def __anext__(self) -> list[Chunk]:
        return self._first.pop() if self._first else await anext(self._rest)
