"""Two processes, one conversation, everybody at once: what a model is sent is a path of the tree, never an old one."""

import asyncio
import json
import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

from baatcheet.auth.bootstrap import ensure_admin
from baatcheet.context.recall.choosing import FIRST_LINE
from baatcheet.context.summaries.sections import INTRODUCTION
from baatcheet.platform.database import Database
from baatcheet.platform.settings import Settings
from tests.conftest import ADMIN_TOKEN, Caller
from tests.running import ApiProcess, api_process, new_user
from tests.scripted_provider import ScriptedProvider, Step
from tests.valkey_server import ValkeyServer

# Summaries are made by a worker.
pytestmark = pytest.mark.usefixtures("worker")

CHAT = "/api/v1/chat"
CLIENTS = 6
ROUNDS = 22  # of each client
PROMPT = "Be a good guest."
TAG = re.compile(r"\btag\d+x\b")


@pytest.fixture
def valkey() -> Iterator[ValkeyServer]:
    with ValkeyServer() as server:
        yield server


@pytest.fixture
def provider() -> Iterator[ScriptedProvider]:
    """Every reply that it gives is another one: a message's text says which message it is."""
    with ScriptedProvider(keep=10_000) as running:
        running.script(*[Step(reply=f"A reply that is tag{900_000 + n}x.") for n in range(3_000)])
        yield running


@pytest.fixture
def two(
    environment_of_server: Mapping[str, str],
    settings: Settings,
    valkey: ValkeyServer,
    provider: ScriptedProvider,
    tmp_path: Path,
) -> Iterator[tuple[ApiProcess, ApiProcess]]:
    """Their window is small: there are summaries and excerpts soon."""
    ensure_admin(environment_of_server["DATABASE_URL"], settings.auth)
    own = {
        **environment_of_server,
        "OPENAI_BASE_URL": provider.base_url,
        "REDIS_URL": valkey.url,
        "BAATCHEET_CACHE_TIMEOUT": "1",
        "BAATCHEET_CONTEXT_MAX_TOKENS": "700",
        "BAATCHEET_CONTEXT_MAX_MESSAGES": "16",
    }
    with api_process(own, tmp_path / "a.log") as a, api_process(own, tmp_path / "b.log") as b:
        yield a, b


@dataclass
class Hammer:
    """Clients of both processes that say, edit, regenerate, switch and append in one conversation."""

    here: Caller
    there: Caller
    conversation: str
    dice: random.Random
    users: list[str] = field(default_factory=list)  # ids of users' messages
    all: list[str] = field(default_factory=list)
    number: int = 0
    done: dict[str, int] = field(default_factory=dict)

    def text(self, what: str) -> str:
        self.number += 1
        return f"{what}, said by a guest in the garden of the old house: tag{self.number}x."

    async def client(self) -> None:
        for _ in range(ROUNDS):
            what = self.dice.choice(["turn", "turn", "turn", "edit", "again", "switch", "append"])
            caller = self.dice.choice([self.here, self.there])
            async with asyncio.timeout(60):
                while (answer := await getattr(self, what)(caller)).status_code == 409:
                    assert answer.json()["type"].endswith("turn-in-progress"), answer.text
                    await asyncio.sleep(self.dice.uniform(0.005, 0.05))
            assert answer.status_code in {200, 201}, answer.text
            self.done[what] = self.done.get(what, 0) + 1
            self.seen(what, answer.json())

    def seen(self, what: str, answer: dict[str, Any]) -> None:
        if "user_message_id" in answer:
            assert answer["status"] == "completed", answer
            if what != "again":  # which may answer what was added in the assistant's name
                self.users.append(answer["user_message_id"])
            self.all += [answer["user_message_id"], answer["message_id"]]
        elif "role" in answer:
            self.all.append(answer["id"])

    async def turn(self, caller: Caller) -> httpx.Response:
        body = {"conversation_id": self.conversation, "message": self.text("A turn")}
        return await caller.post(f"{CHAT}/completions", json=body)

    async def edit(self, caller: Caller) -> httpx.Response:
        body = {"message_id": self.dice.choice(self.users), "message": self.text("An edit")}
        return await caller.post(f"{CHAT}/edit", json=body)

    async def again(self, caller: Caller) -> httpx.Response:
        where = {"conversation_id": self.conversation}
        if self.dice.random() < 0.5:
            where = {"message_id": self.dice.choice(self.users)}
        return await caller.post(f"{CHAT}/regenerate", json=where)

    async def switch(self, caller: Caller) -> httpx.Response:
        changes = {"head_id": self.dice.choice(self.all)}
        return await caller.patch(f"/api/v1/conversations/{self.conversation}", json=changes)

    async def append(self, caller: Caller) -> httpx.Response:
        body = {"role": self.dice.choice(["user", "assistant"]), "content": self.text("An addition")}
        return await caller.post(f"/api/v1/conversations/{self.conversation}/messages", json=body)


