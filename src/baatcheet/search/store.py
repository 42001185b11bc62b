"""Reading the index of search: one statement for all that a query needs.

The functions called here run outside row-level security and take the tenant as an argument (migration 0016).
Every method raises DatabaseUnavailable when the database can't be reached in time.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from baatcheet.platform.database import Database
from baatcheet.search.postings import Posting, find, slices, unpack
from baatcheet.search.segments import TITLE, part_of_title
from baatcheet.search.terms import Analysis, analyse, pieces

COLUMNS_BYTES: Final = 64_000_000  # of segments' columns that a process keeps
FRESH_PIECES: Final = 2_000  # that a process keeps analysed
MOST_OF_PREFIX: Final = 200  # words that a prefix stands for
WORDS_BYTES: Final = 400_000  # of words that a mistyped one is compared with: some 50,000
INLINE_CHARACTERS: Final = 20_000  # some milliseconds of analysis; more is done beside the event loop

_LOOK_UP = "SELECT * FROM search_look_up($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
_DOCUMENTS = "SELECT * FROM search_documents_at($1, $2, $3)"
_TITLES = (
    "SELECT id, title FROM conversations WHERE user_id = $1 AND id = ANY($2::uuid[]) AND deleted_at IS NULL"
)
_THERE = "SELECT count(*) FROM search_segments WHERE user_id = $1 AND segment = ANY($2::bigint[])"
_WORDS = """
SELECT left(w.words, $3) FROM (
    SELECT w.words, sum(octet_length(w.words)) OVER (ORDER BY w.segment DESC) - octet_length(w.words) AS before
    FROM search_words w WHERE w.user_id = $1 AND w.initial = ANY($2::text[])
) w WHERE w.before < $3
"""

_thread = ThreadPoolExecutor(1, thread_name_prefix="search-fresh")


class Scope(NamedTuple):
    """What a conversation must be; None: anything."""

    conversation_id: UUID | None = None
    project_id: UUID | None = None
    archived: bool | None = None
    tag: str | None = None


class SegmentView(NamedTuple):
    """What a query sees of one segment. Documents are numbered in the order of (created, id, part)."""

    id: int
    count: int  # type: ignore[assignment]  # documents; not the tuple's
    created: NDArray[np.int64]  # Unix microseconds, of each document, ascending
    conversations: NDArray[np.uint32]  # of each document, its conversation's place in `conversation_ids`
    conversation_ids: list[bytes]
    places: dict[bytes, int]  # of each in `conversation_ids`
    postings: dict[str, Posting]  # of those terms that were asked for and occur
    # Prefix -> the "w" terms that begin so, the most frequent 200, all of them in `postings`.
    prefixes: dict[str, list[str]]


class Overtaken(Exception):
    """The index was written anew since it was looked at: it is to be looked at again."""


class Document(NamedTuple):
    """A document as it is shown. `part` of a title is `TITLE` or more; it has neither role nor model."""

    id: UUID
    part: int
    conversation_id: UUID
    title: str  # of the conversation
    role: str | None
    model: str | None
    created: datetime
    text: str  # of the piece, 8,000 characters at most

    @property
    def kind(self) -> str:
        return "title" if self.part >= TITLE else "message"


class Fresh(NamedTuple):
    """A piece of a document that is in no segment yet."""

    id: UUID
    kind: str  # "message" or "title"
    part: int
    conversation_id: UUID
    created: datetime
    role: str | None
    model: str | None
    text: str
    analysis: Analysis

    def shown(self, titles: Mapping[UUID, str]) -> Document | None:
        """The document, with the title of its conversation; None where that is not among `titles`."""
        title = titles.get(self.conversation_id)
        if title is None or (self.kind == "title" and title != self.text):
            return None
        return Document(
            self.id, self.part, self.conversation_id, title, self.role, self.model, self.created, self.text
        )


class View(NamedTuple):
    """One user's index at one moment, as far as a query needs it."""

    segments: list[SegmentView]
    fresh: list[Fresh]
    removed: frozenset[bytes]  # conversations that are deleted, for good or not
    scope: frozenset[bytes] | None  # the conversations that are looked in; None: all
    # Documents that are not shown, since more are fresh than a query analyses; some more than 1,000 at most.
    waiting: int


_Analysed = dict[tuple[UUID, int], tuple[tuple[str, Analysis, int], ...]]
"""Pieces (text, analysis, part) of messages, whose key has 0, and of titles, whose key has their part."""


