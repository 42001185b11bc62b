"""What following the events costs: `python -m benchmarks.events [--json] [--quick]`.

1,000 open streams of 1,000 users on one API process, while 100 events a second are recorded as a turn records them: in
its transaction, and with no notice. The delay is from before that transaction to the client's reading the event, so the
relay's pause is in it. On a durable PostgreSQL that is started for the run.
"""

import asyncio
import socket
import statistics
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import msgspec
import uvloop

from baatcheet.auth.secrets import token_hash
from baatcheet.kit.ids import new_id
from baatcheet.platform.database import Database
from baatcheet.platform.settings import Settings
from benchmarks.context.workplace import services
from benchmarks.processes import cpu, rss_mb, running
from benchmarks.report import Report, options, progress

STREAMS = 1_000
RATE = 100  # events a second
PATIENCE = 60.0  # seconds
DELAY_P99 = 500.0  # ms, at most
CPU_SHARE = 15.0  # percent of a core, of the API process, at most

_USERS = "INSERT INTO users (id, name) SELECT u, 'benchmark' FROM unnest($1::uuid[]) u"
_TOKENS = """
INSERT INTO api_tokens (id, user_id, name, prefix, hash, scopes)
SELECT gen_random_uuid(), u, 'benchmark', 'bc_', h, '{read,write,chat}' FROM unnest($1::uuid[], $2::bytea[]) AS t(u, h)
"""
_RECORD = """
INSERT INTO outbox (user_id, type, data)
VALUES ($1::uuid, 'turn.completed', jsonb_build_object('at', $2::float8, 'turn_id', $1::uuid, 'finish_reason', 'stop',
        'model', 'groq/llama-3.3-70b-versatile', 'prompt_tokens', 812, 'completion_tokens', 211))
"""


def token_of(user: UUID) -> str:
    return f"bc_{user}"


@dataclass
class Followers:
    """The clients, on plain sockets: what they cost is not the server's."""

    port: int
    users: list[UUID]
    delays: list[float] = field(default_factory=list)
    open: int = 0
    all_open: asyncio.Event = field(default_factory=asyncio.Event)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def begin(self) -> None:
        self.tasks = [asyncio.create_task(self._follow(user)) for user in self.users]
        async with asyncio.timeout(PATIENCE):
            await self.all_open.wait()

    async def _follow(self, user: UUID) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            head = f"GET /api/v1/events HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {token_of(user)}\r\n\r\n"
            writer.write(head.encode())
            answer = await reader.readuntil(b"\r\n\r\n")
            if b" 200 " not in answer.split(b"\r\n", 1)[0]:
                raise RuntimeError(answer.decode())
            self.open += 1
            if self.open == len(self.users):
                self.all_open.set()
            while line := await reader.readline():
                if line.startswith(b"data: "):
                    event = msgspec.json.decode(line[6:])
                    self.delays.append((time.time() - event["data"]["at"]) * 1000)
        finally:
            writer.close()

    async def end(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def measure(report: Report, settings: Settings, *, seconds: float) -> None:
    assert settings.database.url is not None
    environ = {
        "DATABASE_URL": settings.database.url.get_secret_value(),
        "BAATCHEET_LOG_LEVEL": "warning",
        "OLLAMA_HOST": "",
    }
    db = Database(settings.database, pool_size=4)
    users = [new_id() for _ in range(STREAMS)]
    async with db.hot() as connection:
        await connection.execute(_USERS, users)
        await connection.execute(_TOKENS, users, [token_hash(token_of(user)) for user in users])
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="baatcheet-events-")))
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = int(probe.getsockname()[1])
        api = stack.enter_context(
            running(
                "-m", "baatcheet.entrypoints.api", "--port", str(port),
                environ=environ, folder=folder, log=folder / "api.log",
            )
        )  # fmt: skip
        worker = stack.enter_context(
            running(
                "-m",
                "baatcheet.entrypoints.worker",
                environ=environ,
                folder=folder,
                log=folder / "worker.log",
            )
        )
        await _until_open(port)
        progress(f"opening {STREAMS} streams")
        before = rss_mb(api.pid)
        followers = Followers(port, users)
        began = time.perf_counter()
        await followers.begin()
        report.add("open", STREAMS / (time.perf_counter() - began), "streams/s", better="higher")
        report.add("memory", (rss_mb(api.pid) - before) * 1000 / STREAMS, "kB/stream", better="lower")
        await asyncio.sleep(2)
        used = cpu([api.pid])
        await asyncio.sleep(seconds / 2)
        used = cpu([api.pid]) - used
        report.add("cpu.silent", used.total / (seconds / 2) * 100, "% of a core", better="lower")
        progress(f"{RATE} events a second for {seconds:g} s")
        used, relaying = cpu([api.pid]), cpu([worker.pid])
        recorded = await _record(db, users, seconds)
        used, relaying = cpu([api.pid]) - used, cpu([worker.pid]) - relaying
        await asyncio.sleep(2)  # for the last
        report.add("cpu.told", used.total / seconds * 100, "% of a core", better="lower", target=CPU_SHARE)
        report.add("cpu.relay", relaying.total / seconds * 100, "% of a core", better="lower")
        report.add("recorded", recorded / seconds, "events/s", better="higher")
        report.add("missing", recorded - len(followers.delays), "events", better="lower", target=0)
        cuts = statistics.quantiles(followers.delays, n=100)
        for share in (50, 95, 99):
            target = DELAY_P99 if share == 99 else None
            report.add(f"delay.p{share}", cuts[share - 1], "ms", better="lower", target=target)
        await followers.end()
    await db.close()


async def _until_open(port: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.1)
            else:
                writer.close()
                return


async def _record(db: Database, users: list[UUID], seconds: float) -> int:
    """Record events at the rate; how many."""
    recorded, began = 0, time.perf_counter()
    async with db.hot(limit=seconds + PATIENCE) as connection:
        while (now := time.perf_counter() - began) < seconds:
            while recorded < now * RATE:
                await connection.execute(_RECORD, users[recorded * 7 % len(users)], time.time())
                recorded += 1
            await asyncio.sleep(0.002)
    return recorded


def main() -> None:
    asked = options("events", "What following the events costs.")
    report = Report("events")
    progress("starting PostgreSQL")
    with services() as settings, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(measure(report, settings, seconds=10 if asked.quick else 30))
    report.show(asked)


if __name__ == "__main__":
    main()
