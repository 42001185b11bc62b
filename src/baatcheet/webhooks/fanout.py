"""From events to deliveries: who is told of what, with which body.

It runs in the relay's transaction, for a whole batch of events at once: an event that is relayed has its deliveries and
their jobs, and one whose transaction failed has none.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from baatcheet.events.model import Event, moment
from baatcheet.jobs.declaration import JobKind
from baatcheet.jobs.enqueueing import Order, enqueue_many
from baatcheet.kit.ids import new_id
from baatcheet.webhooks.payload import Delivery
from baatcheet.webhooks.policy import MAX_TEXT, cut, wants

# Held, so that none is deleted between here and its deliveries.
_ENDPOINTS = """
SELECT w.id, w.user_id, w.events, u.role = 'admin' AS admin FROM webhooks w JOIN users u ON u.id = w.user_id
WHERE w.active AND w.deleted_at IS NULL AND u.active AND {whose} ORDER BY w.id FOR KEY SHARE OF w
"""
_OF_USERS = text(_ENDPOINTS.format(whose="w.user_id = ANY(CAST(:users AS uuid[]))"))
_OF_ADMINS = text(_ENDPOINTS.format(whose="u.role = 'admin'"))
_TEXTS = text(
    "SELECT id, left(content, :most) AS content, octet_length(content) > :most AS longer "
    "FROM messages WHERE id = ANY(CAST(:ids AS uuid[]))"
)
_INSERT = text("""
INSERT INTO webhook_deliveries (id, webhook_id, user_id, message_id, event, body)
SELECT * FROM unnest(CAST(:ids AS uuid[]), CAST(:webhooks AS uuid[]), CAST(:users AS uuid[]), CAST(:messages AS uuid[]),
                     CAST(:events AS text[]), CAST(:bodies AS text[]))
ON CONFLICT (webhook_id, message_id) DO NOTHING
RETURNING id
""")

_MESSAGE = "message.created"
_DEAD = "job.dead"


@dataclass(frozen=True)
class Endpoint:
    """A webhook that is active now."""

    id: UUID
    user: UUID
    events: tuple[str, ...]
    admin: bool

    def gets(self, event: Event) -> bool:
        """Its owner's events; an administrator's also those that are nobody's, and every job that has died."""
        theirs = event.user == self.user or (self.admin and _is_for_admins(event))
        return theirs and wants(self.events, event.type)


@dataclass(frozen=True)
class Draft:
    """A delivery to be written."""

    id: UUID
    endpoint: Endpoint
    message_id: UUID
    event: str
    body: str


def _is_for_admins(event: Event) -> bool:
    """Whether administrators may be told of it, whoever they are."""
    return event.user is None or event.type == _DEAD


def body_of(type_: str, timestamp: str, data: Mapping[str, Any]) -> str:
    """What is sent of an event, in Standard Webhooks' form; kept, since what was signed must stay the same."""
    return msgspec.json.encode({"type": type_, "timestamp": timestamp, "data": data}).decode()


async def deliver_events(
    session: AsyncSession, events: Sequence[Event], kind: JobKind[Delivery, Any]
) -> None:
    """Write what is to be delivered of `events`, with its jobs, in a handful of statements.

    What is there already is left as it is.
    """
    wanted = _takers(await _endpoints(session, events), events)
    if not wanted:
        return
    texts = await _texts(session, [event for event, _ in wanted])
    drafts = []
    for event, takers in wanted:
        body = body_of(event.type, moment(event.at), event.data | texts.get(event.id, {}))
        drafts += [Draft(new_id(), taker, event.id, event.type, body) for taker in takers]
    columns = {
        "ids": [one.id for one in drafts],
        "webhooks": [one.endpoint.id for one in drafts],
        "users": [one.endpoint.user for one in drafts],
        "messages": [one.message_id for one in drafts],
        "events": [one.event for one in drafts],
        "bodies": [one.body for one in drafts],
    }
    written = set((await session.scalars(_INSERT, columns)).all())
    orders = [
        Order(Delivery(one.id), one.endpoint.user, subject=one.id, lane=one.endpoint.id)
        for one in drafts
        if one.id in written
    ]
    await enqueue_many(session, kind, orders)


def _takers(endpoints: Sequence[Endpoint], events: Sequence[Event]) -> list[tuple[Event, list[Endpoint]]]:
    """The events that somebody is told of, with those who are."""
    of_user: defaultdict[UUID | None, list[Endpoint]] = defaultdict(list)
    for one in endpoints:
        of_user[one.user].append(one)
    admins = [one for one in endpoints if one.admin]
    found = []
    for event in events:
        near = of_user.get(event.user, [])
        if _is_for_admins(event):
            near = near + [one for one in admins if one.user != event.user]
        if takers := [one for one in near if one.gets(event)]:
            found.append((event, takers))
    return found


async def _endpoints(session: AsyncSession, events: Sequence[Event]) -> list[Endpoint]:
    """The active ones of everybody whom `events` concern."""
    users = sorted({event.user for event in events if event.user is not None})
    found: dict[UUID, Endpoint] = {}
    queries = [(_OF_USERS, {"users": users})] if users else []
    if any(map(_is_for_admins, events)):
        queries.append((_OF_ADMINS, {}))
    for query, values in queries:
        for row in (await session.execute(query, values)).all():
            found[row.id] = Endpoint(row.id, row.user_id, tuple(row.events), row.admin)
    return list(found.values())


async def _texts(session: AsyncSession, events: Sequence[Event]) -> dict[UUID, dict[str, Any]]:
    """The messages' own words, by the event that tells of them; none of one that is deleted by now."""
    messages = {UUID(event.data["message_id"]): event.id for event in events if event.type == _MESSAGE}
    if not messages:
        return {}
    rows = (await session.execute(_TEXTS, {"ids": list(messages), "most": MAX_TEXT})).all()
    found: dict[UUID, dict[str, Any]] = {
        event: {"content": None, "truncated": False} for event in messages.values()
    }
    for row in rows:
        content, _ = cut(row.content)
        found[messages[row.id]] = {"content": content, "truncated": row.longer}
    return found
