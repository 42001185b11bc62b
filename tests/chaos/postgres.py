"""A PostgreSQL of the tests' own, and every way in which it may be away."""

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

import asyncpg

from baatcheet.platform.database import DatabaseUnavailable, connect
from tests.chaos.gate import Gate
from tests.recovery.own_database import OwnDatabase

CONNECTIONS = 40  # that it allows: few, so that they are soon taken
PATIENCE = 30.0  # seconds that PostgreSQL may take to start or to end
ROUND_TRIP = 6.0  # seconds, where it is slow: a unit of work of two statements is too late


class Postgres(OwnDatabase):
    """Reached through `gate`: `address` is what a server is given, `url` the way round it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        (configuration,) = folder.glob("**/postgresql.conf")
        with configuration.open("a") as file:
            file.write(f"max_connections = {CONNECTIONS}\n")
        self._socket = str(next(folder.glob("**/.s.PGSQL.5432")))
        self.gate = Gate(lambda: asyncio.open_unix_connection(self._socket))
        self._hogs: list[Any] = []
        self.stop_server()
        asyncio.run(self.start_server())
        self.gate.__enter__()

    @property
    def address(self) -> str:
        return f"postgresql://baatcheet@127.0.0.1:{self.gate.port}/baatcheet"

    def stop(self) -> None:
        self.gate.__exit__(None, None, None)
        super().stop()

    # Outages -------------------------------------------------------------------------------------------------

    def stop_server(self) -> None:
        """As an administrator stops it: everybody is hung up on."""
        server = int(self._pidfile.read_text().split()[0])
        os.kill(server, signal.SIGINT)
        deadline = time.monotonic() + PATIENCE
        while self._pidfile.exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    async def start_server(self) -> None:
        """Return once it answers. To be called from the main thread."""
        deadline = time.monotonic() + PATIENCE
        while True:
            self.come_back()
            try:
                connection = await connect(self.url, timeout=1)
            except DatabaseUnavailable:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.02)
            else:
                await connection.close()
                return

    async def take_all_connections(self) -> None:
        """Others have every connection; who had one has lost it."""
        first = await connect(self.url)
        self._hogs.append(first)
        others = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid <> ALL($1::int[]) "
        others += "AND backend_type = 'client backend'"
        deadline = time.monotonic() + PATIENCE
        while True:
            await self._take_free_ones()
            ours = [hog.get_server_pid() for hog in self._hogs]
            if not await first.fetchval(others, ours):
                return
            assert time.monotonic() < deadline

    async def _take_free_ones(self) -> None:
        address = {"host": str(Path(self._socket).parent), "user": "baatcheet", "database": "baatcheet"}
        try:
            while True:
                self._hogs.append(await asyncpg.connect(**address))
        except asyncpg.TooManyConnectionsError:
            return

    async def give_connections_back(self) -> None:
        hogs, self._hogs = self._hogs, []
        await asyncio.gather(*(hog.close() for hog in hogs))

    async def set_read_only(self, on: bool, *, sessions: bool) -> None:
        """Refuse every change, or no longer.

        `sessions`: only those that begin from now on are concerned, and those that there were are ended: who was
        refused once is refused for as long as its connection lasts, as one that leads to a server that is no longer the
        primary.
        """
        connection = await connect(self.url)
        try:
            if sessions:
                change = (
                    "SET default_transaction_read_only = on" if on else "RESET default_transaction_read_only"
                )
                await connection.execute("SET default_transaction_read_only = off")
                await connection.execute(f"ALTER DATABASE baatcheet {change}")
                if on:
                    await connection.execute(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                        "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
                    )
            else:
                change = (
                    "SET default_transaction_read_only = on" if on else "RESET default_transaction_read_only"
                )
                await connection.execute(f"ALTER SYSTEM {change}")
                await connection.execute("SELECT pg_reload_conf()")
        finally:
            await connection.close()
