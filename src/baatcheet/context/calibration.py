"""Estimating the tokens of a model whose vocabulary is not at hand: pure, no I/O.

The o200k_base count of a prompt is divided over kinds of text, and each kind has a weight. The weights are learned
from the usage that the provider reports with each reply, by least squares with forgetting, in information form: what
was learned is two sums, so that what several processes learn adds up.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, isfinite
from typing import Any

KINDS = ("latin", "arabic", "devanagari", "cjk", "other", "marks", "messages", "prompt")
_N = len(KINDS)
# How much of a reply's worth the first guess, that every weight is 1, is: much where vocabularies agree, little where
# they do not, and less for the format's costs, small parts of a prompt that would otherwise hardly be learned.
PRIOR = (0.2, 0.02, 0.02, 0.02, 0.02, 0.2, 0.004, 0.001)
SPREADS = (0.25, 1.0, 1.0, 1.0, 1.0, 0.4, 0.5, 0.5)  # how much counts of a kind vary, beside each other
KEPT = 0.99  # of what was learned, with each further reply
LEAST, MOST = 0.25, 6.0  # a weight
BELIEVED = (0.2, 8.0)  # times the first guess: anything else that a provider reports is a mistake
SETTLED = 20  # replies
_WIDE, _NARROW = 0.10, 0.03

# What o200k_base makes of a character of each kind, about: only their proportions matter.
_LETTERS = bytes(range(0x41, 0x5B)) + bytes(range(0x61, 0x7B))
_DIGITS = bytes(range(0x30, 0x3A))
_BLANKS = b" \t\r\v\f"
_PER_LETTER, _PER_DIGIT, _PER_SIGN, _PER_GAP = 0.21, 0.45, 0.6, 0.1
# The kinds of the 256 pages of UTF-16, and what a character of theirs costs.
_PAGES: tuple[tuple[bytes, float], ...] = (
    (b"\x00\x01\x02\x1e", 0.4),
    (b"\x06\x07\x08\xfb\xfc\xfd\xfe", 0.3),
    (b"\x09", 0.27),
    (bytes([0x30, 0x31, *range(0x33, 0xA0), *range(0xAC, 0xD8), 0xF9, 0xFA]), 0.75),
)
_PER_OTHER = 0.7
_PUNCTUATION_PAGE = 0x20

Features = Sequence[float]


def divided(text: str, tokens: float) -> list[float]:
    """`tokens`, the o200k_base count of `text`, over the kinds of text."""
    sizes = _sizes(text)
    total = sum(sizes)
    if not total:
        sizes[KINDS.index("marks")] = total = 1.0
    return [tokens * size / total for size in sizes] + [0.0] * (_N - len(sizes))


def _sizes(text: str) -> list[float]:
    plain = text.encode("ascii", "ignore")
    letters, digits = _among(plain, _LETTERS), _among(plain, _DIGITS)
    signs = len(plain) - letters - digits - _among(plain, _BLANKS)
    latin = _PER_LETTER * letters
    marks = _PER_DIGIT * digits + _PER_SIGN * signs + _PER_GAP * plain.count(b"  ")
    if len(plain) == len(text):
        return [latin, 0.0, 0.0, 0.0, 0.0, marks]
    pages = text.encode("utf-16-be", "surrogatepass")[::2]
    accented, *scripts = (_among(pages, which) * cost for which, cost in _PAGES)
    accented -= len(plain) * _PAGES[0][1]
    signs = pages.count(_PUNCTUATION_PAGE)
    known = sum(_among(pages, which) for which, _ in _PAGES) + signs
    other = _PER_OTHER * (len(pages) - known)
    return [latin + accented, *scripts, other, marks + _PER_SIGN * signs]


def _among(data: bytes, which: bytes) -> int:
    return len(data) - len(data.translate(None, which))


def features(parts: Sequence[tuple[str, int]], overhead: float, priming: float) -> list[float]:
    """What a prompt is made of: its texts with their counts, and what its format costs."""
    total = [0.0] * _N
    for text, tokens in parts:
        total = [a + b for a, b in zip(total, divided(text, tokens), strict=True)]
    total[-2:] = overhead, priming
    return total


@dataclass(slots=True)
class Sums:
    """What a number of replies taught. `later` ones are added to it."""

    replies: int = 0
    a: list[float] = field(default_factory=lambda: [0.0] * (_N * _N))
    b: list[float] = field(default_factory=lambda: [0.0] * _N)

    def add(self, later: "Sums") -> None:
        kept = KEPT**later.replies
        self.a = [kept * old + new for old, new in zip(self.a, later.a, strict=True)]
        self.b = [kept * old + new for old, new in zip(self.b, later.b, strict=True)]
        self.replies += later.replies

    def document(self) -> dict[str, Any]:
        return {"kinds": list(KINDS), "replies": self.replies, "a": self.a, "b": self.b}

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> "Sums":
        """What `document` made; nothing learned when it was written for other kinds, or is not sound."""
        replies, a, b = (document.get(key) for key in ("replies", "a", "b"))
        sound = (
            document.get("kinds") == list(KINDS)
            and isinstance(replies, int)
            and replies >= 0
            and isinstance(a, list)
            and isinstance(b, list)
            and (len(a), len(b)) == (_N * _N, _N)
            and all(isinstance(one, int | float) and isfinite(one) for one in (*a, *b))
        )
        return cls(replies, a, b) if sound else cls()  # type: ignore[arg-type] # sound says so


class Calibration:
    """What is known of one model. Starts by taking o200k_base's count for its own."""

    def __init__(self, known: Sums | None = None) -> None:
        self._known = known or Sums()
        self._new = Sums()
        self._weights: list[float] | None = None

    @property
    def replies(self) -> int:
        return self._known.replies + self._new.replies

    @property
    def margin(self) -> float:
        """How far an estimate may be off, as a share of it."""
        return max(_NARROW, _WIDE - (_WIDE - _NARROW) * self.replies / SETTLED)

    @property
    def weights(self) -> list[float]:
        if self._weights is None:
            self._weights = _solved(self.sums())
        return self._weights

    def estimate(self, wanted: Features) -> int:
        """The tokens of what has these features."""
        return ceil(sum(weight * size for weight, size in zip(self.weights, wanted, strict=True)) - 1e-6)

    def learn(self, seen: Features, reported: int) -> bool:
        """Take a provider's count of a prompt into account; False when it can't be right."""
        guessed = sum(seen)
        if not guessed or not BELIEVED[0] <= reported / guessed <= BELIEVED[1]:
            return False
        # Relative errors are what is made small, so that a long prompt weighs no more than a short one, and a prompt
        # in scripts whose counts vary much from sentence to sentence less than one in others.
        shares = [weight * size / reported for weight, size in zip(self.weights, seen, strict=True)]
        spread = sum((share * one) ** 2 for share, one in zip(shares, SPREADS, strict=True)) ** 0.5
        trust = 1 / max(spread, 0.2)
        x = [trust * size / reported for size in seen]
        self._new.add(Sums(1, [left * right for left in x for right in x], [trust * one for one in x]))
        self._weights = None
        return True

    def sums(self) -> Sums:
        both = Sums()
        both.add(self._known)
        both.add(self._new)
        return both

    def take_delta(self) -> Sums | None:
        """What was learned since the last time, to be added to what is shared; None when that is nothing."""
        if not self._new.replies:
            return None
        delta, self._new = self._new, Sums()
        self._known.add(delta)
        return delta

    def replace(self, shared: Sums) -> None:
        """`shared` is known now, with every delta that was taken in it."""
        self._known, self._weights = shared, None


def _solved(sums: Sums) -> list[float]:
    """The weights: those of (a + prior) w = b + prior, in bounds. By Gauss; the prior keeps it well-conditioned."""
    rows = [[*sums.a[at * _N : at * _N + _N], sums.b[at] + PRIOR[at]] for at in range(_N)]
    for at in range(_N):
        rows[at][at] += PRIOR[at]
    for at in range(_N):
        pivot = rows[at]
        for below in range(at + 1, _N):
            factor = rows[below][at] / pivot[at]
            rows[below] = [x - factor * y for x, y in zip(rows[below], pivot, strict=True)]
    weights = [0.0] * _N
    for at in reversed(range(_N)):
        rest = sum(rows[at][over] * weights[over] for over in range(at + 1, _N))
        weights[at] = (rows[at][_N] - rest) / rows[at][at]
    return [min(MOST, max(LEAST, weight)) for weight in weights]
