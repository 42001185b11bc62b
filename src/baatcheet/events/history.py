"""Past events as a list."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import Field
from sqlalchemy import select

from baatcheet.auth.principal import Principal
from baatcheet.events.models import EventRow
from baatcheet.kit.pagination import Slice, decode, slice_of
from baatcheet.platform.database import Database
from baatcheet.platform.rest import Out, Page


class EventOut(Out):
    """Something that has happened."""

    seq: int = Field(description="Its number: what Last-Event-ID names.")
    id: UUID = Field(description="The same wherever the event is told.")
    type: str
    user_id: UUID | None = Field(description="Whose it is; null: it is nobody's own.")
    timestamp: datetime
    data: dict[str, Any]

    @classmethod
    def of(cls, row: EventRow) -> "EventOut":
        return cls(
            seq=row.seq,
            id=row.id,
            type=row.type,
            user_id=row.user_id,
            timestamp=row.created_at,
            data=row.data,
        )


class EventPage(Page[EventOut]):
    """Events, newest first."""


class History:
    """The events that are still kept."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def list(
        self,
        who: Principal,
        *,
        types: frozenset[str] | None,
        everything: bool,
        limit: int,
        cursor: str | None,
    ) -> Slice[EventRow]:
        """Newest first: `who`'s own, or with `everything` everybody's. Raises BadCursor."""
        name = "events:all" if everything else "events"
        query = select(EventRow).order_by(EventRow.seq.desc()).limit(limit + 1)
        if cursor is not None:
            query = query.where(EventRow.seq < decode(name, cursor, int))
        if types is not None:
            query = query.where(EventRow.type.in_(sorted(types)))
        if everything:
            async with self._db.system() as session:
                rows = (await session.scalars(query)).all()
        else:
            async with self._db.tenant(who.user_id) as session:
                rows = (await session.scalars(query.where(EventRow.user_id == who.user_id))).all()
        return slice_of(name, rows, limit, lambda row: row.seq)
