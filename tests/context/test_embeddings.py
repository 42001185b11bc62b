"""Vectors of passages, by a FAKE provider whose vectors are hashed words, compared by the real pgvector."""

import asyncio
import gc
from collections.abc import AsyncIterator, Sequence
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import aiohttp
import pytest
import pytest_asyncio
from sqlalchemy import text

from baatcheet.context import embeddings
from baatcheet.context.embeddings import Near, Vectors, blended
from baatcheet.context.indexing import Indexer
from baatcheet.context.recall.ranking import Scored
from baatcheet.context.recollection import Question, Recaller
from baatcheet.context.store import ContextStore, Hits
from baatcheet.context.tokenizers import Tokenizers
from baatcheet.keys.pool import KeyPool
from baatcheet.platform.database import Database, DatabaseUnavailable
from baatcheet.platform.http import client_session
from baatcheet.providers.adapters.openai import OpenAIAdapter, TimeLimits
from baatcheet.providers.catalogue import UnknownModel
from baatcheet.providers.model import ModelCard, Target
from baatcheet.providers.pooled import PooledProvider
from baatcheet.providers.profiles import Profile
from tests import servers
from tests.chat.test_long_conversations import chatter, conversation_of
from tests.conftest import Caller
from tests.scripted_provider import ScriptedProvider

MODEL = "lab/text-embedding-scripted"
CARD = ModelCard(provider="lab", name="text-embedding-scripted", context_window=8192, embedding=True)
FACT = "zorble quenched the vintner"


needs_pgvector = pytest.mark.skipif(
    servers.KIND != "embedded" and not servers.PGVECTOR.exists(), reason="this PostgreSQL has no pgvector"
)


@pytest_asyncio.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with client_session() as made:
        yield made


def vectors_of(
    database: Database, session: aiohttp.ClientSession, provider: ScriptedProvider, model: str = MODEL
) -> Vectors:
    profile = Profile(name="lab", base_url=provider.base_url)
    adapter = OpenAIAdapter(profile, session, limits=TimeLimits(2, 2, 2))
    lab = PooledProvider(adapter, KeyPool("lab"), keyless=True)

    async def targets(name: str) -> Sequence[Target]:
        if name != MODEL:
            raise UnknownModel(name, [])
        return [Target(lab, CARD)]

    return Vectors(database, model, targets)


class Talk:
    """A conversation that is indexed, the fact in its sixth message."""

    def __init__(self, user: UUID, conversation: UUID, head: UUID) -> None:
        self.user, self.conversation, self.head = user, conversation, head

    def question(self, asked: str) -> Question:
        return Question(self.user, self.conversation, self.head, [asked], [])


@pytest_asyncio.fixture
async def talk(alice: Caller, database: Database) -> Talk:
    said = [*chatter(5, words=16), FACT, *chatter(6, words=16)]
    conversation = UUID(await conversation_of(alice, said))
    async with database.system() as session:
        found = await session.scalar(
            text("SELECT head_id FROM conversations WHERE id = :id"), {"id": conversation}
        )
    assert isinstance(found, UUID)
    await Indexer(ContextStore(database)).index(alice.user_id, conversation, found, upto=len(said) - 1)
    return Talk(alice.user_id, conversation, found)


@needs_pgvector
async def test_the_nearest_passage_comes_first(
    talk: Talk, database: Database, session: aiohttp.ClientSession, scripted_provider: ScriptedProvider
) -> None:
    vectors = vectors_of(database, session, scripted_provider)
    assert await vectors.fill(talk.user, talk.conversation, talk.head) == 12
    assert await vectors.fill(talk.user, talk.conversation, talk.head) == 0, "what is there is not made again"
    near = await vectors.nearest(talk.user, talk.conversation, talk.head, before=12, text=FACT)
    assert near[0].place == 5
    assert near[0].cosine == pytest.approx(1.0, abs=1e-5)
    assert [one.cosine for one in near] == sorted([one.cosine for one in near], reverse=True)
    above = await vectors.nearest(talk.user, talk.conversation, talk.head, before=5, text=FACT)
    assert {one.place for one in above} == set(range(5))


async def test_another_user_finds_nothing(
    talk: Talk,
    bob: Caller,
    database: Database,
    session: aiohttp.ClientSession,
    scripted_provider: ScriptedProvider,
) -> None:
    vectors = vectors_of(database, session, scripted_provider)
    await vectors.fill(talk.user, talk.conversation, talk.head)
    assert await vectors.nearest(bob.user_id, talk.conversation, talk.head, before=12, text=FACT) == []
    assert await vectors.fill(bob.user_id, talk.conversation, talk.head) == 0


