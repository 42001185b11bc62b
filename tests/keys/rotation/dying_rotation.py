"""Rotations as they are, each in a process of its own that is killed at a step: `python -m …dying_rotation`.

Reads lines of JSON: `{"step": 7, "rotation": …}`; a step lies before and after each dealing with the world: a
transaction, a change of the store, a request to the provider. Answers each with how its process ended. Step 0: it is
not killed. A process is a fork of this one, so that hundreds take seconds.
"""

import asyncio
import json
import os
import signal
import sys
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp
from pydantic import SecretStr

from baatcheet.keys.probing import Probed
from baatcheet.keys.rotation.machine import Pace, RotationParts, Rotator
from baatcheet.keys.rotation.provisioners import OpenRouterKeys
from baatcheet.keys.secret import SecretKey
from baatcheet.migrations import tables
from baatcheet.platform.database import Database
from baatcheet.platform.http import client_session
from baatcheet.platform.settings import DatabaseSettings
from tests.keys.rotation.fake_providers import PROVISIONING_KEY
from tests.keys.rotation.fake_store import FakeRing, FakeStore

QUICK = Pace(watch=0.03, patience=60, serve=0.2, drain=0.2, look=0.01, ripen=0.01, ripenings=2)

_steps_left = 0

assert tables.metadata.tables  # every table is known, so that no fork has to learn them


def step() -> None:
    global _steps_left  # noqa: PLW0603 - of this process
    _steps_left -= 1
    if _steps_left == 0:
        os.kill(os.getpid(), signal.SIGKILL)


class DyingDatabase(Database):
    @asynccontextmanager
    async def _connection(self, limit: float | None) -> AsyncIterator[Any]:
        step()
        async with super()._connection(limit) as connection:
            yield connection
        step()


async def _before(_session: object, _context: object, _parameters: object) -> None:
    step()


def prober(session: aiohttp.ClientSession, url: str) -> Any:
    async def probe(_provider: str, key: SecretKey) -> Probed:
        async with session.get(f"{url}/probe", headers={"Authorization": f"Bearer {key.reveal()}"}) as answer:
            return Probed("good" if answer.status == 200 else "refused", f"status {answer.status}")

    return probe


async def rotate(order: dict[str, Any]) -> None:
    tracing = aiohttp.TraceConfig()
    tracing.on_request_start.append(_before)
    tracing.on_request_end.append(_before)
    settings = DatabaseSettings(url=SecretStr(order["database"]))
    db = DyingDatabase(settings, pool_size=2, name="dying rotation")
    async with client_session() as plain, aiohttp.ClientSession(trace_configs=[tracing]) as traced:
        maker = OpenRouterKeys(traced, lambda: SecretKey(PROVISIONING_KEY), f"{order['provider']}/openrouter")
        parts = RotationParts(
            db,
            FakeRing(FakeStore(Path(order["store"]), step=step)),
            prober(plain, order["provider"]),
            {order["name"]: maker} if order["makes"] else {},
            QUICK,
        )
        await Rotator(parts).run(UUID(order["rotation"]))
    await db.close()


def main() -> None:
    global _steps_left  # noqa: PLW0603 - of this process
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            _steps_left = order["step"]
            try:
                asyncio.run(rotate(order))
            except BaseException:  # noqa: BLE001 - whatever it is, the parent reads of it
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(json.dumps({"ended": os.waitstatus_to_exitcode(status)}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
