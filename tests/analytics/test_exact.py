"""What is told is what happened: at any moment, once each, whatever is deleted, and by whomever it is counted."""

import asyncio
import random
import subprocess
from collections.abc import Mapping

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, example, given, settings
from sqlalchemy import text

from baatcheet.analytics.jobs import roll_up
from baatcheet.analytics.reports import Range, Reports
from baatcheet.analytics.rollup import CROWDED, NAMES, RollUp
from baatcheet.platform.database import Database
from tests import zygote
from tests.analytics.ledger import DEEDS, EVER, FIRST, Ledger, new_user
from tests.conftest import ROOT

_SUMS = ", ".join(f"{'max' if one == 'slowest_ms' else 'sum'}({one})::bigint AS {one}" for one in NAMES)


async def new_ledger(database: Database, seed: int = 0) -> Ledger:
    return Ledger(database, await new_user(database), random.Random(seed))


@given(deeds=st.lists(st.sampled_from(DEEDS), max_size=25), seed=st.integers(0, 2**32))
@example(deeds=list(DEEDS) * 2, seed=1)
@settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow])
async def test_usage_is_the_count_of_what_happened_at_every_moment(
    database: Database, deeds: list[object], seed: int
) -> None:
    ledger = await new_ledger(database, seed)
    for at, deed in enumerate(deeds):
        await deed(ledger)  # type: ignore[operator]
        if at % 5 == 4:
            assert await ledger.told() == ledger.expected()
    assert await ledger.told() == ledger.expected()
    await ledger.roll_up()
    assert await ledger.told() == ledger.expected()
    await ledger.rebuild()
    assert await ledger.told() == ledger.expected()
    assert await ledger.fresh() == 0
    assert await astray(database) == []


async def astray(database: Database) -> list[object]:
    """Where everybody's days are not the sum of each one's."""
    each = f"SELECT date, model, {_SUMS} FROM analytics_daily GROUP BY date, model"
    all_of_them = f"SELECT date, model, {', '.join(NAMES)} FROM analytics_everybody"
    some = " OR ".join(f"{one} <> 0" for one in NAMES)
    either = f"({each}) EXCEPT ALL ({all_of_them})", f"({all_of_them}) EXCEPT ALL ({each})"
    async with database.system() as session:
        found = await session.execute(
            text(
                f"SELECT * FROM ({either[0]}) a WHERE {some} UNION ALL SELECT * FROM ({either[1]}) b WHERE {some}"
            )
        )
        return list(found.all())


async def test_what_was_used_stays_used_when_its_conversation_is_deleted(database: Database) -> None:
    ledger = await new_ledger(database)
    for _ in range(8):
        await ledger.turn()
        await ledger.message()
    before = await ledger.told()
    while ledger.conversations:
        await ledger.delete_conversation()
    assert await ledger.told() == before
    await ledger.rebuild()
    assert await ledger.told() == before
    async with database.system() as session:
        left = await session.scalar(
            text("SELECT count(*) FROM turns WHERE user_id = :user AND conversation_id IS NOT NULL"),
            {"user": ledger.user},
        )
    assert left == 0


async def test_nothing_is_left_of_a_user_who_is_deleted(database: Database) -> None:
    ledger = await new_ledger(database)
    for deed in (*DEEDS, Ledger.turn, Ledger.message, Ledger.upload, Ledger.export, Ledger.job):
        await deed(ledger)
    assert await ledger.fresh() > 0
    await ledger.run("DELETE FROM users WHERE id = :user")
    async with database.system() as session:
        for table in (
            "analytics_daily",
            "analytics_fresh",
            "analytics_pending",
            "analytics_kept",
            "analytics_backlog",
        ):
            left = await session.scalar(
                text(f"SELECT count(*) FROM {table} WHERE user_id = :user"), {"user": ledger.user}
            )
            assert left == 0, table
    assert not await RollUp(database).rebuild(ledger.user)
    assert await astray(database) == []


