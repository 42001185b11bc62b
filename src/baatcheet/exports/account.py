"""All of one's data, put down for its archive: conversations one by one, and what else there is as lists.

What is taken of each table is named here: a column that is added later, which may hold a secret, is not in it before
somebody says so. A table of a part that this deployment lacks is an empty list.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from baatcheet.auth.models import User
from baatcheet.exports import repository
from baatcheet.exports.archive import CONVERSATIONS, LINES, TABLES
from baatcheet.exports.gathering import LIMIT, ConversationGone, Gatherer
from baatcheet.platform.database import Database
from baatcheet.platform.threads import in_thread

ROWS: Final = 500  # that are read at once


class Table(NamedTuple):
    """Rows of one user's: the list's name in the archive, the table, and what is taken of it.

    `more`: SQL of a JSON object with what is elsewhere. `files`: where the rows' files are kept, below their ids.
    """

    name: str
    table: str
    columns: tuple[str, ...]
    more: str = "'{}'::jsonb"
    files: str | None = None


class Uploaded(NamedTuple):
    """A file that was uploaded, and where it is kept."""

    id: UUID
    filename: str
    key: str


_TIMES = ("created_at", "updated_at", "completed_at", "ended_at", "expires_at")
_UPLOAD = ("id", "filename", "media_type", "size", "sha256", "status", "engine", "confidence", "error")

_TEXT_OF_PAGES = """jsonb_build_object('extracted_text', (
    SELECT string_agg(p.text, E'\\n\\n' ORDER BY p.number) FROM attachment_pages p
    WHERE p.attachment_id = t.id AND p.reading = t.reading
))"""

TABLES_OF_ONES_OWN: Final = (
    Table("projects", "projects", ("id", "name", "description", *_TIMES)),
    Table("tokens", "api_tokens", ("id", "name", "prefix", "scopes", "last_used_at", "revoked_at", *_TIMES)),
    Table(
        "usage",
        "turns",
        (
            *("id", "conversation_id", "status", "model", "answered_by", "finish_reason"),
            *("prompt_tokens", "completion_tokens", "usage"),
            *_TIMES,
        ),
    ),
    Table(
        "attachments",
        "attachments",
        (*_UPLOAD, "kind", "width", "height", "pages", "characters", "language", "notes", *_TIMES),
        _TEXT_OF_PAGES,
        "attachments/",
    ),
    Table(
        "recordings",
        "audio",
        (
            *_UPLOAD,
            *("model", "language", "prompt", "seconds", "transcription_text", "detected_language"),
            *("segments", "words"),
            *_TIMES,
        ),
        files="audio/",
    ),
    Table("notifications", "notifications", ("id", "kind", "title", "text", "link", "read_at", *_TIMES)),
    Table("webhooks", "webhooks", ("id", "url", "description", "events", "active", *_TIMES)),
    Table(
        "exports",
        "exports",
        ("id", "scope", "conversation_id", "format", "branch", "status", "filename", "size", *_TIMES),
    ),
    Table("imports", "imports", ("id", "filename", "size", "sha256", "source", "status", *_TIMES)),
)

OnRead = Callable[[int, int], Awaitable[None]]


class _File(msgspec.Struct):
    id: UUID
    filename: str


class Account:
    """One user's data, read in their name."""

    def __init__(self, db: Database, owner: UUID) -> None:
        self._db = db
        self._owner = owner
        self._gatherer = Gatherer(db, owner)

    async def user(self) -> dict[str, Any]:
        """Who they are."""
        async with self._db.tenant(self._owner) as session:
            found = await session.get_one(User, self._owner)
        fields = ("id", "name", "email", "role", "created_at")
        return {name: getattr(found, name) for name in fields}

    async def write_conversations(self, folder: Path, on_read: OnRead) -> tuple[int, int]:
        """Put every conversation down; how many, with how many messages. One that is deleted meanwhile is left out."""
        target = folder / CONVERSATIONS
        await in_thread(target.mkdir)
        async with self._db.tenant(self._owner, limit=LIMIT) as session:
            ids = await repository.conversation_ids(session, self._owner)
        conversations = messages = 0
        for at, one in enumerate(ids):
            path = target / f"{one}{LINES}"
            try:
                conversation, project = await self._gatherer.conversation(one)
                messages += await self._gatherer.write_entries(
                    conversation, project, conversation.head_id, path, _unheard, every_branch=True
                )
                conversations += 1
            except ConversationGone:
                await in_thread(lambda path=path: path.unlink(missing_ok=True))  # type: ignore[misc]
            await on_read(at + 1, len(ids))
        return conversations, messages

    async def write_tables(self, folder: Path) -> dict[str, int]:
        """Put everything else down; how many rows of each list."""
        target = folder / TABLES
        await in_thread(target.mkdir)
        found: dict[str, int] = {}
        for table in TABLES_OF_ONES_OWN:
            found[table.name] = 0
            with (target / f"{table.name}{LINES}").open("wb") as file:
                async for rows in self._rows(table):
                    await in_thread(file.write, "".join(f"{row}\n" for row in rows).encode())
                    found[table.name] += len(rows)
        return found

    async def files(self) -> AsyncIterator[Uploaded]:
        """Every file that was uploaded."""
        for table in TABLES_OF_ONES_OWN:
            if table.files is not None:
                async for rows in self._rows(table):
                    for row in rows:
                        told = msgspec.json.decode(row, type=_File)
                        yield Uploaded(told.id, told.filename, f"{table.files}{self._owner}/{told.id}")

    async def _rows(self, table: Table) -> AsyncIterator[list[str]]:
        """Pages of rows, each as the text of its JSON, in the order of their ids."""
        last = UUID(int=0)
        while True:
            async with self._db.tenant(self._owner, limit=LIMIT) as session:
                if not await _is_there(session, table.table):
                    return
                query = _QUERY.format(table=table.table, more=table.more)
                values = {"owner": self._owner, "last": last, "limit": ROWS, "columns": list(table.columns)}
                rows = (await session.execute(text(query), values)).all()
            if not rows:
                return
            yield [row[1] for row in rows]
            last = rows[-1][0]


# What is filled in is said above.
_QUERY: Final = """
SELECT t.id, ({more} || (
    SELECT coalesce(jsonb_object_agg(c.key, c.value), '{{}}') FROM jsonb_each(to_jsonb(t)) c
    WHERE c.key = ANY(:columns)
))::text
FROM {table} t WHERE t.user_id = :owner AND t.id > :last ORDER BY t.id LIMIT :limit
"""


async def _is_there(session: AsyncSession, table: str) -> bool:
    return await session.scalar(text("SELECT to_regclass(:table)"), {"table": table}) is not None


async def _unheard(_read: int, _total: int) -> None:
    """One conversation is but a part."""
