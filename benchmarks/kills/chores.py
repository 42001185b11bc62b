"""Jobs of every shape, which may kill their worker at a given step."""

import asyncio
import os
import random
import signal
from dataclasses import dataclass

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from baatcheet.events.outbox import record
from baatcheet.jobs.declaration import Job, job
from baatcheet.jobs.enqueueing import enqueue
from baatcheet.jobs.isolation import Sandbox
from baatcheet.platform.blobs import FolderBlobs
from benchmarks.kills.pages import Pages, read_pages

QUEUE = "chores"
ATTEMPTS = 100  # a kill counts as an attempt, and none of these jobs shall die of bad luck

_EFFECT = text("INSERT INTO effects (job_id, what) VALUES (:job, :what)")


class Chore(msgspec.Struct, frozen=True):
    """`die_at`: the step at which the first attempt kills its worker; 0: none."""

    die_at: int = 0


@dataclass(frozen=True)
class Tools:
    blobs: FolderBlobs
    sandbox: Sandbox


def step(job: Job[Chore], number: int) -> None:
    if job.attempt == 1 and job.payload.die_at == number:
        os.kill(os.getpid(), signal.SIGKILL)


async def effect(session: AsyncSession, job: Job[Chore], what: str) -> None:
    """What must be there once: a row, and an event."""
    await session.execute(_EFFECT, {"job": job.id, "what": what})
    told = {"export_id": job.id, "conversation_id": None, "format": what, "size": 0}
    await record(session, "export.completed", told, user=job.owner)


@job("chores.row", queue=QUEUE, attempts=ATTEMPTS)
async def write_row(job: Job[Chore], tools: Tools) -> None:
    """A row and an event, which are there once."""
    step(job, 1)
    await asyncio.sleep(random.uniform(0, 0.2))
    step(job, 2)
    async with job.finish() as session:
        await effect(session, job, "row")
        step(job, 3)
    step(job, 4)


@job("chores.file", queue=QUEUE, attempts=ATTEMPTS)
async def write_file(job: Job[Chore], tools: Tools) -> None:
    """A file under the job's id, whole, and a row and an event that tell of it."""
    step(job, 1)
    async with tools.blobs.scratch() as folder:
        path = folder / "made"
        with path.open("wb") as made:
            for _ in range(4):
                made.write(bytes(16_384))
                await asyncio.sleep(random.uniform(0, 0.05))
        step(job, 2)
        await tools.blobs.put(f"chores/{job.id}", path)
    step(job, 3)
    async with job.finish({"size": 65_536}) as session:
        await effect(session, job, "file")
        step(job, 4)
    step(job, 5)


@job("chores.sandboxed", queue=QUEUE, attempts=ATTEMPTS)
async def read(job: Job[Chore], tools: Tools) -> None:
    """Pages that a process of its own has read; a row and an event tell of it."""
    step(job, 1)

    async def heard(percent: float, phrase: str) -> None:
        step(job, 2)
        await job.progress(percent, phrase)

    await tools.sandbox.run(read_pages, Pages(20), on_progress=heard)
    step(job, 3)
    async with job.finish() as session:
        await effect(session, job, "sandboxed")
        step(job, 4)
    step(job, 5)


@job("chores.chain", queue=QUEUE, attempts=ATTEMPTS)
async def begin_chain(job: Job[Chore], tools: Tools) -> None:
    """Another job, which is there once."""
    step(job, 1)
    async with job.finish() as session:
        await effect(session, job, "chain")
        step(job, 2)
        await enqueue(session, write_row, Chore(), owner=job.owner, subject=job.id)
        step(job, 3)
    step(job, 4)


KINDS = {write_row: 4, write_file: 5, read: 5, begin_chain: 4}
"""Each kind with how many steps it has; the last comes after its end, so whoever dies there has done it."""
