"""The tables of the job queue."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Double,
    ForeignKey,
    Index,
    Integer,
    SmallInteger,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from baatcheet.auth.models import Timestamp
from baatcheet.platform.database import Base

STATUSES = ("queued", "waiting", "running", "succeeded", "dead", "cancelled")
UNFINISHED = ("queued", "waiting", "running")
ENDED_BADLY = ("dead", "cancelled")
ENDED = (*ENDED_BADLY, "succeeded")

_NOW = func.clock_timestamp()


def _where(condition: str) -> dict[str, Any]:
    return {"postgresql_where": text(condition)}


class JobRow(Base):
    """A job: what a worker takes, and what its owner sees."""

    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint(f"status IN ({', '.join(repr(one) for one in STATUSES)})", name="status"),
        Index("idx_job_queued", "queue", "lane", text("priority DESC"), "id", **_where("status = 'queued'")),
        Index("idx_job_waiting", "due_at", **_where("status = 'waiting'")),
        Index("idx_job_running", "queue", "lane", "worker_id", **_where("status = 'running'")),
        Index(
            "uq_job_unfinished",
            "kind",
            "user_id",
            "unique_key",
            unique=True,
            postgresql_nulls_not_distinct=True,
            **_where("unique_key IS NOT NULL AND status IN ('queued', 'waiting', 'running')"),
        ),
        Index("idx_job_user", "user_id", "visible", text("id DESC")),
        Index("idx_job_subject", "subject_id", text("id DESC"), **_where("subject_id IS NOT NULL")),
        Index("idx_job_dead", "kind", text("id DESC"), **_where("status = 'dead'")),
        Index("idx_job_ended", "ended_at", **_where("ended_at IS NOT NULL")),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[UUID | None] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    kind: Mapped[str] = mapped_column(Text)
    queue: Mapped[str] = mapped_column(Text)
    lane: Mapped[UUID]
    priority: Mapped[int] = mapped_column(SmallInteger, server_default="0")
    status: Mapped[str] = mapped_column(Text, server_default="queued")
    visible: Mapped[bool] = mapped_column(Boolean, server_default="true")
    payload: Mapped[dict[str, Any]] = mapped_column(JSONB)
    unique_key: Mapped[str | None] = mapped_column(Text)
    subject_id: Mapped[UUID | None]
    attempts: Mapped[int] = mapped_column(Integer, server_default="0")
    max_attempts: Mapped[int] = mapped_column(Integer)
    due_at: Mapped[datetime] = mapped_column(Timestamp, server_default=_NOW)
    worker_id: Mapped[UUID | None]
    cancel_requested: Mapped[bool] = mapped_column(Boolean, server_default="false")
    progress: Mapped[int] = mapped_column(SmallInteger, server_default="0")
    phrase: Mapped[str | None] = mapped_column(Text)
    error: Mapped[str | None] = mapped_column(Text)
    failures: Mapped[list[dict[str, Any]]] = mapped_column(JSONB, server_default=text("'[]'"))
    result: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    created_at: Mapped[datetime] = mapped_column(Timestamp, server_default=_NOW)
    started_at: Mapped[datetime | None] = mapped_column(Timestamp)
    ended_at: Mapped[datetime | None] = mapped_column(Timestamp)


class JobQueue(Base):
    """What an administrator has said of a queue, and where its turn is."""

    __tablename__ = "job_queues"
    __table_args__ = (
        CheckConstraint("max_running > 0", name="max_running"),
        CheckConstraint("per_minute > 0", name="per_minute"),
    )

    name: Mapped[str] = mapped_column(Text, primary_key=True)
    paused: Mapped[bool] = mapped_column(Boolean, server_default="false")
    max_running: Mapped[int | None]
    per_minute: Mapped[int | None]
    allowance: Mapped[float] = mapped_column(Double, server_default="0")
    filled_at: Mapped[datetime] = mapped_column(Timestamp, server_default=_NOW)
    last_lane: Mapped[UUID | None]


class JobWorker(Base):
    """A worker's lease."""

    __tablename__ = "job_workers"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    host: Mapped[str] = mapped_column(Text)
    pid: Mapped[int]
    queues: Mapped[dict[str, int]] = mapped_column(JSONB)
    running: Mapped[int] = mapped_column(Integer, server_default="0")
    stopping: Mapped[bool] = mapped_column(Boolean, server_default="false")
    started_at: Mapped[datetime] = mapped_column(Timestamp, server_default=_NOW)
    seen_at: Mapped[datetime] = mapped_column(Timestamp, server_default=_NOW)


class JobSchedule(Base):
    """When a job comes by the clock."""

    __tablename__ = "job_schedules"

    name: Mapped[str] = mapped_column(Text, primary_key=True)
    kind: Mapped[str] = mapped_column(Text)
    cron: Mapped[str] = mapped_column(Text)
    paused: Mapped[bool] = mapped_column(Boolean, server_default="false")
    next_at: Mapped[datetime] = mapped_column(Timestamp)
    last_at: Mapped[datetime | None] = mapped_column(Timestamp)
    last_job_id: Mapped[UUID | None]
