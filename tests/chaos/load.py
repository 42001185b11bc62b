"""Clients that do what clients do, and a journal of what they were told."""

import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import AsyncIterator, Callable, Collection, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import asyncpg
import httpx

from baatcheet.platform.database import connect
from tests.conftest import ADMIN_TOKEN, Caller
from tests.running import events, new_user

MOST = 12.0  # seconds in which every request is answered, whatever the database does
BACK = 5.0  # seconds after its return in which the database is used again
PAUSE = 0.15  # seconds between two requests of a client
BEAT = 0.1  # seconds between two requests that need nothing but the server itself
CHAT = "/api/v1/chat/completions"


@dataclass(frozen=True)
class Answer:
    """What a client got: `at` and `took` in seconds of the monotonic clock."""

    what: str
    status: int
    at: float
    took: float
    text: str = ""

    @property
    def came(self) -> float:
        return self.at + self.took


@dataclass
class Journal:
    """Everything that clients were told, and what of it has to be in the database."""

    answers: list[Answer] = field(default_factory=list)
    healthy: list[Answer] = field(default_factory=list)  # of requests that need no database
    faults: list[str] = field(default_factory=list)
    turns: dict[str, tuple[str, str, str]] = field(default_factory=dict)  # id -> status, question, text
    projects: dict[str, str] = field(default_factory=dict)  # id -> name
    titles: dict[str, set[str]] = field(default_factory=dict)  # conversation -> what its title may be
    jobs: set[str] = field(default_factory=set)

    def late(self, since: float, until: float) -> float:
        """The longest that a request which needs no database took, of those under way in that time."""
        took = [one.took for one in self.healthy if one.came >= since and one.at <= until]
        return max(took, default=0.0)

    def refused(self, since: float, until: float) -> list[Answer]:
        return [one for one in self.answers if one.status == 503 and since <= one.came <= until]

    def serves(self, kinds: Collection[str], since: float) -> bool:
        """Whether each of these has succeeded, having been asked since then."""
        return set(kinds) <= {one.what for one in self.answers if one.status < 300 and one.at >= since}

    def assert_sound(self) -> None:
        """Nobody was told anything but "yes" or "not now", and everybody in time."""
        assert self.faults == []
        strange = [one for one in self.answers if one.status not in {200, 201, 202, 409, 503}]
        assert strange == []
        # As long as an answer that needs no database took beside it, the machine was what kept it.
        slow = [one for one in self.answers if one.took > MOST + self.late(one.at, one.came)]
        assert slow == []

    async def assert_kept(self, url: str, *, within: float = 20) -> None:
        """Row by row: what was acknowledged is there, once, and as it was told."""
        connection = await connect(url)
        try:
            async with asyncio.timeout(within):
                while await connection.fetchval("SELECT count(*) FROM turns WHERE status = 'running'"):
                    await asyncio.sleep(0.1)
            await self._compare(connection)
        finally:
            await connection.close()

    async def _compare(self, connection: asyncpg.Connection) -> None:
        rows = await connection.fetch(
            """
            SELECT t.id, t.status, q.content AS question, coalesce(r.content, '') AS reply
            FROM turns t LEFT JOIN messages q ON q.id = t.input_id
            LEFT JOIN messages r ON r.id = t.reply_id AND r.turn_id = t.id
            WHERE t.id = ANY($1::uuid[])
            """,
            [UUID(turn) for turn in self.turns],
        )
        stored = {str(row["id"]): (row["status"], row["question"], row["reply"]) for row in rows}
        assert stored == self.turns
        names = await connection.fetch(
            "SELECT id::text, name FROM projects WHERE name = ANY($1::text[])", list(self.projects.values())
        )
        assert sorted(map(tuple, names)) == sorted(self.projects.items())  # each once
        titles = await connection.fetch(
            "SELECT id::text, title FROM conversations WHERE id = ANY($1::uuid[])",
            [UUID(id_) for id_ in self.titles],
        )
        assert {id_ for id_, _ in titles} == set(self.titles)
        assert [(id_, title) for id_, title in titles if title not in self.titles[id_]] == []
        jobs = await connection.fetch(
            "SELECT id::text FROM jobs WHERE id = ANY($1::uuid[])", [UUID(one) for one in self.jobs]
        )
        assert {row[0] for row in jobs} == self.jobs
        orphans = await connection.fetchval(
            "SELECT count(*) FROM messages m WHERE parent_id IS NOT NULL "
            "AND NOT EXISTS (SELECT FROM messages p WHERE p.id = m.parent_id)"
        )
        assert orphans == 0


