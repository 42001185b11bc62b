"""Keys in the process's own environment (or `.env`): read once, for development."""

from collections.abc import Mapping, Sequence
from typing import Final, NoReturn

from baatcheet.keys.secret import SecretKey
from baatcheet.keys.stores.model import KeySet, ReadOnlyStore, Versions
from baatcheet.platform.key_variables import variable_of

VERSION: Final = "environment"


class EnvironmentStore:
    """What the variables held when the process started. It is only read: variables can't be changed from within.

    Every process and everybody who may look at it (`/proc`, `docker inspect`, a crash report) sees an environment.
    """

    name: Final = "environment"
    writable: Final = False

    def __init__(self, keys: Mapping[str, Sequence[SecretKey]]) -> None:
        """`keys`: by provider, as the settings found them."""
        self._keys = {provider: tuple(dict.fromkeys(found)) for provider, found in keys.items() if found}

    async def fetch(self, providers: Sequence[str]) -> Mapping[str, KeySet]:
        return {one: KeySet(one, self._keys[one], VERSION) for one in providers if one in self._keys}

    async def versions(self, provider: str) -> Versions:
        return Versions(current=(await self.fetch([provider])).get(provider))

    async def replace(self, provider: str, keys: Sequence[SecretKey]) -> str:
        self._refuse(provider)

    async def stage(self, provider: str, keys: Sequence[SecretKey]) -> str:
        self._refuse(provider)

    async def promote(self, provider: str, version: str) -> str:
        self._refuse(provider)

    async def roll_back(self, provider: str, version: str) -> str:
        self._refuse(provider)

    async def discard(self, provider: str) -> None:
        self._refuse(provider)

    async def close(self) -> None:
        """Nothing is open."""

    def _refuse(self, provider: str) -> NoReturn:
        raise ReadOnlyStore(
            self.name,
            f"the keys of {provider} are in {variable_of(provider)}…, which can't be changed from here. Move them with "
            "`baatcheet secrets import .env`, and delete them there.",
        )
