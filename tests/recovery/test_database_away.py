"""A database that freezes (a paused machine, a cut network) or dies: nobody hangs, and no reply is lost."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import pytest_asyncio
from pydantic import SecretStr
from sqlalchemy import text

from baatcheet.auth.bootstrap import ensure_admin
from baatcheet.platform.database import Database, DatabaseUnavailable
from baatcheet.platform.settings import DatabaseSettings, load
from tests.conftest import ADMIN_TOKEN as ADMIN
from tests.recovery.own_database import OwnDatabase
from tests.running import ApiProcess, api_process, events, new_user
from tests.servers import at

LIMIT = 3.0  # seconds: the deadline of a unit of work, shorter than by default so that these tests are
SLACK = 3.0  # seconds: these machines are slow


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnDatabase]:
    database = OwnDatabase(tmp_path_factory.mktemp("pg"))
    try:
        yield database
    finally:
        database.stop()


@pytest.fixture
def frozen(own: OwnDatabase) -> Iterator[Callable[[], None]]:
    """Freezes the database, until the test ends."""
    yield own.freeze
    own.thaw()


@pytest_asyncio.fixture
async def db(own: OwnDatabase) -> AsyncIterator[Database]:
    settings = DatabaseSettings(url=SecretStr(own.url), checkout_timeout=1)
    opened = Database(settings, pool_size=2, name="away")
    yield opened
    await opened.close()


async def in_hot(db: Database) -> None:
    async with db.hot() as connection:
        await connection.fetch("SELECT 1")


async def in_transaction(db: Database) -> None:
    async with db.tenant(uuid4()) as session:
        await session.execute(text("SELECT 1"))


async def in_lane(db: Database) -> None:
    lane = db.lane()
    try:
        await lane.fetch("SELECT 1")
    finally:
        await lane.close()


WAYS = [in_hot, in_transaction, in_lane]


@pytest.mark.parametrize("warm", [True, False], ids=["warm", "cold"])
@pytest.mark.parametrize("work", WAYS)
async def test_a_unit_of_work_has_one_deadline(
    db: Database,
    own: OwnDatabase,
    frozen: Callable[[], None],
    work: Callable[[Database], Awaitable[None]],
    warm: bool,
) -> None:
    if warm:
        await asyncio.gather(work(db), work(db))
    frozen()
    began = time.monotonic()
    # More than there are connections: some wait for one, and are not given a second deadline for its statement.
    outcomes = await asyncio.gather(*(work(db) for _ in range(5)), return_exceptions=True)
    assert [type(error) for error in outcomes] == [DatabaseUnavailable] * 5
    assert time.monotonic() - began < 1 + SLACK
    own.thaw()
    async with asyncio.timeout(SLACK):
        await asyncio.gather(*(work(db) for _ in range(5)))
    assert db.pool_use().waiting == 0


async def test_a_lane_that_froze_is_good_again(
    db: Database, own: OwnDatabase, frozen: Callable[[], None]
) -> None:
    lane = db.lane()
    await lane.fetch("SELECT 1")
    frozen()
    began = time.monotonic()
    with pytest.raises(DatabaseUnavailable):
        await lane.fetch("SELECT 1")
    assert time.monotonic() - began < 1 + SLACK
    own.thaw()
    assert (await lane.fetch("SELECT 2 AS n"))[0]["n"] == 2
    await lane.close()
    assert db.pool_use().in_use == 0


async def test_several_statements_share_one_deadline(db: Database) -> None:
    began = time.monotonic()

    async def work() -> None:
        async with db.system() as session:
            for _ in range(20):
                await session.execute(text("SELECT pg_sleep(0.3)"))

    with pytest.raises(DatabaseUnavailable):
        await work()
    assert 0.9 < time.monotonic() - began < 1 + SLACK


async def test_work_that_is_known_to_be_long_is_given_the_time(db: Database) -> None:
    async with db.system(limit=20) as session:
        await session.execute(text("SELECT pg_sleep(1.5)"))
    async with db.hot(limit=20) as connection:
        assert await connection.fetchval("SELECT 1 FROM pg_sleep(1.5)") == 1


async def test_what_ran_out_of_time_costs_the_others_no_connection(db: Database) -> None:
    async def backend() -> int:
        async with db.hot() as connection:
            return int(await connection.fetchval("SELECT pg_backend_pid()"))

    async with db.hot() as connection:
        kept = await connection.fetchval("SELECT pg_backend_pid()")
        with pytest.raises(DatabaseUnavailable):
            async with db.hot(limit=0.2) as late:
                await late.fetch("SELECT pg_sleep(5)")
    assert await backend() == kept


async def test_whatever_a_late_loop_is_doing_when_the_time_is_up_the_database_is_what_was_away(
    db: Database,
) -> None:
    loop = asyncio.get_running_loop()
    refused = 0
    for step in range(30):  # between the answers of a statement's several messages too
        try:
            async with db.hot(limit=0.05) as connection:
                loop.call_later(0.0001 * step, time.sleep, 0.06)
                for name in "abc":
                    await connection.fetch(f"SELECT {step}, $1::int AS {name}", 3)
        except DatabaseUnavailable:
            refused += 1
    assert refused
    assert db.pool_use().in_use == 0


async def test_closing_does_not_wait_for_a_frozen_server(db: Database, frozen: Callable[[], None]) -> None:
    await asyncio.gather(in_hot(db), in_transaction(db))
    frozen()
    began = time.monotonic()
    await db.close(patience=0.5)
    assert time.monotonic() - began < 0.5 + SLACK


# The server ----------------------------------------------------------------------------------------------


@pytest.fixture
def environment(own: OwnDatabase, environment_of_server: Mapping[str, str]) -> dict[str, str]:
    changed = {
        "BAATCHEET_POOL_MAX": "10",
        "BAATCHEET_DB_CHECKOUT_TIMEOUT": str(LIMIT),
        "BAATCHEET_GRACE_SECONDS": "2",
    }
    environment = {**at(environment_of_server, own.url), **changed}
    environment.pop("REDIS_URL")
    ensure_admin(own.url, load(environment, dotenv=None).auth)
    return environment


def slow(words: str, chunks: int, delay: float = 0.1) -> str:
    return f'{words} [[scripted {{"chunks": {chunks}, "chunk_delay": {delay}, "reply": "{"w " * chunks}"}}]]'


def follow(api: ApiProcess, token: str, message: str) -> list[Any]:
    headers = {"authorization": f"Bearer {token}"}
    body = {"message": message, "stream": True}
    with (
        httpx.Client(base_url=api.url, headers=headers, timeout=60) as client,
        client.stream("POST", "/api/v1/chat/completions", json=body) as response,
    ):
        return list(events(response.iter_lines()))


def ask(api: ApiProcess, token: str, path: str, body: object = None) -> tuple[httpx.Response, float]:
    """The answer, and after how many seconds it came."""
    began = time.monotonic()
    method = "GET" if body is None else "POST"
    headers = {"authorization": f"Bearer {token}"}
    answer = httpx.request(method, api.url + path, json=body, headers=headers, timeout=40)
    return answer, time.monotonic() - began


ASKED: list[tuple[str, object]] = [
    ("/api/v1/chat/completions", {"message": "hello"}),
    ("/api/v1/conversations", None),
    ("/api/v1/projects", {"name": "p"}),
    (
        "/v1/chat/completions",
        {"model": "auto", "conversation": "new", "messages": [{"role": "user", "content": "x"}]},
    ),
]


def test_a_frozen_database_is_a_503_and_interrupts_no_running_turn(
    environment: dict[str, str], own: OwnDatabase, frozen: Callable[[], None], tmp_path: Path
) -> None:
    with api_process(environment, tmp_path / "api.log") as api, ThreadPoolExecutor(24) as pool:
        token = new_user(api.url, ADMIN)
        streaming = pool.submit(follow, api, token, slow("freeze", 150))
        list(pool.map(lambda _: ask(api, token, "/api/v1/conversations"), range(60)))  # fill the pool
        frozen()
        # Twice: with idle connections, and with none left.
        for _ in range(2):
            for answer, took in pool.map(lambda one: ask(api, token, *one), ASKED * 3):
                assert answer.status_code == 503, answer.text
                assert int(answer.headers["retry-after"]) > 0
                assert took < LIMIT + SLACK
        own.thaw()
        for path, body in ASKED:
            answer, took = ask(api, token, path, body)
            assert answer.status_code in {200, 201}, answer.text
            assert took < 5
        seen = streaming.result(timeout=40)
        assert seen[-1].name == "turn.completed"
        turn, _ = ask(api, token, f"/api/v1/turns/{seen[-1].data['turn_id']}")
        assert turn.json()["status"] == "completed"


def test_a_database_that_is_killed_and_returns_interrupts_no_running_turn(
    environment: dict[str, str], own: OwnDatabase, tmp_path: Path
) -> None:
    with api_process(environment, tmp_path / "api.log") as api, ThreadPoolExecutor(4) as pool:
        token = new_user(api.url, ADMIN)
        streaming = pool.submit(follow, api, token, slow("kill", 150))
        time.sleep(1)
        own.kill()
        for path, body in ASKED:
            answer, took = ask(api, token, path, body)
            assert answer.status_code == 503, answer.text
            assert "retry-after" in answer.headers
            assert took < LIMIT + SLACK
        own.come_back()
        until = time.monotonic() + 10
        while ask(api, token, *ASKED[0])[0].status_code != 200:
            assert time.monotonic() < until
        assert streaming.result(timeout=40)[-1].name == "turn.completed"


@pytest.mark.parametrize("how", ["frozen", "killed"])
def test_a_stop_while_the_database_is_away_ends_in_good_order(
    environment: dict[str, str],
    own: OwnDatabase,
    frozen: Callable[[], None],
    tmp_path: Path,
    how: str,
) -> None:
    with api_process(environment, tmp_path / "api.log") as api, ThreadPoolExecutor(2) as pool:
        token = new_user(api.url, ADMIN)
        streaming = pool.submit(follow, api, token, slow("stop", 400))
        time.sleep(1.5)
        if how == "frozen":
            frozen()
        else:
            own.kill()
        began = time.monotonic()
        api.signal(signal.SIGTERM)
        assert api.wait(30) == 0
        assert time.monotonic() - began < 2 + 6 + SLACK
        assert streaming.result(timeout=10)[-1].name == "turn.failed"
    if how == "killed":
        own.come_back()
