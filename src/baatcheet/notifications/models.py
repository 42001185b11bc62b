"""Tables of notifications, and of what their users want to be told."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, Text, func
from sqlalchemy import text as sql
from sqlalchemy.orm import Mapped, mapped_column

from baatcheet.auth.models import Timestamp
from baatcheet.kit.ids import new_id
from baatcheet.platform.database import Base


class Notification(Base):
    """One that is not `listed` was only to be sent by email.

    Of those that have the same `alike`, one is unread at most: the next one makes it say so, in `times`.
    """

    __tablename__ = "notifications"
    __table_args__ = (
        CheckConstraint("email_status IN ('queued', 'sent', 'failed')", name="email_status"),
        Index("idx_notification_user", "user_id", "listed", sql("id DESC")),
        Index(
            "idx_notification_unread",
            "user_id",
            sql("id DESC"),
            postgresql_where=sql("listed AND read_at IS NULL"),
        ),
        Index(
            "uq_notification_alike",
            "user_id",
            "alike",
            unique=True,
            postgresql_where=sql("alike IS NOT NULL AND read_at IS NULL"),
        ),
        Index(
            "idx_notification_emailed",
            "user_id",
            "created_at",
            postgresql_where=sql("email_status IS NOT NULL"),
        ),
        Index("idx_notification_updated", "updated_at"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    event_id: Mapped[UUID]
    kind: Mapped[str] = mapped_column(Text)
    title: Mapped[str] = mapped_column(Text)
    text: Mapped[str] = mapped_column(Text)
    link: Mapped[str | None] = mapped_column(Text)
    listed: Mapped[bool]
    alike: Mapped[str | None] = mapped_column(Text)
    times: Mapped[int] = mapped_column(server_default=sql("1"))
    email_status: Mapped[str | None] = mapped_column(Text)
    read_at: Mapped[datetime | None] = mapped_column(Timestamp)
    created_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())


class Preference(Base):
    """Where a user wants one kind told. No row: as the kind's default says."""

    __tablename__ = "notification_preferences"

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    kind: Mapped[str] = mapped_column(Text, primary_key=True)
    in_app: Mapped[bool]
    email: Mapped[bool]
