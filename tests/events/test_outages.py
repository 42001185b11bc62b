"""A database that dies or freezes: streams stay open and go on, and the relay comes back by itself."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, suppress
from uuid import UUID

import pytest
import pytest_asyncio
from pydantic import SecretStr

from baatcheet.events.relay import Relay
from baatcheet.platform.database import Database, DatabaseUnavailable
from baatcheet.platform.settings import DatabaseSettings, Settings
from tests.events.application import serving
from tests.events.conftest import add_token, add_user, tell, tell_many
from tests.events.listening import listening
from tests.recovery.own_database import OwnDatabase


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnDatabase]:
    database = OwnDatabase(tmp_path_factory.mktemp("pg"))
    try:
        yield database
    finally:
        database.stop()


@pytest.fixture
def own_settings(settings: Settings, own: OwnDatabase) -> Settings:
    database = DatabaseSettings(url=SecretStr(own.url), checkout_timeout=1, connect_timeout=2)
    server = settings.server.model_copy(update={"keep_alive_seconds": 0.5})
    return settings.model_copy(update={"database": database, "server": server})


@pytest_asyncio.fixture(loop_scope="session")
async def db(own_settings: Settings) -> AsyncIterator[Database]:
    opened = Database(own_settings.database, pool_size=6, name="outages")
    yield opened
    await opened.close(patience=0.5)


@pytest_asyncio.fixture(loop_scope="session")
async def relaying(db: Database) -> AsyncIterator[None]:
    task = asyncio.create_task(Relay(db).run())
    yield
    assert not task.done()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def told(own: OwnDatabase, db: Database, user: UUID, number: int) -> None:
    """Record an event once the database is back."""
    async with asyncio.timeout(40):
        while True:
            try:
                return await tell(db, user, number)
            except DatabaseUnavailable:
                await asyncio.sleep(0.2)
                own.come_back()  # it takes its time after several deaths


@pytest.mark.parametrize("how", ["killed", "frozen"])
@pytest.mark.usefixtures("relaying")
async def test_streams_outlive_the_database(
    own: OwnDatabase, own_settings: Settings, db: Database, how: str
) -> None:
    user = await add_user(db)
    token = await add_token(db, user)
    async with serving(own_settings, db) as running, AsyncExitStack() as streams:
        followers = [
            await streams.enter_async_context(listening(running.url, token, after=after))
            for after in (None, 0, None)
        ]
        for number in range(3):
            await told(own, db, user, 2 * number)
            for one in followers:
                await one.until(2 * number + 1)
            own.kill() if how == "killed" else own.freeze()
            comments = [one.comments for one in followers]
            await asyncio.sleep(2.5)
            for one, before in zip(followers, comments, strict=True):
                assert one.comments > before, "nothing keeps the stream open"
            own.come_back() if how == "killed" else own.thaw()
            await told(own, db, user, 2 * number + 1)
            for one in followers:
                await one.until(2 * number + 2, seconds=20)
        for one in followers:
            assert one.numbers == list(range(6))
            assert not one.ended


async def test_a_stream_that_can_not_be_begun_is_a_503(
    own: OwnDatabase, own_settings: Settings, db: Database
) -> None:
    user = await add_user(db)
    token = await add_token(db, user)
    async with serving(own_settings, db) as running:
        async with listening(running.url, token):  # the token is known from here on
            pass
        own.freeze()
        try:
            for after in (0, None):
                began = time.monotonic()
                with pytest.raises(Exception, match="can't be reached"):
                    async with listening(running.url, token, after=after):
                        pass
                assert time.monotonic() - began < 9
            assert running.feed.streams == 0
            # A server that stops now does not wait for it either.
            began = time.monotonic()
            running.drain()
        finally:
            own.thaw()
    assert time.monotonic() - began < 8


async def test_a_past_that_is_being_told_goes_on_after_the_outage(
    own: OwnDatabase, own_settings: Settings, db: Database
) -> None:
    user = await add_user(db)
    token = await add_token(db, user)
    await tell_many(db, user, 0, 3_000)
    while await Relay(db).relay():
        pass
    async with serving(own_settings, db) as running, listening(running.url, token, after=0) as one:
        await one.until(100)
        own.freeze()
        await asyncio.sleep(2)
        own.thaw()
        await one.until(3_000, seconds=20)
        assert one.numbers == list(range(3_000))
