"""A backup: one file with a whole database's content, and the files that it names.

A gzip-compressed tar, so that it can be looked into with nothing but `tar`:

    tables/NAME/000000 …   a table's rows as COPY's text, in pieces
    files/KEY              a file of the file store
    manifest.json          last: versions, counts and SHA-256 of everything before it

A file that was cut off has no manifest, a changed one other sums: `check` finds both, and nothing is restored from a
file that it has not read to its end. It is the same for every version of PostgreSQL, and for the schema's revision of
its time: a newer BaatCheet migrates what it restores.
"""

import gzip
import hashlib
import io
import itertools
import os
import re
import tarfile
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

import msgspec

from baatcheet import __version__
from baatcheet.platform.blobs import Blobs, FileMissing, checked
from baatcheet.platform.copying import Content, Say, Source, TableSum, Target, say_of
from baatcheet.platform.durable import sync

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
_PIECE_BYTES: Final = 8 * 1024 * 1024
_READ_BYTES: Final = 256 * 1024
_LEVEL: Final = 3  # of gzip's 9: four fifths of what the highest saves, in a fifth of its time
_LARGEST_MANIFEST: Final = 64 * 1024 * 1024
_TABLE = re.compile(r"tables/([^/]+)/\d{6,}")
_UNREADABLE = (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, UnicodeDecodeError)


class BackupError(Exception):
    """A backup can't be written or read. `str(error)` says why and what to do."""


class FilesSum(msgspec.Struct, frozen=True):
    """The files in a backup."""

    count: int
    bytes: int
    sha256: str  # of each one's key, size and content, in their order


class Manifest(msgspec.Struct, frozen=True):
    """What a backup says of itself."""

    format: int
    baatcheet: str
    made_at: datetime
    content: Content
    files: FilesSum | None  # None: they are not in it


class _TableDigest:
    def __init__(self) -> None:
        self._size = 0
        self._digest = hashlib.sha256()

    def add(self, chunk: bytes) -> None:
        self._size += len(chunk)
        self._digest.update(chunk)

    def sum(self) -> tuple[int, str]:
        return self._size, self._digest.hexdigest()


class _FilesDigest:
    def __init__(self) -> None:
        self.count = self.size = 0
        self._digest = hashlib.sha256()

    def begin(self, key: str, size: int) -> None:
        self.count += 1
        self.size += size
        self._digest.update(f"{key}\0{size}\0".encode())

    def add(self, chunk: bytes) -> None:
        self._digest.update(chunk)

    def sum(self) -> FilesSum:
        return FilesSum(self.count, self.size, self._digest.hexdigest())


class _Hashed(io.RawIOBase):
    """A file that is being written, and the SHA-256 of it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: "bytes | bytearray | memoryview") -> int:  # type: ignore[override]
        self.digest.update(data)
        return self._file.write(data)


class BackupWriter:
    """A backup that is being written; `sha256` is the finished file's. Made by `writing`."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        self.sha256 = ""

    async def write(self, source: Source, blobs: Blobs | None, say: Say) -> Manifest:
        """Write everything of `source`, then the files of `blobs`; None: without the files."""
        now = datetime.now(UTC)
        sums = []
        for table in source.tables:
            sums.append(await self._table(source, table))
            say_of(sums[-1], say)
        files = None if blobs is None else await self._files(blobs)
        content = Content(source.revision, sums, source.sequences)
        manifest = Manifest(FORMAT, __version__, now, content, files)
        self._add(MANIFEST, msgspec.json.format(msgspec.json.encode(manifest)))
        return manifest

    async def _table(self, source: Source, table: str) -> TableSum:
        piece, number = bytearray(), itertools.count()

        async def take(chunk: bytes) -> None:
            piece.extend(chunk)
            if len(piece) >= _PIECE_BYTES:
                flush()

        def flush() -> None:
            self._add(f"tables/{table}/{next(number):06}", bytes(piece))
            piece.clear()

        found = await source.read(table, take)
        if piece:
            flush()
        return found

    async def _files(self, blobs: Blobs) -> FilesSum:
        digest = _FilesDigest()
        async for one in blobs.keys():
            try:
                async with blobs.local(one.key) as path:
                    with path.open("rb") as file:
                        size = os.fstat(file.fileno()).st_size
                        digest.begin(one.key, size)
                        self._tar.addfile(_member(f"files/{one.key}", size), _Read(file, digest))
            except (FileMissing, FileNotFoundError):  # deleted meanwhile
                continue
        return digest.sum()

    def _add(self, name: str, content: bytes) -> None:
        self._tar.addfile(_member(name, len(content)), io.BytesIO(content))


class _Read(io.RawIOBase):
    """A file as it is read into a backup."""

    def __init__(self, file: IO[bytes], digest: _FilesDigest) -> None:
        self._file = file
        self._digest = digest

    def read(self, size: int = -1, /) -> bytes:
        chunk = self._file.read(size)
        self._digest.add(chunk)
        return chunk


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = size
    member.mode = 0o600
    return member


@contextmanager
def writing(path: Path, *, force: bool) -> Iterator[BackupWriter]:
    """A new backup at `path`, there whole in the end or not at all; its owner's alone. Raises BackupError."""
    if path.is_dir():
        raise BackupError(f"{path} is a folder: name a file.")
    if path.exists() and not force:
        raise BackupError(f"{path} is there already. Name another file, or give --force to replace it.")
    unfinished = path.with_name(f".{path.name}.unfinished-{os.getpid()}")
    try:
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                hashed = _Hashed(file)
                with (
                    gzip.GzipFile("", "wb", _LEVEL, hashed, 0) as packed,
                    tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as tar,
                ):
                    writer = BackupWriter(tar)
                    yield writer
                file.flush()
                os.fsync(file.fileno())
            writer.sha256 = hashed.digest.hexdigest()
            unfinished.replace(path)
            sync(path.parent)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise BackupError(f"the backup can't be written to {path}: {error.strerror or error}") from error


