"""From a document's lines to its PDF file."""

import tempfile
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from datetime import UTC
from pathlib import Path
from typing import Final

import msgspec

from baatcheet.exports import document as form
from baatcheet.exports import wording
from baatcheet.exports.document import Document, Rendered, Rendering, Said, Talk
from baatcheet.exports.pdf import contents, text
from baatcheet.exports.pdf.composing import LARGE_WORD, Composer, Portion, cell, short, short_cell
from baatcheet.exports.pdf.contents import Chosen, Line
from baatcheet.exports.pdf.fonts import Shelf
from baatcheet.exports.pdf.joining import About, Heading, Joined
from baatcheet.exports.pdf.mending import mended
from baatcheet.exports.pdf.objects import File
from baatcheet.exports.pdf.tree import Cell, Look, Pages
from baatcheet.exports.pdf.typesetting import NotSet, Typesetter
from baatcheet.jobs.isolation_frames import Refused, Report
from baatcheet.kit.text import headline

MOST_MESSAGES: Final = 50_000
MOST_TEXT: Final = 100_000_000  # characters
FEET: Final = 1_000  # pages whose feet are set in one run
RUNS: Final = 2  # portions that are set at once

_TOO_LONG: Final = (
    f"A PDF holds at most {MOST_MESSAGES:,} messages and {MOST_TEXT:,} characters. Export this as Markdown, text or "
    "JSON, or one conversation at a time."
)


class _Front(msgspec.Struct, frozen=True):
    style: Look
    title: Cell
    about: list[tuple[str, Cell]]
    notes: list[str]
    contents: list[Line]
    several: bool


class _Feet(msgspec.Struct, frozen=True):
    style: Look
    title: Cell
    first: int
    last: int
    total: int


def make_pdf(order: Rendering, report: Report, shelf: Shelf | None = None) -> Rendered:
    """Make the PDF that `order` asks for. Raises Refused for what is too long for one."""
    target = Path(order.target)
    lines = form.lines(Path(order.source))
    head = next(lines, None)
    if not isinstance(head, Document):
        raise TypeError("the file of lines does not begin with its document")
    if head.messages > MOST_MESSAGES:
        raise Refused(_TOO_LONG)
    with tempfile.TemporaryDirectory(prefix="pdf-", dir=target.parent) as folder:
        return _Making(head, Path(folder), report, shelf or Shelf()).make(lines, target)


