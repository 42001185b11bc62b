"""A worker that is killed at any step of an export or an import: another ends it, and it is seen once."""

import asyncio
import json
import os
import random
import secrets
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import text

from baatcheet.exports.importing.jobs import import_conversations
from baatcheet.exports.jobs import render_export
from baatcheet.exports.keys import export_key
from tests import zygote
from tests.conftest import ROOT, Caller
from tests.exports.application import Running
from tests.exports.conftest import ended
from tests.exports.test_exports_api import ask, recorded, talk
from tests.exports.test_imports_api import PATH, outcomes
from tests.exports.test_own_format import one, said

AT_ONCE = 2  # workers
EXPORT_STEPS = 12
IMPORT_STEPS = 20


async def die(running: Running, kind: str, queue: str, step: int) -> int | None:
    """Run a worker that is killed at `step`; how many steps there are, if it came to its end."""
    arguments = [kind, queue, str(step), running.database_url, str(running.folder)]
    process = zygote.popen(["-m", "tests.exports.dying", *arguments], cwd=ROOT, stdout=subprocess.PIPE)
    with process:
        try:
            said, _ = await asyncio.to_thread(process.communicate, timeout=60)
        finally:
            process.kill()
    if process.returncode == 0:
        return int(said)
    assert process.returncode == -9, process.returncode
    return None


async def onto(running: Running, job_id: str, queue: str) -> None:
    """Give a job to the one worker that is to be killed by it."""
    async with running.db.system() as session:
        await session.execute(
            text("UPDATE jobs SET queue = :queue WHERE id = :id"), {"queue": queue, "id": job_id}
        )


def steps(known: int) -> list[int]:
    """Some of the steps that there are, by chance; with KILLS=all every one."""
    every = list(range(1, known + 1))
    return every if os.environ.get("KILLS") == "all" else random.sample(every, 4)


async def kill_each(running: Running, kind: str, jobs: Sequence[str], at: Sequence[int]) -> list[str]:
    """Run each job on a queue of its own until it kills its worker at its step. The queues."""
    queues = [f"test.{secrets.token_hex(4)}" for _ in jobs]
    for job_id, queue in zip(jobs, queues, strict=True):
        await onto(running, job_id, queue)
    room = asyncio.Semaphore(AT_ONCE)

    async def one_of_them(queue: str, step: int) -> int | None:
        async with room:
            return await die(running, kind, queue, step)

    ends = await asyncio.gather(*map(one_of_them, queues, at))
    assert ends == [None] * len(jobs), "there are fewer steps"
    return queues


@pytest.mark.timeout(500)
async def test_an_export_whose_worker_is_killed_at_any_step_is_made_once(
    alice: Caller, running: Running
) -> None:
    conversation = await talk(alice, "Where is Attabad?", "In Gojal.")
    at = steps(EXPORT_STEPS)
    made = [await ask(alice, conversation, format="json") for _ in at]
    queues = await kill_each(running, "export", [one["job"]["id"] for one in made], at)
    kinds = [replace(render_export, queue=queue).bind(running.export_parts) for queue in queues]
    async with running.working(kinds):
        for one in made:
            job = await ended(alice, one["job"])
            assert job["status"] == "succeeded", job
    sizes = set()
    for one in made:
        export = (await alice.get(f"/api/v1/exports/{one['export']['id']}")).json()
        assert export["status"] == "completed"
        file = await alice.get(f"/api/v1/exports/{export['id']}/download")
        assert len(file.json()["conversations"][0]["messages"]) == 2
        sizes.add(export["size"])
    assert len(sizes) == 1
    told = [data["export_id"] for data in await recorded(running, alice, "export.completed")]
    assert sorted(told) == sorted(one["export"]["id"] for one in made)
    kept = {stored.key async for stored in running.blobs.keys(f"exports/{alice.user_id}/")}
    assert kept == {export_key(alice.user_id, one["export"]["id"]) for one in made}


@pytest.mark.timeout(500)
async def test_an_import_whose_worker_is_killed_at_any_step_makes_each_conversation_once(
    alice: Caller, running: Running
) -> None:
    made: list[dict[str, Any]] = []
    at = steps(IMPORT_STEPS)
    for number in at:
        content = one([said(), said("b", parent_id="a", content=f"file {number}")])
        content["conversations"] += [
            {"title": "bad", "messages": [said(role="x")]},
            {"title": "y", "messages": [said(content=f"second of file {number}")]},
        ]
        answer = await alice.post(PATH, files={"file": ("a.json", json.dumps(content))})
        assert answer.status_code == 202, answer.text
        made.append(answer.json())
    queues = await kill_each(running, "import", [each["job"]["id"] for each in made], at)
    kinds = [replace(import_conversations, queue=queue).bind(running.import_parts) for queue in queues]
    async with running.working(kinds):
        for each in made:
            job = await ended(alice, each["job"])
            assert job["status"] == "succeeded", job
    made_there = set()
    for each in made:
        imported = (await alice.get(f"/api/v1/imports/{each['import']['id']}")).json()
        assert (imported["status"], imported["imported"], imported["failed"]) == ("completed", 2, 1)
        assert imported["messages"] == 3
        report = await outcomes(alice, imported)
        made_there |= {outcome["conversation_id"] for outcome in report if outcome["conversation_id"]}
    async with running.db.system() as session:
        there = await session.execute(
            text("SELECT id::text FROM conversations WHERE user_id = :user"), {"user": alice.user_id}
        )
        assert set(there.scalars()) == made_there
        messages = await session.scalar(
            text("SELECT count(*) FROM messages WHERE user_id = :user"), {"user": alice.user_id}
        )
        assert messages == 3 * len(made)


async def test_there_are_as_many_steps_as_are_known(alice: Caller, running: Running) -> None:
    export = await ask(alice, await talk(alice, "hello", "you"), format="json")
    content = one([said()])
    content["conversations"] += [{"messages": [said(role="x")]}, {"messages": [said(content="y")]}]
    answer = await alice.post(PATH, files={"file": ("a.json", json.dumps(content))})
    jobs = {"export": export["job"]["id"], "import": answer.json()["job"]["id"]}
    for kind, job_id in jobs.items():
        queue = f"test.{secrets.token_hex(4)}"
        await onto(running, job_id, queue)
        known = EXPORT_STEPS if kind == "export" else IMPORT_STEPS
        assert await die(running, kind, queue, 1000) == known, kind
