"""A user whose rows are written straight into the database, and what they ought to come to, counted by hand."""

import asyncio
import random
import sys
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
from pydantic import SecretStr
from sqlalchemy import text

from baatcheet.analytics.reports import Range, Reports
from baatcheet.analytics.rollup import NAMES, RollUp
from baatcheet.kit.ids import new_id
from baatcheet.platform.database import Database
from baatcheet.platform.settings import DatabaseSettings

FIRST = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAYS = 40
EVER = Range(date(2026, 1, 1), date(2028, 12, 31))

Key = tuple[date, str]


async def new_user(database: Database) -> UUID:
    user = new_id()
    async with database.system() as session:
        await session.execute(text("INSERT INTO users (id, name) VALUES (:id, 'ledger')"), {"id": user})
    return user


@dataclass
class Ledger:
    """Does things to one user's rows, by chance, and keeps its own books."""

    database: Database
    user: UUID
    chance: random.Random
    books: dict[Key, Counter[str]] = field(default_factory=dict)
    conversations: list[UUID] = field(default_factory=list)
    jobs: dict[UUID, tuple[str, datetime]] = field(default_factory=dict)
    uploads: dict[UUID, tuple[str, int]] = field(default_factory=dict)
    exports: dict[UUID, tuple[int, datetime, bool]] = field(default_factory=dict)

    def add(self, day: date, model: str, **counts: int) -> None:
        book = self.books.setdefault((day, model), Counter())
        slowest = counts.pop("slowest_ms", 0)
        book["slowest_ms"] = max(book["slowest_ms"], slowest)
        for name, count in counts.items():
            book[name] += count

    def moment(self) -> datetime:
        return FIRST + timedelta(days=self.chance.randrange(DAYS), seconds=self.chance.randrange(80_000))

    async def run(self, statement: str, **values: Any) -> None:
        async with self.database.system() as session:
            await session.execute(text(statement), {"user": self.user, **values})

    # What changes base rows ---------------------------------------------------------------------------------

    async def conversation(self) -> UUID:
        if self.conversations and self.chance.random() < 0.7:
            return self.chance.choice(self.conversations)
        made = new_id()
        await self.run("INSERT INTO conversations (id, user_id, title) VALUES (:id, :user, 't')", id=made)
        self.conversations.append(made)
        return made

    async def turn(self) -> None:
        """A turn with its messages, of which another process says how it ended."""
        began, took = self.moment(), self.chance.choice([100, 1_000, 90_000, 400_000])
        took = self.chance.randrange(1, took + 1)
        ended = began + timedelta(milliseconds=took)
        bound = next((one for one in _BOUNDS if took <= one), None)
        status = self.chance.choice(["completed"] * 4 + ["failed", "cancelled", "interrupted"])
        stateless = self.chance.random() < 0.3
        conversation = None if stateless else await self.conversation()
        model = self.chance.choice(["groq/one", "openai/two"])
        prompt, completion = self.chance.randrange(1000), self.chance.randrange(500)
        cached, cost = self.chance.randrange(prompt + 1), self.chance.choice([None, 17, 10**9])
        account = {"prompt_tokens_details": {"cached_tokens": cached}}
        usage: dict[str, Any] | None = account | ({} if cost is None else {"microcents": cost})
        answered: str | None = model
        receipt = None
        if status == "failed":  # nobody has answered; the last one that was asked is known
            answered, usage, prompt, completion, cached, cost = None, None, 0, 0, 0, 0
            receipt = {"route": {"tried": [{"model": "a/b"}, {"model": model}]}}
        turn, messages = new_id(), 0
        fields = {
            "turn": turn,
            "conversation": conversation,
            "status": status,
            "answered": answered,
            "prompt": prompt,
            "completion": completion,
            "usage": msgspec.json.encode(usage).decode() if usage is not None else None,
            "receipt": msgspec.json.encode(receipt).decode() if receipt is not None else None,
            "began": began,
            "ended": ended,
        }
        if stateless:
            await self.run(
                "INSERT INTO turns (id, user_id, status, answered_by, prompt_tokens, completion_tokens, usage, "
                "receipt, created_at, ended_at) VALUES (:turn, :user, :status, :answered, :prompt, :completion, "
                "CAST(:usage AS jsonb), CAST(:receipt AS jsonb), :began, :ended)",
                **{name: value for name, value in fields.items() if name != "conversation"},
            )
        else:
            messages = 2 if status == "completed" else 1
            async with self.database.system() as session:
                await session.execute(
                    text(
                        "INSERT INTO turns (id, user_id, conversation_id, created_at) "
                        "VALUES (:turn, :user, :conversation, :began)"
                    ),
                    {"turn": turn, "user": self.user, "conversation": conversation, "began": began},
                )
                await session.execute(text(_MESSAGE), self._message(conversation, turn, "user", began))
            async with self.database.system() as session:
                values = {
                    name: value for name, value in fields.items() if name not in {"conversation", "began"}
                }
                await session.execute(
                    text(
                        "UPDATE turns SET status = :status, answered_by = :answered, prompt_tokens = :prompt, "
                        "completion_tokens = :completion, usage = CAST(:usage AS jsonb), "
                        "receipt = CAST(:receipt AS jsonb), ended_at = :ended WHERE id = :turn"
                    ),
                    values,
                )
                if status == "completed":
                    await session.execute(
                        text(_MESSAGE), self._message(conversation, turn, "assistant", ended)
                    )
        self.add(
            ended.date(),
            model,
            turns=1,
            messages=messages,
            prompt_tokens=prompt,
            completion_tokens=completion,
            cached_tokens=cached,
            microcents=cost or 0,
            unpriced=int(cost is None),
            latency_ms=took if status == "completed" else 0,
            slowest_ms=took if status == "completed" else 0,
            **{status: 1},
            **({f"took_{bound}": 1} if status == "completed" and bound else {}),
        )

    def _message(
        self, conversation: UUID | None, turn: UUID | None, role: str, at: datetime
    ) -> dict[str, Any]:
        return {
            "id": new_id(),
            "conversation": conversation,
            "user": self.user,
            "turn": turn,
            "role": role,
            "model": "groq/one" if role == "assistant" else None,
            "at": at,
        }

    async def message(self) -> None:
        at, role = self.moment(), self.chance.choice(["user", "assistant"])
        message = self._message(await self.conversation(), None, role, at)
        async with self.database.system() as session:
            await session.execute(text(_MESSAGE), message)
        self.add(at.date(), message["model"] or "", messages=1)

    async def delete_conversation(self) -> None:
        """Nothing is taken from the books: what was used was used."""
        if self.conversations:
            gone = self.conversations.pop(self.chance.randrange(len(self.conversations)))
            await self.run("DELETE FROM conversations WHERE id = :id AND user_id = :user", id=gone)

    async def job(self) -> None:
        job, ended = new_id(), self.moment()
        status = self.chance.choice(["succeeded", "dead", "cancelled"])
        visible = self.chance.random() < 0.8
        await self.run(
            "INSERT INTO jobs (id, user_id, kind, queue, lane, payload, max_attempts, visible) "
            "VALUES (:id, :user, 'k', 'ledger', :user, '{}', 3, :visible)",
            id=job,
            visible=visible,
        )
        await self.run(
            "UPDATE jobs SET status = :status, ended_at = :at WHERE id = :id", id=job, status=status, at=ended
        )
        if visible:
            self.jobs[job] = (status, ended)
            self.add(ended.date(), "", **{_JOBS[status]: 1})

    async def try_job_again(self) -> None:
        dead = [job for job, (status, _) in self.jobs.items() if status == "dead"]
        if dead:
            job = self.chance.choice(dead)
            _, ended = self.jobs.pop(job)
            await self.run("UPDATE jobs SET status = 'queued', ended_at = NULL WHERE id = :id", id=job)
            self.add(ended.date(), "", jobs_failed=-1)

    async def forget_jobs(self) -> None:
        await self.run("DELETE FROM jobs WHERE user_id = :user AND status <> 'queued'")
        self.jobs.clear()

    async def upload(self) -> None:
        file, at, size = new_id(), self.moment(), self.chance.randrange(1, 10**6)
        table = self.chance.choice(["attachments", "audio"])
        extra, kind = (", kind", ", 'png'") if table == "attachments" else ("", "")
        await self.run(
            f"INSERT INTO {table} (id, user_id, job_id, filename, media_type, size, sha256, created_at{extra}) "
            f"VALUES (:id, :user, :id, 'f', 'image/png', :size, :sha, :at{kind})",
            id=file,
            size=size,
            sha=file.hex,
            at=at,
        )
        self.uploads[file] = (table, size)
        self.add(at.date(), "", bytes_added=size)

    async def delete_upload(self) -> None:
        if self.uploads:
            file = self.chance.choice(list(self.uploads))
            table, size = self.uploads.pop(file)
            await self.run(f"DELETE FROM {table} WHERE id = :id", id=file)
            self.add(datetime.now(UTC).date(), "", bytes_removed=size)

    async def export(self) -> None:
        export, at, size = new_id(), self.moment(), self.chance.randrange(1, 10**6)
        await self.run(
            "INSERT INTO exports (id, user_id, scope, format, branch, filename) "
            "VALUES (:id, :user, 'account', 'zip', 'all', 'f')",
            id=export,
        )
        await self.run(
            "UPDATE exports SET status = 'completed', size = :size, completed_at = :at, "
            "expires_at = :until WHERE id = :id",
            id=export,
            size=size,
            at=at,
            until=at + timedelta(days=3),
        )
        self.exports[export] = (size, at, False)
        self.add(at.date(), "", bytes_added=size)

    async def expire_export(self) -> None:
        kept = [one for one, (_, _, gone) in self.exports.items() if not gone]
        if kept:
            export = self.chance.choice(kept)
            size, at, _ = self.exports[export]
            await self.run("UPDATE exports SET status = 'expired' WHERE id = :id", id=export)
            self.exports[export] = (size, at, True)
            self.add((at + timedelta(days=3)).date(), "", bytes_removed=size)

    async def delete_export(self) -> None:
        if self.exports:
            export = self.chance.choice(list(self.exports))
            size, _, gone = self.exports.pop(export)
            await self.run("DELETE FROM exports WHERE id = :id", id=export)
            if not gone:
                self.add(datetime.now(UTC).date(), "", bytes_removed=size)

    # What must change nothing -------------------------------------------------------------------------------

    async def roll_up(self) -> None:
        await RollUp(self.database).roll_up()

    async def rebuild(self) -> None:
        assert await RollUp(self.database).rebuild(self.user)

    # What is told -------------------------------------------------------------------------------------------

    async def told(self) -> dict[Key, dict[str, int]]:
        rows, complete = await Reports(self.database).usage(self.user, EVER, ("day", "model"))
        assert complete
        return _without_nothing(
            {(row.since, row.model): {one: row.counts[one] for one in NAMES} for row in rows}
        )

    def expected(self) -> dict[Key, dict[str, int]]:
        return _without_nothing({key: {one: book[one] for one in NAMES} for key, book in self.books.items()})

    async def fresh(self) -> int:
        async with self.database.system() as session:
            found: int = (
                await session.execute(
                    text(
                        "SELECT (SELECT count(*) FROM analytics_fresh WHERE user_id = :user) "
                        "+ (SELECT count(*) FROM analytics_pending WHERE user_id = :user)"
                    ),
                    {"user": self.user},
                )
            ).scalar_one()
        return found


