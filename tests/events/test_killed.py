"""Relaying processes that are killed anywhere: every event is relayed once, and follows from it once."""

import asyncio
import random
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from sqlalchemy import text

from baatcheet.events.relay import Relay
from baatcheet.platform.database import Database
from tests import zygote
from tests.conftest import ROOT
from tests.events.conftest import add_user, numbers_of, tell, waiting

KILLS = 20


class Relaying:
    """A process that relays."""

    def __init__(self, url: str, *how: str) -> None:
        self._command = ["-m", "tests.events.relaying", url, *how]
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        return zygote.popen(self._command, cwd=ROOT, stdout=subprocess.PIPE)

    async def until(self, word: str) -> None:
        """It says a word."""
        assert self._process.stdout is not None
        assert await asyncio.to_thread(self._process.stdout.readline) == f"{word}\n".encode()

    def kill(self) -> None:
        """End it as a power cut would."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def again(self) -> None:
        self._process = self._start()


@contextmanager
def relaying(url: str, count: int) -> Iterator[list[Relaying]]:
    processes = [Relaying(url) for _ in range(count)]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()


async def write(db: Database, user: UUID, stop: asyncio.Event) -> int:
    """Record events, some in transactions that end late or not at all, until it is to stop; how many there are."""
    number = 0
    while not stop.is_set():
        count = random.randint(1, 30)
        async with db.hot() as connection:
            await connection.execute(
                "INSERT INTO outbox (user_id, type, data) SELECT $1, 'job.updated', "
                "jsonb_build_object('number', n) FROM generate_series($2::int, $3::int) n",
                user,
                number,
                number + count - 1,
            )
        number += count
        await asyncio.sleep(0.01)
    return number


async def read(db: Database, user: UUID, stop: asyncio.Event) -> list[int]:
    """What a reader sees that remembers nothing but the last number it has seen."""
    seen: list[int] = []
    last = 0
    while True:
        over = stop.is_set()
        async with db.hot() as connection:
            rows = await connection.fetch(
                "SELECT seq, (data ->> 'number')::int FROM events WHERE user_id = $1 AND seq > $2 ORDER BY seq",
                user,
                last,
            )
        seen += [row[1] for row in rows]
        last = rows[-1][0] if rows else last
        if over:
            return seen
        await asyncio.sleep(0.003)


async def test_killed_anywhere_each_event_is_relayed_once(db: Database, events_url: str) -> None:
    user = await add_user(db)
    stop_writing, stop_reading = asyncio.Event(), asyncio.Event()
    chance = random.Random()
    with relaying(events_url, 3) as processes:
        await asyncio.gather(*(process.until("ready") for process in processes))
        writing = asyncio.create_task(write(db, user, stop_writing))
        reading = asyncio.create_task(read(db, user, stop_reading))
        for number in range(KILLS):
            await asyncio.sleep(chance.random() * 0.4)
            one = processes[number % len(processes)]
            await asyncio.to_thread(one.kill)
            one.again()
        stop_writing.set()
        count = await writing
        async with asyncio.timeout(60):
            while await waiting(db):
                await asyncio.sleep(0.05)
    while await Relay(db).relay():
        pass
    stop_reading.set()
    seen = await reading
    assert await numbers_of(db, user) == seen
    assert sorted(seen) == list(range(count))
    assert len(seen) == count
    async with db.system() as session:
        missing = await session.scalar(
            text(
                "SELECT count(*) FROM events e WHERE NOT EXISTS (SELECT FROM effects f WHERE f.name = e.id::text)"
            )
        )
        poisoned = await session.scalar(text("SELECT count(*) FROM events WHERE poisoned IS NOT NULL"))
    assert (missing, poisoned) == (0, 0)


async def test_one_that_freezes_with_the_events_in_its_hands_is_cut_off(
    db: Database, events_url: str
) -> None:
    user = await add_user(db)
    await tell(db, user, 1)
    frozen = Relaying(events_url, "freeze")
    try:
        await frozen.until("frozen")
        assert await Relay(db).relay() == 0
        async with asyncio.timeout(20):
            while not await Relay(db).relay():
                await asyncio.sleep(0.1)
    finally:
        frozen.kill()
    assert await numbers_of(db, user) == [1]
