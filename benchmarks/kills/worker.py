"""A worker process, which says its id once it works.

`python -m benchmarks.kills.worker DATABASE_URL FOLDER LEASE ROOM`
"""

import asyncio
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import uvloop
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from baatcheet.events.model import Event
from baatcheet.events.relay import Relay
from baatcheet.jobs.isolation import Sandbox
from baatcheet.jobs.worker import Rhythm, Worker
from baatcheet.platform.blobs import FolderBlobs
from baatcheet.platform.database import Database, connect
from baatcheet.platform.settings import DatabaseSettings
from benchmarks.kills.chores import KINDS, QUEUE, Tools

_TOLD = text("INSERT INTO told (event_id, job_id) VALUES (:event, CAST(:job AS uuid))")


async def hear(session: AsyncSession, events: Sequence[Event]) -> None:
    """A subscriber of the relay: what follows from an event is there once."""
    for event in events:
        if event.type == "export.completed":
            await session.execute(_TOLD, {"event": event.id, "job": event.data["export_id"]})


async def work(url: str, folder: Path, lease: float, room: int) -> None:
    db = Database(DatabaseSettings(url=SecretStr(url)), pool_size=4, name="chores")
    async with Sandbox(processes=2) as sandbox:
        tools = Tools(FolderBlobs(folder), sandbox)
        worker = Worker(
            db,
            partial(connect, url),
            [kind.bind(tools) for kind in KINDS],
            rooms={QUEUE: room},
            rhythm=Rhythm.of(lease),
        )
        await worker.start()
        print(worker.id, flush=True)
        orphaned = asyncio.create_task(_until_orphaned())
        relaying = asyncio.create_task(Relay(db, {"hear": hear}).run())
        await asyncio.wait([orphaned, relaying], return_when=asyncio.FIRST_COMPLETED)
        os._exit(1)


async def _until_orphaned() -> None:
    """Nobody is to be left behind by a trial that was broken off."""
    parent = os.getppid()
    while os.getppid() == parent:  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(1)


def main(arguments: Sequence[str]) -> None:
    url, folder, lease, room = arguments
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work(url, Path(folder), float(lease), int(room)))


if __name__ == "__main__":
    main(sys.argv[1:])