class _Reader:
    """The parts of a backup, one after another, each to be read before the next is asked for."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Self:
        try:
            self._packed = gzip.open(self._path, "rb")
        except OSError as error:
            raise BackupError(f"{self._path} can't be read: {error.strerror or error}") from error
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._packed.close()
        # A part is read by whoever asked for it, so what is wrong with it may come from there.
        if isinstance(error, _UNREADABLE):
            raise BackupError(
                f"{self._path} is no backup of BaatCheet, or not all of one ({error}). Nothing was changed."
            ) from error

    def members(self) -> Iterator[tuple[str, int, IO[bytes]]]:
        """Name, size and content. Raises BackupError."""
        with tarfile.open(fileobj=self._packed, mode="r|") as tar:
            for member in tar:
                content = tar.extractfile(member) if member.isreg() else None
                if content is None:
                    raise BackupError(f"{self._path} is no backup of BaatCheet: {member.name!r} is no file.")
                yield member.name, member.size, content
                tar.members = []  # type: ignore[attr-defined]  # it would remember every one
        while self._packed.read(_READ_BYTES):  # up to gzip's own checksum
            pass


def check(path: Path) -> Manifest:
    """Read the whole backup and compare it with what it says of itself. Raises BackupError."""
    tables: dict[str, _TableDigest] = {}
    files = _FilesDigest()
    manifest: Manifest | None = None
    with _Reader(path) as reader:
        for name, size, content in reader.members():
            if manifest is not None:
                raise BackupError(f"{path} goes on after its end, with {name!r}.")
            if found := _TABLE.fullmatch(name):
                _add_all(content, tables.setdefault(found[1], _TableDigest()))
            elif name.startswith("files/"):
                files.begin(_key(path, name), size)
                _add_all(content, files)
            elif name == MANIFEST and size <= _LARGEST_MANIFEST:
                manifest = _manifest(path, content.read())
            else:
                raise BackupError(f"{path} is no backup of BaatCheet: there is {name!r} in it.")
    if manifest is None:
        raise BackupError(f"{path} is not all of a backup: its end is missing.")
    if different := _different(manifest, tables, files):
        raise BackupError(f"{path} is damaged: {', '.join(different)} are not as they were written.")
    return manifest


def _different(manifest: Manifest, tables: dict[str, _TableDigest], files: _FilesDigest) -> list[str]:
    wanted = {one.name: (one.bytes, one.sha256) for one in manifest.content.tables if one.bytes}
    held = {name: digest.sum() for name, digest in tables.items()}
    different = sorted(name for name in wanted.keys() | held.keys() if wanted.get(name) != held.get(name))
    same_files = files.sum() == (manifest.files or _FilesDigest().sum())
    return different if same_files else [*different, "the files"]


def _add_all(content: IO[bytes], digest: "_TableDigest | _FilesDigest") -> None:
    for chunk in _chunks(content):
        digest.add(chunk)


async def fill(path: Path, manifest: Manifest, target: Target, say: Say) -> None:
    """Fill `target` from a backup that `check` has read. Raises BackupError, CopyError."""
    sums = {one.name: one for one in manifest.content.tables}
    if own := target.left_out(list(sums)):
        say(f"Left out, since not BaatCheet's: {', '.join(own)}")
    with _Reader(path) as reader:
        parts = (
            (found[1], content) for name, _, content in reader.members() if (found := _TABLE.fullmatch(name))
        )
        for name, pieces in itertools.groupby(parts, key=lambda part: part[0]):
            if name in target.tables:
                await target.write(name, sums[name].columns, _rows(content for _, content in pieces))
    for one in sums.values():
        if one.name in target.tables:
            await target.check(one)
            say_of(one, say)
    await target.count_on(manifest.content.sequences)


async def put_files(path: Path, blobs: Blobs) -> int:
    """Put the files of a backup that `check` has read into `blobs`; how many. Raises BackupError."""
    count = 0
    with _Reader(path) as reader:
        for name, _, content in reader.members():
            if name.startswith("files/"):
                async with blobs.scratch() as folder:
                    with (folder / "file").open("xb") as file:
                        for chunk in _chunks(content):
                            file.write(chunk)
                    (folder / "file").chmod(0o600)
                    await blobs.put(_key(path, name), folder / "file")
                count += 1
    return count


async def _rows(pieces: Iterator[IO[bytes]]) -> AsyncIterator[bytes]:
    for content in pieces:
        for chunk in _chunks(content):
            yield chunk


def _chunks(content: IO[bytes]) -> Iterator[bytes]:
    while chunk := content.read(_READ_BYTES):
        yield chunk


def _key(path: Path, name: str) -> str:
    try:
        return checked(name.removeprefix("files/"))
    except ValueError as error:
        raise BackupError(f"{path} is no backup of BaatCheet: {error}.") from error


def _manifest(path: Path, text: bytes) -> Manifest:
    try:
        form = msgspec.json.decode(text, type=dict[str, object]).get("format")
        if isinstance(form, int) and form > FORMAT:
            raise BackupError(
                f"{path} was written by a newer BaatCheet, in format {form}. Take that to restore it."
            )
        return msgspec.json.decode(text, type=Manifest)
    except msgspec.MsgspecError as error:
        raise BackupError(
            f"{path} is no backup of BaatCheet: its manifest can't be read ({error})."
        ) from error
