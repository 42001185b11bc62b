"""API processes behind a load balancer are restarted one after the other, under load: no request fails."""

import asyncio
import signal
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from baatcheet.auth.bootstrap import ensure_admin
from baatcheet.platform.settings import Settings
from tests.chaos.balancer import Balancer
from tests.chaos.load import load
from tests.conftest import RunningServer
from tests.running import ApiProcess

pytestmark = pytest.mark.timeout(400)  # a machine that is busy with others

PROCESSES = 2
CLIENTS = 10
IDLE = 6.0  # seconds: httpx keeps a connection for 5, and so do others
START = 150.0  # seconds that a process may take to be ready
GRACE = 5  # seconds; no turn of the load takes as long
SLACK = 10.0  # seconds: these machines are slow


@pytest.fixture
def environment(environment_of_server: Mapping[str, str], settings: Settings) -> dict[str, str]:
    ensure_admin(environment_of_server["DATABASE_URL"], settings.auth)
    return {**environment_of_server, "BAATCHEET_GRACE_SECONDS": str(GRACE)}


async def test_a_rolling_restart_fails_no_request(environment: dict[str, str], tmp_path: Path) -> None:
    processes = [ApiProcess(environment, log=tmp_path / f"{number}.log") for number in range(PROCESSES)]
    with ExitStack() as stack:
        for process in processes:
            stack.callback(process.stop)
        await asyncio.gather(*(asyncio.to_thread(process.start, START) for process in processes))
        async with (
            Balancer([process.port for process in processes]) as balancer,
            load(balancer.url, CLIENTS) as (journal, clients),
        ):
            await asyncio.sleep(1)
            for process in processes:
                streams = [asyncio.create_task(client.streamed(20, 0.1)) for client in clients]
                await asyncio.sleep(0.5)
                began = time.monotonic()
                process.signal(signal.SIGTERM)
                assert await asyncio.to_thread(process.wait) == 0
                assert time.monotonic() - began < GRACE + SLACK
                assert await asyncio.gather(*streams) == ["turn.completed"] * CLIENTS
                await asyncio.to_thread(process.start, START)
    assert journal.faults == []
    assert [one for one in journal.answers if one.status not in {200, 201, 202}] == []
    assert {status for status, _, _ in journal.turns.values()} == {"completed"}
    await journal.assert_kept(environment["DATABASE_URL"])
    for process in processes:
        assert process.log is not None
        assert '"level":"error"' not in process.log.read_text()


async def test_an_idle_connection_is_kept_for_longer_than_clients_keep_theirs(server: RunningServer) -> None:
    """If the server were the first to close it, a request could be on its way just then, and be lost."""
    async with httpx.AsyncClient(
        base_url=server.url,
        limits=httpx.Limits(max_connections=1, keepalive_expiry=60),
        trust_env=False,
    ) as client:
        streams = []
        for pause in (IDLE, 0.0):
            answer = await client.get("/live")
            assert answer.status_code == 200
            streams.append(answer.extensions["network_stream"].get_extra_info("client_addr"))
            await asyncio.sleep(pause)
    assert streams[0] == streams[1]
