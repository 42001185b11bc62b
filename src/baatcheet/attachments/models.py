"""The tables of attachments and of their pages."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Double, ForeignKey, Index, Text, func
from sqlalchemy import text as sql
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from baatcheet.auth.models import Timestamp
from baatcheet.platform.database import Base


class Attachment(Base):
    """`job_id` is the job that reads it, or has read it last; `reading` the one whose pages hold, once there are any.

    `error` is why it could not be read, `notes` what went wrong on the way, both in plain words.
    """

    __tablename__ = "attachments"
    __table_args__ = (
        CheckConstraint("status IN ('processing', 'completed', 'failed', 'cancelled')", name="status"),
        Index("idx_attachment_user", "user_id", sql("id DESC")),
        Index("uq_attachment_user_sha256", "user_id", "sha256", unique=True),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    job_id: Mapped[UUID]
    reading: Mapped[UUID | None]
    filename: Mapped[str] = mapped_column(Text)
    kind: Mapped[str] = mapped_column(Text)
    media_type: Mapped[str] = mapped_column(Text)
    size: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(Text)
    status: Mapped[str] = mapped_column(Text, server_default="processing")
    width: Mapped[int | None]
    height: Mapped[int | None]
    has_view: Mapped[bool] = mapped_column(server_default=sql("false"))
    pages: Mapped[int | None]
    characters: Mapped[int | None]
    truncated: Mapped[bool] = mapped_column(server_default=sql("false"))
    confidence: Mapped[float | None] = mapped_column(Double)
    language: Mapped[str | None] = mapped_column(Text)
    engine: Mapped[str | None] = mapped_column(Text)
    notes: Mapped[list[dict[str, Any]]] = mapped_column(JSONB, server_default="[]")
    error: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())
    completed_at: Mapped[datetime | None] = mapped_column(Timestamp)


class AttachmentPage(Base):
    """A page as one reading found it; `number` counts from 1. It is kept at once: no page is read twice."""

    __tablename__ = "attachment_pages"

    attachment_id: Mapped[UUID] = mapped_column(
        ForeignKey("attachments.id", ondelete="CASCADE"), primary_key=True
    )
    reading: Mapped[UUID] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[UUID]
    text: Mapped[str] = mapped_column(Text)
    engine: Mapped[str] = mapped_column(Text)
    width: Mapped[int | None]
    height: Mapped[int | None]
    turned: Mapped[float] = mapped_column(Double, server_default=sql("0"))
    confidence: Mapped[float | None] = mapped_column(Double)
    language: Mapped[str | None] = mapped_column(Text)
    lines: Mapped[list[dict[str, Any]]] = mapped_column(JSONB, server_default="[]")
    note: Mapped[str | None] = mapped_column(Text)
