"""How long planning a turn takes, by where the conversation is found and how long it is."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from baatcheet.context.indexing import Indexer
from baatcheet.context.store import ContextStore
from baatcheet.entrypoints.api import calm_collector
from benchmarks.context.talk import QUESTIONS, Talk
from benchmarks.context.workplace import Workplace
from benchmarks.evidence import Message
from benchmarks.report import Report, progress

SMALL, MIDDLE, LARGE = 1_000, 10_000, 100_000  # messages
WARM_UP = 10  # readings that do not count
SEED = 11
CACHED = {"p50": 2.0, "p99": 10.0}  # ms
COLD = 50.0  # ms, the slowest of a hundred


@dataclass(frozen=True)
class Long:
    """A conversation that is indexed and summarised."""

    id: UUID
    messages: Sequence[Message]
    talk: Talk


class Latency:
    """One run, with so many readings of each kind; `sizes` are of conversations."""

    def __init__(self, place: Workplace, report: Report, *, sizes: Sequence[int], readings: int) -> None:
        self._place = place
        self._report = report
        self._sizes = sizes
        self._readings = readings
        self._medians: dict[tuple[int, str], float] = {}

    async def run(self) -> None:
        for size in self._sizes:
            progress(f"a conversation of {size:,} messages")
            long = await self._made(size)
            if size == MIDDLE:
                progress("from the cache")
                await self._cached(long)
            progress(f"cold, {size:,} messages")
            await self._cold(size, long)
        self._ratios()

    # The conversations, and what the background work for them takes ------------------------------------------

    async def _made(self, size: int) -> Long:
        talk = Talk(SEED + size)
        messages = talk.messages(size)
        conversation = await self._place.begin()
        await self._place.add(conversation, messages)
        if size == SMALL:
            await self._unindexed(conversation, talk.question("common", messages))
        before = await self._sizes_of_index()
        head = await self._place.value("SELECT head_id FROM conversations WHERE id = $1", conversation)
        indexer = Indexer(ContextStore(self._place.db))
        begun = time.perf_counter()
        await indexer.index(self._place.user, conversation, head, upto=size - 1)
        indexed = time.perf_counter()
        await self._place.compacted(conversation)
        ended = time.perf_counter()
        if size == MIDDLE:
            after = await self._sizes_of_index()
            self._add("index.rate", size / (indexed - begun), "messages/s", better="higher")
            self._add("summary.rate", size / (ended - indexed), "messages/s", better="higher")
            self._add("index.bytes_per_message", (after[0] - before[0]) / size, "bytes")
            self._add("index.keys.bytes_per_message", (after[1] - before[1]) / size, "bytes")
            text = sum(len(message.text.encode()) for message in messages)
            self._add("text.bytes_per_message", text / size, "bytes")
        await self._place.tidy()
        calm_collector()  # as in the API process: what the benchmark itself holds is none of its garbage
        return Long(conversation, messages, talk)

    async def _unindexed(self, conversation: UUID, question: str) -> None:
        """The first question after an import: what it could be about has to be indexed first."""
        begun = time.perf_counter()
        await self._place.manager().get_context(conversation, user_id=self._place.user, message=question)
        self._add(f"unindexed.{SMALL}", 1000 * (time.perf_counter() - begun), "ms")

    async def _sizes_of_index(self) -> tuple[int, int]:
        whole = await self._place.value("SELECT pg_total_relation_size('recall_passages')")
        return whole, await self._place.value("SELECT pg_relation_size('idx_recall_passages_keys')")

    # From the cache ------------------------------------------------------------------------------------------

    async def _cached(self, long: Long) -> None:
        first = self._place.manager()
        await first.get_context(long.id, user_id=self._place.user)
        await first.settle(long.id)

        async def from_redis() -> float:
            await self._shared(long)
            return await self._timed(long, None)

        async def from_memory() -> float:
            begun = time.perf_counter()
            await first.get_context(long.id, user_id=self._place.user)
            return time.perf_counter() - begun

        self._percentiles("cache.redis", await self._read(from_redis), CACHED)
        self._percentiles("cache.memory", await self._read(from_memory))
        asked = iter(self._questions(long))

        async def with_a_message() -> float:
            await self._shared(long)
            return await self._timed(long, next(asked))

        self._percentiles("cache.redis.asked", await self._read(with_a_message))

    # Cold ----------------------------------------------------------------------------------------------------

    async def _cold(self, size: int, long: Long) -> None:
        async def plain() -> float:
            await self._forget(long)
            return await self._timed(long, None)

        name = f"cold.{size}"
        limit = {"p99": COLD} if size == MIDDLE else {}
        self._medians[size, "plain"] = self._percentiles(f"{name}.plain", await self._read(plain), limit)
        asked = iter(self._questions(long))

        async def with_a_message() -> float:
            await self._forget(long)
            return await self._timed(long, next(asked))

        taken = await self._read(with_a_message)
        self._medians[size, "asked"] = self._percentiles(f"{name}.asked", taken, limit)
        for place, kind in enumerate(QUESTIONS):
            self._percentiles(
                f"{name}.asked.{kind}", taken[(place - WARM_UP) % len(QUESTIONS) :: len(QUESTIONS)]
            )

    async def _forget(self, long: Long) -> None:
        while not await self._place.cache.delete(f"context:{long.id}"):  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.01)  # it was late once, and is being connected again

    async def _shared(self, long: Long) -> None:
        """See to it that the cache is there, and has the conversation."""
        while await self._place.cache.get(f"context:{long.id}") is None:
            manager = self._place.manager()
            await manager.get_context(long.id, user_id=self._place.user)
            await manager.settle(long.id)

    def _ratios(self) -> None:
        largest = max(self._sizes)
        for kind in ("plain", "asked"):
            ratio = self._medians[largest, kind] / self._medians[SMALL, kind]
            target = 3.0 if largest == LARGE else None
            self._add(f"cold.{kind}.{largest}_to_{SMALL}", ratio, "x", target=target)

    # Measuring -----------------------------------------------------------------------------------------------

    def _questions(self, long: Long) -> list[str]:
        """One for each reading, of every kind in turn."""
        return [
            long.talk.question(QUESTIONS[number % len(QUESTIONS)], long.messages)
            for number in range(self._readings + WARM_UP)
        ]

    async def _timed(self, long: Long, message: str | None) -> float:
        """Seconds of one reading by a process that has just begun."""
        manager = self._place.manager()
        begun = time.perf_counter()
        await manager.get_context(long.id, user_id=self._place.user, message=message)
        taken = time.perf_counter() - begun
        await manager.settle(long.id)
        return taken

    async def _read(self, once: Callable[[], Awaitable[float]]) -> list[float]:
        """The seconds of each reading, after a few that warm up."""
        taken = [await once() for _ in range(WARM_UP + self._readings)]
        return taken[WARM_UP:]

    def _percentiles(
        self, name: str, seconds: Sequence[float], limits: dict[str, float] | None = None
    ) -> float:
        """Report them in milliseconds. Returns the median."""
        limits = limits or {}
        for title, share in (("p50", 0.5), ("p99", 0.99)):
            self._add(f"{name}.{title}", 1000 * percentile(seconds, share), "ms", target=limits.get(title))
        return percentile(seconds, 0.5)

    def _add(self, name: str, value: float, unit: str, **more: Any) -> None:
        self._report.add(name, value, unit, **({"better": "lower"} | more))


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which that share of the values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
