"""Making imported conversations: each in one transaction, all of it or nothing."""

import asyncio
from array import array
from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Final, NamedTuple
from uuid import UUID

import msgspec
from sqlalchemy import Text, cast, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from baatcheet.conversations.models import Conversation
from baatcheet.exports.importing.normal import Line, Unusable, Usable
from baatcheet.exports.json_format import ProjectEntry
from baatcheet.exports.models import ImportedConversation
from baatcheet.kit.ids import new_id
from baatcheet.platform.database import Database
from baatcheet.platform.threads import in_thread
from baatcheet.projects.models import Project

BATCH: Final = 500  # messages that are inserted at once
BATCH_BYTES: Final = 1_000_000  # of their lines; one message is inserted, whatever it has
YIELD_BYTES: Final = 65_536  # of lines that are counted before others get their turn
_BASE_LIMIT: Final = 60.0  # seconds that a conversation's transaction may take …
_LIMIT_PER_MESSAGE: Final = 0.02  # … and for each of its messages

Count = Callable[[str, Mapping[str, Any] | None], Awaitable[int]]
"""The tokens of a message: of its text, and of what it has beside it."""

_INSERT = text("""
INSERT INTO messages (id, conversation_id, user_id, parent_id, role, content, parts, model, token_count, finish_reason,
                      created_at)
SELECT u.id, :conversation, :owner, u.parent, u.role, u.content, CAST(u.parts AS jsonb), u.model, u.tokens, u.reason,
       u.at
FROM unnest(CAST(:ids AS uuid[]), CAST(:parents AS uuid[]), CAST(:roles AS text[]), CAST(:contents AS text[]),
            CAST(:parts AS text[]), CAST(:models AS text[]), CAST(:tokens AS integer[]), CAST(:reasons AS text[]),
            CAST(:moments AS timestamptz[]))
    WITH ORDINALITY AS u(id, parent, role, content, parts, model, tokens, reason, at, place)
ORDER BY u.place
""")
_THERE_ALREADY = text("""
SELECT c.id FROM imported_conversations i JOIN conversations c ON c.id = i.conversation_id AND c.user_id = i.user_id
    AND c.deleted_at IS NULL
WHERE i.user_id = :owner AND i.digest = :digest AND i.status = 'imported' ORDER BY c.id LIMIT 1
""")
# Two imports of the same conversation at once: the second waits, and sees the first.
_ONE_AT_A_TIME = text("SELECT pg_advisory_xact_lock(hashtextextended(:digest, 0))")
_QUIETLY = text("SELECT set_config('baatcheet.quiet', 'on', true)")


class Target(NamedTuple):
    """Where an import's conversations go."""

    import_id: UUID
    owner: UUID
    copy: bool  # even those that were imported before
    project_id: UUID | None  # all of them into this project


class _Numbers(NamedTuple):
    """Of each message of a conversation, in order: its new id, and its tokens."""

    ids: list[UUID]
    tokens: "array[int]"


