"""The servers of the gateway benchmark, each in processes of its own, on loopback only."""

import asyncio
import os
import re
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from benchmarks.load import Server
from benchmarks.processes import Cpu, NotStartedError, command, cpu, descendants, first_line, program, running
from benchmarks.shares import Stack

TOKEN = "bc_benchmark_0123456789abcdef0123456789abcdef"
_START_SECONDS = 90.0
_PROFILE_SECONDS = 20.0
_API = {"baatcheet.entrypoints.api", "benchmarks.sampled_api"}
_SERVE = "from baatcheet.entrypoints.cli import main; main()"  # what the console script does
_STORES = ("postgres", "valkey", "redis")


class Seen(msgspec.Struct, frozen=True):
    """What the fake upstream has been sent."""

    requests: int
    body_bytes: int


@dataclass(frozen=True)
class Side:
    """A server under load."""

    name: str
    server: Server
    pid: int  # the process that serves HTTP
    stores: tuple[int, ...] = ()  # its database's and cache's processes at the start

    def cpu(self) -> Cpu:
        """What the HTTP process has used."""
        return cpu([self.pid])

    def stores_cpu(self) -> Cpu:
        """What the database and the cache have used; connections opened since the start count."""
        return cpu(sorted({pid for root in self.stores for pid in descendants(root)}))


@dataclass(frozen=True)
class Upstream:
    """The fake provider."""

    url: str
    pid: int

    @property
    def server(self) -> Server:
        return Server.at(self.url)

    async def seen(self) -> Seen:
        connection = await self.server.connect()
        answer = await connection.ask(self.server.get("/seen"))
        connection.close()
        return msgspec.json.decode(answer.body, type=Seen)


@contextmanager
def fake_upstream() -> Iterator[Upstream]:
    with running("-m", "benchmarks.fake_upstream") as process:
        yield Upstream(first_line(process), process.pid)


@contextmanager
def bare_proxy(upstream: Upstream) -> Iterator[Side]:
    with running("-m", "benchmarks.bare_proxy", upstream.url) as process:
        yield Side("bare", Server.at(first_line(process)), process.pid)


@contextmanager
def baatcheet(
    upstream: Upstream,
    folder: Path,
    *,
    profiles: Path | None = None,
    settings: Mapping[str, str] | None = None,
) -> Iterator[Side]:
    """`baatcheet serve` on an empty data folder; with `profiles`, its API process has a sampler inside."""
    environ = {
        "BAATCHEET_DATA_DIR": str(folder / "data"),
        "BAATCHEET_HOST": "127.0.0.1",
        "BAATCHEET_PORT": "0",
        "BAATCHEET_PROCESSES": "1",
        "BAATCHEET_ADMIN_TOKEN": TOKEN,
        "BAATCHEET_REQUESTS_PER_MINUTE": "0",
        "OPENAI_BASE_URL": upstream.url,
        "OLLAMA_HOST": "",
        **(settings or {}),
    }
    log = folder / "server.log"
    what = (
        ("-c", _SERVE, "serve")
        if profiles is None
        else ("-m", "benchmarks.sampled_api", "--serve", str(profiles))
    )
    with running(*what, environ=environ, folder=folder, log=log) as process:
        end = time.monotonic() + _START_SECONDS
        while not (found := re.search(r"is ready at (http://\S+)", log.read_text(encoding="utf-8"))):
            if process.poll() is not None or time.monotonic() > end:
                said = log.read_text(encoding="utf-8")[-4000:]
                raise NotStartedError(f"baatcheet serve did not start:\n{said}")
            time.sleep(0.05)
        family = descendants(process.pid)
        api = next(pid for pid in family if pid != process.pid and _API & {*command(pid)})
        stores = tuple(pid for pid in family if program(pid).startswith(_STORES))
        yield Side("ours", Server.at(found.group(1), TOKEN), api, stores)


class Profiles:
    """The profiles of a server that was started with a sampler inside."""

    def __init__(self, side: Side, folder: Path) -> None:
        self._pid = side.pid
        self._folder = folder
        self._taken = 0

    def begin(self) -> None:
        os.kill(self._pid, signal.SIGUSR1)

    async def end(self) -> list[Stack]:
        """The stacks seen since `begin`. Raises TimeoutError."""
        os.kill(self._pid, signal.SIGUSR2)
        file = self._folder / f"{self._taken}.json"
        self._taken += 1
        async with asyncio.timeout(_PROFILE_SECONDS):
            while not file.exists():  # noqa: ASYNC110 - another process writes it
                await asyncio.sleep(0.05)
        return msgspec.json.decode(file.read_bytes(), type=list[Stack])
