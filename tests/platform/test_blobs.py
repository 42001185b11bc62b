"""One suite for every store of files: a folder, and S3 as a server on a real socket speaks it."""

import asyncio
import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moto.server import ThreadedMotoServer

from baatcheet.platform.blobs import (
    CHUNK_BYTES,
    Blobs,
    FileMissing,
    FileStoreUnavailable,
    FolderBlobs,
    S3Blobs,
    Scratch,
    build_blobs,
    checked,
)
from baatcheet.platform.settings import SettingsError, StorageSettings
from baatcheet.platform.threads import in_thread

KEY = "attachments/0190f3a2-7c1e-7d4b-9a51-3f0c2b8e6d10/ab12.bin"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def _s3(endpoint: str, folder: Path, bucket: str = "files", prefix: str = "") -> S3Blobs:
    settings = StorageSettings.model_validate(
        {"s3_bucket": bucket, "s3_endpoint": endpoint, "s3_region": "us-east-1", "s3_prefix": prefix}
    )
    return S3Blobs(settings, folder)


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture(params=["folder", "s3", "s3 with a prefix"])
async def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Blobs]:
    opened: Blobs
    if request.param == "folder":
        opened = FolderBlobs(tmp_path / "files")
    else:
        endpoint: str = request.getfixturevalue("s3_server")
        bucket = f"files-{os.urandom(6).hex()}"
        prefix = "a/prefix/" if "prefix" in request.param else ""
        opened = s3 = _s3(endpoint, tmp_path / "files", bucket, prefix)
        await asyncio.to_thread(s3._client.create_bucket, Bucket=bucket)
    yield opened
    await opened.close()


async def put(blobs: Blobs, content: bytes, key: str = KEY) -> None:
    async with blobs.scratch() as folder:
        path = folder / "made"
        path.write_bytes(content)
        await blobs.put(key, path)
        assert not path.exists()


async def whole(blobs: Blobs, key: str = KEY, start: int = 0, end: int | None = None) -> bytes:
    return b"".join([chunk async for chunk in blobs.read(key, start, end)])


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 20_000_000])
async def test_what_was_put_is_read_back(blobs: Blobs, size: int) -> None:
    content = os.urandom(size)
    await put(blobs, content)
    assert await blobs.size(KEY) == size
    assert await whole(blobs) == content
    async with blobs.local(KEY) as path:
        assert path.read_bytes() == content


async def test_putting_again_replaces(blobs: Blobs) -> None:
    await put(blobs, b"the first")
    await put(blobs, b"the first")
    assert await whole(blobs) == b"the first"
    await put(blobs, b"another")
    assert await whole(blobs) == b"another"


async def test_a_part_is_read(blobs: Blobs) -> None:
    content = os.urandom(200_000)
    await put(blobs, content)
    for start, end in [
        (0, 1), (5, 5), (0, None), (199_999, None), (200_000, None), (300_000, None), (100, 150_000),
        (199_000, 500_000), (65_536, 131_072), (300_000, 300_001),
    ]:  # fmt: skip
        assert await whole(blobs, KEY, start, end) == content[start:end]
    for start, end in [(-1, None), (5, 4), (0, -1)]:
        with pytest.raises(ValueError, match="no bytes"):
            await whole(blobs, KEY, start, end)


async def test_reading_may_end_early(blobs: Blobs) -> None:
    await put(blobs, os.urandom(1_000_000))
    reading = blobs.read(KEY)
    async for chunk in reading:
        assert chunk
        break
    await reading.aclose()  # type: ignore[attr-defined]


async def test_what_is_not_there_is_missing(blobs: Blobs) -> None:
    await put(blobs, b"x")
    for key in ("attachments/none", "none", "attachments", f"{KEY}x"):
        assert await blobs.size(key) is None
        with pytest.raises(FileMissing):
            await whole(blobs, key)
        with pytest.raises(FileMissing):
            await whole(blobs, key, 3, 3)
        with pytest.raises(FileMissing):
            async with blobs.local(key):
                pass
        await blobs.delete(key)
    assert await whole(blobs) == b"x"


async def test_deleting_twice_is_deleting(blobs: Blobs) -> None:
    await put(blobs, b"x")
    await blobs.delete(KEY)
    await blobs.delete(KEY)
    assert await blobs.size(KEY) is None
    assert [one async for one in blobs.keys("")] == []


async def test_keys_are_listed_with_their_sizes_and_ages(blobs: Blobs) -> None:
    for key, size in {"a/b/one": 1, "a/b/two": 2, "a/bc/three": 3, "d": 4}.items():
        await put(blobs, b"x" * size, key)
    async with blobs.scratch() as folder:
        (folder / "under-way").write_bytes(b"x")
        listed = {one.key: one async for one in blobs.keys("")}
    assert {key: one.size for key, one in listed.items()} == {
        "a/b/one": 1,
        "a/b/two": 2,
        "a/bc/three": 3,
        "d": 4,
    }
    for one in listed.values():
        assert abs(one.age(datetime.now(UTC))) < timedelta(minutes=1)

    async def under(prefix: str) -> set[str]:
        return {one.key async for one in blobs.keys(prefix)}

    assert await under("a/b/") == {"a/b/one", "a/b/two"}
    assert await under("a/b") == {"a/b/one", "a/b/two", "a/bc/three"}
    assert await under("none/") == set()


