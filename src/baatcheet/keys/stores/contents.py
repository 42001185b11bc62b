"""Keys as people write them into a store: read without ever repeating what was written."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from baatcheet.keys.secret import KeyNotUsable, SecretKey

MOST_KEYS: Final = 1000  # of one set
_PERSON: Final = b"baatcheet-keys"


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Why a value can't be read as keys, in words that hold nothing of it."""

    why: str


def keys_of(value: object) -> tuple[SecretKey, ...] | Unreadable:
    """The keys in `value`, each once and in its order: a list of texts, or one text with commas or lines between them.

    Nothing is raised, so that no traceback holds what was written.
    """
    if isinstance(value, str):
        entries: Sequence[object] = [one.strip() for one in re.split(r"[,\r\n]", value) if one.strip()]
    elif isinstance(value, list):
        entries = value
    else:
        return Unreadable("is neither a list of keys nor one text with commas between them")
    if len(entries) > MOST_KEYS:
        return Unreadable(f"holds {len(entries)} keys; there can be {MOST_KEYS}")
    keys: dict[SecretKey, None] = {}
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, str):
            return Unreadable(f"has an entry, number {number}, that is not a text")
        try:
            keys[SecretKey(entry.strip())] = None
        except KeyNotUsable as problem:
            return Unreadable(f"has an entry, number {number}, that {problem}")
    return tuple(keys)


def version_of(keys: Sequence[SecretKey], place: str) -> str:
    """A name for this set of keys at `place`, the same wherever it is worked out: 24 hexadecimal digits (BLAKE2b)."""
    digest = hashlib.blake2b(digest_size=12, person=_PERSON)
    digest.update(place.encode())
    for key in keys:
        digest.update(b"\0" + key.reveal().encode())
    return digest.hexdigest()
