"""How soon a request that makes a job is answered, while ten thousand others wait."""

import asyncio
import io
import os
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from uuid import UUID

import aiohttp
from PIL import Image
from pydantic import SecretStr
from sqlalchemy import text

from baatcheet.auth.bootstrap import ensure_admin
from baatcheet.jobs.enqueueing import Order, enqueue_many
from baatcheet.kit.ids import new_id
from baatcheet.platform.database import Database
from baatcheet.platform.settings import Settings
from benchmarks.jobs.noop import Nothing, nothing
from benchmarks.report import Report, progress

WAITING = 10_000  # jobs
REQUIRED = 50.0  # ms
TOKEN = "bc_benchmark_0123456789abcdef0123456789abcdef"
START = 60.0  # seconds

Call = Callable[[int], Awaitable[None]]


class Answers:
    """One run: so many requests of each kind, one after another, to a real API process without a worker."""

    def __init__(
        self, db: Database, settings: Settings, user: UUID, report: Report, *, readings: int
    ) -> None:
        self._db = db
        self._settings = settings
        self._user = user
        self._report = report
        self._readings = readings

    async def run(self) -> None:
        progress(f"queueing {WAITING:,} jobs")
        for _ in range(WAITING // 1_000):
            async with self._db.system() as session:
                await enqueue_many(session, nothing, [Order(Nothing(), self._user) for _ in range(1_000)])
        async with self._db.system(limit=60) as session:
            await session.execute(text("ANALYZE jobs"))
        assert self._settings.database.url is not None
        url = self._settings.database.url.get_secret_value()
        auth = self._settings.auth.model_copy(update={"admin_token": SecretStr(TOKEN)})
        await asyncio.to_thread(ensure_admin, url, auth)
        async with api(self._settings) as client:
            conversation = await self._conversation(client)
            webhook = await _made(
                client, "/api/v1/webhooks", {"url": "https://hooks.example.com/", "events": ["*"]}
            )
            calls: dict[str, Call] = {
                "plain": lambda _: _posted(client, "/api/v1/projects", json={"name": "benchmark"}),
                "upload": lambda at: _posted(client, "/api/v1/attachments", data=_picture(at)),
                "export": lambda _: _posted(
                    client, f"/api/v1/conversations/{conversation}/exports", json={"format": "pdf"}
                ),
                "webhook_test": lambda _: _posted(client, f"/api/v1/webhooks/{webhook}/test"),
            }
            for name, call in calls.items():
                progress(f"asking: {name}")
                await self._measure(name, call)

    async def _measure(self, name: str, call: Call) -> None:
        times = []
        for at in range(self._readings):
            began = time.perf_counter()
            await call(at)
            times.append((time.perf_counter() - began) * 1000)
        cuts = statistics.quantiles(times, n=100)
        self._report.add(f"answer.{name}.p50", cuts[49], "ms", better="lower")
        target = None if name == "plain" else REQUIRED
        self._report.add(f"answer.{name}.p99", cuts[98], "ms", better="lower", target=target)

    async def _conversation(self, client: aiohttp.ClientSession) -> str:
        made = await _made(client, "/api/v1/conversations", {"title": "benchmark"})
        for at in range(20):
            await _posted(
                client,
                f"/api/v1/conversations/{made}/messages",
                json={"role": "user" if at % 2 == 0 else "assistant", "content": f"Message {at}."},
            )
        return made


def _picture(at: int) -> aiohttp.FormData:
    """A small picture, another each time: a second upload of the same one makes no job."""
    file = io.BytesIO()
    Image.new("RGB", (640, 400), (at % 256, at // 256, 128)).save(file, "PNG")
    form = aiohttp.FormData()
    form.add_field("file", file.getvalue(), filename=f"{new_id()}.png", content_type="image/png")
    return form


async def _posted(client: aiohttp.ClientSession, path: str, **body: object) -> None:
    async with client.post(path, **body) as answer:  # type: ignore[arg-type]
        said = await answer.text()
        if answer.status >= 300:
            raise RuntimeError(f"{path} answers {answer.status}: {said[:500]}")


async def _made(client: aiohttp.ClientSession, path: str, body: object) -> str:
    async with client.post(path, json=body) as answer:
        said = await answer.json()
        if answer.status != 201:
            raise RuntimeError(f"{path} answers {answer.status}: {said}")
    made = said.get("webhook", said)
    return str(made["id"])


@asynccontextmanager
async def api(settings: Settings) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of a real API process, which ends with it."""
    assert settings.database.url is not None
    assert settings.cache.url is not None
    with socket.create_server(("127.0.0.1", 0)) as listener, tempfile.TemporaryDirectory() as folder:
        environment = {
            **os.environ,
            "DATABASE_URL": settings.database.url.get_secret_value(),
            "REDIS_URL": settings.cache.url.get_secret_value(),
            "BAATCHEET_ADMIN_TOKEN": TOKEN,
            "BAATCHEET_WORKERS": "0",
            "BAATCHEET_POOL_MAX": "20",
            "BAATCHEET_DATA_DIR": folder,
            "BAATCHEET_LOG_LEVEL": "warning",
            "OLLAMA_HOST": "",
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "baatcheet.entrypoints.api",
            "--fd",
            str(listener.fileno()),
            env=environment,
            pass_fds=(listener.fileno(),),
            cwd=folder,
            stdout=asyncio.subprocess.DEVNULL,
        )
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            headers = {"authorization": f"Bearer {TOKEN}"}
            async with aiohttp.ClientSession(address, headers=headers) as client:
                async with client.get("/ready", timeout=aiohttp.ClientTimeout(START)) as answer:
                    if answer.status != 200:
                        raise RuntimeError(f"/ready answers {answer.status}")
                yield client
        finally:
            process.terminate()
            await asyncio.wait_for(process.wait(), 30)