async def test_more_keys_than_fit_a_page_are_listed(blobs: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("baatcheet.platform.blobs.KEYS_AT_ONCE", 3)
    for number in range(10):
        await put(blobs, b"x", f"many/{number}")
    assert len({one.key async for one in blobs.keys("many/")}) == 10


BAD_KEYS = [
    "", "/", "/etc/passwd", "..", "../x", "a/../b", "a//b", "a/", ".hidden", "a/.scratch/b", "a/./b", "a\\b",
    "a\x00b", "a b", "a\n", "ب", "x" * 513, "a?b", "a%2fb", "~", "x" * 201,
]  # fmt: skip


@pytest.mark.parametrize("key", BAD_KEYS)
async def test_no_key_leads_out_of_the_store(blobs: Blobs, key: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    with pytest.raises(ValueError, match="key"):
        await blobs.put(key, path)
    with pytest.raises(ValueError, match="key"):
        await whole(blobs, key)
    with pytest.raises(ValueError, match="key"):
        await blobs.delete(key)
    with pytest.raises(ValueError, match="key"):
        await blobs.size(key)
    with pytest.raises(ValueError, match="key"):
        async with blobs.local(key):
            pass
    assert path.exists()


@given(st.text(st.sampled_from("ab./\\-~\0 "), max_size=20))
def test_a_key_that_is_taken_stays_in_its_folder(key: str) -> None:
    try:
        checked(key)
    except ValueError:
        return
    root = Path("/store")
    assert Path(os.path.normpath(root / key)).is_relative_to(root)
    assert os.path.normpath(root / key) == f"/store/{key}"


async def test_puts_of_one_key_at_once_leave_one_of_them_whole(blobs: Blobs) -> None:
    contents = [bytes([number]) * 300_000 for number in range(8)]
    await asyncio.gather(*(put(blobs, content) for content in contents))
    assert await whole(blobs) in contents


async def test_a_reader_sees_one_file_while_another_takes_its_place(blobs: Blobs) -> None:
    await put(blobs, b"a" * 500_000)
    reading = blobs.read(KEY)
    first = await anext(aiter(reading))
    await put(blobs, b"b" * 500_000)
    rest = b"".join([chunk async for chunk in reading])
    assert set(first + rest) == {ord("a")}
    assert len(first + rest) == 500_000


async def test_a_scratch_folder_is_private_and_goes_with_its_files(blobs: Blobs) -> None:
    async with blobs.scratch() as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "file").write_bytes(b"x")
        assert folder.stat().st_mode & 0o777 == 0o700
    assert not folder.exists()
    with pytest.raises(RuntimeError):
        async with blobs.scratch() as folder:
            raise RuntimeError
    assert not folder.exists()


async def test_a_cancelled_put_leaves_all_or_nothing(blobs: Blobs) -> None:
    content = os.urandom(10_000_000)
    for number in range(8):
        key = f"cancelled/{number}"
        putting = asyncio.create_task(put(blobs, content, key))
        await asyncio.sleep(0.004 * number)
        putting.cancel()
        await asyncio.wait([putting])
        assert await blobs.size(key) in {None, len(content)}


KILLED = """
import asyncio, os, pathlib, sys
from baatcheet.platform.blobs import build_blobs
from baatcheet.platform.settings import StorageSettings

async def main():
    blobs = build_blobs(StorageSettings.model_validate_json(sys.argv[1]), pathlib.Path("data"))
    print("ready", flush=True)
    for number in range(10_000):
        async with blobs.scratch() as folder:
            (folder / "made").write_bytes(bytes([number % 256]) * 9_000_000)
            await blobs.put(f"killed/{number}", folder / "made")

asyncio.run(main())
"""


async def test_a_killed_process_leaves_no_half_file(blobs: Blobs, tmp_path: Path) -> None:
    settings = StorageSettings(files_dir=tmp_path / "files")
    if isinstance(blobs, S3Blobs):
        settings = settings.model_copy(
            update={
                "s3_bucket": blobs._bucket,
                "s3_endpoint": blobs._client.meta.endpoint_url,
                "s3_region": "us-east-1",
                "s3_prefix": blobs._prefix,
            }
        )
    for pause in (0.07, 0.29):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, settings.model_dump_json()], stdout=subprocess.PIPE, cwd=tmp_path
        )
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline) == b"ready\n"
        await asyncio.sleep(pause)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        async for one in blobs.keys("killed/"):
            assert one.size == 9_000_000
            content = await whole(blobs, one.key)
            assert content == content[:1] * 9_000_000
    # What it had under way is removed once it is old.
    assert Scratch(tmp_path / "files/.scratch").sweep(older=-1) >= 0
    assert not [*(tmp_path / "files/.scratch").iterdir()]


async def test_a_scratch_folder_in_use_is_not_swept(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path)
    async with blobs.scratch() as folder:
        assert Scratch(tmp_path / ".scratch").sweep(older=-1) == 0
        assert folder.exists()


