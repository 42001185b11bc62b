"""Files for people, made of a document's lines: what runs in a sandbox."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from baatcheet.exports import document, markdown_format, text_format
from baatcheet.exports.document import Document, Line, Rendered, Rendering, Said
from baatcheet.jobs.isolation_frames import Report

REPORT_EVERY: Final = 500  # messages


def render(order: Rendering, report: Report) -> Rendered:
    """Make the file that `order` asks for. Raises Refused, in plain words, for what is too long for a PDF.

    No more than one message is in memory at a time, or in a PDF one portion of them.
    """
    match order.format:
        case "pdf":
            # Here: what typesets takes 60 MB, and only the sandbox needs it.
            from baatcheet.exports.pdf.making import make_pdf  # noqa: PLC0415

            return make_pdf(order, report)
        case "md":
            return _write(order, markdown_format.pieces, report)
        case "txt":
            return _write(order, text_format.pieces, report)


def _write(order: Rendering, pieces: Callable[[Iterator[Line]], Iterator[str]], report: Report) -> Rendered:
    source, target = Path(order.source), Path(order.target)
    part = target.with_name(f"{target.name}.part")
    counted = _Counted(document.lines(source), report)
    try:
        with part.open("w", encoding="utf-8", errors="replace", newline="\n") as file:
            for piece in pieces(iter(counted)):
                file.write(piece)
        size = part.stat().st_size
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    report(100, "Done")
    return Rendered(0, size, counted.messages)


class _Counted:
    """The lines, telling how far they have been read."""

    def __init__(self, lines: Iterator[Line], report: Report) -> None:
        self.messages = 0
        self._lines = lines
        self._report = report

    def __iter__(self) -> Iterator[Line]:
        total = 0
        for line in self._lines:
            if isinstance(line, Document):
                total = line.messages
            elif isinstance(line, Said):
                self.messages += 1
                if self.messages % REPORT_EVERY == 0:
                    most = max(total, self.messages)
                    self._report(99 * self.messages / most, f"Message {self.messages:,} of {most:,}")
            yield line
