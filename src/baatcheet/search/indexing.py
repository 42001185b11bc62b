"""Moving fresh documents into segments, merging these, and taking out of them what was deleted.

Nothing is locked while texts are analysed. What was read is put in its place in one transaction that first takes away
all that it was made of; where some of that is no longer there, somebody else was faster: nothing is written, and it is
made again. Killed anywhere, a worker leaves a document either fresh or in a segment.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final, NamedTuple, cast
from uuid import UUID

import asyncpg
import numpy as np
from numpy.typing import NDArray

from baatcheet.kit.pagination import moment_of
from baatcheet.platform.database import Database, DatabaseUnavailable
from baatcheet.platform.logging import get_logger
from baatcheet.search.postings import Chunk
from baatcheet.search.segments import (
    BLOCK,
    FULL,
    HEAVY,
    SMALLEST,
    TITLE,
    Builder,
    Columns,
    Segment,
    columns_of,
    merge,
    part_of_title,
    read,
    to_merge,
)
from baatcheet.search.terms import analyse, pieces

log = get_logger(__name__)

FEW: Final = 16  # fresh documents that a query may as well analyse itself …
SOON: Final = 5.0  # … for so many seconds
PAUSE: Final = 1.0  # seconds between two looks for what is fresh
MUCH: Final = 2_000  # fresh documents of one user, from which on this takes more than a moment
CLEAN_EVERY: Final = 20.0  # seconds between two looks for what was deleted
BATCH: Final = 1_000  # fresh rows that are read at once …
BATCH_BYTES: Final = 4_000_000  # … or fewer, with so much text; one message is, whatever it has
LEASE: Final = 30.0  # seconds for which a worker has a user to itself; it asks again before they have passed
LIMIT: Final = 60.0  # seconds for one transaction
MOST_BYTES: Final = 32_000_000  # of longer messages' pieces that one transaction writes
AFTER_WAITING: Final = 10.0  # seconds until a user whose rows could not be had in time has another turn
AFTER_FAILURE: Final = 60.0  # seconds until a user whose indexing failed has another turn
TRIES: Final = 20  # times that `catch_up` begins again because somebody was faster

# Their own: nobody's work waits behind this. Two, so that little does not wait for much.
_threads = ThreadPoolExecutor(2, thread_name_prefix="search-index")

_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('baatcheet.search:' || $1::uuid::text, 0))"
# Those with more than $1 fresh documents, or one for more than $2 seconds; with more than $3, or fewer, as $4 says.
_DUE = """
WITH RECURSIVE u AS (
    (SELECT f.user_id FROM search_fresh f ORDER BY f.user_id LIMIT 1)
    UNION ALL
    SELECT (SELECT f.user_id FROM search_fresh f WHERE f.user_id > u.user_id ORDER BY f.user_id LIMIT 1)
    FROM u WHERE u.user_id IS NOT NULL
)
SELECT u.user_id
FROM u CROSS JOIN LATERAL (
    SELECT f.kind, f.created_at FROM search_fresh f WHERE f.user_id = u.user_id ORDER BY f.place LIMIT 1
) first
WHERE (EXISTS (SELECT FROM search_fresh f WHERE f.user_id = u.user_id OFFSET $1)
       OR first.created_at < clock_timestamp() - make_interval(secs => $2))
  AND (first.kind = 'everything' OR EXISTS (SELECT FROM search_fresh f WHERE f.user_id = u.user_id OFFSET $3)) = $4
