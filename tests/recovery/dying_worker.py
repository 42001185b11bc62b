"""A worker as it is, killed at a step: `python -m tests.recovery.dying_worker STEP`.

A step lies before and after each of the worker's dealings with the world while a job runs in it: a transaction, its own
or the job's, and a file that is kept or deleted. Killed, it ends as `kill -9` ends it.
"""

import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from baatcheet.entrypoints import worker
from baatcheet.jobs.running import Runner
from baatcheet.jobs.store import Claimed
from baatcheet.platform.database import Database
from baatcheet.platform.settings import load
from tests.dying_blobs import dying_blobs

_steps_left = 0
_runners: set[Runner] = set()


def step() -> None:
    global _steps_left  # noqa: PLW0603 - of this process
    if any(runner.known for runner in _runners):
        _steps_left -= 1
        if _steps_left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


class DyingRunner(Runner):
    def begin(self, claimed: Claimed, ended: Callable[[], None]) -> None:
        _runners.add(self)
        super().begin(claimed, ended)


class DyingDatabase(Database):
    @asynccontextmanager
    async def _connection(self, limit: float | None) -> AsyncIterator[Any]:
        step()
        async with super()._connection(limit) as connection:
            yield connection
        step()


if __name__ == "__main__":
    _steps_left = int(sys.argv[1])
    for name, dying in {
        "baatcheet.entrypoints.worker.Database": DyingDatabase,
        "baatcheet.jobs.worker.Runner": DyingRunner,
        "baatcheet.platform.blobs.FolderBlobs": dying_blobs(step),
    }.items():
        module, _, attribute = name.rpartition(".")
        assert attribute in vars(sys.modules[module])
        setattr(sys.modules[module], attribute, dying)
    worker.work(load())
