"""Rows of exports and imports, and conversations as they are exported.

What is read for an export is read by pages, each in a transaction of its own, along an outline that one statement
gave: so an export is of one moment, however long its reading takes.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from struct import Struct
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import Text, cast, delete, func, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from baatcheet.auth.models import User
from baatcheet.conversations.models import Conversation, Message
from baatcheet.exports.models import Export, Import, ImportedConversation
from baatcheet.projects.models import Project

# Exports ---------------------------------------------------------------------------------------------------


async def export(session: AsyncSession, owner: UUID, export_id: UUID) -> Export | None:
    query = select(Export).where(Export.id == export_id, Export.user_id == owner)
    return (await session.scalars(query)).one_or_none()


async def export_of_anybody(session: AsyncSession, export_id: UUID) -> Export | None:
    """An export, whoever's it is; none of a user who is not active."""
    query = select(Export).join(User, User.id == Export.user_id).where(Export.id == export_id, User.active)
    return (await session.scalars(query)).one_or_none()


async def exports_after(
    session: AsyncSession, owner: UUID, last: UUID | None, limit: int, filters: Mapping[str, Any]
) -> Sequence[Export]:
    """Newest first. `filters`: exact values of columns."""
    query = select(Export).where(Export.user_id == owner).order_by(Export.id.desc()).limit(limit)
    for name, value in filters.items():
        query = query.where(getattr(Export, name) == value)
    if last is not None:
        query = query.where(Export.id < last)
    return (await session.scalars(query)).all()


async def remove_export(session: AsyncSession, owner: UUID, export_id: UUID) -> Export | None:
    """What was removed."""
    removed = delete(Export).where(Export.id == export_id, Export.user_id == owner).returning(Export)
    return (await session.scalars(removed)).one_or_none()


async def begin_export(session: AsyncSession, owner: UUID, export_id: UUID) -> Export | None:
    """The export, which is being made again where it had failed; None when it is no longer there."""
    again = update(Export).where(
        Export.id == export_id, Export.user_id == owner, Export.status.in_(("failed", "cancelled"))
    )
    await session.execute(again.values(status="pending", error=None))
    return await export(session, owner, export_id)


async def complete_export(
    session: AsyncSession, owner: UUID, export_id: UUID, fields: Mapping[str, Any], kept_seconds: float
) -> Export | None:
    """The export is made; None when it is no longer there."""
    now = func.clock_timestamp()
    changed = (
        update(Export)
        .where(Export.id == export_id, Export.user_id == owner)
        .values(
            **fields,
            status="completed",
            error=None,
            completed_at=now,
            expires_at=now + func.make_interval(0, 0, 0, 0, 0, 0, kept_seconds),
        )
        .returning(Export)
    )
    return (await session.scalars(changed, execution_options={"populate_existing": True})).one_or_none()


async def end_export(
    session: AsyncSession, owner: UUID | None, export_id: UUID, status: str, error: str
) -> Export | None:
    """The export has failed or was cancelled; None when it is no longer there, or was made all the same."""
    changed = (
        update(Export)
        .where(Export.id == export_id, Export.user_id == owner, Export.status != "completed")
        .values(status=status, error=error)
        .returning(Export)
    )
    return (await session.scalars(changed)).one_or_none()


async def overdue(session: AsyncSession, limit: int) -> Sequence[Export]:
    """Exports whose file has been kept long enough."""
    query = select(Export).where(Export.status == "completed", Export.expires_at < func.clock_timestamp())
    return (await session.scalars(query.order_by(Export.expires_at).limit(limit))).all()


async def expire(session: AsyncSession, ids: Sequence[UUID]) -> None:
    await session.execute(
        update(Export).where(Export.id.in_(ids), Export.status == "completed").values(status="expired")
    )


async def forget_exports(session: AsyncSession, before: datetime, limit: int) -> int:
    """Delete the rows of exports that came to their end before, `limit` at most; how many."""
    ended = Export.status.in_(("expired", "failed", "cancelled"))
    old = select(Export.id).where(ended, Export.created_at < before).limit(limit).scalar_subquery()
    return len((await session.scalars(delete(Export).where(Export.id.in_(old)).returning(Export.id))).all())


