"""A day's requests, shared by several processes on a real database."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from baatcheet.keys.ledger import Ledger
from baatcheet.keys.limits import Limits
from baatcheet.keys.pool import DAY, KeyPool, Lease, PooledKey, PoolExhausted
from baatcheet.keys.quota import AHEAD, BEFORE_MIDNIGHT, CALM, Quota
from baatcheet.keys.secret import SecretKey
from baatcheet.kit.ids import new_id
from baatcheet.platform.database import Database, DatabaseUnavailable
from baatcheet.platform.settings import DatabaseSettings
from tests.recovery.own_database import OwnDatabase

TODAY = 20_000
NOON = TODAY * DAY + DAY / 2


class Clock:
    """The time, as the test says; the same for all processes."""

    def __init__(self, now: float = NOON) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Process:
    """What one process has: a pool, and its part of the quota."""

    def __init__(
        self, db: Database, keys: Sequence[PooledKey], limit: int | None, clock: Callable[[], float]
    ) -> None:
        self.pool = KeyPool("groq", Limits(requests_per_day=limit), clock=clock)
        self.pool.replace(keys)
        self.quota = Quota(db, [self.pool], clock=clock)
        self.used: Counter[str] = Counter()

    def use(self, most: int) -> int:
        """Make up to `most` requests; how many got a key."""
        for made in range(most):
            try:
                lease: Lease = self.pool.pick()
            except PoolExhausted:
                return made
            self.used[lease.id] += 1
            lease.done()
        return most

    @property
    def left(self) -> int:
        return sum(one.left for one in self.pool.holdings())


async def keys_in(db: Database, count: int) -> list[PooledKey]:
    """New keys that the ledger knows."""
    provider = f"p{new_id().hex}"
    keys = []
    for number in range(count):
        secret = SecretKey(f"sk-{provider}-{number}")
        keys.append(PooledKey(secret.fingerprint(b"test", "groq"), secret.hint, secret))
    await Ledger(db).know(provider, "file", keys)
    return keys


async def granted(db: Database, keys: Sequence[PooledKey], day: int = TODAY) -> list[int]:
    async with db.hot() as connection:
        rows = await connection.fetch(
            "SELECT key_id, granted FROM key_usage WHERE key_id = ANY($1) AND day = DATE '1970-01-01' + $2::int",
            [key.id for key in keys],
            day,
        )
    found = dict(map(tuple, rows))
    return [found.get(key.id, 0) for key in keys]


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def test_a_process_has_quota_before_its_first_request(database: Database, clock: Clock) -> None:
    keys = await keys_in(database, 3)
    process = Process(database, keys, 1000, clock)
    await process.quota.round()

    assert process.use(30) == 30
    assert all(0 < one <= 1000 for one in await granted(database, keys))


async def test_all_together_never_pass_the_limit_and_use_it_up_exactly(
    database: Database, clock: Clock
) -> None:
    keys = await keys_in(database, 4)
    processes = [Process(database, keys, 50, clock) for _ in range(5)]
    chance = random.Random(5)

    for _ in range(400):
        await asyncio.gather(*(one.quota.round() for one in chance.sample(processes, 3)))
        for one in chance.sample(processes, 2):
            one.use(chance.randrange(6))
        clock.now += chance.random()

    used = sum((one.used for one in processes), Counter[str]())
    assert used == {key.id: 50 for key in keys}
    assert await granted(database, keys) == [50] * 4
    assert all(one.use(1) == 0 for one in processes)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    limit=st.integers(1, 60),
    count=st.integers(1, 4),
    demands=st.lists(st.integers(0, 20), min_size=2, max_size=4),
    seed=st.integers(0, 999),
)
def test_no_process_that_has_need_is_idle_while_another_has_some_to_spare(
    services: Mapping[str, str], limit: int, count: int, demands: list[int], seed: int
) -> None:
    async def run() -> None:
        db = Database(DatabaseSettings(url=SecretStr(services["DATABASE_URL"])), pool_size=4, name="quota")
        try:
            clock = Clock()
            keys = await keys_in(db, count)
            processes = [Process(db, keys, limit, clock) for _ in demands]
            await asyncio.gather(*(one.quota.round() for one in processes))
            chance = random.Random(seed)
            wanting = [*demands]
            wanting[seed % len(wanting)] = max(1, wanting[seed % len(wanting)])
            for _ in range(200):
                for one, demand in zip(processes, wanting, strict=True):
                    one.use(demand)
                assert sum(sum(one.used.values()) for one in processes) <= limit * count
                clock.now += chance.choice([0.02, 0.5, 1.0])
                await asyncio.gather(*(one.quota.round() for one in processes))
                if sum(sum(one.used.values()) for one in processes) == limit * count:
                    break

            used = sum((one.used for one in processes), Counter[str]())
            assert used == {key.id: limit for key in keys}
        finally:
            await db.close()

    asyncio.run(run())


async def test_who_needs_nothing_gives_back_what_is_scarce(database: Database, clock: Clock) -> None:
    keys = await keys_in(database, 2)
    idle, busy = Process(database, keys, 100, clock), Process(database, keys, 100, clock)
    await idle.quota.round()
    assert idle.left > 50

    made = 0
    for _ in range(60):
        made += busy.use(20)
        clock.now += 1
        await busy.quota.round()
        await idle.quota.round()

    assert made == 200
    assert idle.left == 0


async def test_a_process_that_is_killed_keeps_what_it_had(database: Database, clock: Clock) -> None:
    keys = await keys_in(database, 1)
    killed, living = Process(database, keys, 100, clock), Process(database, keys, 100, clock)
    await killed.quota.round()
    killed.use(10)
    lost = killed.left

    made = 0
    for _ in range(60):
        made += living.use(50)
        clock.now += 1
        await living.quota.round()

    assert lost > 0
    assert 10 + lost + made == 100


async def test_a_process_that_ends_well_gives_back_what_it_did_not_use(
    database: Database, clock: Clock
) -> None:
    clock.now = (TODAY + 1) * DAY - BEFORE_MIDNIGHT / 2
    keys = await keys_in(database, 2)
    process = Process(database, keys, 100, clock)
    await process.quota.start()
    process.use(5)
    assert sum(await granted(database, keys, TODAY + 1)) > 0

    await process.quota.close()

    assert sum(await granted(database, keys)) == 5
    assert await granted(database, keys, TODAY + 1) == [0, 0]
    assert process.use(1) == 0


async def test_midnight_finds_tomorrows_slices_there(database: Database, clock: Clock) -> None:
    keys = await keys_in(database, 2)
    process = Process(database, keys, 40, clock)
    for _ in range(30):
        await process.quota.round()
        process.use(10)
        clock.now += 1
    assert process.use(1) == 0
    clock.now = (TODAY + 1) * DAY - BEFORE_MIDNIGHT / 2
    await process.quota.round()
    assert process.use(1) == 0

    clock.now = (TODAY + 1) * DAY
    assert process.use(10) == 10
    assert all(0 < one <= 40 for one in await granted(database, keys, TODAY + 1))


async def test_several_processes_do_not_pass_tomorrows_limit_either(database: Database, clock: Clock) -> None:
    clock.now = (TODAY + 1) * DAY - 30
    keys = await keys_in(database, 2)
    processes = [Process(database, keys, 30, clock) for _ in range(4)]
    for _ in range(90):
        await asyncio.gather(*(one.quota.round() for one in processes))
        for one in processes:
            one.use(2)
        clock.now += 1

    used = sum((one.used for one in processes), Counter[str]())
    assert used == {key.id: 2 * 30 for key in keys}


async def test_new_keys_have_quota_before_they_are_the_pools(database: Database, clock: Clock) -> None:
    old, new = await keys_in(database, 3), await keys_in(database, 3)
    process = Process(database, old, 1000, clock)
    await process.quota.round()

    await process.quota.prepare(process.pool, [*old[:1], *new])
    process.pool.replace([*old[:1], *new])

    assert process.use(40) == 40
    assert {key.id for key in new} <= set(process.used)
    assert all(one > 0 for one in await granted(database, new))


async def test_preparing_twice_takes_no_second_slice(database: Database, clock: Clock) -> None:
    new = await keys_in(database, 1)
    process = Process(database, [], 1000, clock)
    await process.quota.prepare(process.pool, new)
    first = await granted(database, new)
    await process.quota.prepare(process.pool, new)

    assert await granted(database, new) == first


async def test_keys_without_a_limit_need_no_database(clock: Clock, database: Database) -> None:
    keys = await keys_in(database, 1)
    process = Process(database, keys, None, clock)
    await process.quota.round()

    assert process.use(500) == 500
    assert await granted(database, keys) == [0]


async def test_a_key_that_the_ledger_does_not_know_has_no_quota_until_it_does(
    database: Database, clock: Clock
) -> None:
    secret = SecretKey(f"sk-{new_id().hex}")
    unknown = [PooledKey(secret.fingerprint(b"test", "groq"), secret.hint, secret)]
    process = Process(database, unknown, 100, clock)
    await process.quota.round()
    assert process.use(1) == 0

    await Ledger(database).know(f"p{new_id().hex}", "file", unknown)
    await process.quota.round()
    assert process.use(1) == 1


async def test_need_is_seen_to_at_once_and_not_at_the_next_round(database: Database) -> None:
    clock = Clock()
    keys = await keys_in(database, 2)
    process = Process(database, keys, 200, clock)
    await process.quota.start()
    try:
        made = 0
        loop = asyncio.get_running_loop()
        began = loop.time()
        while made < 400 and loop.time() - began < 20:
            made += process.use(1)
            await asyncio.sleep(0.001)
        assert made == 400
        assert process.use(1) == 0
    finally:
        await process.quota.close()


async def test_processes_that_run_side_by_side_use_up_the_day_to_the_last_request(
    services: Mapping[str, str], database: Database
) -> None:
    began = time.monotonic()

    def clock() -> float:
        return NOON + time.monotonic() - began

    keys = await keys_in(database, 3)
    settings = DatabaseSettings(url=SecretStr(services["DATABASE_URL"]))
    databases = [Database(settings, pool_size=2, name=f"quota {number}") for number in range(4)]
    processes = [Process(db, keys, 120, clock) for db in databases]
    try:
        await asyncio.gather(*(one.quota.start() for one in processes))

        async def hammer(process: Process, seconds: float) -> None:
            while sum(sum(one.used.values()) for one in processes) < 360 and clock() < NOON + 60:
                process.use(1)
                await asyncio.sleep(seconds)

        await asyncio.gather(*(hammer(one, 0.002 * 3**place) for place, one in enumerate(processes[:3])))

        assert sum((one.used for one in processes), Counter[str]()) == {key.id: 120 for key in keys}
        assert all(one.use(1) == 0 for one in processes)
    finally:
        await asyncio.gather(*(one.quota.close() for one in processes))
        await asyncio.gather(*(one.close() for one in databases))


async def test_a_lowered_limit_grants_nothing_more(database: Database, clock: Clock) -> None:
    keys = await keys_in(database, 1)
    before = Process(database, keys, 1000, clock)
    await before.quota.round()
    used = before.use(300)
    after = Process(database, keys, 100, clock)
    await after.quota.round()

    assert used == 300
    assert after.use(1) == 0


# The database away -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnDatabase]:
    database = OwnDatabase(tmp_path_factory.mktemp("pg"))
    yield database
    database.stop()


@pytest_asyncio.fixture
async def fragile(own: OwnDatabase) -> AsyncIterator[Database]:
    settings = DatabaseSettings(url=SecretStr(own.url), checkout_timeout=1)
    opened = Database(settings, pool_size=2, name="quota away")
    yield opened
    await opened.close()


async def test_what_is_granted_goes_on_being_used_while_the_database_is_away(
    own: OwnDatabase, fragile: Database
) -> None:
    clock = Clock()
    keys = await keys_in(fragile, 2)
    process = Process(fragile, keys, 200, clock)
    await process.quota.start()
    there = process.left
    own.freeze()
    try:
        process.quota.wake()
        await asyncio.sleep(0.2)
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert process.use(there + 10) == there
        assert loop.time() - began < 1
        with pytest.raises(DatabaseUnavailable):
            await process.quota.prepare(process.pool, await _unheard_of())
    finally:
        own.thaw()
    async with asyncio.timeout(30):
        while process.use(1) == 0:
            await asyncio.sleep(0.05)
    process.use(1000)
    await process.quota.close()
    assert all(one <= 200 for one in await granted(fragile, keys))


async def test_a_process_that_starts_without_a_database_says_so(own: OwnDatabase, fragile: Database) -> None:
    keys = await keys_in(fragile, 1)
    process = Process(fragile, keys, 100, Clock())
    own.freeze()
    try:
        with pytest.raises(DatabaseUnavailable):
            await process.quota.start()
    finally:
        own.thaw()
    await process.quota.start()
    await process.quota.close()
    assert process.left == 0


async def _unheard_of() -> list[PooledKey]:
    secret = SecretKey(f"sk-{new_id().hex}")
    return [PooledKey(secret.fingerprint(b"test", "groq"), secret.hint, secret)]


def test_the_figures_fit_together() -> None:
    assert CALM < AHEAD < BEFORE_MIDNIGHT
