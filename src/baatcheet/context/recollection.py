"""Finding the older messages that a question is about: the index is asked, the hits are ranked, excerpts are made."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from baatcheet.context import counting
from baatcheet.context.embeddings import Near, Vectors, blended
from baatcheet.context.indexing import Indexer, key
from baatcheet.context.planning import Item, Recalled
from baatcheet.context.recall.choosing import Found, choose
from baatcheet.context.recall.query import Query, understand
from baatcheet.context.recall.ranking import CAP, Hit, Scored, Statistics, rank
from baatcheet.context.recall.weighing import weighed
from baatcheet.context.store import ContextStore, Hits, PassageText
from baatcheet.context.tokenizers import Tokenizer
from baatcheet.platform.logging import get_logger

log = get_logger(__name__)

MOST_TEXTS, FEWEST_TEXTS, TOKENS_A_TEXT = 600, 150, 14  # passages whose texts are read
MOST_HITS_OF_A_TERM, LEAST_HITS = 200, 60  # by its weight
PATIENCE = 3.0  # seconds that a turn waits for what was imported to be indexed
TRIES = 6  # to fit excerpts into a budget that another tokenizer counts


@dataclass(frozen=True)
class Question:
    """What is asked, and where: the branch's head above the new message, and the last texts before it."""

    user: UUID
    conversation: UUID
    head: UUID
    new: Sequence[str]
    before: Sequence[str]


@dataclass(frozen=True)
class Recollection:
    """What a question found among the messages above depth `before`, best first, with the texts of the best."""

    before: int
    query: Query
    ranked: Sequence[Scored]
    texts: dict[tuple[int, int], PassageText]

    def excerpts(self, budget: int, before: int, tokenizer: Tokenizer) -> Recalled | None:
        """As much of it as goes into one message of `budget` tokens by `tokenizer`; None when nothing does."""
        found = {
            place: Found(
                text.depth, text.part, text.parts, text.role, text.at, text.text, text.tokens, text.signals
            )
            for place, text in self.texts.items()
            if text.depth < before
        }
        if not found:
            return None
        ranked = weighed(self.query, [one for one in self.ranked if one.place < before], found)
        room = budget - tokenizer.overhead
        for _ in range(TRIES):
            if room <= 0:
                return None
            chosen = choose(ranked, found, room, count=counting.count)
            if not chosen.text:
                return None
            tokens = tokenizer.message(chosen.text, None)
            if tokens <= budget:
                ids = {text.depth: text.message_id for text in self.texts.values()}
                depths = tuple(dict.fromkeys(chosen.places))
                wire = {"role": "user", "content": chosen.text}
                return Recalled(Item(wire, tokens), tuple([ids[depth] for depth in depths]), depths)
            room = room * budget * 15 // (16 * tokens)
        return None


@dataclass(frozen=True)
class Terms:
    """What is looked up for a question, the weightiest first: as many of each as it is worth."""

    terms: Sequence[str]
    keys: Sequence[int]
    caps: Sequence[int]
    newest: bool  # whether the newest are asked for

    @classmethod
    def of(cls, query: Query, conversation: UUID) -> "Terms":
        terms = sorted(query.weights, key=lambda term: (-query.weights[term], term))
        top = query.weights[terms[0]] if terms else 1.0
        caps = [max(LEAST_HITS, int(MOST_HITS_OF_A_TERM * query.weights[term] / top)) for term in terms]
        return cls(terms, [key(conversation, term) for term in terms], caps, query.recent > 0)


class Recaller:
    """Asks the index of one conversation at a time."""

    def __init__(self, store: ContextStore, indexer: Indexer, vectors: Vectors | None = None) -> None:
        self._store = store
        self._indexer = indexer
        self._vectors = vectors

    async def close(self) -> None:
        """Give up the indexing that turns have begun and not waited for."""
        await self._indexer.close()

    async def find(self, question: Question, before: int, budget: int) -> Recollection:
        """What `question` finds above depth `before`, for excerpts of about `budget` tokens.

        What is not indexed yet is indexed first, within `PATIENCE`.

        Raises DatabaseUnavailable.
        """
        query = understand(question.new, question.before, datetime.now(UTC))
        looked_for = Terms.of(query, question.conversation)
        near = asyncio.ensure_future(self._near(question, before))
        try:
            hits = await self._hits(question, before, looked_for)
            if hits.indexed < before - 1:
                await self._indexer.catch_up(
                    question.user, question.conversation, question.head, upto=before - 1, patience=PATIENCE
                )
                hits = await self._hits(question, before, looked_for)
            ranked = blended(ranked_hits(query, looked_for, hits), await near)
        finally:
            near.cancel()
        places = wanted_places(ranked, before, most_texts(budget))
        texts = await self._store.texts(question.user, question.conversation, question.head, places)
        return Recollection(before, query, ranked, {(text.depth, text.part): text for text in texts})

    async def _near(self, question: Question, before: int) -> list[Near]:
        if self._vectors is None:
            return []
        try:
            return await self._vectors.nearest(
                question.user,
                question.conversation,
                question.head,
                before=before,
                text="\n".join(question.new),
            )
        except Exception as error:  # noqa: BLE001 - vectors are a help: a fault there must not cost what words find
            log.error("context.nearest_failed", error=error, conversation_id=str(question.conversation))
            return []

    async def _hits(self, question: Question, before: int, terms: Terms) -> Hits:
        return await self._store.hits(
            question.user,
            question.conversation,
            question.head,
            before=before,
            keys=terms.keys,
            caps=terms.caps,
            newest=terms.newest,
        )


def ranked_hits(query: Query, looked_for: Terms, hits: Hits) -> list[Scored]:
    """The hits as the ranking takes them, ranked."""
    patterns = Counter(hits.found)
    counts = {bits: _terms_in(bits, looked_for.terms) for bits in patterns}
    frequency = dict.fromkeys(looked_for.terms, 0)
    for bits, occurrences in patterns.items():
        for term in counts[bits]:
            frequency[term] += occurrences
    for term, cap in zip(looked_for.terms, looked_for.caps, strict=True):
        if frequency[term] >= cap:
            frequency[term] = CAP  # that many or more
    times = [datetime.fromtimestamp(one, UTC) for one in hits.times]
    rows = [
        Hit(depth, part, role, at, length, counts[bits], signals)
        for depth, part, role, at, length, bits, signals in zip(
            hits.depths, hits.parts, hits.roles, times, hits.lengths, hits.found, hits.signals, strict=True
        )
    ]
    passages = max(1, hits.passages)
    statistics = Statistics(hits.indexed + 1, passages, hits.total_length / passages, frequency)
    return rank(query, rows, statistics)


def _terms_in(bits: int, terms: Sequence[str]) -> dict[str, int]:
    return {term: 1 for at, term in enumerate(terms) if bits >> at & 1}


def most_texts(budget: int) -> int:
    """How many passages are looked at closely for so many tokens of excerpts."""
    return max(FEWEST_TEXTS, min(MOST_TEXTS, budget // TOKENS_A_TEXT))


def wanted_places(ranked: Sequence[Scored], before: int, most: int) -> list[tuple[int, int]]:
    """Which passages' texts to read: the best, of a neighbour that was no hit its beginning, and the newest beside."""
    wanted: dict[tuple[int, int], None] = {}
    for one in ranked:
        if 0 <= one.place < before:
            wanted[one.place, one.part if one.part is not None else 0] = None
        if len(wanted) == most:
            return list(wanted)
    for place in range(before - 1, max(-1, before - 1 - most), -1):
        if len(wanted) == most:
            break
        wanted[place, 0] = None
    return list(wanted)
