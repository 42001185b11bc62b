"""What the reference shows can be imported."""

import json
from pathlib import Path

import pytest

from tests.docs.markdown import ROOT, Snippet, snippets
from tests.exports.uploads import read_upload

EXAMPLES = [one for one in snippets(ROOT / "docs/reference/export-format.md") if one.language == "json"]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda one: f"line {one.line}")
def test_an_example_of_the_format_can_be_imported(example: Snippet, tmp_path: Path) -> None:
    usable, lines = read_upload(tmp_path, json.loads(example.text)).only()
    assert usable.title == "Trip to Hunza"
    assert [line.role for line in lines] == ["user", "assistant"]
    assert [line.parent for line in lines] == [None, 0]
    assert usable.head == 1


def test_there_are_examples() -> None:
    assert len(EXAMPLES) == 2
