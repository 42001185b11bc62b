"""A user with messages in the database, and what the index says of them."""

from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Self
from uuid import UUID

import numpy as np

from baatcheet.kit.ids import new_id
from baatcheet.platform.database import Database
from baatcheet.search.postings import Posting
from baatcheet.search.segments import TITLE
from baatcheet.search.store import Document, Scope, SearchStore, View

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)

_SAY = """
INSERT INTO messages (id, conversation_id, user_id, role, content, model, created_at)
SELECT u.id, $2, $1, $3, u.content, $4, $5::timestamptz + n * interval '1 second'
FROM unnest($6::uuid[], $7::text[]) WITH ORDINALITY AS u(id, content, n)
"""


class Owner:
    """Somebody whose texts are written by SQL, as a chat turn or an import writes them."""

    def __init__(self, db: Database, user: UUID) -> None:
        self.db = db
        self.id = user
        self.store = SearchStore(db)
        self._said = 0

    @classmethod
    async def make(cls, db: Database) -> Self:
        user = new_id()
        async with db.hot() as connection:
            await connection.execute("INSERT INTO users (id, name) VALUES ($1, 'reader')", user)
        return cls(db, user)

    async def run(self, statement: str, *arguments: Any) -> list[Any]:
        async with self.db.hot(limit=60) as connection:
            rows: list[Any] = await connection.fetch(statement, *arguments)
        return rows

    async def talk(self, title: str = "", **columns: Any) -> UUID:
        talk = new_id()
        names = "".join(f", {name}" for name in columns)
        values = "".join(f", ${n}" for n in range(4, 4 + len(columns)))
        await self.run(
            f"INSERT INTO conversations (id, user_id, title{names}) VALUES ($1, $2, $3{values})",
            talk,
            self.id,
            title,
            *columns.values(),
        )
        return talk

    async def say(
        self, talk: UUID, texts: Sequence[str], *, role: str = "user", model: str | None = None
    ) -> list[UUID]:
        ids = [new_id() for _ in texts]
        at = BEGIN + timedelta(seconds=self._said)
        self._said += len(texts)
        await self.run(_SAY, self.id, talk, role, model, at, ids, list(texts))
        return ids

    async def rename(self, talk: UUID, title: str) -> None:
        await self.run("UPDATE conversations SET title = $2 WHERE id = $1", talk, title)

    async def delete(self, talk: UUID) -> None:
        await self.run("DELETE FROM conversations WHERE id = $1", talk)

    async def waiting(self) -> int:
        """How many rows are fresh."""
        return int((await self.run("SELECT count(*) FROM search_fresh WHERE user_id = $1", self.id))[0][0])

    async def segments(self) -> list[int]:
        """How many documents each segment has, by size."""
        rows = await self.run("SELECT count FROM search_segments WHERE user_id = $1 ORDER BY count", self.id)
        return [row[0] for row in rows]

    async def found(self, term: str, *, scope: Scope | None = None) -> set[tuple[UUID, int]]:
        """The documents that have `term` and may be shown, titles with part 1 << 31."""
        view = await self.store.look_up(self.id, [term], scope=scope)
        return (await self.shown(view, [term]))[term]

    async def shown(self, view: View, terms: Collection[str]) -> dict[str, set[tuple[UUID, int]]]:
        """The same of a view that there is already."""
        places = [
            (term, (segment.id, number))
            for segment in view.segments
            for term in terms
            if term in segment.postings
            for number in numbers(segment.postings[term])
            if allowed(view, segment.conversation_ids[segment.conversations[number]])
        ]
        documents = await self.store.documents(self.id, [place for _, place in places])
        found: dict[str, set[tuple[UUID, int]]] = {term: set() for term in terms}
        for (term, _), document in zip(places, documents, strict=True):
            if document is not None:
                found[term].add(key(document.id, document.part))
        for fresh in view.fresh:
            if allowed(view, fresh.conversation_id.bytes):
                for term in terms:
                    if term in fresh.analysis.terms:
                        found[term].add(key(fresh.id, fresh.part))
        return found

    async def documents(self, term: str) -> list[Document | None]:
        """The documents in segments that have `term`, hidden ones too, as the store shows them."""
        view = await self.store.look_up(self.id, [term])
        places = [
            (segment.id, number)
            for segment in view.segments
            if term in segment.postings
            for number in numbers(segment.postings[term])
        ]
        return await self.store.documents(self.id, places)


def key(document: UUID, part: int) -> tuple[UUID, int]:
    return document, min(part, TITLE)


def allowed(view: View, talk: bytes) -> bool:
    return talk not in view.removed and (view.scope is None or talk in view.scope)


def numbers(posting: Posting) -> list[int]:
    if posting.numbers is not None:
        return [int(one) for one in posting.numbers]
    assert posting.impacts is not None
    return [int(one) for one in np.flatnonzero(posting.impacts)]
