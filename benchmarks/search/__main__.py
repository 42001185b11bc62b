"""What searching costs: `python -m benchmarks.search [--json] [--quick] [--rows N]`.

A million messages are seeded and indexed on a PostgreSQL that is started for the run. Every query of every user is then
asked in turn, by relevance and by date, and with it what the service does for a page of 20: reading the index, ranking,
reading the hits, making snippets. docs/benchmarks.md says what each figure means.
"""

import argparse
import asyncio
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple
from uuid import UUID

import uvloop

from baatcheet.auth.principal import Principal
from baatcheet.entrypoints.api import calm_collector
from baatcheet.kit.ids import new_id
from baatcheet.platform.database import Database
from baatcheet.platform.settings import Settings
from baatcheet.search.indexing import Indexer
from baatcheet.search.ranking import Order
from baatcheet.search.service import Filters, Search
from benchmarks.context.workplace import services
from benchmarks.data.seeding import SeededUser, SeededUsers, seed
from benchmarks.data.vocabulary import Planted
from benchmarks.report import Options, Report, progress

TARGET = 10.0  # milliseconds, p99
PAGE = 20
ROWS = 1_000_000
QUICK_ROWS = 20_000
ORDERS: tuple[Order, ...] = ("relevance", "newest")


class Asked(NamedTuple):
    """A query and how it is asked."""

    name: str
    text: str
    typing: bool = False
    grouped: bool = False
    filters: Filters = Filters()


class Took(NamedTuple):
    """How long one query of one user took, in milliseconds."""

    asked: str
    user: str
    order: Order
    times: list[float]


def queries(words: Planted, user: SeededUser) -> Iterator[Asked]:
    """What is asked: by how often it is found, by its form, by its script."""
    yield Asked("rare", words.rare)
    yield Asked("common", words.common)
    yield Asked("most common", "the")
    yield Asked("absent", words.absent)
    yield Asked("common only long ago", words.long_ago)
    yield Asked("middling", words.middling)
    yield Asked("both", f"{words.common} {words.common_too}")
    yield Asked("either", f"{words.common} or {words.common_too}")
    yield Asked("either, rare", f"{words.rare} or {words.long_ago}")
    yield Asked("excluded", f"{words.common} -{words.common_too}")
    yield Asked(
        "ten words", f"the and of to in is {words.common} {words.common_too} or {words.middling} or that"
    )
    yield Asked("phrase", f'"{words.phrase}"')
    yield Asked("common phrase", '"of the"')
    yield Asked("prefix", words.prefix, typing=True)
    yield Asked("prefix of two", words.prefix[:2], typing=True)
    yield Asked("urdu", words.urdu)
    yield Asked("roman urdu", words.roman_urdu)
    yield Asked("hindi", words.hindi)
    yield Asked("identifier", words.identifier)
    yield Asked("identifier's part", words.identifier.split("_")[1])
    yield Asked("mistyped", words.middling[:3] + words.middling[4:])
    yield Asked("grouped", words.common, grouped=True)
    yield Asked("of a project", words.common, filters=Filters(project_id=user.projects[0]))
    yield Asked("not archived", words.common, filters=Filters(archived=False))
    yield Asked("of a role", words.common, filters=Filters(role="user"))


async def measure(
    report: Report, settings: Settings, rows: int, repetitions: int, *, everybody: bool
) -> None:
    """Seed, index and ask."""
    assert settings.database.url is not None
    url = settings.database.url.get_secret_value()
    progress(f"seeding {rows:,} messages")
    seeded = await seed(url, rows)
    db = Database(settings.database, pool_size=4)
    try:
        await index(report, db, seeded, everybody=everybody)
        if everybody:
            await sizes(report, db, seeded)
        took = await ask(db, seeded, repetitions)
        add_times(report, took)
        await write(report, db, seeded)
    finally:
        await db.close()


async def index(report: Report, db: Database, seeded: SeededUsers, *, everybody: bool) -> None:
    """Index what was seeded, of everybody or of those who are asked about."""
    async with db.hot() as connection:
        waiting = [
            row[0]
            for row in await connection.fetch(
                "SELECT user_id FROM search_fresh GROUP BY 1 ORDER BY count(*) DESC"
            )
        ]
    asked = {user.id: user.messages for user in seeded.by_size().values()}
    if not everybody:
        waiting = [user for user in waiting if user in asked]
    messages = seeded.rows if everybody else sum(asked.values())
    progress(f"indexing for {len(waiting):,} users")
    indexer = Indexer(db)
    began, used = time.perf_counter(), time.process_time()
    for number, user in enumerate(waiting):
        await indexer.catch_up(user)
        if number and number % 5_000 == 0:
            progress(f"{number:,} users")
    seconds, cpu = time.perf_counter() - began, time.process_time() - used
    report.add("indexed", messages / seconds, "messages/s", better="higher")
    report.add("worker's CPU per message, bulk", cpu / messages * 1e6, "µs", better="lower")


_SIZES = """
SELECT sum(pg_total_relation_size(c.oid)) FILTER (WHERE c.relname LIKE 'search_%') AS search,
       sum(pg_total_relation_size(c.oid)) FILTER (WHERE c.relname = 'messages') AS messages,
       sum(pg_table_size(c.oid)) FILTER (WHERE c.relname = 'messages') AS texts
FROM pg_class c WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace
"""


