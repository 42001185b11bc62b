"""A worker of webhooks in a process of its own, to be killed: `python -m tests.webhooks.working DATABASE_URL`."""

import asyncio
import sys

from baatcheet.jobs.worker import Rhythm
from tests.webhooks.conftest import opened


async def run(url: str) -> None:
    async with opened(url) as hooks, hooks.working(room=8, rhythm=Rhythm.of(3.0)):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1]))
