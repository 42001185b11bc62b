"""What the data layer costs: `python -m benchmarks.data [--json] [--quick] [--rows N] [--minutes M]`.

On a durable PostgreSQL that is started for the run. docs/benchmarks.md says what each figure means.
"""

import argparse
import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

import uvloop

from baatcheet.platform.database import Database, connect
from baatcheet.platform.settings import Settings
from benchmarks.context.workplace import services
from benchmarks.data import analytics, pool
from benchmarks.data.closing import ClosingTurns, new_user
from benchmarks.data.others import add_others
from benchmarks.data.queries import Queries, Times, label, tell
from benchmarks.data.seeding import seed
from benchmarks.data.soak import soak
from benchmarks.report import Options, Report, progress

SIZES: Final = (10_000, 100_000, 1_000_000)
ANALYTICS: Final = 1_000_000  # messages, at most: to count more takes long, and what is read is a row a day
POOL: Final = 20
PARTS: Final = ("queries", "analytics", "close", "pool", "soak")


class Asked(Options, frozen=True):
    """What this benchmark can be asked beside."""

    rows: Sequence[int] = ()
    minutes: float = 2.0
    only: Sequence[str] = PARTS


def options(arguments: Sequence[str] | None = None) -> Asked:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.data", description="What the data layer costs."
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="finish within 60 s, with coarser figures")
    parser.add_argument("--rows", type=int, action="append", help="messages to seed; may be repeated")
    parser.add_argument("--minutes", type=float, help="how long the soak takes; 0: none")
    parser.add_argument("--only", choices=PARTS, action="append", help="this part alone; may be repeated")
    given = parser.parse_args(arguments)
    quick = given.quick
    minutes = given.minutes if given.minutes is not None else 0.1 if quick else 2.0
    rows = given.rows or (SIZES[:1] if quick else SIZES)
    return Asked(json=given.json, quick=quick, rows=rows, minutes=minutes, only=given.only or PARTS)


async def queries(settings: Settings, rows: int, times: int) -> tuple[Mapping[str, Times], float, float]:
    """The times of each query among `rows` messages, the seconds that seeding took, and the database's size, MB."""
    assert settings.database.url is not None
    url = settings.database.url.get_secret_value()
    seeded = await seed(url, rows, searched=False)
    connection = await connect(url)
    try:
        await add_others(connection, list(seeded.by_size().values()))
        size = await connection.fetchval("SELECT pg_database_size(current_database())")
    finally:
        await connection.close()
    db = Database(settings.database, pool_size=POOL)
    try:
        return await Queries(db, seeded).measure(times), seeded.seconds, size / 1e6
    finally:
        await db.close()


async def close(report: Report, settings: Settings, *, quick: bool) -> None:
    db = Database(settings.database, pool_size=POOL)
    try:
        plan = {"turns": 500, "rounds": 3} if quick else {"turns": 3_000, "rounds": 5}
        await ClosingTurns(db, await new_user(db), report, **plan).run()
    finally:
        await db.close()


@contextmanager
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as one:
        yield one


def main() -> None:
    asked = options()
    report = Report("data")
    if "queries" in asked.only:
        found: dict[int, Mapping[str, Times]] = {}
        for rows in sorted(asked.rows):
            progress(f"seeding {label(rows)} messages")
            with services() as settings, runner() as loop:
                taken, seconds, size = loop.run(queries(settings, rows, 40 if asked.quick else 100))
            found[rows] = taken
            report.add(f"seed.{label(rows)}", seconds, "s", better="lower")
            report.add(f"seed.{label(rows)}.size", size, "MB on disk", better="lower")
        tell(report, found)
    if "analytics" in asked.only:
        rows = min(max(asked.rows), ANALYTICS)
        progress(f"seeding {label(rows)} messages")
        with services() as settings, runner() as loop:
            loop.run(analytics.measure(report, settings, rows, 40 if asked.quick else 300))
    if "close" in asked.only:
        with services() as settings, runner() as loop:
            loop.run(close(report, settings, quick=asked.quick))
    if "pool" in asked.only:
        pool.measure(report, quick=asked.quick)
    if "soak" in asked.only and asked.minutes > 0:
        with runner() as loop:
            loop.run(soak(report, asked.minutes))
    report.show(asked)


if __name__ == "__main__":
    main()
