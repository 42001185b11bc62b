"""Markdown, as models and people write it, read into the tree that is set on pages.

CommonMark with GFM's tables, strikethrough, task lists and bare addresses. HTML is text. Mathematics stays as it was
written. A line break in the source is one on the page: chats are written that way.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, TypeVar

from markdown_it.token import Token

from baatcheet.exports.pdf import code, pieces, text
from baatcheet.exports.pdf.parsing import PARSER
from baatcheet.exports.pdf.tree import (
    Align,
    Block,
    Bullets,
    Cell,
    Direction,
    Heading,
    Inset,
    Linked,
    Newline,
    Numbers,
    Paragraph,
    Piece,
    Quote,
    Rule,
    Style,
    Table,
)

Picture = Callable[[str, str], Inset | None]
"""The picture of an address (`data:…`) and what it shows in words; None where it can't be shown."""

SEGMENT: Final = 100_000  # characters that are parsed at once
LANGUAGE: Final = 20_000  # characters of a text that its language is told by
PARAGRAPH: Final = 8_000  # characters: a longer one is set as several
ITEMS: Final = 100  # of one list, and rows of one table: longer ones are set as several
COLUMNS: Final = 12  # of a table: a wider one is set row by row
REPEATED: Final = 100  # characters of a column's name, up to which it stands on each page
SMALL_FROM: Final = 6  # columns from which a table is set smaller
TABLE_UNITS: Final = 100  # how many units of text a row of a table holds; a quarter more in a small one

T = TypeVar("T")

_TASK: Final = re.compile(r"\[([ xX])\][ \t]+")
_INLINE_DATA: Final = re.compile(
    r"!\[([^\[\]\n]{0,500})\]\(\s*<?(data:image/[a-zA-Z.+-]{1,40};base64,[A-Za-z0-9+/=\s]{200,})>?\s*\)"
)
_FENCE: Final = re.compile(r"^ {0,3}(`{3,}|~{3,})(.*)")
_KEPT: Final = "data:image/png;baatcheet,"


def blocks(source: str, picture: Picture, language: str = "") -> Iterator[Block]:
    """`source`, whatever is in it, as blocks. `language`: that of what was said before, for what leaves it open.

    A long source is read in segments: the tokens of a hundred thousand short lines take a thousand times their room.
    """
    kept: list[str] = []

    def put_aside(match: re.Match[str]) -> str:
        # Megabytes of base64 are none of the parser's business.
        kept.append(match.group(2))
        return f"![{match.group(1)}]({_KEPT}{len(kept) - 1})"

    if "data:image/" in source:
        source = _INLINE_DATA.sub(put_aside, source)
    reader = _Reader(picture, kept, language)
    shown = text.shown(source)
    reader.prepare(shown)
    for segment in segments(shown):
        yield from reader.read(segment)


def segments(source: str) -> Iterator[str]:
    """`source` in segments of about `SEGMENT` characters, cut where a block ends.

    Where none does, a line is cut off; a fence that is open there is closed, and opened again.
    """
    if len(source) <= SEGMENT:
        yield source
        return
    lines: list[str] = []
    size = 0
    fence = opening = ""
    for line in _short_lines(source):
        lines.append(line)
        size += len(line)
        if match := _FENCE.match(line):
            if not fence:
                fence, opening = match.group(1), line
            elif match.group(1).startswith(fence) and not match.group(2).strip():
                fence = ""
        if size >= 2 * SEGMENT or (size >= SEGMENT and not fence and not line.strip()):
            yield "".join(lines) + (f"\n{fence}" if fence else "")
            lines = [opening] if fence else []
            size = 0
    yield "".join(lines)


