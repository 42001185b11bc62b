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
DOUBT = (
    10.0  # a prompt's cost this many times the first guess: what replies say for it is believed more readily
)
SPREADS = (0.25, 1.0, 1.0, 1.0, 1.0, 0.4, 0.5, 0.5)  # how much counts of a kind vary, beside each other
KEPT = 0.99  # of what was learned, with each further reply
LEAST, MOST = 0.25, 6.0  # a weight
PROMPT_TOKENS = 6  # what a prompt costs beside its messages, at first: some templates say who and when it is
HIDDEN = 4_000  # and at most, where a provider puts a system prompt of its own before it
BELIEVED = (0.2, 8.0)  # times the first guess: anything else that a provider reports is a mistake
SETTLED = 20  # replies
_WIDE, _NARROW, _WIDEST = 0.10, 0.03, 0.50
ERRORS_KEPT = 0.8  # of the mean error, with each further report
ODD = 2.0  # times the estimate, or its inverse: a mistake once `SOUND` replies are known
SOUND = 10
SEVERAL = 4  # odd reports in a row are none: the provider has changed

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
    """What a number of replies taught. `later` ones are added to it.

    `errors` is what the estimates of `reports` were off by, the later the more it counts.
    """

    replies: int = 0
    reports: int = 0
    errors: float = 0.0
    a: list[float] = field(default_factory=lambda: [0.0] * (_N * _N))
    b: list[float] = field(default_factory=lambda: [0.0] * _N)

    def add(self, later: "Sums") -> None:
        kept = KEPT**later.replies
        self.a = [kept * old + new for old, new in zip(self.a, later.a, strict=True)]
        self.b = [kept * old + new for old, new in zip(self.b, later.b, strict=True)]
        self.replies += later.replies
        self.errors = ERRORS_KEPT**later.reports * self.errors + later.errors
        self.reports += later.reports

    @property
    def error(self) -> float:
        """The mean error, as a share."""
        return self.errors * (1 - ERRORS_KEPT) / (1 - ERRORS_KEPT**self.reports) if self.reports else 0.0

    def document(self) -> dict[str, Any]:
        return {
            "kinds": list(KINDS),
            "replies": self.replies,
            "reports": self.reports,
            "errors": self.errors,
            "a": self.a,
            "b": self.b,
        }

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> "Sums":
        """What `document` made; nothing learned when it was written for other kinds, or is not sound."""
        counts = [document.get(key) for key in ("replies", "reports")]
        errors, a, b = (document.get(key) for key in ("errors", "a", "b"))
        if (
            document.get("kinds") != list(KINDS)
            or not isinstance(a, list)
            or not isinstance(b, list)
            or (len(a), len(b)) != (_N * _N, _N)
            or not all(type(one) is int and 0 <= one <= _MOST_REPORTS for one in counts)
            or not all(type(one) in {int, float} and abs(one) <= _LARGEST for one in (errors, *a, *b))
        ):
            return cls()
        found = cls(*counts, errors, a, b)  # type: ignore[arg-type, call-arg] # as was seen
        try:
            _solved(found)
        except ArithmeticError:
            return cls()
        return found


_MOST_REPORTS, _LARGEST = 10**9, 1e6  # what replies that are believed can't add up to


