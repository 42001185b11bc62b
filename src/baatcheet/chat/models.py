"""Tables of turns, of the text that a running turn has so far, and of the processes that run them."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, CheckConstraint, ForeignKey, Index, Integer, LargeBinary, Text, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from baatcheet.auth.models import Timestamp
from baatcheet.kit.ids import new_id
from baatcheet.platform.database import Base


class Process(Base):
    """A process that runs turns. One that has not been seen for a while is dead, and its turns with it."""

    __tablename__ = "processes"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(Text)
    host: Mapped[str] = mapped_column(Text)
    pid: Mapped[int]
    pool_size: Mapped[int]
    in_use: Mapped[int] = mapped_column(server_default=text("0"))  # of the pool's connections, when last seen
    waiting: Mapped[int] = mapped_column(server_default=text("0"))  # callers who waited for one then
    started_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())
    seen_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())


class Turn(Base):
    """One question and its answer. The partial unique index is what makes a second running turn impossible."""

    __tablename__ = "turns"
    __table_args__ = (
        CheckConstraint(
            "status IN ('running', 'completed', 'failed', 'cancelled', 'interrupted')",
            name="status",
        ),
        Index("uq_turn_running", "conversation_id", unique=True, postgresql_where=text("status = 'running'")),
        Index(
            "uq_turn_idempotency",
            "user_id",
            "idempotency_key",
            unique=True,
            postgresql_where=text("idempotency_key IS NOT NULL"),
        ),
        Index("idx_turn_conversation", "conversation_id", text("id DESC")),
        Index("idx_turn_user", "user_id", text("id DESC")),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    conversation_id: Mapped[UUID | None] = mapped_column(ForeignKey("conversations.id", ondelete="CASCADE"))
    input_id: Mapped[UUID | None]  # the message that is answered
    reply_id: Mapped[UUID | None]  # the answer's id: reserved at the opening, written at the close
    status: Mapped[str] = mapped_column(Text, server_default="running")
    model: Mapped[str | None] = mapped_column(Text)  # as asked for
    answered_by: Mapped[str | None] = mapped_column(Text)  # provider/model
    process_id: Mapped[UUID | None]
    cancel_requested: Mapped[bool] = mapped_column(server_default=text("false"))
    idempotency_key: Mapped[str | None] = mapped_column(Text)
    fingerprint: Mapped[bytes | None] = mapped_column(LargeBinary)
    error: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    finish_reason: Mapped[str | None] = mapped_column(Text)
    prompt_tokens: Mapped[int | None]
    completion_tokens: Mapped[int | None]
    usage: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    receipt: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    reply: Mapped[dict[str, Any] | None] = mapped_column(JSONB)  # only of a turn without a conversation
    # What a replay needs beside the reply itself: the characters of each event where all of them are text …
    event_lengths: Mapped[list[int] | None] = mapped_column(ARRAY(Integer))
    events: Mapped[str | None] = mapped_column(
        Text
    )  # … and the events themselves, as a JSON array, where not
    created_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())
    ended_at: Mapped[datetime | None] = mapped_column(Timestamp)


class TurnDelta(Base):
    """What a running turn got within about a second: `events` is a JSON array, kept as text."""

    __tablename__ = "turn_deltas"

    turn_id: Mapped[UUID] = mapped_column(ForeignKey("turns.id", ondelete="CASCADE"), primary_key=True)
    first_seq: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[UUID]
    last_seq: Mapped[int]
    events: Mapped[str] = mapped_column(Text)
