"""Finding what was said."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from hashlib import blake2b
from typing import Final, Literal, NamedTuple, get_args
from uuid import UUID

import msgspec

from baatcheet.auth.principal import Principal
from baatcheet.conversations.schemas import Role
from baatcheet.kit.pagination import decode, encode, microseconds
from baatcheet.platform.database import Database, DatabaseUnavailable
from baatcheet.platform.logging import get_logger
from baatcheet.platform.threads import in_thread
from baatcheet.search import ranking, typos
from baatcheet.search.errors import NothingToFind
from baatcheet.search.indexing import Indexer
from baatcheet.search.query import Clause, Leaf, Query, confirms, parse
from baatcheet.search.ranking import FRESH, Order, Place, Position, Wanted
from baatcheet.search.snippets import Snippet, Snippets
from baatcheet.search.store import Document, Fresh, Overtaken, Scope, SearchStore, View

log = get_logger(__name__)

Kind = Literal["message", "title"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)

INDEXING_PATIENCE = 8.0  # seconds that a search waits for what an import has left to be indexed
CLOSE_PATIENCE = 1.0  # seconds
MOST_CORRECTIONS = 4  # words of one query
SNIPPETS_AT_ONCE = 10  # until others have their turn

_PASSES = (
    6  # times that more is asked for, where what was found turns out to be gone or not to have the phrase
)
_MOST_AT_ONCE = 400
_LOOKS = 20  # at an index that is written anew each time before its documents are read


class Filters(msgspec.Struct, frozen=True):
    """What a hit must be; None: anything."""

    kind: Kind | None = None
    role: Role | None = None
    model: str | None = None
    conversation_id: UUID | None = None
    project_id: UUID | None = None
    archived: bool | None = None
    tag: str | None = None
    since: datetime | None = None
    until: datetime | None = None  # exclusive

    def scope(self) -> Scope | None:
        scope = Scope(self.conversation_id, self.project_id, self.archived, self.tag)
        return scope if any(one is not None for one in scope) else None

    def must(self) -> tuple[tuple[str, ...], ...]:
        """The terms that a document must have, one of each group."""
        groups: list[tuple[str, ...]] = []
        if self.kind == "title":
            groups.append(("ktitle",))
        if self.kind == "message":
            groups.append(tuple(f"krole:{role}" for role in ROLES))
        if self.role is not None:
            groups.append((f"krole:{self.role}",))
        if self.model is not None:
            groups.append((f"kmodel:{self.model}",))
        return tuple(groups)


class Found(NamedTuple):
    """A document that was found, and the part of it to be shown."""

    document: Document
    snippet: Snippet
    hits: int | None  # in its conversation, where hits are grouped


class FoundPage(NamedTuple):
    """Some of what was found."""

    found: list[Found]
    next_cursor: str | None
    corrections: dict[str, list[str]]
    ignored: int  # words too many, which were not looked for
    waiting: int


class _Cursor(NamedTuple):
    """The last hit shown, and what the first page was ranked with."""

    first: int
    second: int
    id: UUID
    part: int
    weights: tuple[int, ...]
    corrections: dict[str, list[str]]


class _Key(NamedTuple):
    """What hits are sorted by, the smallest first."""

    first: int
    second: int
    id: UUID
    part: int


class Search:
    """One user's search. What is not theirs is not looked in."""

    def __init__(self, db: Database) -> None:
        self._store = SearchStore(db)
        self._indexer = Indexer(db)
        self._indexing: dict[UUID, asyncio.Task[None]] = {}

    async def close(self) -> None:
        """End what is being indexed: a worker goes on with it."""
        tasks = list(self._indexing.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSE_PATIENCE)

    async def _index(self, user: UUID) -> None:
        """Index what waits, for which an import may have left a lot. It goes on when this stops waiting."""
        task = self._indexing.get(user)
        if task is None:
            task = self._indexing[user] = asyncio.create_task(self._indexer.catch_up(user))
            task.add_done_callback(partial(self._indexed, user))
        await asyncio.wait([task], timeout=INDEXING_PATIENCE)

    def _indexed(self, user: UUID, task: asyncio.Task[None]) -> None:
        del self._indexing[user]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("search.indexed_later", error=error, user_id=str(user))

    async def find(
        self,
        who: Principal,
        text: str,
        filters: Filters,
        *,
        order: Order = "relevance",
        grouped: bool = False,
        typing: bool = False,
        limit: int,
        cursor: str | None = None,
    ) -> FoundPage:
        """A page of what `text` finds. A word that is nowhere is taken for mistyped, where nothing is found otherwise.

        `grouped`: the best hit of each conversation. `typing`: the last word may go on. Raises NothingToFind when there
        is no word in `text` that is to be there, BadCursor, DatabaseUnavailable.
        """
        query = parse(text, typing=typing)
        if not query.clauses:
            raise NothingToFind(only_exclusions=bool(query.excluded))
        name = _name(text, filters, order, grouped=grouped, typing=typing)
        last = decode(name, cursor, _Cursor) if cursor is not None else None
        corrections = dict(last.corrections) if last is not None else {}
        search = _Asked(self._store, self._index, who.user_id, filters, order, grouped=grouped, limit=limit)
        page = await search.page(_corrected(query, corrections), last)
        looked_at_all = not page.exhausted_early and not page.view.waiting
        if last is None and not page.found and looked_at_all:
            corrections = await self._corrections(who.user_id, page.view, search.wanted(query))
            if corrections:
                page = await search.page(_corrected(query, corrections), None)
        following = None
        if page.following is not None:
            following = encode(name, _Cursor(*page.following, page.weights, corrections))
        return FoundPage(page.found, following, corrections, query.dropped, page.view.waiting)

    async def _corrections(self, user: UUID, view: View, wanted: Wanted) -> dict[str, list[str]]:
        """For each word that nothing has, those that it may have been meant to be."""
        unknown = ranking.unknown(view, wanted)[:MOST_CORRECTIONS]
        missing = {leaf.text: ranking.word_of(leaf) for leaf in unknown}
        initials = {letter for word in missing.values() for letter in typos.initials(word)}
        if not initials:
            return {}
        known = await self._store.words(user, initials)
        words = known.union(*(one.analysis.words for one in view.fresh))
        made = {text: await in_thread(typos.meant, word, words) for text, word in missing.items()}
        return {text: instead for text, instead in made.items() if instead}


