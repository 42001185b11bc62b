"""What was recorded is relayed once, in order, whatever its subscribers do."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from baatcheet.events.catalogue import UnknownEventType
from baatcheet.events.model import Event
from baatcheet.events.outbox import record
from baatcheet.events.relay import Relay, TooMuch
from baatcheet.platform.database import Database
from baatcheet.platform.telemetry import Metrics
from tests.events.conftest import add_user, numbers_of, tell, waiting


class Effects:
    """A subscriber that writes a notice of each event, in the relay's transaction, and refuses some."""

    def __init__(self, name: str = "effects", *, bad: Sequence[int] = (), failures: int = 0) -> None:
        self.name = name
        self.bad = set(bad)
        self.failures = failures
        self.batches: list[list[int]] = []

    async def __call__(self, session: AsyncSession, events: Sequence[Event]) -> None:
        numbers = [event.data["number"] for event in events]
        self.batches.append(numbers)
        if self.failures:
            self.failures -= 1
            raise ConnectionAbortedError if self.failures % 2 else ValueError("not now")
        for event in events:
            await session.execute(
                text("INSERT INTO effects (name) VALUES (:name)"),
                {"name": f"{self.name}:{event.id}"},
            )
            if event.data["number"] in self.bad:
                raise ValueError(f"{event.data['number']} is bad")

    async def seen(self, db: Database) -> set[UUID]:
        async with db.system() as session:
            found = await session.scalars(
                text("SELECT split_part(name, ':', 2)::uuid FROM effects WHERE name LIKE :mine"),
                {"mine": f"{self.name}:%"},
            )
            return set(found)


async def ids_of(db: Database, user: UUID) -> list[UUID]:
    async with db.system() as session:
        found = await session.scalars(
            text("SELECT id FROM events WHERE user_id = :user ORDER BY seq"), {"user": user}
        )
        return list(found)


async def drain(relay: Relay) -> None:
    """Relay until nothing is left; what fails is tried again."""
    for _ in range(200):
        try:
            if not await relay.relay():
                return
        except Exception:  # noqa: BLE001 - as `run` does
            continue
    raise AssertionError("the relay does not come to an end")


async def test_an_event_exists_if_its_transaction_commits_and_only_then(db: Database) -> None:
    user = await add_user(db)
    await tell(db, user, 1)
    with suppress(ZeroDivisionError):
        async with db.system() as session:
            await record(session, "job.updated", {"number": 2}, user=user)
            raise ZeroDivisionError
    assert await Relay(db).relay() == 1
    assert await numbers_of(db, user) == [1]
    assert await waiting(db) == 0


async def test_a_tenant_may_tell_of_its_own_and_of_nobody_elses(db: Database) -> None:
    alice, bob = await add_user(db), await add_user(db)
    async with db.tenant(alice) as session:
        await record(session, "job.updated", {"number": 1, "at": alice}, user=alice)
    for other in (bob, None):
        with pytest.raises(Exception, match="row-level security"):
            async with db.tenant(alice) as session:
                await record(session, "job.updated", {"number": 2}, user=other)
    await Relay(db).relay()
    async with db.tenant(bob) as session:
        assert (await session.execute(text("SELECT * FROM events"))).all() == []
    async with db.tenant(alice) as session:
        assert await session.scalar(text("SELECT data ->> 'at' FROM events")) == str(alice)
        with pytest.raises(Exception, match="permission denied"):
            await session.execute(text("SELECT * FROM outbox"))


async def test_a_type_that_nobody_has_declared_is_refused(db: Database) -> None:
    async with db.system() as session:
        with pytest.raises(UnknownEventType, match="catalogue"):
            await record(session, "tea.ready", {}, user=None)
        with pytest.raises(ValueError, match="administrators"):
            await record(session, "key.rotated", {}, user=uuid4())


async def test_what_postgresql_can_not_store_in_a_text_is_replaced(db: Database) -> None:
    user = await add_user(db)
    async with db.system() as session:
        await record(session, "job.updated", {"number": 1, "error": ["a\0b", "\ud800"]}, user=user)
    seen: list[Event] = []

    async def look(_session: AsyncSession, events: Sequence[Event]) -> None:
        seen.extend(events)

    await Relay(db, {"look": look}).relay()
    (event,) = seen
    assert event.data["error"] == ["a\ufffdb", "\ufffd"]
    assert event.envelope()["type"] == "job.updated"
    assert event.envelope()["timestamp"].endswith("Z")


async def test_events_are_numbered_in_the_order_of_their_recording(db: Database) -> None:
    user = await add_user(db)
    await tell(db, user, *range(1200))
    relay = Relay(db, slow_seconds=60)
    assert [await relay.relay() for _ in range(4)] == [500, 500, 200, 0]
    assert await numbers_of(db, user) == list(range(1200))


async def test_events_of_a_user_who_is_gone_are_dropped(db: Database) -> None:
    gone, here = await add_user(db), await add_user(db)
    await tell(db, gone, 1)
    await tell(db, here, 2)
    await tell(db, None, 3)
    async with db.system() as session:
        await session.execute(text("DELETE FROM users WHERE id = :id"), {"id": gone})
    assert await Relay(db).relay() == 3
    assert await numbers_of(db, gone) == []
    assert await numbers_of(db, here) == [2]
    assert await numbers_of(db, None) == [3]