class _Columns(NamedTuple):
    created: NDArray[np.int64]
    conversations: NDArray[np.uint32]
    conversation_ids: list[bytes]
    places: dict[bytes, int]
    size: int


class SearchStore:
    """One process's view of the index. Segments never change, so their columns are kept: 64 MB of them at most."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._columns: OrderedDict[tuple[UUID, int], _Columns] = OrderedDict()
        self._columns_size = 0
        self._known: dict[UUID, dict[int, _Columns]] = {}  # the same, by user
        # What was fresh at each user's last query.
        self._analysed: OrderedDict[UUID, _Analysed] = OrderedDict()
        self._pieces = 0

    async def look_up(
        self,
        tenant: UUID,
        terms: Collection[str],
        prefixes: Collection[str] = (),
        *,
        scope: Scope | None = None,
    ) -> View:
        """Everything that the tenant's index knows of `terms` and of words beginning with one of `prefixes`.

        A prefix is folded and has no leading "w". All of it is of one moment.
        """
        wanted, beginnings = list(dict.fromkeys(terms)), list(dict.fromkeys(prefixes))
        known = dict(self._known.get(tenant, ()))
        analysed = self._analysed.get(tenant, {})
        within = scope is not None and scope != Scope()
        async with self._db.hot() as connection:
            rows = await connection.fetch(
                _LOOK_UP,
                tenant,
                wanted,
                beginnings,
                list(known),
                [key[0] for key in analysed if key[1] < TITLE],
                within,
                *(scope or Scope()),
            )
        by_kind: list[list[Any]] = [[] for _ in range(7)]
        for row in rows:
            by_kind[row[0]].append(row)
        columns, chunks, ranges, fresh, removed, inside, waiting = by_kind
        segments = {row[1]: self._segment(tenant, row, known) for row in columns}
        for gone in known.keys() - segments.keys():  # merged with others meanwhile
            self._drop(tenant, gone)
        for row in chunks:
            term, segment = wanted[row[2] - 1], segments[row[1]]
            posting = find(row[3], term, segment.count)
            if posting is not None:
                segment.postings[term] = posting
        if ranges:
            _expand(segments, [(row[1], beginnings[row[2] - 1], row[3]) for row in ranges])
        return View(
            sorted(segments.values(), key=lambda one: one.id),
            await self._fresh(tenant, [row for row in fresh if row[2] < 2], analysed),
            frozenset(_ids(removed[0][3])),
            frozenset(_ids(inside[0][3])) if inside else None,
            waiting[0][2] + sum(row[2] == 2 for row in fresh),
        )

    def _segment(self, tenant: UUID, row: Any, known: Mapping[int, _Columns]) -> SegmentView:
        _, segment, count, created, conversations, ids, *_ = row
        columns = known.get(segment)
        if columns is None:
            owners = _ids(ids)
            columns = _Columns(
                np.frombuffer(created, "<i8"),
                np.frombuffer(conversations, "<u4"),
                owners,
                {one: place for place, one in enumerate(owners)},
                len(created) + len(conversations) + 12 * len(ids),
            )
            self._keep(tenant, segment, columns)
        elif (tenant, segment) in self._columns:
            self._columns.move_to_end((tenant, segment))
        return SegmentView(
            segment,
            count,
            columns.created,
            columns.conversations,
            columns.conversation_ids,
            columns.places,
            {},
            {},
        )

    def _keep(self, tenant: UUID, segment: int, columns: _Columns) -> None:
        if (tenant, segment) in self._columns:
            return
        self._columns[tenant, segment] = columns
        self._known.setdefault(tenant, {})[segment] = columns
        self._columns_size += columns.size
        while self._columns_size > COLUMNS_BYTES:
            self._drop(*next(iter(self._columns)))

    def _drop(self, tenant: UUID, segment: int) -> None:
        dropped = self._columns.pop((tenant, segment), None)
        if dropped is None:
            return
        self._columns_size -= dropped.size
        del self._known[tenant][segment]
        if not self._known[tenant]:
            del self._known[tenant]

    async def _fresh(self, tenant: UUID, rows: Sequence[Any], analysed: _Analysed) -> list[Fresh]:
        """The pieces of fresh documents. Neither a message nor a certain title ever changes."""
        found: dict[tuple[UUID, int], Any] = {}
        new: dict[tuple[UUID, int], str] = {}
        for row in rows:
            text = row[11]
            key = (row[6], part_of_title(text) if row[2] == 1 else 0)
            found[key] = row
            if key not in analysed and text is not None:
                new[key] = text
        if sum(map(len, new.values())) <= INLINE_CHARACTERS:
            made = _analyse(new)
        else:
            made = await asyncio.get_running_loop().run_in_executor(_thread, _analyse, new)
        now = {key: analysed.get(key) or made.get(key, ()) for key in found}
        self._pieces -= sum(map(len, self._analysed.pop(tenant, {}).values()))
        if now:
            self._analysed[tenant] = now
            self._pieces += sum(map(len, now.values()))
        while self._pieces > FRESH_PIECES and len(self._analysed) > 1:
            _, dropped = self._analysed.popitem(last=False)
            self._pieces -= sum(map(len, dropped.values()))
        fresh: list[Fresh] = []
        for key, row in found.items():
            kind = "title" if row[2] == 1 else "message"
            for text, analysis, part in now[key]:
                talk, created, role, model = row[7:11]
                fresh.append(Fresh(row[6], kind, part, talk, created, role, model, text, analysis))
        return fresh

    async def documents(self, tenant: UUID, places: Sequence[tuple[int, int]]) -> list[Document | None]:
        """The documents at `places` (segment's id, number), in that order; None where one is gone or no longer so.

        Raises Overtaken when a segment is no longer there: its documents are in another.
        """
        documents: list[Document | None] = [None] * len(places)
        segments = {segment for segment, _ in places}
        async with self._db.hot() as connection:
            rows = await connection.fetch(
                _DOCUMENTS, tenant, [segment for segment, _ in places], [number for _, number in places]
            )
            if len(rows) < len(places):
                there = await connection.fetchval(_THERE, tenant, list(segments))
                if there < len(segments):
                    raise Overtaken
        for nth, *found in rows:
            document = Document(*found)
            if document.part < TITLE or document.part == part_of_title(document.title):
                documents[nth - 1] = document
        return documents

    async def titles(self, tenant: UUID, conversations: Collection[UUID]) -> dict[UUID, str]:
        """The titles of those conversations that are the tenant's and not deleted."""
        async with self._db.hot() as connection:
            return dict(await connection.fetch(_TITLES, tenant, list(conversations)))

    async def words(self, tenant: UUID, initials: Collection[str]) -> frozenset[str]:
        """The words in segments that begin with one of `initials` (single characters).

        Those of the newest segments, where they are very many.
        """
        async with self._db.hot() as connection:
            rows = await connection.fetch(_WORDS, tenant, list(initials), WORDS_BYTES)
        return frozenset().union(*(words.split("\n") for (words,) in rows))


def _ids(whole: bytes | None) -> list[bytes]:
    return np.frombuffer(whole, "V16").tolist() if whole else []


def _analyse(texts: Mapping[tuple[UUID, int], str]) -> _Analysed:
    made: _Analysed = {}
    for key, text in texts.items():
        if key[1]:
            made[key] = ((text, analyse(text), key[1]),)
        else:
            made[key] = tuple(
                (text[start:end], analyse(text[start:end]), n) for n, (start, end) in enumerate(pieces(text))
            )
    return made


def _expand(segments: Mapping[int, SegmentView], ranges: Sequence[tuple[int, str, bytes]]) -> None:
    """Put into `segments` what the chunks say of the words that begin with each prefix: the most frequent ones."""
    sizes: dict[str, dict[str, int]] = {}
    places: dict[tuple[int, str], list[tuple[str, bytes, int, int]]] = {}
    for segment, prefix, payload in ranges:
        beginning = "w" + prefix
        here = [
            (term, payload, start, end) for term, start, end in slices(payload) if term.startswith(beginning)
        ]
        places.setdefault((segment, prefix), []).extend(here)
        of_prefix = sizes.setdefault(prefix, {})
        for term, _, start, end in here:
            of_prefix[term] = of_prefix.get(term, 0) + end - start
    chosen = {
        prefix: frozenset(sorted(some, key=lambda term: (-some[term], term))[:MOST_OF_PREFIX])
        for prefix, some in sizes.items()
    }
    for (segment, prefix), terms in places.items():
        view = segments[segment]
        kept = [one for one in terms if one[0] in chosen[prefix]]
        view.prefixes[prefix] = [term for term, *_ in kept]
        for term, payload, start, end in kept:
            view.postings[term] = unpack(term, payload, start, end, view.count)
