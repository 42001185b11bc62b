"""`/api/v1/analytics`."""

from datetime import date
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BeforeValidator
from starlette.responses import Response

from baatcheet.analytics.reports import PERIODS, Group, Range, Reports
from baatcheet.analytics.schemas import OverviewReport, UsageReport, overview_report, usage_report
from baatcheet.analytics.tables import overview_as_csv, prefers_csv, usage_as_csv
from baatcheet.auth.access import Reader
from baatcheet.auth.principal import Principal
from baatcheet.platform.errors import Invalid
from baatcheet.platform.openapi import Responses, problems
from baatcheet.platform.rest import Id, QueryFlag

router = APIRouter(prefix="/api/v1/analytics", tags=["analytics"])
TAG = {"name": "analytics", "description": "What was used, by day, week, month and model."}


def _reports(request: Request) -> Reports:
    service: Reports = request.app.state.reports
    return service


def _day(value: object) -> object:
    if isinstance(value, str) and len(value) == 10 and value.isascii():
        try:
            return date.fromisoformat(value)
        except ValueError:
            pass
    raise ValueError("is not a day like 2027-01-31")


Service = Annotated[Reports, Depends(_reports)]
Day = Annotated[date, BeforeValidator(_day)]
From = Annotated[
    Day | None, Query(alias="from", description="The first day (UTC); absent: 30 days until `to`.")
]
To = Annotated[Day | None, Query(alias="to", description="The last day (UTC), included; absent: today.")]
Whose = Annotated[
    Id | None, Query(description="Whose; absent: one's own. Another's is for administrators only.")
]
Everybody = Annotated[
    QueryFlag, Query(description="Of all users together; for administrators only, and without `user_id`.")
]
GroupBy = Annotated[
    list[Group],
    Query(
        description="One or more times: `day`, `week` (from Monday) or `month`, of which one; `model`; with "
        "`everybody`, `user`.",
        min_length=1,
        max_length=3,
    ),
]
Format = Annotated[
    Literal["json", "csv"] | None, Query(description="Absent: as the Accept header says; `text/csv` is CSV.")
]

_CSV: Responses = {200: {"content": {"text/csv": {"schema": {"type": "string"}}}}}


async def _whose(who: Principal, reports: Reports, user_id: UUID | None, *, everybody: bool) -> UUID | None:
    """None: everybody's. Raises Forbidden, Invalid, UserNotFound."""
    if everybody or user_id not in {None, who.user_id}:
        who.require("admin")
    if everybody:
        if user_id is not None:
            raise Invalid("Ask for one user or for everybody, not for both.", param="user_id")
        return None
    if user_id not in {None, who.user_id}:
        await reports.known(user_id)
        return user_id
    return who.user_id


def _as_asked(request: Request, wanted: str | None) -> bool:
    """Whether the answer is CSV."""
    return wanted == "csv" or (wanted is None and prefers_csv(request.headers.get("accept", "")))


def _csv(content: str, name: str, asked: Range) -> Response:
    return Response(
        content,
        media_type="text/csv; charset=utf-8",
        headers={
            "content-disposition": f'attachment; filename="{name}-{asked.since}-{asked.until}.csv"',
            "vary": "accept",
        },
    )


@router.get(
    "/usage",
    summary="What was used, by day or model",
    response_model=UsageReport,
    responses={**_CSV, **problems(404, 422)},
)
async def get_usage_report(
    request: Request,
    who: Reader,
    reports: Service,
    since: From = None,
    until: To = None,
    group_by: GroupBy = ["day"],  # noqa: B006 - it does not change
    user_id: Whose = None,
    everybody: Everybody = False,
    format: Format = None,  # noqa: A002 - what clients call it
) -> UsageReport | Response:
    """A turn counts in the transaction that ends it, and is still there when its conversation is deleted."""
    asked = Range.of(since, until)
    whose = await _whose(who, reports, user_id, everybody=everybody)
    groups = tuple(dict.fromkeys(group_by))
    periods = [one for one in groups if one in PERIODS]
    if len(periods) > 1:
        raise Invalid(f"Group by one of {', '.join(periods)}, not by several.", param="group_by")
    if "user" in groups and whose is not None:
        raise Invalid("To group by user, ask for everybody's: everybody=true.", param="group_by")
    rows, complete = await reports.usage(whose, asked, groups)
    report = usage_report(rows, asked, periods[0] if periods else None, complete=complete)
    if _as_asked(request, format):
        return _csv(usage_as_csv(report, groups), "usage", asked)
    return report


@router.get(
    "/overview",
    summary="What was used in all",
    response_model=OverviewReport,
    responses={**_CSV, **problems(404, 422)},
)
async def get_usage_overview(
    request: Request,
    who: Reader,
    reports: Service,
    since: From = None,
    until: To = None,
    user_id: Whose = None,
    everybody: Everybody = False,
    format: Format = None,  # noqa: A002 - what clients call it
) -> OverviewReport | Response:
    """The sums, those of as many days before, the dearest models, and what is stored."""
    asked = Range.of(since, until)
    whose = await _whose(who, reports, user_id, everybody=everybody)
    report = overview_report(await reports.overview(whose, asked), asked)
    if _as_asked(request, format):
        return _csv(overview_as_csv(report), "overview", asked)
    return report
