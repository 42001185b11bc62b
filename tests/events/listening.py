"""A client that follows the events, and what it has seen."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.running import Event


@dataclass
class Listener:
    """What has come so far. `ended`: the stream is over, in good order."""

    status: int
    seen: list[Event] = field(default_factory=list)
    comments: int = 0
    place: int | None = None  # the number to go on from
    ended: bool = False
    broken: bool = False
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def numbers(self) -> list[int]:
        return [event.data["data"]["number"] for event in self.seen if event.name != "reset"]

    async def until(self, count: int, seconds: float = 10) -> list[Event]:
        """The first `count` events, once they are there."""
        async with asyncio.timeout(seconds):
            while len(self.seen) < count:
                await self._wait()
        return self.seen[:count]

    async def until_over(self, seconds: float = 10) -> None:
        async with asyncio.timeout(seconds):
            while not (self.ended or self.broken):
                await self._wait()

    async def until_comment(self, count: int, seconds: float = 10) -> None:
        async with asyncio.timeout(seconds):
            while self.comments < count:
                await self._wait()

    async def _wait(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def read(self, lines: AsyncIterator[str]) -> None:
        number, name, data = self.place, None, ""
        try:
            async for line in lines:
                if line.startswith(":"):
                    self.comments += 1
                elif line.startswith("id: "):
                    number = int(line[4:])
                elif line.startswith("event: "):
                    name = line[7:]
                elif line.startswith("data: "):
                    data = line[6:]
                elif not line:
                    self.place = number  # not before: an event that was cut off was not received
                    if data:
                        self.seen.append(Event(number, name, json.loads(data)))
                    name, data = None, ""
                self._changed.set()
            self.ended = True
        except httpx.HTTPError:
            self.broken = True
        finally:
            self._changed.set()


@asynccontextmanager
async def listening(
    url: str, token: str, *, after: int | None = None, **parameters: Any
) -> AsyncIterator[Listener]:
    """Follows the events; with `after` as Last-Event-ID, and with `query_after` as the address's `after`."""
    headers = {"authorization": f"Bearer {token}"}
    if after is not None:
        headers["last-event-id"] = str(after)
    if "query_after" in parameters:
        parameters["after"] = parameters.pop("query_after")
    async with (
        httpx.AsyncClient(base_url=url, headers=headers, timeout=30, trust_env=False) as client,
        client.stream("GET", "/api/v1/events", params=parameters) as response,
    ):
        listener = Listener(response.status_code)
        if response.status_code != 200:
            await response.aread()
            raise httpx.HTTPStatusError(response.text, request=response.request, response=response)
        reading = asyncio.create_task(listener.read(response.aiter_lines()))
        try:
            yield listener
        finally:
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await reading