@needs_pgvector
async def test_what_no_word_finds_is_found_by_its_vector(
    talk: Talk, database: Database, session: aiohttp.ClientSession, scripted_provider: ScriptedProvider
) -> None:
    vectors = vectors_of(database, session, scripted_provider)
    await vectors.fill(talk.user, talk.conversation, talk.head)
    store = ContextStore(database)
    # Stop words alone: the search by words has nothing to look for.
    question = talk.question("the")
    found = await Recaller(store, Indexer(store), vectors).find(question, 12, 2_000)
    assert found.ranked
    by_words = await Recaller(store, Indexer(store)).find(question, 12, 2_000)
    assert not by_words.ranked


@pytest.mark.parametrize("broken", ["provider", "model"])
async def test_without_an_answer_words_alone_are_searched(
    talk: Talk, database: Database, session: aiohttp.ClientSession, broken: str
) -> None:
    with ScriptedProvider() as gone:
        vectors = vectors_of(database, session, gone, MODEL if broken == "provider" else "lab/unknown")
    assert await vectors.fill(talk.user, talk.conversation, talk.head) == 0
    store = ContextStore(database)
    found = await Recaller(store, Indexer(store), vectors).find(
        talk.question("Who quenched the vintner?"), 12, 2_000
    )
    excerpts = found.excerpts(2_000, 12, Tokenizers.stored)
    assert excerpts is not None
    assert FACT in excerpts.item.wire["content"]


async def test_an_error_of_the_vectors_costs_no_words(
    talk: Talk, database: Database, session: aiohttp.ClientSession, scripted_provider: ScriptedProvider
) -> None:
    vectors = vectors_of(database, session, scripted_provider)

    async def broken(*_: object, **__: object) -> list[Near]:
        raise ValueError("an odd answer")

    vectors.nearest = broken  # type: ignore[method-assign]
    store = ContextStore(database)
    found = await Recaller(store, Indexer(store), vectors).find(
        talk.question("Who quenched the vintner?"), 12, 2_000
    )
    assert found.ranked[0].place == 5


@pytest.mark.parametrize("fails", [True, False])
async def test_nothing_goes_on_for_a_search_that_failed(
    talk: Talk, database: Database, session: aiohttp.ClientSession, *, fails: bool
) -> None:
    lost: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, told: lost.append(told))
    with ScriptedProvider() as gone:
        vectors = vectors_of(database, session, gone)
    given_up = asyncio.Event()

    async def slow(*_: object, **__: object) -> list[Near]:
        if fails:
            raise ValueError("an odd answer")
        try:
            await asyncio.sleep(60)
        finally:
            given_up.set()
        return []

    vectors.nearest = slow  # type: ignore[method-assign]

    class Away(ContextStore):
        async def hits(self, *_: object, **__: object) -> Hits:
            await asyncio.sleep(0.01)
            raise DatabaseUnavailable("away")

    store = Away(database)
    with pytest.raises(DatabaseUnavailable):
        await Recaller(store, Indexer(store), vectors).find(talk.question("Who quenched it?"), 12, 2_000)
    await asyncio.sleep(0.01)
    gc.collect()
    assert lost == []
    assert given_up.is_set() is not fails


@needs_pgvector
async def test_processes_that_start_together_can_all_use_vectors(
    database: Database, session: aiohttp.ClientSession, scripted_provider: ScriptedProvider
) -> None:
    for _ in range(6):
        async with database.hot() as connection:
            await connection.execute("DROP EXTENSION IF EXISTS vector")
        processes = [vectors_of(database, session, scripted_provider) for _ in range(4)]
        usable = await asyncio.gather(*[one.usable() for one in processes])
        assert all(usable)


