"""The ring: what the stores hold is what every process serves, soon, and a store that is away takes nothing with it."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio
from pydantic import SecretStr

from baatcheet.keys.audit import SYSTEM
from baatcheet.keys.pools import Pools
from baatcheet.keys.ring import KeyRing
from baatcheet.keys.secret import SecretKey
from baatcheet.keys.stores.model import KeySet, SecretStore, StoreMalformed, StoreUnavailable
from baatcheet.platform.database import Database, DatabaseUnavailable, connect
from baatcheet.platform.redaction import redact
from baatcheet.platform.settings import DatabaseSettings, SettingsError
from tests.keys.memory_store import MemoryStore
from tests.servers import past_bouncer

PROVIDERS = ("groq", "openai", "lab")


def key(number: int) -> str:
    return f"gsk_{number:02}QxWmTzRkLpVbNsJd7Fh3Gy5Cw9Ae1"


@pytest.fixture
def own_database(migrated_database: str) -> str:
    return migrated_database


NewRing = Callable[..., Awaitable[KeyRing]]


@pytest_asyncio.fixture
async def new_ring(own_database: str) -> AsyncIterator[NewRing]:
    """A process's ring, each with a database pool of its own."""
    async with AsyncExitStack() as stack:

        async def make(*stores: SecretStore, notices: bool = True, **options: Any) -> KeyRing:
            db = Database(DatabaseSettings(url=SecretStr(own_database)), pool_size=2, name="ring tests")
            stack.push_async_callback(db.close)
            ring = KeyRing(
                db,
                stores,
                PROVIDERS,
                Pools(),
                connect=(lambda: connect(past_bouncer(own_database))) if notices else None,
                **options,
            )
            stack.push_async_callback(ring.close)
            await ring.start()
            return ring

        yield make


async def eventually(true: Callable[[], bool], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.02)


def served(ring: KeyRing, provider: str = "groq") -> list[str]:
    return [one.reveal() for one in ring.current(provider)]


async def test_a_providers_keys_come_from_the_first_store_that_has_any(new_ring: NewRing) -> None:
    first, second = MemoryStore("vault"), MemoryStore("file")
    first.put("groq", [key(1), key(2)])
    second.put("groq", [key(3)])
    second.put("lab", [key(4)])
    ring = await new_ring(first, second)
    assert served(ring) == [key(1), key(2)]
    assert served(ring, "lab") == [key(4)]
    assert ring.store_of("groq") is first
    assert ring.store_of("lab") is second
    assert ring.store_of("openai") is None
    assert len(ring.pool("groq")) == 2


async def test_what_is_served_is_taken_out_of_text(new_ring: NewRing) -> None:
    store = MemoryStore("vault")
    store.put("groq", [key(7)])
    await new_ring(store)
    assert key(7) not in redact(f"a provider said: bad key {key(7)}!")


async def test_a_store_that_is_down_at_the_start_stops_it_with_its_name(new_ring: NewRing) -> None:
    store = MemoryStore("vault")
    store.failure = StoreUnavailable(
        "vault", "secret/data/baatcheet/api-keys: can't be reached. Check VAULT_ADDR."
    )
    with pytest.raises(SettingsError, match="vault: secret/data/baatcheet/api-keys"):
        await new_ring(store)


async def test_a_store_that_goes_away_later_takes_nothing_with_it(new_ring: NewRing) -> None:
    store = MemoryStore("vault")
    store.put("groq", [key(1)])
    ring = await new_ring(store)
    store.failure = StoreUnavailable("vault", "can't be reached")
    await ring.refresh()
    assert served(ring) == [key(1)]
    store.failure = None
    store.put("groq", [key(2)])
    await ring.refresh()
    assert served(ring) == [key(2)]


@pytest.mark.parametrize("notices", [True, False])
async def test_a_change_that_one_process_finds_is_served_by_all_within_five_seconds(
    new_ring: NewRing, notices: bool
) -> None:
    store = MemoryStore("vault")
    store.put("groq", [key(1)])
    rings = [await new_ring(store, notices=notices) for _ in range(4)]
    store.put("groq", [key(2), key(3)])
    await rings[0].refresh()
    await eventually(lambda: all(served(ring) == [key(2), key(3)] for ring in rings))
    assert [state.hint for state in rings[3].pool("groq").states()] == [
        SecretKey(key(n)).hint for n in (2, 3)
    ]


async def test_a_change_is_found_in_the_background_too(new_ring: NewRing) -> None:
    store = MemoryStore("vault")
    store.put("groq", [key(1)])
    ring = await new_ring(store, refresh_seconds=0.2)
    store.put("groq", [key(2)])
    await eventually(lambda: served(ring) == [key(2)])