"""
_TO_CLEAN = "SELECT DISTINCT user_id FROM search_removed"
_LEASE = """
INSERT INTO search_leases (user_id, until)
SELECT u.id, clock_timestamp() + make_interval(secs => $2)
FROM (SELECT u.id FROM users u WHERE u.id = $1 FOR KEY SHARE SKIP LOCKED) u  -- who is being deleted is not waited for
ON CONFLICT (user_id) DO UPDATE SET until = excluded.until WHERE search_leases.until < clock_timestamp()
RETURNING user_id
"""
_RENEW = "UPDATE search_leases SET until = clock_timestamp() + make_interval(secs => $2) WHERE user_id = $1"
_RELEASE = "DELETE FROM search_leases WHERE user_id = $1"
_EVERYTHING = """
WITH marker AS (
    DELETE FROM search_fresh f WHERE f.user_id = $1 AND f.kind = 'everything' RETURNING f.user_id
), mine AS (
    SELECT c.id, c.title FROM conversations c WHERE c.user_id = $1 AND EXISTS (SELECT FROM marker)
)
INSERT INTO search_fresh (user_id, kind, id, conversation_id)
SELECT $1, d.kind, d.id, d.talk
FROM (
    SELECT 'message' AS kind, m.id, m.conversation_id AS talk, m.created_at
    FROM mine JOIN messages m ON m.conversation_id = mine.id WHERE m.content <> ''
    UNION ALL
    SELECT 'title', mine.id, mine.id, NULL FROM mine WHERE mine.title <> ''
) d
WHERE NOT EXISTS (
    SELECT FROM search_fresh f WHERE f.user_id = $1 AND f.kind = d.kind AND f.id = d.id
)
ORDER BY d.created_at
"""
_MARKED = "SELECT true FROM search_fresh f WHERE f.user_id = $1 AND f.kind = 'everything' LIMIT 1"
_FRESH = """
SELECT f.place, f.kind, f.id, f.talk, f.created_at, f.role, f.model,
       CASE WHEN f.kind = 'title' THEN f.title ELSE m.content END
FROM (
    SELECT f.*, sum(coalesce(f.size, 0)) OVER (ORDER BY f.place) - coalesce(f.size, 0) AS before
    FROM (
        SELECT f.place, f.kind, f.id, c.id AS talk, coalesce(m.created_at, c.created_at) AS created_at, m.role,
               m.model, c.title, octet_length(m.content) AS size
        FROM (SELECT f.* FROM search_fresh f
              WHERE f.user_id = $1 AND f.place > $2 AND f.kind <> 'everything' ORDER BY f.place LIMIT $3) f
        LEFT JOIN conversations c ON c.id = f.conversation_id AND c.user_id = $1
        LEFT JOIN messages m ON f.kind = 'message' AND m.id = f.id AND m.conversation_id = c.id AND m.user_id = $1
    ) f
) f LEFT JOIN messages m ON f.kind = 'message' AND m.id = f.id AND f.size IS NOT NULL
WHERE f.before <= $4
ORDER BY f.place
"""
_SIZES = "SELECT segment, count, occurrences FROM search_segments WHERE user_id = $1 ORDER BY segment"
_SEGMENT = """
SELECT s.created, s.conversations, s.conversation_ids,
       (SELECT string_agg(i.ids, '' ORDER BY i.block) FROM (
            SELECT d.block, (SELECT string_agg(uuid_send(e.id), '' ORDER BY e.n)
                             FROM unnest(d.ids) WITH ORDINALITY AS e(id, n)) AS ids
            FROM search_documents d WHERE d.user_id = s.user_id AND d.segment = s.segment
        ) i) AS ids,
       ARRAY(SELECT e.part FROM search_documents d CROSS JOIN unnest(d.parts) WITH ORDINALITY AS e(part, n)
             WHERE d.user_id = s.user_id AND d.segment = s.segment ORDER BY d.block, e.n) AS parts
FROM search_segments s WHERE s.user_id = $1 AND s.segment = $2
"""
_CHUNKS = """
SELECT first, payload FROM search_terms
WHERE user_id = $1 AND segment = $2 AND first > $3 COLLATE "C" ORDER BY first LIMIT 4000
"""
_TITLES = "SELECT id, title FROM conversations WHERE user_id = $1 AND id = ANY($2::uuid[])"
_TAKE_FRESH = "DELETE FROM search_fresh WHERE user_id = $1 AND place = ANY($2::bigint[])"
_TAKE_SEGMENTS = "DELETE FROM search_segments WHERE user_id = $1 AND segment = ANY($2::bigint[])"
_GONE = """
SELECT true FROM unnest($2::uuid[]) AS w(id)
WHERE NOT EXISTS (SELECT FROM conversations c WHERE c.id = w.id AND c.user_id = $1) LIMIT 1
"""
_ADD_SEGMENT = """
INSERT INTO search_segments (user_id, segment, count, occurrences, oldest, newest, created, conversations,
                             conversation_ids)
