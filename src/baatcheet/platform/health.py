"""Whether this process can serve, and how its parts are."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import asyncpg
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError

from baatcheet import __version__
from baatcheet.platform.cache import Cache
from baatcheet.platform.database import Database, DatabaseUnavailable
from baatcheet.platform.migrate import configuration, newest_revision

CHECK_TIMEOUT: Final = 1.5  # seconds: an answer is due within two
GIVEN_UP: Final = 10.0  # seconds after which a look that hangs is left alone, and another begun
FRESH: Final = 0.5  # seconds for which an answer of the database serves every asker

DatabaseStatus = Literal["ok", "behind", "empty", "ahead", "unavailable"]


@dataclass(frozen=True, slots=True)
class DatabaseHealth:
    """`ahead`: migrated by a newer version, whose schema this one is made to get along with."""

    status: DatabaseStatus
    revision: str | None = None

    @property
    def usable(self) -> bool:
        return self.status in {"ok", "ahead"}


class Health:
    """Looks at the database (once for all who ask together) and the cache; knows whether we are leaving."""

    def __init__(
        self, db: Database, cache: Cache, *, providers: Callable[[], Sequence[str]] = lambda: ()
    ) -> None:
        self._db = db
        self._cache = cache
        self._providers = providers
        self._needed = newest_revision()
        self._scripts = ScriptDirectory.from_config(configuration())
        self._begun = time.monotonic()
        self._look: asyncio.Task[DatabaseHealth] | None = None
        self._look_begun = 0.0
        self._seen: tuple[float, DatabaseHealth] = (float("-inf"), DatabaseHealth("unavailable"))
        self.draining = False

    def drain(self) -> None:
        """From now on `/ready` says no, so that no new work is sent here."""
        self.draining = True

    async def database(self) -> DatabaseHealth:
        """How the database is, within `CHECK_TIMEOUT` whatever state it is in."""
        at, health = self._seen
        if time.monotonic() - at < FRESH:
            return health
        if self._look is not None and time.monotonic() - self._look_begun > GIVEN_UP:
            self._look.cancel()
            self._look = None
        if self._look is None:
            self._look_begun = time.monotonic()
            self._look = asyncio.create_task(self._examine(), name="health-database")
        look = self._look
        # Not wait_for: a connection that hangs can't be cancelled in time either. The next asker waits on.
        await asyncio.wait({look}, timeout=CHECK_TIMEOUT)
        if not look.done() or look.cancelled():
            return DatabaseHealth("unavailable")
        if self._look is look:
            self._look = None
        self._seen = (time.monotonic(), look.result())
        return look.result()

    async def ready(self) -> tuple[bool, dict[str, str]]:
        """Whether new work may come, and how the parts are."""
        database = await self.database()
        status = "draining" if self.draining else "ready" if database.usable else "unavailable"
        parts = {"status": status, "database": database.status, "cache": self.cache()}
        return status == "ready", parts

    async def report(self) -> tuple[bool, dict[str, object]]:
        """Whether we can serve, and the state of every part."""
        database = await self.database()
        cache = self.cache()
        if not database.usable:
            status = "unavailable"
        elif self.draining:
            status = "draining"
        else:
            status = "degraded" if cache == "unavailable" else "ok"
        return database.usable, {
            "status": status,
            "version": __version__,
            "uptime_seconds": round(time.monotonic() - self._begun, 1),
            "database": {"status": database.status, "revision": database.revision, "needed": self._needed},
            "cache": {"status": cache},
            "providers": list(self._providers()),
        }

    def cache(self) -> str:
        if not self._cache.configured:
            return "none"
        return "ok" if self._cache.available else "unavailable"

    async def close(self) -> None:
        if self._look is not None:
            self._look.cancel()
            await asyncio.wait({self._look}, timeout=1)

    async def _examine(self) -> DatabaseHealth:
        try:
            async with self._db.hot() as connection:
                revision: str | None = await connection.fetchval("SELECT version_num FROM alembic_version")
        except asyncpg.UndefinedTableError:
            return DatabaseHealth("empty")
        except (DatabaseUnavailable, asyncpg.PostgresError, OSError):
            return DatabaseHealth("unavailable")
        if revision is None:
            return DatabaseHealth("empty")
        if revision == self._needed:
            return DatabaseHealth("ok", revision)
        with contextlib.suppress(CommandError):
            self._scripts.get_revision(revision)
            return DatabaseHealth("behind", revision)
        return DatabaseHealth("ahead", revision)
