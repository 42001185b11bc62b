"""Backing up and restoring a deployment's data, moving it to another database, and to a newer PostgreSQL.

Everything here is for a command in the main thread, outside an event loop. What it does is done wholly or not at all;
what was there before is kept.
"""

import asyncio
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from baatcheet.platform import backup
from baatcheet.platform.backup import BackupError, Manifest
from baatcheet.platform.blobs import Blobs, FolderBlobs, build_blobs
from baatcheet.platform.copying import (
    Content,
    CopyError,
    Say,
    TargetInUse,
    copy_database,
    filling,
    prepare_target,
    reading,
    run,
    same_content,
    shown,
)
from baatcheet.platform.database import parse_url
from baatcheet.platform.embedded import EmbeddedError
from baatcheet.platform.embedded.postgres import programs, programs_of, recorded_major
from baatcheet.platform.embedded.replacing import Held, Renames, hold, stamp
from baatcheet.platform.errors import Problem
from baatcheet.platform.migrate import upgrade
from baatcheet.platform.settings import Settings


@dataclass(frozen=True)
class BackedUp:
    """A backup that was written."""

    manifest: Manifest
    sha256: str
    bucket: str | None
    """Where the files are, if they were left out since they are in S3."""


@dataclass(frozen=True)
class Restored:
    """A backup that was restored, and where what it replaced is kept."""

    manifest: Manifest
    kept_database: Path | None
    kept_files: Path | None


@dataclass(frozen=True)
class Upgraded:
    """A database that was brought over to a newer PostgreSQL."""

    before: int
    after: int
    kept: Path | None
    """Where the older one is; None when nothing had to be done."""


def back_up(
    settings: Settings, url: str, path: Path, *, files: bool | None, force: bool, say: Say
) -> BackedUp:
    """Write a backup of the database at `url`, which may be in use, and of the files. Raises BackupError, CopyError.

    `files` None: those in a folder, not those in a bucket. They are read after the database's moment, so that
    whatever it names is there.
    """
    bucket = settings.storage.s3_bucket
    wanted = bucket is None if files is None else files
    blobs = build_blobs(settings.storage, settings.embedded.data_dir) if wanted else None

    async def write(writer: backup.BackupWriter) -> Manifest:
        try:
            async with reading(url) as source:
                return await writer.write(source, blobs, say)
        finally:
            if blobs is not None:
                await blobs.close()

    with _file_problems(), backup.writing(path, force=force) as writer:
        manifest = run(write(writer))
    return BackedUp(manifest, writer.sha256, None if wanted else bucket)


def restore_embedded(
    settings: Settings, path: Path, *, force: bool, say: Say, durable: bool = True
) -> Restored:
    """Let the embedded database, and the files if they are in the backup, be as they were at the backup.

    A database that is there is replaced with `force` only, and kept. Raises BackupError, CopyError, EmbeddedError,
    MigrationError.
    """
    with hold(settings.embedded.data_dir, durable=durable, moved=True) as held:
        place = held.folders.postgres
        if not force and place.exists() and any(place.iterdir()):
            raise BackupError(
                f"there is a database in {place} already. With --force the backup takes its place, and it is kept "
                "beside."
            )
        manifest = backup.check(path)
        now = datetime.now(UTC)
        with held.making() as new:
            with held.serving(new, bin_dir=settings.embedded.postgres_bin) as url:
                _restore_rows(url, path, manifest, say)
            if manifest.files is None:
                return Restored(manifest, held.put_in_place(now), None)
            with _restored_files(settings, path, held, now) as (renames, kept):
                return Restored(
                    manifest, held.put_in_place(now, renames), kept if kept and kept.exists() else None
                )
    raise AssertionError("unreachable: the block returns or raises")


def restore_elsewhere(settings: Settings, url: str, path: Path, *, say: Say) -> Restored:
    """Fill the empty database at `url`, and the file store, from a backup.

    Raises BackupError, CopyError, TargetInUse, MigrationError.
    """
    manifest = backup.check(path)
    _restore_rows(url, path, manifest, say)
    if manifest.files is not None:
        _put_files(path, build_blobs(settings.storage, settings.embedded.data_dir))
    return Restored(manifest, None, None)


