"""What it costs to count what was used, and to read it: of one user and of everybody."""

import statistics
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import text

from baatcheet.analytics.reports import Range, Reports
from baatcheet.analytics.rollup import RollUp
from baatcheet.entrypoints.api import calm_collector
from baatcheet.platform.database import Database
from baatcheet.platform.settings import Settings
from benchmarks.data.seeding import seed
from benchmarks.report import Report, progress

P99: Final = 10.0  # ms, at most
POOL: Final = 4
MONTH: Final = timedelta(days=29)
YEARS: Final = timedelta(days=1_000)

Ask = Callable[[], Awaitable[Any]]


async def measure(report: Report, settings: Settings, rows: int, times: int) -> None:
    """Seed, count all of it anew, and read the reports of users of each size."""
    assert settings.database.url is not None
    seeded = await seed(settings.database.url.get_secret_value(), rows, searched=False)
    db = Database(settings.database, pool_size=POOL)
    try:
        async with db.system() as session:
            turns = await session.scalar(text("SELECT count(*) FROM turns"))
        progress(f"counting {turns:,} turns")
        roll_up = RollUp(db)
        await roll_up.want_rebuilt()
        began = time.perf_counter()
        await roll_up.catch_up()
        report.add("analytics.counted", turns / (time.perf_counter() - began), "turns/s", better="higher")
        async with db.hot(limit=120) as connection:
            await connection.execute("ANALYZE", timeout=120)
            newest = await connection.fetchval("SELECT max(date) FROM analytics_daily")
            days = await connection.fetchval("SELECT count(*) FROM analytics_daily")
        report.add("analytics.rows", days, "rows of a user, a day and a model", better="lower")
        calm_collector()  # as the server does
        reports = Reports(db)
        month, years = Range(newest - MONTH, newest), Range(newest - YEARS, newest)
        users = [user.id for user in seeded.by_size().values()]
        for name, since in (("month", month), ("years", years)):
            asked: dict[str, list[Ask]] = {
                "usage": [lambda me=me, r=since: reports.usage(me, r, ("day", "model")) for me in users],  # type: ignore[misc]
                "overview": [lambda me=me, r=since: reports.overview(me, r) for me in users],  # type: ignore[misc]
                "everybody.usage": [lambda r=since: reports.usage(None, r, ("month", "model"))],  # type: ignore[misc]
                "everybody.overview": [lambda r=since: reports.overview(None, r)],  # type: ignore[misc]
            }
            for what, asks in asked.items():
                worst = max([await _p99(ask, times) for ask in asks])
                report.add(f"analytics.{what}.{name}", worst, "ms p99", better="lower", target=P99)
    finally:
        await db.close()


async def _p99(ask: Ask, times: int) -> float:
    taken = []
    for _ in range(times + 10):
        began = time.perf_counter()
        await ask()
        taken.append((time.perf_counter() - began) * 1000)
    return statistics.quantiles(taken[10:], n=100, method="inclusive")[
        98
    ]  # the first ones plan their statements
