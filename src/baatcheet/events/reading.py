"""Reading relayed events: what is new for all who follow here at once, and the past of those who begin with it."""

from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

from baatcheet.auth.principal import DEFAULT_SCOPES
from baatcheet.events.following import Told
from baatcheet.kit.batching import Batcher
from baatcheet.platform.database import Database, DatabaseUnavailable

NEWS = 500  # events that are read at once
PAGE = 100  # events of the past that one follower reads at once
ASKED_TOGETHER = 32  # followers whose past is read in one statement
_LAST = 2**63 - 1

_NEWS = """
WITH head AS MATERIALIZED (SELECT coalesce(max(seq), 0) AS seq FROM events)
SELECT h.seq AS head, e.seq, e.id, e.user_id, e.type, e.data::text AS data, e.created_at
FROM head h LEFT JOIN LATERAL (
    SELECT * FROM events WHERE seq > $1 AND ($2 OR user_id = ANY($3::uuid[])) ORDER BY seq LIMIT $4
) e ON true
ORDER BY e.seq
"""
_HEAD = "SELECT coalesce(max(seq), 0) FROM events"
# Of all types: to look for a rare one through all that is kept would hold up those who are read together with it.
# Events up to the horizon that are still there are remains: whoever needs them is told so.
_PAGES = """
SELECT p.place, h.seq AS horizon, coalesce(pg_sequence_last_value('events_seq_seq'), 0) AS given,
       coalesce((SELECT max(seq) FROM events), 0) AS head, e.seq, e.id, e.user_id, e.type, e.data, e.created_at
FROM unnest($1::int[], $2::uuid[], $3::bigint[], $4::bigint[]) AS p(place, owner, after, upto)
CROSS JOIN (SELECT max(seq) AS seq FROM event_horizon) h
LEFT JOIN LATERAL (
    SELECT e.seq, e.id, e.user_id, e.type, e.data::text AS data, e.created_at FROM events e
    WHERE {whose} e.seq > greatest(p.after, h.seq) AND e.seq <= p.upto
    ORDER BY e.seq LIMIT $5
) e ON true
ORDER BY p.place, e.seq
"""
_PAGES_OF_USERS = _PAGES.format(whose="e.user_id = p.owner AND")
_PAGES_OF_ALL = _PAGES.format(whose="")
_GOOD_TOKENS = """
SELECT t.id, u.role, t.scopes FROM api_tokens t JOIN users u ON u.id = t.user_id
WHERE t.id = ANY($1::uuid[]) AND t.revoked_at IS NULL AND u.active
  AND (t.expires_at IS NULL OR t.expires_at > clock_timestamp())
UNION ALL
SELECT i.id, u.role, NULL FROM user_identities i JOIN users u ON u.id = i.user_id
WHERE i.id = ANY($1::uuid[]) AND u.active
"""


class Past(NamedTuple):
    """What one follower asks of the past: its events after `after`, up to `upto`."""

    user: UUID
    everything: bool
    after: int
    upto: int = _LAST


class Page(NamedTuple):
    """Some of it, in order. `more`: there may be more of it.

    Up to `horizon`, events have been forgotten. `given` is the highest number that was ever given out, `head` the
    highest that is there.
    """

    events: list[Told]
    more: bool
    horizon: int
    given: int
    head: int


class Events:
    """The relayed events. Every method raises DatabaseUnavailable."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._pages: Batcher[Past, Page] = Batcher(
            self._read_pages, max_items=ASKED_TOGETHER, shared=(DatabaseUnavailable,)
        )

    async def head(self) -> int:
        """The highest number that is there."""
        async with self._db.hot() as connection:
            return int(await connection.fetchval(_HEAD))

    async def news(
        self, after: int, users: Sequence[UUID], *, everything: bool
    ) -> tuple[list[Told], int, bool]:
        """The events after `after` of `users`, or of all; up to which number these are all; whether more follow."""
        async with self._db.hot() as connection:
            rows = await connection.fetch(_NEWS, after, everything, users, NEWS)
        events = _told(rows)
        more = len(events) == NEWS
        return events, events[-1].seq if more else rows[0]["head"], more

    async def past(self, asked: Past) -> Page:
        """A page of the past. Those of several followers who ask at once are read together."""
        return await self._pages.submit(asked)

    async def good_tokens(self, tokens: Sequence[UUID]) -> dict[UUID, frozenset[str]]:
        """Those of `tokens` that still let their holders in, each with its scopes. Of an identity at a provider: whose
        user is still there and active.
        """
        async with self._db.hot() as connection:
            rows = await connection.fetch(_GOOD_TOKENS, tokens)
        return {
            id_: DEFAULT_SCOPES[role] if scopes is None else frozenset(scopes) & DEFAULT_SCOPES[role]
            for id_, role, scopes in rows
        }

    async def _read_pages(self, asked: Sequence[Past]) -> list[Page | Exception]:
        pages: dict[int, Page] = {}
        async with self._db.hot() as connection:
            for everything, statement in ((False, _PAGES_OF_USERS), (True, _PAGES_OF_ALL)):
                places = [place for place, one in enumerate(asked) if one.everything is everything]
                if places:
                    these = [asked[place] for place in places]
                    rows = await connection.fetch(
                        statement,
                        places,
                        [one.user for one in these],
                        [one.after for one in these],
                        [one.upto for one in these],
                        PAGE,
                    )
                    pages |= _pages(rows)
        return [pages[place] for place in range(len(asked))]


def _pages(rows: Sequence[Any]) -> dict[int, Page]:
    found: dict[int, list[Any]] = {}
    for row in rows:
        found.setdefault(row["place"], []).append(row)
    return {place: Page(_told(mine), len(mine) == PAGE, *mine[0][1:4]) for place, mine in found.items()}


def _told(rows: Sequence[Any]) -> list[Told]:
    return [
        Told(row["seq"], row["id"], row["user_id"], row["type"], row["data"], row["created_at"])
        for row in rows
        if row["seq"] is not None
    ]
