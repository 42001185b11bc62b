"""Where this deployment's notices (LISTEN, NOTIFY) are heard."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from baatcheet.platform.database import Database, connect
from baatcheet.platform.settings import Settings


def hears_notices(settings: Settings, db: Database) -> bool:
    """Whether a LISTEN reaches the server itself: a transaction pooler would lend its session to others."""
    return settings.database.direct_url is not None or not db.pooled_by_transaction


def direct_connection(settings: Settings) -> Callable[[], Awaitable[Any]]:
    """Opens a connection outside any pool, past a pooler where DATABASE_DIRECT_URL says how."""
    url = settings.database.direct_url or settings.database.url
    assert url is not None
    return partial(connect, url.get_secret_value())