async def test_everybodys_days_are_added_up_anew_from_those_of_each(database: Database) -> None:
    ledger = await new_ledger(database)
    await ledger.turn()
    await ledger.roll_up()
    async with database.system() as session:
        await session.execute(text("UPDATE analytics_everybody SET turns = turns + 1"))
    assert await astray(database) != []
    await RollUp(database).add_up()
    assert await astray(database) == []


async def test_what_is_kept_of_deleted_rows_is_put_together_without_loss(database: Database) -> None:
    ledger = await new_ledger(database)
    await ledger.run(
        "INSERT INTO analytics_kept (user_id, date, model, turns, slowest_ms) "
        "SELECT :user, '2026-03-04', '', 1, n FROM generate_series(1, :many) n",
        many=CROWDED + 1,
    )
    assert await RollUp(database).compact() >= 1
    async with database.system() as session:
        kept = (
            await session.execute(
                text("SELECT turns, slowest_ms FROM analytics_kept WHERE user_id = :user"),
                {"user": ledger.user},
            )
        ).all()
    assert [tuple(row) for row in kept] == [(CROWDED + 1, CROWDED + 1)]


async def test_a_roller_that_is_killed_in_the_middle_has_moved_all_or_nothing(
    database: Database, services: Mapping[str, str]
) -> None:
    ledger = await new_ledger(database)
    ledger.moment = lambda: FIRST  # type: ignore[method-assign]
    for _ in range(5):
        await ledger.turn()
    await ledger.roll_up()
    for _ in range(5):
        await ledger.turn()
    waiting = await ledger.fresh()
    assert waiting == 5
    # Somebody holds the days: the roller has taken what is fresh, and waits to write it.
    async with database.system() as session:
        await session.execute(
            text("SELECT FROM analytics_daily WHERE user_id = :user FOR UPDATE"), {"user": ledger.user}
        )
        with roller(services) as process:
            await until_it_waits(database)
            process.kill()
            process.wait()
    assert await ledger.told() == ledger.expected()
    assert await ledger.fresh() == waiting
    await ledger.roll_up()
    assert await ledger.fresh() == 0
    assert await ledger.told() == ledger.expected()


async def test_many_who_roll_up_rebuild_and_are_killed_while_turns_end_count_each_once(
    database: Database, services: Mapping[str, str]
) -> None:
    ledger = await new_ledger(database, 7)

    async def rebuild() -> None:
        for _ in range(6):
            await ledger.rebuild()
            await asyncio.sleep(0.05)

    async def live() -> None:
        for _ in range(40):
            await ledger.chance.choice([Ledger.turn, Ledger.message, Ledger.job, Ledger.delete_conversation])(
                ledger
            )

    async def kill() -> None:
        with roller(services) as process:
            await asyncio.sleep(0.2)
            process.kill()
            process.wait()

    await asyncio.gather(live(), rebuild(), kill(), ledger.roll_up())
    assert await ledger.told() == ledger.expected()
    await ledger.roll_up()
    assert await ledger.told() == ledger.expected()


@pytest.mark.parametrize("commits", [True, False])
async def test_a_conversation_that_is_deleted_while_its_user_is_counted_anew_counts_once(
    database: Database, commits: bool
) -> None:
    ledger = await new_ledger(database)
    for _ in range(6):
        await ledger.turn()
    async with database.system() as session:
        await session.execute(text("DELETE FROM conversations WHERE user_id = :user"), {"user": ledger.user})
        counting = asyncio.create_task(ledger.rebuild())
        await ledger.roll_up()
        done, _ = await asyncio.wait([counting], timeout=0.4)
        assert not done
        if not commits:
            await session.rollback()
    await counting
    assert await ledger.told() == ledger.expected()
    await ledger.roll_up()
    await ledger.rebuild()
    assert await ledger.told() == ledger.expected()


async def test_whoever_waits_to_be_counted_anew_is_so_by_the_job_and_is_told_until_then(
    database: Database,
) -> None:
    ledger = await new_ledger(database)
    await ledger.turn()
    # What was there before anybody counted.
    await ledger.run("DELETE FROM analytics_pending WHERE user_id = :user")
    await RollUp(database).want_rebuilt(ledger.user)
    rows, complete = await Reports(database).usage(ledger.user, EVER, ("model",))
    assert (rows, complete) == ([], False)
    await roll_up.handler(None, RollUp(database))  # type: ignore[arg-type]
    assert await ledger.told() == ledger.expected()


