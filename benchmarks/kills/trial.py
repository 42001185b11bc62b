"""A trial: workers that are killed while jobs come, and the account of what became of every job."""

import asyncio
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import text

from baatcheet.jobs.declaration import JobKind
from baatcheet.jobs.enqueueing import enqueue
from baatcheet.kit.ids import new_id
from baatcheet.platform.database import Database
from benchmarks.kills.chores import KINDS, Chore

WORKERS = 3
ROOM = 6  # jobs that a worker runs at once
PATIENCE = 180.0  # seconds, for what is left after the last kill
START_SECONDS = 60.0
BACKLOG = 60  # unfinished jobs: enough that a worker is always at work when it is killed

_TABLES = (
    "CREATE TABLE IF NOT EXISTS effects (job_id uuid NOT NULL, what text NOT NULL)",
    "CREATE TABLE IF NOT EXISTS told (event_id uuid NOT NULL, job_id uuid NOT NULL)",
)
_UNFINISHED = (
    "SELECT count(*) FROM jobs WHERE queue = 'chores' AND status IN ('queued', 'waiting', 'running')"
)
_UNTOLD = "SELECT count(*) FROM outbox"
_HELD = "SELECT count(*) FROM jobs WHERE status = 'running' AND worker_id = :worker"
# Every job that was accepted, with what is there of it.
_ACCOUNT = """
SELECT j.id, j.kind, j.status, j.attempts, coalesce(e.n, 0) AS effects, coalesce(t.n, 0) AS told,
       coalesce(c.n, 0) AS children
FROM jobs j
LEFT JOIN (SELECT job_id, count(*) AS n FROM effects GROUP BY job_id) e ON e.job_id = j.id
LEFT JOIN (SELECT job_id, count(*) AS n FROM told GROUP BY job_id) t ON t.job_id = j.id
LEFT JOIN (SELECT subject_id, count(*) AS n FROM jobs GROUP BY subject_id) c ON c.subject_id = j.id
WHERE j.queue = 'chores'
"""


