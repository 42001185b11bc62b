"""The interface that every OCR engine answers, and the values that pass through it."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec


class Box(NamedTuple):
    """A rectangle on a page, from its top left corner, in pixels."""

    left: int
    top: int
    right: int
    bottom: int


class Word(msgspec.Struct, frozen=True):
    """`confidence` is from 0 to 1; None where the engine does not say."""

    text: str
    box: Box
    confidence: float | None = None


class Line(msgspec.Struct, frozen=True):
    """A printed line. Words are in the order in which they are read."""

    text: str
    box: Box
    confidence: float | None = None
    words: tuple[Word, ...] = ()


class PageText(msgspec.Struct, frozen=True):
    """What an engine read on one page. Boxes are in pixels of a picture of `width` by `height`.

    `turned`: by how many degrees, clockwise, the page stood or lay askew. `language`: of most of the text, as ISO 639
    says it; None where nobody can tell.
    """

    text: str
    engine: str
    width: int
    height: int
    confidence: float | None = None
    language: str | None = None
    turned: float = 0.0
    lines: tuple[Line, ...] = ()


class Page(msgspec.Struct, frozen=True):
    """One page of a file: the `number`th, from 0. `kind` is the file's, as in `kinds`.

    Its picture has at most `max_pixels`; a file that says it has more is refused, unless its pages have no pixels.
    """

    path: str
    kind: str
    number: int = 0
    max_pixels: int = 100_000_000


class EngineFailed(Exception):
    """The engine did not read this page. `str(error)` says why, in plain words.

    `passing`: it may do so later. `for_all`: it would not read the next page either. `spent`: the page took all the
    time that one may, and is not to be read again, by whomever.
    """

    def __init__(
        self, words: str, *, passing: bool = False, for_all: bool = False, spent: bool = False
    ) -> None:
        super().__init__(words)
        self.passing = passing
        self.for_all = for_all
        self.spent = spent


class Engine(Protocol):
    """Something that reads pictures of text."""

    @property
    def name(self) -> str:
        """What it is called in settings and results."""

    def unavailable(self) -> str | None:
        """Why it can't be asked, in plain words for whoever runs the server; None when it can."""

    async def read(self, page: Page, languages: Sequence[str], scratch: Path) -> PageText:
        """The text of `page`. `languages`: those that it may be in; empty: any that the engine knows.

        `scratch` is a folder for files under way. Raises EngineFailed, and Refused when the page itself is unreadable.
        """
