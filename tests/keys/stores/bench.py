"""What the contract suite needs of each store's surroundings."""

from typing import Protocol

from baatcheet.keys.stores.model import SecretStore


class StoreBench(Protocol):
    """One real place where keys are kept, empty at first, and clients of it."""

    name: str  # what the store calls itself
    writable: bool
    remote: bool  # whether it can be away

    def store(self) -> SecretStore:
        """A new client of the place."""
        ...

    async def put(self, provider: str, keys: list[str]) -> None:
        """Keys as an operator would put them there, with other tools than ours."""
        ...

    async def spoil(self, provider: str, secret: str) -> None:
        """Make what is kept for `provider` unreadable as keys, with the text `secret` in it."""
        ...

    async def take_away(self) -> None:
        """Nothing answers any more, until `bring_back`."""
        ...

    async def bring_back(self) -> None: ...

    async def hang(self) -> None:
        """It accepts connections and answers nothing, until `bring_back`."""
        ...

    async def refuse(self) -> None:
        """It answers that these credentials are wrong, until `bring_back`."""
        ...
