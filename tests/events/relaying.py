"""A process that relays, for tests that kill it: `python -m tests.events.relaying DATABASE_URL`.

With `freeze` after the address it stops in the middle of its first batch, as a paused machine does.
"""

import asyncio
import os
import random
import signal
import sys
from collections.abc import Sequence

from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from baatcheet.events.model import Event
from baatcheet.events.relay import Relay
from baatcheet.platform.database import Database
from baatcheet.platform.settings import DatabaseSettings

_EFFECT = text("INSERT INTO effects (name) VALUES (:name)")


async def effects(session: AsyncSession, events: Sequence[Event]) -> None:
    """One row for each event: a second one for the same event would fail, and put it aside."""
    for event in events:
        if random.random() < 0.05:  # more moments at which to be killed
            await asyncio.sleep(0.002)
        await session.execute(_EFFECT, {"name": str(event.id)})


async def freeze(session: AsyncSession, events: Sequence[Event]) -> None:
    print("frozen", flush=True)  # noqa: T201 - to the test
    os.kill(os.getpid(), signal.SIGSTOP)


async def main(url: str, how: str = "") -> None:
    db = Database(DatabaseSettings(url=SecretStr(url)), pool_size=2, name="relaying")
    if how == "freeze":
        await Relay(db, {"freeze": freeze}, frozen_seconds=1.5).relay()
    relay = Relay(db, {"effects": effects}, batch=40)
    await relay.relay()
    print("ready", flush=True)  # noqa: T201 - to the test
    await relay.run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
