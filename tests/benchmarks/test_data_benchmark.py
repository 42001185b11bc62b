"""What the data benchmark measures on is what it says, and its figures say what was measured."""

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from benchmarks.data import analytics, seeding
from benchmarks.data.__main__ import SIZES, options
from benchmarks.data.queries import Times, label, tell
from benchmarks.data.seeding import SeededUsers, seed
from benchmarks.report import Report

from baatcheet.platform.database import connect
from baatcheet.platform.migrate import upgrade
from baatcheet.platform.settings import load
from tests.conftest import database_on

ROWS = 4_000

FOUND = "SELECT count(*) FROM messages WHERE user_id = $1 AND content ~ ('(^|\\s)' || $2 || '($|\\s)')"
# A message that does not stand where it should in its conversation, or was not there when it was answered.
MISPLACED = """
SELECT count(*) FROM messages m LEFT JOIN messages p ON p.id = m.parent_id
WHERE (m.parent_id IS NULL) <> (m.depth = 0) OR p.id IS NULL AND m.branch_id <> m.id
   OR p.conversation_id <> m.conversation_id OR p.depth <> m.depth - 1 OR p.branch_id <> m.branch_id
   OR p.created_at > m.created_at OR p.id >= m.id OR m.created_at > now()
"""
HEADS = """
SELECT count(*) FROM conversations c WHERE EXISTS (
    SELECT FROM messages m WHERE m.id = c.head_id AND m.conversation_id = c.id AND m.depth = c.message_count - 1
)
"""
TURNS = """
SELECT count(*) FROM turns t JOIN messages i ON i.id = t.input_id AND i.turn_id = t.id
JOIN messages r ON r.id = t.reply_id AND r.turn_id = t.id AND r.parent_id = i.id
"""
SCHEMA = """
SELECT string_agg(definition, E'\\n' ORDER BY definition) FROM (
    SELECT pg_get_indexdef(indexrelid) AS definition FROM pg_index
    WHERE indrelid = ANY(ARRAY['messages', 'turns', 'conversations']::regclass[])
    UNION ALL
    SELECT tgname || ' ' || tgenabled::text FROM pg_trigger
    WHERE tgrelid = ANY(ARRAY['messages', 'turns', 'conversations']::regclass[])
) every
"""


async def values(url: str, *statements: tuple[Any, ...]) -> list[Any]:
    connection = await connect(url)
    try:
        return [await connection.fetchval(*statement) for statement in statements]
    finally:
        await connection.close()


@pytest.fixture(scope="module")
def seeded(services: Mapping[str, str]) -> Iterator[tuple[str, SeededUsers, str]]:
    """A seeded database's address, its users, and its indexes and triggers of before."""
    with database_on(services["DATABASE_URL"]) as url, pytest.MonkeyPatch.context() as patched:
        upgrade(url)
        (before,) = asyncio.run(values(url, (SCHEMA,)))
        patched.setattr(seeding, "_BULK", 0)  # as a large one is seeded
        yield url, asyncio.run(seed(url, ROWS)), before


def test_there_are_as_many_messages_as_asked_and_each_stands_where_it_should(
    seeded: tuple[str, SeededUsers, str],
) -> None:
    url, users, _ = seeded
    messages, misplaced, conversations, heads, turns, placed = asyncio.run(
        values(
            url,
            ("SELECT count(*) FROM messages",),
            (MISPLACED,),
            ("SELECT count(*) FROM conversations",),
            (HEADS,),
            ("SELECT count(*) FROM turns",),
            (TURNS,),
        )
    )
    assert messages == users.rows == pytest.approx(ROWS, rel=0.02)
    assert misplaced == 0
    assert heads == conversations
    assert turns == placed == messages // 2
    sizes = [user.messages for user in users.by_size().values()]
    assert sizes == [400, 80, 20, 40]


def test_indexes_and_triggers_are_there_again(seeded: tuple[str, SeededUsers, str]) -> None:
    url, _, before = seeded
    assert asyncio.run(values(url, (SCHEMA,))) == [before]


def test_planted_words_come_as_often_as_is_said(seeded: tuple[str, SeededUsers, str]) -> None:
    url, users, _ = seeded
    planted, large = users.planted, users.large
    words = (planted.rare, planted.absent, planted.common, planted.urdu)
    rare, absent, common, urdu = asyncio.run(values(url, *[(FOUND, large.id, word) for word in words]))
    assert (rare, absent) == (3, 0)
    assert common / large.messages == pytest.approx(1 / 5, rel=0.4)
    assert urdu / large.messages == pytest.approx(1 / 10, rel=0.6)
    when = f"{FOUND} AND created_at > (SELECT percentile_disc(0.25) WITHIN GROUP (ORDER BY created_at) FROM messages)"
    (lately,) = asyncio.run(values(url, (f"{when[:-1]} WHERE user_id = $1)", large.id, planted.long_ago)))
    (ever,) = asyncio.run(values(url, (FOUND, large.id, planted.long_ago)))
    assert lately == 0
    assert ever / large.messages == pytest.approx(1 / 15, rel=0.5)


def test_a_million_is_asked_for_unless_told_otherwise() -> None:
    assert options([]).rows == SIZES
    assert SIZES[-1] == 1_000_000
    assert options(["--quick"]).rows == (10_000,)
    asked = options(["--rows", "10000000", "--minutes", "30", "--json"])
    assert (list(asked.rows), asked.minutes, asked.json) == ([10_000_000], 30, True)
    assert [label(rows) for rows in (10_000, 100_000, 1_000_000, 10_000_000)] == ["10k", "100k", "1m", "10m"]


@pytest.mark.parametrize(("slow", "ok"), [(4.0, False), (1.5, True)])
def test_growth_is_held_to_the_logarithm(slow: float, ok: bool) -> None:
    report = Report("data")
    small = {"fast": Times(1.0, 1.2, "tiny"), "other": Times(2.0, 2.2, "large")}
    large = {"fast": Times(slow, slow, "large"), "other": Times(2.1, 2.4, "large")}
    tell(report, {10_000: small, 1_000_000: large})
    growth = report.figures["queries.growth"]
    assert growth.ok is ok
    assert growth.target == 1.5
    assert growth.value == pytest.approx(slow - 0.5)
    assert report.figures["query.fast"].value == slow
    assert report.figures["queries.1m.slowest"].value == max(slow, 2.4)


def test_reports_are_measured_on_counted_turns(migrated_database: str) -> None:
    report = Report("data")

    asyncio.run(analytics.measure(report, load({"DATABASE_URL": migrated_database}, dotenv=None), 2_000, 3))

    counted, rows = (report.figures[f"analytics.{name}"].value for name in ("counted", "rows"))
    assert counted
    assert rows
    assert rows > 100
    assert {
        "analytics.usage.month",
        "analytics.overview.years",
        "analytics.everybody.usage.years",
        "analytics.everybody.overview.month",
    } <= report.figures.keys()
