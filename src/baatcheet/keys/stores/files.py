"""Files that are replaced as a whole: a reader sees the old one or the new one, whenever the writer is killed."""

import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_BETWEEN_TRIES: Final = 0.02  # seconds


class LockHeld(OSError):
    """Somebody else is changing the file, for longer than we wait."""


@contextmanager
def locked(path: Path, seconds: float) -> Iterator[None]:
    """Be the only writer of `path`, by a lock on the file `<path>.lock`. Raises LockHeld after `seconds`, OSError.

    The lock ends with the process that holds it, however that ends. The lock file stays.
    """
    deadline = time.monotonic() + seconds
    descriptor = os.open(path.with_name(f"{path.name}.lock"), os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise LockHeld(f"{path} is being changed by another process") from None
                time.sleep(_BETWEEN_TRIES)
        yield
    finally:
        os.close(descriptor)


def put_in_place(path: Path, text: str) -> None:
    """Write `path` in one step that survives a power cut. Raises OSError, and then nothing has changed.

    A file that is there keeps its owner and mode; a new one can be read by its owner alone. Only for the holder of
    the lock: what a killed writer left half-written is removed.
    """
    for left in path.parent.glob(f".{path.name}.*.tmp"):
        with suppress(FileNotFoundError):
            left.unlink()
    try:
        before = path.stat()
    except FileNotFoundError:
        before = None
    new = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.encode())
            if before is not None:
                ours = os.fstat(file.fileno())
                if (ours.st_uid, ours.st_gid) != (before.st_uid, before.st_gid):
                    os.fchown(file.fileno(), before.st_uid, before.st_gid)
                os.fchmod(file.fileno(), before.st_mode & 0o7777)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            new.unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
