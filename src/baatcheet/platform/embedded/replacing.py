"""Work on the embedded database that nobody else may see: another one is made beside it, and takes its place.

In the data folder:

    postgres.next           the new one, until it is whole
    replacing               what has to be renamed for one to take the other's place: a start after a kill does the rest
    postgres.before-TIME    the old one, kept
    postgres.moved          where the data has gone, since when nothing may be written here
"""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from baatcheet.platform.durable import sync
from baatcheet.platform.embedded.errors import DataFolderInUse, EmbeddedError
from baatcheet.platform.embedded.folders import Folders, make_folders
from baatcheet.platform.embedded.lock import FolderLock
from baatcheet.platform.embedded.postgres import Postgres
from baatcheet.platform.logging import get_logger

_PRIVATE_PORT = 5433
_log = get_logger(__name__)

Renames = Sequence[tuple[Path, Path]]


@dataclass(frozen=True)
class Held:
    """A data folder on which no other BaatCheet works meanwhile."""

    folders: Folders
    durable: bool

    @property
    def next(self) -> Path:
        """Where a new PostgreSQL folder is made."""
        return self.folders.data / "postgres.next"

    @property
    def replacing(self) -> bool:
        """Whether something is taking another's place, and was stopped half way: the next start goes on."""
        return _journal(self.folders).exists()

    @contextmanager
    def serving(self, place: Path, *, bin_dir: Path | None) -> Iterator[str]:
        """Run the PostgreSQL of the folder `place`, a new one where there is none; its address, that nobody else has.

        Raises EmbeddedError.
        """
        postgres = self._postgres(place, bin_dir)
        try:
            postgres.launch()
            postgres.wait_until_ready()
            yield postgres.url
        finally:
            postgres.stop()

    @contextmanager
    def making(self) -> Iterator[Path]:
        """The place for a new PostgreSQL folder; what is there in the end, and in no other's place, is removed."""
        self._postgres(self.next, None).wait_for_earlier_run()
        shutil.rmtree(self.next, ignore_errors=True)
        try:
            yield self.next
        finally:
            if not self.replacing:
                shutil.rmtree(self.next, ignore_errors=True)

    def _postgres(self, place: Path, bin_dir: Path | None) -> Postgres:
        beside = place != self.folders.postgres
        return Postgres(
            replace(self.folders, postgres=place),
            _log,
            bin_dir=bin_dir,
            durable=self.durable,
            port=_PRIVATE_PORT + beside,
            name="postgres-next" if beside else "postgres",
        )

    def put_in_place(self, now: datetime, more: Renames = ()) -> Path | None:
        """Let the folder `next` be the database, together with `more` renames; where the old one is kept, if there was.

        `more` are of what is there, to what isn't. From here on it is done, whatever is killed: the next start
        finishes it.
        """
        kept = self.folders.data / f"postgres.before-{stamp(now)}"
        renames = [(self.folders.postgres, kept)] if self.folders.postgres.exists() else []
        renames += [(self.next, self.folders.postgres), *more]
        if (moved := _moved(self.folders)).exists():
            renames.append((moved, moved.with_name(f"{moved.name}.before-{stamp(now)}")))
        _write(_journal(self.folders), json.dumps([[str(old), str(new)] for old, new in renames]))
        try:
            finish_replacing(self.folders)
        except EmbeddedError:
            if renames[0][0].exists() and not renames[0][1].exists():  # not even the first was possible
                _journal(self.folders).unlink()
            raise
        return kept if kept.exists() else None

    def mark_moved(self, address: str, now: datetime) -> Path:
        """Let nobody work on this database any more: its data is at `address` (no password in it)."""
        _write(_moved(self.folders), json.dumps({"to": address, "at": now.isoformat(timespec="seconds")}))
        return _moved(self.folders)


@contextmanager
def hold(data_dir: Path, *, durable: bool = True, moved: bool = False) -> Iterator[Held]:
    """The data folder for ourselves. To be used from the main thread. Raises EmbeddedError.

    One whose data has been moved away is refused unless `moved`.
    """
    folders = make_folders(data_dir)
    lock = FolderLock(folders.data)
    try:
        lock.acquire()
    except DataFolderInUse as in_use:
        who = "BaatCheet" if in_use.pid is None else f"BaatCheet (pid {in_use.pid})"
        raise EmbeddedError(
            f"{who} is running on {folders.data}. Stop it first, then run this again."
        ) from in_use
    try:
        finish_replacing(folders)
        if not moved:
            refuse_moved(folders)
        yield Held(folders, durable)
    finally:
        folders.tidy()
        lock.release()


def finish_replacing(folders: Folders) -> None:
    """Do what is left of the renames that a killed process had begun. Whoever calls holds the data folder.

    Raises EmbeddedError.
    """
    journal = _journal(folders)
    try:
        renames = json.loads(journal.read_text("utf-8"))
    except FileNotFoundError:
        return
    for old, new in renames:
        # What was done before has its new name already, and the old name may be another's by now.
        if os.path.lexists(old) and not os.path.lexists(new):
            try:
                Path(new).parent.mkdir(mode=0o700, exist_ok=True)
                Path(old).rename(new)
            except OSError as error:
                raise EmbeddedError(
                    f"{old} can't be renamed to {new}: {error.strerror}. Both have to be plain folders of one file "
                    "system, not where another one is mounted."
                ) from error
    for folder in {Path(path).parent for pair in renames for path in pair}:
        if folder.is_dir():
            sync(folder)
    journal.unlink()
    sync(folders.data)


def refuse_moved(folders: Folders) -> None:
    """Raises EmbeddedError when the data has been moved to another database."""
    marker = _moved(folders)
    try:
        said = json.loads(marker.read_text("utf-8"))
    except FileNotFoundError:
        return
    raise EmbeddedError(
        f"the database in {folders.postgres} was moved to {said['to']} at {said['at']}. Set DATABASE_URL to that. To "
        f"go back to what it was then, and lose what was written since, remove {marker}."
    )


def stamp(now: datetime) -> str:
    """A time as part of a file's name."""
    return now.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")


def _journal(folders: Folders) -> Path:
    return folders.data / "replacing"


def _moved(folders: Folders) -> Path:
    return folders.data / "postgres.moved"


def _write(path: Path, text: str) -> None:
    """Make the file, whole or not at all, and on disk for good."""
    unfinished = path.with_name(f"{path.name}.new")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
    sync(path.parent)
