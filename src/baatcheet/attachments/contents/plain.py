"""Text files: finding out their encoding, and reading them."""

import codecs
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from charset_normalizer import from_bytes

from baatcheet.attachments.kinds import is_text
from baatcheet.jobs.isolation_frames import Refused

SAMPLE: Final = 65_536  # bytes that an encoding is told by where nothing else tells it
CHUNK: Final = 1_048_576

_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins as UTF-16's own does
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def text_of(path: str) -> Iterator[str]:
    """The file's text, a piece after another. What its encoding has no character for becomes U+FFFD. Raises Refused."""
    encoding = encoding_of(Path(path))
    decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
    with Path(path).open("rb") as file:
        while chunk := file.read(CHUNK):
            yield decoder.decode(chunk)
    yield decoder.decode(b"", final=True)


def encoding_of(path: Path) -> str:
    """As Python calls it. Raises Refused for what is no text."""
    with path.open("rb") as file:
        head = file.read(SAMPLE)
        for mark, encoding in _MARKS:
            if head.startswith(mark):
                return encoding
        if not is_text(head):
            raise Refused("The file is not a text, whatever its name says.")
        if _is_utf8(file, head):
            return "utf-8"
    return _guessed(head)


def _is_utf8(file: object, head: bytes) -> bool:
    if b"\x00" in head:
        return False
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        decoder.decode(head)
        while chunk := file.read(CHUNK):  # type: ignore[attr-defined]
            decoder.decode(chunk)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def _guessed(head: bytes) -> str:
    """By what text there is in it: UTF-16 has zeros, others are told by what reads least like nonsense."""
    if b"\x00" in head:
        even, odd = head[0::2].count(0), head[1::2].count(0)
        return "utf-16-le" if odd >= even else "utf-16-be"
    found = from_bytes(head).best()
    return found.encoding if found is not None else "cp1252"