async def exports_with_files(session: AsyncSession, ids: Sequence[UUID]) -> set[UUID]:
    """Those of `ids` that have a file, or are to get one."""
    query = select(Export.id).where(Export.id.in_(ids), Export.status.in_(("pending", "completed")))
    return set((await session.scalars(query)).all())


# Conversations, to be exported -----------------------------------------------------------------------------


async def conversation(session: AsyncSession, owner: UUID, conversation_id: UUID) -> Conversation | None:
    query = select(Conversation).where(
        Conversation.id == conversation_id, Conversation.user_id == owner, Conversation.deleted_at.is_(None)
    )
    return (await session.scalars(query)).one_or_none()


async def project(session: AsyncSession, owner: UUID, project_id: UUID) -> Project | None:
    query = select(Project).where(Project.id == project_id, Project.user_id == owner)
    return (await session.scalars(query)).one_or_none()


async def conversation_ids(session: AsyncSession, owner: UUID) -> Sequence[UUID]:
    """All of a user's that are not deleted, oldest first."""
    query = (
        select(Conversation.id)
        .where(Conversation.user_id == owner, Conversation.deleted_at.is_(None))
        .order_by(Conversation.id)
    )
    return (await session.scalars(query)).all()


class Place(NamedTuple):
    """A message's place in an outline. `segment` is 1 along the active branch, and more in what branches off.

    `size` is about the bytes of the message, `segment_length` the messages of its segment.
    """

    id: UUID
    size: int
    segment: int
    segment_length: int


_PLACE: Final = Struct(">16siii")

_OUTLINE = """
WITH path AS (
    SELECT p.branch, p.last FROM branch_path(:owner, :conversation, :head) p
), found AS (
    SELECT m.id, m.branch_id, m.depth, p.branch IS NOT NULL AS active,
           octet_length(m.content) + coalesce(pg_column_size(m.parts), 0) AS size
    FROM {source}
    WHERE m.conversation_id = :conversation AND m.user_id = :owner
), ranked AS (
    SELECT f.id, f.size, f.depth,
           CASE WHEN f.active THEN 1
                ELSE 1 + dense_rank() OVER (PARTITION BY f.active ORDER BY f.branch_id) END AS segment,
           count(*) OVER (PARTITION BY f.active, CASE WHEN NOT f.active THEN f.branch_id END) AS length
    FROM found f
)
SELECT coalesce(string_agg(
    uuid_send(r.id) || int4send(r.size) || int4send(r.segment::integer) || int4send(r.length::integer),
    ''::bytea ORDER BY r.segment, r.depth), ''::bytea)
FROM ranked r
"""
_ALONG_BRANCH = text(
    _OUTLINE.format(source="path p JOIN messages m ON m.branch_id = p.branch AND m.depth <= p.last")
)
_EVERYTHING = text(
    _OUTLINE.format(source="messages m LEFT JOIN path p ON p.branch = m.branch_id AND m.depth <= p.last")
)


class Outline:
    """Which messages an export has, in reading order: the active branch, then what branches off, branch by branch.

    A hundred thousand of them are some megabytes, in one piece: nothing of it is taken apart before it is needed.
    """

    def __init__(self, packed: bytes) -> None:
        self._packed = packed

    def __len__(self) -> int:
        return len(self._packed) // _PLACE.size

    def place(self, at: int) -> Place:
        identity, size, segment, length = _PLACE.unpack_from(self._packed, at * _PLACE.size)
        return Place(UUID(bytes=identity), size, segment, length)

    def page(self, start: int, most: int, most_bytes: int) -> list[Place]:
        """The places from `start` on, as many as fit; one at least, where there is one."""
        places: list[Place] = []
        total = 0
        for at in range(start, min(start + most, len(self))):
            place = self.place(at)
            total += place.size
            if places and total > most_bytes:
                break
            places.append(place)
        return places


async def outline(
    session: AsyncSession, owner: UUID, conversation_id: UUID, head: UUID | None, *, every_branch: bool
) -> Outline:
    """The messages there are now on the way to `head`, or all. One statement."""
    found = await session.scalar(
        _EVERYTHING if every_branch else _ALONG_BRANCH,
        {"owner": owner, "conversation": conversation_id, "head": head},
    )
    return Outline(bytes(found or b""))


