"""The tables of webhooks."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ARRAY, CheckConstraint, ForeignKey, Index, Text, UniqueConstraint, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from baatcheet.auth.models import Timestamp
from baatcheet.kit.ids import new_id
from baatcheet.platform.database import Base


class Webhook(Base):
    """An endpoint. A deleted one is only marked: its deliveries may be many, and go in the background."""

    __tablename__ = "webhooks"
    __table_args__ = (
        CheckConstraint("disabled_reason IN ('owner', 'failing', 'gone')", name="disabled_reason"),
        Index(
            "idx_webhook_user_active",
            "user_id",
            "active",
            text("id DESC"),
            postgresql_where=text("deleted_at IS NULL"),
        ),
        Index("idx_webhook_deleted", "deleted_at", postgresql_where=text("deleted_at IS NOT NULL")),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    url: Mapped[str] = mapped_column(Text)
    description: Mapped[str] = mapped_column(Text, server_default="")
    events: Mapped[list[str]] = mapped_column(ARRAY(Text))
    headers: Mapped[dict[str, str]] = mapped_column(JSONB, server_default="{}")
    active: Mapped[bool] = mapped_column(server_default=text("true"))
    failing_since: Mapped[datetime | None] = mapped_column(Timestamp)
    disabled_at: Mapped[datetime | None] = mapped_column(Timestamp)
    disabled_reason: Mapped[str | None] = mapped_column(Text)
    deleted_at: Mapped[datetime | None] = mapped_column(Timestamp)
    created_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())

    @property
    def header_names(self) -> list[str]:
        return list(self.headers)


class WebhookSecret(Base):
    """What a webhook's deliveries are signed with until `expires_at`, if ever. As it is: signing needs the text."""

    __tablename__ = "webhook_secrets"
    __table_args__ = (Index("idx_webhook_secret_webhook", "webhook_id", text("id DESC")),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    webhook_id: Mapped[UUID] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"))
    user_id: Mapped[UUID]
    secret: Mapped[str] = mapped_column(Text)
    expires_at: Mapped[datetime | None] = mapped_column(Timestamp)
    created_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.clock_timestamp())


class WebhookDelivery(Base):
    """One event on its way to one endpoint. `body` is what every attempt sends, byte for byte."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        CheckConstraint("status IN ('pending', 'delivered', 'failed', 'cancelled')", name="status"),
        UniqueConstraint("webhook_id", "message_id", name="uq_webhook_deliveries_message_id"),
        Index("idx_webhook_delivery_created", "webhook_id", text("created_at DESC"), text("id DESC")),
        Index(
            "idx_webhook_delivery_undelivered",
            "webhook_id",
            "status",
            text("created_at DESC"),
            text("id DESC"),
            postgresql_where=text("status IN ('failed', 'cancelled')"),
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    webhook_id: Mapped[UUID] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"))
    user_id: Mapped[UUID]
    message_id: Mapped[UUID]
    event: Mapped[str] = mapped_column(Text)
    body: Mapped[str] = mapped_column(Text)
    status: Mapped[str] = mapped_column(Text, server_default="pending")
    attempt_count: Mapped[int] = mapped_column(server_default="0")
    response_status: Mapped[int | None]
    error: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.clock_timestamp())
    ended_at: Mapped[datetime | None] = mapped_column(Timestamp)


class WebhookAttempt(Base):
    """One POST. It is written before it is made: one that was cut off by the end of its worker is seen too."""

    __tablename__ = "webhook_attempts"

    delivery_id: Mapped[UUID] = mapped_column(
        ForeignKey("webhook_deliveries.id", ondelete="CASCADE"), primary_key=True
    )
    number: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[UUID]
    at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.clock_timestamp())
    duration_ms: Mapped[int | None]
    status: Mapped[int] = mapped_column(server_default="0")
    response: Mapped[str] = mapped_column(Text, server_default="")
    error: Mapped[str | None] = mapped_column(Text)


def message_name(message_id: UUID) -> str:
    """The `webhook-id` of a message: the same at every attempt and replay, and at every endpoint that gets it."""
    return f"msg_{message_id.hex}"
