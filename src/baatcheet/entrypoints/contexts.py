"""The context's parts put together."""

from baatcheet.context.compaction import Compactor
from baatcheet.context.embeddings import Vectors
from baatcheet.context.indexing import Indexer
from baatcheet.context.manager import ContextManager
from baatcheet.context.recents import RecentBranches
from baatcheet.context.recollection import Recaller
from baatcheet.context.store import ContextStore
from baatcheet.context.summaries.by_model import ModelSummarizer
from baatcheet.context.summaries.extractive import ExtractiveSummarizer
from baatcheet.context.summaries.fallback import WithFallback
from baatcheet.context.summaries.sections import Summarizer
from baatcheet.context.tokenizers import Tokenizers
from baatcheet.platform.cache import Cache
from baatcheet.platform.database import Database
from baatcheet.platform.settings import ContextSettings
from baatcheet.providers.catalogue import Catalogue


def build_context(
    settings: ContextSettings, *, db: Database, cache: Cache, catalogue: Catalogue, tokenizers: Tokenizers
) -> ContextManager:
    store = ContextStore(db)
    indexer = Indexer(store)
    vectors = None
    if settings.embedding_model is not None:
        vectors = Vectors(db, settings.embedding_model, catalogue.resolve_embedding)
    quick = ExtractiveSummarizer()
    return ContextManager(
        settings,
        store=store,
        recents=RecentBranches(most_messages=settings.max_messages, budget=settings.max_tokens, cache=cache),
        recaller=Recaller(store, indexer, vectors),
        compactor=Compactor(
            store,
            indexer,
            lambda: _summarizer(settings, catalogue, quick),
            quick=quick,
            max_messages=settings.max_messages,
            vectors=vectors,
        ),
        tokenizers=tokenizers,
    )


def _summarizer(settings: ContextSettings, catalogue: Catalogue, otherwise: Summarizer) -> Summarizer:
    name = settings.summary_model
    if name is None:
        return otherwise
    return WithFallback(ModelSummarizer(lambda: catalogue.resolve(name)), otherwise)
