"""One process per data folder, and how others find what it runs."""

import fcntl
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from baatcheet.platform.embedded.errors import DataFolderInUse, EmbeddedError


@dataclass(frozen=True)
class Addresses:
    """Where the embedded services listen; None for one that is not embedded."""

    database_url: str | None
    redis_url: str | None


@dataclass(frozen=True)
class Holder:
    """The process that holds a data folder; `addresses` is None while it is still starting."""

    pid: int
    addresses: Addresses | None


class FolderLock:
    """A lock on the data folder that goes with the process, however it ends."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._path = data / "locks" / "baatcheet"
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Raises DataFolderInUse."""
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except PermissionError as error:
            raise EmbeddedError(
                f"{self._path} belongs to another user: run this as that user, or as root."
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            holder = self.holder()
            raise DataFolderInUse(self._data, holder.pid if holder else None) from None
        except OSError:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        self._write({"pid": os.getpid()})

    def publish(self, addresses: Addresses) -> None:
        """Let `holder` tell others where the services are."""
        self._write({"pid": os.getpid(), "addresses": asdict(addresses)})

    def release(self) -> None:
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None

    def holder(self) -> Holder | None:
        """What the present holder wrote; None when that can't be told just now."""
        try:
            said = json.loads(self._path.read_text("utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        addresses = said.get("addresses")
        return Holder(said["pid"], Addresses(**addresses) if addresses else None)

    def _write(self, said: dict[str, object]) -> None:
        assert self._descriptor is not None
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, json.dumps(said).encode(), 0)


def held(path: Path) -> bool:
    """Whether a running process holds the file `path` locked."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
