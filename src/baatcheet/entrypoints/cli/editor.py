"""Editing a secret text in the operator's own editor, without leaving it anywhere."""

import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Final

MEMORY: Final = Path("/dev/shm")  # noqa: S108 - in memory, and the folder made there is private
_FOLDER: Final = "baatcheet-edit-"
_ENDING: Final = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class NoEditor(Exception):
    """There is none, or it failed; `str(error)` says what to do."""


@contextmanager
def private_file(text: str, name: str) -> Iterator[Path]:
    """`text` in a file that nobody else can read, in memory where the machine has such a folder.

    The file, and whatever the editor puts beside it, is overwritten and removed at the end, also when the command is
    told to end (SIGTERM, SIGHUP). What one that was killed outright has left is removed by the next.
    """
    root = MEMORY if os.access(MEMORY, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())
    for left in root.glob(f"{_FOLDER}*"):
        if _is_left(left):
            _wipe(left)
    folder = Path(tempfile.mkdtemp(prefix=f"{_FOLDER}{os.getpid()}-", dir=root))
    before = {number: signal.signal(number, _end) for number in _ENDING}
    try:
        path = folder / name
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            file.write(text)
        yield path
    finally:
        _wipe(folder)
        for number, handler in before.items():
            signal.signal(number, handler)


def in_memory() -> bool:
    """Whether the file is kept from the disk."""
    return os.access(MEMORY, os.W_OK | os.X_OK)


def open_editor(path: Path) -> None:
    """Let the operator edit `path`, in $VISUAL, $EDITOR, or nano or vi. Raises NoEditor."""
    chosen = (
        os.environ.get("VISUAL") or os.environ.get("EDITOR") or shutil.which("nano") or shutil.which("vi")
    )
    if not chosen:
        raise NoEditor("there is no editor. Name one: EDITOR=nano baatcheet secrets edit")
    try:
        command = [*shlex.split(chosen), str(path)]
        interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the editor's
        try:
            done = subprocess.run(command, check=False)  # noqa: S603 - the operator's own choice
        finally:
            signal.signal(signal.SIGINT, interrupt)
    except (OSError, ValueError):
        raise NoEditor(f"the editor {chosen!r} can't be started. Name another: EDITOR=nano") from None
    if done.returncode != 0:
        raise NoEditor(f"the editor ended with status {done.returncode}, so nothing was written")


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _is_left(folder: Path) -> bool:
    try:
        if folder.stat().st_uid != os.getuid():
            return False
        os.kill(int(folder.name.removeprefix(_FOLDER).split("-")[0]), 0)
    except ProcessLookupError:
        return True
    except (OSError, ValueError):
        return False
    return False


def _wipe(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            with suppress(OSError), path.open("r+b") as file:
                file.write(b"\0" * path.stat().st_size)
                file.flush()
                os.fsync(file.fileno())
    shutil.rmtree(folder, ignore_errors=True)