def _short_lines(source: str) -> Iterator[str]:
    at = 0
    while at < len(source):
        most = at + SEGMENT
        end = (
            source.find("\n", at, most) + 1
            or source.rfind(" ", at + SEGMENT // 2, most) + 1
            or min(len(source), most)
        )
        yield source[at:end]
        at = end


class _Reader:
    """Turns the tokens of one message into blocks."""

    def __init__(self, picture: Picture, kept: Sequence[str], language: str) -> None:
        self._picture = picture
        self._kept = kept
        self._language = language
        self._base = Direction.LTR
        self._readers: Mapping[str, Callable[[Token, Iterator[Token]], list[Block]]] = {
            "paragraph_open": self._paragraph,
            "heading_open": self._heading,
            "fence": self._fence,
            "code_block": lambda token, _: list(code.listings(token.content, "")),
            "math_block": self._math,
            "as_written": lambda token, _: self._paragraphs(pieces.lines(token.content, 0)),
            "blockquote_open": self._quote,
            "bullet_list_open": self._bullets,
            "ordered_list_open": self._numbers,
            "table_open": self._table,
            "hr": lambda _token, _: [Rule()],
        }

    def prepare(self, source: str) -> None:
        """Look for the direction of paragraphs that have no letters, and the language of those that leave it open."""
        self._base = text.direction([source])
        self._language = text.language(source[:LANGUAGE], self._language) or self._language

    def read(self, segment: str) -> list[Block]:
        return self._blocks(iter(PARSER.parse(segment)), "")

    def _blocks(self, tokens: Iterator[Token], end: str) -> list[Block]:
        """The blocks up to a token of type `end`."""
        found: list[Block] = []
        for token in tokens:
            if token.type == end:
                break
            found += self._readers[token.type](token, tokens)
        return found

    def _paragraph(self, _: Token, tokens: Iterator[Token]) -> list[Block]:
        inline, _end = next(tokens), next(tokens)
        return self._paragraphs(self._pieces(inline))

    def _paragraphs(self, line: list[Piece]) -> list[Block]:
        return list(_paragraphs(line, self._base, self._language))

    def _heading(self, token: Token, tokens: Iterator[Token]) -> list[Block]:
        inline, _end = next(tokens), next(tokens)
        lines = _paragraphs(self._pieces(inline), self._base, self._language)
        return [Heading(int(token.tag[1]), one.direction, one.language, one.pieces) for one in lines]

    def _fence(self, token: Token, _: Iterator[Token]) -> list[Block]:
        info = token.info.strip().split(maxsplit=1)
        return list(code.listings(token.content.removesuffix("\n"), info[0].strip("{}.") if info else ""))

    def _math(self, token: Token, _: Iterator[Token]) -> list[Block]:
        lines = pieces.lines(token.content.strip("\n"), Style.MATH)
        return list(_paragraphs(lines, Direction.LTR, ""))

    def _quote(self, _: Token, tokens: Iterator[Token]) -> list[Block]:
        inner = self._blocks(tokens, "blockquote_close")
        return [Quote(_direction_of(part, self._base), part) for part in _portions(inner)]

    def _bullets(self, _: Token, tokens: Iterator[Token]) -> list[Block]:
        items, tight, way = self._items(tokens, "bullet_list_close")
        return [Bullets(way, tight, part) for part in _portions(items)]

    def _numbers(self, token: Token, tokens: Iterator[Token]) -> list[Block]:
        items, tight, way = self._items(tokens, "ordered_list_close")
        start = token.attrGet("start")
        first = 1 if start is None else int(start)
        return [
            Numbers(way, tight, first + number * ITEMS, part) for number, part in enumerate(_portions(items))
        ]

    def _items(self, tokens: Iterator[Token], end: str) -> tuple[list[list[Block]], bool, int]:
        """The items of a list, whether they stand close together, and its direction."""
        items: list[list[Block]] = []
        tight = True
        for token in tokens:
            if token.type == end:
                break
            inner = list(_until(tokens, "list_item_open", "list_item_close"))
            first = next((one for one in inner if one.type == "paragraph_open"), None)
            tight &= first is None or first.hidden
            items.append(_with_task(self._blocks(iter(inner), "")))
        return items, tight, _direction_of([block for item in items for block in item], self._base)

    def _table(self, _: Token, tokens: Iterator[Token]) -> list[Block]:
        rows: list[list[Token]] = []
        aligns: list[Align] = []
        for token in tokens:
            match token.type:
                case "table_close":
                    break
                case "tr_open":
                    rows.append([])
                case "th_open":
                    aligns.append(_ALIGNS.get(str(token.attrGet("style") or ""), "start"))
                case "inline":
                    rows[-1].append(token)
                case _:
                    pass
        columns = len(rows[0])
        if columns > COLUMNS:
            return self._records(rows)
        small = columns >= SMALL_FROM
        most = max(3, (TABLE_UNITS * (5 if small else 4) // 4 - 2 * columns) // columns)
        cells = [[self._cell(token, most) for token in row] for row in rows]
        texts = (one for row in cells for cell in row for one in pieces.texts(cell.pieces))
        way = text.direction(texts, self._base)
        repeated = all(len(token.content) <= REPEATED for token in rows[0])
        return [Table(way, aligns, cells[0], part, small, repeated) for part in _portions(cells[1:]) or [[]]]

    def _cell(self, inline: Token, most: int) -> Cell:
        line = self._pieces(inline, most)
        way = pieces.direction(line, self._base)
        return Cell(way, text.language(inline.content, self._language), pieces.isolated(line, way))

    def _records(self, rows: list[list[Token]]) -> list[Block]:
        """A table that is too wide for a page: each row as a list of its cells."""
        names = rows[0]
        records: list[Block] = []
        for row in rows[1:] or [[]]:
            items: list[list[Block]] = []
            for number, name in enumerate(names):
                line = [pieces.bolder(piece) for piece in self._pieces(name)]
                if number < len(row):
                    line += [": ", *self._pieces(row[number])]
                items.append(self._paragraphs(line))
            records.append(
                Bullets(_direction_of([one for item in items for one in item], self._base), True, items)
            )
        return records

    def _pieces(self, inline: Token, most: int = text.LONG_WORD) -> list[Piece]:
        """What a line of text consists of. A word of more than `most` units may break."""
        found: list[Piece] = []
        style = 0
        link: tuple[str, int] | None = None  # its address, and where its text begins
        for token in inline.children or []:
            if token.type in _STYLES:
                style ^= _STYLES[token.type]
            elif token.type == "link_open":
                link = (str(token.attrGet("href") or ""), len(found))
            elif token.type == "link_close":
                assert link is not None
                url, start = link
                if pieces.may_link(url):
                    found[start:] = [Linked(url, found[start:])]
                link = None
            else:
                found += self._piece(token, style, most, linked=link is not None)
        return pieces.breakable(found, most)

    def _piece(self, token: Token, style: int, most: int, *, linked: bool) -> list[Piece]:
        match token.type:
            case "text" | "text_special":
                return (pieces.styled if linked else pieces.linked)(token.content, style, most)
            case "code_inline":
                return [pieces.inline_code(token.content, style, most)]
            case "math_inline":
                return pieces.lines(token.content, style | Style.MATH, most)
            case "softbreak" | "hardbreak":
                return [Newline()]
            case "image":
                return self._image(token, style, most, linked=linked)
            case other:
                raise AssertionError(other)

    def _image(self, token: Token, style: int, most: int, *, linked: bool) -> list[Piece]:
        url = str(token.attrGet("src") or "")
        words = token.content
        if url.startswith("data:"):
            number = url.removeprefix(_KEPT)
            if number.isdecimal() and int(number) < len(self._kept):
                url = self._kept[int(number)]
            picture = self._picture(url, words)
            if picture is not None:
                return [picture]
            return pieces.styled(
                f"[Picture: {words or 'that could not be shown'}]", style | Style.FAINT, most
            )
        label = pieces.styled(f"[Picture: {words or url}]", style, most)
        return [Linked(url, label)] if pieces.may_link(url) and not linked else label


_ALIGNS: Final[Mapping[str, Align]] = {
    "text-align:left": "left",
    "text-align:center": "center",
    "text-align:right": "right",
}
_STYLES: Final = {
    f"{name}_{side}": style
    for name, style in (("strong", Style.BOLD), ("em", Style.ITALIC), ("s", Style.STRUCK))
    for side in ("open", "close")
}


def _with_task(item: list[Block]) -> list[Block]:
    """`item` with a box in place of `[ ]` or `[x]`, where it begins with that."""
    match item:
        case [Paragraph(way, language, [str(beginning), *rest]), *others] if found := _TASK.match(beginning):
            box = "☐ " if found.group(1) == " " else "☑ "
            return [Paragraph(way, language, [box + beginning[found.end() :], *rest]), *others]
        case _:
            return item


def _direction_of(inner: Sequence[Block], otherwise: Direction) -> int:
    """The direction of a quote or a list: that of the first thing in it that has one."""
    for block in inner:
        match block:
            case Paragraph() | Heading() | Quote() | Bullets() | Numbers() | Table():
                return block.direction
            case _:
                pass
    return otherwise


def _paragraphs(line: list[Piece], base: Direction, language: str) -> Iterator[Paragraph]:
    """`line` as one paragraph, or as several where it would be very long. They keep one direction."""
    if not any(line):
        return
    texts = list(pieces.texts(line))
    way = text.direction(texts, base)
    own = text.language("".join(texts)[:LANGUAGE], language)
    for part in pieces.portions(pieces.isolated(line, way), PARAGRAPH):
        yield Paragraph(way, own, part)


def _portions(items: list[T]) -> list[list[T]]:
    return [items[start : start + ITEMS] for start in range(0, len(items), ITEMS)]


def _until(tokens: Iterator[Token], opening: str, closing: str) -> Iterator[Token]:
    """The tokens before the `closing` one that is not inside another pair of them."""
    depth = 0
    for token in tokens:
        if token.type == closing:
            if not depth:
                return
            depth -= 1
        elif token.type == opening:
            depth += 1
        yield token