class ChoreProcess:
    """A worker process, started again each time that it has ended."""

    def __init__(self, url: str, folder: Path, lease: float, room: int) -> None:
        program = [sys.executable, "-m", "benchmarks.kills.worker"]
        self._command = [*program, url, str(folder), str(lease), str(room)]
        self._process: subprocess.Popen[bytes] | None = None
        self.worker: UUID | None = None

    def _spawn(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._command, stdout=subprocess.PIPE)

    async def start(self) -> None:
        """Until it works. One that kills itself on the way is started again."""
        while True:
            self.worker = None
            self._process = self._spawn()
            assert self._process.stdout is not None
            async with asyncio.timeout(START_SECONDS):
                said = await asyncio.to_thread(self._process.stdout.readline)
            if said:
                self.worker = UUID(said.decode().strip())
                return
            await self.end()

    @property
    def ended(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    async def end(self) -> None:
        """End it as a power cut would."""
        if self._process is not None:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None


@dataclass
class Account:
    """What became of the jobs. All but `jobs`, `kills`, `runs` and the seconds should be 0."""

    kills: int
    jobs: int = 0
    runs: int = 0
    lost: int = 0  # accepted, and not there
    unfinished: int = 0
    failed: int = 0
    without_effect: int = 0
    twice: int = 0  # in effect
    files_missing: int = 0
    told_wrong: int = 0  # events that are not there, or more than once
    chains_broken: int = 0
    seconds: float = 0.0
    retaken: list[float] = field(
        default_factory=list
    )  # seconds until a killed worker's jobs were somebody else's

    def faults(self) -> Mapping[str, int]:
        """What should not be, by name."""
        names = ("lost", "unfinished", "failed", "without_effect", "twice", "files_missing", "told_wrong")
        return {name: getattr(self, name) for name in (*names, "chains_broken") if getattr(self, name)}


class Trial:
    """On a migrated database that nobody else uses, with files in `folder`."""

    def __init__(
        self, db: Database, url: str, folder: Path, *, lease: float, workers: int = WORKERS, room: int = ROOM
    ) -> None:
        self._db = db
        self._folder = folder
        self._processes = [ChoreProcess(url, folder, lease, room) for _ in range(workers)]
        self._accepted: list[UUID] = []
        self._owner = new_id()
        self._watching: list[asyncio.Task[float]] = []

    async def at_random(
        self, kills: int, *, pause: float, chance: random.Random, tell: Callable[[int], None] | None = None
    ) -> Account:
        """Kill workers at random moments, on average one in `pause` seconds, while jobs come."""
        began = time.monotonic()
        async with self._running():
            enough = asyncio.Event()
            coming = asyncio.create_task(self._enqueue_until(enough, chance))
            for number in range(kills):
                await asyncio.sleep(chance.uniform(0, 2 * pause))
                process = self._processes[number % len(self._processes)]
                await self._kill(process)
                await process.start()  # somebody must live long enough to notice
                if tell is not None:
                    tell(number + 1)
            enough.set()
            await coming
            return await self._settled(kills, began)

    async def at_every_step(self) -> Account:
        """Let each kind of job kill its worker at each of its steps. With room for one, none takes another along."""
        began = time.monotonic()
        places = [(kind, step) for kind, steps in KINDS.items() for step in range(1, steps + 1)]
        async with self._running():
            guarding = asyncio.create_task(self._start_again())
            for kind, die_at in places:
                await self._enqueue(kind, Chore(die_at))
                await asyncio.sleep(0.2)
            try:
                return await self._settled(len(places), began)
            finally:
                guarding.cancel()
                with suppress(asyncio.CancelledError):
                    await guarding

    @asynccontextmanager
    async def _running(self) -> AsyncIterator[None]:
        async with self._db.system() as session:
            for statement in _TABLES:
                await session.execute(text(statement))
            user = {"id": self._owner}
            await session.execute(text("INSERT INTO users (id, name) VALUES (:id, 'trial')"), user)
        try:
            await asyncio.gather(*[process.start() for process in self._processes])
            yield
        finally:
            await asyncio.gather(*[process.end() for process in self._processes])

    async def _start_again(self) -> None:
        while True:
            for process in self._processes:
                if process.ended:
                    self._watch(process)
                    await process.end()
                    await process.start()
            await asyncio.sleep(0.05)

    async def _kill(self, process: ChoreProcess) -> None:
        await process.end()
        self._watch(process)

    def _watch(self, process: ChoreProcess) -> None:
        if process.worker is not None:
            self._watching.append(asyncio.create_task(self._until_retaken(process.worker)))

    async def _until_retaken(self, worker: UUID) -> float:
        """Seconds until nothing is said to be run by a worker that is no more."""
        began = time.monotonic()
        await self._until(lambda: self._count(_HELD, worker=worker), PATIENCE)
        return time.monotonic() - began

    async def _enqueue_until(self, enough: asyncio.Event, chance: random.Random) -> None:
        kinds = list(KINDS)
        while not enough.is_set():
            if await self._count(_UNFINISHED) < BACKLOG:
                for _ in range(chance.randint(1, 6)):
                    await self._enqueue(chance.choice(kinds), Chore())
            await asyncio.sleep(chance.uniform(0, 0.3))

    async def _enqueue(self, kind: JobKind[Any, Any], chore: Chore) -> None:
        async with self._db.system() as session:
            queued = await enqueue(session, kind, chore, owner=self._owner)
        self._accepted.append(queued.id)

    async def _settled(self, kills: int, began: float) -> Account:
        """The account, once nothing is left to be done, or nobody can wait any longer."""
        await self._until(lambda: self._count(_UNFINISHED), PATIENCE)
        await self._until(lambda: self._count(_UNTOLD), PATIENCE)
        account = Account(kills, seconds=time.monotonic() - began)
        account.retaken = sorted(await asyncio.gather(*self._watching))
        async with self._db.system(limit=60) as session:
            rows = (await session.execute(text(_ACCOUNT))).all()
        self._add_up(account, rows)
        return account

    def _add_up(self, account: Account, rows: Sequence[Any]) -> None:
        there = {row.id for row in rows}
        account.jobs = len(rows)
        account.lost = sum(1 for one in self._accepted if one not in there)
        for row in rows:
            account.runs += row.attempts
            account.unfinished += row.status in {"queued", "waiting", "running"}
            account.failed += row.status in {"dead", "cancelled"}
            account.without_effect += row.effects == 0
            account.twice += row.effects > 1
            account.told_wrong += row.told != 1
            account.chains_broken += row.children != (row.kind == "chores.chain")
            if row.kind == "chores.file":
                file = self._folder / "chores" / str(row.id)
                account.files_missing += not file.is_file() or file.stat().st_size != 65_536

    async def _until(self, left: Callable[[], Awaitable[int]], seconds: float) -> None:
        """Until there is nothing left; or until the time is up, and the account will show it."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if not await left():
                return
            await asyncio.sleep(0.05)

    async def _count(self, statement: str, **values: Any) -> int:
        async with self._db.system(limit=60) as session:
            return int(await session.scalar(text(statement), values) or 0)