@needs_pgvector
async def test_only_a_definite_refusal_is_remembered(
    database: Database,
    session: aiohttp.ClientSession,
    scripted_provider: ScriptedProvider,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with database.hot() as connection:
        await connection.execute("DROP EXTENSION IF EXISTS vector")
    right = embeddings._EXTENSION
    vectors = vectors_of(database, session, scripted_provider)
    monkeypatch.setattr(embeddings, "_EXTENSION", "SELECT 1 / 0")
    assert not await vectors.usable()
    monkeypatch.setattr(embeddings, "_EXTENSION", right)
    assert await vectors.usable(), "that was no answer to the question"
    async with database.hot() as connection:
        await connection.execute("DROP EXTENSION IF EXISTS vector")
    vectors = vectors_of(database, session, scripted_provider)
    monkeypatch.setattr(embeddings, "_EXTENSION", "CREATE EXTENSION no_such_extension")
    assert not await vectors.usable()
    monkeypatch.setattr(embeddings, "_EXTENSION", right)
    assert not await vectors.usable()
    assert await vectors_of(database, session, scripted_provider).usable()


@needs_pgvector
async def test_a_vector_without_a_direction_is_near_to_nothing(
    talk: Talk, database: Database, session: aiohttp.ClientSession, scripted_provider: ScriptedProvider
) -> None:
    vectors = vectors_of(database, session, scripted_provider)
    await vectors.fill(talk.user, talk.conversation, talk.head)
    async with database.hot() as connection:
        await connection.execute(
            "UPDATE passage_embeddings e SET embedding = array_fill(0::real, ARRAY[cardinality(e.embedding)]) "
            "FROM recall_passages p WHERE p.id = e.passage_id AND p.conversation_id = $1 AND p.depth = 2",
            talk.conversation,
        )
    near = await vectors.nearest(talk.user, talk.conversation, talk.head, before=12, text=FACT)
    assert near[0].place == 5
    assert {one.place for one in near} == set(range(12)) - {2}


async def test_a_database_that_takes_its_time_is_not_waited_for(
    talk: Talk,
    database: Database,
    session: aiohttp.ClientSession,
    scripted_provider: ScriptedProvider,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vectors = vectors_of(database, session, scripted_provider)
    await vectors.fill(talk.user, talk.conversation, talk.head)
    slow = embeddings._NEAREST.replace("FROM branch_path", "FROM pg_sleep(5), branch_path")
    assert "pg_sleep" in slow
    monkeypatch.setattr(embeddings, "_NEAREST", slow)
    loop = asyncio.get_running_loop()
    began = loop.time()
    near = await vectors.nearest(talk.user, talk.conversation, talk.head, before=12, text=FACT)
    assert near == []
    assert loop.time() - began < 2 * embeddings.PATIENCE
    async with database.hot() as connection:
        running = await connection.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid() "
            "AND datname = current_database() AND query LIKE '%pg_sleep%'"
        )
    assert running == 0, "the server has given up, too"


@needs_pgvector
async def test_missing_vectors_are_looked_for_once_and_made_in_batches(
    talk: Talk,
    database: Database,
    session: aiohttp.ClientSession,
    scripted_provider: ScriptedProvider,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(embeddings, "BATCH", 5)
    monkeypatch.setattr(embeddings, "MOST_AT_ONCE", 11)
    vectors = vectors_of(database, session, scripted_provider)
    asked: list[int] = []
    embed = vectors._embed

    async def noted(texts: Sequence[str], patience: float) -> list[list[float]] | None:
        asked.append(len(texts))
        return await embed(texts, patience)

    vectors._embed = noted  # type: ignore[method-assign]
    assert await vectors.fill(talk.user, talk.conversation, talk.head) == 11
    assert asked == [5, 5, 1]
    assert await vectors.fill(talk.user, talk.conversation, talk.head) == 1, "the rest, after another turn"
    near = await vectors.nearest(talk.user, talk.conversation, talk.head, before=12, text=FACT)
    assert len(near) == 12


@pytest.mark.parametrize("odd", [[float("inf")], [1e300], [float("nan")]])
async def test_numbers_that_no_vector_has_are_no_answer(
    talk: Talk,
    database: Database,
    session: aiohttp.ClientSession,
    scripted_provider: ScriptedProvider,
    monkeypatch: pytest.MonkeyPatch,
    odd: list[float],
) -> None:
    async def answers(*_: object) -> Any:
        data = [{"index": at, "embedding": [0.5, *odd]} for at in range(12)]
        return SimpleNamespace(raw=str({"data": data}).replace("'", '"').encode())

    monkeypatch.setattr(embeddings, "embed_first", answers)
    vectors = vectors_of(database, session, scripted_provider)
    assert await vectors.fill(talk.user, talk.conversation, talk.head) == 0


def test_what_both_found_comes_before_what_one_of_them_found() -> None:
    ranked = [Scored(1, 0, 10.0), Scored(2, 0, 9.0), Scored(3, None, 4.0)]
    near = [Near(2, 0, 0.9), Near(7, 1, 0.8), Near(3, 0, 0.1)]
    made = blended(ranked, near)
    assert [(one.place, one.part) for one in made] == [(2, 0), (1, 0), (7, 1), (3, None)]
    assert blended(ranked, []) == ranked
