"""Work of every kind, while whoever does it and whoever accepts it are killed: each is done, once in effect."""

import asyncio
import itertools
import json
import os
import random
import secrets
import signal
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
import pytest_asyncio
from benchmarks.ocr.corpus import printed_pdf, scanned_pdf
from pydantic import SecretStr
from sqlalchemy import text

from baatcheet.auth.bootstrap import ensure_admin
from baatcheet.context.compaction import Compaction
from baatcheet.context.jobs import compact
from baatcheet.jobs.enqueueing import enqueue
from baatcheet.platform.database import Database
from baatcheet.platform.settings import DatabaseSettings, load
from tests import zygote
from tests.audio import sounds
from tests.audio.whisper import Whisper
from tests.conftest import ADMIN_TOKEN, ROOT, Caller, database_on
from tests.notifications.mail_server import MailServer
from tests.running import ApiProcess, api_process, inherited, new_user, worker_process
from tests.servers import at
from tests.webhooks.receiver import Receiver

WORKER_KILLS = 60 if os.environ.get("KILLS") == "all" else 6
API_KILLS = 20 if os.environ.get("KILLS") == "all" else 3
STEPS = 60  # the latest step at which a worker is killed
UNFINISHED = "status IN ('queued', 'waiting', 'running')"
HISTORY = 120  # messages


@dataclass(frozen=True)
class Elsewhere:
    """What is outside: a provider of transcriptions, a mail server, a receiver of webhooks."""

    whisper: Whisper
    mail: MailServer
    receiver: Receiver


@pytest_asyncio.fixture
async def elsewhere() -> AsyncIterator[Elsewhere]:
    async with Whisper() as whisper, MailServer() as mail, Receiver() as receiver:
        yield Elsewhere(whisper, mail, receiver)


@pytest.fixture
def environment(services: Mapping[str, str], template: str, elsewhere: Elsewhere, tmp_path: Path) -> Any:
    with database_on(services["DATABASE_URL"], template) as url:
        made = {
            **at(services, url),
            "OLLAMA_HOST": "",
            "OPENAI_BASE_URL": elsewhere.whisper.url,
            "OPENAI_API_KEY": "sk-whisper-secret",
            "BAATCHEET_ADMIN_TOKEN": ADMIN_TOKEN,
            "BAATCHEET_AUDIO_ENGINES": "openai/whisper-1",
            "BAATCHEET_AUDIO_PIECE_SECONDS": "10",
            "BAATCHEET_DATA_DIR": str(ROOT / "data"),
            "BAATCHEET_FILES_DIR": str(tmp_path / "files"),
            "BAATCHEET_JOB_LEASE_SECONDS": "1",
            "BAATCHEET_POOL_MAX": "16",
            "BAATCHEET_OCR_ENGINES": "tesseract",
            "BAATCHEET_SMTP_URL": f"smtp://127.0.0.1:{elsewhere.mail.port}",
            "BAATCHEET_SMTP_FROM": "baatcheet@example.com",
            "BAATCHEET_WEBHOOK_ALLOWED_NETWORKS": "127.0.0.1",
        }
        ensure_admin(url, load(made, dotenv=None).auth)
        yield made


@pytest_asyncio.fixture
async def db(environment: Mapping[str, str]) -> AsyncIterator[Database]:
    settings = DatabaseSettings(url=SecretStr(environment["DATABASE_URL"]))
    opened = Database(settings, pool_size=4, name="every kind")
    yield opened
    await opened.close()


@pytest_asyncio.fixture
async def api(environment: Mapping[str, str], tmp_path: Path) -> AsyncIterator[ApiProcess]:
    running = ApiProcess(environment, log=tmp_path / "api.log")
    try:
        yield await asyncio.to_thread(running.start)
    finally:
        await asyncio.to_thread(running.stop)


