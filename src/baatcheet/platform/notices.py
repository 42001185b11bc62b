"""Hearing PostgreSQL's notices (LISTEN) on a connection of one's own, for as long as the process runs."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from baatcheet.platform.database import DatabaseUnavailable, is_unavailable
from baatcheet.platform.logging import get_logger

log = get_logger(__name__)

AWAY_PAUSE: Final = 0.5  # seconds until a lost connection is made anew
PROBE: Final = 30.0  # seconds between two looks at whether the connection is alive
PROBE_SECONDS: Final = 5.0


async def listen(
    connect: Callable[[], Awaitable[Any]],
    channel: str,
    heard: Callable[[], None],
    *,
    while_wanted: asyncio.Event | None = None,
) -> None:
    """Call `heard` at every notice on `channel`, and whenever some may have been missed. Runs until cancelled.

    `connect` opens a connection to the server itself: a transaction pooler would lend its session to others.
    `while_wanted`: no connection is opened before it is set. Whoever relies on this polls as well: a notice is only
    the quicker way.
    """
    while True:
        if while_wanted is not None:
            await while_wanted.wait()
        try:
            connection = await connect()
        except Exception as error:  # noqa: BLE001 - it is tried again, and polled meanwhile
            if not (isinstance(error, DatabaseUnavailable) or is_unavailable(error)):
                log.error("notices.not_connected", error=error, channel=channel)
            await asyncio.sleep(AWAY_PAUSE)
            continue
        try:
            await _hear(connection, channel, heard)
        except Exception as error:  # noqa: BLE001 - it is tried again, and polled meanwhile
            if not is_unavailable(error):
                log.error("notices.listening_failed", error=error, channel=channel)
            await asyncio.sleep(AWAY_PAUSE)
        finally:
            connection.terminate()


async def _hear(connection: Any, channel: str, heard: Callable[[], None]) -> None:
    """Until the connection is lost."""
    lost = asyncio.Event()
    connection.add_termination_listener(lambda _: lost.set())
    await connection.add_listener(channel, lambda *_: heard())
    heard()  # what was told before was not heard
    while not lost.is_set():
        try:
            async with asyncio.timeout(PROBE):
                await lost.wait()
        except TimeoutError:
            await connection.execute("SELECT 1", timeout=PROBE_SECONDS)
