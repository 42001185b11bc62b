"""The context's tests plan on the real database, within small budgets, and with a Valkey of their own."""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest
import pytest_asyncio

from baatcheet.context import counting
from baatcheet.context.compaction import Compaction, Compactor, ImmediateCompactions
from baatcheet.context.history import History, StoredSummary
from baatcheet.context.indexing import Indexer
from baatcheet.context.manager import Context, ContextManager
from baatcheet.context.planning import Item
from baatcheet.context.store import ContextStore
from baatcheet.context.summaries.extractive import ExtractiveSummarizer
from baatcheet.context.summaries.sections import Summarizer
from baatcheet.context.tokenizers import Tokenizers
from baatcheet.entrypoints.contexts import build_compactor, build_context
from baatcheet.kit.ids import new_id
from baatcheet.platform.cache import Cache
from baatcheet.platform.database import Database
from baatcheet.platform.http import client_session
from baatcheet.platform.settings import ContextSettings, load
from baatcheet.providers.catalogue import build_catalogue
from tests.valkey_server import ValkeyServer

PATIENT = 5.0  # seconds that a test's cache is waited for, where its slowness is not what is tested
MAX_TOKENS = 1_000
MAX_MESSAGES = 50

_USER = "INSERT INTO users (id, name) VALUES ($1, 'reader')"
_CONVERSATION = "INSERT INTO conversations (id, user_id, title, system_prompt) VALUES ($1, $2, 't', $3)"
_MESSAGE = """
INSERT INTO messages (id, conversation_id, user_id, parent_id, role, content, parts, token_count, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7::text::jsonb, $8, $9)
"""
_HEAD = "UPDATE conversations SET head_id = $1 WHERE id = $2"
_SUMMARIES = """
SELECT json_build_object('last', depth, 'sections', sections, 'made_by', made_by)::text FROM context_summaries
WHERE conversation_id = $1 ORDER BY depth
"""
_INDEXED = """
SELECT branch_id, depth, part, message_id FROM recall_passages WHERE conversation_id = $1
ORDER BY branch_id, depth, part
"""


@dataclass
class Talk:
    """One user's conversation in the database, grown by SQL: `head` is where `say` goes on from."""

    db: Database
    user: UUID
    id: UUID
    head: UUID | None = None
    began: datetime = field(default_factory=lambda: datetime.now(UTC) - timedelta(days=30))
    said: int = 0

    async def say(self, *texts: str, at: UUID | str | None = "head", first: str = "user") -> list[UUID]:
        """Add `texts`, the user's and the assistant's in turn (`first`'s first), and make the last one the head."""
        other = {"user": "assistant", "assistant": "user"}
        role = first
        messages: list[dict[str, Any]] = []
        for text in texts:
            messages.append({"role": role, "content": text})
            role = other[role]
        return await self.add(*messages, at=at)

    async def add(self, *messages: dict[str, Any], at: UUID | str | None = "head") -> list[UUID]:
        """Add stored messages (`role`, `content`, `parts`) after `at`, None being the root."""
        parent = self.head if isinstance(at, str) else at
        ids: list[UUID] = []
        async with self.db.hot() as connection:
            for message in messages:
                id_, parts = new_id(), message.get("parts")
                tokens = counting.count(counting.counted_text(message["content"], parts))
                when = self.began + timedelta(minutes=self.said)
                await connection.execute(
                    _MESSAGE,
                    id_,
                    self.id,
                    self.user,
                    parent,
                    message["role"],
                    message["content"],
                    msgspec.json.encode(parts).decode() if parts else None,
                    tokens,
                    when,
                )
                self.said += 1
                parent = id_
                ids.append(id_)
        await self.switch(ids[-1])
        return ids

    async def switch(self, head: UUID) -> None:
        """Make another branch the active one."""
        async with self.db.hot() as connection:
            await connection.execute(_HEAD, head, self.id)
        self.head = head

    async def delete(self) -> None:
        async with self.db.hot() as connection:
            await connection.execute("DELETE FROM conversations WHERE id = $1", self.id)

    async def summaries(self) -> list[StoredSummary]:
        """Every summary of every branch, the least deep first."""
        async with self.db.hot() as connection:
            rows = await connection.fetch(_SUMMARIES, self.id)
        return [msgspec.json.decode(row[0], type=StoredSummary) for row in rows]

    async def indexed(self) -> list[tuple[UUID, int, int, UUID]]:
        """Branch, depth, part and message of every passage."""
        async with self.db.hot() as connection:
            return [tuple(row) for row in await connection.fetch(_INDEXED, self.id)]

    async def version(self) -> int:
        async with self.db.hot() as connection:
            found = await connection.fetchval(
                "SELECT context_version FROM conversations WHERE id = $1", self.id
            )
        assert isinstance(found, int)
        return found

    @property
    def work(self) -> Compaction:
        assert self.head is not None
        return Compaction(self.user, self.id, self.head, MAX_TOKENS)