@pytest_asyncio.fixture
async def alice(api: ApiProcess) -> AsyncIterator[Caller]:
    async with Caller(api.url, ADMIN_TOKEN) as admin:
        user = await admin.post("/api/v1/users", json={"name": "alice", "email": "alice@example.com"})
        assert user.status_code == 201, user.text
        made = await admin.post("/api/v1/tokens", json={"name": "hers", "user_id": user.json()["id"]})
    async with Caller(api.url, made.json()["token"], UUID(user.json()["id"])) as caller:
        yield caller


def export_of(name: str, messages: int = 2) -> str:
    """A conversation as an export has it."""
    said = [
        {"id": str(n), "parent_id": str(n - 1) if n else None, "role": role, "content": f"{n} of {name}"}
        for n, role in zip(range(messages), itertools.cycle(["user", "assistant"]), strict=False)
    ]
    return json.dumps(
        {
            "format": "baatcheet.conversations",
            "version": 1,
            "conversations": [{"title": name, "messages": said}],
        }
    )


async def accepted(caller: Caller, path: str, key: str, **request: Any) -> dict[str, Any]:
    """What is answered in the end, however often it has to be asked with the same key."""
    async with asyncio.timeout(120):
        while True:
            try:
                answer = await caller.post(path, headers={"idempotency-key": key}, **request)
            except httpx.TransportError:
                await asyncio.sleep(0.05)
                continue
            assert answer.status_code == 202, answer.text
            found: dict[str, Any] = answer.json()
            return found


async def unfinished(db: Database) -> int:
    async with db.system() as session:
        # No kill is the last, and none is waited for longer than the first: what is asked here is that all is done.
        again = "max_attempts = 99, due_at = least(due_at, now() + interval '2 seconds')"
        await session.execute(text(f"UPDATE jobs SET {again} WHERE {UNFINISHED}"))
        # In one statement, since what is in the outbox becomes jobs.
        left = f"SELECT (SELECT count(*) FROM jobs WHERE {UNFINISHED}) + (SELECT count(*) FROM outbox)"
        return int(await session.scalar(text(left)) or 0)


async def worked_off(db: Database, patience: float = 120) -> None:
    """Until nothing is left to do; `patience`: seconds in which something must get done."""
    left = await unfinished(db)
    while left:
        deadline = asyncio.get_running_loop().time() + patience
        while (now := await unfinished(db)) >= left:
            assert asyncio.get_running_loop().time() < deadline, await counted(
                db, f"SELECT kind || ' ' || status || ' ' || coalesce(error, '') FROM jobs WHERE {UNFINISHED}"
            )
            await asyncio.sleep(0.1)
        left = now


async def counted(db: Database, statement: str) -> Counter[Any]:
    async with db.system() as session:
        return Counter((await session.execute(text(statement))).scalars())


@dataclass
class Accepted:
    """Work of every kind that was accepted, by what it is of."""

    caller: Caller
    db: Database
    folder: Path
    made: dict[str, list[str]] = field(default_factory=lambda: {"attachment": [], "audio": [], "export": []})

    async def more(self, number: int) -> None:
        content = export_of(str(number), HISTORY)
        await self._accept("conversations/import", files={"file": ("a.json", content)})
        for document in (scanned_pdf(f"Page {number}", "Another"), printed_pdf(f"Document {number}")):
            await self._accept("attachments", files={"file": ("document.pdf", document)})
        sound = sounds.make(self.folder / f"{number}.wav", 15 + number, sounds.chatter).read_bytes()
        await self._accept("audio", files={"file": ("a.wav", sound)})
        await self._accept("exports", json={})

    async def compactions(self) -> None:
        """Of each conversation that was imported so far."""
        async with self.db.system() as session:
            found = await session.execute(text("SELECT user_id, id, head_id FROM conversations"))
            for user, conversation, head in found.all():
                work = Compaction(user, conversation, head, 500)
                await enqueue(session, compact, work, owner=user, key=str(conversation))

    async def _accept(self, what: str, **request: Any) -> None:
        answer = await accepted(self.caller, f"/api/v1/{what}", secrets.token_hex(), **request)
        if (name := what.removesuffix("s")) in self.made:
            self.made[name].append(answer[name]["id"])


