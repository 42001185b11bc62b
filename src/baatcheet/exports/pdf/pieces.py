"""Lines of text as pieces: styles, links, code, and the places where they may break."""

import re
from collections.abc import Iterator, Sequence
from typing import Final

from baatcheet.exports.pdf import text
from baatcheet.exports.pdf.tree import Code, Direction, Gap, Linked, Newline, Piece, Style, Styled

BOXED: Final = 24  # characters of inline code that is kept on one line
MOST_URL: Final = 2_000

_LINKABLE: Final = re.compile(r"(?:https?://|mailto:|tel:)", re.IGNORECASE)
_BARE: Final = re.compile(
    r"https?://[^\s<>\"\u2018-\u201f`|\\^{}\u0600-\u06ff\u3000-\u303f\uff00-\uffef]+", re.IGNORECASE
)

_BLANK: Final = re.compile(f"[ {text.ZERO_WIDTH_SPACE}]")


def as_written(line: str, most: int = text.LONG_WORD) -> list[Piece]:
    """`line` as it was written; a word of more than `most` units may break."""
    return styled(line, 0, most)


def inline_code(content: str, style: int, most: int) -> Code:
    shown = text.shown_code(content)
    boxed = len(shown) <= min(BOXED, most) and text.width(shown) <= min(BOXED, most)
    return Code(style, [shown] if boxed else _gapped(shown, 0, min(BOXED, most)), boxed)


def styled(content: str, style: int, most: int) -> list[Piece]:
    """`content`, which is one line, in `style`."""
    found: list[Piece] = []
    for is_emoji, part in text.with_emoji(content):
        found += _gapped(part, style | Style.EMOJI if is_emoji else style, most)
    return found


def _gapped(content: str, style: int, most: int) -> list[Piece]:
    if not content:
        return []
    found: list[Piece] = []
    ended = False  # whether a line may end here already
    for part in text.pieces(content, most, max(2, min(text.STEP, most // 3))):
        if found and not ended:
            found.append(Gap())
        ended = part.endswith(text.ZERO_WIDTH_SPACE)
        found.append(Styled(style, part) if style else part)
    return found


def lines(content: str, style: int, most: int = text.LONG_WORD) -> list[Piece]:
    """`content` as it stands, line by line."""
    found: list[Piece] = []
    for number, one in enumerate(content.split("\n")):
        if number:
            found.append(Newline())
        if one:
            found += styled(one.replace("\t", " "), style, most)
    return found


def linked(content: str, style: int, most: int) -> list[Piece]:
    """`content` with the bare addresses in it as links."""
    if "://" not in content:
        return styled(content, style, most)
    found: list[Piece] = []
    at = 0
    for match in _BARE.finditer(content):
        if len(match.group()) > MOST_URL:
            continue
        url = _without_tail(match.group())
        found += styled(content[at : match.start()], style, most)
        shown = styled(url, style, most)
        found += [Linked(url, shown)] if may_link(url) else shown
        at = match.start() + len(url)
    return found + styled(content[at:], style, most)


def _without_tail(url: str) -> str:
    """`url` without the punctuation of the sentence that it stands in, and without a bracket that opened before it."""
    while url and (url[-1] in ".,:;!?'*_~" or (url[-1] == ")" and url.count(")") > url.count("("))):
        url = url[:-1]
    return url


def may_link(url: str) -> bool:
    return len(url) <= MOST_URL and bool(_LINKABLE.match(url)) and url.isprintable()


def bolder(piece: Piece) -> Piece:
    match piece:
        case str():
            return Styled(Style.BOLD, piece)
        case Styled():
            return Styled(piece.style | Style.BOLD, piece.text)
        case _:
            return piece


def texts(pieces: Sequence[Piece]) -> Iterator[str]:
    """The texts in `pieces` that have a say in their direction: code does not, being in a box of its own."""
    for piece in pieces:
        match piece:
            case str():
                yield piece
            case Styled() if not piece.style & Style.MATH:
                yield piece.text
            case Linked():
                yield from texts(piece.pieces)
            case _:
                pass


def direction(pieces: Sequence[Piece], otherwise: Direction) -> Direction:
    return text.direction(texts(pieces), otherwise)


def isolated(pieces: list[Piece], way: Direction) -> list[Piece]:
    """`pieces`, where in a paragraph from right to left what only reads from left to right is kept from being turned:
    mathematics and code as wholes, addresses with the punctuation at their ends.
    """
    if way == Direction.LTR:
        return pieces
    found: list[Piece] = []
    for piece in pieces:
        match piece:
            case Styled() if piece.style & Style.MATH:
                found += [text.LRI, piece, text.PDI]
            case Code(boxed=False):
                found += [text.LRI, piece, text.PDI]
            case Linked() if direction(piece.pieces, Direction.RTL) == Direction.LTR:
                # No isolate: it would part the address from the English words beside it.
                found += [text.LRM, piece, text.LRM]
            case _:
                found.append(piece)
    return found


def breakable(pieces: list[Piece], most: int) -> list[Piece]:
    """`pieces`, with a place where the line may end between two that would make an endless word together."""
    found: list[Piece] = []
    since = 0  # units since the line could end
    for piece in pieces:
        words = "".join(_words(piece))
        if not words:
            since = 0
        else:
            first, last = _BLANK.search(words), _BLANK.split(words)[-1]
            if since and since + text.width(words[: first.start() if first else None]) > most:
                found.append(text.ZERO_WIDTH_SPACE)
                since = 0
            since = text.width(last) if first else since + text.width(words)
        found.append(piece)
    return found


def _words(piece: Piece) -> Iterator[str]:
    """The text of a piece that may run on into the next. A box does not."""
    match piece:
        case str():
            yield piece
        case Styled():
            yield piece.text
        case Linked():
            for one in piece.pieces:
                yield from _words(one)
        case Code(boxed=False):
            for one in piece.pieces:
                yield from _words(one)
        case _:
            pass


def portions(pieces: list[Piece], most: int) -> Iterator[list[Piece]]:
    """`pieces` in portions of about `most` characters."""
    part: list[Piece] = []
    size = 0
    for piece in pieces:
        for one in _shorter(piece, most):
            length = _length(one)
            if part and size + length > most:
                yield part
                part, size = [], 0
            part.append(one)
            size += length
    if part:
        yield part


def _length(piece: Piece) -> int:
    match piece:
        case str():
            return len(piece)
        case Styled():
            return len(piece.text)
        case Code() | Linked():
            return sum(map(_length, piece.pieces))
        case _:
            return 4


def _shorter(piece: Piece, most: int) -> Iterator[Piece]:
    """`piece` in pieces of at most `most` characters, cut at blanks where there are any."""
    match piece:
        case str() if len(piece) > most:
            yield from _cut(piece, most)
        case Styled() if len(piece.text) > most:
            for part in _cut(piece.text, most):
                yield Styled(piece.style, part)
        case Linked() if _length(piece) > most:
            for pieces in portions(piece.pieces, most):
                yield Linked(piece.url, pieces)
        case Code() if _length(piece) > most:
            for pieces in portions(piece.pieces, most):
                yield Code(piece.style, pieces, boxed=False)
        case _:
            yield piece


def _cut(content: str, most: int) -> Iterator[str]:
    while len(content) > most:
        at = content.rfind(" ", most // 2, most) + 1 or most
        yield content[:at]
        content = content[at:]
    yield content
