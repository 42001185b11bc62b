"""Documents to make PDFs of, and what a reader finds in them."""

import ctypes
import weakref
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pypdfium2
from PIL import Image

from baatcheet.exports.document import Document, Line, Rendered, Rendering, Said, Talk, line
from baatcheet.exports.pdf.fonts import Shelf
from baatcheet.exports.pdf.making import make_pdf

WRITTEN = datetime(2026, 5, 12, 9, 30, tzinfo=UTC)
EXPORTED = datetime(2026, 6, 1, 18, 0, 5, 123456, tzinfo=UTC)
# Margins of the page, in points; nothing that is said stands outside them.
LEFT, RIGHT = 55.0, 541.0


class Letter(NamedTuple):
    """A character, and where it stands."""

    text: str
    left: float
    bottom: float
    right: float
    top: float


class Book:
    """A PDF file, read with pdfium."""

    def __init__(self, path: Path, rendered: Rendered, progress: list[tuple[float, str]]) -> None:
        self.path = path
        self.rendered = rendered
        self.progress = progress
        self._file = pypdfium2.PdfDocument(path.read_bytes())
        weakref.finalize(self, self._file.close)

    def __len__(self) -> int:
        return len(self._file)

    def page(self, number: int) -> str:
        """The text of page `number`, counted from 1."""
        return str(self._file[number - 1].get_textpage().get_text_range()).replace("\r\n", "\n")

    @property
    def text(self) -> str:
        return "\n".join(self.page(number) for number in range(1, len(self) + 1))

    @property
    def said(self) -> str:
        """The text without title and contents, which are on the first page in all but long documents."""
        return "\n".join(self.page(number) for number in range(2, len(self) + 1))

    def letters(self, number: int) -> list[Letter]:
        page = self._file[number - 1].get_textpage()
        return [
            Letter(page.get_text_range(index, 1), *page.get_charbox(index))
            for index in range(page.count_chars())
        ]

    def picture(self, number: int, scale: float = 2.0) -> Image.Image:
        picture: Image.Image = self._file[number - 1].render(scale=scale).to_pil()
        return picture.convert("L")

    def bookmarks(self) -> list[tuple[int, str, int]]:
        """Level, title and page of each."""
        found = []
        for one in self._file.get_toc():
            place = one.get_dest()
            assert place is not None
            index = place.get_index()
            assert index is not None
            found.append((one.level, one.get_title(), index + 1))
        return found

    def links(self, number: int) -> list[int | str]:
        """Where the links of a page lead."""
        return links(self._file, number)

    def about(self) -> dict[str, str]:
        return dict(self._file.get_metadata_dict())


def links(file: pypdfium2.PdfDocument, number: int) -> list[int | str]:
    """Where the links of a page lead: the number of a page, or an address."""
    page = file[number - 1]
    found: list[int | str] = []
    position = ctypes.c_int(0)
    link = pypdfium2.raw.FPDF_LINK()
    while pypdfium2.raw.FPDFLink_Enumerate(page.raw, position, link):
        place = pypdfium2.raw.FPDFLink_GetDest(file.raw, link)
        if place:
            found.append(pypdfium2.raw.FPDFDest_GetDestPageIndex(file.raw, place) + 1)
            continue
        action = pypdfium2.raw.FPDFLink_GetAction(link)
        size = pypdfium2.raw.FPDFAction_GetURIPath(file.raw, action, None, 0)
        buffer = ctypes.create_string_buffer(size)
        pypdfium2.raw.FPDFAction_GetURIPath(file.raw, action, buffer, size)
        found.append(buffer.value.decode())
    return found


class Publisher:
    """Makes PDFs in a folder, with fonts that are looked for once."""

    def __init__(self, folder: Path, shelf: Shelf) -> None:
        self._folder = folder
        self._shelf = shelf
        self._count = 0

    def publish(self, *contents: str, **head: Any) -> Book:
        """A conversation in which user and assistant say `contents` in turn."""
        return self.of_messages(messages(contents), **head)

    def of_messages(self, said: Sequence[Said], **head: Any) -> Book:
        title = head.pop("title", "A conversation")
        talk = Talk("1", title, WRITTEN, messages=len(said), **head.pop("talk", {}))
        document = Document(title, EXPORTED, 1, len(said), **head)
        return self.of_lines([document, talk, *said])

    def of_lines(self, lines: Sequence[Line] | Iterator[Line]) -> Book:
        self._count += 1
        source = self._folder / f"{self._count}.jsonl"
        with source.open("wb") as file:
            for one in lines:
                file.write(line(one))
        target = self._folder / f"{self._count}.pdf"
        progress: list[tuple[float, str]] = []
        order = Rendering(str(source), str(target), "pdf")
        rendered = make_pdf(order, lambda percent, phrase: progress.append((percent, phrase)), self._shelf)
        source.unlink()
        return Book(target, rendered, progress)


def messages(contents: Sequence[str]) -> list[Said]:
    return [
        Said(
            str(number),
            "assistant" if number % 2 else "user",
            content,
            WRITTEN + timedelta(minutes=number),
            model="a-model" if number % 2 else "",
        )
        for number, content in enumerate(contents)
    ]


def squeezed(text: str) -> str:
    """`text` without what a line's end adds or a reader leaves out: blanks, marks of direction, zero widths."""
    return "".join(
        one
        for one in text
        if not one.isspace() and one not in "\u200b\u200e\u200f\u2066\u2067\u2069\ufffe\x02"
    )
