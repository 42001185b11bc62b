"""A worker that is killed at a step of its one job: `python -m tests.exports.dying KIND QUEUE STEP DATABASE FOLDER`.

A step is what lies between two of the handler's dealings with the world: a transaction that begins or has ended, a file
that is about to be kept or was. Killed, it ends as `kill -9` ends it; with fewer steps than that, it prints them.
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from baatcheet.context.history import tokens_of
from baatcheet.events.outbox import record
from baatcheet.exports import jobs as export_jobs
from baatcheet.exports import repository
from baatcheet.exports.importing.jobs import ImportParts, import_conversations
from baatcheet.exports.jobs import ExportParts, render_export
from baatcheet.jobs.declaration import BoundKind
from baatcheet.jobs.isolation import Sandbox
from baatcheet.jobs.worker import Worker
from baatcheet.platform.database import Database, connect
from baatcheet.platform.settings import DatabaseSettings, ExportSettings
from tests.dying_blobs import dying_blobs
from tests.exports.application import LIMITS, QUICK

_steps = 0
_last = 0


def step() -> None:
    global _steps  # noqa: PLW0603 - of this process
    _steps += 1
    if _steps == _last:
        os.kill(os.getpid(), signal.SIGKILL)


class DyingDatabase(Database):
    @asynccontextmanager
    async def tenant(self, user_id: UUID, *, limit: float | None = None) -> AsyncIterator[AsyncSession]:
        step()
        async with super().tenant(user_id, limit=limit) as session:
            yield session
        step()


def dying(function: Any) -> Any:
    """`function`, with a step before and after."""

    async def call(*arguments: Any, **named: Any) -> Any:
        step()
        result = await function(*arguments, **named)
        step()
        return result

    return call


async def main(kind: str, queue: str, url: str, folder: Path) -> None:
    database = DatabaseSettings(url=SecretStr(url))
    db, blobs, settings = DyingDatabase(database, pool_size=3), dying_blobs(step)(folder), ExportSettings()
    vars(export_jobs)["record"] = dying(record)
    repository.end_import = dying(repository.end_import)
    async with Sandbox() as sandbox:
        bound: BoundKind
        if kind == "export":
            bound = replace(render_export, queue=queue).bind(ExportParts(db, blobs, sandbox, settings))
        else:
            parts = ImportParts(db, blobs, sandbox, settings, tokens_of, LIMITS)
            bound = replace(import_conversations, queue=queue).bind(parts)
        engine = Database(database, pool_size=3)
        worker = Worker(engine, partial(connect, url), [bound], rooms={}, rhythm=QUICK)
        await worker.start()
        unfinished = text(
            "SELECT count(*) FROM jobs WHERE queue = :queue AND status IN ('queued', 'running', 'waiting')"
        )
        while True:
            async with engine.system() as session:
                if await session.scalar(unfinished, {"queue": queue}) == 0:
                    break
            await asyncio.sleep(0.05)
        await worker.stop(5)
        await engine.close()
    await db.close()
    print(_steps)  # noqa: T201 - for who started it


if __name__ == "__main__":
    _last = int(sys.argv[3])
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[4], Path(sys.argv[5])))
