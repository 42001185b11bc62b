"""Reports as CSV (RFC 4180): a line of names, then one line a row."""

import csv
import io
from collections.abc import Iterable, Sequence

from baatcheet.analytics.reports import Group
from baatcheet.analytics.schemas import OverviewReport, UsageReport, UsedAmounts

_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet takes for one


def usage_as_csv(report: UsageReport, groups: Sequence[Group]) -> str:
    """The columns of `groups`, then the amounts."""
    keys = []
    for group in groups:
        keys += ["model"] if group == "model" else ["user_id"] if group == "user" else ["since", "until"]
    names = {"since": "from", "until": "to"}
    amounts = list(UsedAmounts.model_fields)
    return _csv(
        [*(names.get(key, key) for key in keys), *amounts],
        ([getattr(row, one) for one in (*keys, *amounts)] for row in report.data),
    )


def overview_as_csv(report: OverviewReport) -> str:
    """A row `total`, one `before`, and one `model` for each model; `stored_bytes` is in the first."""
    amounts = list(UsedAmounts.model_fields)

    def values(used: UsedAmounts) -> list[object]:
        return [getattr(used, one) for one in amounts]

    rows: list[list[object]] = [["total", None, *values(report.total), report.stored_bytes]]
    if report.before is not None:
        rows.append(["before", None, *values(report.before), None])
    rows += [["model", one.model, *values(one), None] for one in report.models]
    return _csv(["what", "model", *amounts, "stored_bytes"], rows)


def _csv(names: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    written = io.StringIO()
    writer = csv.writer(written)
    writer.writerow(names)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return written.getvalue()


def _cell(value: object) -> object:
    """A text that a spreadsheet would run is only shown."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def prefers_csv(accept: str) -> bool:
    """Whether an Accept header asks for CSV rather than for JSON (RFC 9110 § 12.5.1)."""
    wanted = {"text/csv": 0.0, "application/json": 0.0}
    for part in accept.lower().split(","):
        kind, *parameters = (piece.strip() for piece in part.split(";"))
        if kind in wanted:
            wanted[kind] = max(wanted[kind], _weight(parameters))
    return wanted["text/csv"] > 0 and wanted["text/csv"] >= wanted["application/json"]


def _weight(parameters: Sequence[str]) -> float:
    for one in parameters:
        name, _, number = one.partition("=")
        if name.strip() == "q":
            try:
                return float(number)
            except ValueError:
                return 0.0
    return 1.0
