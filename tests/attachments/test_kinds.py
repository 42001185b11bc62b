"""Telling a file's kind by its bytes."""

import pytest
from benchmarks.ocr.corpus import honest, protected_docx, repacked, word_document
from hypothesis import given
from hypothesis import strategies as st

from baatcheet.attachments.kinds import KINDS, ProtectedFile, UnknownKind, is_text, kind_of_head, settled

KIND = {"jpg": "jpeg"}


def told(data: bytes, name: str) -> str:
    return settled(kind_of_head(data[:8192]), name, data[:8192], data[-1_000_000:])


def test_every_kind_is_told_whatever_the_file_is_called() -> None:
    for name, data in honest().items():
        suffix = name.rpartition(".")[2]
        expected = KIND.get(suffix, suffix)
        assert told(data, name) == expected
        if not KINDS[expected].plain:
            assert told(data, "misleading.txt") == expected


@given(st.binary(max_size=4000), st.text(max_size=20))
def test_any_bytes_are_of_a_kind_or_refused_in_words(data: bytes, name: str) -> None:
    try:
        assert told(data, name) in KINDS
    except (UnknownKind, ProtectedFile) as refusal:
        assert len(refusal.detail) > 20  # noqa: PT017


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252", "koi8-r"]
)
def test_text_is_text_in_every_encoding(encoding: str) -> None:
    words = (
        "Grüße aus Köln, mit café"
        if encoding == "cp1252"
        else "Привет, мир"
        if encoding == "koi8-r"
        else "سلام دنیا"
    )
    assert is_text((words * 20).encode(encoding))


def test_other_archives_are_told_from_documents() -> None:
    sheet = repacked(word_document(), {"word/document.xml": None, "xl/workbook.xml": b"<x/>"}, stored=True)
    for part in (b"word/", b"WORD/"):
        sheet = sheet.replace(part, b"else/")
    with pytest.raises(UnknownKind, match="spreadsheet"):
        told(sheet, "x.docx")
    with pytest.raises(ProtectedFile):
        told(protected_docx(), "x.docx")
    with pytest.raises(UnknownKind, match="old Office format"):
        told(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(3000), "x.doc")