class _Making:
    def __init__(self, head: Document, folder: Path, report: Report, shelf: Shelf) -> None:
        self._head = head
        self._report = report
        self._shelf = shelf
        self._at = head.exported_at.astimezone(UTC).replace(microsecond=0)
        self._root = folder / "root"
        self._root.mkdir()
        self._file = folder / "whole.pdf"
        self._look = shelf.look(head.paper, head.urdu)
        self._composer = Composer(head, self._root, self._look)
        self._clock = wording.Clock(head)
        self._unset = 0  # portions that could not be set as they were
        self._pages_of_marks: list[int] = []  # for each heading: its page, counted from the first message's

    def make(self, lines: Iterator[form.Line], target: Path) -> Rendered:
        self._report(1, "Setting pages")
        with Typesetter(self._root, self._shelf, self._at, RUNS) as typesetter, self._file.open("wb") as file:
            joined = Joined(file)
            self._set_messages(typesetter, joined, lines)
            self._report(90, "Writing the table of contents")
            notes = self._notes()
            self._set_front(typesetter, joined, notes)
            self._set_feet(typesetter, joined)
            self._report(98, "Binding the pages")
            headings = [Heading(entry.level, entry.title) for entry in self._composer.entries]
            joined.finish(headings, About(self._title(300), text.shown(self._head.owner), self._at))
        size = self._file.stat().st_size
        self._file.replace(target)
        self._report(100, "Done")
        return Rendered(joined.pages, size, self._composer.messages, tuple(notes))

    # Messages -------------------------------------------------------------------------------------------------------

    def _set_messages(self, typesetter: Typesetter, joined: Joined, lines: Iterator[form.Line]) -> None:
        """Set portion after portion. While some are being set, the next is composed and the one before joined."""
        waiting: deque[tuple[Portion, Future[Path]]] = deque()
        for portion in self._portions(lines):
            waiting.append((portion, typesetter.begin("messages.typ", portion.path)))
            if len(waiting) > RUNS:
                self._take(typesetter, joined, *waiting.popleft())
        while waiting:
            self._take(typesetter, joined, *waiting.popleft())

    def _portions(self, lines: Iterator[form.Line]) -> Iterator[Portion]:
        characters = 0
        for line in lines:
            match line:
                case Said():
                    characters += len(line.content)
                case Talk():
                    characters += len(line.system_prompt)
                case _:
                    raise TypeError("a document inside a document")
            if self._composer.messages >= MOST_MESSAGES or characters > MOST_TEXT:
                raise Refused(_TOO_LONG)
            yield from self._composer.add(line)
        yield from self._composer.end()

    def _take(self, typesetter: Typesetter, joined: Joined, portion: Portion, future: "Future[Path]") -> None:
        try:
            path, headings = future.result(), portion.headings
        except NotSet:
            path, headings = self._mend(typesetter, portion)
        for picture in portion.pictures:
            picture.unlink()
        file = _read(path)
        marks = file.marks()
        if len(marks) != headings:
            raise AssertionError(f"{len(marks)} of {headings} headings were set")
        places = {number: joined.pages + place for place, number in enumerate(file.pages(), 1)}
        self._pages_of_marks += [places[mark.page] for mark in marks]
        joined.add(file)
        done, total = portion.messages, max(self._head.messages, portion.messages)
        self._report(2 + 88 * done / max(1, total), f"Message {done:,} of {total:,}")

    def _mend(self, typesetter: Typesetter, portion: Portion) -> tuple[Path, int]:
        """Set the portion without what can't be set, and forget the headings that are lost with it."""

        def sets(pages: Pages) -> bool:
            try:
                typesetter.set_now("messages.typ", "attempt", pages)
            except NotSet:
                return False
            return True

        found = mended(portion.path.read_bytes(), sets)
        before = len(self._pages_of_marks)
        for heading in reversed(found.dropped):
            del self._composer.entries[before + heading]
        self._unset += 1
        return typesetter.set_now("messages.typ", portion.path.stem, found.pages), portion.headings - len(
            found.dropped
        )

    # Front ----------------------------------------------------------------------------------------------------------

    def _set_front(self, typesetter: Typesetter, joined: Joined, notes: list[str]) -> None:
        """The title and the table of contents, which counts the pages that it takes itself."""
        chosen = contents.choose(self._composer.entries, self._clock.day, self._clock.month)
        title = cell(self._title(300), LARGE_WORD)
        about = [(name, cell(value)) for name, value in self._about()]
        pages, file = 1 + len(chosen) // 45, None
        # Each line is as high as any other, so the second time is right.
        while file is None or len(file.pages()) != pages:
            pages = len(file.pages()) if file else pages
            lines = [self._line(one, pages) for one in chosen]
            data = _Front(self._look, title, about, notes, lines, self._composer.talks > 1)
            file = _read(typesetter.set_now("front.typ", "front", data))
        joined.add(file, front=True)

    def _set_feet(self, typesetter: Typesetter, joined: Joined) -> None:
        total = joined.pages
        title = short_cell(self._title(90))
        for first in range(1, total + 1, FEET):
            self._report(92 + 6 * first / total, f"Numbering {total:,} pages")
            data = _Feet(self._look, title, first, min(total, first + FEET - 1), total)
            joined.feet(_read(typesetter.set_now("feet.typ", "feet", data, tagged=False)), first)

    def _line(self, chosen: Chosen, front: int) -> Line:
        return Line(chosen.level, chosen.cell, str(front + self._pages_of_marks[chosen.mark]), chosen.mark)

    def _title(self, most: int) -> str:
        return headline(text.shown(self._head.title), most) or wording.UNTITLED

    def _about(self) -> list[tuple[str, str]]:
        composer = self._composer
        rows = [("Exported", f"{self._clock.at(self._head.exported_at)} ({self._clock.name})")]
        if self._head.owner:
            rows.append(("By", short(self._head.owner, 80)))
        if composer.talks > 1:
            rows.append(("Conversations", f"{composer.talks:,}"))
        rows.append(("Messages", f"{composer.messages:,}"))
        if composer.first is not None and composer.latest is not None:
            first, latest = self._clock.day(composer.first), self._clock.day(composer.latest)
            rows.append(("Written", first if first == latest else f"{first} to {latest}"))
        return rows

    def _notes(self) -> list[str]:
        notes = self._shelf.missing(self._composer.seen | set(self._head.title))
        if self._head.urdu == "nastaliq" and not self._look.nastaliq:
            notes.append(
                "This machine has no Nastaliq font, so Urdu is set in Naskh. "
                "The Debian package fonts-noto-core has one."
            )
        if self._unset:
            notes.append(
                "Messages that could not be set in a PDF are marked. An export as Markdown, text or JSON has them."
            )
        if left_out := self._composer.pictures.left_out:
            notes.append(
                f"{wording.counted(left_out, 'picture')} could not be shown: broken, too large, or too many."
            )
        return notes


def _read(path: Path) -> File:
    """The file at `path`, which is then no more needed."""
    data = path.read_bytes()
    path.unlink()
    return File(data)
