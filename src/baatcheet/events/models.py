"""The tables of events."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, Identity, Index, Text, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from baatcheet.auth.models import Timestamp
from baatcheet.platform.database import Base


class OutboxRow(Base):
    """An event that is not relayed yet. It is here if and only if the transaction that it tells of committed.

    No foreign key: the end of what it tells about is an event too.
    """

    __tablename__ = "outbox"

    place: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    id: Mapped[UUID] = mapped_column(server_default=func.gen_random_uuid())
    user_id: Mapped[UUID | None]
    type: Mapped[str] = mapped_column(Text)
    conversation_id: Mapped[UUID | None]
    data: Mapped[dict[str, Any]] = mapped_column(JSONB)
    created_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.clock_timestamp())


class EventRow(Base):
    """A relayed event. `poisoned` names the subscribers that could not take it, each with its error."""

    __tablename__ = "events"
    __table_args__ = (
        Index("idx_event_user", "user_id", "seq"),
        Index("idx_event_poisoned", "seq", postgresql_where=text("poisoned IS NOT NULL")),
    )

    seq: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    id: Mapped[UUID] = mapped_column(unique=True)
    user_id: Mapped[UUID | None] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    type: Mapped[str] = mapped_column(Text)
    conversation_id: Mapped[UUID | None]
    data: Mapped[dict[str, Any]] = mapped_column(JSONB)
    created_at: Mapped[datetime] = mapped_column(Timestamp)
    poisoned: Mapped[dict[str, str] | None] = mapped_column(JSONB)


class EventHorizon(Base):
    """One row: every event up to `seq` may have been forgotten, none after it has."""

    __tablename__ = "event_horizon"

    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
