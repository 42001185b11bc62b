"""Vectors of passages, by a FAKE provider whose vectors are hashed words, compared by the real pgvector."""

from collections.abc import AsyncIterator, Sequence
from uuid import UUID

import aiohttp
import pytest
import pytest_asyncio
from pydantic import SecretStr
from sqlalchemy import text

from baatcheet.context.embeddings import Near, Vectors, blended
from baatcheet.context.indexing import Indexer
from baatcheet.context.recall.ranking import Scored
from baatcheet.context.recollection import Question, Recaller
from baatcheet.context.store import ContextStore
from baatcheet.context.tokenizers import Tokenizers
from baatcheet.platform.database import Database
from baatcheet.platform.http import client_session
from baatcheet.providers.adapters.openai import OpenAIProvider, TimeLimits
from baatcheet.providers.catalogue import UnknownModel
from baatcheet.providers.model import ModelCard, Target
from baatcheet.providers.profiles import Profile
from tests.chat.test_long_conversations import chatter, conversation_of
from tests.conftest import Caller
from tests.scripted_provider import ScriptedProvider

MODEL = "lab/text-embedding-scripted"
CARD = ModelCard(provider="lab", name="text-embedding-scripted", context_window=8192, embedding=True)
FACT = "zorble quenched the vintner"


@pytest_asyncio.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with client_session() as made:
        yield made


def vectors_of(
    database: Database, session: aiohttp.ClientSession, provider: ScriptedProvider, model: str = MODEL
) -> Vectors:
    lab = OpenAIProvider(
        Profile(name="lab", base_url=provider.base_url),
        session,
        key=SecretStr("sk-lab"),
        limits=TimeLimits(2, 2, 2),
    )

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


def test_what_both_found_comes_before_what_one_of_them_found() -> None:
    ranked = [Scored(1, 0, 10.0), Scored(2, 0, 9.0), Scored(3, None, 4.0)]
    near = [Near(2, 0, 0.9), Near(7, 1, 0.8), Near(3, 0, 0.1)]
    made = blended(ranked, near)
    assert [(one.place, one.part) for one in made] == [(2, 0), (1, 0), (7, 1), (3, None)]
    assert blended(ranked, []) == ranked