async def test_every_process_says_which_change_it_serves(new_ring: NewRing, own_database: str) -> None:
    store = MemoryStore("vault")
    store.put("groq", [key(1)])
    rings = [await new_ring(store) for _ in range(2)]
    connection = await connect(own_database)
    try:

        async def serves() -> set[int]:
            rows = await connection.fetch("SELECT sets FROM key_watchers")
            assert len(rows) == 2
            return {row[0] for row in rows}

        before = max(await serves())
        store.put("groq", [key(2)])
        await rings[1].refresh()
        async with asyncio.timeout(5):
            while min(await serves()) <= before:
                await asyncio.sleep(0.02)
        await rings[0].close()
        rows = await connection.fetch("SELECT process FROM key_watchers")
        assert [row[0] for row in rows] == [rings[1].process]
    finally:
        await connection.close()


async def test_a_key_that_one_process_finds_refused_is_used_by_no_other(new_ring: NewRing) -> None:
    store = MemoryStore("vault")
    store.put("groq", [key(1), key(2)])
    first, second = [await new_ring(store) for _ in range(2)]
    first.pool("groq").quarantine(first.pool("groq").states()[0].id, "Invalid API key")
    await eventually(lambda: second.pool("groq").states()[0].state == "quarantined")
    assert second.pool("groq").states()[0].reason == "Invalid API key"
    # It is remembered, too.
    third = await new_ring(store)
    assert [one.state for one in third.pool("groq").states()] == ["quarantined", "active"]


async def test_two_providers_may_have_the_same_word_for_a_key(new_ring: NewRing) -> None:
    store = MemoryStore("vault")
    store.put("lab", ["EMPTY"])
    store.put("openai", ["EMPTY"])
    ring = await new_ring(store)
    lab, openai = ring.pool("lab").states()[0], ring.pool("openai").states()[0]
    assert lab.id != openai.id
    ring.pool("lab").quarantine(lab.id, "refused")
    assert ring.pool("openai").states()[0].state == "active"


async def test_no_row_holds_a_key(new_ring: NewRing, own_database: str) -> None:
    store = MemoryStore("vault")
    store.put("groq", [key(1)])
    ring = await new_ring(store)
    lease = ring.pool("groq").pick()
    lease.failed("unauthorized", status=401, retry_after=None, message="Invalid API key")
    await ring.close()
    connection = await connect(own_database)
    try:
        tables = [
            row[0]
            for row in await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        ]
        for table in tables:
            for row in await connection.fetch(f"SELECT t::text FROM {table} t"):
                assert key(1)[4:16] not in row[0], table
    finally:
        await connection.close()


async def test_what_is_read_from_a_store_is_not_changed_by_a_failing_part(new_ring: NewRing) -> None:
    class Odd(MemoryStore):
        async def fetch(self, providers: Sequence[str]) -> Mapping[str, KeySet]:
            if self.odd:
                raise RuntimeError("a fault in the store's own code")
            return await super().fetch(providers)

        odd = False

    store = Odd("vault")
    store.put("groq", [key(1)])
    ring = await new_ring(store, refresh_seconds=0.1)
    store.odd = True
    await asyncio.sleep(0.5)
    assert served(ring) == [key(1)]
    store.odd = False
    store.put("groq", [key(2)])
    await eventually(lambda: served(ring) == [key(2)])


async def test_no_key_is_told_from_another_before_the_database_has_said_what_ids_are_made_with(
    own_database: str,
) -> None:
    nowhere = "postgresql://nobody@127.0.0.1:9/nothing"
    db = Database(
        DatabaseSettings(url=SecretStr(nowhere), checkout_timeout=1), pool_size=2, name="ring tests"
    )
    store = MemoryStore("vault")
    store.put("groq", [key(1)])
    ring = KeyRing(db, [store], PROVIDERS, Pools())
    try:
        await ring.start()
        assert served(ring) == [key(1)], "the keys are served all the same"
        with pytest.raises(DatabaseUnavailable):
            ring.fingerprint("groq", SecretKey(key(1)))
    finally:
        await ring.close()
        await db.close()


async def test_a_process_that_could_not_read_a_store_does_not_say_that_it_serves_the_change(
    new_ring: NewRing, own_database: str
) -> None:
    good, bad = MemoryStore("vault"), MemoryStore("vault")
    for store in (good, bad):
        store.put("groq", [key(1)])
    first, second = await new_ring(good), await new_ring(bad)
    bad.failure = StoreUnavailable("vault", "can't be reached")
    for store in (good, bad):
        store.put("groq", [key(2)])
    connection = await connect(own_database)
    try:
        before = await connection.fetchval("SELECT sets FROM key_changes")
        await first.refresh()
        told = await connection.fetchval("SELECT sets FROM key_changes")
        assert told > before
        async with asyncio.timeout(10):
            while await watcher(connection, first, "sets") < told:
                await asyncio.sleep(0.05)
        await asyncio.sleep(2)
        assert await watcher(connection, second, "sets") < told
        held = json.loads(await watcher(connection, second, "holds"))
        assert held == [second.fingerprint("groq", SecretKey(key(1)))]
        bad.failure = None
        async with asyncio.timeout(10):
            while await watcher(connection, second, "sets") < told:
                await asyncio.sleep(0.05)
        assert served(second) == [key(2)]
    finally:
        await connection.close()


