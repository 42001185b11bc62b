"""A worker process whose jobs do nothing: `python -m benchmarks.jobs.noop DATABASE_URL ROOM`. Ends on SIGTERM."""

import asyncio
import signal
import sys
from collections.abc import Sequence
from functools import partial

import msgspec
import uvloop
from pydantic import SecretStr

from baatcheet.jobs.declaration import Job, job
from baatcheet.jobs.worker import Worker
from baatcheet.platform.database import Database, connect
from baatcheet.platform.settings import DatabaseSettings

QUEUE = "benchmark"


class Nothing(msgspec.Struct, frozen=True):
    """The payload of a job that does nothing."""

    number: int = 0


@job("benchmark.nothing", queue=QUEUE)
async def nothing(job: Job[Nothing], parts: object) -> None:
    """Nothing, as often as it is run."""


async def work(url: str, room: int) -> None:
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    db = Database(DatabaseSettings(url=SecretStr(url)), pool_size=4)
    worker = Worker(db, partial(connect, url), [nothing.bind(None)], rooms={QUEUE: room})
    await worker.start()
    print("ready", flush=True)
    await stopping.wait()
    await worker.stop()
    await db.close()


def main(arguments: Sequence[str]) -> None:
    url, room = arguments
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work(url, int(room)))


if __name__ == "__main__":
    main(sys.argv[1:])
