"""The context's parts put together."""

from baatcheet.context.compaction import Compactions, Compactor
from baatcheet.context.embeddings import Vectors
from baatcheet.context.indexing import Indexer
from baatcheet.context.jobs import QueuedCompactions
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
from baatcheet.providers.routing.model import Models


def build_context(
    settings: ContextSettings,
    *,
    db: Database,
    cache: Cache,
    catalogue: Models,
    tokenizers: Tokenizers,
    compactions: Compactions | None = None,
) -> ContextManager:
    """`compactions`: who makes summaries; jobs unless given."""
    store = ContextStore(db)
    return ContextManager(
        settings,
        store=store,
        recents=RecentBranches(most_messages=settings.max_messages, budget=settings.max_tokens, cache=cache),
        recaller=Recaller(store, Indexer(store), _vectors(settings, db, catalogue)),
        compactions=compactions or QueuedCompactions(db),
        tokenizers=tokenizers,
    )


def build_compactor(settings: ContextSettings, *, db: Database, catalogue: Models) -> Compactor:
    store = ContextStore(db)
    quick = ExtractiveSummarizer()
    return Compactor(
        store,
        Indexer(store),
        lambda: _summarizer(settings, catalogue, quick),
        quick=quick,
        max_messages=settings.max_messages,
        vectors=_vectors(settings, db, catalogue),
    )


def _vectors(settings: ContextSettings, db: Database, catalogue: Models) -> Vectors | None:
    if settings.embedding_model is None:
        return None
    return Vectors(db, settings.embedding_model, catalogue.resolve_embedding)


def _summarizer(settings: ContextSettings, catalogue: Models, otherwise: Summarizer) -> Summarizer:
    name = settings.summary_model
    if name is None:
        return otherwise
    return WithFallback(ModelSummarizer(lambda: catalogue.resolve(name)), otherwise)
