"""Looking at a whole file, in a sandbox: is it what it says, is it harmless, and what text is in it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from baatcheet.attachments.contents import docx, found, pdf, pictures, plain
from baatcheet.attachments.contents.found import FoundPage
from baatcheet.attachments.contents.pages import page_picture
from baatcheet.attachments.kinds import KINDS
from baatcheet.attachments.ocr.engine import Page
from baatcheet.attachments.ocr.languages import language_of
from baatcheet.jobs.isolation_frames import Refused, Report
from baatcheet.kit.text import storable

VIEW_SIDE: Final = 2048  # pixels: models make larger pictures smaller themselves
VIEW_BYTES: Final = 1_500_000
VIEW: Final = "view.jpg"
PAGES: Final = "pages"


class Examined(msgspec.Struct, frozen=True):
    """A file to look at. `folder` is where what is found is written."""

    path: str
    kind: str
    folder: str
    max_pixels: int
    max_pages: int
    max_characters: int


class Examination(msgspec.Struct, frozen=True):
    """What was found: the pages, in the file `PAGES`, and of a picture a smaller one to show to models, in `VIEW`."""

    pages: int
    to_read: int
    characters: int
    cut: bool = False
    width: int | None = None
    height: int | None = None
    view: bool = False


class Sent(msgspec.Struct, frozen=True):
    """A page that is to be sent to somebody: as JPEG, into `path`."""

    page: Page
    path: str
    most_bytes: int
    most_side: int


class Size(msgspec.Struct, frozen=True):
    """Of the picture that was made, and of the page that it shows."""

    width: int
    height: int
    page_width: int
    page_height: int


def examine(asked: Examined, report: Report) -> Examination:
    """What is in a file. Raises Refused when it is not what it should be."""
    folder = Path(asked.folder)
    pages = to_read = characters = 0
    cut = False
    first: FoundPage | None = None
    for page in found.write(_pages(asked, report), folder / PAGES):
        first = first or page
        pages += 1
        to_read += page.to_read
        characters += len(page.text)
        cut = cut or page.cut
    if first is None:
        raise Refused("The file has no pages.")
    view = KINDS[asked.kind].family == "image"
    if view:
        picture = page_picture(Page(asked.path, asked.kind, 0, asked.max_pixels))
        pictures.save_small(picture.view.image, folder / VIEW, most_bytes=VIEW_BYTES, most_side=VIEW_SIDE)
    return Examination(pages, to_read, characters, cut, first.width, first.height, view)


def picture_to_send(asked: Sent, report: Report) -> Size:
    """Write a page's picture as others take it. Raises Refused."""
    picture = page_picture(asked.page)
    path = Path(asked.path)
    width, height = pictures.save_small(
        picture.view.image, path, most_bytes=asked.most_bytes, most_side=asked.most_side
    )
    return Size(width, height, picture.width, picture.height)


def _pages(asked: Examined, report: Report) -> Iterator[FoundPage]:
    kind = KINDS[asked.kind]
    if kind.family == "image":
        sizes = pictures.frames(asked.path, asked.kind, asked.max_pixels, asked.max_pages)
        for number, (width, height) in enumerate(sizes):
            yield FoundPage(number, width=width, height=height, to_read=True)
    elif asked.kind == "pdf":
        count = pdf.page_count(asked.path)
        for page in pdf.pages(asked.path, asked.max_pages, asked.max_characters):
            report(100 * page.number / count, f"Page {page.number + 1} of {count}")
            text = storable(page.text)
            yield msgspec.structs.replace(page, text=text, language=language_of(text))
    else:
        texts: Callable[[str], Iterator[str]] = plain.text_of if kind.plain else _document
        text, cut = _bounded(texts(asked.path), asked.max_characters)
        text = storable(text)
        yield FoundPage(0, text=text, language=language_of(text), cut=cut)


def _document(path: str) -> Iterator[str]:
    for block in docx.text_of(path):
        yield f"{block}\n"


def _bounded(pieces: Iterator[str], most: int) -> tuple[str, bool]:
    """The pieces as one text of at most `most` characters, and whether that is not all."""
    taken: list[str] = []
    left = most
    for piece in pieces:
        taken.append(piece[:left])
        left -= len(taken[-1])
        if len(taken[-1]) < len(piece):
            return "".join(taken), True
    text = "".join(taken)
    return text.replace("\r\n", "\n").strip("\n\ufeff"), False
