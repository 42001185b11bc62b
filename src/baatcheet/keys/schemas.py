"""Providers' keys as administrators send and see them. None of these has a field for a key."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import ConfigDict, Field

from baatcheet.keys.models import KeyRotation
from baatcheet.platform.rest import Body, Line, Moment, Out, Page

KeyId = Annotated[str, Field(pattern="^[0-9a-f]{32}$", examples=["3f0c2b8e6d103f0c2b8e6d103f0c2b8e"])]
Provider = Annotated[
    Line, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", examples=["groq"])
]
Reason = Annotated[Line, Field(min_length=1, max_length=300, examples=["seen in a log"])]


class KeyOut(Out):
    """A provider's key, and how it fares; never the key itself."""

    id: str = Field(description="Its fingerprint: an HMAC, 32 hexadecimal digits.")
    provider: str
    hint: str = Field(description="Up to four characters of each end.")
    store: str = Field(description="Where it comes from.")
    state: Literal["active", "resting", "quarantined", "retired"]
    reason: str | None = Field(description="Why it rests or is quarantined.")
    resting_until: datetime | None
    requests_today: int = Field(description="Since midnight UTC.")
    tokens_today: int
    errors_today: int
    requests_left: int | None = Field(description="Today; null: no limit is known.")
    last_error: str | None
    last_error_at: datetime | None
    last_used_at: datetime | None
    added_at: datetime = Field(description="When it was first seen here.")
    retired_at: datetime | None = Field(description="Since when no store has it any more.")
    age_days: int
    too_old: bool = Field(description="Whether it is older than BAATCHEET_KEY_MAX_AGE_DAYS.")
    next_rotation_at: datetime | None = Field(description="When it is to be replaced by itself; null: never.")


class KeyPage(Page[KeyOut]):
    """Keys, by provider, the oldest first."""


class Rest(Body):
    """How long a key is not to be used."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"until": "2027-01-31T12:00:00Z"}]})

    until: Moment
    reason: Reason | None = None


class Why(Body):
    """Why something is done; may be left out."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"reason": "seen in a log"}]})

    reason: Reason | None = None


class CheckOut(Out):
    """What a provider says of a key."""

    id: str
    provider: str
    hint: str
    verdict: Literal["good", "refused", "unknown"] = Field(description="unknown: it could not be asked.")
    words: str


class RefreshOut(Out):
    """The secret stores were read."""

    failing: dict[str, str] = Field(
        description="Stores that did not answer, and why. What they said last stays in force.",
        examples=[{"vault": "vault: https://vault.example.com:8200 can't be reached."}],
    )


class NewRotation(Body):
    """Whose keys are to be replaced."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"provider": "openrouter"}]})

    provider: Provider
    key_id: KeyId | None = Field(None, description="This one only; left out: all of them.")
    reason: Reason | None = None


class RotationOut(Out):
    """One replacement of a provider's keys, and how far it has come."""

    id: UUID
    provider: str
    key_id: str | None
    store: str | None
    step: Literal[
        "stage", "probe", "promote", "serve", "watch", "drain", "revoke", "verify",
        "undo", "roll_back", "withdraw",
    ]  # fmt: skip
    outcome: Literal["rotated", "rolled_back", "failed"] | None = Field(description="null: it is under way.")
    reason: str = Field(description="Why it was begun.")
    source: Literal["provisioner", "staged"] | None = Field(
        description="Where the new keys come from: the provider's own key API, or what an operator has staged."
    )
    new: list[str] = Field(description="What may be seen of the new keys.")
    replaced: list[str] = Field(description="What may be seen of the old ones.")
    revoked: list[str] = Field(description="Those of the old ones that were revoked at the provider.")
    to_revoke: list[str] = Field(description="Those that a person must revoke there.")
    notes: list[str]
    error: str | None = Field(description="What went wrong last, in words.")
    started_at: datetime
    updated_at: datetime
    ended_at: datetime | None

    @classmethod
    def of(cls, row: KeyRotation) -> "RotationOut":
        detail: dict[str, Any] = row.detail
        hints: dict[str, str] = detail.get("hints", {})

        def shown(name: str) -> list[str]:
            return [hints.get(key, key[:8]) for key in detail.get(name, [])]

        return cls.model_validate(
            {
                **{name: getattr(row, name) for name in _OF_ROW},
                "reason": detail.get("reason", ""),
                "source": detail.get("source"),
                "new": shown("fresh"),
                "replaced": shown("gone"),
                "revoked": shown("revoked"),
                "to_revoke": shown("by_hand"),
                "notes": detail.get("notes", []),
            }
        )


_OF_ROW = (
    "id", "provider", "key_id", "store", "step", "outcome", "error", "started_at", "updated_at", "ended_at",
)  # fmt: skip


class RotationPage(Page[RotationOut]):
    """Rotations, newest first."""


class AuditOut(Out):
    """Who did what, when, and from where."""

    id: UUID
    at: datetime
    actor_id: UUID | None = Field(description="The user; null: the system, or somebody at the command line.")
    actor: str
    via: Literal["api", "console", "cli", "system"]
    address: str | None
    action: str
    subject: str
    detail: dict[str, Any]


class AuditPage(Page[AuditOut]):
    """Entries of the audit, newest first."""
