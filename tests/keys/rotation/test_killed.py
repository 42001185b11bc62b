"""A rotation whose process is killed, at each step in turn: the next one goes on, and nothing is left lying about."""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio

from baatcheet.keys.audit import SYSTEM
from baatcheet.keys.rotation.machine import Rotator
from baatcheet.keys.secret import SecretKey
from tests.conftest import ROOT
from tests.keys.rotation.conftest import Bench

MOST_STEPS = 400
KILLED = -9


@pytest_asyncio.fixture
async def forking() -> AsyncIterator[Process]:
    command = [sys.executable, "-m", "tests.keys.rotation.dying_rotation"]
    process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, cwd=ROOT)
    yield process
    assert process.stdin is not None
    process.stdin.close()
    assert await asyncio.wait_for(process.wait(), 20) == 0


async def run(
    forking: Process, bench: Bench, own_services: Mapping[str, str], id_: UUID, step: int, *, makes: bool
) -> int:
    """How a process ended that ran the rotation up to `step`; 0: to the end."""
    order = {
        "step": step,
        "rotation": str(id_),
        "database": own_services["DATABASE_URL"],
        "store": str(bench.path),
        "provider": bench.fake.url,
        "name": bench.provider,
        "makes": makes,
    }
    assert forking.stdin is not None
    assert forking.stdout is not None
    forking.stdin.write(json.dumps(order).encode() + b"\n")
    await forking.stdin.drain()
    answer: dict[str, Any] = json.loads(await asyncio.wait_for(forking.stdout.readline(), 30))
    return int(answer["ended"])


async def is_sound(bench: Bench, id_: UUID) -> None:
    """What holds at every moment: the current set is one set, and all of it works, whoever was killed."""
    current, row = await bench.set_of(), await bench.row(id_)
    assert current
    assert all(bench.fake.works(key) for key in current), row.step
    ids = [bench.id(key) for key in current]
    assert ids in (row.detail.get("target"), row.detail.get("before", ids)), row.step


CASES = {
    "all keys are made new": (True, False, False),
    "one key is made new": (True, True, False),
    "staged keys take their place": (False, False, False),
    "new keys are refused": (True, False, True),
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("makes", "one", "refused"), CASES.values(), ids=CASES.keys())
async def test_killed_at_each_step_a_rotation_goes_on_and_the_ledger_tells_the_truth(
    bench: Bench, forking: Process, own_services: Mapping[str, str], makes: bool, one: bool, refused: bool
) -> None:
    bench.fake.refuse_new = refused
    killed = ended = 0
    for step in range(1, MOST_STEPS):
        bench.fake.keys.clear()
        bench.provider = f"provider-{step}-{id(bench)}"
        old = await bench.has(2)
        staged = [] if makes else bench.fake.sell(2)
        if staged:
            await bench.store.stage(bench.provider, [SecretKey(key) for key in staged])
        id_ = await bench.begin(bench.id(old[0]) if one else None)
        ended = await run(forking, bench, own_services, id_, step, makes=makes)
        await is_sound(bench, id_)
        if ended != KILLED:
            break
        killed += 1
        assert (await bench.row(id_)).outcome is None or await bench.told()
        assert await run(forking, bench, own_services, id_, 0, makes=makes) == 0
        await is_sound(bench, id_)
        await ended_well(bench, id_, old, staged, one=one, refused=refused)
    assert ended == 0
    assert killed > 40


async def ended_well(
    bench: Bench, id_: UUID, old: list[str], staged: list[str], *, one: bool, refused: bool
) -> None:
    row, current = await bench.row(id_), await bench.set_of()
    assert row.outcome == ("failed" if refused else "rotated"), (row.step, row.error)
    assert len(await bench.told()) == 1
    assert await bench.set_of("pending") == []
    at_provider = {kept.key for kept in bench.fake.keys.values()}
    if refused:
        assert (current, at_provider) == (old, set(old))
    elif staged:
        assert (current, row.detail["by_hand"]) == (staged, [bench.id(key) for key in old])
    else:
        # No key of the provider's is nobody's, and none of the old ones that was replaced works.
        assert at_provider == set(current)
        assert len(current) == 2
        assert (current[1] == old[1]) is one
        assert old[0] not in current
        assert row.detail["revoked"] == [bench.id(key) for key in (old[:1] if one else old)]


@pytest.mark.timeout(600)
async def test_killed_at_each_step_of_its_way_back_the_old_keys_are_in_use_again(
    bench: Bench, forking: Process, own_services: Mapping[str, str]
) -> None:
    killed = ended = 0
    for step in range(1, MOST_STEPS):
        bench.fake.keys.clear()
        bench.provider = f"back-{step}-{id(bench)}"
        old = await bench.has(2)
        id_ = await bench.begin()
        await quarantine_when_served(bench, id_)
        ended = await run(forking, bench, own_services, id_, step, makes=True)
        await is_sound(bench, id_)
        if ended != KILLED:
            break
        killed += 1
        assert await run(forking, bench, own_services, id_, 0, makes=True) == 0
        row = await bench.row(id_)
        assert (row.outcome, await bench.set_of()) == ("rolled_back", old)
        assert {kept.key for kept in bench.fake.keys.values()} == set(old)
        assert [type_ for type_, _ in await bench.told()] == ["key.quarantined", "key.rotation_failed"]
    assert ended == 0
    assert killed > 20


async def quarantine_when_served(bench: Bench, id_: UUID) -> None:
    """Break the rotation off while the new keys are watched, and let one of them be refused."""
    bench.makes()
    bench.pace(watch=60.0)
    running = asyncio.create_task(Rotator(bench.parts).run(id_))
    while (await bench.row(id_)).step != "watch":
        await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    new = await bench.set_of()
    await bench.know(new)
    await bench.keys.quarantine(SYSTEM, bench.id(new[0]), "status 401")
