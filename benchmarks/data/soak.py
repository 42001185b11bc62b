"""A soak: `baatcheet serve` under a steady mixed load, while its memory, its connections and its locks are watched."""

import asyncio
import statistics
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import asyncpg

from benchmarks.clients import Talk
from benchmarks.load import Connection, FailedError, Script, Server, press
from benchmarks.processes import rss_mb
from benchmarks.report import Report, progress
from benchmarks.servers import baatcheet, fake_upstream

TALKERS: Final = 12
READERS: Final = 4
LONG_ENOUGH: Final = 10.0  # minutes from which on a slope says something
SLOPE: Final = 10.0  # MB an hour, at most
LONGEST_WAIT: Final = 1.0  # seconds that a lock may be waited for
_WARM: Final = 1 / 3  # of the time is not counted: caches fill
_LOOK: Final = 0.5  # seconds between two looks
_PATHS: Final = ("/api/v1/conversations", "/api/v1/turns", "/api/v1/usage", "/api/v1/jobs?limit=20")

_CONNECTIONS = (
    "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
)
_WAITING = (
    "SELECT count(*) FROM pg_locks WHERE NOT granted AND waitstart < now() - $1::float8 * interval '1 s'"
)


@dataclass
class Watch:
    """What was seen: when (seconds), the memory (MB), the connections; and looks that found a lock long waited for."""

    times: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    connections: list[int] = field(default_factory=list)
    waits: int = 0

    async def run(self, pid: int, connection: asyncpg.Connection) -> None:
        """Until it is cancelled."""
        began = time.monotonic()
        while True:
            self.times.append(time.monotonic() - began)
            self.memory.append(rss_mb(pid))
            self.connections.append(await connection.fetchval(_CONNECTIONS))
            self.waits += await connection.fetchval(_WAITING, LONGEST_WAIT)
            await asyncio.sleep(_LOOK)

    def slope(self) -> float:
        """MB an hour, the straight line through what was seen after the beginning."""
        start = int(len(self.times) * _WARM)
        return statistics.linear_regression(self.times[start:], self.memory[start:]).slope * 3600

    def spread(self) -> int:
        """Between the fewest and the most connections after the beginning."""
        seen = self.connections[int(len(self.connections) * _WARM) :]
        return max(seen) - min(seen)


async def soak(report: Report, minutes: float) -> None:
    """One API process, its own durable PostgreSQL and Valkey."""
    watch = Watch()
    with tempfile.TemporaryDirectory(prefix="baatcheet-bench-") as name, fake_upstream() as upstream:
        folder = Path(name)
        with baatcheet(upstream, folder) as side:
            progress(f"soaking for {minutes:g} minutes")
            connection = await asyncpg.connect(
                host=str(folder / "data" / "run"), user="baatcheet", database="baatcheet"
            )
            watching = asyncio.create_task(watch.run(side.pid, connection))
            scripts: list[Script] = [Talk(side.server) for _ in range(TALKERS)]
            scripts += [_reader(side.server, number) for number in range(READERS)]
            done = await press(side.server, scripts, seconds=minutes * 60)
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
            await connection.close()
    long = minutes >= LONG_ENOUGH
    report.add("soak.minutes", minutes, "minutes", better="higher")
    report.add("soak.requests", done.rate, "requests/s", better="higher")
    report.add("soak.failed", len(done.failures), "clients", better="lower", target=0)
    report.add("soak.memory", watch.memory[-1], "MB", better="lower")
    report.add("soak.slope", watch.slope(), "MB/h", better="lower", target=SLOPE if long else None)
    report.add("soak.connections", max(watch.connections), "connections", better="lower")
    spread = watch.spread()
    report.add("soak.connections_spread", spread, "connections", better="lower", target=2 if long else None)
    report.add("soak.lock_waits", watch.waits, "waits over 1 s", better="lower", target=0)
    for failure in sorted(set(done.failures))[:5]:
        report.note(f"soak: {failure}")
    if not long:
        report.note(f"The slope of fewer than {LONG_ENOUGH:g} minutes says little: --minutes 30.")


def _reader(server: Server, number: int) -> Script:
    """Asks for one list after another."""
    requests = [server.post(b"", path).replace(b"POST", b"GET", 1) for path in _PATHS]
    turn = number

    async def ask(connection: Connection) -> None:
        nonlocal turn
        turn += 1
        answer = await connection.ask(requests[turn % len(requests)])
        if answer.status != 200:
            raise FailedError(f"{_PATHS[turn % len(_PATHS)]} answered {answer.status}: {_said(answer.body)}")

    return ask


def _said(body: Any) -> str:
    return str(body[:300])
