"""A FAKE secret store, in memory: for tests of what stands above stores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from baatcheet.keys.secret import SecretKey
from baatcheet.keys.stores.model import KeySet, StoreChanged, StoreError, Versions


@dataclass
class _Kept:
    current: KeySet | None = None
    previous: KeySet | None = None
    pending: KeySet | None = None


class MemoryStore:
    """Keeps what a SecretStore promises to keep. `failure`, while it is set, is what every call raises."""

    writable = True

    def __init__(self, name: str) -> None:
        self.name = name
        self.failure: StoreError | None = None
        self._kept: dict[str, _Kept] = {}
        self._count = 0

    def _of(self, provider: str) -> _Kept:
        if self.failure is not None:
            raise self.failure
        return self._kept.setdefault(provider, _Kept())

    def _made(self, provider: str, keys: Sequence[SecretKey]) -> KeySet:
        self._count += 1
        return KeySet(provider, tuple(keys), f"v{self._count}")

    def put(self, provider: str, keys: Sequence[str]) -> None:
        """As an operator would."""
        made = self._made(provider, [SecretKey(one) for one in keys]) if keys else None
        self._kept.setdefault(provider, _Kept()).current = made

    async def fetch(self, providers: Sequence[str]) -> Mapping[str, KeySet]:
        found = {provider: self._of(provider).current for provider in providers}
        return {provider: one for provider, one in found.items() if one is not None}

    async def versions(self, provider: str) -> Versions:
        kept = self._of(provider)
        return Versions(kept.current, kept.previous, kept.pending)

    async def replace(self, provider: str, keys: Sequence[SecretKey]) -> str:
        kept = self._of(provider)
        kept.previous, kept.current = kept.current, self._made(provider, keys)
        return kept.current.version

    async def stage(self, provider: str, keys: Sequence[SecretKey]) -> str:
        kept = self._of(provider)
        kept.pending = self._made(provider, keys)
        return kept.pending.version

    async def promote(self, provider: str, version: str) -> str:
        kept = self._of(provider)
        if kept.pending is not None and kept.pending.version == version:
            kept.previous, kept.current, kept.pending = kept.current, kept.pending, None
        if kept.current is None or kept.current.version != version:
            raise StoreChanged(self.name, f"{provider}: somebody else has changed it")
        return version

    async def roll_back(self, provider: str, version: str) -> str:
        kept = self._of(provider)
        if kept.current is None or kept.current.version != version or kept.previous is None:
            raise StoreChanged(self.name, f"{provider}: somebody else has changed it")
        back = replace(kept.previous, version=self._made(provider, ()).version)
        kept.previous, kept.current = kept.current, back
        return back.version

    async def discard(self, provider: str) -> None:
        self._of(provider).pending = None

    async def close(self) -> None: ...
