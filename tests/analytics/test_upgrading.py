"""What was counted before there were bounds, and sums over everybody, is in them after the migration."""

import asyncio

from baatcheet.kit.ids import new_id
from baatcheet.platform.database import connect
from baatcheet.platform.migrate import downgrade, upgrade

DAY = """
INSERT INTO {table} (user_id, date, model, turns, completed, latency_ms, slowest_ms)
VALUES ($1, '2026-01-02', 'a', 5, 4, $2, $3)
"""
SUMS = """
SELECT turns, completed, latency_ms, slowest_ms, took_500, took_1000, took_2000, took_256000 FROM analytics_everybody
"""


def test_days_of_before_are_put_where_their_average_is_and_added_up(empty_database: str) -> None:
    one, other = new_id(), new_id()

    async def fill() -> None:
        connection = await connect(empty_database)
        for user in (one, other):
            await connection.execute("INSERT INTO users (id, name) VALUES ($1, 'u')", user)
        for table in ("analytics_daily", "analytics_kept"):
            await connection.execute(DAY.format(table=table), one, 4 * 900, 1_500)
            await connection.execute(DAY.format(table=table), other, 4 * 300, 400)
        await connection.execute("DELETE FROM analytics_backlog")
        await connection.close()

    async def look() -> None:
        connection = await connect(empty_database)
        assert [tuple(row) for row in await connection.fetch(SUMS)] == [(10, 8, 4_800, 1_500, 4, 4, 0, 0)]
        kept = "SELECT user_id, took_500, took_1000 FROM analytics_kept"
        assert {tuple(row) for row in await connection.fetch(kept)} == {(one, 0, 4), (other, 4, 0)}
        backlog = await connection.fetch("SELECT user_id FROM analytics_backlog")
        assert {row[0] for row in backlog} == {one, other}, "they are counted anew"
        await connection.execute("DELETE FROM analytics_daily WHERE user_id = $1", one)
        assert [tuple(row) for row in await connection.fetch(SUMS)] == [(5, 4, 1_200, 400, 4, 0, 0, 0)]
        await connection.execute(DAY.format(table="analytics_daily"), one, 4 * 900, 1_500)
        await connection.execute("DELETE FROM analytics_backlog")
        await connection.close()

    upgrade(empty_database, "0021")
    asyncio.run(fill())
    upgrade(empty_database)
    asyncio.run(look())
    downgrade(empty_database, "0021")
    upgrade(empty_database)
    asyncio.run(look())
