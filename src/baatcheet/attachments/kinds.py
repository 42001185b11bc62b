"""What a file is, told by its bytes and never by its name. No byte is decoded here."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from baatcheet.platform.errors import Invalid, UnsupportedMediaType

Family = Literal["image", "document"]

MOST_CHARACTERS: Final = 10_000_000  # of one attachment's text
TAIL_BYTES: Final = 1_000_000  # of a ZIP archive's end, in which its table of contents is looked for


@dataclass(frozen=True)
class Kind:
    """One kind of file. `decoder` is Pillow's name of it, for a picture."""

    name: str
    media_type: str
    family: Family
    suffix: str
    decoder: str | None = None
    plain: bool = False  # text as it is


KINDS: Mapping[str, Kind] = {
    one.name: one
    for one in (
        Kind("png", "image/png", "image", "png", "PNG"),
        Kind("jpeg", "image/jpeg", "image", "jpg", "JPEG"),
        Kind("webp", "image/webp", "image", "webp", "WEBP"),
        Kind("gif", "image/gif", "image", "gif", "GIF"),
        Kind("tiff", "image/tiff", "image", "tiff", "TIFF"),
        Kind("bmp", "image/bmp", "image", "bmp", "BMP"),
        Kind("pdf", "application/pdf", "document", "pdf"),
        Kind(
            "docx",
            "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
            "document",
            "docx",
        ),
        Kind("txt", "text/plain", "document", "txt", plain=True),
        Kind("md", "text/markdown", "document", "md", plain=True),
        Kind("csv", "text/csv", "document", "csv", plain=True),
        Kind("json", "application/json", "document", "json", plain=True),
    )
}
TAKEN: Final = "PNG, JPEG, WebP, GIF, TIFF, BMP, PDF, DOCX, TXT, MD, CSV, JSON"

_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"II*\x00", "tiff"),
    (b"MM\x00*", "tiff"),
    (b"II+\x00", "tiff"),
    (b"MM\x00+", "tiff"),
)
_ZIP: Final = b"PK\x03\x04"
_OLE: Final = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_BMP_HEADERS: Final = frozenset({12, 16, 40, 52, 56, 64, 108, 124})  # bytes
_BYTE_ORDER_MARKS: Final = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
# Controls that no text has; escape, form feed, backspace and bell may be in one.
_NOT_TEXT: Final = re.compile(rb"[\x00-\x06\x0e-\x1a\x1c-\x1f]")
_JSON: Final = re.compile(rb'[{\["0-9tfn-]')
_PLAIN_BY_SUFFIX: Final = {"md": "md", "markdown": "md", "csv": "csv", "json": "json"}
_HEIF: Final = frozenset({b"heic", b"heix", b"mif1", b"msf1", b"avif"})
# What people try to upload, and what to do about it.
_KNOWN: tuple[tuple[bytes, str], ...] = (
    (b"{\\rtf", "an RTF document; save it as DOCX or PDF"),
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive; unpack it first"),
    (b"Rar!\x1a\x07", "a RAR archive; unpack it first"),
    (b"%!PS", "PostScript; save it as PDF"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
    (b"OggS", "audio: POST /api/v1/audio takes that"),
    (b"ID3", "audio: POST /api/v1/audio takes that"),
    (b"fLaC", "audio: POST /api/v1/audio takes that"),
)


class UnknownKind(UnsupportedMediaType):
    """This kind of file is not taken."""

    type = "file-kind-not-taken"
    openai_code = "unsupported_file"

    def __init__(self, what: str) -> None:
        super().__init__(f"The file is {what}. Taken are: {TAKEN}.", param="file")


class ProtectedFile(Invalid):
    """This file is protected with a password."""

    type = "file-protected"
    openai_code = "file_protected"


def kind_of_head(head: bytes) -> str:
    """The kind of the file that begins with `head`; text is `txt`, a ZIP archive `docx` until its end is known.

    Raises UnknownKind.
    """
    kind = _binary_kind(head)
    if kind is not None:
        return kind
    if (what := _what_else(head)) is not None:
        raise UnknownKind(what)
    if is_text(head):
        return "txt"
    raise UnknownKind("of no kind that is known here")


def _binary_kind(head: bytes) -> str | None:
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head[:2] == b"BM" and len(head) >= 26 and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return "bmp"
    if b"%PDF-" in head[:1024]:  # as readers of PDF look for it
        return "pdf"
    return "docx" if head.startswith((_ZIP, _OLE)) else None


def _what_else(head: bytes) -> str | None:
    """What a file is that is not taken, and what to do about it; None when nobody knows."""
    for magic, what in _KNOWN:
        if head.startswith(magic):
            return what
    if head[4:8] == b"ftyp":
        return "a HEIC or AVIF picture; save it as JPEG or PNG" if head[8:12] in _HEIF else "a video"
    return "audio or video" if head[:4] == b"RIFF" else None


def is_text(head: bytes) -> bool:
    """Whether these may be the first bytes of a text, in any encoding."""
    if head.startswith(_BYTE_ORDER_MARKS):
        return True
    if not _NOT_TEXT.search(head):
        return True
    # UTF-16 without a mark: every other byte of most scripts' text is the same few.
    even, odd = head[0::2], head[1::2]
    return any(
        len(set(half)) <= 4 and b"\x00" in half and not _NOT_TEXT.search(other)
        for half, other in ((even, odd), (odd, even))
    )


def settled(kind: str, filename: str, head: bytes, tail: bytes) -> str:
    """The kind of a whole file, once its end is known too: which text, and whether an archive is a document.

    `tail` is the last `TAIL_BYTES` of the file, or all of it. Raises UnknownKind, ProtectedFile.
    """
    if kind == "docx":
        return _office(head, tail)
    if kind != "txt":
        return kind
    named = _PLAIN_BY_SUFFIX.get(filename.rpartition(".")[2].lower(), "txt")
    if named == "json" and not _JSON.match(head.lstrip(b"\xef\xbb\xbf\xfe\xff\x00 \t\r\n")):
        return "txt"
    return named


def _office(head: bytes, tail: bytes) -> str:
    if head.startswith(_OLE):
        if "EncryptedPackage".encode("utf-16-le") in head + tail:
            raise ProtectedFile(
                "The document is protected with a password. Save it without one, and upload it again.",
                param="file",
            )
        raise UnknownKind("of an old Office format; save it as DOCX or PDF")
    if b"word/document" in tail or b"word/" in head[:200]:
        return "docx"
    for part, what in (
        (b"xl/", "a spreadsheet; save it as CSV or PDF"),
        (b"ppt/", "a presentation; save it as PDF"),
        (b"META-INF/", "an OpenDocument or Java archive; save it as DOCX or PDF"),
    ):
        if part in tail:
            raise UnknownKind(what)
    raise UnknownKind("a ZIP archive; unpack it first")
