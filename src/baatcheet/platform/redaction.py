"""Taking secrets out of text: what is registered, whole or in part, and what looks like a key.

The last wall in front of logs and error messages; nobody may rely on it. Of a provider's key (`fragments`), any
`SHORTEST_FRAGMENT` characters in a row are taken out, since a key arrives cut and split, too; of other secrets, which
people choose and which may hold ordinary words, the whole only. Each in its several spellings: plain, URL-encoded,
JSON-escaped, in base64 wherever in a triple of bytes it begins, in hexadecimal digits.

The windows of all keys are in one table, and a text is looked at every `WINDOW` characters only: what a line costs does
not depend on how many keys there are.
"""

import base64
import re
import threading
from collections import deque
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote, quote_plus

import msgspec

from baatcheet.kit.text import storable

REDACTED: Final = "[redacted]"
MIN_SECRET: Final = 8  # characters; anything shorter would blank out ordinary words
MIN_KEY: Final = 20  # characters from which parts of a key are taken out, too
WINDOW: Final = 6
MOST_PASSING: Final = 32
SHORTEST_FRAGMENT: Final = 2 * WINDOW - 1  # any as long holds one whole window at a multiple of WINDOW

# A look for these first keeps the expression off nearly every line.
_HINTS = ("sk-", "gsk_", "hf_", "AIza", "bc_", "hvs.", "earer ", "asic ", "://")
_SHAPES = re.compile(
    r"(?<![A-Za-z0-9])(?:sk-|gsk_|hf_|AIza|bc_|hvs\.)[A-Za-z0-9_\-]{12,}"
    r"|(?<=[Bb]earer )[A-Za-z0-9._~+/=\-]{6,}"
    r"|(?<=[Bb]asic )[A-Za-z0-9+/=\-_]{8,}"
    r"|(?<=://)[^\s/@:\"'\\]*:[^\s/@\"'\\]+(?=@)"
)
# What every key of a provider begins with is no secret, and stands in its documentation.
_PUBLIC = re.compile(
    r"(?:sk-(?:or-v1-|ant-(?:api|admin)\d\d-|proj-|svcacct-|admin-)?|gsk_|hf_|AIza(?:Sy)?|bc_|hvs\.)?"
)


class _Known:
    """What is registered. It is changed in single steps under a lock, and read without one."""

    def __init__(self) -> None:
        self.whole: tuple[str, ...] = ()  # the longest first
        self._parts: set[str] = set()
        # Where each window stands: (spelling, position).
        self.windows: dict[str, tuple[tuple[str, int], ...]] = {}

    def add_whole(self, spellings: frozenset[str]) -> None:
        """Take these out where they stand whole."""
        if not spellings.issubset(self.whole):
            self.whole = tuple(sorted(spellings.union(self.whole), key=len, reverse=True))

    def add_parts(self, spellings: frozenset[str]) -> None:
        """Take any part of these out. What it costs does not depend on how many there are already."""
        for spelling in spellings - self._parts:
            self._parts.add(spelling)
            for at in range(_secret_from(spelling), len(spelling) - WINDOW + 1):
                window = spelling[at : at + WINDOW]
                self.windows[window] = (*self.windows.get(window, ()), (spelling, at))

    def drop_parts(self, spellings: frozenset[str]) -> None:
        """Let these stand from now on."""
        for spelling in spellings & self._parts:
            self._parts.discard(spelling)
            for at in range(_secret_from(spelling), len(spelling) - WINDOW + 1):
                window = spelling[at : at + WINDOW]
                left = tuple(place for place in self.windows.get(window, ()) if place[0] != spelling)
                if left:
                    self.windows[window] = left
                else:
                    self.windows.pop(window, None)


def _secret_from(spelling: str) -> int:
    public = _PUBLIC.match(spelling)
    return public.end() if public is not None else 0


_known = _Known()
_lock = threading.Lock()
_passing: deque[frozenset[str]] = deque()


def register_secret(value: str, *, fragments: bool = False) -> None:
    """Take `value` out of all text from now on, in every spelling; with `fragments`, parts of it as well.

    Values shorter than `MIN_SECRET` are passed over, fragments of those shorter than `MIN_KEY` too.
    """
    if len(value) < MIN_SECRET:
        return
    spellings = frozenset(_spellings(value))
    with _lock:
        if fragments and len(value) >= MIN_KEY:
            _known.add_parts(spellings)
        else:
            _known.add_whole(spellings)


def register_passing_secret(value: str) -> None:
    """As `register_secret` with fragments, for what is replaced before long: a token with a lease.

    The last `MOST_PASSING` of them are known. Otherwise a process would hold those of all its life.
    """
    if len(value) < MIN_SECRET:
        return
    spellings = frozenset(_spellings(value))
    with _lock:
        if spellings in _passing:
            return
        _known.add_parts(spellings)
        _passing.append(spellings)
        while len(_passing) > MOST_PASSING:
            _known.drop_parts(_passing.popleft())


def _spellings(value: str) -> Iterable[str]:
    yield value
    yield quote(value, safe="")
    yield quote_plus(value)
    yield msgspec.json.encode(storable(value)).decode()[1:-1]
    raw = value.encode(errors="replace")
    yield raw.hex()
    yield raw.hex().upper()
    for offset in range(3):
        # The characters of base64 that this value alone decides, wherever in a triple of bytes it begins.
        encoded = base64.b64encode(b"\0" * offset + raw)
        first = (offset * 8 + 5) // 6
        inner = encoded[first : (offset + len(raw)) * 8 // 6].decode()
        yield inner
        yield inner.replace("+", "-").replace("/", "_")


def redact(text: str) -> str:
    """`text` without what is registered, and without what looks like a key, a token or a URL's password."""
    known = _known
    for secret in known.whole:
        if secret in text:
            text = text.replace(secret, REDACTED)
    if known.windows:
        text = _without_fragments(text, known.windows)
    for hint in _HINTS:
        if hint in text:
            return _SHAPES.sub(REDACTED, text)
    return text


def _without_fragments(text: str, windows: dict[str, tuple[tuple[str, int], ...]]) -> str:
    found: list[tuple[int, int]] = []
    for at in range(0, len(text) - WINDOW + 1, WINDOW):
        places = windows.get(text[at : at + WINDOW])
        if places is not None:
            first, end = max((_extent(text, at, *place) for place in places), key=lambda one: one[1] - one[0])
            if end - first >= SHORTEST_FRAGMENT:
                found.append((first, end))
    if not found:
        return text
    pieces: list[str] = []
    begun = 0
    for first, end in found:
        if first >= begun:
            pieces += [text[begun:first], REDACTED]
        begun = max(begun, end)
    return "".join([*pieces, text[begun:]])


def _extent(text: str, at: int, spelling: str, place: int) -> tuple[int, int]:
    """How far `text` around `at` reads as `spelling` around `place`."""
    before = 0
    while before < min(at, place) and text[at - before - 1] == spelling[place - before - 1]:
        before += 1
    after = WINDOW
    while (
        at + after < len(text)
        and place + after < len(spelling)
        and text[at + after] == spelling[place + after]
    ):
        after += 1
    return at - before, at + after