class Client:
    """One user, who does one thing after the other."""

    def __init__(self, caller: Caller, journal: Journal) -> None:
        self._caller = caller
        self._journal = journal
        self._numbers = itertools.count(1)
        self._name = caller.user_id.hex[-12:]
        self._owed: dict[str, str] = {}  # projects that were not acknowledged yet, by their key

    async def ask(self, what: str, method: str, path: str, **request: Any) -> httpx.Response:
        began = time.monotonic()
        try:
            answer = await self._caller.request(method, path, **request)
        except httpx.HTTPError as error:
            self._journal.faults.append(f"{what}: {error!r} after {time.monotonic() - began:.1f} s")
            raise
        self._note(what, answer, began)
        return answer

    def _note(self, what: str, answer: httpx.Response, began: float) -> None:
        took = time.monotonic() - began
        text = answer.text if answer.status_code >= 300 else ""
        self._journal.answers.append(Answer(what, answer.status_code, began, took, text))
        if answer.status_code == 503 and not answer.headers.get("retry-after", "").isdigit():
            self._journal.faults.append(f"{what}: 503 without Retry-After")

    def _word(self) -> str:
        return f"{self._name} {next(self._numbers)}"

    async def turn(self, conversation: str | None = None) -> str | None:
        """A whole turn; the conversation that it was in."""
        question = self._word()
        body = {"message": question} | ({} if conversation is None else {"conversation_id": conversation})
        answer = await self.ask("turn", "POST", CHAT, json=body)
        if answer.status_code != 200:
            return conversation
        told = answer.json()
        self._journal.turns[told["turn_id"]] = (told["status"], question, told["message"]["content"])
        return str(told["conversation_id"])

    async def streamed(self, words: int = 5, delay: float = 0.05) -> str | None:
        """A turn that is read as it comes: how it ended, or None when it was not begun."""
        step = {"chunks": words, "chunk_delay": delay, "reply": "word " * words}
        question = f"{self._word()} [[scripted {json.dumps(step)}]]"
        began = time.monotonic()
        try:
            async with self._caller.stream(
                "POST", CHAT, json={"message": question, "stream": True}
            ) as answer:
                if answer.status_code != 200:
                    await answer.aread()
                    self._note("streamed", answer, began)
                    return None
                self._journal.answers.append(Answer("streamed", 200, began, time.monotonic() - began))
                lines = [line async for line in answer.aiter_lines()]
        except httpx.HTTPError as error:
            self._journal.faults.append(f"streamed: {error!r}")
            return None
        seen = list(events(iter(lines)))
        end = seen[-1].name or ""
        text = "".join(event.data["text"] for event in seen if event.name == "message.delta")
        if end in {"turn.completed", "turn.interrupted", "turn.cancelled"}:
            status = end.removeprefix("turn.")
            self._journal.turns[seen[0].data["turn_id"]] = (status, question, text)
        elif end == "turn.failed" and seen[-1].data["error"]["status"] == 503:
            pass  # it says that it may be saved later
        else:
            self._journal.faults.append(f"streamed: ended with {seen[-1]}")
        return end

    async def project(self) -> None:
        """A project, made with a key; until it is acknowledged, with the same one again."""
        key, name = next(iter(self._owed.items()), (f"key-{self._name}-{next(self._numbers)}", self._word()))
        answer = await self.ask(
            "project", "POST", "/api/v1/projects", json={"name": name}, headers={"idempotency-key": key}
        )
        if answer.status_code == 201:
            self._owed.pop(key, None)
            self._journal.projects[answer.json()["id"]] = name
        else:
            self._owed[key] = name

    async def rename(self, conversation: str) -> None:
        """Its title is the one that was acknowledged last, or one that was asked for later."""
        title = self._word()
        possible = self._journal.titles.setdefault(conversation, {title})
        possible.add(title)
        answer = await self.ask(
            "rename", "PATCH", f"/api/v1/conversations/{conversation}", json={"title": title}
        )
        if answer.status_code == 200:
            self._journal.titles[conversation] = {title}

    async def look(self, conversation: str) -> None:
        await self.ask("list", "GET", "/api/v1/conversations")
        await self.ask("messages", "GET", f"/api/v1/conversations/{conversation}/messages")

    async def export(self, conversation: str) -> None:
        answer = await self.ask(
            "export", "POST", f"/api/v1/conversations/{conversation}/exports", json={"format": "txt"}
        )
        if answer.status_code == 202:
            self._journal.jobs.add(answer.json()["job"]["id"])

    async def stateless(self) -> None:
        body = {"model": "auto", "messages": [{"role": "user", "content": self._word()}]}
        await self.ask("stateless", "POST", "/v1/chat/completions", json=body)

    async def live(self, over: asyncio.Event, begin: int) -> None:
        """One thing after the other until `over`. Clients `begin` with different ones."""
        conversation = None
        while conversation is None:
            conversation = await self.turn()
        mine = conversation
        things: list[Callable[[], Coroutine[Any, Any, object]]] = [
            lambda: self.turn(mine),
            self.streamed,
            self.project,
            lambda: self.rename(mine),
            lambda: self.look(mine),
            lambda: self.export(mine),
            self.stateless,
        ]
        for number in itertools.count(begin):
            with contextlib.suppress(httpx.HTTPError):  # it is among the faults
                await things[number % len(things)]()
            if over.is_set() and not self._owed:
                return
            await asyncio.sleep(PAUSE)


KINDS = ("turn", "streamed", "project", "rename", "list", "messages", "export", "stateless")


async def beat(url: str, journal: Journal, over: asyncio.Event) -> None:
    """Ask what needs no database, over and over: how late is the machine?"""
    async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as client:
        while not over.is_set():
            began = time.monotonic()
            answer = await client.get("/live")
            took = time.monotonic() - began
            journal.healthy.append(Answer("live", answer.status_code, began, took))
            await asyncio.sleep(BEAT)


@asynccontextmanager
async def load(url: str, clients: int) -> AsyncIterator[tuple[Journal, list[Client]]]:
    """So many clients at work, and a journal of it; they have ended with the block."""
    journal, over = Journal(), asyncio.Event()
    tokens = await asyncio.gather(*(asyncio.to_thread(new_user, url, ADMIN_TOKEN) for _ in range(clients)))
    async with contextlib.AsyncExitStack() as stack:
        made = []
        for token in tokens:
            caller = await stack.enter_async_context(Caller(url, token))
            caller._user_id = UUID((await caller.get("/api/v1/me")).json()["user"]["id"])
            made.append(Client(caller, journal))
        tasks = [asyncio.create_task(one.live(over, number)) for number, one in enumerate(made)]
        tasks.append(asyncio.create_task(beat(url, journal, over)))
        try:
            yield journal, made
            over.set()
            async with asyncio.timeout(30):
                await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
