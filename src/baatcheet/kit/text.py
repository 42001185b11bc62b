"""Text that PostgreSQL, JSON and a terminal can all hold."""

import re
from typing import Any

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def unstorable(text: str) -> str | None:
    """Why PostgreSQL can't store `text` as UTF-8, in words for the sender; None when it can."""
    found = _UNSTORABLE.search(text)
    if found is None:
        return None
    what = "a NUL character" if found.group() == "\x00" else "an unpaired surrogate"
    return f"contains {what} (U+{ord(found.group()):04X}) at position {found.start()}"


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
    """The first words of `text` on one line, at most `limit` characters, cut at a word where one ends."""
    line = " ".join(text[: limit * 8].split())
    if len(line) <= limit:
        return line
    cut = line[: limit - 1]
    space = cut.rfind(" ")
    return (cut[:space] if space > limit // 2 else cut).rstrip() + "…"
