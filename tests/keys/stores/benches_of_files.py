"""The contract suite's surroundings of the two stores that are on this machine."""

import base64
import os
from pathlib import Path

import ecies
from coincurve import PrivateKey

from baatcheet.keys.secret import SecretKey
from baatcheet.keys.stores.encrypted_file import EncryptedFileStore
from baatcheet.keys.stores.environment import EnvironmentStore
from baatcheet.keys.stores.model import SecretStore
from baatcheet.keys.stores.private_keys import KeyFileSource, PrivateKeys
from baatcheet.platform.key_variables import variable_of


class _AlwaysThere:
    remote = False

    async def take_away(self) -> None:
        raise NotImplementedError("it is on this machine")

    async def bring_back(self) -> None:
        raise NotImplementedError("it is on this machine")

    async def hang(self) -> None:
        raise NotImplementedError("it is on this machine")

    async def refuse(self) -> None:
        raise NotImplementedError("it is on this machine")


class EnvironmentBench(_AlwaysThere):
    """Variables of a process. They never change while it runs: a new store is a new process."""

    name = "environment"
    writable = False

    def __init__(self, tmp_path: Path) -> None:
        self._keys: dict[str, tuple[SecretKey, ...]] = {}

    def store(self) -> SecretStore:
        return EnvironmentStore(self._keys)

    async def put(self, provider: str, keys: list[str]) -> None:
        self._keys[provider] = tuple(SecretKey(key) for key in keys)

    async def spoil(self, provider: str, secret: str) -> None:
        raise NotImplementedError("the settings refuse what is no key before there is a store")


class FileBench(_AlwaysThere):
    """A file that was encrypted with the library alone, as dotenvx writes it."""

    name = "file"
    writable = True

    def __init__(self, tmp_path: Path) -> None:
        self.path = tmp_path / ".env.secrets"
        self.key_file = tmp_path / ".env.keys"
        private = PrivateKey(os.urandom(32))
        self.public = private.public_key.format().hex()
        self.path.write_text(f'DOTENV_PUBLIC_KEY_SECRETS="{self.public}"\n')
        self.key_file.write_text(f"# .env.secrets\nDOTENV_PRIVATE_KEY_SECRETS={private.to_hex()}")

    def store(self) -> SecretStore:
        return EncryptedFileStore(self.path, PrivateKeys([KeyFileSource(self.key_file)]))

    async def put(self, provider: str, keys: list[str]) -> None:
        self._write(
            provider,
            [
                "encrypted:" + base64.b64encode(ecies.encrypt(self.public, key.encode())).decode()
                for key in keys
            ],
        )

    async def spoil(self, provider: str, secret: str) -> None:
        self._write(provider, ["encrypted:" + base64.b64encode(os.urandom(90) + secret.encode()).decode()])

    def _write(self, provider: str, values: list[str]) -> None:
        name = variable_of(provider)
        kept = [line for line in self.path.read_text().splitlines() if not line.startswith(f"{name}_")]
        new = [f'{name}_{number}="{value}"' for number, value in enumerate(values, 1)]
        self.path.write_text("\n".join([*kept, *new]) + "\n")
