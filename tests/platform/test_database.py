"""Row-level security: the wall behind the filters."""

import asyncio
from collections.abc import Mapping
from uuid import uuid4

import pytest
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from baatcheet.kit.ids import new_id
from baatcheet.platform.database import Database
from baatcheet.platform.settings import DatabaseSettings
from tests.conftest import Caller
from tests.conversations.test_conversations import make, run_turn, say

# The one policy there is, by the column that names a row's user.
WALL = "({owner} = (NULLIF(current_setting('baatcheet.user_id'::text, true), ''::text))::uuid)"
# Of the tables behind it, those that are asked here without a filter.
TENANT_TABLES = {
    "users": "id",
    "api_tokens": "user_id",
    "idempotency_keys": "user_id",
    "projects": "user_id",
    "conversations": "user_id",
    "messages": "user_id",
    "turns": "user_id",
    "turn_deltas": "user_id",
}


async def fill(caller: Caller, database: Database) -> None:
    """A row of `caller`'s in every table."""
    project = await caller.post(
        "/api/v1/projects", json={"name": "p"}, headers={"idempotency-key": f"fill-{caller.user_id}"}
    )
    assert project.status_code == 201
    conversation = await make(caller)
    await say(caller, conversation, "hello")
    turn = await run_turn(database, caller, conversation)
    async with database.system() as session:
        await session.execute(
            text(
                "INSERT INTO turn_deltas (turn_id, first_seq, user_id, last_seq, events) "
                "VALUES (:turn, 1, :user, 1, '[]')"
            ),
            {"turn": turn, "user": caller.user_id},
        )


async def test_every_table_with_a_user_is_behind_the_wall(database: Database) -> None:
    async with database.system() as session:
        rows = await session.execute(
            text(
                "SELECT c.relname, c.relrowsecurity, has_any_column_privilege(:tenant, c.oid, "
                "         'SELECT, INSERT, UPDATE') OR has_table_privilege(:tenant, c.oid, 'DELETE, TRUNCATE'), "
                "       EXISTS (SELECT FROM pg_attribute a "
                "               WHERE a.attrelid = c.oid AND a.attname = 'user_id' AND NOT a.attisdropped), "
                "       ARRAY(SELECT (pg_get_expr(p.polqual, c.oid), pg_get_expr(p.polwithcheck, c.oid), "
                "                     p.polcmd, p.polpermissive)::text FROM pg_policy p WHERE p.polrelid = c.oid), "
                "       ARRAY(SELECT ROW(format(:wall, 'user_id'), format(:wall, 'user_id'), '*', true)::text), "
                "       ARRAY(SELECT ROW(format(:wall, 'id'), format(:wall, 'id'), '*', true)::text) "
                "FROM pg_class c WHERE c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace"
            ),
            {"tenant": "baatcheet_tenant", "wall": WALL.format(owner="%I")},
        )
        tables = {name: rest for name, *rest in rows.all()}
    for name, (walled, within_reach, owned, policies, by_user, by_id) in tables.items():
        if owned or within_reach:
            assert walled, f"{name} has no row-level security"
            assert policies == (by_id if name == "users" else by_user), name
    owned = {name for name, row in tables.items() if row[2]}
    assert owned >= set(TENANT_TABLES) - {"users"} | {"jobs", "webhook_secrets", "notifications"}


@pytest.mark.parametrize("table", sorted(TENANT_TABLES))
async def test_a_query_that_forgets_its_filter_sees_nobody_elses_rows(
    alice: Caller, bob: Caller, database: Database, table: str
) -> None:
    await fill(alice, database)
    await fill(bob, database)
    owner = TENANT_TABLES[table]
    async with database.tenant(bob.user_id) as session:
        seen = set(await session.scalars(text(f"SELECT {owner} FROM {table}")))
    assert seen == {bob.user_id}
    async with database.system() as session:
        everybody = set(await session.scalars(text(f"SELECT {owner} FROM {table}")))
    assert everybody >= {alice.user_id, bob.user_id}


