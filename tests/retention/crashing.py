"""Carries out a deletion and is killed at a step: `python -m tests.retention.crashing STEP DATABASE FOLDER DELETION`.

A step lies before and after each transaction and each file that is deleted. Killed, it ends as `kill -9` ends it; with
fewer steps than that, it goes to the end.
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncSession

from baatcheet.analytics.rollup import RollUp
from baatcheet.platform.cache import Cache
from baatcheet.platform.database import Database
from baatcheet.platform.settings import CacheSettings, DatabaseSettings, RetentionSettings
from baatcheet.retention.erasing import Eraser, RetentionParts, complete
from baatcheet.retention.models import UserDeletion
from tests.dying_blobs import dying_blobs

PREFIXES = ("attachments/", "attachment-views/", "audio/", "exports/", "imports/")


class Steps:
    """Counts steps, and kills at the last one."""

    def __init__(self, last: int) -> None:
        self.taken = 0
        self._last = last

    def __call__(self) -> None:
        self.taken += 1
        if self.taken == self._last:
            os.kill(os.getpid(), signal.SIGKILL)


def dying_database(step: Steps) -> type[Database]:
    class DyingDatabase(Database):
        @asynccontextmanager
        async def system(self, *, limit: float | None = None) -> AsyncIterator[AsyncSession]:
            step()
            async with super().system(limit=limit) as session:
                yield session
            step()

    return DyingDatabase


async def main(step: Steps, url: str, folder: Path, deletion: UUID) -> None:
    db = dying_database(step)(DatabaseSettings(url=SecretStr(url)), pool_size=2)
    cache = Cache(CacheSettings(url=None))
    parts = RetentionParts(
        db,
        dying_blobs(step)(folder),
        cache,
        RetentionSettings(),
        PREFIXES,
        RollUp(db).settle,
        settling=0.0,
    )
    async with db.system() as session:
        found = await session.get_one(UserDeletion, deletion)
    await Eraser(parts, found).run()
    async with db.system() as session:
        await complete(session, deletion)
    await db.close()
    print(step.taken)  # noqa: T201 - for who started it


if __name__ == "__main__":
    asyncio.run(main(Steps(int(sys.argv[1])), sys.argv[2], Path(sys.argv[3]), UUID(sys.argv[4])))
