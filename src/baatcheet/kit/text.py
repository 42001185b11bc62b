"""Text that PostgreSQL, JSON and a terminal can all hold."""

import re
import unicodedata
from typing import Any

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
# Urdu, Hindi and emoji are spelt with the joiners, right-to-left names with the marks, flags with the tags.
SPELLING = frozenset("\u200c\u200d\u200e\u200f\u061c").union(map(chr, range(0xE0020, 0xE0080)))
_FILLERS = "\u115f\u1160\u2800\u3164\uffa0"  # letters and signs to Unicode, nothing to the eye
_UNSEEN = frozenset({"Cc", "Cf", "Mn", "Me", "Zs", "Zl", "Zp"})


def unstorable(text: str) -> str | None:
    """Why PostgreSQL can't store `text` as UTF-8, in words for the sender; None when it can."""
    found = _UNSTORABLE.search(text)
    if found is None:
        return None
    what = "a NUL character" if found.group() == "\x00" else "an unpaired surrogate"
    return f"contains {what} (U+{ord(found.group()):04X}) at position {found.start()}"


def uncontrolled(text: str) -> str | None:
    """Why `text` can't be shown on one line, in words for the sender; None when it can.

    A control character in a name would move a terminal's cursor, or colour it, wherever the name is shown.
    """
    found = _CONTROL.search(text)
    if found is None:
        return None
    return f"contains a control character (U+{ord(found.group()):04X}) at position {found.start()}"


def is_invisible(text: str) -> bool:
    """Whether there is nothing to see in `text`: blanks, format characters and marks on nothing only, or less."""
    return all(unicodedata.category(one) in _UNSEEN or one in _FILLERS for one in text)


def printable(text: str) -> str:
    """`text` for a terminal: what cannot be seen is escaped, whoever wrote it."""
    return "".join(
        one
        if one.isprintable() or one in SPELLING or unicodedata.category(one) == "Zs"
        else one.encode("unicode_escape").decode()
        for one in text
    )


def storable(text: str) -> str:
    """`text` with every NUL and unpaired surrogate replaced by U+FFFD. A provider's reply is kept, not refused."""
    return _UNSTORABLE.sub("�", text)


def storable_json(value: Any) -> Any:
    """`value`, as JSON was decoded, with every text in it `storable`."""
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, list):
        return [storable_json(item) for item in value]
    if isinstance(value, dict):
        return {storable(str(key)): storable_json(item) for key, item in value.items()}
    return value


def headline(text: str, limit: int = 60) -> str:
    """The first words of `text` on one line, at most `limit` characters, cut at a word where one ends.

    Control characters count as blanks.
    """
    line = " ".join(_CONTROL.sub(" ", text[: limit * 8]).split())
    if len(line) <= limit:
        return line
    cut = line[: limit - 1]
    space = cut.rfind(" ")
    return (cut[:space] if space > limit // 2 else cut).rstrip() + "…"