async def test_a_row_that_commits_late_is_relayed_all_the_same(db: Database) -> None:
    user = await add_user(db)
    relay = Relay(db)
    async with db.system() as session:
        await record(session, "job.updated", {"number": 1}, user=user)
        await tell(db, user, 2)
        assert await relay.relay() == 1
        assert await numbers_of(db, user) == [2]
    assert await relay.relay() == 1
    assert await numbers_of(db, user) == [2, 1]


async def test_one_relays_at_a_time(db: Database) -> None:
    user = await add_user(db)
    await tell(db, user, 1)
    inside, leave = asyncio.Event(), asyncio.Event()

    async def slow(_session: AsyncSession, _events: Sequence[Event]) -> None:
        inside.set()
        await leave.wait()

    first = asyncio.create_task(Relay(db, {"slow": slow}).relay())
    await inside.wait()
    await tell(db, user, 2)
    assert await Relay(db).relay() == 0
    leave.set()
    assert await first == 1
    assert await Relay(db).relay() == 1
    assert await numbers_of(db, user) == [1, 2]


async def test_subscribers_write_in_the_transaction_of_the_relay(db: Database) -> None:
    user = await add_user(db)
    await tell(db, user, *range(10))
    one, other = Effects("one"), Effects("other", failures=1)
    relay = Relay(db, {"one": one, "other": other})
    with pytest.raises(ValueError, match="not now"):
        await relay.relay()
    assert await one.seen(db) == set()
    assert await ids_of(db, user) == []
    assert await waiting(db) == 10
    assert await relay.relay() == 10
    ids = await ids_of(db, user)
    assert await one.seen(db) == await other.seen(db) == set(ids)


async def test_a_bad_event_is_put_aside_and_holds_up_no_other(db: Database) -> None:
    user = await add_user(db)
    await tell(db, user, *range(50))
    picky, easy = Effects("picky", bad=[0, 17, 49]), Effects("easy")
    relay = Relay(db, {"picky": picky, "easy": easy})
    await drain(relay)
    ids = await ids_of(db, user)
    assert await numbers_of(db, user) == list(range(50))
    assert await easy.seen(db) == set(ids)
    assert await picky.seen(db) == {id_ for number, id_ in enumerate(ids) if number not in picky.bad}
    async with db.system() as session:
        marked = await session.execute(
            text("SELECT (data ->> 'number')::int AS n, poisoned FROM events WHERE poisoned IS NOT NULL")
        )
        assert {row.n: row.poisoned for row in marked} == {
            n: {"picky": f"ValueError: {n} is bad"} for n in (0, 17, 49)
        }
    # Half of it mended: what is taken now is no longer marked.
    picky.bad = {17}
    assert await relay.retry_poisoned() == 2
    assert await picky.seen(db) == {id_ for number, id_ in enumerate(ids) if number != 17}
    picky.bad = set()
    assert await relay.retry_poisoned() == 1
    assert await relay.retry_poisoned() == 0
    assert await picky.seen(db) == set(ids)


async def test_a_subscriber_that_hangs_stops_the_stream_for_a_while_only(db: Database) -> None:
    user = await add_user(db)
    await tell(db, user, *range(20))
    heard, patient = Effects("heard"), Effects("patient")

    async def hangs(session: AsyncSession, events: Sequence[Event]) -> None:
        if any(event.data["number"] == 7 for event in events):
            await session.execute(text("SELECT pg_sleep(30)"))
        await heard(session, events)

    await drain(Relay(db, {"hangs": hangs, "patient": patient}, hand_seconds=0.8))
    ids = await ids_of(db, user)
    assert await numbers_of(db, user) == list(range(20))
    assert await patient.seen(db) == set(ids)
    assert await heard.seen(db) == set(ids) - {ids[7]}


async def test_a_subscriber_whose_every_event_fails_does_not_hold_up_the_stream(db: Database) -> None:
    user = await add_user(db)
    await tell(db, user, *range(700))

    async def broken(_session: AsyncSession, _events: Sequence[Event]) -> None:
        raise KeyError("a defect")

    async with asyncio.timeout(20):
        await drain(Relay(db, {"broken": broken}))
    assert await numbers_of(db, user) == list(range(700))
    async with db.system() as session:
        assert await session.scalar(text("SELECT count(*) FROM events WHERE poisoned IS NOT NULL")) == 700


async def test_a_subscriber_that_leaves_its_transaction_broken_is_put_aside_too(db: Database) -> None:
    user = await add_user(db)
    await tell(db, user, *range(5))

    async def careless(session: AsyncSession, events: Sequence[Event]) -> None:
        if any(event.data["number"] == 3 for event in events):
            with suppress(Exception):
                await session.execute(text("SELECT 1 / 0"))

    await drain(Relay(db, {"careless": careless}))
    assert await numbers_of(db, user) == list(range(5))
    async with db.system() as session:
        poisoned = await session.scalars(
            text("SELECT (data ->> 'number')::int FROM events WHERE poisoned IS NOT NULL")
        )
        assert list(poisoned) == [3]


