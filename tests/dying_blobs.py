"""A store of files in a process that is to be killed: what happens before and after each change of a file."""

from collections.abc import Callable
from pathlib import Path

from baatcheet.platform.blobs import FolderBlobs


def dying_blobs(step: Callable[[], None]) -> type[FolderBlobs]:
    """Stores that call `step` before and after a file is kept or deleted."""

    class DyingBlobs(FolderBlobs):
        async def put(self, key: str, path: Path) -> None:
            step()
            await super().put(key, path)
            step()

        async def delete(self, key: str) -> None:
            step()
            await super().delete(key)
            step()

    return DyingBlobs
