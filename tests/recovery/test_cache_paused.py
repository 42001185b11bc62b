"""A Valkey that stops answering in the middle of it all costs a turn its time limit at most, and nobody an error."""

import asyncio
import statistics
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from baatcheet.auth.bootstrap import ensure_admin
from baatcheet.platform.settings import Settings
from tests.conftest import ADMIN_TOKEN, Caller
from tests.running import ApiProcess, api_process, new_user
from tests.valkey_server import ValkeyServer

TIMEOUT = 0.05  # BAATCHEET_CACHE_TIMEOUT
WAITED = TIMEOUT * 1.25  # a command that had to queue behind another waits a quarter more
NOISE = 0.06  # seconds that a busy machine's medians may differ by …
LATE = 0.6  # … and its slowest turns
CLIENTS = 4
ROUNDS = 5
SECONDS = 1.5  # of each round's half


@pytest.fixture
def valkey() -> Iterator[ValkeyServer]:
    with ValkeyServer() as server:
        yield server


@pytest.fixture
def running(
    environment_of_server: Mapping[str, str], settings: Settings, valkey: ValkeyServer, tmp_path: Path
) -> Iterator[ApiProcess]:
    ensure_admin(environment_of_server["DATABASE_URL"], settings.auth)
    own = {
        **environment_of_server,
        "REDIS_URL": valkey.url,
        "BAATCHEET_CACHE_TIMEOUT": str(TIMEOUT),
        "BAATCHEET_CONTEXT_MAX_MESSAGES": "1000",  # nothing is summarised meanwhile: turns are alike
    }
    with api_process(own, tmp_path / "api.log") as process:
        yield process


class Load:
    """Clients that have one turn after the other, each in a conversation of its own."""

    def __init__(self) -> None:
        self.turns: list[tuple[float, float]] = []  # when it began, and how long it took
        self.failures: list[str] = []
        self.over = False

    async def client(self, caller: Caller) -> None:
        conversation = None
        while not self.over:
            body = {"message": "How are you?"}
            if conversation is not None:
                body["conversation_id"] = conversation
            began = time.monotonic()
            answer = await caller.post("/api/v1/chat/completions", json=body)
            self.turns.append((began, time.monotonic() - began))
            if answer.status_code != 200 or answer.json()["status"] != "completed":
                self.failures.append(answer.text)
                return
            conversation = answer.json()["conversation_id"]


def p99(times: list[float]) -> float:
    return statistics.quantiles(times, n=100)[98]


async def test_a_turn_takes_little_longer_while_valkey_is_paused(
    running: ApiProcess, valkey: ValkeyServer
) -> None:
    load = Load()
    pauses: list[tuple[float, float]] = []
    token = new_user(running.url, ADMIN_TOKEN)
    async with asyncio.timeout(90), Caller(running.url, token) as caller:
        clients = [asyncio.create_task(load.client(caller)) for _ in range(CLIENTS)]
        for _ in range(ROUNDS):
            await asyncio.sleep(SECONDS)
            began = time.monotonic()
            valkey.pause()
            await asyncio.sleep(SECONDS)
            valkey.resume()
            pauses.append((began, time.monotonic()))
        await asyncio.sleep(SECONDS)
        load.over = True
        await asyncio.gather(*clients)
    assert load.failures == []
    paused = [took for at, took in load.turns if any(start <= at < end for start, end in pauses)]
    usual = [
        took for at, took in load.turns if not any(start < at + took and at < end for start, end in pauses)
    ]
    assert len(paused) > 5 * CLIENTS
    assert len(usual) > 5 * CLIENTS
    assert p99(paused) - p99(usual) < WAITED + LATE, (p99(paused), p99(usual))
    # Each pause compared with the time before it: a machine that is busy for a while is busy in both.
    grown = []
    for number, (start, end) in enumerate(pauses):
        before = pauses[number - 1][1] if number else start - SECONDS
        mine = [took for at, took in load.turns if start <= at < end]
        others = [took for at, took in load.turns if before <= at and at + took < start]
        if mine and others:
            grown.append(statistics.median(mine) - statistics.median(others))
    assert len(grown) == ROUNDS
    assert statistics.median(grown) < WAITED + NOISE, grown
