"""The table of sessions."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, Index, LargeBinary, func
from sqlalchemy.orm import Mapped, mapped_column

from baatcheet.auth.models import Timestamp
from baatcheet.platform.database import Base


class ConsoleSession(Base):
    """A browser that came in with a token. What its cookie holds is kept as a SHA-256 only."""

    __tablename__ = "console_sessions"
    __table_args__ = (
        Index("idx_console_session_token", "token_id"),
        Index("idx_console_session_used", "used_at"),
    )

    hash: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    token_id: Mapped[UUID] = mapped_column(ForeignKey("api_tokens.id", ondelete="CASCADE"))
    created_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())
    used_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())
