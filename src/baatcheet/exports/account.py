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
    `key`: what a row is known by among its owner's, each column with its type, in whose order the list is. `within`:
    SQL of a join and a condition by which its rows are found, where that is not their `user_id`.
    """

    name: str
    table: str
    columns: tuple[str, ...]
    more: str = "'{}'::jsonb"
    files: str | None = None
    key: tuple[tuple[str, str], ...] = (("id", "uuid"),)
    within: str = "WHERE t.user_id = :owner"


class Uploaded(NamedTuple):
    """A file that was uploaded, and where it is kept."""

    id: UUID
    filename: str
    key: str


_TIMES = ("created_at", "updated_at", "completed_at", "ended_at", "expires_at")
_TOKENS = ("prompt_tokens", "cached_tokens", "completion_tokens")
_MONEY = ("microcents", "unpriced")
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
    Table("identities", "user_identities", ("id", "issuer", "subject", "last_used_at", *_TIMES)),
    Table(
        "jobs",
        "jobs",
        ("id", "kind", "status", "subject_id", "attempts", "error", *_TIMES),
        within="WHERE t.user_id = :owner AND t.visible",
    ),
    Table(
        "notification_preferences",
        "notification_preferences",
        ("kind", "in_app", "email"),
        key=(("kind", "text"),),
    ),
    Table(
        "summaries",
        "context_summaries",
        ("id", "conversation_id", "upto_id", "sections", "made_by", *_TIMES),
        within="JOIN conversations c ON c.id = t.conversation_id AND c.deleted_at IS NULL WHERE c.user_id = :owner",
    ),
    Table(
        "charged",
        "model_usage",
        ("day", "token_id", "model", "kind", *_TOKENS, "requests", "recorded_seconds", *_MONEY),
        key=(("day", "date"), ("token_id", "uuid"), ("model", "text"), ("kind", "text")),
    ),
    Table(
        "spending",
        "spending",
        ("holder", "day", "requests", "tokens", "microcents"),
        key=(("holder", "uuid"), ("day", "date")),
    ),
    Table(
        "spending_limits",
        "spending_limits",
        (
            *("holder", "kind", "models", "requests_per_day", "requests_per_month", "tokens_per_day"),
            *("tokens_per_month", "microcents_per_day", "microcents_per_month"),
            *_TIMES,
        ),
        key=(("holder", "uuid"),),
    ),
    Table(
        "analytics",
        "analytics_daily",
        (
            *("date", "model", "turns", "completed", "failed", "cancelled", "interrupted", "messages"),
            *_TOKENS,
            *_MONEY,
            *("latency_ms", "slowest_ms", "jobs_succeeded", "jobs_failed", "jobs_cancelled"),
            *("bytes_added", "bytes_removed"),
        ),
        key=(("date", "date"), ("model", "text")),
    ),
)
# Written down in another way: the user in `export.json`, conversations with their messages one by one, pages with their
# attachment.
ELSEWHERE: Final = frozenset({"users", "conversations", "messages", "attachment_pages"})
# What is in no archive, and why.
LEFT_OUT: Final = {
    "analytics_backlog": "a note that days are still to be counted",
    "analytics_fresh": "what `analytics` has a minute later",
    "analytics_kept": "a part of `analytics`",
    "analytics_pending": "which turns are counted within a minute",
    "audio_pieces": "what is heard of a recording that is still being transcribed",
    "console_sessions": "browsers that are signed in: nothing but secrets",
    "events": "copies, kept for days, of what happened to the rows that are in it",
    "idempotency_keys": "copies, kept for a day, of answers",
    "imported_conversations": "reports of imports; the conversations are in it",
    "outbox": "events on their way",
    "passage_embeddings": "an index of messages",
    "recall_passages": "an index of messages",
    "search_documents": "an index of messages",
    "search_fresh": "an index of messages",
    "search_leases": "an index of messages",
    "search_pieces": "an index of messages",
    "search_removed": "an index of messages",
    "search_segments": "an index of messages",
    "search_terms": "an index of messages",
    "search_words": "an index of messages",
    "spending_reservations": "what is reserved for requests under way",
    "turn_deltas": "replies under way",
    "webhook_attempts": "copies, kept for days, of what was sent to one's own endpoints",
    "webhook_deliveries": "copies, kept for days, of what was sent to one's own endpoints",
    "webhook_secrets": "secrets",
}

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
        """Pages of rows, each as the text of its JSON, in the order of their keys."""
        last: list[str] = []
        while True:
            async with self._db.tenant(self._owner, limit=LIMIT) as session:
                if not await _is_there(session, table.table):
                    return
                values = {"owner": self._owner, "limit": ROWS, "columns": list(table.columns)}
                values |= {f"last{at}": part for at, part in enumerate(last)}
                rows = (await session.execute(text(_query(table, following=bool(last))), values)).all()
            if not rows:
                return
            yield [row[1] for row in rows]
            last = rows[-1][0]


def _query(table: Table, *, following: bool) -> str:
    """What reads a page: the first, or that after the row whose key is `:last0`, `:last1` …"""
    columns = ", ".join(f"t.{name}" for name, _ in table.key)
    last = ", ".join(f"CAST(CAST(:last{at} AS text) AS {type_})" for at, (_, type_) in enumerate(table.key))
    return _QUERY.format(
        table=table.table,
        more=table.more,
        within=table.within,
        key=", ".join(f"t.{name}::text" for name, _ in table.key),
        after=f"AND ({columns}) > ({last})" if following else "",
        order=columns,
    )


# What is filled in is said above.
_QUERY: Final = """
SELECT ARRAY[{key}], ({more} || (
    SELECT coalesce(jsonb_object_agg(c.key, c.value), '{{}}') FROM jsonb_each(to_jsonb(t)) c
    WHERE c.key = ANY(:columns)
))::text
FROM {table} t {within} {after} ORDER BY {order} LIMIT :limit
"""


async def _is_there(session: AsyncSession, table: str) -> bool:
    return await session.scalar(text("SELECT to_regclass(:table)"), {"table": table}) is not None


async def _unheard(_read: int, _total: int) -> None:
    """One conversation is but a part."""
