"""Tables of who may spend what, and of what was spent. Money is in microcents, millionths of a US cent."""

from datetime import date, datetime
from decimal import Decimal
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    Date,
    DateTime,
    ForeignKey,
    Index,
    Numeric,
    Text,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from baatcheet.platform.database import Base

Timestamp = DateTime(timezone=True)


def _count() -> Mapped[int]:
    return mapped_column(BigInteger, server_default=text("0"))


class SpendingLimits(Base):
    """What a user or one of their tokens may spend; `holder` is its id. Without any limit the row tells of a removal.

    `version`: the count of all changes at its last one. An admission locks the row.
    """

    __tablename__ = "spending_limits"
    __table_args__ = (
        CheckConstraint("kind IN ('user', 'token')", name="kind"),
        Index("idx_spending_limits_user", "user_id"),
        Index("idx_spending_limits_version", "version"),
    )

    holder: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    kind: Mapped[str] = mapped_column(Text)
    models: Mapped[list[str] | None] = mapped_column(ARRAY(Text))
    requests_per_day: Mapped[int | None] = mapped_column(BigInteger)
    requests_per_month: Mapped[int | None] = mapped_column(BigInteger)
    tokens_per_day: Mapped[int | None] = mapped_column(BigInteger)
    tokens_per_month: Mapped[int | None] = mapped_column(BigInteger)
    microcents_per_day: Mapped[int | None] = mapped_column(BigInteger)
    microcents_per_month: Mapped[int | None] = mapped_column(BigInteger)
    version: Mapped[int] = mapped_column(BigInteger)
    updated_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())


class SpendingChanges(Base):
    """One row of counters: whoever changes limits or prices counts one up, in the same transaction."""

    __tablename__ = "spending_changes"
    __table_args__ = (CheckConstraint("single", name="single"),)

    single: Mapped[bool] = mapped_column(primary_key=True, server_default=text("true"))
    limits: Mapped[int] = _count()
    prices: Mapped[int] = _count()


class Spending(Base):
    """What a user or a token has spent on one day (UTC)."""

    __tablename__ = "spending"
    __table_args__ = (Index("idx_spending_user", "user_id"), Index("idx_spending_day", "day"))

    holder: Mapped[UUID] = mapped_column(primary_key=True)
    day: Mapped[date] = mapped_column(Date, primary_key=True)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    requests: Mapped[int] = _count()
    tokens: Mapped[int] = _count()
    microcents: Mapped[int] = _count()


class SpendingReservation(Base):
    """A request under way of somebody who has a budget, at its estimate, on the day on which it was admitted.

    `expired`: nobody has said in time what it used, and it was charged as it stands.
    """

    __tablename__ = "spending_reservations"
    __table_args__ = (
        Index("idx_spending_reservations_user", "user_id"),
        Index("idx_spending_reservations_token", "token_id"),
        Index("idx_spending_reservations_expires", "expires_at"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    token_id: Mapped[UUID]
    day: Mapped[date] = mapped_column(Date)
    tokens: Mapped[int] = mapped_column(BigInteger)
    microcents: Mapped[int] = mapped_column(BigInteger)
    expires_at: Mapped[datetime] = mapped_column(Timestamp)
    expired: Mapped[bool] = mapped_column(server_default=text("false"))


class ModelUsage(Base):
    """What a token has used of one model on one day (UTC), for chats, embeddings or recordings.

    `unpriced`: requests that nobody knows the price of.
    """

    __tablename__ = "model_usage"
    __table_args__ = (
        CheckConstraint("kind IN ('chat', 'embedding', 'recording')", name="kind"),
        Index("idx_model_usage_day", "day"),
        Index("idx_model_usage_others", "day", postgresql_where=text("kind <> 'chat'")),
    )

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    day: Mapped[date] = mapped_column(Date, primary_key=True)
    token_id: Mapped[UUID] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(Text, primary_key=True)
    kind: Mapped[str] = mapped_column(Text, primary_key=True, server_default="chat")
    requests: Mapped[int] = _count()
    prompt_tokens: Mapped[int] = _count()
    cached_tokens: Mapped[int] = _count()
    completion_tokens: Mapped[int] = _count()
    recorded_seconds: Mapped[int] = _count()
    microcents: Mapped[int] = _count()
    unpriced: Mapped[int] = _count()


class ModelPrice(Base):
    """A price that an operator has set. USD per million tokens; `hour`: per hour of a recording."""

    __tablename__ = "model_prices"

    pattern: Mapped[str] = mapped_column(Text, primary_key=True)
    prompt: Mapped[Decimal] = mapped_column(Numeric(13, 6))
    completion: Mapped[Decimal] = mapped_column(Numeric(13, 6))
    cached: Mapped[Decimal | None] = mapped_column(Numeric(13, 6))
    written: Mapped[Decimal | None] = mapped_column(Numeric(13, 6))
    hour: Mapped[Decimal | None] = mapped_column(Numeric(13, 6))
    updated_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())
