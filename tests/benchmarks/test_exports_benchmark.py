"""The benchmark of exports measures what it says."""

from pathlib import Path

from benchmarks.report import Report

from baatcheet.exports.document import Document, Said, lines
from benchmarks import exports


def test_a_document_holds_the_messages_it_says(tmp_path: Path) -> None:
    path = tmp_path / "30.jsonl"

    characters = exports.write_document(path, 30)

    head, _talk, *said = lines(path)
    assert isinstance(head, Document)
    contents = [one.content for one in said if isinstance(one, Said)]
    assert head.messages == len(contents) == 30
    assert sum(map(len, contents)) == characters
    text = "\n".join(contents)
    for part in ("```python", "ہے", "| English |", "### ", "\n- ", "https://example.com/"):
        assert part in text


def test_a_rendering_is_measured_in_a_process_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "30.jsonl"
    exports.write_document(path, 30)
    ballast = bytearray(700_000_000)  # what this process holds is not what the rendering takes
    ballast[::4096] = b"x" * len(range(0, len(ballast), 4096))

    taken = exports.measure(path, "pdf", tmp_path)

    assert taken.pages > 3
    assert taken.size > 10_000
    assert taken.processor > 0
    assert 30 < taken.megabytes < 700
    assert list(tmp_path.iterdir()) == [path]


def test_the_report_has_its_figures() -> None:
    report = Report("exports")
    exports.run(report, (20, 40))

    assert {
        "pdf.20.time",
        "pdf.40.memory",
        "pdf.processor_per_message_ratio",
        "md.40.time",
    } <= report.figures.keys()
