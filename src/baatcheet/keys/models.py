"""Tables of providers' keys. None holds a key: each is known by its fingerprint."""

from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Date, DateTime, ForeignKey, Index, Text, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from baatcheet.kit.ids import new_id
from baatcheet.platform.database import Base

Timestamp = DateTime(timezone=True)


class ProviderKey(Base):
    """How a key fares. `id`: its fingerprint; `resting_until`: the provider asked to wait until then; `refused`: it was
    quarantined when it was retired.
    """

    __tablename__ = "provider_keys"
    __table_args__ = (
        CheckConstraint("state IN ('active', 'quarantined', 'retired')", name="state"),
        Index("idx_provider_keys_provider", "provider", "state"),
    )

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    provider: Mapped[str] = mapped_column(Text)
    hint: Mapped[str] = mapped_column(Text)
    store: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(Text, server_default="active")
    reason: Mapped[str | None] = mapped_column(Text)
    refused: Mapped[bool] = mapped_column(server_default=text("false"))
    resting_until: Mapped[datetime | None] = mapped_column(Timestamp)
    last_error: Mapped[str | None] = mapped_column(Text)
    last_error_at: Mapped[datetime | None] = mapped_column(Timestamp)
    last_used_at: Mapped[datetime | None] = mapped_column(Timestamp)
    added_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())
    retired_at: Mapped[datetime | None] = mapped_column(Timestamp)
    changed_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())


class KeyUsage(Base):
    """What a key was used for on one day (UTC). `granted`: requests that processes may make, made or not."""

    __tablename__ = "key_usage"
    __table_args__ = (Index("idx_key_usage_day", "day"),)

    key_id: Mapped[str] = mapped_column(ForeignKey("provider_keys.id", ondelete="CASCADE"), primary_key=True)
    day: Mapped[date] = mapped_column(Date, primary_key=True)
    granted: Mapped[int] = mapped_column(server_default=text("0"))
    requests: Mapped[int] = mapped_column(server_default=text("0"))
    tokens: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    errors: Mapped[int] = mapped_column(server_default=text("0"))


class KeyChanges(Base):
    """One row of counters: whoever changes the sets of keys, their states or the routes counts one up."""

    __tablename__ = "key_changes"
    __table_args__ = (CheckConstraint("single", name="single"),)

    single: Mapped[bool] = mapped_column(primary_key=True, server_default=text("true"))
    sets: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    states: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    routes: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))


class KeyWatcher(Base):
    """A process that uses keys: which change of the sets it has read, the keys that it picks from, and its requests
    under way with those that it picks no more.
    """

    __tablename__ = "key_watchers"

    process: Mapped[UUID] = mapped_column(primary_key=True)
    sets: Mapped[int] = mapped_column(BigInteger)
    holds: Mapped[list[str]] = mapped_column(JSONB, server_default=text("'[]'"))
    in_flight: Mapped[dict[str, int]] = mapped_column(JSONB, server_default=text("'{}'"))
    seen_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())


class KeyRotation(Base):
    """One replacement of a provider's keys, and how far it has come. One runs for a provider at a time."""

    __tablename__ = "key_rotations"
    __table_args__ = (
        CheckConstraint("outcome IN ('rotated', 'rolled_back', 'failed')", name="outcome"),
        Index("uq_key_rotations_running", "provider", unique=True, postgresql_where=text("outcome IS NULL")),
        Index("idx_key_rotations_started", text("started_at DESC")),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    provider: Mapped[str] = mapped_column(Text)
    key_id: Mapped[str | None] = mapped_column(Text)
    store: Mapped[str | None] = mapped_column(Text)
    step: Mapped[str] = mapped_column(Text)
    outcome: Mapped[str | None] = mapped_column(Text)
    detail: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'"))
    error: Mapped[str | None] = mapped_column(Text)
    started_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())
    ended_at: Mapped[datetime | None] = mapped_column(Timestamp)


class AuditEntry(Base):
    """Who did what, when, and from where."""

    __tablename__ = "audit_entries"
    __table_args__ = (
        CheckConstraint("via IN ('api', 'console', 'cli', 'system')", name="via"),
        Index("idx_audit_entries_subject", "subject", text("id DESC")),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())
    actor_id: Mapped[UUID | None]
    actor: Mapped[str] = mapped_column(Text)
    via: Mapped[str] = mapped_column(Text)
    address: Mapped[str | None] = mapped_column(Text)
    action: Mapped[str] = mapped_column(Text)
    subject: Mapped[str] = mapped_column(Text)
    detail: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'"))
