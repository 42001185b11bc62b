"""All 38 keys of five providers are replaced while streams are asked of all of them, and the old ones are revoked."""

import asyncio
import itertools
import statistics
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

import msgspec

from baatcheet.keys.stores.encrypted_file import place_of
from benchmarks.keys.deployment import ROTATED, Deployment, new_keys
from benchmarks.keys.streams import Asked, Streams, clock_offset
from benchmarks.keys.upstream import PACES
from benchmarks.report import Report, progress

RATE: Final = 200.0  # streams a second
RATES: Final = (RATE, 150.0, 100.0, 50.0)
EVERY: Final = 9  # one of so many streams is long
SLOW: Final = 2.0  # times what a stream takes by itself: then the rate does not hold
LOOK: Final = 0.02  # seconds
PATIENCE: Final = 240.0  # seconds
LIVE: Final = 5.0  # seconds, from a promotion until only new keys are used
FOLLOWING: Final = 3.0  # seconds of load after the end

_ROTATIONS = "SELECT provider, step, outcome, error, detail::text AS detail FROM key_rotations"
_SERVED = "SELECT count(*), min(sets) FROM key_watchers WHERE seen_at > clock_timestamp() - interval '10 s'"


@dataclass
class Course:
    """What was seen of the rotations. Moments are of `time.monotonic()`."""

    promoted: dict[str, float] = field(default_factory=dict)  # by provider: the store's file says so
    served: list[tuple[float, int, int]] = field(
        default_factory=list
    )  # when, how many processes, least change
    sets: dict[str, int] = field(default_factory=dict)
    outcomes: dict[str, str] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)


