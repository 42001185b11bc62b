"""PDF: the text that is in it, page by page, and its pages as pictures where there is none."""

import ctypes
import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import pypdfium2
import pypdfium2.raw as pdfium

from baatcheet.attachments.contents.found import FoundPage
from baatcheet.attachments.contents.pictures import Picture, decoding
from baatcheet.attachments.contents.reading_order import Placed, has_right_to_left, in_order
from baatcheet.attachments.ocr.engine import Box, Line, Page
from baatcheet.attachments.ocr.preparing import MOST_PIXELS, View
from baatcheet.jobs.isolation_frames import Refused

POINTS: Final = 72  # to the inch
PER_POINT: Final = 2  # pixels by which a page is measured: 144 to the inch
RENDERED_DPI: Final = 300
MOST_SIDE: Final = 20_000  # points; a poster of A0 has 3,400
SOME_TEXT: Final = 16  # visible characters; a page with fewer has no text of its own
LITTLE_TEXT: Final = (
    200  # a page with fewer, most of which is a picture, is a scan with something stamped on it
)
MOSTLY: Final = 0.5  # share of a page
MOST_OBJECTS: Final = 500  # of a page, that are looked at for pictures
MOST_RUNS: Final = 500  # of text on a page, whose places are told


@contextmanager
def opened(path: str) -> Iterator[Any]:
    """The document in the file at `path`. Raises Refused, with plain words for what keeps it closed."""
    try:
        document = pypdfium2.PdfDocument(path)
    except pypdfium2.PdfiumError as error:
        if error.err_code == pdfium.FPDF_ERR_PASSWORD:
            raise Refused(
                "The PDF is protected with a password. Save it without one, and upload it again."
            ) from error
        if error.err_code == pdfium.FPDF_ERR_SECURITY:
            raise Refused("The PDF is protected in a way that is not known here.") from error
        raise Refused("The PDF is damaged or cut short, and can't be read.") from error
    try:
        with decoding("The PDF"):
            yield document
    finally:
        document.close()


def pages(path: str, most_pages: int, most_characters: int) -> Iterator[FoundPage]:
    """Every page of the document with its own text, in order. Raises Refused.

    Once there are `most_characters`, pages come without theirs.
    """
    with opened(path) as document:
        count = len(document)
        if count == 0:
            raise Refused("The PDF has no pages.")
        if count > most_pages:
            raise Refused(f"The PDF has {count:,} pages; at most {most_pages:,} are read.")
        left = most_characters
        for number in range(count):
            found = _page(document, number, left)
            left -= len(found.text)
            yield found


def page_count(path: str) -> int:
    """How many pages the document says it has. Raises Refused."""
    with opened(path) as document:
        return len(document)


def _page(document: Any, number: int, most: int) -> FoundPage:
    try:
        page = document[number]
    except pypdfium2.PdfiumError:
        return FoundPage(number, note="The page is damaged.")
    try:
        width, height = _size(page)
        text_page = page.get_textpage()
        try:
            count = text_page.count_chars()
            text = _plain(_text(text_page, min(count, most)))
            lines = _lines(page, text_page, (width, height)) if text else ()
        finally:
            text_page.close()
        return FoundPage(
            number,
            text=text,
            width=width,
            height=height,
            lines=lines,
            to_read=most > 0 and _is_picture(page, text),
            cut=count > most,
        )
    finally:
        page.close()


def _text(text_page: Any, count: int) -> str:
    """Its first `count` characters, each line in the order in which it is read."""
    text: str = text_page.get_text_range(0, count) if count > 0 else ""
    return in_order(_placed(text_page, count)) if has_right_to_left(text) else text


def _placed(text_page: Any, count: int) -> Iterator[Placed]:
    left, right, bottom, top = (ctypes.c_double() for _ in range(4))
    for number in range(count):
        character = chr(pdfium.FPDFText_GetUnicode(text_page, number))
        # What has no place of its own is where the one before it is.
        pdfium.FPDFText_GetCharBox(text_page, number, left, right, bottom, top)
        yield Placed(character, left.value)


def _size(page: Any) -> tuple[int, int]:
    """In pixels by which it is measured. Raises Refused."""
    width, height = page.get_size()
    if not (0 < width <= MOST_SIDE and 0 < height <= MOST_SIDE):
        raise Refused(f"A page of the PDF is larger than {MOST_SIDE // POINTS} inches, or has no size.")
    return max(1, round(width * PER_POINT)), max(1, round(height * PER_POINT))


def _plain(text: str) -> str:
    """With line breaks of one kind; a hyphen that only breaks a word at a line's end is taken out."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\ufffe", "").replace("\x02", "")
    return text.strip("\n\x00 ")


def _is_picture(page: Any, text: str) -> bool:
    """Whether its text is to be read from its picture: there is (almost) none, and something to be seen."""
    visible = sum(not one.isspace() and one != "\ufffd" for one in text[: 4 * LITTLE_TEXT])
    if visible >= LITTLE_TEXT:
        return False
    objects = list(itertools.islice(page.get_objects(max_depth=3), MOST_OBJECTS))
    if visible < SOME_TEXT:
        return any(not visible or one.type != pdfium.FPDF_PAGEOBJ_TEXT for one in objects)
    width, height = page.get_size()
    covered = 0.0
    for one in objects:
        if one.type == pdfium.FPDF_PAGEOBJ_IMAGE:
            left, bottom, right, top = one.get_bounds()
            covered += max(0.0, right - left) * max(0.0, top - bottom)
    return bool(covered > MOSTLY * width * height)


def _lines(page: Any, text_page: Any, size: tuple[int, int]) -> tuple[Line, ...]:
    """The runs of text on a page and where they are; none where they are too many to be told."""
    count = text_page.count_rects()
    if not 0 < count <= MOST_RUNS:
        return ()
    lines = []
    for number in range(count):
        left, bottom, right, top = text_page.get_rect(number)
        text = " ".join(text_page.get_text_bounded(left, bottom, right, top).split())
        if text:
            lines.append(Line(text, _box(page, (left, bottom, right, top), size)))
    return tuple(lines)


def _box(page: Any, place: tuple[float, float, float, float], size: tuple[int, int]) -> Box:
    """A place in the page's own coordinates, however it is turned, in pixels as it is seen."""
    left, bottom, right, top = place
    corners = []
    for x, y in ((left, bottom), (right, top)):
        across, down = ctypes.c_int(), ctypes.c_int()
        pdfium.FPDF_PageToDevice(page, 0, 0, *size, 0, x, y, ctypes.byref(across), ctypes.byref(down))
        corners.append((max(0, min(size[0], across.value)), max(0, min(size[1], down.value))))
    (a, b), (c, d) = corners
    return Box(min(a, c), min(b, d), max(a, c), max(b, d))


def picture_of(asked: Page) -> Picture:
    """A page of a PDF as a picture, at 300 dots an inch or what `MOST_PIXELS` allow. Raises Refused."""
    with opened(asked.path) as document:
        page = document[asked.number]
        try:
            width, height = _size(page)
            points = page.get_size()
            scale = min(RENDERED_DPI / POINTS, math.sqrt(MOST_PIXELS / (points[0] * points[1])))
            image = page.render(scale=scale).to_pil().convert("RGB")
        finally:
            page.close()
    across, down = width / image.width, height / image.height
    return Picture(View(image, (across, 0.0, 0.0, 0.0, down, 0.0)), width, height)
