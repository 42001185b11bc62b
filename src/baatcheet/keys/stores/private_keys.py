"""Where the private key of an encrypted file comes from: a variable, a file, or the operating system's keyring."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn, Protocol

from pydantic import SecretStr

from baatcheet.keys.secret import KeyNotUsable, SecretKey
from baatcheet.keys.stores.dotenvx import (
    Document,
    KeyPair,
    NotAPrivateKey,
    assignment,
    private_keys_in,
    public_of,
    variable_names,
)
from baatcheet.keys.stores.files import locked, put_in_place
from baatcheet.keys.stores.model import StoreRefused, StoreUnavailable
from baatcheet.platform.redaction import register_secret
from baatcheet.platform.settings import SecretSettings

KEY_FILE: Final = ".env.keys"
LOCK_SECONDS: Final = 5.0
_STORE: Final = "file"
_KEYRING: Final = "dotenvx"  # the service's name in the keyring, dotenvx's own
_HEADER: Final = """\
#/------------------!DOTENV_PRIVATE_KEYS!-------------------/
#/ private decryption keys. DO NOT commit to source control /
#/     [how it works](https://dotenvx.com/encryption)       /
#/----------------------------------------------------------/
"""


class PrivateKeySource(Protocol):
    """One place that may hold private keys. Raises StoreError where it can't be read or written."""

    @property
    def where(self) -> str:
        """For people: `DOTENV_PRIVATE_KEY_SECRETS`, `/etc/baatcheet/.env.keys`."""
        ...

    def read(self, name: str, public_key: str | None) -> tuple[SecretKey, ...]:
        """The private keys here for a file whose private key's variable is `name`; none where there are none."""
        ...


class KeptPrivateKeys(PrivateKeySource, Protocol):
    """One that BaatCheet can write to."""

    def add(self, name: str, pair: KeyPair) -> None:
        """Keep one more. Those that are there stay, and come first."""
        ...

    def keep_only(self, name: str, pair: KeyPair, old: Sequence[SecretKey]) -> None:
        """Forget the `old` ones."""
        ...


class VariableSource:
    """A variable's value, as it was when the process started."""

    def __init__(self, where: str, value: SecretStr) -> None:
        self.where = where
        self._value = value

    def read(self, name: str, public_key: str | None) -> tuple[SecretKey, ...]:
        return _keys(self.where, self._value.get_secret_value())

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("a private key is not pickled or copied")