def move(settings: Settings, target_url: str, *, say: Say, durable: bool = True) -> Content:
    """Copy the embedded database into the empty one at `target_url`, and let nobody work on the embedded one any more.

    Asked again after it was killed, it does what is left. Raises EmbeddedError, CopyError, TargetInUse,
    MigrationError.
    """
    parse_url(target_url)
    with hold(settings.embedded.data_dir, durable=durable) as held:
        _require(held)
        with held.serving(held.folders.postgres, bin_dir=settings.embedded.postgres_bin) as source_url:
            try:
                content = copy_database(source_url, target_url, say)
            except TargetInUse:
                # Killed after the last commit, perhaps, and before that was noted here.
                if not same_content(source_url, target_url):
                    raise
                say("Everything was there already.")
                content = run(_content(source_url))
        held.mark_moved(shown(target_url), datetime.now(UTC))
        upgrade(target_url)
        return content


def upgrade_cluster(
    settings: Settings, *, old_programs: Path | None, say: Say, durable: bool = True
) -> Upgraded:
    """Bring the embedded database over to the newest PostgreSQL that is here.

    `old_programs`: the folder of the programs that made it; None: looked for. Raises EmbeddedError, CopyError,
    MigrationError.
    """
    given = settings.embedded.postgres_bin
    with hold(settings.embedded.data_dir, durable=durable) as held:
        before = _require(held)
        folder, after = programs(given, None)
        if before == after:
            return Upgraded(before, after, None)
        if before > after:
            raise EmbeddedError(
                f"{held.folders.postgres} was made by PostgreSQL {before}, which is newer than the {after} in "
                f"{folder}. Point BAATCHEET_POSTGRES_BIN at the programs of {before} or newer."
            )
        old = programs_of(before, old_programs)
        with held.making() as new:
            with (
                held.serving(held.folders.postgres, bin_dir=old) as source_url,
                held.serving(new, bin_dir=folder) as target_url,
            ):
                copy_database(source_url, target_url, say)
                upgrade(target_url)
            return Upgraded(before, after, held.put_in_place(datetime.now(UTC)))
    raise AssertionError("unreachable: the block returns or raises")


def _require(held: Held) -> int:
    major = recorded_major(held.folders.postgres)
    if major is None:
        raise EmbeddedError(
            f"there is no database in {held.folders.data} (BAATCHEET_DATA_DIR). Run this where `baatcheet serve` runs."
        )
    return major


async def _content(url: str) -> Content:
    async with reading(url) as source:
        return await source.content()


def _restore_rows(url: str, path: Path, manifest: Manifest, say: Say) -> None:
    prepare_target(url, manifest.content.revision)

    async def rows() -> None:
        async with filling(url) as target:
            if target.revision != manifest.content.revision:
                raise CopyError(
                    f"the database {shown(url)} is at the schema's revision {target.revision}, and the backup is at "
                    f"{manifest.content.revision}. Name a new database."
                )
            await backup.fill(path, manifest, target, say)

    run(rows())
    upgrade(url)


@contextmanager
def _restored_files(
    settings: Settings, path: Path, held: Held, now: datetime
) -> Iterator[tuple[Renames, Path | None]]:
    """The backup's files ready to take their place: what is to be renamed for it, and where the present ones go."""
    if settings.storage.s3_bucket is not None:
        # A key's file never changes, so nothing is lost by writing it again.
        _put_files(path, build_blobs(settings.storage, settings.embedded.data_dir))
        yield [], None
        return
    root = (settings.storage.files_dir or held.folders.data / "files").expanduser().absolute()
    # Inside, since the folder may be a file system of its own; no file's key begins with a dot.
    staged, kept = root / ".next", root / f".before-{stamp(now)}"
    shutil.rmtree(staged, ignore_errors=True)
    try:
        _put_files(path, FolderBlobs(staged))
        away = [(one, kept / one.name) for one in sorted(root.glob("[!.]*"))]
        yield [*away, *((one, root / one.name) for one in sorted(staged.glob("[!.]*")))], kept
    finally:
        if not held.replacing:
            shutil.rmtree(staged, ignore_errors=True)


def _put_files(path: Path, blobs: Blobs) -> None:
    async def put() -> None:
        try:
            await backup.put_files(path, blobs)
        finally:
            await blobs.close()

    with _file_problems():
        asyncio.run(put())


@contextmanager
def _file_problems() -> Iterator[None]:
    try:
        yield
    except Problem as problem:
        raise BackupError(f"the files: {problem.detail}") from problem
