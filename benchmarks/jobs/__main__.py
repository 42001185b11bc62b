"""What background jobs cost: `python -m benchmarks.jobs [--json] [--quick]`.

On a durable PostgreSQL that is started for the run. docs/benchmarks.md says what each figure means.
"""

import asyncio

import uvloop

from baatcheet.kit.ids import new_id
from baatcheet.platform.database import Database
from baatcheet.platform.settings import Settings
from benchmarks.context.workplace import services
from benchmarks.jobs.answers import Answers
from benchmarks.jobs.engine import Engine
from benchmarks.report import Report, options, progress

POOL = 20


async def measure(report: Report, settings: Settings, *, quick: bool) -> None:
    db = Database(settings.database, pool_size=POOL)
    user = new_id()
    async with db.hot() as connection:
        await connection.execute("INSERT INTO users (id, name) VALUES ($1, 'benchmark')", user)
    assert settings.database.url is not None
    url = settings.database.url.get_secret_value()
    try:
        sizes = {"jobs": 4_000, "readings": 100} if quick else {"jobs": 20_000, "readings": 1_000}
        await Engine(db, url, user, report, **sizes).run()
        await Answers(db, settings, user, report, readings=sizes["readings"]).run()
    finally:
        await db.close()


def main() -> None:
    asked = options("jobs", "What background jobs cost.")
    report = Report("jobs")
    progress("starting PostgreSQL")
    with services() as settings, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(measure(report, settings, quick=asked.quick))
    report.show(asked)


if __name__ == "__main__":
    main()
