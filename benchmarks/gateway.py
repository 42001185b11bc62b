"""What a turn costs: `python -m benchmarks.gateway [--json] [--quick]`.

Ours (`baatcheet serve` with its embedded PostgreSQL and Valkey, one API process) and a bare pass-through of
the same FAKE upstream get the same load in alternating short rounds, so that noise falls on both; figures are
medians of rounds, and ratios of these. docs/benchmarks.md says what each figure means.
"""

import asyncio
import gc
import os
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import uvloop

from benchmarks import shares
from benchmarks.clients import WHOLE_BODY, Delays, PacedStream, Talk, stateless
from benchmarks.load import Round, Script, press
from benchmarks.processes import cpu, descendants, machine_seconds, rss_mb
from benchmarks.report import Report, options, progress
from benchmarks.servers import Profiles, Side, Upstream, baatcheet, bare_proxy, fake_upstream

STREAMS = 200
CLIENTS = 32
SHOWN = 25  # functions that are listed
WORTH_NAMING = 1.0  # percent


@dataclass(frozen=True)
class Plan:
    """How long what is measured."""

    rounds: int
    seconds: float
    side_rounds: int  # of what is measured as information
    stream_rounds: int
    stream_seconds: float
    profile_seconds: float


FULL = Plan(rounds=9, seconds=3.0, side_rounds=5, stream_rounds=3, stream_seconds=8.0, profile_seconds=10.0)
QUICK = Plan(rounds=3, seconds=0.7, side_rounds=1, stream_rounds=1, stream_seconds=3.0, profile_seconds=2.0)


@dataclass
class Measured:
    """The rounds of one side in one mode."""

    rates: list[float] = field(default_factory=list)  # per second
    front: list[float] = field(default_factory=list)  # the HTTP process's CPU seconds for each
    stores: list[float] = field(default_factory=list)  # its database's and cache's
    kernel: list[float] = field(default_factory=list)  # percent of the HTTP process's CPU

    @property
    def rate(self) -> float:
        return statistics.median(self.rates)


