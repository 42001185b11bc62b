"""What a small pool of database connections bears: `figures` for `python -m benchmarks.data`, or run by itself.

A thousand clients at once on an API process with 20 connections, five hundred streams on one with 10; and the pool
alone, without HTTP before it.
"""

import asyncio
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from baatcheet.platform.database import Database
from baatcheet.platform.settings import Settings
from benchmarks.clients import PACED, Talk
from benchmarks.context.workplace import services
from benchmarks.load import Connection, FailedError, Round, Script, Server, press
from benchmarks.report import Report, options, progress
from benchmarks.servers import baatcheet, fake_upstream

CLIENTS = 1_000
POOL = 20
STREAMS = 500
STREAM_POOL = 10
PATIENCE = 10.0  # seconds that a request waits for the database, at most: later it is answered 503
HOLD = 0.002  # seconds that the server works for each unit of work, where the pool is alone


class _Reader:
    """A client that reads the list of its conversations."""

    def __init__(self, server: Server) -> None:
        self._request = (
            f"GET /api/v1/conversations?limit=10 HTTP/1.1\r\nhost: {server.host}:{server.port}\r\n"
            f"authorization: Bearer {server.token}\r\n\r\n"
        ).encode()

    async def __call__(self, connection: Connection) -> None:
        answer = await connection.ask(self._request)
        if answer.status != 200:
            raise FailedError(f"answered {answer.status}: {answer.body[:200].decode(errors='replace')}")


def _percentile(values: Sequence[float], part: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))] if ordered else float("nan")


async def _alone(report: Report, settings: Settings, *, quick: bool) -> None:
    """Units of work of a thousand tasks, straight on the pool."""
    db = Database(settings.database, pool_size=POOL)
    waits: list[float] = []
    failures = 0
    end = time.perf_counter() + (3.0 if quick else 15.0)

    async def task() -> None:
        nonlocal failures
        while (begun := time.perf_counter()) < end:
            try:
                async with db.hot() as connection:
                    waits.append(time.perf_counter() - begun)
                    await connection.fetchval("SELECT pg_sleep($1::float8)", HOLD)
            except Exception as error:  # noqa: BLE001 - counted
                failures += 1
                progress(f"failed: {error}")

    try:
        await asyncio.gather(*(task() for _ in range(CLIENTS)))
    finally:
        await db.close()
    report.add("pool.alone.failed", failures, "units of work", better="lower", target=0)
    report.add("pool.alone.wait.p50", _percentile(waits, 0.5) * 1000, "ms", better="lower")
    report.add("pool.alone.wait.p99", _percentile(waits, 0.99) * 1000, "ms", better="lower")
    _tell_fairness(report, "pool.alone", waits)


async def _clients(report: Report, server: Server, *, quick: bool) -> None:
    clients = [_Reader(server) for _ in range(CLIENTS)]
    done = await press(server, clients, seconds=4.0 if quick else 20.0)
    _tell(report, "pool.requests", done)
    report.add("pool.requests.rate", done.rate, "requests/s", better="higher")
    _tell_fairness(report, "pool.requests", done.latencies)


def _tell_fairness(report: Report, name: str, waits: Sequence[float]) -> None:
    """Every client asks again as soon as it is served: where the queue is fair, all wait about equally long."""
    ratio = _percentile(waits, 0.99) / _percentile(waits, 0.5)
    report.add(f"{name}.fairness", ratio, "p99 / p50", better="lower", target=2.5)


def _tell(report: Report, name: str, done: Round) -> None:
    for why in sorted(set(done.failures))[:3]:
        progress(f"failed: {why}")
    report.add(f"{name}.failed", len(done.failures), "requests", better="lower", target=0)
    report.add(f"{name}.p50", _percentile(done.latencies, 0.5) * 1000, "ms", better="lower")
    report.add(f"{name}.p99", _percentile(done.latencies, 0.99) * 1000, "ms", better="lower")
    worst = max(done.latencies, default=float("nan"))
    report.add(f"{name}.worst", worst * 1000, "ms", better="lower", target=PATIENCE * 1000)


async def _streams(report: Report, server: Server, *, quick: bool) -> None:
    talks: list[Script] = [Talk(server, model=PACED, stream=True) for _ in range(STREAMS)]
    done = await press(server, talks, requests=STREAMS * (2 if quick else 6), seconds=120.0)
    _tell(report, "pool.streams", done)


def measure(report: Report, *, quick: bool) -> None:
    """Add the pool's figures."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        progress("the pool alone")
        with services() as settings:
            runner.run(_alone(report, settings, quick=quick))
        for pool, load in ((POOL, _clients), (STREAM_POOL, _streams)):
            progress(f"a pool of {pool}")
            # The worker has as many as the API process.
            size = {"BAATCHEET_POOL_MAX": str(2 * pool)}
            with (
                fake_upstream() as upstream,
                tempfile.TemporaryDirectory() as folder,
                baatcheet(upstream, Path(folder), settings=size) as side,
            ):
                runner.run(load(report, side.server, quick=quick))


def figures(quick: bool) -> dict[str, Any]:
    """The pool's figures by their names, as a report has them."""
    report = Report("data.pool")
    measure(report, quick=quick)
    return {name: msgspec.to_builtins(figure) for name, figure in report.figures.items()}


def main() -> None:
    asked = options("data.pool", "What a small pool of database connections bears.")
    report = Report("data.pool")
    measure(report, quick=asked.quick)
    report.show(asked)


if __name__ == "__main__":
    main()