async def test_a_batch_is_smaller_after_a_failure_and_grows_back_by_a_quarter(db: Database) -> None:
    user = await add_user(db)
    await tell(db, user, *range(200))

    class Away(Effects):
        async def __call__(self, session: AsyncSession, events: Sequence[Event]) -> None:
            self.batches.append([event.data["number"] for event in events])
            if len(self.batches) == 1:
                raise TimeoutError

    away = Away()
    await drain(Relay(db, {"away": away}, batch=160, slow_seconds=60))
    assert [len(one) for one in away.batches] == [160, 40, 50, 62, 48]
    assert await numbers_of(db, user) == list(range(200))


async def test_a_batch_is_smaller_after_a_slow_one_and_never_tiny_for_that(db: Database) -> None:
    user = await add_user(db)
    await tell(db, user, *range(300))
    one = Effects()
    await drain(Relay(db, {"one": one}, batch=160, slow_seconds=0))
    assert [len(batch) for batch in one.batches] == [160, 80, 40, 20]  # what was left


async def test_a_batch_that_is_too_much_for_a_subscriber_is_taken_in_parts_at_once(db: Database) -> None:
    user = await add_user(db)
    await tell(db, user, *range(50))

    class Choosy(Effects):
        async def __call__(self, session: AsyncSession, events: Sequence[Event]) -> None:
            if len(events) > 20:
                raise TooMuch(20)
            await super().__call__(session, events)

    easy, choosy = Effects("unhurried"), Choosy("choosy")
    relay = Relay(db, {"unhurried": easy, "choosy": choosy}, slow_seconds=60)
    assert [await relay.relay() for _ in range(4)] == [20, 20, 10, 0]
    ids = await ids_of(db, user)
    assert await easy.seen(db) == await choosy.seen(db) == set(ids)
    assert await numbers_of(db, user) == list(range(50))


async def test_a_subscriber_that_finds_one_event_too_much_does_not_hold_up_the_stream(db: Database) -> None:
    user = await add_user(db)
    await tell(db, user, *range(3))

    async def never(_session: AsyncSession, _events: Sequence[Event]) -> None:
        raise TooMuch(0)

    await drain(Relay(db, {"never": never}))
    assert await numbers_of(db, user) == [0, 1, 2]
    async with db.system() as session:
        assert await session.scalar(text("SELECT count(*) FROM events WHERE poisoned IS NOT NULL")) == 3


async def test_what_was_put_aside_is_handed_over_again_by_itself(db: Database) -> None:
    user = await add_user(db)
    await tell(db, user, *range(5))
    mended = Effects("mended", bad=[1, 3])
    await drain(Relay(db, {"mended": mended}))
    assert len(await mended.seen(db)) == 3
    mended.bad = {3}
    running = asyncio.create_task(Relay(db, {"mended": mended}, retry_seconds=0.1).run())
    try:
        async with asyncio.timeout(10):  # at its start …
            while len(await mended.seen(db)) < 4:
                await asyncio.sleep(0.02)
        mended.bad = set()
        async with asyncio.timeout(10):  # … and again and again
            while len(await mended.seen(db)) < 5:
                await asyncio.sleep(0.02)
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
    async with db.system() as session:
        assert await session.scalar(text("SELECT count(*) FROM events WHERE poisoned IS NOT NULL")) == 0


async def test_an_event_at_which_a_subscriber_hangs_keeps_no_other_aside(db: Database) -> None:
    user = await add_user(db)
    await tell(db, user, *range(3))
    heard = Effects("listens", bad=[0, 1, 2])
    await drain(Relay(db, {"listens": heard}))
    heard.bad = set()

    async def hangs_at_first(session: AsyncSession, events: Sequence[Event]) -> None:
        if events[0].data["number"] == 0:
            await session.execute(text("SELECT pg_sleep(30)"))
        await heard(session, events)

    relay = Relay(db, {"listens": hangs_at_first}, hand_seconds=0.8)
    assert await relay.retry_poisoned() == 2
    ids = await ids_of(db, user)
    assert await heard.seen(db) == set(ids[1:])


async def test_the_relay_is_measured(db: Database) -> None:
    metrics = Metrics()
    user = await add_user(db)
    await tell(db, user, 1, 2)
    await asyncio.sleep(0.2)
    await Relay(db, metrics=metrics).relay()
    told = metrics.render().decode()
    assert "baatcheet_events_relayed_total 2.0" in told
    (lag,) = [line for line in told.splitlines() if line.startswith("baatcheet_event_relay_lag_seconds ")]
    assert 0.2 <= float(lag.split()[1]) < 10


async def test_it_relays_soon_by_itself_until_it_is_stopped(db: Database) -> None:
    user = await add_user(db)
    running = asyncio.create_task(Relay(db).run())
    try:
        for number in range(3):
            await tell(db, user, number)
            async with asyncio.timeout(5):
                while len(await numbers_of(db, user)) <= number:
                    await asyncio.sleep(0.02)
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
    assert await numbers_of(db, user) == [0, 1, 2]