class Writer:
    """Makes the conversations of one import. What another run of it has made is not made again."""

    def __init__(self, db: Database, count: Count, target: Target, messages: Path) -> None:
        self._db = db
        self._count = count
        self._target = target
        self._messages = messages

    async def done(self) -> set[int]:
        """The places of what another run has dealt with. What it could not use is tried once more."""
        owner, found = self._target.owner, ImportedConversation
        async with self._db.tenant(owner) as session:
            await session.execute(
                text("DELETE FROM imported_conversations WHERE import_id = :id AND status = 'failed'"),
                {"id": self._target.import_id},
            )
            places = select(found.place).where(
                found.import_id == self._target.import_id, found.user_id == owner
            )
            return set((await session.scalars(places)).all())

    async def refuse(self, entry: Unusable) -> None:
        """Keep why a conversation was not imported."""
        async with self._db.tenant(self._target.owner) as session:
            await self._claim(session, entry, status="failed", problem=entry.problem)

    async def write(self, entry: Usable) -> None:
        """Make a conversation, or find that it was imported before."""
        owner = self._target.owner
        async with self._db.tenant(owner) as session:
            if await self._skipped(session, entry):
                return
        numbers = await self._number(entry)
        limit = _BASE_LIMIT + _LIMIT_PER_MESSAGE * entry.messages
        async with self._db.tenant(owner, limit=limit) as session:
            await session.execute(_ONE_AT_A_TIME, {"digest": f"{owner} {entry.digest}"})
            if await self._skipped(session, entry):
                return
            conversation = new_id()
            if await self._claim(session, entry, status="imported", conversation_id=conversation):
                await self._make(session, conversation, entry, numbers)

    async def _skipped(self, session: AsyncSession, entry: Usable) -> bool:
        """Whether the conversation was imported before and is still there."""
        if self._target.copy:
            return False
        values = {"owner": self._target.owner, "digest": entry.digest}
        there = await session.scalar(_THERE_ALREADY, values)
        if there is not None:
            await self._claim(session, entry, status="skipped", conversation_id=there)
        return there is not None

    async def _claim(self, session: AsyncSession, entry: Usable | Unusable, **fields: Any) -> bool:
        """Whether this run is the one that deals with the conversation; another's end is waited for."""
        if isinstance(entry, Usable):
            fields |= {"digest": entry.digest, "messages": entry.messages, "notes": list(entry.notes)}
        claim = (
            insert(ImportedConversation)
            .values(
                import_id=self._target.import_id,
                place=entry.place,
                user_id=self._target.owner,
                source_id=entry.source_id,
                title=entry.title,
                **fields,
            )
            .on_conflict_do_nothing()
            .returning(ImportedConversation.place)
        )
        return await session.scalar(claim) is not None

    async def _make(
        self, session: AsyncSession, conversation: UUID, entry: Usable, numbers: "_Numbers"
    ) -> None:
        session.add(
            Conversation(
                id=conversation,
                user_id=self._target.owner,
                project_id=await self._project(session, entry.project),
                title=entry.title,
                system_prompt=entry.system_prompt,
                model=entry.model,
                archived=entry.archived,
                pinned=entry.pinned,
                tags=list(entry.tags),
                head_id=numbers.ids[entry.head] if entry.head is not None else None,
                token_total=sum(numbers.tokens),
                message_count=entry.messages,
                created_at=entry.created_at,
                updated_at=entry.updated_at,
            )
        )
        await session.flush()
        await session.execute(_QUIETLY)
        at = 0
        with self._messages.open("rb") as file:
            file.seek(entry.offset)
            while at < entry.messages:
                lines = await in_thread(_batch, file, min(BATCH, entry.messages - at))
                batch = [msgspec.json.decode(line, type=Line) for line in lines]
                values = _columns(batch, numbers, at)
                await session.execute(
                    _INSERT, {"conversation": conversation, "owner": self._target.owner, **values}
                )
                at += len(batch)

    async def _project(self, session: AsyncSession, told: ProjectEntry | None) -> UUID | None:
        """The project to put a conversation into: the import's own, else the one that its file names."""
        owner = self._target.owner
        if self._target.project_id is not None:
            mine = select(Project.id).where(Project.id == self._target.project_id, Project.user_id == owner)
            return await session.scalar(mine.with_for_update(read=True, key_share=True))
        if told is None:
            return None
        same = select(Project.id).where(
            Project.user_id == owner,
            (cast(Project.id, Text) == told.id) | (Project.name == told.name),
        )
        first = same.order_by((cast(Project.id, Text) == told.id).desc(), Project.id).limit(1)
        found = await session.scalar(first.with_for_update(read=True, key_share=True))
        if found is not None:
            return found
        project = Project(id=new_id(), user_id=owner, name=told.name, description=told.description)
        session.add(project)
        await session.flush()
        return project.id

    async def _number(self, entry: Usable) -> "_Numbers":
        """The ids and the tokens of every message, before any transaction is open."""
        numbers = _Numbers([], array("i"))
        counted = 0
        with self._messages.open("rb") as file:
            file.seek(entry.offset)
            while (left := entry.messages - len(numbers.ids)) > 0:
                for raw in await in_thread(_batch, file, min(BATCH, left)):
                    line = msgspec.json.decode(raw, type=Line)
                    parts = msgspec.json.decode(line.parts)
                    numbers.ids.append(new_id())
                    numbers.tokens.append(await self._count(line.content, parts))
                    counted += len(raw)
                    if counted > YIELD_BYTES:
                        counted = 0
                        await asyncio.sleep(0)
        return numbers


def _batch(file: IO[bytes], most: int) -> list[bytes]:
    """The next lines: as many as fit, one at least."""
    lines: list[bytes] = []
    size = 0
    while len(lines) < most and size < BATCH_BYTES:
        lines.append(file.readline())
        size += len(lines[-1])
    return lines


def _columns(batch: list[Line], numbers: _Numbers, at: int) -> dict[str, list[Any]]:
    """The messages of a batch, of which the first is the conversation's `at`th, column by column."""
    moments: list[datetime] = [line.created_at for line in batch]
    return {
        "ids": numbers.ids[at : at + len(batch)],
        "parents": [numbers.ids[line.parent] if line.parent is not None else None for line in batch],
        "roles": [line.role for line in batch],
        "contents": [line.content for line in batch],
        "parts": [_parts(line) for line in batch],
        "models": [line.model for line in batch],
        "tokens": list(numbers.tokens[at : at + len(batch)]),
        "reasons": [line.finish_reason for line in batch],
        "moments": moments,
    }


def _parts(line: Line) -> str | None:
    text_of_parts = bytes(line.parts).decode()
    return None if text_of_parts == "null" else text_of_parts


def entries(index: Path) -> Iterator[Usable | Unusable]:
    """What an upload was found to hold, one conversation after the other."""
    with index.open("rb") as lines:
        for line in lines:
            yield msgspec.json.decode(line, type=Usable | Unusable)
