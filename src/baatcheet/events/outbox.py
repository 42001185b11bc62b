"""Recording what has happened, in the transaction in which it happens."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from baatcheet.events.catalogue import TYPES, UnknownEventType
from baatcheet.kit.text import storable_json

# No RETURNING: a tenant may write what it tells, and read nothing.
_RECORD = text(
    "INSERT INTO outbox (user_id, type, conversation_id, data) "
    "VALUES (:user, :type, :conversation, CAST(:data AS jsonb))"
)


async def record(
    session: AsyncSession,
    type: str,  # noqa: A002 - what it is
    data: Mapping[str, Any],
    *,
    user: UUID | None,
    conversation: UUID | None = None,
) -> None:
    """Tell that something has happened: if and only if `session` commits, the event is relayed, once.

    `data` is a small JSON object, ids and moments included; no secret, no text of a message. `user` None: for
    administrators, and then `session` is the system's. Events of one conversation are relayed in the order of
    their recording as far as their transactions committed in it.

    Raises UnknownEventType for a type that is not in the catalogue.
    """
    kind = TYPES.get(type)
    if kind is None:
        raise UnknownEventType(f"{type!r} is not in baatcheet.events.catalogue: events are declared there")
    if kind.admin and user is not None:
        raise ValueError(f"{type} is told to administrators: it is no user's own")
    plain = storable_json(msgspec.to_builtins(dict(data), str_keys=True))
    await session.execute(
        _RECORD,
        {
            "user": user,
            "type": type,
            "conversation": conversation,
            "data": msgspec.json.encode(plain).decode(),
        },
    )
