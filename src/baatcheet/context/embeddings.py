"""Vectors of passages, where an embedding model is configured: a second way to find what a question is about.

They are kept as plain arrays and compared by pgvector, which is asked for when the process starts. Without the
extension, the model, or an answer in time, words alone are searched.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
from asyncpg import PostgresError

from baatcheet.context.recall.ranking import Scored
from baatcheet.platform.database import Database, DatabaseUnavailable
from baatcheet.platform.logging import get_logger
from baatcheet.providers.catalogue import UnknownModel
from baatcheet.providers.failover import embed_first
from baatcheet.providers.model import AllProvidersFailed, ProviderError, Target

log = get_logger(__name__)

BATCH = 64  # texts of one request
MOST_CHARACTERS = 6_000  # of a text: embedding models take some 2,000 tokens at least
PATIENCE = 0.5  # seconds that a turn waits for its question's vector
BACKGROUND_PATIENCE = 60.0
NEAREST = 200  # passages that are compared with what words found
WEIGHT = 0.6  # of the nearest vector, beside the best by words

_EXTENSION = "CREATE EXTENSION IF NOT EXISTS vector"
_MISSING = """
SELECT p.id, coalesce(p.content, m.content) FROM branch_path($1, $2, $3) c
JOIN recall_passages p ON p.branch_id = c.branch AND p.depth <= c.last
LEFT JOIN messages m ON m.id = p.message_id AND p.content IS NULL
WHERE p.user_id = $1 AND p.length > 0
  AND NOT EXISTS (SELECT FROM passage_embeddings e WHERE e.passage_id = p.id AND e.model = $4)
ORDER BY p.depth DESC, p.part LIMIT $5
"""
_ADD = """
INSERT INTO passage_embeddings (passage_id, model, user_id, embedding)
SELECT p.id, $2, p.user_id, e.embedding
FROM jsonb_to_recordset($3::text::jsonb) AS e(id bigint, embedding real[])
JOIN recall_passages p ON p.id = e.id AND p.user_id = $1
ON CONFLICT DO NOTHING
"""
_NEAREST = """
SELECT p.depth, p.part, 1 - (e.embedding::vector <=> $5::real[]::vector)
FROM branch_path($1, $2, $3) c
JOIN recall_passages p ON p.branch_id = c.branch AND p.depth <= c.last AND p.depth < $4
JOIN passage_embeddings e ON e.passage_id = p.id AND e.model = $6
WHERE p.user_id = $1 AND cardinality(e.embedding) = cardinality($5::real[])
ORDER BY 3 DESC, 1, 2 LIMIT $7
"""


class Near(NamedTuple):
    """A passage and how near its vector is: the cosine, 1 at most."""

    place: int
    part: int
    cosine: float


class _Vector(msgspec.Struct):
    embedding: list[float]
    index: int = 0


class _Answer(msgspec.Struct):
    data: list[_Vector]


class Vectors:
    """One embedding model's vectors of the passages. `targets`: who has the model."""

    def __init__(
        self, db: Database, model: str, targets: Callable[[str], Awaitable[Sequence[Target]]]
    ) -> None:
        self._db = db
        self._model = model
        self._targets = targets
        self._usable: bool | None = None  # None: not known yet

    async def usable(self) -> bool:
        """Whether the database can compare vectors."""
        if self._usable is None:
            try:
                async with self._db.hot() as connection:
                    await connection.execute(_EXTENSION)
            except PostgresError as error:
                log.warning(
                    "context.no_vectors",
                    reason=str(error),
                    meaning="the extension pgvector is needed for them",
                )
                self._usable = False
            except DatabaseUnavailable:
                return False
            else:
                self._usable = True
        return self._usable

    async def fill(self, user: UUID, conversation: UUID, head: UUID) -> int:
        """Make the vectors that are missing on the way to `head`, newest first. Returns how many.

        Raises DatabaseUnavailable. A provider that fails is asked again after another turn.
        """
        made = 0
        while await self.usable():
            async with self._db.hot() as connection:
                rows = await connection.fetch(_MISSING, user, conversation, head, self._model, BATCH)
            if not rows:
                break
            vectors = await self._embed([text for _, text in rows], BACKGROUND_PATIENCE)
            if vectors is None:
                break
            entries = [
                {"id": id_, "embedding": vector} for (id_, _), vector in zip(rows, vectors, strict=True)
            ]
            async with self._db.hot() as connection:
                await connection.execute(_ADD, user, self._model, msgspec.json.encode(entries).decode())
            made += len(entries)
        return made

    async def nearest(
        self, user: UUID, conversation: UUID, head: UUID, *, before: int, text: str
    ) -> list[Near]:
        """The passages above depth `before` that are nearest to `text`; none when that can't be told in time."""
        if not await self.usable() or (vectors := await self._embed([text], PATIENCE)) is None:
            return []
        try:
            async with self._db.hot() as connection:
                rows = await connection.fetch(
                    _NEAREST, user, conversation, head, before, vectors[0], self._model, NEAREST
                )
        except DatabaseUnavailable:
            return []
        return [Near(*row) for row in rows]

    async def _embed(self, texts: Sequence[str], patience: float) -> list[list[float]] | None:
        async def body_for(target: Target) -> Mapping[str, Any]:
            # A model's answer to an empty text is an error with most providers.
            given = [text[:MOST_CHARACTERS] if text.strip() else "-" for text in texts]
            return {"model": target.model.name, "input": given}

        try:
            async with asyncio.timeout(patience):
                answer = await embed_first(await self._targets(self._model), body_for)
            vectors = sorted(msgspec.json.decode(answer.raw, type=_Answer).data, key=lambda one: one.index)
        except (ProviderError, AllProvidersFailed, UnknownModel, TimeoutError, msgspec.DecodeError) as error:
            log.warning(
                "context.not_embedded",
                model=self._model,
                reason=str(error) or f"no answer within {patience:g} s",
            )
            return None
        if len(vectors) != len(texts) or not all(vector.embedding for vector in vectors):
            log.warning(
                "context.not_embedded", model=self._model, reason="the answer has other vectors than asked"
            )
            return None
        return [vector.embedding for vector in vectors]


def blended(ranked: Sequence[Scored], near: Sequence[Near]) -> list[Scored]:
    """What words found and what vectors found, as one ranking: pure."""
    if not near:
        return list(ranked)
    top = max([one.score for one in ranked], default=0.0) or 1.0
    scores = {(one.place, one.part): one.score / top for one in ranked}
    lowest, highest = min([one.cosine for one in near]), max([one.cosine for one in near])
    for one in near:
        share = (one.cosine - lowest) / (highest - lowest) if highest > lowest else 1.0
        for place, part in ((one.place, one.part), (one.place, None)):
            if (place, part) in scores:
                scores[place, part] += WEIGHT * share
                break
        else:
            scores[one.place, one.part] = WEIGHT * share
    made = [Scored(place, part, score) for (place, part), score in scores.items()]
    return sorted(made, key=lambda one: (-one.score, one.place, one.part or 0))