class Row(NamedTuple):
    """A message as it is stored. `parts` is the text of its JSON."""

    id: UUID
    parent_id: UUID | None
    branch_id: UUID
    role: str
    content: str
    parts: str | None
    model: str | None
    token_count: int
    finish_reason: str | None
    created_at: datetime


async def messages(
    session: AsyncSession, owner: UUID, conversation_id: UUID, places: Sequence[Place]
) -> list[Row]:
    """The messages at `places`, in that order. Those that are gone are left out."""
    query = select(
        Message.id,
        Message.parent_id,
        Message.branch_id,
        Message.role,
        Message.content,
        cast(Message.parts, Text),
        Message.model,
        Message.token_count,
        Message.finish_reason,
        Message.created_at,
    ).where(
        Message.id.in_([place.id for place in places]),
        Message.conversation_id == conversation_id,
        Message.user_id == owner,
    )
    rows = {row[0]: Row._make(row) for row in (await session.execute(query)).all()}
    return [rows[place.id] for place in places if place.id in rows]


# Imports ---------------------------------------------------------------------------------------------------


async def import_(session: AsyncSession, owner: UUID, import_id: UUID) -> Import | None:
    query = select(Import).where(Import.id == import_id, Import.user_id == owner)
    return (await session.scalars(query)).one_or_none()


async def imports_after(
    session: AsyncSession, owner: UUID, last: UUID | None, limit: int
) -> Sequence[Import]:
    """Newest first."""
    query = select(Import).where(Import.user_id == owner).order_by(Import.id.desc()).limit(limit)
    if last is not None:
        query = query.where(Import.id < last)
    return (await session.scalars(query)).all()


class Counts(NamedTuple):
    """What has become of an import's conversations so far."""

    imported: int = 0
    skipped: int = 0
    failed: int = 0
    messages: int = 0


async def counts(session: AsyncSession, owner: UUID, import_ids: Sequence[UUID]) -> dict[UUID, Counts]:
    found = ImportedConversation
    query = (
        select(
            found.import_id,
            func.count().filter(found.status == "imported"),
            func.count().filter(found.status == "skipped"),
            func.count().filter(found.status == "failed"),
            func.coalesce(func.sum(found.messages).filter(found.status == "imported"), 0),
        )
        .where(found.import_id.in_(import_ids), found.user_id == owner)
        .group_by(found.import_id)
    )
    return {row[0]: Counts(*row[1:]) for row in (await session.execute(query)).all()}


async def imported_after(
    session: AsyncSession, owner: UUID, import_id: UUID, last: int | None, limit: int, status: str | None
) -> Sequence[ImportedConversation]:
    """In the order of the file."""
    found = ImportedConversation
    query = select(found).where(found.import_id == import_id, found.user_id == owner)
    if status is not None:
        query = query.where(found.status == status)
    if last is not None:
        query = query.where(found.place > last)
    return (await session.scalars(query.order_by(found.place).limit(limit))).all()


async def begin_import(session: AsyncSession, owner: UUID, import_id: UUID) -> Import | None:
    """As `begin_export`."""
    again = update(Import).where(
        Import.id == import_id, Import.user_id == owner, Import.status.in_(("failed", "cancelled"))
    )
    await session.execute(again.values(status="pending", error=None, ended_at=None))
    return await import_(session, owner, import_id)


async def end_import(
    session: AsyncSession, owner: UUID | None, import_id: UUID, fields: Mapping[str, Any]
) -> Import | None:
    """The import has come to its end, as `fields` say; None when it is no longer there."""
    changed = (
        update(Import)
        .where(Import.id == import_id, Import.user_id == owner, Import.status != "completed")
        .values(**fields, ended_at=func.clock_timestamp())
        .returning(Import)
    )
    return (await session.scalars(changed)).one_or_none()


async def imports_with_files(session: AsyncSession, ids: Sequence[UUID], before: datetime) -> set[UUID]:
    """Those of `ids` whose file is still needed: they have not ended, or failed after `before`."""
    needed = (Import.status == "pending") | (
        Import.status.in_(("failed", "cancelled")) & (Import.ended_at > before)
    )
    return set((await session.scalars(select(Import.id).where(Import.id.in_(ids), needed))).all())