class _Page(NamedTuple):
    found: list[Found]
    following: _Key | None
    weights: tuple[int, ...]
    view: View
    exhausted_early: (
        bool  # whether looking ended before the end: none found does not mean that there are none
    )


class _Asked:
    """One request for a page."""

    def __init__(
        self,
        store: SearchStore,
        index: Callable[[UUID], Awaitable[None]],
        user: UUID,
        filters: Filters,
        order: Order,
        *,
        grouped: bool,
        limit: int,
    ) -> None:
        self._store = store
        self._index = index
        self._user = user
        self._filters = filters
        self._order = order
        self._grouped = grouped
        self._limit = limit

    def wanted(self, query: Query) -> Wanted:
        since, until = self._filters.since, self._filters.until
        return Wanted(
            query,
            self._filters.must(),
            since=microseconds(since) if since is not None else None,
            until=microseconds(until) if until is not None else None,
            order=self._order,
        )

    async def page(self, query: Query, last: _Cursor | None) -> _Page:
        """What follows `last`."""
        wanted = self.wanted(query)
        view = await self._look_up(wanted)
        words = sorted(
            {term[1:] for one in view.segments for terms in one.prefixes.values() for term in terms}
        )
        snippets = Snippets(query, words=words)
        seen = _key(Position(last.first, last.second), last.id, last.part) if last is not None else None
        weights = last.weights if last is not None else ()
        found: list[Found] = []
        most = self._limit + 1
        for _ in range(_PASSES):
            after = Position(-seen.first, -seen.second) if seen is not None else None
            view, places, documents, weights, more = await self._read(view, wanted, after, most, weights)
            rows = sorted(
                [
                    (_key(place.position, document.id, document.part), document, hits)
                    for (place, hits), document in zip(places, documents, strict=True)
                    if document is not None
                ],
                key=lambda row: row[0],
            )
            for key, document, hits in rows:
                if seen is not None and key <= seen:
                    continue
                if len(found) == self._limit:
                    return _Page(found, _following(seen), weights, view, exhausted_early=False)
                seen = key
                if confirms(query, document.text):
                    found.append(Found(document, snippets.of(document.text), hits))
                    if len(found) % SNIPPETS_AT_ONCE == 0:
                        await asyncio.sleep(0)
            if not more:
                return _Page(found, None, weights, view, exhausted_early=False)
            most = min(_MOST_AT_ONCE, most * 2)
            if places:
                beyond = _beyond(places[-1][0])
                seen = beyond if seen is None or beyond > seen else seen
        return _Page(found, _following(seen), weights, view, exhausted_early=True)

    async def _read(
        self, view: View, wanted: Wanted, after: Position | None, most: int, weights: tuple[int, ...]
    ) -> tuple[View, list[tuple[Place, int | None]], list[Document | None], tuple[int, ...], bool]:
        """What is found, and its documents; by a newer view, where the index was written anew meanwhile."""
        for _ in range(_LOOKS):
            places, weights, more = self._ranked(view, wanted, after, most, weights)
            try:
                documents = await self._documents(view, [place for place, _ in places])
            except Overtaken:
                view = await self._look_up(wanted)
            else:
                return view, places, documents, weights, more
        raise DatabaseUnavailable("The index is being written anew. Try again in a moment.")

    async def _look_up(self, wanted: Wanted) -> View:
        """The index, where what waits for it can be read at once; else when it has been indexed, if that is soon."""
        scope = self._filters.scope()
        view = await self._store.look_up(self._user, wanted.terms(), wanted.prefixes(), scope=scope)
        if view.waiting:
            await self._index(self._user)
            view = await self._store.look_up(self._user, wanted.terms(), wanted.prefixes(), scope=scope)
        return view._replace(fresh=sorted(view.fresh, key=lambda one: (one.created, one.id, one.part)))

    def _ranked(
        self, view: View, wanted: Wanted, after: Position | None, most: int, weights: tuple[int, ...]
    ) -> tuple[list[tuple[Place, int | None]], tuple[int, ...], bool]:
        if self._grouped:
            groups, weights, more = ranking.rank_conversations(view, wanted, after, most, weights)
            return [(group.best, group.hits) for group in groups], weights, more
        ranked = ranking.rank(view, wanted, after, most, weights)
        return [(place, None) for place in ranked.places], ranked.weights, ranked.more

    async def _documents(self, view: View, places: Sequence[Place]) -> list[Document | None]:
        """What stands at each of `places`, None where it is gone."""
        indexed = [(place.segment, place.number) for place in places if place.segment != FRESH]
        read = iter(await self._store.documents(self._user, indexed) if indexed else ())
        fresh = [view.fresh[place.number] for place in places if place.segment == FRESH]
        owners = {one.conversation_id for one in fresh}
        titles = await self._store.titles(self._user, owners) if owners else {}
        shown = iter([_shown(one, titles.get(one.conversation_id)) for one in fresh])
        return [next(shown) if place.segment == FRESH else next(read) for place in places]


