"""What runs turns in an API process, run in the process of the tests: with a short lease, and in reach."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from uuid import UUID

from baatcheet.auth.bootstrap import ensure_admin
from baatcheet.auth.principal import Principal
from baatcheet.auth.rate_limits import RateLimits
from baatcheet.auth.service import Authenticator
from baatcheet.budgets.admission import Budgets
from baatcheet.chat.feed import TurnFeed
from baatcheet.chat.keeper import Keeper, Rhythm
from baatcheet.chat.run import TurnRequest
from baatcheet.chat.store import NewConversation
from baatcheet.context.tokenizers import Tokenizers
from baatcheet.entrypoints.contexts import build_context
from baatcheet.entrypoints.streaming import Chat, build_chat
from baatcheet.kit.ids import new_id
from baatcheet.platform.cache import Cache
from baatcheet.platform.database import Database
from baatcheet.platform.http import client_session
from baatcheet.platform.migrate import upgrade
from baatcheet.platform.settings import load
from baatcheet.platform.telemetry import Metrics
from baatcheet.providers.catalogue import build_catalogue
from tests.conftest import ADMIN_TOKEN
from tests.servers import at

QUICK = Rhythm(flush=0.3, beat=1.0, lease=4.0, reap=1.4)  # a third of what it is by default


@dataclass(frozen=True)
class Living:
    """What runs turns in an API process, here in the process of the tests."""

    chat: Chat
    database: Database
    who: Principal

    async def start(self, message: str, *, conversation: UUID | None = None) -> TurnFeed:
        """Begin a turn, in a new conversation unless another is named."""
        opens = NewConversation("A conversation") if conversation is None else None
        said = [{"role": "user", "content": message}]
        request = TurnRequest(said, conversation_id=conversation, opens=opens)
        return await self.chat.service.start(self.who, request)

    async def backends(self) -> set[int]:
        """The server processes behind the pool."""
        async with self.database.hot() as connection:
            same = "application_name = current_setting('application_name')"
            return {
                row[0] for row in await connection.fetch(f"SELECT pid FROM pg_stat_activity WHERE {same}")
            }


@asynccontextmanager
async def living(
    url: str,
    environment: Mapping[str, str],
    *,
    pool_size: int = 5,
    deadline: float = 3,
    rhythm: Rhythm = QUICK,
    redis: bool = False,
) -> AsyncIterator[Living]:
    """The chat of an API process, with a shorter lease."""
    own = {**at(environment, url), "BAATCHEET_DB_CHECKOUT_TIMEOUT": str(deadline)}
    if redis:
        own["BAATCHEET_CACHE_TIMEOUT"] = "2"  # a slow machine is not what is tested
    else:
        del own["REDIS_URL"]
    settings = load(own, dotenv=None)
    database = Database(settings.database, pool_size=pool_size, name=f"living {new_id().hex}")
    authenticator = Authenticator(database)
    cache, process = Cache(settings.cache), new_id()
    await cache.start()
    async with client_session() as session:
        catalogue = build_catalogue(settings.providers, session)
        context = build_context(
            settings.context, db=database, cache=cache, catalogue=catalogue, tokenizers=Tokenizers()
        )
        chat = build_chat(
            settings,
            db=database,
            cache=cache,
            catalogue=catalogue,
            context=context,
            authenticator=authenticator,
            limits=RateLimits(settings.auth, cache),
            process=process,
            metrics=Metrics(),
            budgets=Budgets(database),
        )
        keeper = Keeper(
            chat.store, process, kind="api", pool_size=pool_size, chat=chat.service, rhythm=rhythm
        )
        chat = replace(chat, keeper=keeper)
        await chat.start()
        try:
            who = await authenticator.authenticate(f"Bearer {ADMIN_TOKEN}")
            yield Living(chat, database, who)
        finally:
            await chat.stop(0, lambda: 5.0)
            await context.close(1)
            await catalogue.close()
            await authenticator.close(patience=1)
            await cache.close()
            await database.close()


def prepare(url: str, environment: Mapping[str, str]) -> None:
    """Give the database at `url` its tables and its administrator."""
    upgrade(url)
    ensure_admin(url, load(at(environment, url), dotenv=None).auth)
