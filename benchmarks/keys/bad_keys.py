"""One dead and one rate-limited key in a pool of 14, beside a pool of 14 good ones that is asked in turn with it."""

import itertools
import statistics
import time
from typing import Final

from benchmarks.clients import body
from benchmarks.keys.deployment import SOUND, SPOILT, Deployment
from benchmarks.keys.streams import QUESTION, Asked, Streams
from benchmarks.report import Report, progress

RATE: Final = 100.0  # streams a second, half of them each pool's
TRIPS: Final = 40


class BadKeys:
    """One run. At the beginning of each round both keys are restored, so that they are met again."""

    def __init__(self, report: Report, deployment: Deployment, *, quick: bool) -> None:
        self._report = report
        self._deployment = deployment
        self._rounds, self._seconds = (2, 2.5) if quick else (5, 10.0)

    async def run(self) -> None:
        deployment, add = self._deployment, self._report.add
        dead, limited = deployment.keys[SPOILT][:2]
        pools = itertools.cycle((SOUND, SPOILT))
        streams = Streams(deployment.server, lambda: Asked(f"{next(pools)}/late", 1))
        try:
            progress("bad keys: warming up")
            await streams.run(RATE, 1.5)
            streams.done.clear()
            trip = await self._trip()
            await deployment.upstream.tell([dead], "revoked")
            await deployment.upstream.tell([limited], "limited")
            for number in range(self._rounds):
                progress(f"bad keys: round {number + 1} of {self._rounds}")
                if number:
                    await self._restore()
                await streams.run(RATE, self._seconds)
        finally:
            streams.close()
        failures = [one.failure for one in streams.done if one.failure is not None]
        took = {pool: self._latencies(streams, pool) for pool in (SOUND, SPOILT)}
        [refused] = await deployment.upstream.accounts([dead])
        [asked_to_wait] = await deployment.upstream.accounts([limited])
        met = refused.refused + asked_to_wait.limited
        add("bad_keys.errors", len(failures), "streams", better="lower", target=0)
        p99 = {pool: _share(some, 0.99) for pool, some in took.items()}
        add("bad_keys.added.p99", p99[SPOILT] - p99[SOUND], "ms", better="lower", target=trip)
        add("bad_keys.failed_trip", trip, "ms", better="lower")
        for pool, some in took.items():
            for name, share in (("p50", 0.5), ("p99", 0.99), ("most", 1.0)):
                add(f"bad_keys.{pool}.{name}", _share(some, share), "ms", better="lower")
        add("bad_keys.met", 100 * met / len(took[SPOILT]), "% of streams", better="lower")
        self._report.note(
            f"bad keys: {len(took[SPOILT])} streams, refused {refused.refused} times, asked to wait "
            f"{asked_to_wait.limited} times"
        )
        for failure in dict.fromkeys(failures):
            self._report.note(f"FAILED {failure}")

    @staticmethod
    def _latencies(streams: Streams, pool: str) -> list[float]:
        """Of one pool's streams, ms, in order."""
        some = (
            1000 * one.seconds for one in streams.done if one.model.startswith(f"{pool}/") and not one.failure
        )
        return sorted(some)

    async def _trip(self) -> float:
        """How long a refusal takes at the provider, asked directly, ms."""
        server = self._deployment.upstream.server
        asked = body(model="late", messages=QUESTION, stream=True)
        connection = await server.connect()
        taken = []
        try:
            for _ in range(TRIPS):
                begun = time.perf_counter()
                answer = await connection.ask(server.post(asked, f"/{SPOILT}/v1/chat/completions"))
                taken.append(1000 * (time.perf_counter() - begun))
                assert answer.status == 401, answer.status
        finally:
            connection.close()
        return statistics.median(taken)

    async def _restore(self) -> None:
        """Use the bad keys again, as an administrator would who believes them mended."""
        page = await self._deployment.api("GET", f"/api/v1/keys?provider={SPOILT}&limit=100")
        rows = page["data"] if "data" in page else page["items"]
        for row in rows:
            if row["state"] != "active":
                await self._deployment.api("POST", f"/api/v1/keys/{row['id']}/restore")


def _share(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
