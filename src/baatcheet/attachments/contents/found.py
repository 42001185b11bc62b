"""What is found in a file, page by page, on its way out of the sandbox: a file of msgpack, page after page."""

import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from baatcheet.attachments.ocr.engine import Line

_LENGTH: Final = struct.Struct(">I")
MOST: Final = 100_000_000  # bytes of one page


class FoundPage(msgspec.Struct, frozen=True):
    """One page, from 0. `to_read`: its text is in its picture. `cut`: some of its text is left out.

    `note`: what is wrong with it, in plain words.
    """

    number: int
    text: str = ""
    width: int | None = None
    height: int | None = None
    lines: tuple[Line, ...] = ()
    language: str | None = None
    to_read: bool = False
    cut: bool = False
    note: str | None = None


def write(pages: Iterable[FoundPage], path: Path) -> Iterator[FoundPage]:
    """Write each page to the file at `path`, and hand it on."""
    encoder = msgspec.msgpack.Encoder()
    with path.open("wb") as file:
        for page in pages:
            body = encoder.encode(page)
            file.write(_LENGTH.pack(len(body)))
            file.write(body)
            yield page


def read(path: Path) -> Iterator[FoundPage]:
    """The pages that `write` wrote."""
    decoder = msgspec.msgpack.Decoder(FoundPage)
    with path.open("rb") as file:
        while header := file.read(_LENGTH.size):
            (length,) = _LENGTH.unpack(header)
            if length > MOST:
                raise ValueError(f"a page of {length} bytes")
            yield decoder.decode(file.read(length))
