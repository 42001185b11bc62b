"""What a holder, a user or one of their tokens, may use and spend."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from baatcheet.providers.prices import dollars, matches

Unit = Literal["requests", "tokens", "usd"]
Period = Literal["day", "month"]
Kind = Literal["user", "token"]

MOST = 10**15  # of anything that is counted: so many microcents are ten million dollars


@dataclass(frozen=True, slots=True)
class Amounts:
    """So much of each, of which None is without limit. Money in microcents."""

    requests: int | None = None
    tokens: int | None = None
    microcents: int | None = None

    @property
    def limited(self) -> bool:
        return not (self.requests is None and self.tokens is None and self.microcents is None)


NO_AMOUNTS = Amounts()


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one holder. `models`: patterns of those that may be asked, None: all."""

    models: tuple[str, ...] | None = None
    day: Amounts = NO_AMOUNTS
    month: Amounts = NO_AMOUNTS

    @property
    def budgeted(self) -> bool:
        return self.day.limited or self.month.limited

    @property
    def in_money(self) -> bool:
        return self.day.microcents is not None or self.month.microcents is not None

    def allow(self, model_id: str) -> bool:
        """Whether the model `provider/name` may be asked."""
        return self.models is None or any(means(pattern, model_id) for pattern in self.models)


UNLIMITED = Limits()


def means(pattern: str, model_id: str) -> bool:
    """Whether `pattern` means the model: one without a provider means every provider's."""
    if "/" not in pattern and pattern != "*":
        return matches(pattern, model_id.partition("/")[2])
    return matches(pattern, model_id)


def usd(microcents: int) -> str:
    """As people and programs write it: exactly, in digits, with a point."""
    return format(dollars(microcents).normalize() + Decimal(0), "f")
