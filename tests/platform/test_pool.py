"""The connections of a deployment, divided among its processes."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from baatcheet.chat.store import TurnStore
from baatcheet.kit.ids import new_id
from baatcheet.platform import database as database_module
from baatcheet.platform.database import (
    Database,
    DatabaseUnavailable,
    Lane,
    PoolShare,
    UnusableDatabaseUrl,
    connect,
)
from baatcheet.platform.pgbouncer import BouncerLimits
from baatcheet.platform.pool import BESIDE, LEAST, Plan, ServerLimits, divide, plan_pool, server_limits
from baatcheet.platform.settings import DatabaseSettings, SettingsError, load
from baatcheet.platform.statements import shown

PLENTY = ServerLimits(most=500, for_superusers=3)
USUAL = ServerLimits(most=100, for_superusers=3, reserved=0)  # PostgreSQL's own default
BOUNCER = replace(USUAL, bouncer=BouncerLimits(clients=200, pool_size=20, reserve=5, mode="transaction"))


def settings(pool_max: int | None = None, url: str = "postgresql://u@h/d", **more: float) -> DatabaseSettings:
    environ = {"DATABASE_URL": url} | ({} if pool_max is None else {"BAATCHEET_POOL_MAX": str(pool_max)})
    environ |= {f"BAATCHEET_DB_{name.upper()}": str(value) for name, value in more.items()}
    return load(environ, dotenv=None).database


# The arithmetic ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pool_max", "limits", "processes", "share"),
    [
        (None, PLENTY, 1, (100, 10)),
        (None, PLENTY, 4, (25, 2)),
        (None, USUAL, 1, (88, 10)),
        (None, USUAL, 3, (26, 3)),
        (None, None, 2, (50, 5)),
        (None, BOUNCER, 2, (50, 5)),
        (None, replace(BOUNCER, bouncer=BouncerLimits(50, 20, 0, "transaction")), 2, (18, 5)),
        (None, replace(USUAL, of_role=20), 1, (11, 10)),
        (None, replace(USUAL, of_database=20), 1, (11, 10)),
        (4, USUAL, 1, (4, 4)),
        (4, USUAL, 4, (2, 2)),
        (84, USUAL, 2, (42, 5)),
        (None, PLENTY, 40, (2, 1)),
    ],
)
def test_each_process_gets_an_equal_part_and_two_at_least(
    pool_max: int | None, limits: ServerLimits | None, processes: int, share: tuple[int, int]
) -> None:
    assert divide(settings(pool_max), limits, processes).share() == share


def test_a_setting_beyond_what_the_server_allows_is_refused_with_the_sum() -> None:
    with pytest.raises(SettingsError) as refused:
        divide(settings(89), USUAL, 1)
    told = str(refused.value)
    assert told.startswith("BAATCHEET_POOL_MAX: 89 ")
    assert "100 - superuser_reserved_connections 3 - reserved_connections 0 - 5 spare = 92" in told
    assert "1 x 4 are needed beside the pools: 88 are left" in told
    assert "Set it to 88 or less" in told


def test_a_setting_beyond_what_the_role_may_have_is_refused_with_that_limit() -> None:
    with pytest.raises(SettingsError, match=r"the role's CONNECTION LIMIT 20 - 5 spare = 15"):
        divide(settings(89), replace(USUAL, of_role=20), 1)
    with pytest.raises(SettingsError, match=r"the database's CONNECTION LIMIT 10 - 5 spare = 5"):
        divide(settings(89), replace(USUAL, of_role=20, of_database=10), 1)


def test_a_setting_beyond_what_pgbouncer_takes_is_refused_with_that_limit() -> None:
    with pytest.raises(SettingsError, match=r"PgBouncer's max_client_conn 200 - 5 spare = 195"):
        divide(settings(196), BOUNCER, 1)


def test_pgbouncer_without_transactions_is_refused() -> None:
    limits = replace(BOUNCER, bouncer=BouncerLimits(200, 20, 0, "statement"))
    with pytest.raises(SettingsError, match="pool_mode = statement"):
        divide(settings(), limits, 1)


def test_a_pgbouncer_that_may_open_more_than_postgresql_has_is_told_of_with_the_sum() -> None:
    assert BOUNCER.bouncer_problem() is None
    greedy = replace(BOUNCER, bouncer=BouncerLimits(200, 95, 5, "transaction"))
    assert "pool_size 95 + reserve 5 = 100 connections, more than PostgreSQL has" in (
        greedy.bouncer_problem() or ""
    )


def test_more_processes_than_connections_are_refused() -> None:
    with pytest.raises(SettingsError, match="BAATCHEET_PROCESSES: 50 processes"):
        divide(settings(), USUAL, 50)


def test_prismas_connection_limit_is_of_each_process_and_counted() -> None:
    address = settings(url="postgresql://u@h/d?connection_limit=17")
    assert divide(address, USUAL, 2).share(9).most == 17
    with pytest.raises(SettingsError, match=r"connection_limit=17 of 5 processes makes 85 connections"):
        divide(address, USUAL, 5)


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("connection_limit=none", "connection_limit=none, which is not a number above 0"),
        ("connection_limit=0", "not a number above 0"),
        ("pool_timeout=soon", "pool_timeout=soon"),
        ("connect_timeout=-1", "connect_timeout=-1"),
        ("schema=chat", "the schema public"),
    ],
)
def test_what_is_meant_by_no_number_is_refused_with_the_parameters_name(query: str, why: str) -> None:
    with pytest.raises(UnusableDatabaseUrl, match=why):
        Database(settings(url=f"postgresql://u@h/d?{query}"), pool_size=2)


async def test_prismas_form_of_the_address_is_understood(services: Mapping[str, str]) -> None:
    url = (
        f"{services['DATABASE_URL']}&schema=public&connection_limit=3&pool_timeout=1&application_name=prisma"
    )
    db = Database(settings(url=url), pool_size=9)
    try:
        assert db.pool_size == 3
        async with db.system() as session:
            assert await session.scalar(text("SHOW application_name")) == "prisma"
        async with lent(db, 3):
            with pytest.raises(DatabaseUnavailable, match="in use"):
                async with asyncio.timeout(3), db.hot():
                    raise AssertionError("there was no fourth")
    finally:
        await db.close()


@given(
    total=st.integers(1, 500),
    here=st.integers(1, 8),
    machines=st.integers(1, 12),
)
def test_the_parts_of_all_running_processes_make_no_more_than_the_whole(
    total: int, here: int, machines: int
) -> None:
    running = here * machines
    plan = Plan(total, here)
    shares = [plan.share(running) for _ in range(running)]
    assert sum(share.most for share in shares) <= max(total, LEAST * running)
    assert sum(share.warm for share in shares) <= max(10, running)
    assert all(1 <= share.warm <= share.most for share in shares)


async def test_the_server_is_asked_what_it_allows(services: Mapping[str, str]) -> None:
    limits = await server_limits(settings(url=services["DATABASE_URL"]))
    assert limits is not None
    assert limits.usable > 0
    assert 0 < limits.for_us < limits.most


async def test_a_pooler_that_does_not_tell_its_limits_has_none_that_are_known(
    services: Mapping[str, str],
) -> None:
    address = services.get("DATABASE_DIRECT_URL", services["DATABASE_URL"])
    joined = address + ("&" if "?" in address else "?") + "pgbouncer=true"
    assert await server_limits(settings(url=joined)) is None


async def test_a_server_that_is_down_is_said_to_be_unavailable_and_keeps_nobody_from_starting() -> None:
    with pytest.raises(DatabaseUnavailable):
        await server_limits(settings(url="postgresql://u@127.0.0.1:1/d"))
    assert (await plan_pool(settings(url="postgresql://u@127.0.0.1:1/d"), 2)).first == (50, 5)


# The pool itself --------------------------------------------------------------------------------------------


@asynccontextmanager
async def lent(db: Database, count: int) -> AsyncIterator[list[Any]]:
    """So many connections in use."""
    deadline = asyncio.get_running_loop().time() + 10
    taken = [await db.take(deadline) for _ in range(count)]
    try:
        yield [raw for _, raw in taken]
    finally:
        for one in taken:
            await db.give_back(*one)


MakeDatabase = Callable[..., Database]


@pytest_asyncio.fixture
async def make(services: Mapping[str, str]) -> AsyncIterator[MakeDatabase]:
    made: list[Database] = []

    def open_database(size: int, **more: Any) -> Database:
        own = more.pop("settings", None) or settings(url=services["DATABASE_URL"])
        made.append(Database(own, pool_size=size, name=f"pool {new_id().hex}", **more))
        return made[-1]

    yield open_database
    for db in made:
        await db.close()


async def eventually(what: Callable[[], bool], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not what():
            await asyncio.sleep(0.01)


async def test_many_at_once_share_few_connections_in_their_order(make: MakeDatabase) -> None:
    db = make(3)
    async with lent(db, 3):
        pass  # opening one takes as long as it takes
    served: list[int] = []
    most = 0
    deadline = asyncio.get_running_loop().time() + 10

    async def request(number: int) -> None:
        nonlocal most
        connection, raw = await db.take(deadline)
        served.append(number)
        most = max(most, db.pool_use().in_use)
        await raw.execute("SELECT 1")
        await db.give_back(connection, raw)

    await asyncio.gather(*(request(number) for number in range(200)))
    assert most == 3
    # Those who are served at the same time may overtake each other, and nobody else.
    assert all(abs(place - number) < 3 for place, number in enumerate(served))
    assert db.pool_use()[:4] == (3, 0, 0, 3)


async def test_kept_connections_of_turns_go_to_whoever_needs_them(make: MakeDatabase) -> None:
    db = make(2)
    lanes = [db.lane(), db.lane()]
    for lane in lanes:
        await lane.fetch("SELECT 1")
    if not db.pooled_by_transaction:
        assert db.pool_use().in_use == 2
    async with asyncio.timeout(2), lent(db, 2):
        waiting = asyncio.create_task(lanes[0].fetch("SELECT 2 AS two"))
        await asyncio.sleep(0.05)
        assert not waiting.done()
    assert (await waiting)[0]["two"] == 2
    await asyncio.gather(*(lanes[0].fetch("SELECT 1") for _ in range(1)), lanes[1].fetch("SELECT 1"))
    for lane in lanes:
        await lane.close()
    assert db.pool_use().in_use == 0


async def test_a_lane_under_load_gives_its_connection_to_those_who_wait(make: MakeDatabase) -> None:
    db = make(1)
    lane = db.lane()
    busy = asyncio.create_task(lane.fetch("SELECT pg_sleep(0.2)"))
    await eventually(lambda: db.pool_use().in_use == 1)
    async with asyncio.timeout(3), db.hot() as connection:
        assert await connection.fetchval("SELECT 1") == 1
    await busy
    await lane.close()


async def warm_lanes(db: Database, count: int) -> list[Lane]:
    """So many lanes that keep a connection. Behind a transaction pooler none does."""
    if db.pooled_by_transaction:
        pytest.skip("a lane keeps nothing behind a transaction pooler")
    lanes = [db.lane() for _ in range(count)]
    for lane in lanes:
        await lane.fetch("SELECT 1")
    assert db.pool_use().in_use == count
    return lanes


async def hang_up_on(lanes: list[Lane], services: Mapping[str, str]) -> None:
    """The server ends their connections, and they have heard of it."""
    raws = [lane._held[1] for lane in lanes if lane._held is not None]
    other = await connect(services["DATABASE_URL"])
    try:
        for raw in raws:
            await other.fetchval("SELECT pg_terminate_backend($1)", raw.get_server_pid())
    finally:
        await other.close()
    await eventually(lambda: all(raw.is_closed() for raw in raws))


@pytest.mark.parametrize("size", [1, LEAST])
async def test_lanes_whose_server_hung_up_leave_their_places_to_who_needs_them(
    make: MakeDatabase, services: Mapping[str, str], size: int
) -> None:
    db = make(size)
    lanes = await warm_lanes(db, size)
    await hang_up_on(lanes, services)
    async with asyncio.timeout(3), lent(db, size) as raws:
        assert [await raw.fetchval("SELECT 1") for raw in raws] == [1] * size
        assert db.pool_use()[:3] == (size, size, 0)
    assert db.pool_use().in_use == 0
    assert (await lanes[0].fetch("SELECT 2 AS two"))[0]["two"] == 2
    await lanes[0].close()


async def test_lanes_whose_server_hung_up_are_dropped_before_anybody_asks(
    make: MakeDatabase, services: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "KEEP_EVERY", 0.05)
    db = make(LEAST, warm=LEAST)
    lanes = await warm_lanes(db, LEAST)
    keeping = asyncio.create_task(db.keep())
    await asyncio.sleep(0.2)
    assert db.pool_use().in_use == LEAST  # the living are left alone
    await hang_up_on(lanes, services)
    await eventually(lambda: db.pool_use()[:4] == (LEAST, 0, 0, LEAST))
    keeping.cancel()


async def test_a_connection_in_doubt_is_not_handed_on_by_a_lane(make: MakeDatabase) -> None:
    db = make(LEAST)
    lanes = await warm_lanes(db, LEAST)
    kept = {lane._held[1] for lane in lanes if lane._held is not None}
    db.doubt(asyncpg.ReadOnlySQLTransactionError("cannot execute INSERT in a read-only transaction"))
    async with asyncio.timeout(3), lent(db, LEAST) as raws:
        assert kept.isdisjoint(raws)
        assert all(db.useful(raw) for raw in raws)
    assert all(raw.is_closed() for raw in kept)


async def test_a_connection_that_is_being_opened_to_be_warm_counts_towards_the_pool(
    make: MakeDatabase,
) -> None:
    db = make(1, warm=1)
    keeping = asyncio.create_task(db.keep())
    await asyncio.sleep(0)  # it is opening one
    async with lent(db, 1) as (raw,):
        ends = asyncio.get_running_loop().time() + 0.3
        while asyncio.get_running_loop().time() < ends:
            use = db.pool_use()
            assert use.in_use + use.idle <= use.size
            await raw.fetchval("SELECT 1")
    keeping.cancel()


async def test_who_waits_while_the_only_connection_can_not_be_opened_is_told_that_the_server_is_away(
    make: MakeDatabase,
) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        url = f"postgresql://u@127.0.0.1:{deaf.getsockname()[1]}/d"
        db = make(1, settings=settings(url=url, checkout_timeout=0.3, connect_timeout=2), warm=1)
        keeping = asyncio.create_task(db.keep())
        await asyncio.sleep(0)  # it is opening one
        with pytest.raises(DatabaseUnavailable, match="can't be reached"):
            await wait_for_one(db)
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
    assert db.pool_use()[:3] == (1, 0, 0)


async def test_the_warm_connections_are_open_before_anybody_asks(make: MakeDatabase) -> None:
    db = make(8, warm=3)
    keeping = asyncio.create_task(db.keep())
    await eventually(lambda: db.pool_use().idle == 3)
    keeping.cancel()


async def test_what_nobody_needs_is_closed_down_to_the_warm_ones(
    make: MakeDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "KEEP_EVERY", 0.05)
    monkeypatch.setattr(database_module, "IDLE", 0.3)
    db = make(8, warm=2)
    async with lent(db, 6):
        pass
    assert db.pool_use().idle == 6
    keeping = asyncio.create_task(db.keep())
    await asyncio.sleep(0.1)
    assert db.pool_use().idle == 6  # it is not time yet
    await eventually(lambda: db.pool_use().idle == 2)
    await asyncio.sleep(0.5)
    assert db.pool_use().idle == 2
    keeping.cancel()


async def test_a_connection_that_its_server_has_closed_is_replaced_unasked(
    make: MakeDatabase, services: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "KEEP_EVERY", 0.05)
    db = make(4, warm=2)
    async with lent(db, 2) as raws:
        first = set(raws)
        for raw in raws:
            raw.terminate()
    keeping = asyncio.create_task(db.keep())
    await eventually(lambda: db.pool_use().idle == 2)
    keeping.cancel()
    async with lent(db, 2) as raws:
        assert first.isdisjoint(raws)
        assert [await raw.fetchval("SELECT 1") for raw in raws] == [1, 1]


async def test_a_smaller_part_takes_nothing_back_and_closes_what_is_returned(make: MakeDatabase) -> None:
    db = make(6, divide=lambda running: PoolShare(6 // running, 1))
    async with lent(db, 6):
        db.share_among(3)
        assert db.pool_use()[:2] == (2, 6)
        waiting = asyncio.create_task(wait_for_one(db))
        await asyncio.sleep(0.05)
        assert not waiting.done()
    await waiting
    assert db.pool_use()[:4] == (2, 0, 0, 2)
    db.share_among(1)
    async with lent(db, 6):
        pass


async def wait_for_one(db: Database) -> None:
    async with db.hot() as connection:
        await connection.fetchval("SELECT 1")


async def test_processes_on_all_machines_divide_the_connections_as_they_come_and_go(
    make: MakeDatabase, services: Mapping[str, str]
) -> None:
    url = services.get("DATABASE_DIRECT_URL", services["DATABASE_URL"])
    plan = Plan(total=600, processes=1)
    stores = [TurnStore(make(50, divide=plan.share), lambda: connect(url)) for _ in range(3)]
    dbs = [store._db for store in stores]
    ids = [new_id() for _ in stores]

    async def all_beat() -> int:
        for id_, store in zip(ids, stores, strict=True):
            await store.beat(id_)
        async with dbs[0].hot() as connection:
            return int(
                await connection.fetchval(
                    "SELECT count(*) FROM processes WHERE seen_at > now() - '15 s'::interval"
                )
            )

    try:
        for id_, store in zip(ids, stores, strict=True):
            await store.register(id_, kind="api", host="elsewhere", pid=1, pool_size=50)
        running = await all_beat()
        assert running >= 3
        assert {db.pool_size for db in dbs} == {600 // running}
        await stores[2].leave(ids[2])
        del ids[2]
        stores, left = stores[:2], stores[2]
        await left.close_lanes()
        await all_beat()
        running = await all_beat()  # a beat tells of the part that the one before has given
        assert {store._db.pool_size for store in stores} == {600 // running}
        async with dbs[0].hot() as connection:
            told = await connection.fetchrow(
                "SELECT pool_size, in_use, waiting FROM processes WHERE id = $1", ids[0]
            )
        assert tuple(told) == (600 // running, 0, 0)
    finally:
        for id_, store in zip(ids, stores, strict=True):
            await store.leave(id_)
            await store.close_lanes()


async def test_who_gets_no_connection_in_time_is_counted(
    make: MakeDatabase, services: Mapping[str, str]
) -> None:
    db = make(1, settings=settings(url=services["DATABASE_URL"], checkout_timeout=0.1))
    async with lent(db, 1):
        with pytest.raises(DatabaseUnavailable, match="in use"):
            await wait_for_one(db)
    assert db.pool_use().refused == 1
    await wait_for_one(db)


# Sessions and statements ------------------------------------------------------------------------------------


async def test_every_session_has_its_limits_and_keeps_its_line_alive(
    make: MakeDatabase, database: Database
) -> None:
    db = make(1)
    if db.pooled_by_transaction:
        pytest.skip("a transaction pooler takes no settings of sessions")
    async with db.hot() as connection:
        told = {
            name: await connection.fetchval(f"SHOW {name}")
            for name in (
                "statement_timeout",
                "idle_in_transaction_session_timeout",
                "jit",
                "application_name",
            )
        }
    assert told["statement_timeout"] == "30s"
    assert told["idle_in_transaction_session_timeout"] == "1min"
    assert told["jit"] == "off"
    assert told["application_name"].startswith("pool ")


async def test_a_statement_may_be_given_longer_than_the_others(
    make: MakeDatabase, services: Mapping[str, str]
) -> None:
    db = make(1, settings=settings(url=services["DATABASE_URL"], statement_timeout=0.2))
    if not db.pooled_by_transaction:
        with pytest.raises(DatabaseUnavailable):
            async with db.system() as session:
                await session.execute(text("SELECT pg_sleep(0.6)"))
    async with db.system() as session:
        await db.allow(session, 5)
        await session.execute(text("SELECT pg_sleep(1.5)"))  # longer than the wait for an answer, too
    async with db.hot() as connection:
        if not db.pooled_by_transaction:
            assert await connection.fetchval("SHOW statement_timeout") == "200ms"
        assert connection._config.command_timeout == 1.2


@pytest.mark.parametrize("way", ["hot", "session"])
async def test_a_slow_statement_is_logged_without_what_it_was_given(
    make: MakeDatabase, services: Mapping[str, str], caplog: pytest.LogCaptureFixture, way: str
) -> None:
    db = make(1, settings=settings(url=services["DATABASE_URL"], slow_statement=0.05))
    with caplog.at_level(logging.WARNING):
        if way == "hot":
            async with db.hot() as connection:
                await connection.fetchval("SELECT $1::text, pg_sleep(0.06), 'confidential'", "my diary")
        else:
            async with db.system() as session:
                await session.execute(
                    text("SELECT CAST(:it AS text), pg_sleep(0.06), 'confidential'"), {"it": "my diary"}
                )
        await wait_for_one(db)
    (line,) = [one for one in caplog.records if one.msg == "database.slow_statement"]
    fields: dict[str, Any] = vars(line)["fields"]
    assert fields["parameters"] == 1
    assert fields["ms"] >= 50
    assert "pg_sleep" in fields["statement"]
    assert "diary" not in str(fields)
    assert "confidential" not in str(fields)
    assert db.pool_use().slow_statements == 1


async def test_a_slow_statement_that_fails_is_logged_with_its_code_alone(
    make: MakeDatabase, services: Mapping[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    db = make(1, settings=settings(url=services["DATABASE_URL"], slow_statement=0.05))
    with caplog.at_level(logging.WARNING), pytest.raises(asyncpg.PostgresError):
        async with db.hot() as connection:
            await connection.fetchval("SELECT 1 / length(pg_sleep(0.06)::text), $1::text", "7")
    (line,) = [one for one in caplog.records if one.msg == "database.slow_statement"]
    assert vars(line)["fields"]["failed"]


async def test_in_development_every_statement_is_logged(
    make: MakeDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    db = make(1)
    await wait_for_one(db)
    with caplog.at_level(logging.DEBUG, "baatcheet.platform.statements"):
        await wait_for_one(db)
        async with db.system() as session:
            await session.execute(text("SELECT 2"))
    shown_ones = [
        vars(one)["fields"]["statement"] for one in caplog.records if one.msg == "database.statement"
    ]
    assert "SELECT 1" in shown_ones
    assert "SELECT 2" in shown_ones


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0"), max_size=40))
def test_a_literal_is_never_shown(secret: str) -> None:
    marked = f"<<{secret}>>"
    quoted = marked.replace("'", "''")
    told = shown(f"SELECT '{quoted}', E'{quoted}', $a${secret.replace('$', '')}<<$a$ FROM conversations")
    assert "<<" not in told
    assert told.startswith("SELECT")
    assert len(shown("SELECT " + "x" * 10_000)) <= 2000


async def test_least_is_enough_for_a_process(make: MakeDatabase) -> None:
    assert BESIDE > LEAST  # what is beside the pool is not in it
    db = make(LEAST)
    lanes = [db.lane(), db.lane()]
    async with asyncio.timeout(5):
        await asyncio.gather(
            *(lane.fetch("SELECT 1") for lane in lanes), *(wait_for_one(db) for _ in range(20))
        )
    for lane in lanes:
        await lane.close()
