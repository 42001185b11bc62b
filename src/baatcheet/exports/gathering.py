"""From the database to lines on disk: what an export is made of, read page by page.

No connection is held from one page to the next, and nothing but one page is held in memory. What is read is what was
there when the reading began: messages are never changed, and the outline, which one statement gave, names those there
are. The active branch is the one that was active when the export was asked for.
"""

import base64
import binascii
import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal, cast
from uuid import UUID

import msgspec

from baatcheet.context.images import attachment_of, text_of_attachment
from baatcheet.conversations.models import Conversation
from baatcheet.conversations.wire import text_of
from baatcheet.exports import document, repository
from baatcheet.exports.document import Attached, Called, Document, Role, Said, Talk
from baatcheet.exports.json_format import (
    NULL,
    ConversationEntry,
    MessageEntry,
    ProjectEntry,
    conversation_line,
    message_line,
)
from baatcheet.exports.repository import Outline, Place, Row
from baatcheet.kit.file_names import safe_name
from baatcheet.kit.pagination import microseconds
from baatcheet.platform.blobs import Blobs, FileMissing
from baatcheet.platform.database import Database
from baatcheet.platform.threads import in_thread

PAGE: Final = 200  # messages that are read at once
PAGE_BYTES: Final = 2_000_000  # of their texts; one message is read, whatever it has
LIMIT: Final = 60.0  # seconds that one page, or an outline, may take
MOST_PICTURE: Final = 20_000_000  # bytes of one that a message carries in itself

VIEWS: Final = "attachment-views/"  # where pictures are, as models are shown them
_DATA = re.compile(r"data:(image/(?:png|jpeg|gif|webp));base64,", re.ASCII)

OnRead = Callable[[int, int], Awaitable[None]]
"""Told how many messages have been read, of how many."""


class ConversationGone(Exception):
    """The conversation was deleted while it was being read."""


class Style(msgspec.Struct, frozen=True):
    """How a document is to look (see `Document`)."""

    time_zone: str = "UTC"
    paper: Literal["a4", "letter"] = "a4"
    urdu: Literal["naskh", "nastaliq"] = "naskh"


@dataclass(frozen=True)
class Options:
    """What a document says of itself."""

    title: str
    exported_at: datetime
    owner: str
    style: Style


class Gatherer:
    """Reads one user's conversations. Every row is theirs: it reads in their name."""

    def __init__(self, db: Database, owner: UUID, blobs: Blobs | None = None) -> None:
        """`blobs`: where the pictures are that a document shows; None: it shows none."""
        self._db = db
        self._owner = owner
        self._blobs = blobs

    async def conversation(self, conversation_id: UUID) -> tuple[Conversation, ProjectEntry | None]:
        """Raises ConversationGone."""
        async with self._db.tenant(self._owner) as session:
            found = await repository.conversation(session, self._owner, conversation_id)
            if found is None:
                raise ConversationGone
            project = None
            if found.project_id is not None:
                project = await repository.project(session, self._owner, found.project_id)
        if project is None:
            return found, None
        return found, ProjectEntry(str(project.id), project.name, project.description)

    async def write_entries(
        self,
        conversation: Conversation,
        project: ProjectEntry | None,
        head: UUID | None,
        path: Path,
        on_read: OnRead,
        *,
        every_branch: bool,
    ) -> int:
        """Write the lines of which `json_format` makes a file to `path`; how many messages. Raises ConversationGone."""
        outline = await self._outline(conversation.id, head, every_branch=every_branch)
        at = 0
        with path.open("wb") as file:
            await in_thread(file.write, conversation_line(_entry(conversation, project, head)))
            async for _, rows in self._pages(conversation.id, outline):
                await in_thread(file.write, b"".join(map(_message_line, rows)))
                at += len(rows)
                await on_read(at, len(outline))
        return len(outline)

    async def write_document(
        self,
        conversation: Conversation,
        head: UUID | None,
        path: Path,
        options: Options,
        on_read: OnRead,
        *,
        every_branch: bool,
    ) -> int:
        """Write the lines of a document to `path`, pictures beside it; how many messages. Raises ConversationGone."""
        outline = await self._outline(conversation.id, head, every_branch=every_branch)
        pictures = Pictures(path.parent, self._owner, self._blobs)
        at = segment = 0
        with path.open("wb") as file:
            head_line = Document(
                title=options.title,
                exported_at=options.exported_at,
                conversations=_segments(outline),
                messages=len(outline),
                owner=options.owner,
                time_zone=options.style.time_zone,
                paper=options.style.paper,
                urdu=options.style.urdu,
            )
            await in_thread(file.write, document.line(head_line))
            if not outline:
                await in_thread(file.write, document.line(_talk(conversation, options, None)))
            async for places, rows in self._pages(conversation.id, outline):
                for place, row in zip(places, rows, strict=True):
                    if place.segment != segment:
                        first = place if segment == 0 else None
                        segment = place.segment
                        talk = (
                            _talk(conversation, options, first)
                            if first is not None
                            else _branch(conversation, options, place, row)
                        )
                        file.write(document.line(talk))
                    file.write(document.line(await said(row, pictures)))
                await in_thread(file.flush)
                at += len(rows)
                await on_read(at, len(outline))
        return len(outline)

    async def _outline(self, conversation_id: UUID, head: UUID | None, *, every_branch: bool) -> Outline:
        async with self._db.tenant(self._owner, limit=LIMIT) as session:
            return await repository.outline(
                session, self._owner, conversation_id, head, every_branch=every_branch
            )

    async def _pages(
        self, conversation_id: UUID, outline: Outline
    ) -> AsyncIterator[tuple[list[Place], list[Row]]]:
        start = 0
        while places := outline.page(start, PAGE, PAGE_BYTES):
            async with self._db.tenant(self._owner, limit=LIMIT) as session:
                rows = await repository.messages(session, self._owner, conversation_id, places)
            if len(rows) < len(places):
                raise ConversationGone
            yield places, rows
            start += len(places)


