"""Webhooks as clients send and see them."""

import re
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field

from baatcheet.events.catalogue import WEBHOOK_TYPES, expand
from baatcheet.platform.rest import Body, Flag, Line, Moment, Out, Page, Text, absent
from baatcheet.webhooks.models import message_name

Status = Literal["pending", "delivered", "failed", "cancelled"]
Ended = Literal["delivered", "failed", "cancelled"]
DisabledReason = Literal["owner", "failing", "gone"]

MOST_HEADERS = 20
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")
_VALUE = re.compile(r"[!-~]([ -~]{0,998}[!-~])?")
# What we set ourselves, what belongs to the connection and not to the request, and what would say something untrue.
_RESERVED = frozenset(
    {
        "host",
        "content-length",
        "content-type",
        "content-encoding",
        "transfer-encoding",
        "connection",
        "keep-alive",
        "te",
        "trailer",
        "upgrade",
        "expect",
        "accept-encoding",
        "user-agent",
        "date",
        "via",
        "forwarded",
    }
)
_RESERVED_PREFIXES = ("proxy-", "webhook-", "x-baatcheet-", "svix-", "x-forwarded-")


def _url(value: str) -> str:
    if "#" in value:
        raise ValueError("has a part after #, which is never sent")
    if " " in value:
        raise ValueError("has a blank in it; write %20")
    return value


def _events(value: list[str]) -> list[str]:
    for name in value:
        expand([name], WEBHOOK_TYPES)  # raises UnknownEventType, which is a ValueError with what there is
    return list(dict.fromkeys(value))


def _headers(value: dict[str, str]) -> dict[str, str]:
    seen: set[str] = set()
    for name, text in value.items():
        lower = name.lower()
        if not _TOKEN.fullmatch(name):
            raise ValueError(f"{name[:40]!r} is no header's name: up to 100 letters, digits and -")
        if lower in _RESERVED or lower.startswith(_RESERVED_PREFIXES):
            raise ValueError(f"{name} is set by the server and can't be yours")
        if lower in seen:
            raise ValueError(f"{name} is there twice")
        if not _VALUE.fullmatch(text):
            raise ValueError(
                f"the value of {name} must be 1 to 1,000 visible ASCII characters, blanks only between"
            )
        seen.add(lower)
    return value


Url = Annotated[
    Line,
    Field(
        min_length=1,
        max_length=2000,
        description="Where to: https://, unless the server's operator allows others.",
        examples=["https://example.com/hooks/baatcheet"],
    ),
    AfterValidator(_url),
]
Events = Annotated[
    list[Annotated[Line, Field(max_length=100)]],
    Field(
        min_length=1,
        max_length=100,
        description="Which events: types like `turn.completed`, groups like `turn.*`, or `*` for all.",
        examples=[["turn.*", "export.completed"]],
    ),
    AfterValidator(_events),
]
Headers = Annotated[
    dict[str, str],
    Field(
        max_length=MOST_HEADERS,
        description="Headers of your own, sent along; their values are not shown again.",
        examples=[{"Authorization": "Bearer of-your-own"}],
    ),
    AfterValidator(_headers),
]
Description = Annotated[Text, Field(max_length=1000)]


class WebhookOut(Out):
    """An endpoint that is told of events."""

    id: UUID
    url: str
    description: str
    events: list[str]
    header_names: list[str] = Field(
        description="Headers of your own that are sent along, without their values."
    )
    active: bool = Field(description="Whether anything is sent to it.")
    failing_since: datetime | None = Field(description="Since when nothing but failure has come back.")
    disabled_at: datetime | None
    disabled_reason: DisabledReason | None = Field(
        description="`owner`: you did; `failing`: it failed for days; `gone`: it answered 410."
    )
    created_at: datetime
    updated_at: datetime


class WebhookPage(Page[WebhookOut]):
    """Webhooks, newest first."""


class NewWebhook(Body):
    """A webhook to be made."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"url": "https://example.com/hooks/baatcheet", "events": ["turn.*", "export.completed"]}
            ]
        }
    )

    url: Url
    description: Description = ""
    events: Events = Field(default_factory=lambda: ["*"])
    headers: Headers = Field(default_factory=dict)
    active: Flag = True


class WebhookChanges(Body):
    """What to change of a webhook; what is left out stays."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"events": ["message.created"], "active": True}]}
    )

    url: Url = absent()
    description: Description = absent()
    events: Events = absent()
    headers: Headers = absent()
    active: Flag = absent(description="true: send again, and forget how long it has failed.")


class MadeWebhook(WebhookOut):
    """A new webhook."""

    secret: str | None = Field(
        description="What deliveries are signed with, shown this once: null when an Idempotency-Key is repeated."
    )


class RotatedSecret(Out):
    """A webhook's new secret. Until the moment of `previous_expires_at`, deliveries are signed with both."""

    webhook_id: UUID
    secret: str | None = Field(description="Shown this once: null when an Idempotency-Key is repeated.")
    previous_expires_at: datetime | None = Field(description="When the secret before it signs no more.")


class DeliveryOut(Out):
    """One event on its way to one webhook."""

    id: UUID = Field(description="The header `X-BaatCheet-Delivery-ID`.")
    webhook_id: UUID
    message_id: Annotated[
        str, BeforeValidator(lambda value: message_name(value) if isinstance(value, UUID) else value)
    ]
    event: str = Field(description="The event's type.")
    status: Status = Field(
        description="`pending` until it is `delivered`, has `failed` for the last time or was `cancelled`."
    )
    attempt_count: int
    response_status: int | None = Field(
        description="What was answered last; 0 when nothing was; null before the first attempt."
    )
    error: str | None = Field(description="Why the last attempt did not count.")
    next_attempt_at: datetime | None = Field(description="When it is tried again, at the earliest.")
    created_at: datetime
    ended_at: datetime | None


class DeliveryPage(Page[DeliveryOut]):
    """Deliveries, newest first."""


class AttemptOut(Out):
    """One POST."""

    number: int
    at: datetime
    duration_ms: int | None = Field(
        description="null while it lasts, or when its worker ended in the middle."
    )
    status: int = Field(description="0: no answer.")
    response: str = Field(description="The first 4,096 bytes of the answer's body.")
    error: str | None = Field(description="Why it did not count; null when it did.")


class DeliveryDetails(DeliveryOut):
    """A delivery with what is sent and every attempt."""

    body: str = Field(description="The request's body, which is what is signed.")
    attempts: list[AttemptOut]


class ReplayRange(Body):
    """Which deliveries to send again."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"since": "2027-01-31T12:00:00Z"}]})

    since: Moment = Field(description="Those that were made then or later,")
    until: Moment | None = Field(None, description="and before this moment.")
    status: Ended = Field("failed", description="Those that have ended so.")
    cursor: Annotated[str, Field(max_length=1024)] | None = Field(
        None, description="`next_cursor` of the answer before."
    )


class Replayed(Out):
    """How many deliveries are sent again. Ask again with `cursor=next_cursor` while `has_more`."""

    replayed: int
    next_cursor: str | None
    has_more: bool
