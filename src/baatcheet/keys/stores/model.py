"""The interface that every secret store answers, and the values that pass through it.

A store keeps, for each provider by name (`groq`, `openrouter`, `ocr_space`, the name of a server of one's own), up to
three sets of keys: the current one, the previous one, and a pending one that a rotation has staged.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from baatcheet.keys.secret import SecretKey


@dataclass(frozen=True, slots=True)
class KeySet:
    """The keys of one provider, in the store's order. `version`: the store's name for this state of them."""

    provider: str
    keys: tuple[SecretKey, ...]
    version: str


@dataclass(frozen=True, slots=True)
class Versions:
    """What a store keeps for one provider."""

    current: KeySet | None = None
    previous: KeySet | None = None
    pending: KeySet | None = None


class StoreError(Exception):
    """A store did not do what was asked. The message names the store and the secret, says what to do, holds no key.

    `found`: where one provider's secret is at fault, the sets of the others.
    """

    def __init__(self, store: str, message: str, found: Mapping[str, KeySet] | None = None) -> None:
        super().__init__(f"{store}: {message}")
        self.store = store
        self.found = dict(found or {})


class StoreUnavailable(StoreError):
    """It can't be reached, or not now: what is known of it stays in force, and it is asked again."""


class StoreRefused(StoreError):
    """It was reached and refuses: wrong credentials, no permission."""


class StoreMalformed(StoreError):
    """What it holds can't be read as keys."""


class StoreChanged(StoreError):
    """Somebody else has changed the secret meanwhile: read it anew, and decide anew."""


class ReadOnlyStore(StoreError):
    """This store is only read."""


class SecretStore(Protocol):
    """One place where keys are kept. Every method raises StoreError and nothing else, and is bounded in time."""

    @property
    def name(self) -> str:
        """`environment`, `file`, `aws` or `vault`."""
        ...

    @property
    def writable(self) -> bool: ...

    async def fetch(self, providers: Sequence[str]) -> Mapping[str, KeySet]:
        """The current set of each of `providers` that has one here, all read anew."""
        ...

    async def versions(self, provider: str) -> Versions:
        """All three sets of one provider, read anew."""
        ...

    async def replace(self, provider: str, keys: Sequence[SecretKey]) -> str:
        """Make `keys` current; what was current becomes previous. Returns the new version. Raises ReadOnlyStore."""
        ...

    async def stage(self, provider: str, keys: Sequence[SecretKey]) -> str:
        """Make `keys` pending, in place of what was pending. Returns their version. Raises ReadOnlyStore."""
        ...

    async def promote(self, provider: str, version: str) -> str:
        """Make the pending set current and the current one previous, in one step; returns the current version.

        Done already (nothing pending, and the current keys are those of `version`): nothing changes. Raises
        StoreChanged when neither holds, ReadOnlyStore.
        """
        ...

    async def roll_back(self, provider: str, version: str) -> str:
        """Make the previous set current again, when the current one is `version`; returns the current version.

        The set that is given up becomes the previous one. Raises StoreChanged when the current set is another one,
        ReadOnlyStore.
        """
        ...

    async def discard(self, provider: str) -> None:
        """Forget what is pending, if anything is. Raises ReadOnlyStore."""
        ...

    async def close(self) -> None: ...
