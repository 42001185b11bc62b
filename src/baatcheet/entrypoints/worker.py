"""The worker process: what it is made of, and running it (`python -m baatcheet.entrypoints.worker`).

It runs jobs, relays events, and keeps turns truthful: it ends, as interrupted, those whose process has died. Any
number of them may run, on any machine; `baatcheet serve` runs one beside its API processes.
"""

import argparse
import asyncio
import gc
import signal
from collections.abc import Sequence
from contextlib import AsyncExitStack

import uvloop

from baatcheet.chat.keeper import Keeper
from baatcheet.chat.store import TurnStore
from baatcheet.context.counting import count
from baatcheet.entrypoints.background import Background, open_background
from baatcheet.entrypoints.notices import direct_connection, hears_notices
from baatcheet.entrypoints.refusal import refuse
from baatcheet.jobs.worker import Rhythm, Worker
from baatcheet.kit.ids import new_id
from baatcheet.platform import logging
from baatcheet.platform.database import Database, UnusableDatabaseUrl
from baatcheet.platform.logging import get_logger
from baatcheet.platform.pool import plan_pool
from baatcheet.platform.settings import JobSettings, Settings, SettingsError, load
from baatcheet.platform.telemetry import Metrics, Sampler

log = get_logger(__name__)

# Jobs of a queue that one worker runs at once.
CONCURRENCY = {
    "webhook": 200,
    "email": 4,
    "keys": 4,
    "ocr": 2,
    "audio": 2,
    "export": 2,
    "import": 2,
    "summaries": 2,
}


class UnknownQueues(SettingsError):
    """A worker was told to serve queues that there are not."""


async def run(settings: Settings, queues: Sequence[str] | None = None) -> None:
    """Work until SIGTERM or SIGINT; a second one ends the grace period. A database that is away is waited for.

    `queues`: those to serve; None: all. Raises SettingsError.
    """
    stopping, at_once = asyncio.Event(), asyncio.Event()

    def stop() -> None:
        (at_once if stopping.is_set() else stopping).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    async with AsyncExitStack() as stack:
        processes = settings.server.processes + max(1, settings.jobs.workers)
        plan = await plan_pool(settings.database, processes)
        most, warm = plan.first
        db = Database(
            settings.database, pool_size=most, name="baatcheet worker", warm=warm, divide=plan.share
        )
        stack.push_async_callback(db.close)
        keeping = asyncio.create_task(db.keep(), name="database_pool")
        stack.callback(keeping.cancel)
        connection = direct_connection(settings)
        metrics = Metrics()
        sampler = Sampler(metrics, pool=db.pool_use)
        sampler.start()
        stack.push_async_callback(sampler.close)
        background = await open_background(settings, db, stack, metrics)
        known = {bound.kind.queue for bound in background.kinds}
        if queues is not None and (wrong := set(queues) - known):
            raise UnknownQueues(
                f"--queues: there is no queue {', '.join(sorted(wrong))}. There are: {', '.join(sorted(known))}."
            )
        keeper = Keeper(TurnStore(db, connection), new_id(), kind="worker", pool_size=db.pool_size)
        await keeper.start()
        stack.push_async_callback(keeper.stop)
        worker = Worker(
            db,
            connection,
            background.kinds,
            rooms=rooms(settings.jobs),
            queues=queues,
            schedules=background.schedules,
            rhythm=Rhythm.of(settings.jobs.lease_seconds),
            listens=hears_notices(settings, db),
            observe=metrics.job_ended,
        )
        await asyncio.to_thread(count, "")  # the vocabulary is read now, and not in the middle of other jobs
        await worker.start()
        gc.collect()
        gc.freeze()
        log.info("worker.started", queues=sorted(queues or known))
        try:
            await _serve(background, stopping)
        finally:
            await _leave(worker, settings.server.grace_seconds, at_once)
    log.info("worker.stopped")


async def _serve(background: Background, stopping: asyncio.Event) -> None:
    """Relay events and index what was said, until it is time to stop."""
    endless = [asyncio.create_task(one) for one in (background.relay.run(), background.indexer.run())]
    try:
        waiting = asyncio.create_task(stopping.wait())
        await asyncio.wait([waiting, *endless], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        for one in endless:
            if one.done():
                await one  # it ends with an error only
    finally:
        for one in endless:
            one.cancel()
        await asyncio.wait(endless)


async def _leave(worker: Worker, grace: float, at_once: asyncio.Event) -> None:
    ending = asyncio.create_task(worker.stop(grace))
    impatient = asyncio.create_task(at_once.wait())
    await asyncio.wait([ending, impatient], return_when=asyncio.FIRST_COMPLETED)
    impatient.cancel()
    if not ending.done():
        worker.hurry()
    await ending


def rooms(settings: JobSettings) -> dict[str, int]:
    """How many jobs of each queue a worker runs at once."""
    return CONCURRENCY | settings.concurrency


def work(settings: Settings, queues: Sequence[str] | None = None) -> None:
    """`run`, on an event loop of its own."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(settings, queues))


def main() -> None:
    parser = argparse.ArgumentParser(description="One worker. `baatcheet serve` runs these.")
    parser.add_argument("--queues", help="comma-separated; all of them where it is left out")
    arguments = parser.parse_args()
    try:
        settings = load()
        logging.configure(settings.telemetry)
        logging.register_secrets(settings)
        work(settings, arguments.queues.split(",") if arguments.queues else None)
    except (SettingsError, UnusableDatabaseUrl) as error:
        refuse(error)


if __name__ == "__main__":
    main()