class Gateway:
    """One run."""

    def __init__(self, report: Report, plan: Plan) -> None:
        self._report = report
        self._plan = plan
        self._failures: list[str] = []

    async def run(self) -> None:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="baatcheet-bench-")))
            upstream = stack.enter_context(fake_upstream())
            with bare_proxy(upstream) as bare, baatcheet(upstream, _made(folder / "plain")) as ours:
                noise = _Noise()
                progress("memory: 2,500 turns")
                await self._memory(ours, upstream)
                await self._rates(bare, ours)
                await self._ceiling(upstream)
                await self._streams(bare, ours)
                self._add("rss.at_the_end", rss_mb(ours.pid), "MB")
                self._add("noise", noise.cores(), "cores")
            progress("where the time goes")
            profiles = _made(folder / "profiles")
            with baatcheet(upstream, _made(folder / "sampled"), profiles=profiles) as sampled:
                await self._profile(sampled, Profiles(sampled, profiles))
        self._add("failed_requests", len(self._failures), "requests", target=0)
        for failure in dict.fromkeys(self._failures):
            self._report.note(f"FAILED {failure}")

    # Memory ---------------------------------------------------------------------------------------------

    async def _memory(self, ours: Side, upstream: Upstream) -> None:
        """RSS over 2,000 turns, half of them streamed, after 500 that warm up."""
        talks = [Talk(ours.server, stream=number % 2 == 1) for number in range(CLIENTS)]
        await self._press(ours, talks, requests=500)
        before, seen = rss_mb(ours.pid), await upstream.seen()
        await self._press(ours, talks, requests=2000)
        after, seen_then = rss_mb(ours.pid), await upstream.seen()
        prompt = (seen_then.body_bytes - seen.body_bytes) / max(seen_then.requests - seen.requests, 1)
        self._add("rss.growth_2000_turns", after - before, "MB", target=20)
        self._add("rss.after_2500_turns", after, "MB")
        self._add("prompt.ours", prompt, "bytes")
        self._add("prompt.bare", len(WHOLE_BODY), "bytes")

    # Rates ----------------------------------------------------------------------------------------------

    async def _rates(self, bare: Side, ours: Side) -> None:
        plan = self._plan
        for count in (1, CLIENTS):
            progress(f"turns, {count} at a time")
            pair: dict[Side, Sequence[Script]] = {
                bare: [stateless(bare.server)] * count,
                ours: [Talk(ours.server) for _ in range(count)],
            }
            self._compared(f"turns.c{count}", await self._alternate(pair, plan.rounds), target=0.3)
        for name, stream in (("stateless", False), ("stateless_stream", True)):
            progress(f"{name}, {CLIENTS} at a time")
            got = await self._alternate(
                {side: [stateless(side.server, stream=stream)] * CLIENTS for side in (bare, ours)},
                plan.side_rounds,
            )
            self._compared(f"{name}.c{CLIENTS}", got, target=None)

    async def _alternate(self, sides: Mapping[Side, Sequence[Script]], rounds: int) -> dict[str, Measured]:
        """Rounds of load, one side after the other; who begins alternates."""
        measured = {side.name: Measured() for side in sides}
        pairs = list(sides.items())
        for number in range(rounds):
            for side, scripts in pairs if number % 2 == 0 else reversed(pairs):
                with _Spent(side, measured[side.name]) as spent:
                    done = await self._press(side, scripts, seconds=self._plan.seconds)
                    spent.on(len(done.latencies), done.seconds)
        return measured

    def _compared(self, name: str, got: Mapping[str, Measured], *, target: float | None) -> None:
        bare, ours = got["bare"], got["ours"]
        ratio = ours.rate / bare.rate
        self._report.add(f"{name}.ratio", ratio, "x bare", better="higher", target=target)
        self._report.add(f"{name}.ours", ours.rate, "1/s", better="higher")
        self._report.add(f"{name}.bare", bare.rate, "1/s", better="higher")
        self._add(f"{name}.cpu.api", 1e6 * statistics.median(ours.front), "µs")
        self._add(f"{name}.cpu.stores", 1e6 * statistics.median(ours.stores), "µs")
        self._add(f"{name}.cpu.bare", 1e6 * statistics.median(bare.front), "µs")
        self._add(f"{name}.cpu.api.kernel", statistics.median(ours.kernel), "%")

    async def _ceiling(self, upstream: Upstream) -> None:
        """How fast the load generator and the upstream are without anything between them."""
        side = Side("upstream", upstream.server, upstream.pid)
        before, begun = cpu([upstream.pid]), time.perf_counter()
        done = await self._press(side, [stateless(side.server)] * CLIENTS, seconds=self._plan.seconds)
        busy = (cpu([upstream.pid]) - before).total / (time.perf_counter() - begun)
        self._report.add(f"ceiling.c{CLIENTS}", done.rate, "1/s", better="higher")
        self._add("ceiling.upstream_busy", 100 * busy, "% of a core")

    # Streams --------------------------------------------------------------------------------------------

    async def _streams(self, bare: Side, ours: Side) -> None:
        progress(f"{STREAMS} streams")
        sides = (bare, ours)
        measured = {side.name: Measured() for side in sides}
        delays: dict[str, list[Delays]] = {side.name: [] for side in sides}
        for number in range(self._plan.stream_rounds):
            for side in sides if number % 2 == 0 else sides[::-1]:
                delays[side.name].append(
                    await self._stream(side, measured[side.name], self._plan.stream_seconds)
                )
        per_chunk = {name: statistics.median(one.front) for name, one in measured.items()}
        self._add("streams.cpu_per_chunk.ratio", per_chunk["ours"] / per_chunk["bare"], "x bare", target=2)
        self._add("streams.cpu_per_1000_chunks.api", 1000 * per_chunk["ours"], "s")
        stores = statistics.median(measured["ours"].stores)
        self._add("streams.cpu_per_1000_chunks.stores", 1000 * stores, "s")
        self._add("streams.cpu_per_1000_chunks.bare", 1000 * per_chunk["bare"], "s")
        for name in ("ours", "bare"):
            self._report.add(f"streams.chunks.{name}", measured[name].rate, "1/s", better="higher")
        self._delays(delays)

    def _delays(self, delays: Mapping[str, Sequence[Delays]]) -> None:
        def middle(name: str, kind: str, share: float) -> float:
            return statistics.median(_percentile(getattr(one, kind), share) for one in delays[name])

        self._add("streams.added_delay.p99", middle("ours", "added", 0.99), "ms", target=25)
        self._add("streams.added_delay.p99.bare", middle("bare", "added", 0.99), "ms")
        for kind in ("gaps", "transit"):
            for name in ("ours", "bare"):
                for share, title in ((0.5, "p50"), (0.99, "p99")):
                    self._add(f"streams.{kind}.{title}.{name}", middle(name, kind, share), "ms")

    async def _stream(self, side: Side, measured: Measured, seconds: float) -> Delays:
        delays = Delays()
        scripts = [
            PacedStream(side.server, delays, stateful=side.name == "ours", wait=number / STREAMS)
            for number in range(STREAMS)
        ]
        with _Spent(side, measured) as spent:
            done = await self._press(side, scripts, seconds=seconds)
            spent.on(delays.chunks, done.seconds)
        return delays

    # Where the time goes --------------------------------------------------------------------------------

    async def _profile(self, ours: Side, profiles: Profiles) -> None:
        seconds = self._plan.profile_seconds
        talks = [Talk(ours.server) for _ in range(CLIENTS)]
        await self._press(ours, talks, seconds=1)
        profiles.begin()
        await self._press(ours, talks, seconds=seconds)
        self._explain(f"turns.c{CLIENTS}", await profiles.end())
        profiles.begin()
        await self._stream(ours, Measured(), seconds)
        self._explain("streams", await profiles.end())

    def _explain(self, name: str, stacks: Sequence[shares.Stack]) -> None:
        samples = sum(count for _, count in stacks)
        for package, percent in shares.by_package(stacks).items():
            if percent >= WORTH_NAMING:
                self._add(f"time.{name}.{package}", percent, "%")
        for title, found in (
            ("by module of ours, with what it calls", shares.by_module(stacks)),
            ("by function, without what it calls", shares.by_function(stacks)),
            ("by function of ours, with what it calls (these overlap)", shares.under(stacks)),
        ):
            lines = [
                f"{percent:6.1f} %  {what}"
                for what, percent in list(found.items())[:SHOWN]
                if percent >= WORTH_NAMING
            ]
            self._report.note(f"{name}: {title} ({samples} samples)\n" + "\n".join(lines))

    def _add(self, name: str, value: float, unit: str, *, target: float | None = None) -> None:
        self._report.add(name, value, unit, better="lower", target=target)

    async def _press(
        self, side: Side, scripts: Sequence[Script], *, seconds: float = 60.0, requests: int | None = None
    ) -> Round:
        gc.collect()
        done = await press(side.server, scripts, seconds=seconds, requests=requests)
        self._failures += [f"{side.name}: {failure}" for failure in done.failures]
        return done


