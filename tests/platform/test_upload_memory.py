"""What an upload costs the process that takes it, measured from outside."""

import asyncio
import hashlib
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Self

import httpx
import pytest

from baatcheet.auth.bootstrap import ensure_admin
from baatcheet.platform.settings import load
from tests.conftest import ADMIN_TOKEN
from tests.platform.upload_server import PATH

ROOT = Path(__file__).parents[2]
BOUNDARY = "frontier"
SIZE = 50_000_000
CHUNK = 100_000
HEAD = f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="file"; filename="a.bin"\r\n\r\n'.encode()
END = f"\r\n--{BOUNDARY}--\r\n".encode()
SLACK = 4_000_000  # bytes that the process may have more for other reasons


@pytest.fixture(scope="module")
def upload_server(
    services: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, int, Path]]:
    """Its address, its process and its folder."""
    folder = tmp_path_factory.mktemp("upload-server")
    settings = {
        **services,
        "OLLAMA_HOST": "",
        "BAATCHEET_ADMIN_TOKEN": ADMIN_TOKEN,
        "BAATCHEET_POOL_MAX": "4",
        "BAATCHEET_MAX_BODY_BYTES": "70000000",
        "BAATCHEET_FILES_DIR": str(folder / "files"),
        "BAATCHEET_GRACE_SECONDS": "1",
    }
    ensure_admin(services["DATABASE_URL"], load(settings, dotenv=None).auth)
    log = folder / "log"
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("BAATCHEET_", "OPENAI_"))
    }
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener, log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.platform.upload_server", str(listener.fileno())],
            env=kept | settings,
            cwd=ROOT,
            pass_fds=(listener.fileno(),),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        assert httpx.get(f"{url}/live", timeout=60, trust_env=False).status_code == 200, log.read_text()
        yield url, process.pid, folder
    finally:
        process.terminate()
        process.wait(30)


def memory_of(pid: int) -> int:
    """Bytes of the process's own that are in memory."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no RssAnon")


class Watch:
    """The most memory that a process has while this is open."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.before = self.most = memory_of(pid)

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._look())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()

    async def _look(self) -> None:
        while True:
            self.most = max(self.most, memory_of(self._pid))
            await asyncio.sleep(0.01)


async def upload(url: str, content: bytes, pause: float) -> httpx.Response:
    async def body() -> AsyncIterator[bytes]:
        yield HEAD
        for start in range(0, len(content), CHUNK):
            yield content[start : start + CHUNK]
            if pause:
                await asyncio.sleep(pause)
        yield END

    headers = {
        "authorization": f"Bearer {ADMIN_TOKEN}",
        "content-type": f"multipart/form-data; boundary={BOUNDARY}",
        "content-length": str(len(HEAD) + len(content) + len(END)),
    }
    async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as client:
        return await client.post(PATH, content=body(), headers=headers)


@pytest.mark.parametrize("pause", [0, 0.005], ids=["fast", "slowly"])
async def test_fifty_megabytes_pass_through_little_memory(
    upload_server: tuple[str, int, Path], pause: float
) -> None:
    url, pid, folder = upload_server
    content = random.Random(pause).randbytes(SIZE)
    assert (await upload(url, content[: SIZE // 10], 0)).status_code == 200  # what only the first one needs
    async with Watch(pid) as watch:
        answer = await upload(url, content, pause)
    assert answer.status_code == 200, answer.text
    digest = hashlib.sha256(content).hexdigest()
    assert answer.json() == {"size": SIZE, "sha256": digest}
    [stored] = folder.glob(f"files/uploads/*/{digest}")
    assert stored.stat().st_size == SIZE
    stored.unlink()
    assert watch.most - watch.before < SLACK


async def test_ten_uploads_at_once_pass_through_little_memory(upload_server: tuple[str, int, Path]) -> None:
    url, pid, _ = upload_server
    async with Watch(pid) as watch:
        answers = await asyncio.gather(
            *(upload(url, random.Random(number).randbytes(SIZE // 5), 0.002) for number in range(10))
        )
    assert {answer.status_code for answer in answers} == {200}
    assert watch.most - watch.before < 5 * SLACK


async def test_others_are_answered_while_a_large_file_comes(upload_server: tuple[str, int, Path]) -> None:
    url, _, _ = upload_server
    uploading = asyncio.create_task(upload(url, bytes(SIZE), 0.001))
    waits = []
    async with httpx.AsyncClient(base_url=url, timeout=10, trust_env=False) as client:
        while not uploading.done():
            begun = time.monotonic()
            assert (await client.get("/live")).status_code == 200
            waits.append(time.monotonic() - begun)
            await asyncio.sleep(0.01)
    assert (await uploading).status_code == 200
    waits.sort()
    assert waits[len(waits) // 2] < 0.1
