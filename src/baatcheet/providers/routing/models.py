"""The table of routes."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, DateTime, Text, func
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Mapped, mapped_column

from baatcheet.platform.database import Base
from baatcheet.providers.routing.model import NAME

Timestamp = DateTime(timezone=True)


class RouteRow(Base):
    """A route that an operator has made. `steps`: a list of `{"model": …, "weight": …}`."""

    __tablename__ = "routes"
    __table_args__ = (
        CheckConstraint(f"name ~ '{NAME}'", name="name"),
        CheckConstraint("strategy IN ('ordered', 'weighted', 'fastest', 'cheapest')", name="strategy"),
        CheckConstraint(
            "tasks <@ ARRAY['chat', 'vision', 'ocr', 'transcription'] AND tasks <> '{}'", name="tasks"
        ),
        CheckConstraint("jsonb_typeof(steps) = 'array'", name="steps"),
    )

    name: Mapped[str] = mapped_column(Text, primary_key=True)
    description: Mapped[str] = mapped_column(Text, server_default="")
    strategy: Mapped[str] = mapped_column(Text)
    tasks: Mapped[list[str]] = mapped_column(ARRAY(Text))
    steps: Mapped[list[dict[str, Any]]] = mapped_column(JSONB)
    created_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())