NewTalk = Callable[..., Any]
NewManager = Callable[..., ContextManager]
NewCompactor = Callable[..., Compactor]


@pytest_asyncio.fixture
async def reader(database: Database) -> UUID:
    """A user."""
    user = new_id()
    async with database.hot() as connection:
        await connection.execute(_USER, user)
    return user


@pytest_asyncio.fixture
async def stranger(database: Database) -> UUID:
    """Another user."""
    user = new_id()
    async with database.hot() as connection:
        await connection.execute(_USER, user)
    return user


async def talk_of(database: Database, user: UUID, system_prompt: str | None = None) -> Talk:
    """A new, empty conversation of `user`'s."""
    talk = Talk(database, user, new_id())
    async with database.hot() as connection:
        await connection.execute(_CONVERSATION, talk.id, user, system_prompt)
    return talk


@pytest_asyncio.fixture
async def talk(database: Database, reader: UUID) -> Talk:
    return await talk_of(database, reader)


@pytest.fixture
def valkey() -> Iterator[ValkeyServer]:
    with ValkeyServer() as server:
        yield server


@pytest_asyncio.fixture
async def cache(valkey: ValkeyServer) -> AsyncIterator[Cache]:
    """The test's own way into its Valkey."""
    opened = Cache(valkey.settings(PATIENT))
    await opened.start()
    yield opened
    await opened.close()


@pytest_asyncio.fixture
async def new_manager(database: Database, valkey: ValkeyServer) -> AsyncIterator[NewManager]:
    """Makes context managers as a new process has one: nothing in memory, a connection to Valkey of its own."""
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(client_session())
        catalogue = build_catalogue(load({"OLLAMA_HOST": ""}, dotenv=None).providers, session)
        stack.push_async_callback(catalogue.close)

        def make(
            *, max_tokens: int = MAX_TOKENS, max_messages: int = MAX_MESSAGES, timeout: float = PATIENT
        ) -> ContextManager:
            own = Cache(valkey.settings(timeout))
            stack.push_async_callback(own.close)
            settings = ContextSettings(max_tokens=max_tokens, max_messages=max_messages)
            made = build_context(
                settings,
                db=database,
                cache=own,
                catalogue=catalogue,
                tokenizers=Tokenizers(),
                compactions=ImmediateCompactions(build_compactor(settings, db=database, catalogue=catalogue)),
            )
            stack.push_async_callback(made.close, 5)
            return made

        yield make


@pytest.fixture
def new_compactor(database: Database) -> NewCompactor:
    def make(
        summarizer: Summarizer | None = None,
        *,
        db: Database = database,
        max_messages: int = MAX_MESSAGES,
    ) -> Compactor:
        store = ContextStore(db)
        quick = ExtractiveSummarizer()
        return Compactor(
            store,
            Indexer(store),
            lambda: summarizer or quick,
            quick=quick,
            max_messages=max_messages,
        )

    return make


def sentences(count: int, about: str = "day") -> list[str]:
    """That many short messages, each with words of its own; some 25 tokens each."""
    return [
        f"On {about}{at} the caravan number{at} left the valley, and the people of village{at} sang until dawn."
        for at in range(count)
    ]


def texts(messages: Sequence[dict[str, Any]]) -> str:
    """All that `messages` say."""
    return "\n".join([str(message["content"]) for message in messages])


async def remembered(manager: ContextManager, talk: Talk, *said: str) -> Context:
    """What a turn of `said` (question, answer …) leaves behind: it is stored, and the manager has kept it."""
    await manager.get_context(talk.id, user_id=talk.user)
    history = await manager.known(talk.user, talk.id) or History(None, 0)
    ids = await talk.say(*said)
    items = [
        Item(
            {"role": "assistant" if at % 2 else "user", "content": text},
            counting.count(text) + counting.MESSAGE_OVERHEAD,
            id_,
        )
        for at, (id_, text) in enumerate(zip(ids, said, strict=True))
    ]
    manager.remember(talk.user, talk.id, history.grown(items))
    await manager.settle(talk.id)
    return await manager.get_context(talk.id, user_id=talk.user)