@dataclass
class Tree:
    """The messages as they are in the database."""

    parents: dict[UUID, UUID | None]
    contents: dict[UUID, str]

    @classmethod
    async def of(cls, database: Database, conversation: str) -> "Tree":
        async with database.hot() as connection:
            rows = await connection.fetch(
                "SELECT id, parent_id, content FROM messages WHERE conversation_id = $1", UUID(conversation)
            )
        return cls({row[0]: row[1] for row in rows}, {row[0]: row[2] for row in rows})

    def path(self, content: str) -> list[str]:
        """What was said on the way to the one message with this text, it included."""
        (at,) = [id_ for id_, text in self.contents.items() if text == content]
        path: list[str] = []
        message: UUID | None = at
        while message is not None:
            path.append(self.contents[message])
            message = self.parents[message]
        return path[::-1]


def parts_of(prompt: list[dict[str, Any]]) -> tuple[list[str], list[str]]:
    """What was said, and what was made of it: summary and excerpts."""
    said = [str(message["content"]) for message in prompt]
    made = [text for text in said if text.startswith((INTRODUCTION, FIRST_LINE))]
    return [text for text in said if text not in made], made


async def next_turn(caller: Caller, conversation: str) -> str:
    """What a process would send next."""
    answer = await caller.get(f"/api/v1/conversations/{conversation}/context")
    assert answer.status_code == 200, answer.text
    return json.dumps(answer.json()["messages"])


async def test_whatever_happens_at_once_every_prompt_is_a_path_of_the_tree(
    two: tuple[ApiProcess, ApiProcess], provider: ScriptedProvider, database: Database
) -> None:
    token = new_user(two[0].url, ADMIN_TOKEN)
    async with Caller(two[0].url, token) as here, Caller(two[1].url, token) as there:
        made = await here.post("/api/v1/conversations", json={"title": "Guests", "system_prompt": PROMPT})
        hammer = Hammer(here, there, made.json()["id"], random.Random(4))
        for caller in (here, there, here):
            first = await hammer.turn(caller)
            assert first.status_code == 200, first.text
            hammer.seen("turn", first.json())
        await asyncio.gather(*[hammer.client() for _ in range(CLIENTS)])
        async with asyncio.timeout(20):  # until what is summarised in the background is done
            while len({await next_turn(caller, hammer.conversation) for caller in (here, there)}) > 1:
                await asyncio.sleep(0.05)
    assert set(hammer.done) == {"turn", "edit", "again", "switch", "append"}
    tree = await Tree.of(database, hammer.conversation)
    prompts = [request.body["messages"] for request in provider.chats]
    assert len(prompts) == 3 + sum(hammer.done[what] for what in ("turn", "edit", "again"))
    summarised = recalled = longest = 0
    for system, *prompt in prompts:
        assert system == {"role": "system", "content": PROMPT}
        said, made_of_it = parts_of(prompt)
        path = tree.path(said[-1])
        assert said == path[-len(said) :], "the end of the way to the new message, as it is in the database"
        assert len(said) == len(path) or made_of_it or len(said) > 10
        foreign = set(TAG.findall("\n".join(made_of_it))) - set(TAG.findall("\n".join(path)))
        assert not foreign, "neither summary nor excerpts know of another branch"
        summarised += any(text.startswith(INTRODUCTION) for text in made_of_it)
        recalled += any(text.startswith(FIRST_LINE) for text in made_of_it)
        longest = max(longest, len(path))
    assert summarised, "the window was small enough for summaries"
    assert recalled, "the window was small enough for excerpts"
    assert longest > 16, "more than the window takes word for word"
