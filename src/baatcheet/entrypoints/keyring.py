"""The keys of one process put together: the stores that the settings name, and the ring that serves what is in them."""

from collections.abc import Callable
from contextlib import AsyncExitStack

from baatcheet.entrypoints.notices import direct_connection, hears_notices
from baatcheet.keys.pools import Pools
from baatcheet.keys.ring import PATIENCE, KeyRing
from baatcheet.keys.secret import SecretKey
from baatcheet.keys.stores.building import build_stores
from baatcheet.platform.database import Database
from baatcheet.platform.key_variables import KEY_VARIABLES
from baatcheet.platform.logging import get_logger
from baatcheet.platform.settings import Settings, SettingsError
from baatcheet.platform.telemetry import Metrics

log = get_logger(__name__)


def keys_of_environment(settings: Settings) -> dict[str, tuple[SecretKey, ...]]:
    """The keys that stand in the environment, by provider."""
    return {
        provider: tuple(SecretKey(key.get_secret_value()) for key in keys)
        for provider, keys in settings.provider_keys.items()
    }


def build_ring(
    settings: Settings, db: Database, metrics: Metrics | None = None, *, listens: bool = True
) -> KeyRing:
    """The ring, not yet started. `listens` False: for one command. Raises SettingsError."""
    secrets = settings.secrets
    stores = build_stores(secrets, keys_of_environment(settings))
    try:
        pools = Pools(secrets.key_limits)
    except ValueError as error:
        raise SettingsError(f"BAATCHEET_KEY_LIMITS: {error}.") from None
    return KeyRing(
        db,
        stores,
        [*KEY_VARIABLES, *(custom.name for custom in settings.providers.custom)],
        pools,
        refresh_seconds=secrets.refresh_seconds,
        connect=direct_connection(settings) if listens and hears_notices(settings, db) else None,
        metrics=metrics,
    )


def check_named_keys(settings: Settings, ring: KeyRing) -> None:
    """Raises SettingsError for a provider of one's own that names a variable for its key, and has none anywhere."""
    for custom in settings.providers.custom:
        if custom.api_key_env is not None and not ring.current(custom.name):
            raise SettingsError(
                f"BAATCHEET_PROVIDERS: provider {custom.name!r} takes its key from {custom.api_key_env}, which is not "
                f"set, and no secret store has one. Set it (example: {custom.api_key_env}=sk-...), or put the key into "
                f"a store: baatcheet secrets set {custom.name}"
            )


async def open_ring(
    settings: Settings,
    db: Database,
    stack: AsyncExitStack,
    metrics: Metrics | None = None,
    *,
    patience: Callable[[], float] = lambda: PATIENCE,
) -> KeyRing:
    """The ring, serving; `stack` closes it. Raises SettingsError when a store can't be read."""
    ring = build_ring(settings, db, metrics)
    stack.push_async_callback(ring.close, patience)
    await ring.start()
    check_named_keys(settings, ring)
    bare = [
        provider
        for provider in ring.providers
        if (store := ring.store_of(provider)) is not None and store.name == "environment"
    ]
    if bare:
        log.warning(
            "keys.in_environment",
            providers=bare,
            meaning="whoever sees the environment or .env sees these keys; `baatcheet secrets import .env` moves them",
        )
    return ring