def _segments(outline: Outline) -> int:
    if not outline:
        return 1
    return outline.place(len(outline) - 1).segment - outline.place(0).segment + 1


def _entry(conversation: Conversation, project: ProjectEntry | None, head: UUID | None) -> ConversationEntry:
    return ConversationEntry(
        id=str(conversation.id),
        title=conversation.title,
        system_prompt=conversation.system_prompt,
        model=conversation.model,
        project=project,
        archived=conversation.archived,
        pinned=conversation.pinned,
        tags=conversation.tags,
        head_id=str(head) if head is not None else None,
        created_at=conversation.created_at,
        updated_at=conversation.updated_at,
    )


def _message_line(row: Row) -> bytes:
    entry = MessageEntry(
        id=str(row.id),
        parent_id=str(row.parent_id) if row.parent_id is not None else None,
        role=row.role,
        content=row.content,
        parts=msgspec.Raw(row.parts.encode()) if row.parts is not None else NULL,
        model=row.model,
        token_count=row.token_count,
        finish_reason=row.finish_reason,
        created_at=row.created_at,
    )
    return message_line(entry, str(row.branch_id), microseconds(row.created_at))


def _talk(conversation: Conversation, options: Options, place: Place | None) -> Talk:
    return Talk(
        id=str(conversation.id),
        title=options.title,
        created_at=conversation.created_at,
        updated_at=conversation.updated_at,
        model=conversation.model or "",
        system_prompt=conversation.system_prompt or "",
        messages=place.segment_length if place is not None else 0,
    )


def _branch(conversation: Conversation, options: Options, place: Place, row: Row) -> Talk:
    """The head of what branches off."""
    return Talk(
        id=f"{conversation.id}/{row.branch_id}",
        title=f"{options.title} (another branch)",
        created_at=row.created_at,
        messages=place.segment_length,
    )


async def said(row: Row, pictures: "Pictures") -> Said:
    """A message as a document has it: what its author wrote. What was read in an attachment is left out."""
    parts: dict[str, Any] = msgspec.json.decode(row.parts) if row.parts is not None else {}
    listed = parts.get("content")
    content: list[Any] = listed if isinstance(listed, list) else []
    own = [part for part in content if text_of_attachment(part) is None]
    return Said(
        id=str(row.id),
        role=cast("Role", row.role),  # the database checks it
        content=text_of(own) if len(own) < len(content) else row.content,
        at=row.created_at,
        author=_text(parts.get("name")),
        model=row.model or "",
        attachments=tuple([await pictures.attached(part) for part in content if _is_file(part)]),
        calls=tuple(_calls(parts.get("tool_calls"))),
        answers=_text(parts.get("tool_call_id")),
        finish_reason=row.finish_reason or "",
    )


def _calls(calls: object) -> Iterator[Called]:
    for call in calls if isinstance(calls, list) else ():
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            yield Called(_text(function.get("name")), _text(function.get("arguments")), _text(call.get("id")))


def _is_file(part: object) -> bool:
    return isinstance(part, dict) and part.get("type") not in {"text", "refusal"}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


class Pictures:
    """Pictures of messages, put down in a folder for who shows them. Without `blobs` nobody does."""

    def __init__(self, folder: Path, owner: UUID, blobs: Blobs | None) -> None:
        self._folder = folder
        self._owner = owner
        self._blobs = blobs
        self._count = 0

    async def attached(self, part: dict[str, Any]) -> Attached:
        """What a part of a message names, or holds."""
        kind = _text(part.get("type"))
        inner = part.get(kind)
        told: dict[str, Any] = inner if isinstance(inner, dict) else {}
        name = _text(told.get("filename"))
        ours = attachment_of(part)
        if ours is not None:
            path = await self._view(ours.id) if ours.size is not None else ""
            media_type = "" if ours.size is None else "image/jpeg"
            return Attached(name=safe_name(name), media_type=media_type, path=path)
        url = _text(told.get("url")) or _text(inner)
        found = _DATA.match(url)
        if found is not None:
            return await self._picture(found.group(1), url[found.end() :])
        name = name or url.partition("?")[0].rstrip("/").rpartition("/")[2]
        if url.startswith("data:") or not name:
            name = kind.removesuffix("_url") or "file"
        return Attached(name=safe_name(name), media_type="image/*" if kind == "image_url" else "")

    def _next(self, ending: str) -> Path:
        self._count += 1
        return self._folder / f"picture-{self._count}.{ending}"

    async def _view(self, attachment_id: UUID) -> str:
        """A local copy of an attachment's picture as models are shown it; "" where there is none."""
        if self._blobs is None:
            return ""
        path = self._next("jpeg")
        try:
            async with self._blobs.local(f"{VIEWS}{self._owner}/{attachment_id}") as view:
                await in_thread(shutil.copyfile, view, path)
        except (FileMissing, FileNotFoundError):
            return ""
        return str(path)

    async def _picture(self, media_type: str, encoded: str) -> Attached:
        path = self._next(media_type.rpartition("/")[2])
        if self._blobs is None or len(encoded) * 3 // 4 > MOST_PICTURE:
            return Attached(name=path.name, media_type=media_type)
        try:
            size = await in_thread(_write_picture, path, encoded)
        except (binascii.Error, ValueError):
            return Attached(name=path.name, media_type=media_type)
        return Attached(name=path.name, media_type=media_type, size=size, path=str(path))


def _write_picture(path: Path, encoded: str) -> int:
    return path.write_bytes(base64.b64decode(encoded, validate=True))
