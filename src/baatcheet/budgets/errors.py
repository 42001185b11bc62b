"""What a holder of limits is refused with."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from math import ceil
from typing import Final

from baatcheet.budgets.limits import Kind, Period, Unit, usd
from baatcheet.platform.errors import Forbidden, RateLimited

SOON: Final = 5  # seconds after which to ask again when it hangs on requests under way
_WHOSE: Final[dict[Kind, str]] = {"user": "Your user", "token": "This token"}


class ModelNotAllowed(Forbidden):
    """This model is not on the list of those that may be asked."""

    type = "model-not-allowed"
    openai_code = "model_not_allowed"

    def __init__(self, asked: Sequence[str], allowed: Sequence[tuple[Kind, Sequence[str]]]) -> None:
        """`asked`: who would have been; `allowed`: each holder's patterns."""
        lists = "; ".join(f"{_WHOSE[kind]} may use {', '.join(patterns)}" for kind, patterns in allowed)
        super().__init__(
            f"This would be answered by {_or(asked)}, which may not be asked. {lists}.",
            param="model",
            allowed={kind: list(patterns) for kind, patterns in allowed},
        )


class ModelNotPriced(Forbidden):
    """Nobody has said what this model costs, and there is a budget in money."""

    type = "model-not-priced"
    openai_code = "model_not_priced"

    def __init__(self, asked: Sequence[str]) -> None:
        super().__init__(
            f"It is not known what {_or(asked)} costs, and what you may spend is limited in money. An "
            f"administrator can set its price: baatcheet budget price '{asked[0]}' --prompt USD --completion USD.",
            param="model",
        )


@dataclass(frozen=True, slots=True)
class Exhausted:
    """A budget that has nothing left. `held` of what is used is only reserved, by requests under way."""

    kind: Kind
    unit: Unit
    period: Period
    limit: int
    used: int
    held: int

    @property
    def passing(self) -> bool:
        """Whether something may be left when the requests under way have ended."""
        return self.used - self.held < self.limit


class BudgetExhausted(RateLimited):
    """A budget is used up."""

    type = "budget-exhausted"
    openai_type = "insufficient_quota"
    openai_code = "insufficient_quota"

    def __init__(self, found: Sequence[Exhausted], now: datetime) -> None:
        """Tells of the one of `found` that lasts longest."""
        one = max(found, key=lambda each: (not each.passing, each.period == "month"))
        resets = resets_at(one.period, now)
        what = f"{_WHOSE[one.kind]}'s budget of {_amount(one.unit, one.limit)} a {one.period}"
        if one.passing:
            wait = SOON
            told = f"{what} is taken up by requests under way. Try again in {SOON} s."
        else:
            wait = max(1, ceil((resets - now).total_seconds()))
            told = f"{what} is used up until {resets:%Y-%m-%d %H:%M} UTC."
        headers = {"retry-after": str(wait)}
        if not one.passing:
            headers["x-should-retry"] = "false"  # OpenAI's clients would ask again at once
        in_money = one.unit == "usd"
        super().__init__(
            told,
            headers=headers,
            budget={
                "holder": one.kind,
                "unit": one.unit,
                "period": one.period,
                "limit": usd(one.limit) if in_money else one.limit,
                "used": usd(one.used) if in_money else one.used,
                "resets_at": resets.isoformat().replace("+00:00", "Z"),
            },
        )


def began_on(period: Period, now: datetime) -> date:
    """The first day (UTC) of the period that `now` lies in."""
    today = now.astimezone(UTC).date()
    return today.replace(day=1) if period == "month" else today


def resets_at(period: Period, now: datetime) -> datetime:
    """The midnight (UTC) at which that period ends."""
    first = began_on(period, now)
    following = first + timedelta(days=1)
    if period == "month":
        following = (first + timedelta(days=31)).replace(day=1)
    return datetime.combine(following, time(), UTC)


def _amount(unit: Unit, limit: int) -> str:
    if unit == "usd":
        return f"{usd(limit)} USD"
    return f"{limit:,} {unit if limit != 1 else unit.removesuffix('s')}"


def _or(names: Sequence[str]) -> str:
    return " or ".join(names)
