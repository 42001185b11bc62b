"""Limits and usage as clients send and see them. Money is a decimal number of US dollars, written as a string."""

from datetime import date, datetime
from decimal import Decimal
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field

from baatcheet.budgets.limits import MOST, Amounts, Limits, usd
from baatcheet.budgets.service import Spent, Standing, UsedOfModel
from baatcheet.platform.rest import Body, Line, Out
from baatcheet.providers.prices import microcents


def _of_a_model(pattern: str) -> str:
    if " " in pattern:
        raise ValueError("a model's name has no spaces")
    return pattern


Pattern = Annotated[
    Line,
    Field(min_length=1, max_length=200, examples=["groq/*"]),
    AfterValidator(_of_a_model),
]
Count = Annotated[int, Field(strict=True, ge=0, le=MOST)]
Dollars = Annotated[str, Field(pattern=r"^[0-9]{1,7}(\.[0-9]{1,8})?$", examples=["2.50"])]


class BudgetIn(Body):
    """What may be used in a day or a month (UTC); null or left out: without limit."""

    requests: Count | None = Field(None, description="That a model has answered.")
    tokens: Count | None = Field(None, description="Prompts and replies together.")
    usd: Dollars | None = Field(None, description="By the prices of the models that answer.")

    def amounts(self) -> Amounts:
        money = None if self.usd is None else microcents(Decimal(self.usd))
        return Amounts(self.requests, self.tokens, money)


class LimitsIn(Body):
    """All of a holder's limits; what is left out is without limit from now on."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"models": ["groq/*", "gpt-4.1-mini"], "day": {"requests": 200}, "month": {"usd": "5.00"}}
            ]
        }
    )

    models: Annotated[list[Pattern], Field(min_length=1, max_length=100)] | None = Field(
        None,
        description="The models that may be asked, as provider/name, or as the name alone for every provider's; * "
        "stands for any text. null: all.",
    )
    day: BudgetIn = BudgetIn()
    month: BudgetIn = BudgetIn()

    def limits(self) -> Limits:
        models = None if self.models is None else tuple(dict.fromkeys(self.models))
        return Limits(models, self.day.amounts(), self.month.amounts())


class AmountsOut(Out):
    """So much of each; a limit that is null is none."""

    requests: int | None
    tokens: int | None
    usd: str | None

    @classmethod
    def of(cls, amounts: Amounts) -> "AmountsOut":
        money = None if amounts.microcents is None else usd(amounts.microcents)
        return cls(requests=amounts.requests, tokens=amounts.tokens, usd=money)


class LimitsOut(Out):
    """What a user or a token may use and spend."""

    models: list[str] | None = Field(description="Patterns of the models that may be asked; null: all.")
    day: AmountsOut
    month: AmountsOut

    @classmethod
    def of(cls, limits: Limits) -> "LimitsOut":
        models = None if limits.models is None else list(limits.models)
        return cls(models=models, day=AmountsOut.of(limits.day), month=AmountsOut.of(limits.month))


class SpentOut(Out):
    """What was used in a period so far."""

    since: date
    resets_at: datetime
    used: AmountsOut
    under_way: AmountsOut = Field(
        description="Of requests that have not ended, as they were estimated; counted where there is a budget."
    )

    @classmethod
    def of(cls, spent: Spent) -> "SpentOut":
        return cls(
            since=spent.since,
            resets_at=spent.resets_at,
            used=AmountsOut.of(spent.used),
            under_way=AmountsOut.of(spent.held),
        )


class StandingOut(Out):
    """Limits, and what is used of them."""

    limits: LimitsOut
    day: SpentOut
    month: SpentOut

    @classmethod
    def of(cls, standing: Standing) -> "StandingOut":
        return cls(
            limits=LimitsOut.of(standing.limits),
            day=SpentOut.of(standing.day),
            month=SpentOut.of(standing.month),
        )


class UsedOut(Out):
    """What was used of one model on one day (UTC)."""

    day: date
    model: str = Field(description="provider/model.")
    requests: int
    prompt_tokens: int
    cached_tokens: int = Field(description="Of the prompts', those that the provider had in its cache.")
    completion_tokens: int
    recorded_seconds: int = Field(description="Of recordings that were transcribed.")
    usd: str
    unpriced: int = Field(description="Requests whose price nobody knows: `usd` is without them.")

    @classmethod
    def of(cls, used: UsedOfModel) -> "UsedOut":
        return cls(
            day=used.day,
            model=used.model,
            requests=used.requests,
            prompt_tokens=used.prompt_tokens,
            cached_tokens=used.cached_tokens,
            completion_tokens=used.completion_tokens,
            recorded_seconds=used.recorded_seconds,
            usd=usd(used.microcents),
            unpriced=used.unpriced,
        )


class UserUsage(Out):
    """What a user has used, with all of their tokens."""

    user: StandingOut
    models: list[UsedOut] = Field(description="The newest day first.")


class Usage(UserUsage):
    """What one has used: the user, and the token that the request was made with."""

    token: StandingOut