def _shown(one: Fresh, title: str | None) -> Document | None:
    """A fresh document as one of a segment's. None: its conversation is gone."""
    if title is None:
        return None
    return Document(one.id, one.part, one.conversation_id, title, one.role, one.model, one.created, one.text)


_LAST_ID = UUID(int=(1 << 128) - 1)


def _key(position: Position, document: UUID, part: int) -> _Key:
    return _Key(-position.first, -position.second, document, part)


def _beyond(place: Place) -> _Key:
    """After everything at the position of `place`: all of it has been looked at."""
    return _key(place.position, _LAST_ID, 1 << 62)


def _following(key: _Key | None) -> _Key | None:
    return _Key(-key.first, -key.second, key.id, key.part) if key is not None else None


def _corrected(query: Query, corrections: Mapping[str, Sequence[str]]) -> Query:
    """`query` with what was meant in the place of what was typed."""
    if not corrections:
        return query

    def leaves(leaf: Leaf) -> tuple[Leaf, ...]:
        if leaf.phrase or leaf.text not in corrections:
            return (leaf,)
        return tuple(
            one for word in corrections[leaf.text] for clause in parse(word).clauses for one in clause.leaves
        )

    clauses = tuple(
        Clause(leaves=tuple(one for leaf in clause.leaves for one in leaves(leaf)))
        for clause in query.clauses
    )
    return msgspec.structs.replace(query, clauses=clauses)


def _name(text: str, filters: Filters, order: Order, *, grouped: bool, typing: bool) -> str:
    """What a cursor belongs to: this very search."""
    asked = msgspec.json.encode([text, filters, order, grouped, typing])
    return "search:" + blake2b(asked, digest_size=12).hexdigest()
