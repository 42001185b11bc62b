"""A FAKE secret store in one JSON file, replaced atomically: what a killed process has kept is there for the next."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from uuid import uuid4

from baatcheet.keys.secret import SecretKey
from baatcheet.keys.stores.model import KeySet, StoreChanged, StoreUnavailable, Versions

SETS = ("current", "previous", "pending")
Kept = dict[str, tuple[str, list[str]] | None]


class FakeStore:
    """`step` is called before and after everything that is done; `away`: nothing answers."""

    name = "file"

    def __init__(self, path: Path, *, writable: bool = True, step: Callable[[], None] = lambda: None) -> None:
        self._path = path
        self._step = step
        self.writable = writable
        self.away = False

    async def fetch(self, providers: Sequence[str]) -> Mapping[str, KeySet]:
        found = {provider: (await self.versions(provider)).current for provider in providers}
        return {provider: keys for provider, keys in found.items() if keys is not None}

    async def versions(self, provider: str) -> Versions:
        self._step()
        kept = self._read(provider)
        sets = {
            name: KeySet(provider, tuple(SecretKey(key) for key in one[1]), one[0])
            for name, one in kept.items()
            if one is not None
        }
        return Versions(sets.get("current"), sets.get("previous"), sets.get("pending"))

    async def replace(self, provider: str, keys: Sequence[SecretKey]) -> str:
        kept = self._read(provider)
        version = uuid4().hex
        return self._write(
            provider, {**kept, "current": (version, _texts(keys)), "previous": kept["current"]}, version
        )

    async def stage(self, provider: str, keys: Sequence[SecretKey]) -> str:
        version = uuid4().hex
        return self._write(provider, {**self._read(provider), "pending": (version, _texts(keys))}, version)

    async def promote(self, provider: str, version: str) -> str:
        kept = self._read(provider)
        current, pending = kept["current"], kept["pending"]
        if pending is None and current is not None and current[0] == version:
            return version
        if pending is None or pending[0] != version:
            raise StoreChanged(self.name, "something else is staged")
        return self._write(provider, {"current": pending, "previous": current, "pending": None}, version)

    async def roll_back(self, provider: str, version: str) -> str:
        kept = self._read(provider)
        current, previous = kept["current"], kept["previous"]
        if current is None or previous is None or current[0] != version:
            raise StoreChanged(self.name, "another set is current")
        return self._write(provider, {**kept, "current": previous, "previous": current}, previous[0])

    async def discard(self, provider: str) -> None:
        self._write(provider, {**self._read(provider), "pending": None}, "")

    async def close(self) -> None: ...

    def _read(self, provider: str) -> Kept:
        if self.away:
            raise StoreUnavailable(self.name, "it is away")
        everything = json.loads(self._path.read_text()) if self._path.exists() else {}
        kept: Kept = dict.fromkeys(SETS) | everything.get(provider, {})
        return kept

    def _write(self, provider: str, kept: Kept, version: str) -> str:
        self._step()
        everything = json.loads(self._path.read_text()) if self._path.exists() else {}
        beside = self._path.with_suffix(".new")
        beside.write_text(json.dumps(everything | {provider: kept}))
        beside.replace(self._path)
        self._step()
        return version


class FakeRing:
    """What a rotation asks of the ring: the store above, and fingerprints. It serves nothing by itself."""

    def __init__(self, *stores: FakeStore, empty: Sequence[str] = ()) -> None:
        self.stores = stores
        self.refreshed = 0
        self.failing: dict[str, str] = {}
        self._empty = empty

    def store_of(self, provider: str) -> FakeStore | None:
        return None if provider in self._empty else self.stores[0]

    def fingerprint(self, provider: str, key: SecretKey) -> str:
        return key.fingerprint(b"tests", provider)

    async def refresh(self) -> None:
        self.refreshed += 1


def _texts(keys: Sequence[SecretKey]) -> list[str]:
    return [key.reveal() for key in keys]