async def sizes(report: Report, db: Database, seeded: SeededUsers) -> None:
    async with db.hot(limit=600) as connection:
        await connection.execute("VACUUM (ANALYZE)", timeout=600)
        row = await connection.fetchrow(_SIZES)
    report.add("index", float(row["search"]) / 1e6, "MB", better="lower")
    report.add("index per message", float(row["search"]) / seeded.rows, "bytes", better="lower")
    report.add("index against texts", float(row["search"]) / float(row["texts"]), "x", better="lower")


async def ask(db: Database, seeded: SeededUsers, repetitions: int) -> list[Took]:
    """Every query of every user, `repetitions` times, in turn."""
    search = Search(db)
    asked = [
        (size, user, one, order)
        for size, user in seeded.by_size().items()
        for one in queries(seeded.planted, user)
        for order in ORDERS
    ]
    times: dict[tuple[str, str, Order], list[float]] = defaultdict(list)
    calm_collector()  # as the server does
    for repetition in range(repetitions + 1):
        for size, user, one, order in asked:
            began = time.perf_counter()
            await search.find(
                principal(user.id),
                one.text,
                one.filters,
                order=order,
                typing=one.typing,
                grouped=one.grouped,
                limit=PAGE,
            )
            if repetition:  # the first plans its statements
                times[one.name, size, order].append((time.perf_counter() - began) * 1e3)
        if repetition % 20 == 0:
            progress(f"asked {repetition} of {repetitions} times")
    return [Took(*key, values) for key, values in times.items()]


def principal(user: UUID) -> Principal:
    return Principal(user, new_id(), "user", frozenset({"read"}), "benchmark")


def add_times(report: Report, took: list[Took]) -> None:
    every = [value for one in took for value in one.times]
    report.add("every query, p50", statistics.median(every), "ms", better="lower")
    report.add("every query, p99", percentile(every, 99), "ms", better="lower", target=TARGET)
    slowest = max(took, key=lambda one: statistics.median(one.times))
    report.add("slowest query's p50", statistics.median(slowest.times), "ms", better="lower")
    within = sum(percentile(one.times, 99) <= TARGET for one in took) / len(took)
    report.add("queries whose p99 is within 10 ms", within * 100, "%", better="higher", target=100)
    for name in dict.fromkeys(one.asked for one in took):
        for order in ORDERS:
            same = [one for one in took if (one.asked, one.order) == (name, order)]
            worst = max(same, key=lambda one: percentile(one.times, 99))
            report.add(
                f"{name}, {order}, p99", percentile(worst.times, 99), "ms", better="lower", target=TARGET
            )
    slow = sorted(took, key=lambda one: -percentile(one.times, 99))[:5]
    report.note(
        "slowest p99 (p50): "
        + "; ".join(
            f"{one.asked} of {one.user} by {one.order} {percentile(one.times, 99):.1f} "
            f"({statistics.median(one.times):.1f})"
            for one in slow
        )
    )


_INSERT = """
INSERT INTO messages (id, conversation_id, user_id, parent_id, role, content)
SELECT gen_random_uuid(), $1, $2, gen_random_uuid(), 'user', 'the harbour at dawn, and a ledger'
FROM generate_series(1, $3)
"""


async def write(report: Report, db: Database, seeded: SeededUsers) -> None:
    """What a message pays in its commit, and what a worker pays for a turn of a user of many messages."""
    user = seeded.large
    talk = user.conversations[0]
    timed: dict[bool, list[float]] = {True: [], False: []}
    async with db.hot(limit=120) as connection:
        for round_ in range(20):
            with_search = round_ % 2 == 0
            transaction = connection.transaction()
            await transaction.start()
            if not with_search:
                await connection.execute("ALTER TABLE messages DISABLE TRIGGER search_message")
            began = time.perf_counter()
            await connection.execute(_INSERT, talk, user.id, 500)
            timed[with_search].append((time.perf_counter() - began) / 500 * 1e6)
            await transaction.rollback()
    added = statistics.median(timed[True]) - statistics.median(timed[False])
    report.add("commit pays per message", added, "µs", better="lower")
    indexer = Indexer(db)
    flushes, used = [], time.process_time()
    for _ in range(30):
        async with db.hot() as connection:
            await connection.execute(_INSERT, talk, user.id, 2)
        began = time.perf_counter()
        await indexer.catch_up(user.id)
        flushes.append((time.perf_counter() - began) * 1e3)
    report.add("indexing a turn, p50", statistics.median(flushes), "ms", better="lower")
    report.add("worker's CPU per turn", (time.process_time() - used) / 30 * 1e3, "ms", better="lower")


def percentile(values: list[float], share: int) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * share // 100)]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search", description="What searching costs.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="finish within 60 s, with coarser figures")
    parser.add_argument("--rows", type=int, help="messages; a million")
    parser.add_argument(
        "--asked-only",
        action="store_true",
        help="index only the users who are asked about, which is much quicker",
    )
    given = parser.parse_args()
    rows = given.rows or (QUICK_ROWS if given.quick else ROWS)
    report = Report("search")
    progress("starting PostgreSQL")
    with services() as settings, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        repetitions = 20 if given.quick else 300
        runner.run(measure(report, settings, rows, repetitions, everybody=not given.asked_only))
    report.show(Options(json=given.json, quick=given.quick))


if __name__ == "__main__":
    main()