async def killed_at(step: int, environment: Mapping[str, str], log: Path, db: Database) -> bool:
    """Run a worker that is killed at a step, unless all is done before: then here. Whether it was at its step."""
    with log.open("ab") as output:
        process = zygote.popen(
            ["-m", "tests.recovery.dying_worker", str(step)],
            env={**inherited(), **environment},
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        async with asyncio.timeout(60):
            while process.poll() is None and await unfinished(db):
                await asyncio.sleep(0.1)
        came_to_it = process.returncode is not None
    finally:
        if process.poll() is None:
            process.kill()
        await asyncio.to_thread(process.wait)
    assert process.returncode == -signal.SIGKILL, log.read_text()[-3000:]
    return came_to_it


@pytest.mark.timeout(900)
async def test_what_was_accepted_is_done_once_whichever_step_its_workers_are_killed_at(
    alice: Caller, db: Database, environment: Mapping[str, str], elsewhere: Elsewhere, tmp_path: Path
) -> None:
    wanted = {"url": elsewhere.receiver.url(), "events": ["export.*", "audio.*"]}
    assert (await alice.post("/api/v1/webhooks", json=wanted)).status_code == 201
    work, log = Accepted(alice, db, tmp_path), tmp_path / "worker.log"
    steps = random.sample(range(1, STEPS + 1), WORKER_KILLS)
    reached = 0
    for number, step in enumerate(steps):
        if number % 3 == 0:
            await work.more(number)
        await work.compactions()
        reached += await killed_at(step, environment, log, db)
    assert reached >= WORKER_KILLS / 2, steps
    with worker_process(environment, log):
        await worked_off(db)
        await work.compactions()
        await worked_off(db)
    told = (steps, log.read_text()[-3000:])
    async with db.system() as session:
        ended = (await session.execute(text("SELECT kind, status, count(*) FROM jobs GROUP BY 1, 2"))).all()
        retaken = await session.scalar(text("SELECT count(*) FROM jobs WHERE attempts > 1"))
        messages = await session.scalar(text("SELECT count(*) FROM messages"))
    assert {status for _, status, _ in ended} == {"succeeded"}, (ended, told)
    assert {kind for kind, _, _ in ended} >= {
        *("ocr.extract", "audio.transcribe", "export.render", "import.conversations"),
        *("webhook.deliver", "notification.email", "summaries.compact"),
    }
    assert retaken, told
    exports, audio, attachments = (work.made[name] for name in ("export", "audio", "attachment"))
    assert messages == HISTORY * len(exports), told
    events = await counted(
        db,
        "SELECT type || ' ' || coalesce(data->>'export_id', data->>'audio_id', data->>'attachment_id') "
        "FROM events WHERE type IN ('export.completed', 'audio.transcribed', 'image.ocr_completed')",
    )
    assert events == Counter(
        [
            *(f"export.completed {one}" for one in exports),
            *(f"audio.transcribed {one}" for one in audio),
            *(f"image.ocr_completed {one}" for one in attachments),
        ]
    ), told
    sent = {request.id for request in elsewhere.receiver.requests}
    assert len(sent) == len(exports) + len(audio), told
    letters = await counted(db, "SELECT email_status FROM notifications WHERE kind = 'export.completed'")
    assert letters == {"sent": len(exports)}, told
    assert len(elsewhere.mail.taken) >= len(exports)
    for one in exports:
        assert (await alice.get(f"/api/v1/exports/{one}/download")).status_code == 200
    for one in attachments:
        assert (await alice.get(f"/api/v1/attachments/{one}")).json()["status"] == "completed"


@pytest.mark.timeout(600)
async def test_what_is_sent_while_its_server_is_killed_is_accepted_once(
    api: ApiProcess, alice: Caller, db: Database, environment: Mapping[str, str], tmp_path: Path
) -> None:
    """A client sends again, under the same key, what it got no answer to."""
    over = asyncio.Event()
    sent: Counter[str] = Counter()
    answered: list[tuple[str, str, str]] = []
    recording = sounds.make(tmp_path / "a.wav", 2, sounds.chatter).read_bytes()
    talk = (await alice.post("/api/v1/conversations", json={"title": "talk"})).json()["id"]

    async def client(number: int) -> None:
        turn = 0
        while not over.is_set():
            turn += 1
            name = f"{number}-{turn}"
            requests: dict[str, dict[str, Any]] = {
                "/api/v1/attachments": {"files": {"file": (f"{name}.txt", f"Text {name}\n" * 20_000)}},
                "/api/v1/audio": {"files": {"file": (f"{name}.wav", recording + name.encode())}},
                "/api/v1/conversations/import": {"files": {"file": (f"{name}.json", export_of(name))}},
                f"/api/v1/conversations/{talk}/exports": {"json": {"format": "txt"}},
            }
            for path, request in requests.items():
                made = await accepted(alice, path, f"{path} {name}".replace(" ", ":"), **request)
                what = path.rpartition("/")[2].removesuffix("s")
                sent[what] += 1
                answered.append((what, made[what]["id"], made["job"]["id"]))

    with worker_process(environment, tmp_path / "worker.log"):
        clients = [asyncio.create_task(client(number)) for number in range(3)]
        for _ in range(API_KILLS):
            await asyncio.sleep(random.uniform(0.05, 1.5))
            await asyncio.to_thread(api.kill)
            await asyncio.to_thread(api.start)
        over.set()
        await asyncio.gather(*clients)
        await worked_off(db)
    assert len(set(answered)) == len(answered)
    tables = {"attachment": "attachments", "audio": "audio", "import": "imports", "export": "exports"}
    kinds = {"attachment": "ocr.extract", "audio": "audio.transcribe"}
    kinds |= {"import": "import.conversations", "export": "export.render"}
    for what, table in tables.items():
        ids = {id_ for name, id_, _ in answered if name == what}
        assert len(ids) == sent[what] > 0
        rows = await counted(db, f"SELECT id::text FROM {table}")
        assert rows == Counter(ids), what
        jobs = await counted(db, f"SELECT id::text || status FROM jobs WHERE kind = '{kinds[what]}'")
        assert jobs == Counter(f"{job}succeeded" for name, _, job in answered if name == what), what
    for what, id_, _ in answered:
        if what == "attachment":
            file = await alice.get(f"/api/v1/attachments/{id_}/content")
            assert file.status_code == 200, file.text
            assert len(set(file.text.splitlines())) == 1
    titles = await counted(db, "SELECT title FROM conversations")
    assert (len(titles), set(titles.values())) == (sent["import"] + 1, {1})


@pytest.mark.timeout(300)
async def test_work_is_accepted_and_done_while_redis_is_away(
    environment: Mapping[str, str], db: Database, elsewhere: Elsewhere, tmp_path: Path
) -> None:
    alone = {**environment, "REDIS_URL": "redis://127.0.0.1:1/0"}  # where nothing listens
    log = tmp_path / "worker.log"
    with api_process(alone, tmp_path / "api.log") as api, worker_process(alone, log):
        token = new_user(api.url, ADMIN_TOKEN)
        async with Caller(api.url, token) as caller:
            work = Accepted(caller, db, tmp_path)
            await work.more(1)
            await worked_off(db)
            for name, ids in work.made.items():
                for one in ids:
                    found = await caller.get(f"/api/v1/{name if name == 'audio' else name + 's'}/{one}")
                    assert found.json()["status"] == "completed", (name, found.text)
