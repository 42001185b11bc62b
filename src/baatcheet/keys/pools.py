"""The pools of one process, by provider."""

from collections.abc import Iterator, Mapping, Sequence
from secrets import token_bytes

from baatcheet.keys.limits import Limits, limits_of
from baatcheet.keys.pool import KeyPool, PooledKey
from baatcheet.keys.secret import SecretKey


class Pools:
    """One pool per provider, made when it is first asked for, and then the same for all who ask."""

    def __init__(self, overrides: Mapping[str, Mapping[str, int]] | None = None) -> None:
        """`overrides`: BAATCHEET_KEY_LIMITS. Raises ValueError for a limit that does not exist."""
        self._overrides = overrides or {}
        for provider in self._overrides:
            limits_of(provider, self._overrides)
        self._pools: dict[str, KeyPool] = {}

    def of(self, provider: str) -> KeyPool:
        """The provider's pool, possibly without keys."""
        pool = self._pools.get(provider)
        if pool is None:
            pool = self._pools[provider] = KeyPool(provider, self.limits(provider))
        return pool

    def limits(self, provider: str) -> Limits:
        """What one of its keys may be used for."""
        return limits_of(provider, self._overrides)

    def __iter__(self) -> Iterator[KeyPool]:
        return iter(list(self._pools.values()))


def pools_with(keys: Mapping[str, Sequence[SecretKey]]) -> Pools:
    """Pools with these keys that nobody keeps up to date, for one command: without limits, and ids of their own."""
    secret = token_bytes(32)
    pools = Pools({provider: {"requests_per_day": 0, "tokens_per_minute": 0} for provider in keys})
    for provider, some in keys.items():
        pooled = [PooledKey(key.fingerprint(secret, provider), key.hint, key) for key in some]
        pools.of(provider).replace(pooled)
    return pools
