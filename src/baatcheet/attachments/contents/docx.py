"""DOCX: the text of a Word document in the order in which it is read, tables and notes included.

A DOCX file is a ZIP archive of XML. What an archive can be made to do (more entries, larger ones or higher ratios
than any document has, entities in its XML) is looked for before anything is unpacked.
"""

import io
import re
import zipfile
from collections.abc import Iterator
from typing import Any, Final

import docx
from docx.opc.constants import RELATIONSHIP_TYPE
from docx.oxml import parse_xml
from docx.oxml.ns import qn

from baatcheet.attachments.contents.pictures import decoding
from baatcheet.jobs.isolation_frames import Refused

MOST_ENTRIES: Final = 4_000
MOST_BYTES: Final = 400_000_000  # of all entries, unpacked
MOST_XML: Final = 60_000_000  # of one part that is XML
MOST_RATIO: Final = 200  # of an entry of more than `SMALL` bytes to what it is packed into
SMALL: Final = 1_000_000
MOST_DEPTH: Final = 40  # of tables within tables
CHUNK: Final = 65_536

_DOCTYPE = re.compile(rb"<!(?:DOCTYPE|ENTITY)", re.IGNORECASE)
_BREAKS = {qn("w:br"): "\n", qn("w:cr"): "\n", qn("w:tab"): "\t", qn("w:noBreakHyphen"): "-"}
# What was deleted, what a field is made from, and the older form of a drawing that is there in the newer one too.
_SKIPPED = frozenset(
    {
        qn("w:del"),
        qn("w:moveFrom"),
        qn("w:instrText"),
        qn("w:delText"),
        qn("w:pPr"),
        qn("w:rPr"),
        qn("w:sdtPr"),
        "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback",
    }
)
_BLOCKS = frozenset({qn("w:p"), qn("w:tbl")})


def text_of(path: str) -> Iterator[str]:
    """The document's text, a piece after another. Raises Refused."""
    with decoding("The document"):
        _refuse_bomb(path)
        document = docx.Document(path)
    with decoding("The document"):
        yield from _blocks(document.element.body, 0)
        for kind, name in (
            (RELATIONSHIP_TYPE.FOOTNOTES, "footnote"),
            (RELATIONSHIP_TYPE.ENDNOTES, "endnote"),
        ):
            yield from _notes(document, kind, name)


def _refuse_bomb(path: str) -> None:
    """Raises Refused, before anything is held in memory, when the archive is none that Word makes."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if len(entries) > MOST_ENTRIES:
            raise Refused(f"The document is an archive of {len(entries):,} files: that is no Word document.")
        if any(entry.flag_bits & 1 for entry in entries):
            raise Refused(
                "The document is protected with a password. Save it without one, and upload it again."
            )
        if sum(entry.file_size for entry in entries) > MOST_BYTES:
            raise Refused("The document would unpack to more than may be unpacked.")
        names = {entry.filename for entry in entries}
        if len(names) < len(entries):
            raise Refused("The document has two parts of one name.")
        for entry in entries:
            large = entry.file_size > SMALL
            if large and entry.file_size > MOST_RATIO * max(1, entry.compress_size):
                raise Refused("The document has a part that unpacks to far more than it should.")
            if entry.filename.lower().endswith((".xml", ".rels")):
                _refuse_entities(archive, entry)


def _refuse_entities(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
    if entry.file_size > MOST_XML:
        raise Refused("The document has a part of text that is larger than any book.")
    with archive.open(entry) as part:
        # Declarations stand before the first element. UTF-16 has a zero beside each of their letters.
        head = part.read(CHUNK).replace(b"\x00", b"")
        if _DOCTYPE.search(head):
            raise Refused("The document's XML declares entities, which no Word document does.")
        seen = CHUNK
        while chunk := part.read(CHUNK):  # its checksum is looked at on the way
            seen += len(chunk)
            if seen > MOST_XML:
                raise Refused("The document has a part of text that is larger than it says.")


def _notes(document: Any, kind: str, name: str) -> Iterator[str]:
    """What stands at the foot of pages, at the end. Separators have ids below 1."""
    for relation in document.part.rels.values():
        if relation.reltype != kind or relation.is_external:
            continue
        part = relation.target_part
        root = parse_xml(part.blob)
        for note in root.iter(qn(f"w:{name}")):
            number = note.get(qn("w:id"), "0")
            if number.lstrip("-").isdigit() and int(number) > 0:
                text = "\n".join(_blocks(note, 0)).strip()
                if text:
                    yield f"[{number}] {text}"


def _blocks(container: Any, depth: int) -> Iterator[str]:
    """Paragraphs and tables, in order, whatever they are wrapped in."""
    if depth > MOST_DEPTH:
        return
    for child in container:
        if child.tag == qn("w:p"):
            yield _paragraph(child)
        elif child.tag == qn("w:tbl"):
            yield from _table(child, depth + 1)
        elif child.tag not in _SKIPPED and any(True for _ in child.iter(*_BLOCKS)):
            yield from _blocks(child, depth + 1)


def _table(table: Any, depth: int) -> Iterator[str]:
    """A row a line, its cells between bars."""
    yield ""
    for row in table.iter(qn("w:tr")):
        if row.getparent() is not table and _table_of(row) is not table:
            continue  # of a table inside a cell
        cells = [
            " ".join("\n".join(_blocks(cell, depth)).split())
            for cell in row.iter(qn("w:tc"))
            if _row_of(cell) is row and not _continues(cell)
        ]
        yield " | ".join(cells)
    yield ""


def _table_of(row: Any) -> Any:
    return next(row.iterancestors(qn("w:tbl")), None)


def _row_of(cell: Any) -> Any:
    return next(cell.iterancestors(qn("w:tr")), None)


def _continues(cell: Any) -> bool:
    """Whether a cell only goes on with the one above it."""
    merged = cell.find(f"{qn('w:tcPr')}/{qn('w:vMerge')}")
    return merged is not None and merged.get(qn("w:val"), "continue") == "continue"


def _paragraph(paragraph: Any) -> str:
    """Its text; that of text boxes that hang on it, after it."""
    own = io.StringIO()
    boxes: list[str] = []
    _gather(paragraph, own, boxes, 0)
    text = own.getvalue()
    return "\n".join([text, *boxes]) if boxes else text


def _gather(element: Any, into: io.StringIO, boxes: list[str], depth: int) -> None:
    if depth > 4 * MOST_DEPTH:
        return
    for child in element:
        if child.tag == qn("w:t"):
            into.write(child.text or "")
        elif child.tag in _BREAKS:
            into.write(_BREAKS[child.tag])
        elif child.tag in {qn("w:footnoteReference"), qn("w:endnoteReference")}:
            into.write(f"[{child.get(qn('w:id'), '')}]")
        elif child.tag == qn("w:txbxContent"):
            boxes.extend(_blocks(child, depth // 2))
        elif child.tag not in _SKIPPED:
            _gather(child, into, boxes, depth + 1)
