"""The tables of what was used. Money is in microcents, days are UTC's, `model` is empty where no model answered."""

from datetime import date
from uuid import UUID

from sqlalchemy import BigInteger, Date, ForeignKey, Identity, Index, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from baatcheet.platform.database import Base


def _count() -> Mapped[int]:
    return mapped_column(BigInteger, server_default=text("0"))


class Amounts:
    """How much of each.

    `messages`: those of turns, and those that were stored without one. `latency_ms`: of completed turns, together;
    `slowest_ms`: of the slowest one; `took_…`: how many of them took up to so many ms, and more than the number before.
    `unpriced`: turns that used tokens of which nobody knew the price.
    """

    turns: Mapped[int] = _count()
    completed: Mapped[int] = _count()
    failed: Mapped[int] = _count()
    cancelled: Mapped[int] = _count()
    interrupted: Mapped[int] = _count()
    messages: Mapped[int] = _count()
    prompt_tokens: Mapped[int] = _count()
    cached_tokens: Mapped[int] = _count()
    completion_tokens: Mapped[int] = _count()
    microcents: Mapped[int] = _count()
    unpriced: Mapped[int] = _count()
    latency_ms: Mapped[int] = _count()
    slowest_ms: Mapped[int] = _count()
    jobs_succeeded: Mapped[int] = _count()
    jobs_failed: Mapped[int] = _count()
    jobs_cancelled: Mapped[int] = _count()
    bytes_added: Mapped[int] = _count()
    bytes_removed: Mapped[int] = _count()
    took_250: Mapped[int] = _count()
    took_500: Mapped[int] = _count()
    took_1000: Mapped[int] = _count()
    took_2000: Mapped[int] = _count()
    took_4000: Mapped[int] = _count()
    took_8000: Mapped[int] = _count()
    took_16000: Mapped[int] = _count()
    took_32000: Mapped[int] = _count()
    took_64000: Mapped[int] = _count()
    took_128000: Mapped[int] = _count()
    took_256000: Mapped[int] = _count()


class Daily(Amounts, Base):
    """What was used of one model on one day, but for what is in `analytics_fresh`."""

    __tablename__ = "analytics_daily"
    __table_args__ = (
        Index("idx_analytics_user_date", "user_id", text("date DESC")),
        Index("idx_analytics_date", "date"),
    )

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    model: Mapped[str] = mapped_column(Text, primary_key=True)
    date: Mapped[date] = mapped_column(Date, primary_key=True)


class Everybody(Amounts, Base):
    """What `analytics_daily` comes to for all users together; written by triggers on it."""

    __tablename__ = "analytics_everybody"

    date: Mapped[date] = mapped_column(Date, primary_key=True)
    model: Mapped[str] = mapped_column(Text, primary_key=True)


class Fresh(Amounts, Base):
    """What has changed and is not in `analytics_daily` yet; written by triggers."""

    __tablename__ = "analytics_fresh"
    __table_args__ = (Index("idx_analytics_fresh_user", "user_id"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    user_id: Mapped[UUID]  # no foreign key: it would lock the user's row in every turn
    date: Mapped[date] = mapped_column(Date)
    model: Mapped[str] = mapped_column(Text)


class Pending(Base):
    """A turn that has ended and is not in `analytics_daily` yet; written by triggers."""

    __tablename__ = "analytics_pending"

    user_id: Mapped[UUID] = mapped_column(primary_key=True)  # no foreign key, as in `analytics_fresh`
    turn_id: Mapped[UUID] = mapped_column(primary_key=True)


class Kept(Amounts, Base):
    """What rows came to that were deleted; written by triggers."""

    __tablename__ = "analytics_kept"
    __table_args__ = (Index("idx_analytics_kept_user", "user_id"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    date: Mapped[date] = mapped_column(Date)
    model: Mapped[str] = mapped_column(Text)


class Backlog(Base):
    """Users whose days are to be counted anew."""

    __tablename__ = "analytics_backlog"

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
