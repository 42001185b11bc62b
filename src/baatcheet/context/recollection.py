"""Finding the older messages that a question is about: the index is asked, the hits are ranked, excerpts are made."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
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

MOST_TEXTS = 600  # passages whose texts are read
PATIENCE = 3.0  # seconds that a turn waits for what was imported to be indexed
INLINE_HITS = 2_000  # more hits than this are ranked in a thread
TRIES = 4  # to fit excerpts into a budget that another tokenizer counts


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
    indexed: int  # how deep the index reached

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
            room = room * budget // tokens - 8
        return None


class Recaller:
    """Asks the index of one conversation at a time."""

    def __init__(self, store: ContextStore, indexer: Indexer, vectors: Vectors | None = None) -> None:
        self._store = store
        self._indexer = indexer
        self._vectors = vectors

    async def find(self, question: Question, before: int) -> Recollection:
        """What `question` finds above depth `before`; what is not indexed yet is indexed first, within `PATIENCE`.

        Raises DatabaseUnavailable.
        """
        query = understand(question.new, question.before, datetime.now(UTC))
        terms = list(query.weights)
        keys = [key(question.conversation, term) for term in terms]
        near = asyncio.ensure_future(self._near(question, before))
        hits = await self._hits(question, before, keys)
        if hits.indexed < before - 1:
            await self._indexer.catch_up(
                question.user, question.conversation, question.head, upto=before - 1, patience=PATIENCE
            )
            hits = await self._hits(question, before, keys)
        work = partial(ranked_hits, query, terms, hits)
        ranked = await counting.aside(0, work) if len(hits.ids) > INLINE_HITS else work()
        ranked = blended(ranked, await near)
        places = wanted_places(ranked, before)
        texts = await self._store.texts(question.user, question.conversation, question.head, places)
        return Recollection(
            before, query, ranked, {(text.depth, text.part): text for text in texts}, hits.indexed
        )

    async def _near(self, question: Question, before: int) -> list[Near]:
        if self._vectors is None:
            return []
        return await self._vectors.nearest(
            question.user,
            question.conversation,
            question.head,
            before=before,
            text="\n".join(question.new),
        )

    async def _hits(self, question: Question, before: int, keys: Sequence[int]) -> Hits:
        return await self._store.hits(
            question.user, question.conversation, question.head, before=before, keys=keys, cap=CAP
        )


def ranked_hits(query: Query, terms: Sequence[str], hits: Hits) -> list[Scored]:
    """The hits as the ranking takes them, ranked."""
    frequency = dict.fromkeys(terms, 0)
    rows: list[Hit] = []
    for at, found in enumerate(hits.found):
        bits = found
        counts: dict[str, int] = {}
        while bits:
            low = bits & -bits
            term = terms[low.bit_length() - 1]
            counts[term] = 1
            frequency[term] += 1
            bits ^= low
        when = datetime.fromtimestamp(hits.times[at], UTC)
        rows.append(
            Hit(
                hits.depths[at],
                hits.parts[at],
                hits.roles[at],
                when,
                hits.lengths[at],
                counts,
                hits.signals[at],
            )
        )
    passages = max(1, hits.passages)
    statistics = Statistics(hits.indexed + 1, passages, hits.total_length / passages, frequency)
    return rank(query, rows, statistics)


def wanted_places(ranked: Sequence[Scored], before: int) -> list[tuple[int, int]]:
    """Which passages' texts to read: the best, of a neighbour that was no hit its beginning, and the newest beside."""
    wanted: dict[tuple[int, int], None] = {}
    for one in ranked:
        if 0 <= one.place < before:
            wanted[one.place, one.part if one.part is not None else 0] = None
        if len(wanted) == MOST_TEXTS:
            return list(wanted)
    for place in range(before - 1, max(-1, before - 1 - MOST_TEXTS), -1):
        if len(wanted) == MOST_TEXTS:
            break
        wanted[place, 0] = None
    return list(wanted)