VALUES ($1, nextval('search_segment_seq'), $2, $3, $4, $5, $6, $7, $8) RETURNING segment
"""
_ADD_PIECES = """
INSERT INTO search_pieces (message_id, part, user_id, content)
SELECT m.id, p.part, $1, p.content
FROM unnest($2::uuid[], $3::integer[], $4::text[]) AS p(message_id, part, content)
JOIN (SELECT m.id FROM messages m WHERE m.id = ANY($2::uuid[]) AND m.user_id = $1 ORDER BY m.id FOR KEY SHARE) m
    ON m.id = p.message_id
ON CONFLICT DO NOTHING
"""
_REMOVED = "SELECT conversation_id FROM search_removed WHERE user_id = $1"
_CONVERSATIONS = "SELECT segment, conversation_ids FROM search_segments WHERE user_id = $1"
_CLEANED = "DELETE FROM search_removed WHERE user_id = $1 AND conversation_id = ANY($2::uuid[])"
_USER = "SELECT id FROM users WHERE id = $1"


class Overtaken(Exception):
    """What was read has changed before something made of it could be written."""


class _Piece(NamedTuple):
    message_id: UUID
    part: int
    content: str


class Indexer:
    """Keeps the index of every user up to date. Any number of processes may run one."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._not_before: dict[UUID, float] = {}

    async def run(self) -> None:
        """Index until cancelled. A database that is away is waited for.

        Users with much to do, and deletions, are looked after beside the others, who wait for neither.
        """
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep(lambda: self._users(_DUE, FEW, SOON, MUCH, False)))
            tasks.create_task(self._keep(lambda: self._users(_DUE, FEW, SOON, MUCH, True)))
            tasks.create_task(self._keep(lambda: self._users(_TO_CLEAN), cleaning=True))

    async def _keep(self, due: Callable[[], Awaitable[list[UUID]]], *, cleaning: bool = False) -> None:
        away = False
        while True:
            try:
                for user in await due():
                    await self._look_after(user, cleaning=cleaning)
                away = False
            except DatabaseUnavailable:
                if not away:
                    log.warning("search.indexing_waits")
                away = True
            # Several workers look at different moments.
            pause = CLEAN_EVERY if cleaning else PAUSE
            await asyncio.sleep(pause * random.uniform(0.75, 1.25))  # noqa: S311

    async def catch_up(self, user: UUID) -> None:
        """Move all that is fresh of `user` into segments, merge these, and take out what was deleted.

        Raises DatabaseUnavailable.
        """
        await self._repeat(self._flush, user)
        await self._repeat(self._clean, user)
        await self._repeat(self._merge, user)

    async def _users(self, statement: str, *arguments: Any) -> list[UUID]:
        async with self._db.hot() as connection:
            return [row[0] for row in await connection.fetch(statement, *arguments)]

    async def _look_after(self, user: UUID, *, cleaning: bool = False) -> None:
        """Do what there is to do for `user`, unless another worker is at it. What fails does not stop the others."""
        loop = asyncio.get_running_loop()
        if self._not_before.get(user, 0.0) > loop.time():
            return
        self._not_before.pop(user, None)
        leased = False
        try:
            async with self._db.hot() as connection:
                leased = await connection.fetchval(_LEASE, user, LEASE) is not None
            if not leased:
                return
            await self._repeat(self._flush, user)
            if cleaning:
                await self._repeat(self._clean, user)
            await self._repeat(self._merge, user)
        except DatabaseUnavailable:
            # Somebody may hold what is this user's for long: the others are looked at first.
            self._not_before[user] = loop.time() + AFTER_WAITING
            raise
        except Exception as error:  # noqa: BLE001 - whatever one user's texts may do, the others' are indexed
            self._not_before[user] = loop.time() + AFTER_FAILURE
            log.error("search.indexing_failed", error=error, user_id=str(user))
        finally:
            # Where this does not arrive, the lease ends by itself.
            if leased:
                with contextlib.suppress(DatabaseUnavailable):
                    async with self._db.hot() as connection:
                        await connection.execute(_RELEASE, user)

    async def _repeat(self, work: Callable[[UUID], Awaitable[None]], user: UUID) -> None:
        for _ in range(TRIES):
            try:
                await work(user)
            except Overtaken:
                # So that two do not overtake each other for ever.
                await asyncio.sleep(random.uniform(0.01, 0.1))  # noqa: S311
            except asyncpg.ForeignKeyViolationError:
                async with self._db.hot() as connection:
                    if await connection.fetchval(_USER, user) is not None:
                        raise
                return
            else:
                return
        log.warning("search.overtaken", user_id=str(user))

    async def _flush(self, user: UUID) -> None:
        """Move all that is fresh into segments."""
        async with self._db.hot() as connection:
            marked = await connection.fetchval(_MARKED, user)
        if marked:
            async with self._writing(user) as connection:
                await connection.execute(_EVERYTHING, user, timeout=LIMIT)
        more = True
        while more:
            builder = Builder()
            places: list[int] = []
            longer: list[_Piece] = []
            size = 0
            while more and builder.documents < FULL and builder.occurrences < HEAVY and size < MOST_BYTES:
                async with self._db.hot() as connection:
                    rows = await connection.fetch(
                        _FRESH, user, places[-1] if places else 0, BATCH, BATCH_BYTES
                    )
                    await connection.execute(_RENEW, user, LEASE)
                more = bool(rows)
                if rows:
                    places.extend(row[0] for row in rows)
                    some = await _aside(_add, builder, rows)
                    longer.extend(some)
                    size += sum(len(piece.content) for piece in some)
            if not places:
                return
            replaced: list[int] = []
            segment = await _aside(builder.build) if builder.documents else None
            newest = (await self._sizes(user))[-1:]
            if segment is not None and newest and newest[0].documents < SMALLEST:
                replaced = [newest[0].segment]
                segment = await self._merged(user, replaced, segment)
            await self._replace(user, segment, places=places, segments=replaced, longer=longer)

    async def _merge(self, user: UUID) -> None:
        """Merge segments until there are few."""
        while True:
            sizes = await self._sizes(user)
            chosen = to_merge([(one.documents, one.occurrences) for one in sizes])
            if chosen is None:
                return
            numbers = [sizes[place].segment for place in chosen]
            await self._replace(user, await self._merged(user, numbers), segments=numbers)

    async def _clean(self, user: UUID) -> None:
        """Take out of the segments what belongs to deleted conversations, and forget that these were there."""
        async with self._db.hot() as connection:
            gone = {row[0].bytes for row in await connection.fetch(_REMOVED, user)}
            if not gone:
                return
            rows = await connection.fetch(_CONVERSATIONS, user)
        for number, ids in rows:
            if not gone.isdisjoint(_split(ids)):
                await self._replace(user, await self._merged(user, [number]), segments=[number])
        async with self._writing(user) as connection:
            for _, ids in await connection.fetch(_CONVERSATIONS, user):
                if not gone.isdisjoint(_split(ids)):
                    raise Overtaken
            await connection.execute(_CLEANED, user, [UUID(bytes=one) for one in gone])

    async def _sizes(self, user: UUID) -> list["_Size"]:
        async with self._db.hot() as connection:
            return [_Size(*row) for row in await connection.fetch(_SIZES, user)]

    async def _merged(self, user: UUID, numbers: Sequence[int], new: Segment | None = None) -> Segment:
        """Those segments, and `new`, as one, without what is deleted or no longer so. Raises Overtaken."""
        segments = [await self._read(user, number) for number in numbers]
        owners = {one for segment in segments for one in _split(segment.conversation_ids.tobytes())}
        async with self._db.hot() as connection:
            await connection.execute(_RENEW, user, LEASE)
            rows = await connection.fetch(_TITLES, user, [UUID(bytes=one) for one in owners])
        parts = {talk.bytes: part_of_title(title) for talk, title in rows}

        def work() -> Segment:
            keep = [_current(segment, parts) for segment in segments]
            if new is None:
                return merge(segments, keep)
            return merge([*segments, new], [*keep, np.ones(new.count, np.bool_)])

        merged: Segment = await _aside(work)
        return merged

    async def _read(self, user: UUID, number: int) -> Segment:
        payloads: list[bytes] = []
        async with self._db.hot(limit=LIMIT) as connection:
            columns = await connection.fetchrow(_SEGMENT, user, number)
            if columns is None:
                raise Overtaken
            after = ""
            while rows := await connection.fetch(_CHUNKS, user, number, after):
                payloads.extend(row[1] for row in rows)
                after = rows[-1][0]
        return cast("Segment", await _aside(read, Columns(*columns), payloads))

    @asynccontextmanager
    async def _writing(self, user: UUID) -> AsyncIterator[Any]:
        """One transaction that alone changes the index of `user`."""
        async with self._db.hot(limit=LIMIT) as connection, connection.transaction():
            # The transaction's limit is enough: a large segment on a busy machine takes its time.
            await connection.execute("SET LOCAL statement_timeout = 0")
            await connection.fetchval(_LOCK, user, timeout=LIMIT)
            yield connection

    async def _replace(
        self,
        user: UUID,
        new: Segment | None,
        *,
        places: Sequence[int] = (),
        segments: Sequence[int] = (),
        longer: Sequence[_Piece] = (),
    ) -> None:
        """Put `new` in the place of fresh rows and segments. Raises Overtaken when they are no longer what was read."""
        rows = await _aside(_rows, new) if new is not None and new.count else None
        async with self._writing(user) as connection:
            for statement, taken in ((_TAKE_FRESH, places), (_TAKE_SEGMENTS, segments)):
                if taken and await connection.execute(statement, user, taken) != f"DELETE {len(taken)}":
                    raise Overtaken
            if rows is None or new is None:
                return
            owners = [UUID(bytes=one) for one in _split(new.conversation_ids.tobytes())]
            if await connection.fetchval(_GONE, user, owners):
                raise Overtaken
            number = await connection.fetchval(
                _ADD_SEGMENT,
                user,
                new.count,
                len(new.occurrences),
                rows.oldest,
                rows.newest,
                *rows.columns[:3],
            )
            for table, names, records in (
                ("search_documents", ("block", "ids", "parts"), rows.blocks),
                ("search_terms", ("first", "payload"), rows.chunks),
                ("search_words", ("initial", "words"), rows.words),
            ):
                await connection.copy_records_to_table(
                    table,
                    columns=("user_id", "segment", *names),
                    records=[(user, number, *record) for record in records],
                    timeout=LIMIT,
                )
            for at in range(0, len(longer), BATCH):
                some = longer[at : at + BATCH]
                await connection.execute(_ADD_PIECES, user, *map(list, zip(*some, strict=True)))


