"""Tables of exports, of imports, and of what became of each imported conversation."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, Text, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from baatcheet.auth.models import Timestamp
from baatcheet.kit.ids import new_id
from baatcheet.platform.database import Base


class Export(Base):
    """A file that is being made, is there, or was there. Where it is kept follows from its id."""

    __tablename__ = "exports"
    __table_args__ = (
        CheckConstraint("scope IN ('conversation', 'account')", name="scope"),
        CheckConstraint("format IN ('pdf', 'md', 'json', 'txt', 'zip')", name="format"),
        CheckConstraint("branch IN ('active', 'all')", name="branch"),
        CheckConstraint(
            "status IN ('pending', 'completed', 'failed', 'cancelled', 'expired')", name="status"
        ),
        Index("idx_export_user", "user_id", text("id DESC")),
        Index(
            "idx_export_conversation",
            "conversation_id",
            text("id DESC"),
            postgresql_where=text("conversation_id IS NOT NULL"),
        ),
        Index("idx_export_expires", "expires_at", postgresql_where=text("status = 'completed'")),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    scope: Mapped[str] = mapped_column(Text)
    conversation_id: Mapped[UUID | None]  # no foreign key: the file outlives the conversation
    format: Mapped[str] = mapped_column(Text)
    branch: Mapped[str] = mapped_column(Text)
    head_id: Mapped[UUID | None]  # the end of the active branch when the export was asked for
    options: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default="{}")
    status: Mapped[str] = mapped_column(Text, server_default="pending")
    filename: Mapped[str] = mapped_column(Text)
    size: Mapped[int | None] = mapped_column(BigInteger)
    notes: Mapped[list[str]] = mapped_column(JSONB, server_default="[]")
    error: Mapped[str | None] = mapped_column(Text)
    job_id: Mapped[UUID | None]
    created_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.clock_timestamp())
    completed_at: Mapped[datetime | None] = mapped_column(Timestamp)
    expires_at: Mapped[datetime | None] = mapped_column(Timestamp)


class Import(Base):
    """An upload whose conversations are being made, or were."""

    __tablename__ = "imports"
    __table_args__ = (
        CheckConstraint("duplicates IN ('skip', 'copy')", name="duplicates"),
        CheckConstraint("source IN ('baatcheet', 'chatgpt')", name="source"),
        CheckConstraint("status IN ('pending', 'completed', 'failed', 'cancelled')", name="status"),
        Index("idx_import_user", "user_id", text("id DESC")),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    filename: Mapped[str] = mapped_column(Text)
    size: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(Text)
    duplicates: Mapped[str] = mapped_column(Text)
    project_id: Mapped[UUID | None]
    source: Mapped[str | None] = mapped_column(Text)
    status: Mapped[str] = mapped_column(Text, server_default="pending")
    error: Mapped[str | None] = mapped_column(Text)
    job_id: Mapped[UUID | None]
    created_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.clock_timestamp())
    ended_at: Mapped[datetime | None] = mapped_column(Timestamp)


class ImportedConversation(Base):
    """What became of one conversation of an upload. `digest` tells it from others, whatever its ids."""

    __tablename__ = "imported_conversations"
    __table_args__ = (
        CheckConstraint("status IN ('imported', 'skipped', 'failed')", name="status"),
        Index(
            "idx_imported_conversation_digest",
            "user_id",
            "digest",
            postgresql_where=text("status = 'imported'"),
        ),
    )

    import_id: Mapped[UUID] = mapped_column(ForeignKey("imports.id", ondelete="CASCADE"), primary_key=True)
    place: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    user_id: Mapped[UUID]
    status: Mapped[str] = mapped_column(Text)
    conversation_id: Mapped[UUID | None]
    source_id: Mapped[str] = mapped_column(Text)
    title: Mapped[str] = mapped_column(Text)
    messages: Mapped[int] = mapped_column(server_default=text("0"))
    digest: Mapped[str | None] = mapped_column(Text)
    problem: Mapped[str | None] = mapped_column(Text)
    notes: Mapped[list[str]] = mapped_column(JSONB, server_default="[]")
