"""A provider's key, in a type that does not give it away."""

import hashlib
import hmac
from typing import Any, Final, NoReturn

DOTS: Final = "••••••••"
SHORTEST: Final = 1  # characters
LONGEST: Final = 4096
_ENDS: Final = 4  # characters that are shown of each end at most


class KeyNotUsable(ValueError):
    """This text can't be a key. `str(error)` says why, and holds none of it."""


class SecretKey:
    """One key. It prints as dots, compares by value, and refuses to be pickled, copied or formatted into text.

    `reveal` is the only way to its text; whoever calls it sends the result to the provider or to a store, and keeps it
    nowhere.
    """

    __slots__ = ("_text",)

    _text: str

    def __init__(self, text: str) -> None:
        """Raises KeyNotUsable for what no provider's key can be: empty, too long, or not one printable ASCII word."""
        if not SHORTEST <= len(text) <= LONGEST:
            raise KeyNotUsable(f"has {len(text)} characters; a key has {SHORTEST} to {LONGEST}")
        if not text.isascii() or not text.isprintable() or " " in text:
            raise KeyNotUsable("holds spaces, line breaks or characters that no key has")
        object.__setattr__(self, "_text", text)

    def reveal(self) -> str:
        """The key itself."""
        return self._text

    @property
    def hint(self) -> str:
        """What people may see of it: up to four characters of each end, never more than half of it."""
        text = self._text
        shown = min(_ENDS, len(text) // 4)
        return f"{text[:shown]}…{text[-shown:]}" if shown else "…"

    def fingerprint(self, secret: bytes, provider: str) -> str:
        """32 hexadecimal digits that only this key of `provider` has, by HMAC-SHA256 with the deployment's `secret`.

        Two servers of one's own may well be given the same word for a key: they are two keys.
        """
        signed = f"{provider}\n{self._text}".encode()
        return hmac.new(secret, signed, hashlib.sha256).hexdigest()[:32]

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("a key does not change")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretKey) and hmac.compare_digest(self._text, other._text)

    def __hash__(self) -> int:
        return hash((SecretKey, self._text))

    def __repr__(self) -> str:
        return f"SecretKey({DOTS})"

    def __str__(self) -> str:
        return DOTS

    def __format__(self, spec: str) -> NoReturn:
        raise TypeError(
            "a key is not formatted into text: send .reveal() to its provider, show .hint to people"
        )

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("a key is not pickled or copied")