class KeyFileSource:
    """A file: as dotenvx writes it (`NAME=hex`, or `NAME=hex,hex`), or with nothing but the private key."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.where = str(path)

    def read(self, name: str, public_key: str | None) -> tuple[SecretKey, ...]:
        text = self._text()
        if text is None:
            return ()
        if "=" not in text and text.strip() and not text.lstrip().startswith("#"):
            return _keys(self.where, text.strip())
        line = Document.of(text).set_lines().get(name)
        return () if line is None or not line.value else _keys(f"{name} in {self.where}", line.value)

    def add(self, name: str, pair: KeyPair) -> None:
        self._write(name, (*self.read(name, None), pair.private))

    def keep_only(self, name: str, pair: KeyPair, old: Sequence[SecretKey]) -> None:
        self._write(name, (pair.private,))

    def _text(self) -> str | None:
        try:
            return self.path.read_bytes().decode("utf-8-sig")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except UnicodeDecodeError:
            raise StoreRefused(_STORE, f"{self.path} holds no private key: it is not text.") from None
        except OSError as error:
            raise StoreRefused(
                _STORE,
                f"the private key in {self.path} can't be read ({error.strerror}). Let this user read it: chown, "
                "chmod 600.",
            ) from None

    def _write(self, name: str, keys: Sequence[SecretKey]) -> None:
        value = ",".join(key.reveal() for key in keys)
        try:
            path = self.path.resolve()
            with locked(path, LOCK_SECONDS):
                text = self._text() or _HEADER
                if "=" not in text and not text.lstrip().startswith("#"):
                    put_in_place(path, value + "\n")
                    return
                document = Document.of(text)
                if name in document.set_lines():
                    lines = [one.valued(value) if one.name == name else one for one in document.lines]
                else:
                    lines = [*document.lines, *Document.of("\n").lines, assignment(name, value)]
                put_in_place(path, document.with_lines(lines).text)
        except OSError as error:
            raise StoreUnavailable(
                _STORE,
                f"the private key can't be written to {self.path} ({error.strerror or error}). Choose another place "
                "with BAATCHEET_SECRETS_KEY_FILE.",
            ) from None


class KeyringSource:
    """The operating system's keyring, through the package `keyring`: an entry for each public key."""

    where: Final = "the keyring"

    def read(self, name: str, public_key: str | None) -> tuple[SecretKey, ...]:
        """None where there is no keyring."""
        if public_key is None:
            return ()
        try:
            import keyring  # noqa: PLC0415 - an extra
        except ImportError:
            return ()
        try:
            found = keyring.get_password(_KEYRING, public_key)
        except keyring.errors.NoKeyringError:
            return ()
        except (keyring.errors.KeyringError, RuntimeError) as error:
            raise StoreUnavailable(_STORE, f"the keyring does not answer ({type(error).__name__}).") from None
        return () if found is None else _keys(self.where, found)

    def add(self, name: str, pair: KeyPair) -> None:
        try:
            import keyring  # noqa: PLC0415 - an extra
        except ImportError:
            raise StoreRefused(
                _STORE, "there is no support for keyrings here. Install it: pip install 'baatcheet[keyring]'"
            ) from None
        try:
            keyring.set_password(_KEYRING, pair.public, pair.private.reveal())
        except keyring.errors.NoKeyringError:
            raise StoreRefused(
                _STORE,
                "this machine has no keyring that can be used without a desktop. Keep the private key in a file: leave "
                "--keyring out.",
            ) from None
        except (keyring.errors.KeyringError, RuntimeError) as error:
            raise StoreRefused(
                _STORE, f"the keyring does not take the private key ({type(error).__name__})."
            ) from None

    def keep_only(self, name: str, pair: KeyPair, old: Sequence[SecretKey]) -> None:
        import keyring  # noqa: PLC0415 - an extra

        for one in old:
            try:
                if keyring.get_password(_KEYRING, public_of(one)) is not None:
                    keyring.delete_password(_KEYRING, public_of(one))
            except (keyring.errors.KeyringError, RuntimeError) as error:
                raise StoreUnavailable(
                    _STORE,
                    f"the keyring does not let go of the old private key ({type(error).__name__}). The new one is in "
                    "force; delete the old one by hand.",
                ) from None


class PrivateKeys:
    """All the places, in order."""

    def __init__(self, sources: Sequence[PrivateKeySource]) -> None:
        self.sources = tuple(sources)

    @classmethod
    def of(cls, settings: SecretSettings, environ: Mapping[str, str] | None = None) -> "PrivateKeys":
        """DOTENV_PRIVATE_KEY_SECRETS (or, for a file of another name, its own variable), then the key file, then the
        keyring. `environ`: the process's own where it is left out.
        """
        values = os.environ if environ is None else environ
        sources: list[PrivateKeySource] = []
        if settings.file_private_key is not None:
            sources.append(VariableSource("DOTENV_PRIVATE_KEY_SECRETS", settings.file_private_key))
        own = variable_names(settings.file.name)[1]
        if own != "DOTENV_PRIVATE_KEY_SECRETS" and values.get(own):
            sources.append(VariableSource(own, SecretStr(values[own])))
        sources.append(KeyFileSource(settings.file_key_file or settings.file.parent / KEY_FILE))
        sources.append(KeyringSource())
        return cls(sources)

    def find(self, name: str, public_key: str | None) -> list[tuple[PrivateKeySource, SecretKey]]:
        """Every private key that there is, those that belong to `public_key` first. Raises StoreError."""
        found: list[tuple[PrivateKeySource, SecretKey]] = []
        for source in self.sources:
            for key in source.read(name, public_key):
                found.append((source, key))
                if public_key is not None and public_of(key) == public_key.lower():
                    return [(source, key), *found[:-1]]
        return found

    @property
    def places(self) -> str:
        """For people: where it was looked."""
        return ", ".join(source.where for source in self.sources)


def _keys(where: str, text: str) -> tuple[SecretKey, ...]:
    try:
        keys = private_keys_in(text)
    except (NotAPrivateKey, KeyNotUsable):
        raise StoreRefused(
            _STORE, f"{where} is not a private key: 64 hexadecimal digits, as in {KEY_FILE}."
        ) from None
    for key in keys:
        register_secret(key.reveal())
    return keys
