"""Vectors of passages, where an embedding model is configured: a second way to find what a question is about.

They are kept as plain arrays and compared by pgvector, which is asked for when the process starts. Without the
extension, the model, or an answer in time, words alone are searched.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
from asyncpg import (
    DuplicateObjectError,
    FeatureNotSupportedError,
    InsufficientPrivilegeError,
    PostgresError,
    UndefinedFileError,
    UniqueViolationError,
)

from baatcheet.context.recall.ranking import Scored
from baatcheet.platform.database import Database, DatabaseUnavailable
from baatcheet.platform.logging import get_logger
from baatcheet.providers.catalogue import UnknownModel
from baatcheet.providers.failover import embed_first
from baatcheet.providers.model import AllProvidersFailed, ProviderError, Target

log = get_logger(__name__)

BATCH = 64  # texts of one request
MOST_CHARACTERS = 6_000  # of a text: embedding models take some 2,000 tokens at least
MOST_AT_ONCE = 2_000  # vectors that are made after one turn
PATIENCE = 0.5  # seconds that a turn waits for what is near its question
COMPARING = 0.9  # of what is left of them, which the server may take: it stops by itself before it is cut off
BACKGROUND_PATIENCE = 60.0
LARGEST = 3.4e38  # number of a vector
NEAREST = 200  # passages that are compared with what words found
WEIGHT = 0.6  # of the nearest vector, beside the best by words

_HAS_EXTENSION = "SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'vector')"
_EXTENSION = "CREATE EXTENSION IF NOT EXISTS vector"
# Of processes that create it at the same time, all but one get one of these.
_FASTER = (UniqueViolationError, DuplicateObjectError)
_REFUSALS = (FeatureNotSupportedError, InsufficientPrivilegeError, UndefinedFileError)
_MISSING = """
SELECT p.id FROM branch_path($1, $2, $3) c
JOIN recall_passages p ON p.branch_id = c.branch AND p.depth <= c.last
WHERE p.user_id = $1 AND p.length > 0
  AND NOT EXISTS (SELECT FROM passage_embeddings e WHERE e.passage_id = p.id AND e.model = $4)
ORDER BY p.depth DESC, p.part LIMIT $5
"""
_TEXTS = """
SELECT p.id, coalesce(p.content, m.content) FROM recall_passages p
LEFT JOIN messages m ON m.id = p.message_id AND p.content IS NULL
WHERE p.user_id = $1 AND p.id = ANY($2::bigint[])
"""
_ADD = """
INSERT INTO passage_embeddings (passage_id, model, user_id, embedding)
SELECT p.id, $2, p.user_id, e.embedding
FROM jsonb_to_recordset($3::text::jsonb) AS e(id bigint, embedding real[])
JOIN recall_passages p ON p.id = e.id AND p.user_id = $1
ON CONFLICT DO NOTHING
"""
# The cosine of a vector without a direction is not a number, and would come first.
_NEAREST = """
WITH compared AS MATERIALIZED (
    SELECT p.depth, p.part, 1 - (e.embedding::vector <=> $5::real[]::vector) AS cosine
    FROM branch_path($1, $2, $3) c
    JOIN recall_passages p ON p.branch_id = c.branch AND p.depth <= c.last AND p.depth < $4
    JOIN passage_embeddings e ON e.passage_id = p.id AND e.model = $6
    WHERE p.user_id = $1 AND cardinality(e.embedding) = cardinality($5::real[])
)
SELECT depth, part, cosine FROM compared WHERE cosine <> 'NaN'
ORDER BY cosine DESC, depth, part LIMIT $7
"""
_WITHIN = "SELECT set_config('statement_timeout', $1, true)"


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

    async def usable(self, *, limit: float | None = None) -> bool:
        """Whether the database can compare vectors. It is asked until it says so or refuses."""
        if self._usable is None:
            try:
                self._usable = await self._extended(limit)
            except DatabaseUnavailable:
                return False
            except PostgresError as error:
                log.warning("context.vectors_not_known", reason=str(error))
                return False
        return self._usable

    async def _extended(self, limit: float | None) -> bool:
        for _ in range(2):
            async with self._db.hot(limit=limit) as connection:
                if await connection.fetchval(_HAS_EXTENSION):
                    return True
                try:
                    await connection.execute(_EXTENSION)
                except _FASTER:
                    continue
                except _REFUSALS as error:
                    log.warning(
                        "context.no_vectors",
                        reason=str(error),
                        meaning="the extension pgvector is needed for them",
                    )
                    return False
                return True
        raise DatabaseUnavailable("The extension pgvector is being created. Try again in a moment.")

    async def fill(self, user: UUID, conversation: UUID, head: UUID) -> int:
        """Make the vectors that are missing on the way to `head`, newest first. Returns how many.

        They are `MOST_AT_ONCE` at most; the rest are made after another turn. Raises DatabaseUnavailable. A provider
        that fails is asked again then, too.
        """
        if not await self.usable():
            return 0
        async with self._db.hot() as connection:
            rows = await connection.fetch(_MISSING, user, conversation, head, self._model, MOST_AT_ONCE)
        missing = [row[0] for row in rows]
        made = 0
        for at in range(0, len(missing), BATCH):
            async with self._db.hot() as connection:
                found = await connection.fetch(_TEXTS, user, missing[at : at + BATCH])
            if not found:
                break  # the conversation has been deleted
            vectors = await self._embed([text for _, text in found], BACKGROUND_PATIENCE)
            if vectors is None:
                break
            entries = [
                {"id": id_, "embedding": vector} for (id_, _), vector in zip(found, vectors, strict=True)
            ]
            async with self._db.hot() as connection:
                await connection.execute(_ADD, user, self._model, msgspec.json.encode(entries).decode())
            made += len(entries)
        return made

    async def nearest(
        self, user: UUID, conversation: UUID, head: UUID, *, before: int, text: str
    ) -> list[Near]:
        """The passages above depth `before` that are nearest to `text`; none when that can't be told in time."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE
        if not await self.usable(limit=PATIENCE):
            return []
        vectors = await self._embed([text], deadline - loop.time())
        left = deadline - loop.time()
        if vectors is None or left <= 0:
            return []
        try:
            async with self._db.hot(limit=left) as connection, connection.transaction():
                # The server is told, since one whose client has hung up would go on comparing.
                await connection.execute(_WITHIN, str(max(1, int(left * COMPARING * 1000))))
                rows = await connection.fetch(
                    _NEAREST, user, conversation, head, before, vectors[0], self._model, NEAREST
                )
        except DatabaseUnavailable:
            log.warning("context.vectors_not_compared", conversation_id=str(conversation))
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
        if len(vectors) != len(texts) or not all(_is_vector(one.embedding) for one in vectors):
            log.warning(
                "context.not_embedded", model=self._model, reason="the answer has other vectors than asked"
            )
            return None
        return [vector.embedding for vector in vectors]


def _is_vector(numbers: Sequence[float]) -> bool:
    """Whether the database takes them."""
    return bool(numbers) and max(map(abs, numbers)) <= LARGEST


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