async def test_a_file_from_another_file_system_is_taken_in(tmp_path: Path) -> None:
    elsewhere = Path("/dev/shm") / f"baatcheet-{os.urandom(6).hex()}"
    try:
        elsewhere.write_bytes(b"x" * 100_000)
    except OSError:
        pytest.skip("there is no other file system here")
    if elsewhere.stat().st_dev == tmp_path.stat().st_dev:
        elsewhere.unlink()
        pytest.skip("there is no other file system here")
    blobs = FolderBlobs(tmp_path / "files")
    await blobs.put(KEY, elsewhere)
    assert not elsewhere.exists()
    assert await whole(blobs) == b"x" * 100_000
    assert not [*(tmp_path / "files/.scratch").iterdir()]


async def test_files_are_nobody_elses_to_read(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path / "files")
    async with blobs.scratch() as folder:
        descriptor = os.open(folder / "made", os.O_WRONLY | os.O_CREAT, 0o600)
        os.close(descriptor)
        await blobs.put(KEY, folder / "made")
    for path in (tmp_path / "files").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS])
async def test_a_disk_that_is_full_or_ill_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    blobs = FolderBlobs(tmp_path / "files")

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    async with blobs.scratch() as folder:
        (folder / "made").write_bytes(b"x")
        monkeypatch.setattr("baatcheet.platform.blobs.sync", fail)
        with pytest.raises(FileStoreUnavailable):
            await blobs.put(KEY, folder / "made")
    assert await blobs.size(KEY) is None


async def test_a_server_that_is_down_is_told_in_time(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    blobs = _s3(f"http://127.0.0.1:{port}", tmp_path)
    async with asyncio.timeout(20):
        with pytest.raises(FileStoreUnavailable):
            await put(blobs, b"x")
        with pytest.raises(FileStoreUnavailable):
            await blobs.size(KEY)
        with pytest.raises(FileStoreUnavailable):
            await whole(blobs)
    await blobs.close()


async def test_a_server_that_hangs_holds_up_nothing_else(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        hanging = _s3(f"http://127.0.0.1:{listener.getsockname()[1]}", tmp_path / "s3")
        waiting = [asyncio.create_task(hanging.size("a/b")) for _ in range(40)]
        await asyncio.sleep(0.2)
        async with asyncio.timeout(5):
            await put(FolderBlobs(tmp_path / "files"), b"x")
            async with hanging.scratch() as folder:
                assert folder.is_dir()
        for one in waiting:
            one.cancel()
    await asyncio.wait(waiting, timeout=30)
    await hanging.close()


async def test_a_bucket_that_is_not_there_is_told(s3_server: str, tmp_path: Path) -> None:
    blobs = _s3(s3_server, tmp_path, "no-such-bucket")
    with pytest.raises(FileStoreUnavailable):
        await put(blobs, b"x")
    await blobs.close()


async def test_large_files_pass_through_little_memory(s3_server: str, tmp_path: Path) -> None:
    """The event loop goes on meanwhile."""
    blobs = _s3(s3_server, tmp_path, f"files-{os.urandom(6).hex()}")
    await asyncio.to_thread(blobs._client.create_bucket, Bucket=blobs._bucket)
    longest = 0.0

    async def beat() -> None:
        nonlocal longest
        while True:
            begun = time.monotonic()
            await asyncio.sleep(0.005)
            longest = max(longest, time.monotonic() - begun)

    beating = asyncio.create_task(beat())
    await put(blobs, os.urandom(30_000_000))
    async with blobs.local(KEY) as path:
        assert path.stat().st_size == 30_000_000
    beating.cancel()
    await blobs.close()
    assert longest < 2.0  # moto itself runs in this process


def test_the_folder_is_in_the_data_folder_unless_it_is_named(tmp_path: Path) -> None:
    default = build_blobs(StorageSettings(), tmp_path)
    assert isinstance(default, FolderBlobs)
    assert default._root == tmp_path / "files"
    named = build_blobs(StorageSettings(files_dir=tmp_path / "elsewhere"), tmp_path)
    assert isinstance(named, FolderBlobs)
    assert named._root == tmp_path / "elsewhere"
    bucket = StorageSettings.model_validate({"s3_bucket": "files", "s3_region": "us-east-1"})
    assert isinstance(build_blobs(bucket, tmp_path), S3Blobs)


def test_a_bucket_without_boto3_is_told_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(SettingsError, match=r"pip install 'baatcheet\[s3\]'"):
        build_blobs(StorageSettings(s3_bucket="files"), tmp_path)


def test_a_folder_needs_no_boto3() -> None:
    script = "import sys, baatcheet.platform.blobs; assert not {'boto3', 'botocore'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 0


async def test_whoever_is_cancelled_waits_for_what_its_thread_does() -> None:
    going, ended = threading.Event(), threading.Event()

    def work() -> None:
        going.set()
        time.sleep(0.2)
        ended.set()

    task = asyncio.create_task(in_thread(work))
    await asyncio.to_thread(going.wait)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0.01)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()