async def watcher(connection: Any, ring: KeyRing, column: str) -> Any:
    return await connection.fetchval(f"SELECT {column} FROM key_watchers WHERE process = $1", ring.process)


async def test_a_process_whose_store_is_slow_is_seen_to_live(new_ring: NewRing, own_database: str) -> None:
    class Slow(MemoryStore):
        slow = False

        async def fetch(self, providers: Sequence[str]) -> Mapping[str, KeySet]:
            if self.slow:
                await asyncio.sleep(30)
            return await super().fetch(providers)

    store = Slow("vault")
    store.put("groq", [key(1)])
    ring = await new_ring(store)
    connection = await connect(own_database)
    try:
        store.slow = True
        await connection.execute("UPDATE key_changes SET sets = sets + 1")
        await asyncio.sleep(3)
        before = await watcher(connection, ring, "seen_at")
        async with asyncio.timeout(5):
            while await watcher(connection, ring, "seen_at") == before:
                await asyncio.sleep(0.1)
    finally:
        store.slow = False
        await connection.close()


async def test_one_providers_unreadable_secret_takes_nothing_from_the_others(new_ring: NewRing) -> None:
    class Partly(MemoryStore):
        spoilt = False

        async def fetch(self, providers: Sequence[str]) -> Mapping[str, KeySet]:
            found = dict(await super().fetch(providers))
            if self.spoilt:
                del found["lab"]
                raise StoreMalformed("vault", "lab: is not a list of keys", found)
            return found

    store = Partly("vault")
    store.put("groq", [key(1)])
    store.put("lab", [key(2)])
    ring = await new_ring(store)
    store.spoilt = True
    store.put("groq", [key(3)])
    await ring.refresh()
    assert served(ring) == [key(3)]
    assert served(ring, "lab") == [key(2)]


async def test_a_quarantined_key_that_comes_back_is_never_handed_out(new_ring: NewRing) -> None:
    store = MemoryStore("vault")
    store.put("groq", [key(1), key(2)])
    ring = await new_ring(store)
    leaked = ring.pool("groq").states()[0].id
    await ring.ledger.quarantine(leaked, "it leaked", SYSTEM)
    await eventually(lambda: ring.pool("groq").states()[0].state == "quarantined")
    store.put("groq", [key(2)])
    await ring.refresh()
    store.put("groq", [key(1), key(2)])
    await ring.refresh()
    assert [one.state for one in ring.pool("groq").states()] == ["quarantined", "active"]
    assert {ring.pool("groq").pick().key for _ in range(10)} == {SecretKey(key(2))}


async def one_command(own_database: str, *stores: SecretStore) -> KeyRing:
    db = Database(DatabaseSettings(url=SecretStr(own_database)), pool_size=2, name="ring tests")
    ring = KeyRing(db, stores, PROVIDERS, Pools())
    try:
        await ring.start(serving=False)
    finally:
        await ring.close()
        await db.close()
    return ring


async def test_a_command_in_another_environment_does_not_say_which_keys_are_served(
    new_ring: NewRing, own_database: str
) -> None:
    ours, theirs = MemoryStore("vault"), MemoryStore("environment")
    ours.put("groq", [key(1)])
    theirs.put("groq", [key(9)])
    ring = await new_ring(ours)
    before = await ring.ledger.states(retired=True)
    assert served(await one_command(own_database, theirs)) == [key(9)]
    assert (await ring.ledger.states(retired=True)).keys() == before.keys()
    assert [one.state for one in (await ring.ledger.states()).values()] == ["active"]


async def test_a_command_whose_first_store_is_away_retires_no_key_for_the_second_ones(
    new_ring: NewRing, own_database: str
) -> None:
    vault, file = MemoryStore("vault"), MemoryStore("file")
    vault.put("groq", [key(1)])
    file.put("groq", [key(2)])
    ring = await new_ring(vault, file)
    await ring.close()
    vault.failure = StoreUnavailable("vault", "can't be reached")
    command = await one_command(own_database, vault, file)
    assert command.failing == {"vault": "vault: can't be reached"}
    (state,) = (await ring.ledger.states()).values()
    assert (state.hint, state.store) == (SecretKey(key(1)).hint, "vault")


async def test_a_command_says_which_keys_there_are_where_nobody_serves(
    own_database: str, new_ring: NewRing
) -> None:
    store = MemoryStore("file")
    store.put("groq", [key(1)])
    await one_command(own_database, store)
    ring = await new_ring(store)
    assert [one.hint for one in (await ring.ledger.states()).values()] == [SecretKey(key(1)).hint]
