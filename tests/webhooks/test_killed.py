"""Whoever delivers may be killed at any moment: every event arrives, under one id and with one body."""

import asyncio
import random
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests import zygote
from tests.conftest import ROOT
from tests.webhooks.conftest import Hooks, Person
from tests.webhooks.receiver import Receiver

EVENTS = 40
KILLS = 2


@contextmanager
def worker(url: str) -> Iterator[subprocess.Popen[bytes]]:
    """Killed at the end, if not before."""
    process = zygote.popen(
        ["-m", "tests.webhooks.working", url],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def test_events_survive_the_killing_of_whoever_delivers_them(
    hooks: Hooks, alice: Person, receiver: Receiver
) -> None:
    webhook = await alice.make(receiver.url("/slow/0.05"))
    await hooks.happens("turn.completed", {"turn_id": "t"}, alice.user_id, times=EVENTS)
    for _ in range(KILLS):
        before = len(receiver.requests)
        with worker(hooks.url):
            async with asyncio.timeout(60):
                while len(receiver.requests) < before + 2:
                    await asyncio.sleep(0.01)
            await asyncio.sleep(random.uniform(0, 0.1))
    with worker(hooks.url):
        async with asyncio.timeout(90):
            while await hooks.count("jobs", "status IN ('queued', 'waiting', 'running')"):
                await asyncio.sleep(0.1)
    page = await alice.deliveries(webhook, limit="200")
    assert {one["status"] for one in page} == {"delivered"}
    assert {one.id for one in receiver.requests} == {one["message_id"] for one in page}
    assert len(page) == EVENTS
    bodies: dict[str, set[bytes]] = {}
    for one in receiver.requests:
        bodies.setdefault(one.id, set()).add(one.body)
    assert all(len(seen) == 1 for seen in bodies.values())
    for delivery in page:
        attempts = (await alice.details(delivery))["attempts"]
        assert [attempt["number"] for attempt in attempts] == list(range(1, len(attempts) + 1))
        assert attempts[-1]["status"] == 200


async def test_a_job_that_runs_again_after_its_delivery_sends_nothing(
    hooks: Hooks, alice: Person, receiver: Receiver
) -> None:
    await alice.make(receiver.url())
    await hooks.happens("turn.completed", {"turn_id": "t"}, alice.user_id)
    await hooks.worked_off()
    # As if its worker had ended between the answer and the end of the job.
    await hooks.run("UPDATE jobs SET status = 'queued', ended_at = NULL")
    await hooks.worked_off()
    assert len(receiver.requests) == 1
