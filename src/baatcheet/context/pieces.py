"""Dividing a text where every vocabulary divides it, so that the counts of the parts add up."""

import re
from collections.abc import Iterator

PIECE = 65_536  # characters that are gone through before others get their turn
# Every vocabulary's pattern ends a piece between a letter or digit and a blank or line break, and none looks back.
_SEAM = re.compile(r"[^\W_](?=[ \n])")


def pieces(text: str, size: int = PIECE, most: int | None = None) -> Iterator[str]:
    """`text` in parts of about `size` characters.

    They are longer where there is no seam; with `most`, they are cut there, at about a token a cut where no blank is.
    """
    start, at = 0, size
    while at < len(text):
        if most is not None and at + size - start > most:
            end = _before_blank(text, start + 1, start + most) or start + most
            yield text[start:end]
            start, at = end, end + size
            continue
        seam = _seam(text, at, at + size)
        at = seam or at + size
        if seam:
            yield text[start:at]
            start, at = at, at + size
    yield text[start:]


def _before_blank(text: str, start: int, end: int) -> int | None:
    """Where the last blank is, unless one is before it: most vocabularies' patterns divide there too."""
    at = text.rfind(" ", start, end)
    return at if at > 0 and not text[at - 1].isspace() else None


def _seam(text: str, at: int, end: int) -> int | None:
    """Where the first seam is; told much faster where there is nothing that makes one."""
    if text.find(" ", at, end) < 0 and text.find("\n", at, end) < 0:
        return None
    seam = _SEAM.search(text, at, end)
    return seam.end() if seam else None
