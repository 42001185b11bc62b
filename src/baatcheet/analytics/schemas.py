"""Usage as clients see it. Money is a decimal number of US dollars, written as a string; days are UTC's."""

from collections.abc import Sequence
from datetime import date
from uuid import UUID

from pydantic import ConfigDict, Field

from baatcheet.analytics.latency import percentile
from baatcheet.analytics.reports import Group, Overview, Range, Used, last_day
from baatcheet.budgets.limits import usd
from baatcheet.platform.rest import Out

_BY_ALIAS = ConfigDict(serialize_by_alias=True, validate_by_name=True, validate_by_alias=True)


class UsedAmounts(Out):
    """How much of each."""

    turns: int = Field(description="That have ended, however.")
    completed: int
    failed: int
    cancelled: int
    interrupted: int
    messages: int = Field(description="Of these turns, and those that were stored or imported without one.")
    prompt_tokens: int
    cached_tokens: int = Field(description="Of the prompts', those that the provider had in its cache.")
    completion_tokens: int
    usd: str = Field(description="By the prices of then.")
    unpriced: int = Field(description="Turns and requests whose price nobody knew: `usd` is without them.")
    latency_ms: int | None = Field(
        description="From a turn's opening to its end, of completed turns, on average; null without any."
    )
    latency_p50_ms: int | None = Field(
        description="What half of them took at most, put between the two bounds that it is between: 0, 250 and 500 "
        "ms, 1, 2, 4, … 256 s."
    )
    latency_p95_ms: int | None = Field(description="What 95 of 100 of them took at most, likewise.")
    slowest_ms: int | None = Field(description="Of the slowest of them.")
    embeddings: int = Field(description="Requests for embeddings.")
    recordings: int = Field(description="That were transcribed.")
    recorded_seconds: int
    jobs_succeeded: int
    jobs_failed: int
    jobs_cancelled: int
    bytes_added: int = Field(description="Of attachments, recordings and exports.")
    bytes_removed: int

    @classmethod
    def fields_of(cls, used: Used) -> dict[str, object]:
        counts = used.counts
        fields: dict[str, object] = {
            name: counts[name] for name in UsedAmounts.model_fields if name in counts
        }
        completed = counts["completed"]
        return fields | {
            "usd": usd(counts["microcents"]),
            "latency_ms": round(counts["latency_ms"] / completed) if completed else None,
            "latency_p50_ms": percentile(counts, 0.5),
            "latency_p95_ms": percentile(counts, 0.95),
            "slowest_ms": counts["slowest_ms"] if completed else None,
        }


class UsageRow(UsedAmounts):
    """What was used in one group. `from`, `to`: its days, with `group_by=day`, `week` or `month`."""

    model_config = _BY_ALIAS

    since: date | None = Field(alias="from")
    until: date | None = Field(alias="to")
    model: str | None = Field(
        description="provider/model; empty: of no model, as jobs, and turns that nobody answered. null: not grouped so."
    )
    user_id: UUID | None = Field(description="null: not grouped so, or of users who were deleted.")


class UsageReport(Out):
    """What was used, by day, week, month, model or user, the oldest first. Groups without any use are left out."""

    model_config = _BY_ALIAS

    since: date = Field(alias="from")
    until: date = Field(alias="to")
    data: list[UsageRow]
    complete: bool = Field(description="false: what was used before an upgrade is still being counted.")


class ModelRow(UsedAmounts):
    """What was used of one model."""

    model: str = Field(description="provider/model.")


class OverviewReport(Out):
    """What was used in all."""

    model_config = _BY_ALIAS

    since: date = Field(alias="from")
    until: date = Field(alias="to")
    total: UsedAmounts
    before: UsedAmounts | None = Field(description="In as many days just before, to compare.")
    models: list[ModelRow] = Field(description="The dearest first, at most 20.")
    stored_bytes: int = Field(description="Of attachments, recordings and exports that are kept now.")
    complete: bool = Field(description="false: what was used before an upgrade is still being counted.")


def usage_report(rows: Sequence[Used], asked: Range, period: Group | None, *, complete: bool) -> UsageReport:
    """`period`: the one that `rows` are grouped by, if they are. Its first and last ones are cut to the range."""
    data = [
        {
            **UsedAmounts.fields_of(row),
            "from": None if row.since is None else max(row.since, asked.since),
            "to": None if row.since is None else min(last_day(period, row.since), asked.until),
            "model": row.model,
            "user_id": row.user_id,
        }
        for row in rows
    ]
    return UsageReport.model_validate(
        {"from": asked.since, "to": asked.until, "data": data, "complete": complete}
    )


def overview_report(found: Overview, asked: Range) -> OverviewReport:
    return OverviewReport.model_validate(
        {
            "from": asked.since,
            "to": asked.until,
            "total": UsedAmounts.fields_of(found.total),
            "before": None if found.before is None else UsedAmounts.fields_of(found.before),
            "models": _models(found.models),
            "stored_bytes": found.stored_bytes,
            "complete": found.complete,
        }
    )


def _models(rows: Sequence[Used]) -> list[dict[str, object]]:
    return [{**UsedAmounts.fields_of(row), "model": row.model} for row in rows]
