"""Notifications as clients see them."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import ConfigDict, Field

from baatcheet.notifications.wording import Kind
from baatcheet.platform.rest import Body, Flag, Id, Out, Page, absent


class NotificationOut(Out):
    """Something that its user is told."""

    id: UUID
    kind: Kind
    title: str
    text: str
    link: str | None = Field(description="The API's address of what it is about.")
    times: int = Field(description="Of how many alike events it tells; `text` and `link` are the last one's.")
    read_at: datetime | None
    email_status: Literal["queued", "sent", "failed"] | None = Field(
        description="What became of its email; null: none is sent."
    )
    created_at: datetime
    updated_at: datetime = Field(description="When the last of its events was told.")


class NotificationPage(Page[NotificationOut]):
    """Notifications, newest first."""

    unread: int = Field(description="How many are unread in all.")


class MarkRead(Body):
    """Which to mark."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"up_to": "0190f3a2-7c1e-7d4b-9a51-3f0c2b8e6d10"}]}
    )

    up_to: Id | None = Field(
        None, description="The newest that was seen: what has come since stays unread. Absent: all."
    )


class MarkedRead(Out):
    """How many were marked, and how many are left."""

    marked: int
    unread: int


class PreferenceOut(Out):
    """Where one kind is told."""

    kind: Kind
    description: str
    in_app: bool
    email: bool


class PreferenceList(Out):
    """Every kind that this user may be told of."""

    data: list[PreferenceOut]
    email_available: bool = Field(
        description="Whether emails are sent at all: there is a mail server, and the user has an address."
    )


class PreferenceChanges(Body):
    """Where to tell this kind; what is left out stays."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"email": True}]})

    in_app: Flag = absent()
    email: Flag = absent()