class Rotation:
    """One run."""

    def __init__(self, report: Report, deployment: Deployment, *, quick: bool) -> None:
        self._report = report
        self._deployment = deployment
        self._warm = 3.0 if quick else 10.0
        self._new = {provider: new_keys(count) for provider, count in ROTATED.items()}
        self._revoked: set[str] = set()

    async def run(self) -> None:
        for provider, keys in self._new.items():
            await self._deployment.upstream.tell(keys, "good")
            await self._deployment.stage(provider, keys)
        streams = Streams(self._deployment.server, _streams())
        try:
            await streams.run(20, 1.0)  # connections, code, the providers' quota
            rate = await self._rate_that_holds(streams)
            await self._rotate(streams, rate)
        finally:
            streams.close()

    async def _rate_that_holds(self, streams: Streams) -> float:
        """The first of RATES at which streams take about as long as at the provider, and nothing piles up."""
        for rate in RATES:
            progress(f"rotation: {rate:g} streams a second")
            before = len(streams.done)
            await streams.run(rate, self._warm)
            done = [one for one in streams.done[before:] if one.model.endswith("/stream")]
            late = done[len(done) // 2 :]
            took = statistics.median(one.seconds for one in late)
            self._report.note(
                f"at {rate:g} streams a second before the rotation: p50 {took * 1000:.0f} ms, "
                f"generator at most {streams.behind * 1000:.0f} ms late"
            )
            streams.behind = 0.0
            if took <= SLOW * _seconds("stream"):
                return rate
        return RATES[-1]

    async def _rotate(self, streams: Streams, rate: float) -> None:
        before, stop, course = len(streams.done), asyncio.Event(), Course()
        load = asyncio.create_task(streams.run_until(stop, rate))
        await asyncio.sleep(1.0)
        progress(f"rotation: {len(ROTATED)} providers, {sum(ROTATED.values())} keys")
        begun = asyncio.get_running_loop().time()
        async with self._watched(course):
            for provider in ROTATED:
                await self._deployment.api("POST", "/api/v1/keys/rotations", {"provider": provider})
            async with asyncio.timeout(PATIENCE):
                while len(course.outcomes) < len(ROTATED):  # noqa: ASYNC110 - a task watches for it
                    await asyncio.sleep(LOOK)
            ended = asyncio.get_running_loop().time()
            await asyncio.sleep(FOLLOWING)
        stop.set()
        await load
        done = streams.done[before:]
        await self._tell(course, rate, ended - begun, [one.failure for one in done if one.failure], len(done))
        self._report.add("rotation.generator_late", 1000 * streams.behind, "ms", better="lower")
        usual = [one.seconds for one in done if one.model.endswith("/stream") and not one.failure]
        added = sorted(1000 * (one - _seconds("stream")) for one in usual)
        self._report.add("rotation.added.p50", added[len(added) // 2], "ms", better="lower")
        self._report.add("rotation.added.p99", added[len(added) * 99 // 100], "ms", better="lower")

    async def _tell(
        self, course: Course, rate: float, seconds: float, failures: Sequence[str], count: int
    ) -> None:
        add, seen = self._report.add, await self._deployment.upstream.seen()
        add("rotation.rate", rate, "streams/s", better="higher", target=RATE)
        add("rotation.streams", count, "streams", better="higher")
        add("rotation.failed", len(failures), "streams", better="lower", target=0)
        rotated = sum(outcome == "rotated" for outcome in course.outcomes.values())
        add("rotation.rotated", rotated, "providers", better="higher", target=len(ROTATED))
        live = {}
        for provider, old in self._deployment.keys.items():
            if provider in course.promoted:
                last = max(seen.accounts[key].last for key in old if key in seen.accounts) / 1e9
                live[provider] = max(0.0, last - course.promoted[provider])
        add("rotation.live", max(live.values(), default=None), "s", better="lower", target=LIVE)
        served = [self._served(course, provider) for provider in course.promoted]
        known = [one for one in served if one is not None]
        add(
            "rotation.served",
            max(known) if len(known) == len(ROTATED) else None,
            "s",
            better="lower",
            target=LIVE,
        )
        add("rotation.processes", min(count for _, count, _ in course.served), "processes", better="higher")
        unused = [
            key
            for keys in self._new.values()
            for key in keys
            if not getattr(seen.accounts.get(key), "answered", 0)
        ]
        add("rotation.new_keys_unused", len(unused), "keys", better="lower", target=0)
        add("rotation.with_revoked_key", seen.after_revocation, "requests", better="lower", target=0)
        add("rotation.seconds", seconds, "s", better="lower")
        for provider, outcome in course.outcomes.items():
            since = f", only new keys {live[provider]:.2f} s after the promotion" if provider in live else ""
            self._report.note(f"{provider}: {outcome}{since} {course.errors.get(provider, '')}".rstrip())
        for failure in dict.fromkeys(failures):
            self._report.note(f"FAILED {failure}")

    @staticmethod
    def _served(course: Course, provider: str) -> float | None:
        """Seconds from a promotion until every process has written down that it serves it."""
        change = course.sets.get(provider, 0)
        for at, count, least in course.served:
            if at > course.promoted[provider] and change and least >= change and count:
                return at - course.promoted[provider]
        return None

    @asynccontextmanager
    async def _watched(self, course: Course) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(one(course)) for one in (self._watch_file, self._watch_rows)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            for task in tasks:
                with suppress(asyncio.CancelledError):
                    await task

    async def _watch_file(self, course: Course) -> None:
        """A set is promoted at the moment at which the file without it among the pending ones is there."""
        path, known = self._deployment.store.path, 0
        while len(course.promoted) < len(ROTATED):
            about = path.stat()
            if about.st_mtime_ns != known:
                known, document = about.st_mtime_ns, await self._deployment.store.document()
                places = [place_of(name, ROTATED) for name in document.set_lines()]
                pending = {
                    place.provider for place in places if place is not None and place.kind == "pending"
                }
                for provider in ROTATED.keys() - pending - course.promoted.keys():
                    course.promoted[provider] = about.st_mtime_ns / 1e9 + clock_offset()
            await asyncio.sleep(LOOK / 4)

    async def _watch_rows(self, course: Course) -> None:
        """What is written down. Old keys are revoked as soon as they are said to be drained."""
        async with self._deployment.rows() as connection:
            while True:
                at = time.monotonic()
                count, least = await connection.fetchrow(_SERVED)
                course.served.append((at, count, least))
                for provider, step, outcome, error, detail in await connection.fetch(_ROTATIONS):
                    course.sets[provider] = msgspec.json.decode(detail).get("sets", 0)
                    if (
                        step in {"revoke", "verify"} or outcome == "rotated"
                    ) and provider not in self._revoked:
                        self._revoked.add(provider)
                        await self._deployment.upstream.tell(self._deployment.keys[provider], "revoked")
                    if outcome is not None:
                        course.outcomes[provider] = outcome
                        course.errors[provider] = error or ""
                await asyncio.sleep(LOOK)


def _streams() -> Callable[[], Asked]:
    """One provider after the other; every ninth stream is a long one."""
    providers, numbers = itertools.cycle(ROTATED), itertools.count(1)

    def following() -> Asked:
        model = "long" if next(numbers) % EVERY == 0 else "stream"
        return Asked(f"{next(providers)}/{model}", PACES[model][0])

    return following


def _seconds(model: str) -> float:
    """How long a stream takes at the provider."""
    words, pause = PACES[model]
    return words * pause
