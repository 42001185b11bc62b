"""dotenvx's file format: `NAME='encrypted:…'`, each value on its own, and how such a file is changed line by line.

Values are encrypted with ECIES over secp256k1 (AES-256-GCM, 16 bytes of nonce, the key by HKDF-SHA256), as
https://dotenvx.com/docs/security/ describes; files of the programs `dotenvx` and `python-dotenvx` can be read, and
they read ours. Nothing is ever executed or expanded in a value, unlike there.
"""

import base64
import binascii
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Final

from coincurve import PrivateKey, PublicKey
from dotenv.parser import parse_stream

from baatcheet.keys.secret import SecretKey

ENCRYPTED: Final = "encrypted:"
_PUBLIC: Final = "DOTENV_PUBLIC_KEY"
_PRIVATE: Final = "DOTENV_PRIVATE_KEY"

_BLANK_LINES: Final = re.compile(r"(?:[^\S\r\n]*(?:\r\n|\n|\r))*")
# A line that sets something, by the grammar of python-dotenv, which reads the rest of our settings too.
_ASSIGNMENT: Final = re.compile(
    r"""(?P<lead>\s*(?:export[^\S\r\n]+)?)
        (?P<name>'[^']+'|[^=\#\s]+)
        (?P<equals>[^\S\r\n]*=[^\S\r\n]*)
        (?P<value>'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|[^\r\n]*?)
        (?P<rest>(?:[^\S\r\n]+\#[^\r\n]*|[^\S\r\n]*)(?:\r\n|\n|\r)?)""",
    re.VERBOSE | re.DOTALL,
)
_BARE: Final = re.compile(r"[A-Za-z0-9_.:/+@%=~,-]+")
_HEADER: Final = """\
#/-------------------[DOTENV_PUBLIC_KEY]--------------------/
#/            public-key encryption for .env files          /
#/       [how it works](https://dotenvx.com/encryption)     /
#/----------------------------------------------------------/
"""


class Undecipherable(ValueError):
    """None of the private keys opens this value, or it is no encrypted value at all."""