class _Spent:
    """Reads what a side's processes use during a block."""

    def __init__(self, side: Side, measured: Measured) -> None:
        self._side = side
        self._measured = measured
        self._count, self._seconds = 0, 0.0

    def on(self, count: int, seconds: float) -> None:
        """The block served `count` requests, or chunks, in `seconds`."""
        self._count, self._seconds = count, seconds

    def __enter__(self) -> Self:
        self._front, self._stores = self._side.cpu(), self._side.stores_cpu()
        return self

    def __exit__(self, *_error: object) -> None:
        if not self._count:
            return
        front, stores = self._side.cpu() - self._front, self._side.stores_cpu() - self._stores
        self._measured.rates.append(self._count / self._seconds)
        self._measured.front.append(front.total / self._count)
        self._measured.stores.append(stores.total / self._count)
        self._measured.kernel.append(100 * front.system / front.total if front.total else 0.0)


class _Noise:
    """How many cores were busy, since it was made, with what is none of the benchmark's."""

    def __init__(self) -> None:
        self._begun, self._machine, self._own = time.perf_counter(), machine_seconds(), _own_seconds()

    def cores(self) -> float:
        elsewhere = (machine_seconds() - self._machine) - (_own_seconds() - self._own)
        return max(0.0, elsewhere) / (time.perf_counter() - self._begun)


def _own_seconds() -> float:
    return cpu(descendants(os.getpid())).total


def _percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def main() -> None:
    asked = options("gateway", "What a turn costs, against a bare pass-through of the same FAKE upstream.")
    report = Report("gateway")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(Gateway(report, QUICK if asked.quick else FULL).run())
    report.show(asked)


if __name__ == "__main__":
    main()
