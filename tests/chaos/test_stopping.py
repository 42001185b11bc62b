"""SIGTERM in the middle of it all: exit 0 in time, no connection left, and whatever was under way says how it ended."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio

from baatcheet.auth.bootstrap import ensure_admin
from baatcheet.platform.database import connect
from baatcheet.platform.migrate import upgrade
from baatcheet.platform.settings import load as load_settings
from tests.chaos.load import Client, Journal
from tests.conftest import ADMIN_TOKEN, Caller, database_on
from tests.running import ApiProcess, WorkerProcess, new_user
from tests.servers import at, past_bouncer
from tests.webhooks.receiver import Receiver

pytestmark = pytest.mark.timeout(400)  # a machine that is busy with others

CLIENTS = 5
STREAMS = 100
JOBS = 50
GRACE = 4.0  # seconds
SETTLING = 5.0  # seconds that a process may take to leave once its grace is over
START = 150.0  # seconds that a process may take to be ready
POOLER_KEEPS = 20.0  # seconds that PgBouncer may keep a connection without a client (server_idle_timeout)
SLACK = 5.0  # seconds: these machines are slow
QUICK, LONG = 1.0, 55.0  # seconds that a stream or a job takes: only a quick one ends within the grace


@pytest.fixture
def environment(environment_of_server: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """A database of the test's own: nobody else is connected to it."""
    with database_on(environment_of_server["DATABASE_URL"]) as url:
        upgrade(past_bouncer(url))
        own = at(environment_of_server, url)
        own |= {"BAATCHEET_WEBHOOK_ALLOWED_NETWORKS": "127.0.0.1", "BAATCHEET_REQUESTS_PER_MINUTE": "0"}
        own |= {"BAATCHEET_WEBHOOK_TIMEOUT": "58"}
        ensure_admin(url, load_settings(own, dotenv=None).auth)
        yield own


@pytest_asyncio.fixture
async def database(environment: Mapping[str, str]) -> AsyncIterator[asyncpg.Connection]:
    connection = await connect(past_bouncer(environment["DATABASE_URL"]))
    yield connection
    await connection.close()


async def _assert_nobody_is_connected(database: asyncpg.Connection, *, patience: float) -> None:
    """Beside `database` itself, which is no pooler's."""
    others = "datname = current_database() AND pid <> pg_backend_pid()"
    deadline = time.monotonic() + patience
    while rows := await database.fetch(f"SELECT application_name FROM pg_stat_activity WHERE {others}"):
        assert time.monotonic() < deadline, rows
        await asyncio.sleep(0.2)


async def enqueued(caller: Caller, receiver: Receiver, seconds: float, count: int) -> None:
    """So many jobs that each take so many seconds, once they run."""
    wanted = {"url": receiver.url(f"/slow/{seconds:g}"), "events": ["export.completed"]}
    hook = await caller.post("/api/v1/webhooks", json=wanted)
    assert hook.status_code == 201, hook.text
    path = f"/api/v1/webhooks/{hook.json()['id']}/test"
    answers = await asyncio.gather(*(caller.post(path) for _ in range(count)))
    assert {answer.status_code for answer in answers} == {201}, answers[0].text


@pytest.mark.parametrize("times", [1, 2], ids=["asked once", "asked twice"])
async def test_a_stop_in_the_middle_of_streams_and_jobs_leaves_the_truth_and_no_connection(
    environment: dict[str, str], database: asyncpg.Connection, tmp_path: Path, times: int
) -> None:
    own = environment | {"BAATCHEET_GRACE_SECONDS": str(GRACE if times == 1 else 60)}
    api, worker = ApiProcess(own, log=tmp_path / "api.log"), WorkerProcess(own, tmp_path / "worker.log")
    async with AsyncExitStack() as stack:
        receiver = await stack.enter_async_context(Receiver())
        stack.callback(worker.stop)
        stack.callback(api.stop)
        worker.start()
        await asyncio.to_thread(api.start, START)
        journal = Journal()
        clients = []
        for _ in range(CLIENTS):
            token = await asyncio.to_thread(new_user, api.url, ADMIN_TOKEN)
            caller = await stack.enter_async_context(Caller(api.url, token))
            caller._user_id = UUID((await caller.get("/api/v1/me")).json()["user"]["id"])
            clients.append(Client(caller, journal))
            for seconds in (QUICK, LONG):
                await enqueued(caller, receiver, seconds, JOBS // CLIENTS // 2)
        streams = [
            asyncio.create_task(clients[number % CLIENTS].streamed(int(seconds * 5), 0.2))
            for number, seconds in zip(range(STREAMS), [QUICK, LONG] * STREAMS, strict=False)
        ]
        async with asyncio.timeout(30):
            # Not all of one receiver's are sent at once: some run, and some wait.
            while len(journal.answers) < STREAMS or any(
                len(receiver.at(f"/slow/{seconds:g}")) < CLIENTS for seconds in (QUICK, LONG)
            ):
                await asyncio.sleep(0.05)
        began = time.monotonic()
        for _ in range(times):
            api.signal(signal.SIGTERM)
            worker.signal(signal.SIGTERM)
            await asyncio.sleep(0.3)
        statuses = await asyncio.gather(asyncio.to_thread(api.wait), asyncio.to_thread(worker.wait))
        took = time.monotonic() - began
        ends = await asyncio.gather(*streams)
    assert set(statuses) == {0}
    assert took < (GRACE if times == 1 else 0.3) + SETTLING + SLACK
    pooled = past_bouncer(environment["DATABASE_URL"]) != environment["DATABASE_URL"]
    await _assert_nobody_is_connected(database, patience=POOLER_KEEPS if pooled else 0)
    assert journal.faults == []
    # What is quick ends by itself within the grace period; where there is none, it may.
    assert {"turn.interrupted"} <= set(ends) <= {"turn.completed", "turn.interrupted"}
    assert times == 2 or "turn.completed" in ends
    assert ends.count("turn.interrupted") >= STREAMS // 2
    assert len(journal.turns) == STREAMS
    await journal.assert_kept(environment["DATABASE_URL"])
    jobs = "FROM jobs WHERE kind = 'webhook.deliver'"
    standing = dict(await database.fetch(f"SELECT status, count(*) {jobs} GROUP BY 1"))
    assert {"queued"} <= set(standing) <= {"succeeded", "queued"}
    assert times == 2 or "succeeded" in standing
    assert sum(standing.values()) == JOBS
    assert standing["queued"] >= JOBS // 2
    # As if it had not been taken, and done at once by the next.
    handed_back = f"SELECT bool_and(attempts = 0 AND worker_id IS NULL) {jobs} AND status = 'queued'"
    assert await database.fetchval(handed_back)
    assert await database.fetchval("SELECT count(*) FROM processes") == 0
    assert await database.fetchval("SELECT count(*) FROM job_workers") == 0
    for log in (api.log, worker.log):
        assert log is not None
        assert "Traceback" not in log.read_text()
        assert '"level":"error"' not in log.read_text()
