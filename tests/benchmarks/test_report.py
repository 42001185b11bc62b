"""Every benchmark prints its figures in one form."""

import json
from collections.abc import Sequence

import pytest
from benchmarks.report import Options, Report, options


@pytest.fixture
def report() -> Report:
    report = Report("sums")
    report.add("sums.rate", 1234.5678, "1/s", better="higher", target=1000)
    report.add("sums.delay", 30.0, "ms", better="lower", target=25)
    report.add("sums.size", 7, "bytes", better="lower")
    report.add("sums.lost", None, "sums", better="lower", target=0)
    report.note("Adding took the time.")
    return report


def shown(report: Report, capsys: pytest.CaptureFixture[str], *, as_json: bool) -> str:
    report.show(Options(json=as_json, quick=False))
    return capsys.readouterr().out


def test_json_is_one_object_with_bench_figures_and_machine(
    report: Report, capsys: pytest.CaptureFixture[str]
) -> None:
    document = json.loads(shown(report, capsys, as_json=True))
    assert set(document) == {"bench", "figures", "machine"}
    assert document["bench"] == "sums"
    assert document["machine"]["cores"] >= 1
    for figure in document["figures"].values():
        assert set(figure) == {"value", "unit", "target", "better", "ok"}


def test_a_figure_is_ok_when_it_is_on_the_better_side_of_its_target(report: Report) -> None:
    figures = report.document()["figures"]
    assert figures["sums.rate"] == {
        "value": 1235.0,
        "unit": "1/s",
        "target": 1000,
        "better": "higher",
        "ok": True,
    }
    assert figures["sums.delay"]["ok"] is False


def test_a_figure_exactly_at_its_target_is_ok() -> None:
    report = Report("sums")
    report.add("low", 25, "ms", better="lower", target=25)
    report.add("high", 0.3, "x", better="higher", target=0.3)
    assert [figure["ok"] for figure in report.document()["figures"].values()] == [True, True]


def test_a_miss_is_not_rounded_into_a_hit() -> None:
    report = Report("sums")
    report.add("ratio", 0.29999999, "x", better="higher", target=0.3)
    assert report.document()["figures"]["ratio"]["ok"] is False


def test_a_figure_without_a_target_is_information(report: Report) -> None:
    size = report.document()["figures"]["sums.size"]
    assert size["target"] is None
    assert size["ok"] is True


def test_what_could_not_be_measured_is_never_ok(report: Report) -> None:
    lost = report.document()["figures"]["sums.lost"]
    assert lost["value"] is None
    assert lost["ok"] is False


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_no_number_counts_as_not_measured(value: float) -> None:
    report = Report("sums")
    report.add("odd", value, "ms", better="higher", target=1)
    assert report.document()["figures"]["odd"]["value"] is None
    assert report.document()["figures"]["odd"]["ok"] is False


def test_the_table_has_every_figure_its_verdict_and_the_notes(
    report: Report, capsys: pytest.CaptureFixture[str]
) -> None:
    table = shown(report, capsys, as_json=False).splitlines()
    rows = {line.split()[0]: line for line in table if line.startswith("sums.")}
    assert list(rows) == ["sums.rate", "sums.delay", "sums.size", "sums.lost"]
    assert rows["sums.rate"].endswith("≥ 1000  ok")
    assert rows["sums.delay"].endswith("≤ 25    MISSED")
    assert rows["sums.size"].endswith("bytes")
    assert table[-1] == "Adding took the time."


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], Options(json=False, quick=False)),
        (["--json"], Options(json=True, quick=False)),
        (["--json", "--quick"], Options(json=True, quick=True)),
    ],
)
def test_every_benchmark_takes_json_and_quick(arguments: Sequence[str], expected: Options) -> None:
    assert options("sums", "How long sums take.", arguments) == expected
