"""What PgBouncer says of its own limits, where its console may be asked (https://www.pgbouncer.org/usage.html)."""

import asyncio
from dataclasses import dataclass
from typing import Any, Final

import asyncpg

from baatcheet.platform.database import DatabaseUnavailable, connect, parse_url

CONSOLE: Final = "pgbouncer"
PATIENCE: Final = 5.0  # seconds for an answer


@dataclass(frozen=True)
class BouncerLimits:
    """How many connections PgBouncer takes, and how many it has to PostgreSQL for this database and user."""

    clients: int  # max_client_conn, of all databases together
    pool_size: int  # to the server …
    reserve: int  # … and these when clients have waited for a while
    mode: str  # session, transaction, statement

    @property
    def servers(self) -> int:
        return self.pool_size + self.reserve


async def bouncer_limits(database_url: str) -> BouncerLimits | None:
    """The limits of the PgBouncer at `database_url`; None where this user may not ask (`stats_users`)."""
    database = parse_url(database_url)[0].database
    try:
        console = await connect(database_url, database=CONSOLE)
    except (DatabaseUnavailable, asyncpg.PostgresError):
        return None
    try:
        async with asyncio.timeout(PATIENCE):
            asked = _Console(console)
            config = {row["key"]: row["value"] or "" for row in await asked.rows("SHOW CONFIG")}
            databases = {row["name"]: row for row in await asked.rows("SHOW DATABASES")}
    except (TimeoutError, OSError, ValueError, KeyError):
        return None
    finally:
        console.terminate()
    mine = databases.get(database or "", {})
    most = _most(mine.get("max_connections"), config.get("max_db_connections"))
    size = int(mine.get("pool_size") or config["default_pool_size"])
    reserve = int(mine.get("reserve_pool") or mine.get("reserve_pool_size") or config["reserve_pool_size"])
    return BouncerLimits(
        clients=int(config["max_client_conn"]),
        pool_size=min(size, most) if most else size,
        reserve=min(reserve, max(0, most - size)) if most else reserve,
        mode=mine.get("pool_mode") or config["pool_mode"],
    )


def _most(*limits: str | None) -> int:
    """The first limit that is one; 0 means none."""
    return next((int(one) for one in limits if one and int(one)), 0)


class _Console:
    """The console speaks the simple query protocol alone, whose rows asyncpg throws away.

    So asyncpg connects and signs in, with all that it knows of TLS and passwords, and the rest is done here.
    (https://www.postgresql.org/docs/current/protocol-message-formats.html)
    """

    def __init__(self, connection: Any) -> None:
        self._transport = connection._transport  # noqa: SLF001 - asyncpg has no name for it
        self._reader = asyncio.StreamReader()
        self._transport.set_protocol(asyncio.StreamReaderProtocol(self._reader))

    async def rows(self, query: str) -> list[dict[str, str | None]]:
        """Raises ValueError with the console's words when it refuses."""
        text = query.encode() + b"\0"
        self._transport.write(b"Q" + (len(text) + 4).to_bytes(4, "big") + text)
        names: list[str] = []
        rows: list[dict[str, str | None]] = []
        refused = ""
        while True:
            kind = await self._reader.readexactly(1)
            body = await self._reader.readexactly(
                int.from_bytes(await self._reader.readexactly(4), "big") - 4
            )
            if kind == b"T":
                names = _names(body)
            elif kind == b"D":
                rows.append(dict(zip(names, _values(body), strict=True)))
            elif kind == b"E":
                refused = body.decode(errors="replace").replace("\0", " ")
            elif kind == b"Z":
                if refused:
                    raise ValueError(refused)
                return rows


def _names(body: bytes) -> list[str]:
    names, at = [], 2
    for _ in range(int.from_bytes(body[:2], "big")):
        end = body.index(b"\0", at)
        names.append(body[at:end].decode())
        at = end + 1 + 18  # what is said of its type
    return names


def _values(body: bytes) -> list[str | None]:
    values: list[str | None] = []
    at = 2
    for _ in range(int.from_bytes(body[:2], "big")):
        length = int.from_bytes(body[at : at + 4], "big", signed=True)
        at += 4
        if length < 0:
            values.append(None)
            continue
        values.append(body[at : at + length].decode(errors="replace"))
        at += length
    return values
