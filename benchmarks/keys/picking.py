"""What it costs to pick a key from a pool of 38 with their counters, quota and breakers."""

import asyncio
import statistics
import time
from typing import Final

from baatcheet.keys.limits import limits_of
from baatcheet.keys.pool import DAY, KeyPool, PooledKey
from baatcheet.keys.secret import SecretKey
from benchmarks.report import Report, progress

KEYS: Final = 38
CONCURRENT: Final = 1_000
PICKS: Final = 200_000
ROUND: Final = 100  # picks
LIMIT: Final = 10.0  # µs
_ANSWER: Final = {
    "content-type": "text/event-stream",
    "x-ratelimit-limit-requests": "14400",
    "x-ratelimit-remaining-requests": "14370",
    "x-ratelimit-reset-requests": "2m59.56s",
}


class Picking:
    """38 keys with a day's limit: one is quarantined, one rests, all others have quota, and get more when they ask."""

    def __init__(self) -> None:
        now = time.time()
        self._day = int(now // DAY)
        self._pool = KeyPool("groq", limits_of("groq"))
        secrets = [SecretKey(f"gsk_{number:048d}") for number in range(KEYS)]
        self._pool.replace(
            [PooledKey(one.fingerprint(b"benchmark", "groq"), one.hint, one) for one in secrets]
        )
        self._needs = asyncio.Event()
        self._pool.on_need = self._needs.set
        ids = [holding.id for holding in self._pool.holdings()]
        self._grant()
        self._pool.quarantine(ids[3], "refused")
        self._pool.rest(ids[7], now + 3_600, "asked to wait")

    def _grant(self) -> None:
        self._needs.clear()
        for holding in self._pool.holdings():
            self._pool.grant(holding.id, self._day, max(0, 1_000 - holding.left), 10_000)

    def one_by_one(self, count: int) -> list[int]:
        """Nanoseconds of each pick, while no other request is under way."""
        clock = time.perf_counter_ns
        taken = []
        for _ in range(count):
            began = clock()
            lease = self._pool.pick()
            taken.append(clock() - began)
            lease.done(400)
            if self._needs.is_set():
                self._grant()
        return taken

    async def together(self, count: int) -> list[int]:
        """Nanoseconds of each pick, while a thousand requests are under way."""
        clock = time.perf_counter_ns
        taken: list[int] = []

        async def requests() -> None:
            for _ in range(count // CONCURRENT):
                began = clock()
                lease = self._pool.pick()
                taken.append(clock() - began)
                await asyncio.sleep(0)
                lease.heard(_ANSWER)
                await asyncio.sleep(0)
                lease.done(400)
                if self._needs.is_set():
                    self._grant()

        await asyncio.gather(*(requests() for _ in range(CONCURRENT)))
        return taken


def picking(report: Report, *, quick: bool) -> None:
    """The figures of picking."""
    count = PICKS // 4 if quick else PICKS
    for concurrent in (1, CONCURRENT):
        progress(f"picking, {concurrent} at once")
        picks = Picking()
        if concurrent == 1:
            picks.one_by_one(CONCURRENT)  # warm
            taken = picks.one_by_one(count)
        else:
            asyncio.run(picks.together(CONCURRENT))
            taken = asyncio.run(picks.together(count))
        # Of many short rounds the one in the middle: those in which the machine did something else say nothing.
        rounds = [statistics.fmean(taken[at : at + ROUND]) for at in range(0, len(taken), ROUND)]
        percentiles = statistics.quantiles(taken, n=100)
        name = f"pick.{concurrent}"
        report.add(name, statistics.median(rounds) / 1000, "µs", better="lower", target=LIMIT)
        report.add(f"{name}.p50", percentiles[49] / 1000, "µs", better="lower")
        report.add(f"{name}.p99", percentiles[98] / 1000, "µs", better="lower")
