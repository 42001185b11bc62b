"""Where the context is measured: a durable PostgreSQL, a Valkey, one user, and the product's own context manager."""

import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from baatcheet.context import counting
from baatcheet.context.compaction import ImmediateCompactions
from baatcheet.context.history import History, StoredMessage
from baatcheet.context.manager import ContextManager
from baatcheet.context.tokenizers import Tokenizers
from baatcheet.entrypoints.contexts import build_compactor, build_context
from baatcheet.kit.ids import new_id
from baatcheet.platform.cache import Cache
from baatcheet.platform.database import Database
from baatcheet.platform.embedded import EmbeddedServices
from baatcheet.platform.migrate import upgrade
from baatcheet.platform.settings import EmbeddedSettings, Settings, load
from baatcheet.providers.catalogue import Catalogue
from benchmarks.evidence import Message

BATCH = 5_000  # messages that one statement writes
LOADING = 600.0  # seconds that writing them may take
POOL = 4

_ADD = """
INSERT INTO messages (id, conversation_id, user_id, parent_id, role, content, token_count, created_at)
SELECT m.id, $1, $2, m.parent, m.role, m.content, m.tokens, m.at
FROM unnest($3::uuid[], $4::uuid[], $5::text[], $6::text[], $7::integer[], $8::timestamptz[])
     WITH ORDINALITY AS m(id, parent, role, content, tokens, at, place)
ORDER BY m.place
"""
_GROW = """
UPDATE conversations SET head_id = $2, message_count = message_count + $3, token_total = token_total + $4
WHERE id = $1
"""


@contextmanager
def services() -> Iterator[Settings]:
    """The settings of a deployment with servers of its own, which are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="baatcheet-bench-") as folder:
        embedded = EmbeddedServices(EmbeddedSettings(data_dir=Path(folder)), postgres=True, valkey=True)
        try:
            addresses = embedded.start()
            assert addresses.database_url is not None
            assert addresses.redis_url is not None
            upgrade(addresses.database_url)
            environ = {"DATABASE_URL": addresses.database_url, "REDIS_URL": addresses.redis_url}
            yield load(environ, dotenv=None)
        finally:
            embedded.stop()


@dataclass(frozen=True)
class Workplace:
    """A user and what the processes of a deployment share."""

    settings: Settings
    db: Database
    cache: Cache
    user: UUID

    def manager(self) -> ContextManager:
        """A context manager that remembers nothing, as in a process that has just begun."""
        catalogue = Catalogue([])
        compactor = build_compactor(self.settings.context, db=self.db, catalogue=catalogue)
        return build_context(
            self.settings.context,
            db=self.db,
            cache=self.cache,
            catalogue=catalogue,
            tokenizers=Tokenizers(),
            compactions=ImmediateCompactions(compactor),
        )

    async def begin(self, system_prompt: str | None = None) -> UUID:
        """A new, empty conversation."""
        conversation = new_id()
        await self.execute(
            "INSERT INTO conversations (id, user_id, system_prompt) VALUES ($1, $2, $3)",
            conversation,
            self.user,
            system_prompt,
        )
        return conversation

    async def add(
        self, conversation: UUID, messages: Sequence[Message], parent: UUID | None = None
    ) -> list[StoredMessage]:
        """Write `messages` to the conversation's end, after `parent`."""
        added: list[StoredMessage] = []
        for start in range(0, len(messages), BATCH):
            batch = messages[start : start + BATCH]
            rows = [StoredMessage(new_id(), one.role, one.text, counting.count(one.text)) for one in batch]
            parents = [parent, *[row.id for row in rows[:-1]]]
            await self.execute(
                _ADD,
                conversation,
                self.user,
                [row.id for row in rows],
                parents,
                [row.role for row in rows],
                [row.content for row in rows],
                [row.tokens for row in rows],
                [one.at for one in batch],
            )
            parent = rows[-1].id
            await self.execute(_GROW, conversation, parent, len(rows), sum(row.tokens for row in rows))
            added += rows
        return added

    async def compacted(self, conversation: UUID) -> None:
        """Have the product summarise and index what is above its high-water mark, as after a turn."""
        manager = self.manager()
        await manager.get_context(conversation, user_id=self.user)
        history = await manager.known(self.user, conversation) or History(None, 0)
        manager.remember(self.user, conversation, history)
        await manager.settle(conversation)

    async def tidy(self) -> None:
        """What PostgreSQL does by itself some time after much was written."""
        await self.execute("VACUUM ANALYZE messages")
        await self.execute("VACUUM ANALYZE recall_passages")
        await self.execute("VACUUM ANALYZE context_summaries")
        await self.execute("CHECKPOINT")

    async def execute(self, statement: str, *arguments: Any) -> None:
        async with self.db.hot(limit=LOADING) as connection:
            await connection.execute(statement, *arguments)

    async def value(self, statement: str, *arguments: Any) -> Any:
        async with self.db.hot() as connection:
            return await connection.fetchval(statement, *arguments)


@asynccontextmanager
async def workplace(settings: Settings) -> AsyncIterator[Workplace]:
    """A new user's."""
    async with AsyncExitStack() as stack:
        db = Database(settings.database, pool_size=POOL)
        stack.push_async_callback(db.close)
        cache = Cache(settings.cache)
        await cache.start()
        stack.push_async_callback(cache.close)
        place = Workplace(settings, db, cache, new_id())
        await place.execute("INSERT INTO users (id, name) VALUES ($1, 'Benchmark')", place.user)
        counting.warm_up()
        yield place
