"""What is written down of the keys, and what other processes learn from it."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import date, timedelta
from typing import Any

import pytest
import pytest_asyncio
from pydantic import SecretStr

from baatcheet.keys.audit import SYSTEM, Actor
from baatcheet.keys.ledger import Ledger, forget_old
from baatcheet.keys.pool import DAY, LONGEST_REST, KeyPool, PooledKey, PoolExhausted
from baatcheet.keys.secret import SecretKey
from baatcheet.kit.ids import new_id
from baatcheet.platform.database import Database, DatabaseUnavailable
from baatcheet.platform.settings import DatabaseSettings
from baatcheet.platform.telemetry import Metrics
from tests.recovery.own_database import OwnDatabase

TODAY = 20_000
NOON = TODAY * DAY + DAY / 2
ADMIN = Actor("anna", "cli", address="192.0.2.1")


class Clock:
    """The time, as the test says."""

    def __init__(self, now: float = NOON) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Process:
    """A process that serves `keys` of `provider`."""

    def __init__(self, db: Database, provider: str, keys: Sequence[PooledKey], clock: Clock) -> None:
        self.pool = KeyPool(provider, clock=clock, chance=lambda: 0.0)
        self.pool.replace(keys)
        self.metrics = Metrics()
        self.ledger = Ledger(db, self.metrics, clock=clock)

    async def tell(self) -> None:
        await self.ledger.flush([self.pool])

    async def learn(self) -> None:
        self.pool.apply(await self.ledger.states())

    def refuse(self, reason: str = "Invalid API key") -> str:
        """The next key is refused; its id."""
        lease = self.pool.pick()
        lease.failed("unauthorized", status=401, retry_after=None, message=reason)
        return lease.id


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def provider() -> str:
    return f"p{new_id().hex}"


def keys_of(provider: str, count: int = 2) -> list[PooledKey]:
    secrets = [SecretKey(f"sk-{provider}-{number}") for number in range(count)]
    return [PooledKey(one.fingerprint(b"test", provider), one.hint, one) for one in secrets]


async def fetch(db: Database, statement: str, *values: Any) -> list[Any]:
    async with db.hot() as connection:
        return list(await connection.fetch(statement, *values))


async def told(db: Database) -> int:
    (row,) = await fetch(db, "SELECT states FROM key_changes")
    return int(row[0])


async def events_of(db: Database, key_id: str) -> list[Any]:
    return await fetch(
        db,
        "SELECT type, user_id, data::text FROM outbox WHERE data->>'fingerprint' = $1 "
        "UNION ALL SELECT type, user_id, data::text FROM events WHERE data->>'fingerprint' = $1",
        key_id,
    )


async def audit_of(db: Database, provider: str, key_id: str) -> list[tuple[str, str, str]]:
    rows = await fetch(
        db,
        "SELECT action, actor, via FROM audit_entries WHERE subject = $1 ORDER BY id",
        f"{provider}/{key_id}",
    )
    return [tuple(row) for row in rows]


# Which keys there are --------------------------------------------------------------------------------------


async def test_keys_come_retire_and_come_back(database: Database, provider: str, clock: Clock) -> None:
    ledger = Ledger(database, clock=clock)
    first, second = keys_of(provider)
    await ledger.know(provider, "file", [first, second])
    states = await ledger.states()
    assert states[first.id].store == "file"
    assert states[first.id].hint == first.hint
    assert states[first.id].state == states[second.id].state == "active"

    await ledger.know(provider, "vault", [second])
    assert first.id not in await ledger.states()
    assert (await ledger.states(retired=True))[first.id].state == "retired"
    assert (await ledger.states())[second.id].store == "vault"

    await ledger.know(provider, "vault", [first, second])
    assert (await ledger.states())[first.id].state == "active"
    assert (await ledger.states())[first.id].retired_at is None


async def test_a_start_does_not_forgive_a_quarantined_key(
    database: Database, provider: str, clock: Clock
) -> None:
    ledger = Ledger(database, clock=clock)
    keys = keys_of(provider)
    await ledger.know(provider, "file", keys)
    await ledger.quarantine(keys[0].id, "leaked", ADMIN)
    await ledger.know(provider, "vault", keys)

    assert (await ledger.states())[keys[0].id].state == "quarantined"


async def test_a_quarantined_key_that_goes_and_comes_back_is_still_quarantined(
    database: Database, provider: str, clock: Clock
) -> None:
    keys = keys_of(provider)
    process = Process(database, provider, keys, clock)
    await process.ledger.know(provider, "file", keys)
    assert await process.ledger.quarantine(keys[0].id, "it leaked", ADMIN)
    await process.ledger.know(provider, "file", keys[1:])
    await process.ledger.know(provider, "file", keys)
    states = await process.ledger.states()
    assert (states[keys[0].id].state, states[keys[0].id].reason) == ("quarantined", "it leaked")
    assert states[keys[1].id].state == "active"
    assert await process.ledger.restore(keys[0].id, ADMIN)
    await process.ledger.know(provider, "file", keys[1:])
    await process.ledger.know(provider, "file", keys)
    assert (await process.ledger.states())[keys[0].id].state == "active"


async def test_what_is_known_already_is_not_told_again(
    database: Database, provider: str, clock: Clock
) -> None:
    ledger = Ledger(database, clock=clock)
    await ledger.know(provider, "file", keys_of(provider))
    before = await fetch(database, "SELECT xmin::text, id FROM provider_keys WHERE provider = $1", provider)
    await ledger.know(provider, "file", keys_of(provider))

    after = await fetch(database, "SELECT xmin::text, id FROM provider_keys WHERE provider = $1", provider)
    assert after == before


async def test_processes_that_start_together_do_not_get_in_each_others_way(
    database: Database, provider: str, clock: Clock
) -> None:
    keys = keys_of(provider, 20)
    await asyncio.gather(
        *(Ledger(database, clock=clock).know(provider, "file", keys[:: (-1) ** turn]) for turn in range(8))
    )

    assert len([one for one in (await Ledger(database).states()).values() if one.provider == provider]) == 20


async def test_no_column_holds_a_key(database: Database, provider: str, clock: Clock) -> None:
    keys = keys_of(provider)
    process = Process(database, provider, keys, clock)
    await process.ledger.know(provider, "file", keys)
    process.refuse("no such key")
    await process.tell()

    for table in ("provider_keys", "key_usage", "audit_entries", "outbox"):
        rows = await fetch(database, f"SELECT t::text FROM {table} t")
        assert not any(key.key.reveal() in row[0] for row in rows for key in keys)


# How they fare ---------------------------------------------------------------------------------------------


async def test_a_refused_key_is_told_of_once_however_many_processes_find_out(
    database: Database, provider: str, clock: Clock
) -> None:
    keys = keys_of(provider, 1)
    processes = [Process(database, provider, keys, clock) for _ in range(3)]
    await processes[0].ledger.know(provider, "file", keys)
    before = await told(database)
    for one in processes:
        one.refuse()
    await asyncio.gather(*(one.tell() for one in processes))

    (event,) = await events_of(database, keys[0].id)
    assert (event[0], event[1]) == ("key.quarantined", None)
    assert "Invalid API key" in event[2]
    assert provider in event[2]
    assert await audit_of(database, provider, keys[0].id) == [("key.quarantined", SYSTEM.name, SYSTEM.via)]
    assert await told(database) > before
    assert processes[0].pool.changes() == []


async def test_other_processes_leave_a_refused_key_alone_until_it_is_restored(
    database: Database, provider: str, clock: Clock
) -> None:
    keys = keys_of(provider, 1)
    here, there = (Process(database, provider, keys, clock) for _ in range(2))
    await here.ledger.know(provider, "file", keys)
    here.refuse()
    await here.tell()
    await there.learn()
    with pytest.raises(PoolExhausted):
        there.pool.pick()

    clock.now += 1
    before = await told(database)
    assert await there.ledger.restore(keys[0].id, ADMIN)
    assert await told(database) == before + 1
    for one in (here, there):
        await one.learn()
        one.pool.pick().done()
    assert (await audit_of(database, provider, keys[0].id))[-1] == ("key.restored", "anna", "cli")


async def test_the_longest_rest_of_all_processes_holds(
    database: Database, provider: str, clock: Clock
) -> None:
    keys = keys_of(provider, 1)
    processes = [Process(database, provider, keys, clock) for _ in range(3)]
    await processes[0].ledger.know(provider, "file", keys)
    for one, seconds in zip(processes, (30, 90, 60), strict=True):
        one.pool.pick().failed("rate_limited", status=429, retry_after=seconds, message="slow down")
        await one.tell()
    clock.now += 1

    for one in processes:
        await one.learn()
        with pytest.raises(PoolExhausted) as raised:
            one.pool.pick()
        assert raised.value.retry_after == pytest.approx(89)


async def test_a_rest_does_not_free_a_quarantined_key(
    database: Database, provider: str, clock: Clock
) -> None:
    keys = keys_of(provider, 1)
    here, there = (Process(database, provider, keys, clock) for _ in range(2))
    await here.ledger.know(provider, "file", keys)
    here.refuse("revoked")
    there.pool.pick().failed("rate_limited", status=429, retry_after=30, message="slow down")
    await here.tell()
    await there.tell()

    state = (await here.ledger.states())[keys[0].id]
    assert (state.state, state.reason) == ("quarantined", "revoked")


async def test_short_rests_are_not_worth_telling_others(
    database: Database, provider: str, clock: Clock
) -> None:
    keys = keys_of(provider, 1)
    process = Process(database, provider, keys, clock)
    await process.ledger.know(provider, "file", keys)
    before = await told(database)
    process.pool.pick().failed("rate_limited", status=429, retry_after=1, message="")
    await process.tell()
    assert await told(database) == before

    clock.now += 1
    process.pool.pick().failed("rate_limited", status=429, retry_after=60, message="")
    await process.tell()
    assert await told(database) == before + 1


async def test_what_people_do_is_written_with_their_names(
    database: Database, provider: str, clock: Clock
) -> None:
    keys = keys_of(provider, 1)
    ledger = Ledger(database, clock=clock)
    await ledger.know(provider, "file", keys)

    assert await ledger.rest(keys[0].id, NOON + 3600 * 24 * 365, "planned", ADMIN)
    resting = (await ledger.states())[keys[0].id]
    assert (resting.resting_until, resting.reason) == (NOON + LONGEST_REST, "planned")
    assert resting.condition == "resting"
    assert await ledger.quarantine(keys[0].id, "leaked", ADMIN)
    assert (await ledger.states())[keys[0].id].condition == "quarantined"
    assert await ledger.restore(keys[0].id, ADMIN)
    assert (await ledger.states())[keys[0].id].condition == "usable"

    assert await audit_of(database, provider, keys[0].id) == [
        ("key.rested", "anna", "cli"),
        ("key.quarantined", "anna", "cli"),
        ("key.restored", "anna", "cli"),
    ]
    assert len(await events_of(database, keys[0].id)) == 1


async def test_there_is_nothing_to_do_with_an_unknown_key(database: Database, clock: Clock) -> None:
    ledger = Ledger(database, clock=clock)

    assert not await ledger.rest("nobody", NOON + 5, "", ADMIN)
    assert not await ledger.quarantine("nobody", "", ADMIN)
    assert not await ledger.restore("nobody", ADMIN)


async def test_a_key_in_a_providers_message_is_written_nowhere(
    database: Database, provider: str, clock: Clock
) -> None:
    keys = keys_of(provider, 1)
    process = Process(database, provider, keys, clock)
    await process.ledger.know(provider, "file", keys)
    process.refuse("Incorrect API key provided: gsk_abcdefghijklmnop0123456789.")
    await process.tell()

    state = (await process.ledger.states())[keys[0].id]
    assert state.reason is not None
    assert state.last_error is not None
    for text in (state.reason, state.last_error, str(await events_of(database, keys[0].id))):
        assert "abcdefghijkl" not in text
        assert "Incorrect API key provided" in text


# What they were used for -----------------------------------------------------------------------------------


async def test_uses_of_all_processes_are_added_up(database: Database, provider: str, clock: Clock) -> None:
    keys = keys_of(provider, 2)
    processes = [Process(database, provider, keys, clock) for _ in range(4)]
    await processes[0].ledger.know(provider, "file", keys)
    for _ in range(5):
        for one in processes:
            for _ in range(10):
                one.pool.pick().done(tokens=7)
            one.pool.pick(without=[keys[1].id]).failed(
                "rejected", status=400, retry_after=None, message="bad"
            )
        await asyncio.gather(*(one.tell() for one in processes))

    states = await processes[0].ledger.states()
    assert sum(states[key.id].requests_today for key in keys) == 5 * 4 * 11
    assert sum(states[key.id].tokens_today for key in keys) == 5 * 4 * 10 * 7
    assert states[keys[0].id].errors_today == 20
    assert states[keys[0].id].last_error == "rejected (400): bad"
    assert states[keys[0].id].last_used_at == NOON


async def test_uses_belong_to_the_day_on_which_they_were(
    database: Database, provider: str, clock: Clock
) -> None:
    keys = keys_of(provider, 1)
    process = Process(database, provider, keys, clock)
    await process.ledger.know(provider, "file", keys)
    process.pool.pick().done()
    clock.now = (TODAY + 1) * DAY
    process.pool.pick().done()
    process.pool.pick().done()
    await process.tell()

    rows = await fetch(
        database, "SELECT day, requests FROM key_usage WHERE key_id = $1 ORDER BY day", keys[0].id
    )
    day = date(1970, 1, 1) + timedelta(days=TODAY)
    assert [tuple(row) for row in rows] == [(day, 1), (day + timedelta(days=1), 2)]
    assert (await process.ledger.states())[keys[0].id].requests_today == 2


@pytest.fixture
def own_database(migrated_database: str) -> str:
    return migrated_database


async def test_what_keys_were_used_for_is_forgotten_after_a_while_and_the_keys_are_not(
    own_database: str, provider: str
) -> None:
    db = Database(DatabaseSettings(url=SecretStr(own_database)), pool_size=2, name="ledger tests")
    try:
        await Ledger(db).know(provider, "file", keys_of(provider))
        days = "SELECT id, current_date - d FROM provider_keys, unnest(ARRAY[0, 399, 401]) d"
        await fetch(db, f"INSERT INTO key_usage (key_id, day, requests) SELECT *, 1 FROM ({days}) AS used")
        assert await forget_old(db, timedelta(days=400)) == 2
        assert await forget_old(db, timedelta(days=400)) == 0
        assert [row[0] for row in await fetch(db, "SELECT count(*) FROM key_usage")] == [4]
        assert len(await Ledger(db).states()) == 2
    finally:
        await db.close()


async def test_metrics_tell_how_many_keys_there_are_and_how_old(
    database: Database, provider: str, clock: Clock
) -> None:
    keys = keys_of(provider, 3)
    process = Process(database, provider, keys, clock)
    await process.ledger.know(provider, "file", keys)
    async with database.hot() as connection:
        await connection.execute(
            "UPDATE provider_keys SET added_at = to_timestamp($2) WHERE id = $1", keys[0].id, NOON - 40 * DAY
        )
        await connection.execute(
            "UPDATE provider_keys SET added_at = to_timestamp($2) WHERE id = $1", keys[1].id, NOON - DAY
        )
    await process.learn()
    process.refuse()
    await process.tell()

    text = process.metrics.render().decode()
    assert f'baatcheet_provider_keys{{provider="{provider}",state="usable"}} 2.0' in text
    assert f'baatcheet_provider_keys{{provider="{provider}",state="quarantined"}} 1.0' in text
    assert f'baatcheet_provider_key_oldest_days{{provider="{provider}"}} 40.0' in text
    assert f'baatcheet_provider_key_failures_total{{kind="unauthorized",provider="{provider}"}} 1.0' in text
    process.pool.restore(process.pool.changes()[0].id if process.pool.changes() else keys[0].id)
    await process.tell()
    assert (
        f'baatcheet_provider_keys{{provider="{provider}",state="quarantined"}} 0.0'
        in process.metrics.render().decode()
    )


async def test_a_quarantine_is_in_the_log_without_the_key(
    database: Database, provider: str, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    keys = keys_of(provider, 1)
    process = Process(database, provider, keys, clock)
    await process.ledger.know(provider, "file", keys)
    with caplog.at_level(logging.WARNING):
        process.refuse()
        await process.tell()

    assert "key.quarantined" in caplog.text
    assert keys[0].key.reveal() not in caplog.text


# The database away -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnDatabase]:
    database = OwnDatabase(tmp_path_factory.mktemp("pg"))
    yield database
    database.stop()


@pytest_asyncio.fixture
async def fragile(own: OwnDatabase) -> AsyncIterator[Database]:
    settings = DatabaseSettings(url=SecretStr(own.url), checkout_timeout=1)
    opened = Database(settings, pool_size=2, name="ledger away")
    yield opened
    await opened.close()


async def test_what_happens_while_the_database_is_away_is_written_afterwards(
    own: OwnDatabase, fragile: Database, provider: str, clock: Clock
) -> None:
    keys = keys_of(provider, 2)
    process = Process(fragile, provider, keys, clock)
    await process.ledger.know(provider, "file", keys)
    process.pool.pick().done(tokens=3)
    own.freeze()
    try:
        with pytest.raises(DatabaseUnavailable):
            await process.tell()
        refused = process.refuse()
        process.pool.pick().done(tokens=4)
        with pytest.raises(DatabaseUnavailable):
            await process.tell()
    finally:
        own.thaw()
    await process.tell()
    await process.tell()

    states = await process.ledger.states()
    assert sum(one.requests_today for one in states.values()) == 3
    assert sum(one.tokens_today for one in states.values()) == 7
    assert states[refused].state == "quarantined"
    assert len(await events_of(fragile, refused)) == 1
