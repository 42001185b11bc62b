"""The context's hand-written statements, on the process's own pool.

The functions that they call run outside row-level security and take the tenant as an argument (migration 0004).
Every method raises DatabaseUnavailable when the database can't be reached in time.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from baatcheet.context.history import Bounds, StoredHistory, StoredSummary
from baatcheet.kit.ids import new_id
from baatcheet.platform.database import Database

MOST_CHARACTERS = 1_000_000  # of one message that are indexed: its beginning and its end
REACH = 20_000  # passages of one key that are gone through for the newest
MOST_HITS = 1_500  # of all keys of a question, a passage counted once for each key that it has
MOST_BYTES = 4_000_000  # of messages that are read at once; the first is, whatever it has


class Standing(msgspec.Struct, frozen=True):
    """A conversation as a turn would find it. `history` is None when the caller knows it already."""

    version: int
    title: str = ""
    system_prompt: str | None = None
    model: str | None = None
    head: UUID | None = None
    history: StoredHistory | None = None


class Hits(NamedTuple):
    """The passages that have any of the keys asked for: parallel sequences, and how far the path is indexed."""

    indexed: int  # depth of the newest message that is indexed; -1 when none is
    passages: int = 0  # on the path, up to there
    total_length: int = 0  # terms in them
    depths: Sequence[int] = ()
    parts: Sequence[int] = ()
    roles: Sequence[str] = ()
    times: Sequence[float] = ()  # Unix seconds
    lengths: Sequence[int] = ()  # terms
    signals: Sequence[int] = ()
    found: Sequence[int] = ()  # bit n: has the n-th key


class PathMessage(NamedTuple):
    """A message on the way to a head."""

    id: UUID
    branch_id: UUID
    depth: int
    role: str
    content: str
    whole: bool  # whether `content` is all of it
    tokens: int
    at: datetime


class PassageText(NamedTuple):
    """A passage as it was written."""

    message_id: UUID
    depth: int
    part: int
    parts: int
    role: str
    at: datetime
    text: str
    tokens: int
    signals: int


class PassageRow(msgspec.Struct, frozen=True):
    """A passage to be indexed. `content` is None when it is the whole message."""

    message_id: UUID
    branch_id: UUID
    depth: int
    part: int
    parts: int
    role: str
    length: int
    tokens: int
    signals: int
    ordinal: int
    total_length: int
    keys: list[int]
    created_at: datetime
    content: str | None = None


class Marker(NamedTuple):
    """How far a path is indexed, and how much there is up to there."""

    depth: int
    ordinal: int
    total_length: int


_STANDING = "SELECT context_of($1, $2, $3, $4, $5, $6::text::jsonb)::text"
_HITS = "SELECT * FROM recall_hits($1, $2, $3, $4, $5, $6, $7, $8)"
_MARKER = """
SELECT p.depth, p.ordinal, p.total_length FROM branch_path($1, $2, $3) c
CROSS JOIN LATERAL (
    SELECT p.depth, p.ordinal, p.total_length FROM recall_passages p
    WHERE p.branch_id = c.branch AND p.depth <= c.last ORDER BY p.depth DESC, p.part DESC LIMIT 1
) p ORDER BY p.depth DESC LIMIT 1
"""
_MESSAGES = """
SELECT m.id, m.branch_id, m.depth, m.role,
       CASE WHEN length(m.content) > $6
            THEN left(m.content, $6 / 2) || E'\\n…\\n' || right(m.content, $6 / 2)
            ELSE m.content END,
       length(m.content) <= $6, m.token_count, m.created_at
FROM (
    SELECT m.*, sum(octet_length(m.content)) OVER (ORDER BY m.depth) - octet_length(m.content) AS before
    FROM branch_path($1, $2, $3) c
    JOIN messages m ON m.branch_id = c.branch AND m.depth <= c.last AND m.depth BETWEEN $4 AND $5
) m
WHERE m.before <= $7
ORDER BY m.depth
"""
_SIZES = """
SELECT m.depth, m.token_count, m.role FROM branch_path($1, $2, $3) c
JOIN messages m ON m.branch_id = c.branch AND m.depth <= c.last AND m.depth BETWEEN $4 AND $5
ORDER BY m.depth
"""
_ADD_PASSAGES = """
WITH talk AS (  -- held, so that it is not deleted before its passages are there
    SELECT c.id FROM conversations c WHERE c.id = $1 AND c.user_id = $2 FOR KEY SHARE
)
INSERT INTO recall_passages (conversation_id, user_id, message_id, branch_id, depth, part, parts, role, length, tokens,
                             signals, ordinal, total_length, keys, content, created_at)
SELECT $1, $2, p.message_id, p.branch_id, p.depth, p.part, p.parts, p.role, p.length, p.tokens, p.signals, p.ordinal,
       p.total_length, p.keys, p.content, p.created_at
FROM jsonb_to_recordset($3::text::jsonb) AS p(
    message_id uuid, branch_id uuid, depth integer, part integer, parts integer, role text, length integer,
    tokens integer, signals integer, ordinal bigint, total_length bigint, keys bigint[], content text,
    created_at timestamptz), talk
