"""Compactions as jobs: whichever worker is free does them, and none is lost with a process."""

import asyncio
import time
from uuid import UUID

from baatcheet.context.compaction import Compaction, Compactor
from baatcheet.jobs.declaration import Job, job
from baatcheet.jobs.enqueueing import enqueue
from baatcheet.platform.database import Database, DatabaseUnavailable
from baatcheet.platform.logging import get_logger

log = get_logger(__name__)

ASKED_AGAIN = 10.0  # seconds in which a second request for the same conversation is left out
MOST_REMEMBERED = 10_000  # conversations


@job("summaries.compact", queue="summaries", visible=False, seconds=1800)
async def compact(job: Job[Compaction], compactor: Compactor) -> None:
    """What has left a branch's window is indexed and summarised. What is done already is left as it is."""
    await compactor.run(job.payload)


class QueuedCompactions:
    """Enqueues compactions, one unfinished job a conversation."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._asked: dict[UUID, float] = {}
        self._tasks: dict[UUID, asyncio.Task[None]] = {}
        self._closed = False

    def submit(self, work: Compaction) -> None:
        now = time.monotonic()
        if self._closed or now - self._asked.get(work.conversation, float("-inf")) < ASKED_AGAIN:
            return
        if len(self._asked) >= MOST_REMEMBERED:
            self._asked.clear()
        self._asked[work.conversation] = now
        task = asyncio.create_task(self._enqueue(work), name=f"compaction of {work.conversation}")
        self._tasks[work.conversation] = task
        task.add_done_callback(lambda _: self._tasks.pop(work.conversation, None))

    async def _enqueue(self, work: Compaction) -> None:
        try:
            async with self._db.system() as session:
                await enqueue(session, compact, work, owner=work.user, key=str(work.conversation))
        except DatabaseUnavailable:
            self._asked.pop(work.conversation, None)
            log.warning("context.compacted_later", conversation_id=str(work.conversation))
        except Exception as error:  # noqa: BLE001 - the turn is over: nobody else would be told
            log.error("context.compaction_not_queued", error=error, conversation_id=str(work.conversation))

    async def settle(self, conversation: UUID) -> None:
        task = self._tasks.get(conversation)
        if task is not None:
            await asyncio.wait([task])

    async def close(self, patience: float) -> None:
        self._closed = True
        tasks = list(self._tasks.values())
        if tasks:
            await asyncio.wait(tasks, timeout=patience)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=1)
