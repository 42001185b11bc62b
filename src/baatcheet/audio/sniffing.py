"""What a file is, told from its first bytes: a name says nothing. Pure."""

from baatcheet.audio.errors import NotARecording

UNKNOWN = "application/octet-stream"

# Bytes, where they stand, and what they are the beginning of.
_SOUNDS = (
    (b"fLaC", 0, "audio/flac"),
    (b"OggS", 0, "audio/ogg"),
    (b"ID3", 0, "audio/mpeg"),
    (b"#!AMR", 0, "audio/amr"),
    (b"caff", 0, "audio/x-caf"),
    (b".snd", 0, "audio/basic"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", 0, "audio/x-ms-wma"),
    (b"\x0b\x77", 0, "audio/ac3"),
    (b"FLV\x01", 0, "video/x-flv"),
    (b"\x00\x00\x01\xba", 0, "video/mpeg"),
    (b"WAVE", 8, "audio/wav"),
    (b"AVI ", 8, "video/x-msvideo"),
    (b"AIFF", 8, "audio/aiff"),
    (b"AIFC", 8, "audio/aiff"),
    (b"ftypM4A", 4, "audio/mp4"),
    (b"ftypM4B", 4, "audio/mp4"),
    (b"ftypqt", 4, "video/quicktime"),
    (b"ftyp3g", 4, "video/3gpp"),
    (b"ftyp", 4, "video/mp4"),
)
_OTHERS = (
    (b"%PDF-", 0, "a PDF document"),
    (b"\x89PNG\r\n\x1a\n", 0, "a picture (PNG)"),
    (b"\xff\xd8\xff", 0, "a picture (JPEG)"),
    (b"GIF8", 0, "a picture (GIF)"),
    (b"WEBP", 8, "a picture (WebP)"),
    (b"ftypheic", 4, "a picture (HEIC)"),
    (b"ftypavif", 4, "a picture (AVIF)"),
    (b"PK\x03\x04", 0, "a ZIP archive, or an office document"),
    (b"\x1f\x8b", 0, "a compressed file (gzip)"),
    (b"\x7fELF", 0, "a program"),
    (b"MZ", 0, "a program"),
    (b"SQLite format 3", 0, "a database"),
)
RECORDINGS = tuple(
    dict.fromkeys((*(kind for _, _, kind in _SOUNDS), "audio/webm", "video/x-matroska", "audio/aac", UNKNOWN))
)
"""Every media type that a recording may have."""
_MATROSKA = b"\x1aE\xdf\xa3"
_TEXT_CONTROLS = frozenset(b"\t\n\r\f\x1b")


def media_type_of(head: bytes) -> str:
    """The media type of a recording that begins with `head`, as far as it can be told.

    Raises NotARecording for what is plainly something else.
    """
    for mark, place, what in _OTHERS:
        if head.startswith(mark, place):
            raise NotARecording(f"The file is {what}, not a recording.")
    for mark, place, media_type in _SOUNDS:
        if head.startswith(mark, place):
            return media_type
    if head.startswith(_MATROSKA):
        return "audio/webm" if b"webm" in head[:64] else "video/x-matroska"
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0:
        return "audio/aac" if head[1] & 0xF6 == 0xF0 else "audio/mpeg"
    if _is_text(head):
        raise NotARecording("The file is a text, not a recording.")
    return UNKNOWN


def _is_text(head: bytes) -> bool:
    if any(one < 0x20 and one not in _TEXT_CONTROLS for one in head):
        return False
    try:
        head.decode()
    except UnicodeDecodeError as error:
        return error.start >= len(head) - 3  # a character that the end of the head has cut
    return True
