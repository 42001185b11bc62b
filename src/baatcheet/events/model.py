"""An event, as the relay hands it on."""

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec


class Event(msgspec.Struct, frozen=True):
    """Something that has happened.

    `seq` numbers all events in the order of their relaying; `id` names it to the outside, the same wherever it
    is told. `user` None: it is nobody's own, and for administrators. `at` is when it happened.
    """

    seq: int
    id: UUID
    user: UUID | None
    type: str
    conversation: UUID | None
    data: dict[str, Any]
    at: datetime

    def envelope(self) -> dict[str, Any]:
        """What is told of it, in the form of Standard Webhooks: `id`, `type`, `timestamp`, `data`."""
        return {"id": str(self.id), "type": self.type, "timestamp": moment(self.at), "data": self.data}


def moment(at: datetime) -> str:
    """A time as events tell it: ISO 8601 with its zone, UTC as Z."""
    return at.isoformat().replace("+00:00", "Z")