async def test_a_change_that_forgets_its_filter_touches_nobody_elses_rows(
    alice: Caller, bob: Caller, database: Database
) -> None:
    hers = await make(alice, title="alice's")
    his = await make(bob, title="bob's")
    async with database.tenant(bob.user_id) as session:
        await session.execute(text("UPDATE conversations SET title = 'changed'"))
    async with database.tenant(bob.user_id) as session:
        await session.execute(text("DELETE FROM conversations"))
    assert (await alice.get(f"/api/v1/conversations/{hers['id']}")).json()["title"] == "alice's"
    assert (await bob.get(f"/api/v1/conversations/{his['id']}")).status_code == 404


async def test_nobody_writes_rows_in_anothers_name(alice: Caller, bob: Caller, database: Database) -> None:
    with pytest.raises(DBAPIError, match="row-level security"):
        async with database.tenant(bob.user_id) as session:
            await session.execute(
                text("INSERT INTO projects (id, user_id, name) VALUES (gen_random_uuid(), :user, 'x')"),
                {"user": alice.user_id},
            )
    mine = (await bob.post("/api/v1/projects", json={"name": "x"})).json()["id"]
    with pytest.raises(DBAPIError, match="row-level security"):
        async with database.tenant(bob.user_id) as session:
            await session.execute(
                text("UPDATE projects SET user_id = :user WHERE id = :id"),
                {"user": alice.user_id, "id": mine},
            )


async def test_a_tenant_does_not_change_users(alice: Caller, database: Database) -> None:
    with pytest.raises(DBAPIError, match="permission denied"):
        async with database.tenant(alice.user_id) as session:
            await session.execute(text("UPDATE users SET role = 'admin'"))


async def test_a_connection_forgets_its_tenant(alice: Caller, database: Database) -> None:
    for _ in range(8):
        async with database.tenant(alice.user_id):
            pass
        async with database.system() as session:
            who = (
                await session.execute(text("SELECT current_user, current_setting('baatcheet.user_id', true)"))
            ).one()
        assert who[0] != "baatcheet_tenant"
        assert not who[1]


async def test_a_lane_behind_a_transaction_pooler_commits_each_statement(
    services: Mapping[str, str], database: Database
) -> None:
    address = f"{services['DATABASE_URL']}{'&' if '?' in services['DATABASE_URL'] else '?'}pgbouncer=true"
    pooled = Database(DatabaseSettings(url=SecretStr(address)), pool_size=2, name="pooled")
    name = f"lane {uuid4()}"
    try:
        lane = pooled.lane()
        await lane.fetch("INSERT INTO users (id, name, role) VALUES ($1, $2, 'user')", new_id(), name)
        async with database.system() as session:
            seen = await session.scalar(text("SELECT count(*) FROM users WHERE name = :name"), {"name": name})
        assert seen == 1
        await lane.close()
    finally:
        await pooled.close()


@pytest.mark.parametrize("kind", ["hot", "tenant"])
async def test_a_unit_of_work_that_is_cancelled_anywhere_leaves_no_transaction_to_the_next(
    services: Mapping[str, str], kind: str
) -> None:
    opened = Database(
        DatabaseSettings(url=SecretStr(services["DATABASE_URL"])), pool_size=1, name="cancelled"
    )

    async def work() -> None:
        if kind == "tenant":
            async with opened.tenant(new_id()) as session:
                await session.execute(text("SELECT 1"))
        else:
            async with opened.hot() as connection, connection.transaction():
                await connection.fetchval("SELECT 1")

    try:
        for steps in range(60):
            task = asyncio.create_task(work())
            for _ in range(steps):
                await asyncio.sleep(0.0002 if steps % 2 else 0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            async with opened.system() as session:
                assert await session.scalar(text("SELECT current_user")) == "baatcheet"
            async with opened.hot() as connection:
                assert connection.is_in_transaction() == opened.pooled_by_transaction
    finally:
        await opened.close()