async def test_numbers_that_a_provider_makes_up_break_nothing(database: Database) -> None:
    ledger = await new_ledger(database)
    for usage in (
        '{"prompt_tokens_details": {"cached_tokens": "many"}, "microcents": "dear"}',
        '{"prompt_tokens_details": {"cached_tokens": 1e300}, "microcents": 1e300}',
        '{"prompt_tokens_details": {"cached_tokens": -5.5}, "microcents": -1}',
        '{"prompt_tokens_details": [], "microcents": null}',
        "[1]",
    ):
        await ledger.run(
            "INSERT INTO turns (id, user_id, status, prompt_tokens, usage, created_at, ended_at) "
            "VALUES (gen_random_uuid(), :user, 'completed', 7, CAST(:usage AS jsonb), '2026-03-05', '2026-03-04')",
            usage=usage,
        )
    ((_, counts),) = (await ledger.told()).items()
    assert (counts["turns"], counts["prompt_tokens"], counts["cached_tokens"]) == (5, 35, 7)
    assert (counts["microcents"], counts["unpriced"], counts["latency_ms"]) == (10**15, 3, 0)


async def test_nobody_reads_anothers_days_though_the_filter_is_forgotten(database: Database) -> None:
    alice, bob = await new_ledger(database), await new_ledger(database)
    for one in (alice, bob):
        await one.turn()
        await one.roll_up()
        await one.turn()
    async with database.tenant(bob.user) as session:
        for table in ("analytics_daily", "analytics_fresh", "analytics_of_turns", "analytics_of_files"):
            seen = set(await session.scalars(text(f"SELECT user_id FROM {table}")))
            assert seen <= {bob.user}, table


@pytest.mark.parametrize("group", ["day", "week", "month"])
async def test_periods_are_put_together_from_their_days(database: Database, group: str) -> None:
    ledger = await new_ledger(database, 3)
    for _ in range(15):
        await ledger.turn()
    rows, _ = await Reports(database).usage(ledger.user, EVER, (group,))  # type: ignore[arg-type]
    assert [row.since for row in rows] == sorted({row.since for row in rows if row.since is not None})
    for row in rows:
        assert row.since is not None
        inside = [
            book["turns"]
            for (day, _), book in ledger.books.items()
            if day == row.since
            or (group == "week" and day.isocalendar()[:2] == row.since.isocalendar()[:2])
            or (group == "month" and (day.year, day.month) == (row.since.year, row.since.month))
        ]
        assert row.counts["turns"] == sum(inside)
        assert row.since.weekday() == 0 or group != "week"
    total = await Reports(database).overview(ledger.user, EVER)
    assert total.total.counts["turns"] == sum(row.counts["turns"] for row in rows) == 15
    part = Range(ledger_day := min(day for day, _ in ledger.books), ledger_day)
    only = await Reports(database).overview(ledger.user, part)
    assert only.total.counts["turns"] == sum(
        b["turns"] for (day, _), b in ledger.books.items() if day == ledger_day
    )


class roller:  # noqa: N801 - it is used as a function
    """A process that rolls up until it is killed."""

    def __init__(self, services: Mapping[str, str]) -> None:
        self._url = services["DATABASE_URL"]

    def __enter__(self) -> subprocess.Popen[bytes]:
        self._process = zygote.popen(
            ["-m", "tests.analytics.ledger", self._url], cwd=ROOT, stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"rolling\n"
        return self._process

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


async def until_it_waits(database: Database) -> None:
    """Until a roller waits for a lock."""
    for _ in range(200):
        async with database.system() as session:
            waits = await session.scalar(
                text(
                    "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
                    "AND datname = current_database() AND query LIKE '%INTO analytics_daily%'"
                )
            )
        if waits:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("no roller waits")
