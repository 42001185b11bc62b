"""What one request waits for the database, it waits once, for everything that it asks of it."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping

import pytest
import pytest_asyncio
from pydantic import SecretStr
from sqlalchemy import text

from baatcheet.platform import patience
from baatcheet.platform.database import Database, DatabaseUnavailable
from baatcheet.platform.settings import DatabaseSettings

LIMIT = 1.0  # seconds, for a request in all
SLOW = 0.7  # … that one unit of work takes
SLACK = 3.0  # seconds: these machines are slow


@pytest_asyncio.fixture
async def db(services: Mapping[str, str]) -> AsyncIterator[Database]:
    settings = DatabaseSettings(url=SecretStr(services["DATABASE_URL"]), checkout_timeout=LIMIT)
    opened = Database(settings, pool_size=3, name="patience")
    await work(opened, 0)
    yield opened
    await opened.close()


async def work(db: Database, seconds: float, *, limit: float | None = None) -> None:
    async with db.system(limit=limit) as session:
        await session.execute(text("SELECT pg_sleep(:seconds)"), {"seconds": seconds})


async def test_the_units_of_work_of_a_request_share_its_patience(db: Database) -> None:
    began = time.monotonic()
    with patience.one_request():
        await work(db, SLOW)
        with pytest.raises(DatabaseUnavailable):
            await work(db, SLOW)
        used = time.monotonic() - began
        with pytest.raises(DatabaseUnavailable):
            await work(db, 0)
        # Nobody is kept waiting for being told so.
        assert time.monotonic() - began - used < LIMIT / 2
    assert used < LIMIT + SLACK
    await work(db, SLOW)
    await work(db, SLOW)


async def test_two_requests_do_not_share_theirs(db: Database) -> None:
    async def request() -> None:
        with patience.one_request():
            await work(db, SLOW)

    await request()
    await asyncio.gather(request(), request())


async def test_nothing_is_counted_once_the_answer_has_begun(db: Database) -> None:
    with patience.one_request() as account:
        await work(db, SLOW)
        account.closed = True
        await work(db, SLOW)


async def test_what_is_done_for_several_requests_is_not_counted(db: Database) -> None:
    with patience.one_request():
        with patience.of_nobody():
            await work(db, SLOW)
        await work(db, SLOW)


async def test_a_task_of_a_request_shares_its_patience(db: Database) -> None:
    with patience.one_request():
        await asyncio.create_task(work(db, SLOW))
        with pytest.raises(DatabaseUnavailable):
            await asyncio.create_task(work(db, SLOW))


async def test_waiting_for_what_others_do_is_counted_and_ends_in_time(db: Database) -> None:
    with patience.one_request():
        await work(db, SLOW)
        with pytest.raises(TimeoutError):
            async with patience.within(LIMIT):
                await asyncio.Event().wait()
        assert patience.left(LIMIT) == 0


async def test_work_that_is_known_to_be_long_is_given_the_time(db: Database) -> None:
    with patience.one_request():
        await work(db, 1.5 * LIMIT, limit=20)
