"""The tables of recordings and of the pieces of those under way."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Double, ForeignKey, Index, Text, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from baatcheet.auth.models import Timestamp
from baatcheet.platform.database import Base


class Recording(Base):
    """`language`, `model`, `prompt`, `temperature` are what was asked for; `error` is why it failed, in plain words."""

    __tablename__ = "audio"
    __table_args__ = (
        CheckConstraint("status IN ('processing', 'completed', 'failed', 'cancelled')", name="status"),
        Index("idx_audio_user", "user_id", text("id DESC")),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    job_id: Mapped[UUID]
    filename: Mapped[str] = mapped_column(Text)
    media_type: Mapped[str] = mapped_column(Text)
    size: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(Text)
    status: Mapped[str] = mapped_column(Text, server_default="processing")
    model: Mapped[str | None] = mapped_column(Text)
    language: Mapped[str | None] = mapped_column(Text)
    prompt: Mapped[str | None] = mapped_column(Text)
    temperature: Mapped[float | None] = mapped_column(Double)
    seconds: Mapped[float | None] = mapped_column(Double)
    transcription_text: Mapped[str | None] = mapped_column(Text)
    detected_language: Mapped[str | None] = mapped_column(Text)
    confidence: Mapped[float | None] = mapped_column(Double)
    segments: Mapped[list[dict[str, Any]] | None] = mapped_column(JSONB)
    words: Mapped[list[dict[str, Any]] | None] = mapped_column(JSONB)
    engine: Mapped[str | None] = mapped_column(Text)
    warning: Mapped[str | None] = mapped_column(Text)
    error: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())
    completed_at: Mapped[datetime | None] = mapped_column(Timestamp)


class Piece(Base):
    """What was heard in a part of a recording, kept until all of it has been: no part is transcribed twice."""

    __tablename__ = "audio_pieces"

    audio_id: Mapped[UUID] = mapped_column(ForeignKey("audio.id", ondelete="CASCADE"), primary_key=True)
    first_sample: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    user_id: Mapped[UUID]
    last_sample: Mapped[int] = mapped_column(BigInteger)
    engine: Mapped[str] = mapped_column(Text)
    heard: Mapped[dict[str, Any]] = mapped_column(JSONB)