class _Size(NamedTuple):
    segment: int
    documents: int
    occurrences: int


class _Rows(NamedTuple):
    """A segment as rows."""

    columns: Columns
    oldest: datetime
    newest: datetime
    blocks: list[tuple[int, list[UUID], list[int]]]
    chunks: list[Chunk]
    words: list[tuple[str, str]]


async def _aside(work: Callable[..., Any], *arguments: Any) -> Any:
    return await asyncio.get_running_loop().run_in_executor(_threads, work, *arguments)


def _add(builder: Builder, rows: Sequence[Any]) -> list[_Piece]:
    """Analyse fresh rows; returns the pieces of those messages that have several. What is gone is left out."""
    longer: list[_Piece] = []
    for _, kind, document, talk, created, role, model, text in rows:
        if talk is None or not text:
            continue
        if kind == "title":
            builder.add(document, part_of_title(text), talk, created, analyse(text), ("ktitle",))
            continue
        filters = (f"krole:{role}",) if model is None else (f"krole:{role}", f"kmodel:{model}")
        spans = pieces(text)
        for part, (start, end) in enumerate(spans):
            piece = text[start:end]
            builder.add(
                document, part, talk, created, analyse(piece), (*filters, "kpart") if part else filters
            )
            if len(spans) > 1:
                longer.append(_Piece(document, part, piece))
    return longer


def _current(segment: Segment, parts: dict[bytes, int]) -> NDArray[np.bool_]:
    """Which documents belong to conversations that exist, a title to one that has it still."""
    ids = _split(segment.conversation_ids.tobytes())
    exists = np.array([one in parts for one in ids], np.bool_)
    title = np.array([parts.get(one, 0) for one in ids], np.int64)
    owners = segment.conversations
    current: NDArray[np.bool_] = exists[owners] & ((segment.parts < TITLE) | (segment.parts == title[owners]))
    return current


def _rows(segment: Segment) -> _Rows:
    columns = columns_of(segment)
    ids = [UUID(bytes=one) for one in _split(columns.ids)]
    return _Rows(
        columns,
        moment_of(int(segment.created[0])),
        moment_of(int(segment.created[-1])),
        [
            (at // BLOCK, ids[at : at + BLOCK], columns.parts[at : at + BLOCK])
            for at in range(0, len(ids), BLOCK)
        ],
        list(segment.chunks()),
        list(segment.words()),
    )


def _split(ids: bytes) -> list[bytes]:
    return [ids[at : at + 16] for at in range(0, len(ids), 16)]