class NotAPrivateKey(ValueError):
    """This text is not a private key: 64 hexadecimal digits."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """`public`: 66 hexadecimal digits, compressed; whoever has it can add values."""

    private: SecretKey
    public: str


def new_pair() -> KeyPair:
    """A fresh one."""
    private = SecretKey(PrivateKey().to_hex())
    return KeyPair(private, public_of(private))


def private_keys_in(text: str) -> tuple[SecretKey, ...]:
    """The private keys of a variable: one, or several with commas between. Raises NotAPrivateKey."""
    found = []
    for one in text.split(","):
        digits = one.strip().removeprefix("0x").lower()
        if digits:
            key = SecretKey(digits) if re.fullmatch("[0-9a-f]{64}", digits) else None
            if key is None:
                raise NotAPrivateKey("is not a private key: 64 hexadecimal digits")
            public_of(key)
            found.append(key)
    return tuple(found)


def public_of(private: SecretKey) -> str:
    """The public key that belongs to `private`. Raises NotAPrivateKey."""
    try:
        return PrivateKey.from_hex(private.reveal()).public_key.format().hex()
    except ValueError:
        raise NotAPrivateKey("is not a private key: 64 hexadecimal digits") from None


def is_public_key(text: str) -> bool:
    """Whether values can be encrypted for `text`."""
    try:
        PublicKey(bytes.fromhex(text))
    except ValueError:
        return False
    return True


def encrypt(text: str, public_key: str) -> str:
    """`text` as a value that only the private key of `public_key` opens. It is another one each time."""
    import ecies  # noqa: PLC0415 - a quarter of a second, which only those pay who use it

    return ENCRYPTED + base64.b64encode(ecies.encrypt(public_key, text.encode())).decode()


def decrypt(value: str, private_keys: Iterable[SecretKey]) -> str:
    """What was encrypted, by the first of `private_keys` that opens it. Raises Undecipherable."""
    import ecies  # noqa: PLC0415

    try:
        data = base64.b64decode(value.removeprefix(ENCRYPTED), validate=True)
    except binascii.Error:
        raise Undecipherable("is cut off or changed: it is not base64") from None
    for one in private_keys:
        try:
            opened: bytes = ecies.decrypt(one.reveal(), data)
            return opened.decode()
        except ValueError:  # of another key, or changed; ecies and its parts raise nothing else
            continue
    raise Undecipherable("can't be decrypted with the private key that is there")


@dataclass(frozen=True, slots=True)
class Line:
    """One assignment (of more than one line where its value is), comment, blank or broken line, with its end.

    `number`: of its first line, from 1. `name` and `value` are None where nothing is set.
    """

    text: str = field(repr=False)
    number: int
    name: str | None = None
    value: str | None = field(default=None, repr=False)
    broken: bool = False

    @property
    def encrypted(self) -> bool:
        return self.value is not None and self.value.startswith(ENCRYPTED)

    @property
    def last(self) -> int:
        """The number of its last line."""
        return self.number + len(re.findall(r"\r\n|\n|\r", self.text.rstrip("\r\n")))

    def named(self, name: str) -> "Line":
        """The same value, with its comment, under another name."""
        found = _ASSIGNMENT.fullmatch(self.text)
        assert found is not None
        text = self.text[: found.start("name")] + name + self.text[found.end("name") :]
        return replace(self, name=name, text=text)

    def valued(self, value: str) -> "Line":
        """Another value under the same name; a comment behind it stays."""
        found = _ASSIGNMENT.fullmatch(self.text)
        assert found is not None
        text = self.text[: found.start("value")] + quoted(value) + self.text[found.end("value") :]
        return replace(self, value=value, text=text)


def quoted(value: str) -> str:
    """`value` as it is written behind `=`.

    In single quotes, `dotenvx` and `python-dotenvx` take what they decrypt as it is. In double quotes they expand
    `$NAME` in it, and `dotenvx` runs `$(command)`, which whoever may add a key could have put there.
    """
    if value.startswith(ENCRYPTED):
        return f"'{value}'"
    if _BARE.fullmatch(value):
        return value
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def assignment(name: str, value: str) -> Line:
    """A line of its own."""
    return Line(f"{name}={quoted(value)}\n", 0, name, value)


@dataclass(frozen=True, slots=True)
class Document:
    """A file's text, cut into lines. Its lines put together are the text again, to the byte."""

    lines: tuple[Line, ...] = ()

    @classmethod
    def of(cls, text: str) -> "Document":
        lines: list[Line] = []
        for binding in parse_stream(io.StringIO(text, newline="")):
            written, number = binding.original.string, binding.original.line
            blank = _BLANK_LINES.match(written)
            if blank and blank[0] and blank[0] != written:
                lines.append(Line(blank[0], number))
                number += len(re.findall(r"\r\n|\n|\r", blank[0]))
                written = written[blank.end() :]
            sets = binding.key is not None and binding.value is not None and not binding.error
            broken = not sets and bool(written.strip()) and not written.lstrip().startswith("#")
            lines.append(
                Line(written, number, binding.key, binding.value)
                if sets
                else Line(written, number, broken=broken)
            )
        return cls(tuple(lines))

    @property
    def text(self) -> str:
        return "".join(line.text for line in self.lines)

    def set_lines(self) -> dict[str, Line]:
        """By name, the line that counts: the last one."""
        return {line.name: line for line in self.lines if line.name is not None}

    def with_lines(self, lines: Sequence[Line]) -> "Document":
        """These lines, each on lines of its own, with the file's kind of line end."""
        end = "\r\n" if any("\r\n" in line.text for line in self.lines) else "\n"
        closed = []
        for position, line in enumerate(lines):
            text = line.text
            if line.number == 0:  # one of ours
                text = text.replace("\n", end) if line.value and "\n" not in line.value else text
            if position < len(lines) - 1 and text and not text.endswith(("\n", "\r")):
                text += end
            closed.append(replace(line, text=text))
        return Document(tuple(closed))

    def public_key(self) -> tuple[str, str] | None:
        """The variable of the file's public key, and the key; None while it has none."""
        for name, line in self.set_lines().items():
            if name.startswith(_PUBLIC) and line.value:
                return name, line.value
        return None

    def with_public_key(self, name: str, public_key: str) -> "Document":
        """With `public_key` in place of the one it has, or under a heading of its own at the top."""
        if name in self.set_lines():
            return Document(
                tuple(line.valued(public_key) if line.name == name else line for line in self.lines)
            )
        heading = Document.of(f'{_HEADER}{name}="{public_key}"\n' + ("\n" if self.lines else ""))
        return Document((*heading.lines, *self.lines))


def variable_names(file_name: str, document: Document | None = None) -> tuple[str, str]:
    """The variables of a file's public key and of its private key, by dotenvx's convention.

    `.env` → DOTENV_PUBLIC_KEY, `.env.secrets` → DOTENV_PUBLIC_KEY_SECRETS; the one that the file has already wins.
    """
    present = document.public_key() if document is not None else None
    if present is not None:
        return present[0], present[0].replace(_PUBLIC, _PRIVATE, 1)
    name = PurePath(file_name).name.lower()
    if name.startswith(".env") and name.endswith(".txt"):
        name = name.removesuffix(".txt")
    if name == ".env":
        return _PUBLIC, _PRIVATE
    parts = name.split(".")[2:4]
    environment = "_".join(parts) if parts else name.replace(".env", "development", 1)
    return f"{_PUBLIC}_{environment.upper()}", f"{_PRIVATE}_{environment.upper()}"