DEEDS = (
    Ledger.turn, Ledger.message, Ledger.delete_conversation, Ledger.job, Ledger.try_job_again, Ledger.forget_jobs,
    Ledger.upload, Ledger.delete_upload, Ledger.export, Ledger.expire_export, Ledger.delete_export, Ledger.roll_up,
    Ledger.rebuild,
)  # fmt: skip

_BOUNDS = (250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 128_000, 256_000)
_JOBS = {"succeeded": "jobs_succeeded", "dead": "jobs_failed", "cancelled": "jobs_cancelled"}
_MESSAGE = (
    "INSERT INTO messages (id, conversation_id, user_id, turn_id, role, content, model, created_at) "
    "VALUES (:id, :conversation, :user, :turn, :role, 'words', :model, :at)"
)


def _without_nothing(books: dict[Any, dict[str, int]]) -> dict[Key, dict[str, int]]:
    return {key: book for key, book in books.items() if any(book.values())}


async def _roll(url: str) -> None:
    """Roll up over and over, until killed."""
    database = Database(DatabaseSettings(url=SecretStr(url)), pool_size=1, name="roller")
    sys.stdout.write("rolling\n")
    sys.stdout.flush()
    while True:
        await RollUp(database).roll_up()


if __name__ == "__main__":
    asyncio.run(_roll(sys.argv[1]))
