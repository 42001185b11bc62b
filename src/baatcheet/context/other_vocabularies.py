"""The vocabularies of other makers' models, when the extra `tokenizers` is installed."""

from functools import cache
from importlib.util import find_spec
from typing import Any

from baatcheet.context.pieces import pieces
from baatcheet.providers.model import Encoding

INSTALLED = find_spec("splintr") is not None
if INSTALLED:
    import splintr

# splintr keeps the interpreter's lock: others wait for as long as one call takes. A text without a seam in `_MOST`
# characters is cut there, and its count is off by about a token a cut.
_PIECE, _MOST = 4_096, 8_192


@cache
def _vocabulary(name: Encoding) -> Any:
    return splintr.Tokenizer.from_pretrained(name)


def count(text: str, name: Encoding) -> int:
    """The number of tokens of `text`, special tokens counted as plain text. Others get their turn in between."""
    vocabulary = _vocabulary(name)
    return sum(len(vocabulary.encode_ordinary(piece)) for piece in pieces(text, _PIECE, _MOST))
