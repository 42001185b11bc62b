"""Where files are kept: a folder, or S3 and what speaks like it.

A file has a key like `attachments/<user>/<sha256>`. It appears under it whole or not at all, whatever is killed
meanwhile, and is never changed in place. What a key means, and whose it is, is in the database; a file whose row
is gone is found by `keys` and deleted.
"""

import contextlib
import errno
import fcntl
import importlib
import itertools
import os
import re
import shutil
import stat
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Protocol

from baatcheet.kit.ids import new_id
from baatcheet.platform.durable import sync
from baatcheet.platform.errors import NotFound, Unavailable
from baatcheet.platform.logging import get_logger
from baatcheet.platform.settings import SettingsError, StorageSettings
from baatcheet.platform.threads import Threads, in_thread

log = get_logger(__name__)

CHUNK_BYTES: Final = 64 * 1024  # that `read` gives at once
KEYS_AT_ONCE: Final = 1000
MAX_KEY: Final = 512  # characters
_KEY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}(/[A-Za-z0-9_-][A-Za-z0-9._-]{0,199})*")
_PREFIX = re.compile(r"(([A-Za-z0-9_-][A-Za-z0-9._-]{0,199}/)*([A-Za-z0-9_-][A-Za-z0-9._-]{0,199})?)?")
_SCRATCH: Final = ".scratch"  # no key begins with a dot
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_LEFT_BEHIND: Final = 3600.0  # seconds after which a scratch folder that nobody holds was a killed process's
_CALLS_AT_ONCE: Final = 16  # to S3
_PART_BYTES: Final = 8 * 1024 * 1024  # of a large file on its way to S3
_DISK: Final = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM, errno.ESTALE}
# What S3 says of a key that is not there; a HEAD has no body to say more in.
_MISSING: Final = frozenset({"404", "NoSuchKey", "NotFound"})


class FileMissing(NotFound):
    """The file is no longer there."""

    type = "file-missing"
    openai_code = "file_missing"


class FileStoreUnavailable(Unavailable):
    """The file store is not available now."""

    type = "file-store-unavailable"
    openai_code = "file_store_unavailable"


@dataclass(frozen=True)
class Stored:
    """A file that is in the store."""

    key: str
    size: int  # bytes
    modified: datetime

    def age(self, now: datetime) -> timedelta:
        return now - self.modified


