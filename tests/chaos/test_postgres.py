"""PostgreSQL away in every way, under load: "not now" in time, service soon after, and nothing acknowledged is lost."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from baatcheet.auth.bootstrap import ensure_admin
from baatcheet.platform.database import Database, DatabaseUnavailable
from baatcheet.platform.settings import DatabaseSettings
from baatcheet.platform.settings import load as load_settings
from tests.chaos.load import BACK, KINDS, load
from tests.chaos.postgres import ROUND_TRIP, Postgres
from tests.running import ApiProcess, api_process
from tests.servers import at

pytestmark = pytest.mark.timeout(400)  # a machine that is busy with others

CLIENTS = 7
BURST = 4  # requests at once of each client
STREAM_SECONDS = 2.0  # that a long turn goes on after the database is back
SHORT = 3.5  # seconds of an outage that is noticed at once, and then by three more attempts
LONG = 11.0  # of one that is noticed by its silence
LONGER = 16.0  # … and that lets some of a request's statements pass


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    server = Postgres(tmp_path_factory.mktemp("pg"))
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def api(
    postgres: Postgres, environment_of_server: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ApiProcess]:
    """With every limit as it is by default."""
    own = {**at(environment_of_server, postgres.address), "BAATCHEET_POOL_MAX": "20"}
    own |= {"BAATCHEET_FILES_DIR": str(tmp_path_factory.mktemp("files"))}
    ensure_admin(postgres.url, load_settings(own, dotenv=None).auth)
    with api_process(own, tmp_path_factory.mktemp("api") / "api.log") as running:
        yield running


Outage = Callable[[Postgres], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def stopped(postgres: Postgres) -> AsyncIterator[None]:
    await asyncio.to_thread(postgres.stop_server)
    yield
    await postgres.start_server()


@asynccontextmanager
async def killed(postgres: Postgres) -> AsyncIterator[None]:
    postgres.kill()
    yield
    await postgres.start_server()


@asynccontextmanager
async def paused(postgres: Postgres) -> AsyncIterator[None]:
    postgres.freeze()
    yield
    postgres.thaw()


@asynccontextmanager
async def without_connections(postgres: Postgres) -> AsyncIterator[None]:
    await postgres.take_all_connections()
    yield
    await postgres.give_connections_back()


@asynccontextmanager
async def read_only(postgres: Postgres) -> AsyncIterator[None]:
    await postgres.set_read_only(True, sessions=False)
    yield
    await postgres.set_read_only(False, sessions=False)


@asynccontextmanager
async def demoted(postgres: Postgres) -> AsyncIterator[None]:
    await postgres.set_read_only(True, sessions=True)
    yield
    await postgres.set_read_only(False, sessions=True)


@asynccontextmanager
async def slow(postgres: Postgres) -> AsyncIterator[None]:
    postgres.gate.delay = ROUND_TRIP / 2
    yield
    postgres.gate.delay = 0.0


OUTAGES: list[tuple[Outage, float]] = [
    (stopped, SHORT),
    (killed, SHORT),
    (without_connections, SHORT),
    (read_only, SHORT),
    (demoted, SHORT),
    (paused, LONG),
    (slow, LONGER),
]


@pytest.mark.parametrize(("outage", "seconds"), OUTAGES, ids=[outage.__name__ for outage, _ in OUTAGES])
async def test_requests_are_answered_in_time_and_nothing_acknowledged_is_lost(
    api: ApiProcess, postgres: Postgres, outage: Outage, seconds: float
) -> None:
    async with load(api.url, CLIENTS) as (journal, clients):
        words = int((1 + seconds + STREAM_SECONDS) * 10)
        streams = [asyncio.create_task(client.streamed(words, 0.1)) for client in clients]
        await asyncio.sleep(1)
        began = time.monotonic()
        async with outage(postgres):
            await asyncio.sleep(seconds)
        back = time.monotonic()
        while time.monotonic() < back + BACK and not journal.serves(KINDS, back):
            await asyncio.sleep(0.1)
        late = journal.late(back, time.monotonic())
        await asyncio.sleep(max(0.0, late - (time.monotonic() - back - BACK)))
        served = time.monotonic()
        # All at once, so that every connection is needed.
        await asyncio.gather(*(client.project() for client in clients for _ in range(BURST)))
        ends = await asyncio.gather(*streams)
    journal.assert_sound()
    assert journal.refused(began, served), "nobody noticed"
    assert journal.serves(KINDS, back), journal.answers
    assert [one for one in journal.refused(back, float("inf")) if one.at > served] == []
    assert ends == ["turn.completed"] * CLIENTS
    await journal.assert_kept(postgres.url)


async def test_connections_to_a_server_that_is_no_longer_the_primary_are_replaced(postgres: Postgres) -> None:
    """They are as good as ever for reading, and would refuse every change for as long as they live."""

    async def write(db: Database) -> None:
        async with db.system() as session:
            await session.execute(text("UPDATE users SET name = name WHERE false"))
            await session.execute(text("SELECT pg_sleep(0.1)"))

    db = Database(DatabaseSettings(url=SecretStr(postgres.url)), pool_size=6, name="demoted")
    try:
        async with demoted(postgres):
            refused = await asyncio.gather(*(write(db) for _ in range(6)), return_exceptions=True)
        assert {type(error) for error in refused} == {DatabaseUnavailable}
        await asyncio.gather(*(write(db) for _ in range(6)))
    finally:
        await db.close()
