"""The database that a one-off command works on."""

from collections.abc import Iterator
from contextlib import contextmanager

from baatcheet.platform.embedded import attach
from baatcheet.platform.settings import Settings


@contextmanager
def database_url(settings: Settings, *, direct: bool = False) -> Iterator[str]:
    """DATABASE_URL, else the embedded PostgreSQL: the one that a running `serve` has, or started meanwhile.

    `direct`: past PgBouncer, where DATABASE_DIRECT_URL says how. Raises EmbeddedError.
    """
    given = (settings.database.direct_url if direct else None) or settings.database.url
    if given is not None:
        yield given.get_secret_value()
        return
    with attach(settings.embedded) as addresses:
        assert addresses.database_url is not None
        yield addresses.database_url
