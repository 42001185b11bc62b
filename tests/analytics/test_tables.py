"""Reports as CSV."""

import csv
import io
from datetime import date
from uuid import UUID

import hypothesis.strategies as st
import pytest
from hypothesis import given

from baatcheet.analytics.reports import COUNTED, Range, Used
from baatcheet.analytics.schemas import usage_report
from baatcheet.analytics.tables import prefers_csv, usage_as_csv

ASKED = Range(date(2026, 3, 1), date(2026, 3, 9))


@given(model=st.text(), turns=st.integers(0, 2**62))
def test_what_is_written_reads_back_and_no_model_is_a_formula(model: str, turns: int) -> None:
    counts = dict.fromkeys(COUNTED, 0) | {"turns": turns}
    used = Used(date(2026, 3, 2), model, UUID(int=1), counts)
    report = usage_report([used], ASKED, "day", complete=True)
    names, line = csv.reader(io.StringIO(usage_as_csv(report, ("day", "model", "user")), newline=""))
    cells = dict(zip(names, line, strict=True))
    assert (cells["from"], cells["turns"], cells["user_id"]) == ("2026-03-02", str(turns), str(UUID(int=1)))
    assert cells["model"].removeprefix("'") == model.removeprefix("'")
    assert not cells["model"].startswith(("=", "+", "-", "@", "\t", "\r"))


@pytest.mark.parametrize(
    ("accept", "csv_is_wanted"),
    [
        ("", False),
        ("*/*", False),
        ("application/json", False),
        ("text/csv", True),
        ("TEXT/CSV; charset=utf-8", True),
        ("text/csv, application/json;q=0.5", True),
        ("text/csv;q=0.4, application/json;q=0.5", False),
        ("text/csv;q=0", False),
        ("text/csv;q=much", False),
        (",;,=;q", False),
    ],
)
def test_csv_is_for_who_asks_for_it(accept: str, csv_is_wanted: bool) -> None:
    assert prefers_csv(accept) == csv_is_wanted


@given(st.text())
def test_no_accept_header_is_a_fault_of_ours(accept: str) -> None:
    assert prefers_csv(accept) in {True, False}
