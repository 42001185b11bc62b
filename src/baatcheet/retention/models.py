"""Tables of what remains of users who were deleted: that it was done, and what they all used together."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Column, Date, Table, Text, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from baatcheet.auth.models import Timestamp
from baatcheet.kit.ids import new_id
from baatcheet.platform.database import Base

_ZERO = text("0")


class UserDeletion(Base):
    """A receipt. `subject` is the id of a user who is no more; `rows` says how many were deleted of each table."""

    __tablename__ = "user_deletions"
    __table_args__ = (
        CheckConstraint("requested_by IN ('owner', 'administrator')", name="requested_by"),
        CheckConstraint("status IN ('pending', 'completed')", name="status"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    subject: Mapped[UUID] = mapped_column(unique=True)
    requested_by: Mapped[str] = mapped_column(Text)
    status: Mapped[str] = mapped_column(Text, server_default="pending")
    rows: Mapped[dict[str, int]] = mapped_column(JSONB, server_default=text("'{}'"))
    files: Mapped[int | None] = mapped_column(BigInteger)  # None: not counted yet
    bytes: Mapped[int | None] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.clock_timestamp())
    completed_at: Mapped[datetime | None] = mapped_column(Timestamp)


# What deleted users used, all of them together, by day (UTC) and model: as `model_usage` and `analytics_daily` have
# it of each user. Money is in microcents.
USAGE = (
    "requests",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "recorded_seconds",
    "microcents",
    "unpriced",
)
ANALYTICS = (
    "turns",
    "completed",
    "failed",
    "cancelled",
    "interrupted",
    "messages",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "microcents",
    "unpriced",
    "latency_ms",
    "slowest_ms",
    "jobs_succeeded",
    "jobs_failed",
    "jobs_cancelled",
    "bytes_added",
    "bytes_removed",
    *(f"took_{one}" for one in (250, 500, 1000, 2000, 4000, 8000, 16000, 32000, 64000, 128000, 256000)),
)
HIGHEST = frozenset({"slowest_ms"})  # not a sum


def _amounts(names: tuple[str, ...]) -> list[Column[int]]:
    return [Column(name, BigInteger, server_default=_ZERO, nullable=False) for name in names]


forgotten_usage = Table(
    "forgotten_usage",
    Base.metadata,
    Column("day", Date, primary_key=True),
    Column("model", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    *_amounts(USAGE),
)
forgotten_analytics = Table(
    "forgotten_analytics",
    Base.metadata,
    Column("date", Date, primary_key=True),
    Column("model", Text, primary_key=True),
    *_amounts(ANALYTICS),
)
