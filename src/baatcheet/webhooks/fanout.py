"""From events to deliveries: who is told of what, with which body.

It runs in the relay's transaction, for a whole batch of events at once: an event that is relayed has its deliveries and
their jobs, and one whose transaction failed has none.

What one batch writes is bounded, since a long message goes to each of its owner's endpoints; and of that only a part is
in memory at a time.
"""

from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from baatcheet.events.model import Event, moment
from baatcheet.events.relay import TooMuch
from baatcheet.jobs.declaration import JobKind
from baatcheet.jobs.enqueueing import Order, enqueue_many
from baatcheet.kit.ids import new_id
from baatcheet.webhooks.payload import Delivery, lane_of
from baatcheet.webhooks.policy import MAX_TEXT, cut, wants

WRITTEN_AT_MOST = 16_000_000  # bytes about that a batch may write, unless one event alone is more
ROW_COST = 2_000  # bytes about that a delivery takes beside its body, with its job and their indexes
SENT_AT_ONCE = 4_000_000  # bytes of bodies, each counted once, after which a statement is full …
ROWS_AT_ONCE = 2_000  # … and deliveries
READ_AT_ONCE = 50  # messages whose texts are read ahead

# Held, so that none is deleted between here and its deliveries.
_ENDPOINTS = """
SELECT w.id, w.user_id, w.events, u.role = 'admin' AS admin FROM webhooks w JOIN users u ON u.id = w.user_id
WHERE w.active AND w.deleted_at IS NULL AND u.active AND {whose} ORDER BY w.id FOR KEY SHARE OF w
"""
_OF_USERS = text(_ENDPOINTS.format(whose="w.user_id = ANY(CAST(:users AS uuid[]))"))
_OF_ADMINS = text(_ENDPOINTS.format(whose="u.role = 'admin'"))
_SIZES = text(
    "SELECT m.id, least(octet_length(m.content), :most) AS size FROM messages m JOIN conversations c "
    "ON c.id = m.conversation_id AND c.deleted_at IS NULL WHERE m.id = ANY(CAST(:ids AS uuid[]))"
)
_TEXTS = text(
    "SELECT id, left(content, :most) AS content, octet_length(content) > :most AS longer "
    "FROM messages WHERE id = ANY(CAST(:ids AS uuid[]))"
)
_INSERT = text("""
INSERT INTO webhook_deliveries (id, webhook_id, user_id, message_id, event, body)
SELECT d.id, d.webhook, d.owner, m.id, m.event, m.body
FROM unnest(CAST(:ids AS uuid[]), CAST(:webhooks AS uuid[]), CAST(:users AS uuid[]), CAST(:places AS integer[]))
    AS d(id, webhook, owner, place)
JOIN unnest(CAST(:messages AS uuid[]), CAST(:events AS text[]), CAST(:bodies AS text[]))
    WITH ORDINALITY AS m(id, event, body, place) ON m.place = d.place
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
    lane: UUID

    def gets(self, event: Event) -> bool:
        """Its owner's events; an administrator's also those that are nobody's, and every job that has died."""
        theirs = event.user == self.user or (self.admin and _is_for_admins(event))
        return theirs and wants(self.events, event.type)


@dataclass(frozen=True)
class Draft:
    """An event's deliveries, to be written: one to each of the endpoints, with the same body."""

    event: Event
    takers: Sequence[Endpoint]
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
    """Write what is to be delivered of `events`, with its jobs, in a few statements.

    What is there already is left as it is. Raises TooMuch.
    """
    wanted = _takers(await _endpoints(session, events), events)
    if not wanted:
        return
    await _check_cost(session, events, wanted)
    part: list[Draft] = []
    size = rows = 0
    async for draft in _drafts(session, wanted):
        part.append(draft)
        size += len(draft.body)
        rows += len(draft.takers)
        if size >= SENT_AT_ONCE or rows >= ROWS_AT_ONCE:
            await _write(session, part, kind)
            part, size, rows = [], 0, 0
    await _write(session, part, kind)


async def _check_cost(
    session: AsyncSession, events: Sequence[Event], wanted: Sequence[tuple[Event, Sequence[Endpoint]]]
) -> None:
    """Raise TooMuch where more than the first event would make it more than a batch may write."""
    sizes = await _sizes(session, [event for event, _ in wanted])
    cost = 0
    for number, (event, takers) in enumerate(wanted):
        body = len(msgspec.json.encode(event.data)) + sizes.get(event.id, 0)
        cost += len(takers) * (ROW_COST + body)
        if number and cost > WRITTEN_AT_MOST:
            raise TooMuch(events.index(event))


async def _drafts(
    session: AsyncSession, wanted: Sequence[tuple[Event, Sequence[Endpoint]]]
) -> AsyncIterator[Draft]:
    """Each is made when it is asked for."""
    for first in range(0, len(wanted), READ_AT_ONCE):
        near = wanted[first : first + READ_AT_ONCE]
        texts = await _texts(session, [event for event, _ in near])
        for event, takers in near:
            data = event.data | texts.pop(event.id, {})
            yield Draft(event, takers, body_of(event.type, moment(event.at), data))


async def _write(session: AsyncSession, drafts: Sequence[Draft], kind: JobKind[Delivery, Any]) -> None:
    rows = [(new_id(), taker, place) for place, draft in enumerate(drafts, start=1) for taker in draft.takers]
    if not rows:
        return
    columns = {
        "ids": [id_ for id_, _, _ in rows],
        "webhooks": [taker.id for _, taker, _ in rows],
        "users": [taker.user for _, taker, _ in rows],
        "places": [place for _, _, place in rows],
        "messages": [draft.event.id for draft in drafts],
        "events": [draft.event.type for draft in drafts],
        "bodies": [draft.body for draft in drafts],
    }
    written = set((await session.scalars(_INSERT, columns)).all())
    orders = [
        Order(Delivery(id_), taker.user, subject=id_, lane=taker.lane)
        for id_, taker, _ in rows
        if id_ in written
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
        places: Counter[UUID] = Counter()
        for row in (await session.execute(query, values)).all():
            lane = lane_of(row.user_id, places[row.user_id])
            places[row.user_id] += 1
            found[row.id] = Endpoint(row.id, row.user_id, tuple(row.events), row.admin, lane)
    return list(found.values())


def _messages(events: Sequence[Event]) -> dict[UUID, UUID]:
    """The messages that are told of as new, each with its event."""
    return {UUID(event.data["message_id"]): event.id for event in events if event.type == _MESSAGE}


async def _sizes(session: AsyncSession, events: Sequence[Event]) -> dict[UUID, int]:
    """Bytes of the messages' own words that are told, by the event that tells of them."""
    messages = _messages(events)
    if not messages:
        return {}
    rows = (await session.execute(_SIZES, {"ids": list(messages), "most": MAX_TEXT})).all()
    return {messages[row.id]: row.size for row in rows}


async def _texts(session: AsyncSession, events: Sequence[Event]) -> dict[UUID, dict[str, Any]]:
    """The messages' own words, by the event that tells of them; none of one that is deleted by now."""
    messages = _messages(events)
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
