"""The objects of a PDF file, read and written again."""

import io
from datetime import UTC, datetime
from pathlib import Path

import pypdfium2
import pytest
import typst
from hypothesis import given
from hypothesis import strategies as st

from baatcheet.exports.pdf.joining import About, Heading, Joined
from baatcheet.exports.pdf.objects import (
    File,
    Malformed,
    Name,
    Ref,
    Text,
    Value,
    moved,
    parse,
    renumbered,
    text,
    text_end,
    written,
)
from tests.exports.pdf.making import links

AT = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = st.text(st.sampled_from("abcXYZ0189"), min_size=1, max_size=6)


def _literal(inner: str) -> Text:
    """A string with brackets that match, as the typesetter writes them."""
    depth = 0
    shown = ""
    for one in inner:
        if one == ")" and not depth:
            shown += "\\)"
            continue
        depth += {"(": 1, ")": -1}.get(one, 0)
        shown += "\\\\" if one == "\\" else one
    return Text(f"({shown}{')' * depth})".encode())


VALUES: st.SearchStrategy[Value] = st.recursive(
    st.one_of(
        st.integers(-9_999, 9_999),
        st.booleans(),
        st.none(),
        st.integers(1, 9_999).map(Ref),
        NAMES.map(Name),
        st.text(st.sampled_from("()\\<>[]/ 12R0 obj")).map(_literal),
        st.text(max_size=5).map(text),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(NAMES, inner, max_size=4)),
    max_leaves=12,
)


@given(VALUES)
def test_what_is_written_is_read_again(value: Value) -> None:
    assert parse(written(value)) == value


@given(VALUES, st.integers(0, 5_000))
def test_references_move_and_nothing_else(value: Value, by: int) -> None:
    assert parse(renumbered(written(value), by, 0)) == moved(value, by)
    assert moved(moved(value, by), -by) == value


def test_keys_of_the_structure_move_too() -> None:
    assert renumbered(b"<</StructParents 3/A(/StructParents 3 7 0 R)/B 7 0 R>>", 10, 100) == (
        b"<</StructParents 103/A(/StructParents 3 7 0 R)/B 17 0 R>>"
    )


@pytest.mark.parametrize(
    "broken", [b"", b"<</A", b"[1 2", b"(a(b)", b"<</A 1>> 2", b"/A /B", b">>", b"hello"]
)
def test_what_is_broken_is_malformed(broken: bytes) -> None:
    with pytest.raises(Malformed):
        parse(broken)


def test_a_string_without_end_is_malformed() -> None:
    with pytest.raises(Malformed):
        text_end(b"(a\\)", 0)


@pytest.mark.parametrize(
    "data", [b"", b"%PDF-1.7", b"startxref\n5\n%%EOF", b"xref\n0 1\nstartxref\n0\n%%EOF"]
)
def test_a_file_that_is_none_is_malformed(data: bytes) -> None:
    with pytest.raises((Malformed, ValueError)):
        File(data)


def _typeset(source: str, path: Path) -> Path:
    path.write_bytes(typst.compile(source.encode(), format="pdf"))
    return path


def test_strings_that_look_like_objects_are_kept(tmp_path: Path) -> None:
    """A link's address stands in the file as a string, and may hold anything."""
    address = "https://example.com/?a=(endobj)%201 0 R endstream /StructParents 1 >> ) ( stream"
    part = _typeset(f'= Heading\n#link("{address}")[here]', tmp_path / "part.pdf")
    foot = tmp_path / "foot.pdf"
    foot.write_bytes(typst.compile(b"foot", format="pdf", pdf_tags=False))
    file = io.BytesIO()
    joined = Joined(file)
    joined.add(File(part.read_bytes()))
    joined.add(File(part.read_bytes()))
    joined.feet(File(foot.read_bytes()), 1)
    joined.feet(File(foot.read_bytes()), 2)
    joined.finish([Heading(1, "one"), Heading(1, "two")], About("t", "", AT))

    with pypdfium2.PdfDocument(file.getvalue()) as document:
        assert len(document) == 2
        assert "here" in document[1].get_textpage().get_text_range()
        assert "foot" in document[1].get_textpage().get_text_range()
        assert links(document, 1) == links(document, 2) == [address]


def test_headings_must_be_those_that_were_set() -> None:
    joined = Joined(io.BytesIO())

    with pytest.raises(Malformed):
        joined.finish([Heading(1, "of nothing")], About("t", "", AT))