class Calibration:
    """What is known of one model. Starts by taking o200k_base's count for its own."""

    def __init__(self, known: Sums | None = None) -> None:
        self._known = known or Sums()
        self._new = Sums()
        self._weights: list[float] | None = None
        self._odd = 0  # reports in a row
        self.learnt_at = float("-inf")  # when a reply last taught something, by whoever counts the time

    @property
    def replies(self) -> int:
        return self._known.replies + self._new.replies

    @property
    def margin(self) -> float:
        """How far an estimate may be off, as a share of it."""
        by_count = max(_NARROW, _WIDE - (_WIDE - _NARROW) * self.replies / SETTLED)
        return min(_WIDEST, max(by_count, 2 * self._both().error))

    @property
    def weights(self) -> list[float]:
        if self._weights is None:
            try:
                self._weights = _solved(self._both())
            except ArithmeticError:  # of what others wrote down
                self._weights = [1.0] * _N
        return self._weights

    def estimate(self, wanted: Features) -> int:
        """The tokens of what has these features."""
        return ceil(sum(weight * size for weight, size in zip(self.weights, wanted, strict=True)) - 1e-6)

    def learn(self, seen: Features, reported: int) -> bool:
        """Take a provider's count of a prompt into account; False when it can't be right."""
        guessed = sum(seen)
        if (
            reported < 1
            or guessed <= 0
            or not BELIEVED[0] * guessed <= reported <= BELIEVED[1] * guessed + HIDDEN
        ):
            return False
        estimate = sum(weight * size for weight, size in zip(self.weights, seen, strict=True))
        error = abs(estimate - reported) / max(estimate, reported)
        self._odd = self._odd + 1 if error > 1 - 1 / ODD else 0
        if 0 < self._odd < SEVERAL and self.replies >= SOUND:
            self._new.add(Sums(reports=1, errors=error))
            return False
        # Relative errors are what is made small, so that a long prompt weighs no more than a short one, and a prompt
        # in scripts whose counts vary much from sentence to sentence less than one in others.
        shares = [weight * size / reported for weight, size in zip(self.weights, seen, strict=True)]
        spread = sum((share * one) ** 2 for share, one in zip(shares, SPREADS, strict=True)) ** 0.5
        trust = 1 / max(spread, 0.2)
        x = [trust * size / reported for size in seen]
        products = [left * right for left in x for right in x]
        self._new.add(Sums(1, 1, error, products, [trust * one for one in x]))
        self._weights = None
        return True

    def _both(self) -> Sums:
        both = Sums()
        both.add(self._known)
        both.add(self._new)
        return both

    def take_delta(self) -> Sums | None:
        """What was learned since the last time, to be added to what is shared; None when that is nothing."""
        if not self._new.reports:
            return None
        delta, self._new = self._new, Sums()
        self._known.add(delta)
        return delta

    def replace(self, shared: Sums) -> None:
        """`shared` is known now, with every delta that was taken in it."""
        self._known, self._weights = shared, None


def _solved(sums: Sums) -> list[float]:
    """The weights: those of (a + prior) w = b + prior, in bounds. Raises ArithmeticError for sums that are not sound.

    The prior on a prompt's cost has a long tail: it gives way once replies have moved it far, so that a hidden system
    prompt is learned, but one that prompts of one length can't tell from a denser vocabulary is not.
    """
    prior, weights = list(PRIOR), [1.0] * _N
    for _ in range(_ROUNDS):
        weights = _bounded(sums, prior)
        prior[-1] = PRIOR[-1] / (1 + ((weights[-1] - 1) / DOUBT) ** 2)
    return weights


_ROUNDS = 4


def _bounded(sums: Sums, prior: Sequence[float]) -> list[float]:
    """Those that are out of bounds are held there, and the others solved again, until none is."""
    held: dict[int, float] = {}
    while True:
        free = [at for at in range(_N) if at not in held]
        found = dict(zip(free, _by_gauss(sums, prior, free, held), strict=True))
        bounded = {at: min(_BOUNDS[at][1], max(_BOUNDS[at][0], weight)) for at, weight in found.items()}
        out = {at: weight for at, weight in bounded.items() if weight != found[at]}
        if not out:
            return [held.get(at, bounded.get(at, 1.0)) for at in range(_N)]
        held |= out


_BOUNDS = [(LEAST, MOST)] * (_N - 1) + [(0.0, HIDDEN / PROMPT_TOKENS)]


def _by_gauss(
    sums: Sums, prior: Sequence[float], free: Sequence[int], held: Mapping[int, float]
) -> list[float]:
    """The free weights with the others held; the prior keeps it well-conditioned."""
    a, b, size = sums.a, sums.b, len(free)
    rows = [
        [a[at * _N + over] + (prior[at] if at == over else 0.0) for over in free]
        + [b[at] + prior[at] - sum(a[at * _N + over] * weight for over, weight in held.items())]
        for at in free
    ]
    for at, pivot in enumerate(rows):
        if not pivot[at] > 0:
            raise ArithmeticError
        for below in range(at + 1, size):
            factor = rows[below][at] / pivot[at]
            rows[below] = [x - factor * y for x, y in zip(rows[below], pivot, strict=True)]
    weights = [0.0] * size
    for at in reversed(range(size)):
        rest = sum(rows[at][over] * weights[over] for over in range(at + 1, size))
        weights[at] = (rows[at][size] - rest) / rows[at][at]
    if not all(map(isfinite, weights)):
        raise ArithmeticError
    return weights
