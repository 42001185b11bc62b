"""Dividing a text where every vocabulary divides it, so that the counts of the parts add up."""

import re
from collections.abc import Iterator

PIECE = 65_536  # characters that are gone through before others get their turn
# Every vocabulary's pattern ends a piece between a letter or digit and a blank or line break, and none looks back.
_SEAM = re.compile(r"[^\W_](?=[ \n])")


def pieces(text: str, size: int = PIECE) -> Iterator[str]:
    """`text` in parts of about `size` characters; longer ones where there is no seam."""
    start, at = 0, size
    while at < len(text):
        seam = _SEAM.search(text, at, at + size)
        at = seam.end() if seam else at + size
        if seam:
            yield text[start:at]
            start, at = at, at + size
    yield text[start:]
