"""`baatcheet worker`: background work in a process of its own.

What there is of it today keeps turns truthful: it ends, as interrupted, those whose process has died, and forgets
what is out of date. It runs in every API process too, so a deployment needs no worker for it; one on another machine
does it when every API process is gone.
"""

import asyncio
import signal
from functools import partial

from baatcheet.chat.keeper import Keeper
from baatcheet.chat.store import TurnStore
from baatcheet.kit.ids import new_id
from baatcheet.platform.database import Database, connect
from baatcheet.platform.logging import get_logger
from baatcheet.platform.settings import Settings

log = get_logger(__name__)

POOL_SIZE = 2


async def run(settings: Settings) -> None:
    """Work until SIGTERM or SIGINT. A database that is away is waited for."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    db = Database(settings.database, pool_size=POOL_SIZE, name="baatcheet worker")
    url = settings.database.url
    assert url is not None
    keeper = Keeper(
        TurnStore(db, partial(connect, url.get_secret_value())), new_id(), kind="worker", pool_size=POOL_SIZE
    )
    await keeper.start()
    log.info("worker.started")
    try:
        await stopping.wait()
    finally:
        await keeper.stop()
        await db.close()