ON CONFLICT DO NOTHING
"""
_TEXTS = """
SELECT p.message_id, p.depth, p.part, p.parts, p.role, p.created_at, coalesce(p.content, m.content), p.tokens, p.signals
FROM branch_path($1, $2, $3) c
JOIN unnest($4::integer[], $5::integer[]) AS w(depth, part) ON w.depth <= c.last
JOIN recall_passages p ON p.branch_id = c.branch AND p.depth = w.depth AND p.part = w.part
LEFT JOIN messages m ON m.id = p.message_id AND p.content IS NULL
WHERE p.user_id = $1
"""
_SUMMARY = """
SELECT json_build_object('last', s.depth, 'sections', s.sections, 'made_by', s.made_by)::text
FROM branch_path($1, $2, $3) c
CROSS JOIN LATERAL (
    SELECT s.* FROM context_summaries s WHERE s.branch_id = c.branch AND s.depth <= least(c.last, $4)
    ORDER BY s.depth DESC LIMIT 1
) s ORDER BY s.depth DESC LIMIT 1
"""
_ADD_SUMMARY = """
WITH talk AS (
    SELECT c.id FROM conversations c WHERE c.id = $2 AND c.user_id = $3 FOR NO KEY UPDATE
), made AS (
    INSERT INTO context_summaries (id, conversation_id, user_id, upto_id, branch_id, depth, sections, made_by)
    SELECT $1, $2, $3, $4, $5, $6, $7::text::jsonb, $8 FROM talk
    ON CONFLICT (upto_id) DO NOTHING RETURNING conversation_id
)
UPDATE conversations c SET context_version = c.context_version + 1 FROM made WHERE c.id = made.conversation_id
RETURNING c.context_version
"""


class ContextStore:
    """Histories, passages and summaries of one tenant's conversation at a time."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def standing(
        self,
        user: UUID,
        conversation: UUID,
        *,
        bounds: Bounds,
        head: UUID | None = None,
        known: tuple[UUID | None, int] = (None, 0),
    ) -> Standing | None:
        """The conversation at `head` (None: its own), without what the caller knows; None when it is not theirs."""
        wanted = msgspec.json.encode(bounds).decode()
        async with self._db.hot() as connection:
            found = await connection.fetchval(_STANDING, user, conversation, head, *known, wanted)
        return msgspec.json.decode(found, type=Standing) if found is not None else None

    async def hits(
        self,
        user: UUID,
        conversation: UUID,
        head: UUID,
        *,
        before: int,
        keys: Sequence[int],
        caps: Sequence[int],
        newest: bool = False,
    ) -> Hits:
        """The passages above depth `before` that have any of `keys`: at most `caps` of each, or the newest of them."""
        async with self._db.hot() as connection:
            row = await connection.fetchrow(
                _HITS,
                user,
                conversation,
                head,
                before,
                list(keys),
                list(caps),
                REACH if newest else 0,
                MOST_HITS,
            )
        indexed, passages, total, *columns = row
        return Hits(
            indexed if indexed is not None else -1,
            passages or 0,
            total or 0,
            *[column if column is not None else () for column in columns],
        )

    async def texts(
        self, user: UUID, conversation: UUID, head: UUID, places: Sequence[tuple[int, int]]
    ) -> list[PassageText]:
        """The passages at `places`, which are pairs of depth and part, as far as they are there."""
        depths, parts = [depth for depth, _ in places], [part for _, part in places]
        async with self._db.hot() as connection:
            rows = await connection.fetch(_TEXTS, user, conversation, head, depths, parts)
        return [PassageText(*row) for row in rows]

    async def marker(self, user: UUID, conversation: UUID, head: UUID) -> Marker:
        """How far the way to `head` is indexed."""
        async with self._db.hot() as connection:
            row = await connection.fetchrow(_MARKER, user, conversation, head)
        return Marker(*row) if row is not None else Marker(-1, 0, 0)

    async def messages(
        self, user: UUID, conversation: UUID, head: UUID, first: int, last: int
    ) -> list[PathMessage]:
        """The messages on the way to `head` from depth `first` on, to `last` at most.

        A very long one comes without its middle, and of many long ones only the first few come.
        """
        async with self._db.hot() as connection:
            rows = await connection.fetch(
                _MESSAGES, user, conversation, head, first, last, MOST_CHARACTERS, MOST_BYTES
            )
        return [PathMessage(*row) for row in rows]

    async def sizes(
        self, user: UUID, conversation: UUID, head: UUID, first: int, last: int
    ) -> list[tuple[int, int, str]]:
        """Depth, tokens and role of the same messages."""
        async with self._db.hot() as connection:
            rows = await connection.fetch(_SIZES, user, conversation, head, first, last)
        return [tuple(row) for row in rows]

    async def add_passages(self, user: UUID, conversation: UUID, rows: Sequence[PassageRow]) -> None:
        """Index `rows`; those that are there stay as they are."""
        async with self._db.hot() as connection:
            await connection.execute(_ADD_PASSAGES, conversation, user, msgspec.json.encode(rows).decode())

    async def summary(self, user: UUID, conversation: UUID, head: UUID, *, upto: int) -> StoredSummary | None:
        """The newest summary on the way to `head` that reaches no deeper than `upto`."""
        async with self._db.hot() as connection:
            found = await connection.fetchval(_SUMMARY, user, conversation, head, upto)
        return msgspec.json.decode(found, type=StoredSummary) if found is not None else None

    async def add_summary(
        self, user: UUID, conversation: UUID, last: PathMessage, summary: StoredSummary
    ) -> bool:
        """Keep what covers everything up to `last`. False when somebody has been faster, or it is all gone."""
        sections: Any = msgspec.json.encode(summary.sections).decode()
        async with self._db.hot() as connection:
            made = await connection.fetchval(
                _ADD_SUMMARY,
                new_id(),
                conversation,
                user,
                last.id,
                last.branch_id,
                last.depth,
                sections,
                summary.made_by,
            )
        return made is not None
