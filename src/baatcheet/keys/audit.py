"""Who did what to the keys: written in the transaction of what was done."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from baatcheet.keys.models import AuditEntry

Via = Literal["api", "console", "cli", "system"]


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts: a user by name, or the system itself; `address`: where they call from, where that is known."""

    name: str
    via: Via
    id: UUID | None = None
    address: str | None = None


SYSTEM: Final = Actor("baatcheet", "system")


def note(
    session: AsyncSession, actor: Actor, action: str, subject: str, detail: Mapping[str, Any] | None = None
) -> None:
    """Add an entry to the session's transaction.

    `action`: `key.rested`, `secret.read` …; `subject`: `groq/3f2a…`, a provider's name and a fingerprint, or a name
    alone. No key may be in `detail`.
    """
    session.add(
        AuditEntry(
            actor_id=actor.id,
            actor=actor.name,
            via=actor.via,
            address=actor.address,
            action=action,
            subject=subject,
            detail=dict(detail or {}),
        )
    )