class Blobs(Protocol):
    """A store of files. Every method raises ValueError for a malformed key, FileStoreUnavailable when it must."""

    async def put(self, key: str, path: Path) -> None:
        """Keep the local file at `path` under `key`, for good once this returns; `path` is gone then.

        A file that was there is replaced. Best from a `scratch` folder, from where it only has to be renamed.
        No key may be the folder of another: where there is `a/b`, neither `a` nor `a/b/c`.
        """

    def local(self, key: str) -> AbstractAsyncContextManager[Path]:
        """A local file with what is under `key`, to be read and not changed. Raises FileMissing."""

    async def size(self, key: str) -> int | None:
        """Bytes; None when there is no such file."""

    def read(self, key: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """The bytes from `start` up to but not including `end`, or the file's. Raises FileMissing."""

    async def delete(self, key: str) -> None:
        """Forget the file. One that isn't there is no error."""

    async def drop_folder(self, folder: str) -> None:
        """Remove what a folder without files leaves behind: for one that nothing is put in any more."""

    def keys(self, prefix: str = "") -> AsyncIterator[Stored]:
        """Every file whose key begins with `prefix`, in any order."""

    def scratch(self) -> AbstractAsyncContextManager[Path]:
        """A new local folder for files under way, removed in the end with all that is in it."""

    async def close(self) -> None:
        """Let go of connections."""


def build_blobs(settings: StorageSettings, data_dir: Path) -> Blobs:
    """The store that `settings` name. Raises SettingsError."""
    folder = settings.files_dir or data_dir / "files"
    if settings.s3_bucket is None:
        return FolderBlobs(folder)
    return S3Blobs(settings, folder)


def checked(key: str) -> str:
    """`key`, if it is one. Raises ValueError."""
    if len(key) > MAX_KEY or not _KEY.fullmatch(key):
        raise ValueError(f"{key[:MAX_KEY]!r} is not a file's key")
    return key


def _checked_prefix(prefix: str) -> str:
    if len(prefix) > MAX_KEY or not _PREFIX.fullmatch(prefix):
        raise ValueError(f"{prefix[:MAX_KEY]!r} is not the beginning of a file's key")
    return prefix


def _length(start: int, end: int | None) -> int:
    """Bytes from `start` to `end`. Raises ValueError."""
    if start < 0 or (end is not None and end < start):
        raise ValueError(f"there are no bytes from {start} to {end}")
    return sys.maxsize if end is None else end - start


@contextlib.contextmanager
def disk_errors() -> Iterator[None]:
    """Raises FileStoreUnavailable in place of what an operating system says of a disk that is full or ill."""
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK:
            raise
        log.error("files.unavailable", error=error)
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise FileStoreUnavailable("There is no room for files now.", retry_after=60) from error
        raise FileStoreUnavailable("Files can't be read or written now.") from error


@contextlib.contextmanager
def _file_errors(key: str) -> Iterator[None]:
    """Raises FileMissing, FileStoreUnavailable in place of what an operating system says."""
    try:
        with disk_errors():
            yield
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise _missing(key) from None


def _missing(key: str) -> FileMissing:
    return FileMissing(f"The file {key} is not there.")


class Scratch:
    """Folders for files under way. Each is locked by its process, so that a killed one's can be told and removed."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._swept: float | None = None

    @asynccontextmanager
    async def folder(self) -> AsyncIterator[Path]:
        """A new folder, removed in the end with all that is in it. Raises FileStoreUnavailable."""
        # A thread ends what it has begun, even when we are cancelled meanwhile: what it took is in here.
        held = contextlib.ExitStack()
        try:
            with disk_errors():
                path = await in_thread(self.make, held)
            yield path
        finally:
            await in_thread(held.close)

    def make(self, held: contextlib.ExitStack) -> Path:
        """As `folder`, for a thread: removed when `held` is closed."""
        now = time.monotonic()
        if self._swept is None or now - self._swept > _LEFT_BEHIND:
            self._swept = now
            self.sweep()
        path = self._root / new_id().hex
        _make_folder(path)
        lock = os.open(path, _FOLDER)
        held.callback(os.close, lock)
        held.callback(shutil.rmtree, path, ignore_errors=True)
        fcntl.flock(lock, fcntl.LOCK_SH)
        return path

    def sweep(self, older: float = _LEFT_BEHIND) -> int:
        """Remove what killed processes left more than `older` seconds ago; how many folders."""
        removed = 0
        for path in self._root.iterdir() if self._root.is_dir() else ():
            with contextlib.suppress(OSError):  # another process sweeps too
                lock = os.open(path, _FOLDER)
                try:
                    if time.time() - os.fstat(lock).st_mtime > older and _is_free(lock):
                        shutil.rmtree(path, ignore_errors=True)
                        removed += 1
                finally:
                    os.close(lock)
        return removed


def _is_free(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class FolderBlobs:
    """Files in a folder, as deep as their keys; several machines may share it over a network file system."""

    def __init__(self, folder: Path) -> None:
        self._root = folder.expanduser().absolute()
        self._scratch = Scratch(self._root / _SCRATCH)

    async def put(self, key: str, path: Path) -> None:
        target = self._root / checked(key)
        with disk_errors():
            await in_thread(self._put, path, target)

    def _put(self, path: Path, target: Path) -> None:
        _make_folder(target.parent)
        sync(path)
        try:
            path.rename(target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            self._bring(path, target)
        sync(target.parent)

    def _bring(self, path: Path, target: Path) -> None:
        """Take in a file from another file system."""
        with contextlib.ExitStack() as held:
            copy = self._scratch.make(held) / target.name
            shutil.copyfile(path, copy)
            copy.chmod(0o600)
            sync(copy)
            copy.rename(target)
        path.unlink()

    @asynccontextmanager
    async def local(self, key: str) -> AsyncIterator[Path]:
        if await self.size(key) is None:
            raise _missing(key)
        yield self._root / key

    async def size(self, key: str) -> int | None:
        path = self._root / checked(key)
        try:
            with _file_errors(key):
                told = await in_thread(path.stat)
        except FileMissing:
            return None
        return told.st_size if stat.S_ISREG(told.st_mode) else None

    async def read(self, key: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        path = self._root / checked(key)
        left = _length(start, end)
        held = contextlib.ExitStack()
        try:
            with _file_errors(key):
                file = await in_thread(lambda: held.enter_context(path.open("rb")))
                await in_thread(file.seek, start)
            while left > 0:
                with _file_errors(key):
                    chunk = await in_thread(file.read, min(CHUNK_BYTES, left))
                if not chunk:
                    return
                yield chunk
                left -= len(chunk)
        finally:
            await in_thread(held.close)

    async def delete(self, key: str) -> None:
        path = self._root / checked(key)
        with contextlib.suppress(FileMissing), _file_errors(key):
            await in_thread(path.unlink)

    async def drop_folder(self, folder: str) -> None:
        await in_thread(_drop_empty, self._root / checked(folder))

    async def keys(self, prefix: str = "") -> AsyncIterator[Stored]:
        prefix = _checked_prefix(prefix)
        walk = _walk(self._root, self._root / prefix.rpartition("/")[0])
        while batch := await in_thread(lambda: list(itertools.islice(walk, KEYS_AT_ONCE))):
            for one in batch:
                if one.key.startswith(prefix):
                    yield one

    @asynccontextmanager
    async def scratch(self) -> AsyncIterator[Path]:
        async with self._scratch.folder() as path:
            yield path

    async def close(self) -> None:
        """Nothing is held."""


def _make_folder(folder: Path) -> None:
    """Make `folder` and what is missing above it, private, and on disk for good."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for one in reversed(missing):
        one.mkdir(mode=0o700, exist_ok=True)
        sync(one.parent)


def _drop_empty(top: Path) -> None:
    """Remove `top` and what is below it, as far as there are no files."""
    for folder, _, _ in os.walk(top, topdown=False):
        with contextlib.suppress(OSError):  # there is a file in it, or it is gone already
            Path(folder).rmdir()


def _walk(root: Path, top: Path) -> Iterator[Stored]:
    for folder, folders, files in os.walk(top):
        folders[:] = [one for one in folders if not one.startswith(".")]
        for name in files:
            path = Path(folder, name)
            with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                told = path.stat()
                modified = datetime.fromtimestamp(told.st_mtime, UTC)
                yield Stored(path.relative_to(root).as_posix(), told.st_size, modified)


class S3Blobs:
    """Files in a bucket. boto3 blocks, so it works in threads; its credentials come by its own chain."""

    def __init__(self, settings: StorageSettings, folder: Path) -> None:
        """`folder` holds what is under way to and from the bucket. Raises SettingsError without the extra `s3`."""
        assert settings.s3_bucket is not None
        try:
            boto3 = importlib.import_module("boto3")
            config = importlib.import_module("botocore.config")
            transfer = importlib.import_module("boto3.s3.transfer")
            self._errors = importlib.import_module("botocore.exceptions")
        except ImportError as error:
            raise SettingsError(
                "BAATCHEET_S3_BUCKET: files in S3 need the package boto3, which is not installed. "
                "Install it: pip install 'baatcheet[s3]'"
            ) from error
        self._bucket = settings.s3_bucket
        self._threads = Threads(_CALLS_AT_ONCE, "s3")
        self._prefix = f"{settings.s3_prefix.strip('/')}/" if settings.s3_prefix.strip("/") else ""
        self._scratch = Scratch(folder.expanduser().absolute() / _SCRATCH)
        own = settings.s3_endpoint is not None
        try:
            self._client: Any = boto3.client(
                "s3",
                endpoint_url=settings.s3_endpoint,
                region_name=settings.s3_region,
                config=config.Config(
                    connect_timeout=5,
                    read_timeout=30,
                    max_pool_connections=2 * _CALLS_AT_ONCE,
                    retries={"mode": "standard", "max_attempts": 3},
                    s3={"addressing_style": "path" if own else "auto"},
                    # What other servers do not all know.
                    request_checksum_calculation="when_required" if own else "when_supported",
                    response_checksum_validation="when_required" if own else "when_supported",
                    user_agent_extra="baatcheet",
                ),
            )
        except (self._errors.BotoCoreError, ValueError) as error:
            raise SettingsError(f"BAATCHEET_S3_BUCKET: the bucket can't be used: {error}") from error
        self._transfer = transfer.TransferConfig(
            multipart_threshold=_PART_BYTES, multipart_chunksize=_PART_BYTES, max_concurrency=2
        )

    async def put(self, key: str, path: Path) -> None:
        await self._call(key, self._put, self._prefix + checked(key), path)

    def _put(self, name: str, path: Path) -> None:
        self._client.upload_file(str(path), self._bucket, name, Config=self._transfer)
        path.unlink()

    @asynccontextmanager
    async def local(self, key: str) -> AsyncIterator[Path]:
        name = self._prefix + checked(key)
        async with self.scratch() as folder:
            path = folder / key.rpartition("/")[2]
            await self._call(
                key, self._client.download_file, self._bucket, name, str(path), Config=self._transfer
            )
            yield path

    async def size(self, key: str) -> int | None:
        name = self._prefix + checked(key)
        try:
            told = await self._call(key, self._client.head_object, Bucket=self._bucket, Key=name)
        except FileMissing:
            return None
        size: int = told["ContentLength"]
        return size

    async def read(self, key: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        name = self._prefix + checked(key)
        length = _length(start, end)
        size = await self.size(key)
        if size is None:
            raise _missing(key)
        last = min(start + length, size) - 1
        if last < start:  # no range of HTTP's says "nothing"
            return
        held = contextlib.ExitStack()
        try:
            body = await self._call(key, self._get, name, f"bytes={start}-{last}", held)
            while chunk := await self._call(key, body.read, CHUNK_BYTES):
                yield chunk
        finally:
            await in_thread(held.close)

    def _get(self, name: str, range_: str, held: contextlib.ExitStack) -> Any:
        answer = self._client.get_object(Bucket=self._bucket, Key=name, Range=range_)
        return held.enter_context(contextlib.closing(answer["Body"]))

    async def delete(self, key: str) -> None:
        name = self._prefix + checked(key)
        with contextlib.suppress(FileMissing):
            await self._call(key, self._client.delete_object, Bucket=self._bucket, Key=name)

    async def drop_folder(self, folder: str) -> None:
        """There are no folders."""
        checked(folder)

    async def keys(self, prefix: str = "") -> AsyncIterator[Stored]:
        more: dict[str, Any] = {}
        beginning = self._prefix + _checked_prefix(prefix)
        while True:
            page = await self._call(
                prefix,
                self._client.list_objects_v2,
                Bucket=self._bucket,
                Prefix=beginning,
                MaxKeys=KEYS_AT_ONCE,
                **more,
            )
            for one in page.get("Contents", ()):
                yield Stored(one["Key"].removeprefix(self._prefix), one["Size"], one["LastModified"])
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    @asynccontextmanager
    async def scratch(self) -> AsyncIterator[Path]:
        async with self._scratch.folder() as path:
            yield path

    async def close(self) -> None:
        self._threads.close()
        await in_thread(self._client.close)

    async def _call(self, key: str, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """What `function` of the client returns. Raises FileMissing, FileStoreUnavailable."""
        errors = self._errors
        try:
            with disk_errors():
                return await self._threads.run(function, *arguments, **named)
        except errors.ClientError as error:
            told = error.response.get("Error", {})
            if told.get("Code") in _MISSING:
                raise _missing(key) from None
            log.error(
                "files.refused", bucket=self._bucket, code=told.get("Code"), message=told.get("Message")
            )
            raise FileStoreUnavailable(
                "The file store refuses; an administrator finds why in the log."
            ) from error
        except Exception as error:
            if not _is_of(error, "botocore", "boto3", "s3transfer", "urllib3"):
                raise
            log.error("files.unreachable", error=error, bucket=self._bucket)
            raise FileStoreUnavailable("The file store can't be reached.") from error


def _is_of(error: Exception, *packages: str) -> bool:
    """Whether one of these packages made this kind of error: they have no base of their own in common."""
    return type(error).__module__.partition(".")[0] in packages
