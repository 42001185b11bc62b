"""Markdown, as models and people write it, read into the tree that is set on pages.

CommonMark with GFM's tables, strikethrough, task lists and bare addresses. HTML is text. Mathematics stays as it was
written. A line break in the source is one on the page: chats are written that way.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeVar

from markdown_it import MarkdownIt
from markdown_it.parser_block import ParserBlock
from markdown_it.rules_block import StateBlock
from markdown_it.rules_core import StateCore
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token

from baatcheet.exports.pdf import code, text
from baatcheet.exports.pdf.tree import (
    Align,
    Block,
    Bullets,
    Cell,
    Code,
    Direction,
    Gap,
    Heading,
    Inset,
    Linked,
    Listing,
    Newline,
    Numbers,
    Paragraph,
    Piece,
    Quote,
    Rule,
    Style,
    Styled,
    Table,
)

Picture = Callable[[str, str], Inset | None]
"""The picture of an address (`data:…`) and what it shows in words; None where it can't be shown."""

DEPTH: Final = 12  # levels of quotes and lists; what is deeper is shown as it was written
MOST_SIGNS: Final = 2_000  # signs of Markdown in one paragraph; one with more of them is no prose, and shown as written
LANGUAGE: Final = 20_000  # characters of a text that its language is told by
PARAGRAPH: Final = 8_000  # characters: a longer one is set as several
ITEMS: Final = 100  # of one list, and rows of one table: longer ones are set as several
COLUMNS: Final = 12  # of a table: a wider one is set row by row
SMALL_FROM: Final = 6  # columns from which a table is set smaller
TABLE_UNITS: Final = 100  # how many units of text a row of a table holds
BOXED: Final = 24  # characters of inline code that is kept on one line
MOST_URL: Final = 2_000

T = TypeVar("T")

_LINKABLE = re.compile(r"(?:https?://|mailto:|tel:)", re.IGNORECASE)
_BARE = re.compile(r"https?://[^\s<>\"“”‘’`|\\^{}\u0600-\u06ff\u3000-\u303f\uff00-\uffef]+", re.IGNORECASE)
_SIGNS = re.compile(r"[*_`\[\]<&~!$\\]")
_BREAK_TAG = re.compile(r"<br\s*/?>", re.IGNORECASE)
_TASK = re.compile(r"\[([ xX])\][ \t]+")
_INLINE_DATA = re.compile(r"!\[([^\[\]\n]{0,500})\]\(\s*<?(data:image/[a-zA-Z.+-]{1,40};base64,[A-Za-z0-9+/=\s]{200,})>?\s*\)")


def blocks(source: str, picture: Picture, language: str = "") -> list[Block]:
    """`source`, whatever is in it, as blocks. `language`: that of what was said before, for what leaves it open."""
    kept: list[str] = []

    def put_aside(match: re.Match[str]) -> str:
        # Megabytes of base64 are none of the parser's business.
        kept.append(match.group(2))
        return f"![{match.group(1)}](data:image/png;baatcheet,{len(kept) - 1})"

    if "data:image/" in source:
        source = _INLINE_DATA.sub(put_aside, source)
    return _Reader(picture, kept, language).read(text.shown(source))


def styled_line(line: str, style: int = 0) -> list[Piece]:
    """`line` as it was written, in `style`."""
    return _styled(line, style, text.LONG_WORD)


class _Reader:
    """Turns the tokens of one message into blocks."""

    def __init__(self, picture: Picture, kept: Sequence[str], language: str) -> None:
        self._picture = picture
        self._kept = kept
        self._language = language
        self._base = Direction.LTR

    def read(self, source: str) -> list[Block]:
        # The direction of a paragraph that has no letters, and the language of one that leaves it open.
        self._base = text.direction([source])
        self._language = text.language(source[:LANGUAGE], self._language) or self._language
        return self._blocks(iter(_PARSER.parse(source)), "")

    def _blocks(self, tokens: Iterator[Token], end: str) -> list[Block]:
        """The blocks up to a token of type `end`."""
        found: list[Block] = []
        for token in tokens:
            if token.type == end:
                break
            match token.type:
                case "paragraph_open":
                    found += self._paragraph(next(tokens))
                    next(tokens)
                case "heading_open":
                    found += self._heading(int(token.tag[1]), next(tokens))
                    next(tokens)
                case "fence":
                    found += _fence(token)
                case "code_block":
                    found += code.listings(token.content, "")
                case "math_block":
                    found += _paragraphs(_lines(token.content.strip("\n"), Style.MATH), Direction.LTR, "")
                case "as_written":
                    found += _paragraphs(_lines(token.content, 0), self._base, self._language)
                case "blockquote_open":
                    found += self._quote(self._blocks(tokens, "blockquote_close"))
                case "bullet_list_open":
                    found += self._list(tokens, "bullet_list_close", None)
                case "ordered_list_open":
                    start = token.attrGet("start")
                    found += self._list(tokens, "ordered_list_close", 1 if start is None else int(start))
                case "table_open":
                    found += self._table(tokens)
                case "hr":
                    found.append(Rule())
                case other:
                    raise AssertionError(other)
        return found

    def _paragraph(self, inline: Token) -> list[Block]:
        return list(_paragraphs(self._pieces(inline), self._base, self._language))

    def _heading(self, level: int, inline: Token) -> list[Block]:
        return [
            Heading(level, one.direction, one.language, one.pieces) for one in self._paragraph(inline) if isinstance(one, Paragraph)
        ]

    def _quote(self, inner: list[Block]) -> list[Block]:
        return [
            Quote(_direction_of(part, self._base), part) for part in _portions(inner, ITEMS)
        ]

    def _list(self, tokens: Iterator[Token], end: str, start: int | None) -> list[Block]:
        items: list[list[Block]] = []
        tight = True
        for token in tokens:
            if token.type == end:
                break
            inner, is_tight = self._item(tokens)
            items.append(inner)
            tight &= is_tight
        way = _direction_of([block for item in items for block in item], self._base)
        lists: list[Block] = []
        for number, part in enumerate(_portions(items, ITEMS)):
            if start is None:
                lists.append(Bullets(way, tight, part))
            else:
                lists.append(Numbers(way, tight, start + number * ITEMS, part))
        return lists

    def _item(self, tokens: Iterator[Token]) -> tuple[list[Block], bool]:
        """The blocks of an item, and whether its paragraphs are tight."""
        kept = list(_until(tokens, "list_item_open", "list_item_close"))
        first = next((token for token in kept if token.type == "paragraph_open"), None)
        tight = first is None or first.hidden
        return _with_task(self._blocks(iter(kept), "")), tight

    def _table(self, tokens: Iterator[Token]) -> list[Block]:
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
        columns = max(map(len, rows))
        if columns > COLUMNS:
            return self._records(rows)
        most = max(3, (TABLE_UNITS * (5 if columns >= SMALL_FROM else 4) // 4 - 2 * columns) // columns)
        cells = [[self._cell(token, most) for token in row] for row in rows]
        way = _first_direction((cell for row in cells for cell in row), self._base)
        header, body = cells[0], cells[1:]
        return [
            Table(way, aligns, header, part, columns >= SMALL_FROM) for part in _portions(body, ITEMS) or [[]]
        ]

    def _cell(self, inline: Token, most: int) -> Cell:
        pieces = self._pieces(inline, most)
        way = _direction(pieces, self._base)
        return Cell(way, text.language(inline.content, self._language), _isolated(pieces, way))

    def _records(self, rows: list[list[Token]]) -> list[Block]:
        """A table that is too wide for a page: each row as a list of its cells."""
        names = rows[0]
        records: list[Block] = []
        for row in rows[1:] or [[]]:
            items: list[list[Block]] = []
            for number, name in enumerate(names):
                pieces: list[Piece] = [_bolder(piece) for piece in self._pieces(name)]
                if number < len(row):
                    pieces += [": ", *self._pieces(row[number])]
                items.append(list(_paragraphs(pieces, self._base, self._language)))
            records.append(Bullets(_direction_of([one for item in items for one in item], self._base), True, items))  # noqa: FBT003
        return records

    def _pieces(self, inline: Token, most: int = text.LONG_WORD) -> list[Piece]:
        """What a line of text consists of."""
        found: list[Piece] = []
        style = 0
        link: tuple[str, int] | None = None  # its address, and where its text begins
        for token in inline.children or []:
            match token.type:
                case "text" | "text_special":
                    found += _linked(token.content, style, most) if link is None else _styled(token.content, style, most)
                case "code_inline":
                    found.append(_inline_code(token.content, style, most))
                case "math_inline":
                    found += _lines(token.content, style | Style.MATH, most)
                case "softbreak" | "hardbreak":
                    found.append(Newline())
                case "strong_open":
                    style |= Style.BOLD
                case "strong_close":
                    style &= ~Style.BOLD
                case "em_open":
                    style |= Style.ITALIC
                case "em_close":
                    style &= ~Style.ITALIC
                case "s_open":
                    style |= Style.STRUCK
                case "s_close":
                    style &= ~Style.STRUCK
                case "link_open":
                    link = (str(token.attrGet("href") or ""), len(found))
                case "link_close":
                    assert link is not None
                    url, start = link
                    if _may_link(url):
                        found[start:] = [Linked(url, found[start:])]
                    link = None
                case "image":
                    found += self._image(token, style, most, linked=link is not None)
                case other:
                    raise AssertionError(other)
        return found

    def _image(self, token: Token, style: int, most: int, *, linked: bool) -> Iterator[Piece]:
        url = str(token.attrGet("src") or "")
        words = token.content
        if url.startswith("data:"):
            kept = url.removeprefix("data:image/png;baatcheet,")
            if kept != url and kept.isdigit() and int(kept) < len(self._kept):
                url = self._kept[int(kept)]
            picture = self._picture(url, words)
            if picture is not None:
                yield picture
                return
            yield from _styled(f"[Picture: {words or 'that could not be shown'}]", style | Style.FAINT, most)
            return
        label = _styled(f"[Picture: {words or url}]", style, most)
        if _may_link(url) and not linked:
            yield Linked(url, label)
        else:
            yield from label


_ALIGNS: dict[str, Align] = {"text-align:left": "left", "text-align:center": "center", "text-align:right": "right"}


def _fence(token: Token) -> Iterator[Block]:
    info = token.info.strip().split(maxsplit=1)
    yield from code.listings(token.content.removesuffix("\n"), info[0].strip("{}.") if info else "")


def _inline_code(content: str, style: int, most: int) -> Code:
    shown = text.shown_code(content)
    boxed = len(shown) <= min(BOXED, most) and text.width(shown) <= min(BOXED, most)
    return Code(style, [shown] if boxed else _gapped(shown, 0, min(BOXED, most)), boxed)


def _styled(content: str, style: int, most: int) -> list[Piece]:
    """`content`, which is one line, in `style`."""
    found: list[Piece] = []
    for is_emoji, part in text.with_emoji(content):
        found += _gapped(part, style | Style.EMOJI if is_emoji else style, most)
    return found


def _gapped(content: str, style: int, most: int) -> list[Piece]:
    if not content:
        return []
    found: list[Piece] = []
    for part in text.pieces(content, most, max(2, min(text.STEP, most // 3))):
        if found:
            found.append(Gap())
        found.append(Styled(style, part) if style else part)
    return found


def _lines(content: str, style: int, most: int = text.LONG_WORD) -> list[Piece]:
    """`content` as it stands, line by line."""
    found: list[Piece] = []
    for number, one in enumerate(content.split("\n")):
        if number:
            found.append(Newline())
        if one:
            found += _styled(one.replace("\t", " "), style, most)
    return found


def _linked(content: str, style: int, most: int) -> list[Piece]:
    """`content` with the bare addresses in it as links."""
    if "://" not in content:
        return _styled(content, style, most)
    found: list[Piece] = []
    at = 0
    for match in _BARE.finditer(content):
        url = _without_tail(match.group())
        found += _styled(content[at : match.start()], style, most)
        shown = _styled(url, style, most)
        found += [Linked(url, shown)] if _may_link(url) else shown
        at = match.start() + len(url)
    return found + _styled(content[at:], style, most)


def _without_tail(url: str) -> str:
    """`url` without the punctuation of the sentence that it stands in, and without a bracket that opened before it."""
    while url and (url[-1] in ".,:;!?'*_~" or (url[-1] == ")" and url.count(")") > url.count("("))):
        url = url[:-1]
    return url


def _may_link(url: str) -> bool:
    return len(url) <= MOST_URL and bool(_LINKABLE.match(url)) and url.isprintable()


def _with_task(item: list[Block]) -> list[Block]:
    """`item` with a box in place of `[ ]` or `[x]`, where it begins with that."""
    match item:
        case [Paragraph(way, language, [str(beginning), *rest]), *others] if found := _TASK.match(beginning):
            box = "☐ " if found.group(1) == " " else "☑ "
            return [Paragraph(way, language, [box + beginning[found.end() :], *rest]), *others]
        case _:
            return item


def _bolder(piece: Piece) -> Piece:
    match piece:
        case str():
            return Styled(Style.BOLD, piece)
        case Styled():
            return Styled(piece.style | Style.BOLD, piece.text)
        case _:
            return piece


def _texts(pieces: Sequence[Piece]) -> Iterator[str]:
    """The texts in `pieces` that have a say in their direction: code does not, being in a box of its own."""
    for piece in pieces:
        match piece:
            case str():
                yield piece
            case Styled() if not piece.style & Style.MATH:
                yield piece.text
            case Linked():
                yield from _texts(piece.pieces)
            case _:
                pass


def _direction(pieces: Sequence[Piece], otherwise: Direction) -> Direction:
    return text.direction(_texts(pieces), otherwise)


def _first_direction(cells: Iterator[Cell], otherwise: Direction) -> Direction:
    """The direction of a table: its first strong character's."""
    return text.direction((one for cell in cells for one in _texts(cell.pieces)), otherwise)


def _direction_of(inner: Sequence[Block], otherwise: Direction) -> int:
    """The direction of a quote or a list: that of the first thing in it that has one."""
    for block in inner:
        match block:
            case Paragraph() | Heading() | Quote() | Bullets() | Numbers() | Table():
                return block.direction
            case _:
                pass
    return otherwise


def _paragraphs(pieces: list[Piece], base: Direction, language: str) -> Iterator[Paragraph]:
    """`pieces` as one paragraph, or as several where it would be very long. They keep one direction."""
    if not any(pieces):
        return
    texts = list(_texts(pieces))
    way = text.direction(texts, base)
    own = text.language("".join(texts)[:LANGUAGE], language)
    for part in _portions_by_size(_isolated(pieces, way), PARAGRAPH):
        yield Paragraph(way, own, part)


def _isolated(pieces: list[Piece], way: Direction) -> list[Piece]:
    """`pieces`, where in a paragraph from right to left what only reads from left to right is kept from being turned:
    addresses, mathematics, code that may break, endless words.
    """
    if way == Direction.LTR:
        return pieces
    found: list[Piece] = []
    for piece in pieces:
        found += [text.LRI, piece, text.PDI] if _reads_left_to_right(piece) else [piece]
    return found


def _reads_left_to_right(piece: Piece) -> bool:
    match piece:
        case Styled():
            return bool(piece.style & Style.MATH)
        case Code():
            return not piece.boxed
        case Linked():
            return _direction(piece.pieces, Direction.RTL) == Direction.LTR
        case _:
            return False


def _portions_by_size(pieces: list[Piece], most: int) -> Iterator[list[Piece]]:
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
            for pieces in _portions_by_size(piece.pieces, most):
                yield Linked(piece.url, pieces)
        case Code() if _length(piece) > most:
            for pieces in _portions_by_size(piece.pieces, most):
                yield Code(piece.style, pieces, boxed=False)
        case _:
            yield piece


def _cut(content: str, most: int) -> Iterator[str]:
    while len(content) > most:
        at = content.rfind(" ", most // 2, most) + 1 or most
        yield content[:at]
        content = content[at:]
    yield content


def _portions(items: list[T], size: int) -> list[list[T]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


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


# The parser ---------------------------------------------------------------------------------------------------------


class _Blocks(ParserBlock):
    """Blocks, where what is nested too deeply is kept as it was written. The base class leaves it out."""

    def tokenize(self, state: StateBlock, startLine: int, endLine: int) -> None:  # noqa: N803
        if state.level < state.md.options.maxNesting:
            super().tokenize(state, startLine, endLine)
            return
        content = state.getLines(startLine, endLine, state.blkIndent, keepLastLF=False).strip("\n")
        if content.strip():
            token = state.push("as_written", "", 0)
            token.content = content
        state.line = endLine


def _inline(state: StateCore) -> None:
    """Parse the text of each block, but for one that is all signs: the parser would take its time over that."""
    for token in state.tokens:
        if token.type != "inline":
            continue
        token.children = []
        if len(token.content) > MOST_SIGNS and sum(1 for _ in _SIGNS.finditer(token.content)) > MOST_SIGNS:
            _as_written(token)
        elif _SIGNS.search(token.content) or "\n" in token.content:
            state.md.inline.parse(token.content, state.md, state.env, token.children)
        else:
            token.children.append(Token("text", "", 0, content=token.content))


def _as_written(token: Token) -> None:
    assert token.children is not None
    for number, one in enumerate(token.content.split("\n")):
        if number:
            token.children.append(Token("softbreak", "br", 0))
        token.children.append(Token("text", "", 0, content=one))


_MATH = re.compile(
    r"\$\$(?P<a>[^$]+?)\$\$|\\\[(?P<b>.+?)\\\]|\\\((?P<c>.+?)\\\)"
    r"|\$(?![\s$])(?P<d>(?:[^$\\\n]|\\[^\n]){1,500}?)(?<![\s\\])\$(?![\d$])",
    re.DOTALL,
)
_MOST_MATH: Final = 4_000


def _math_inline(state: StateInline, silent: bool) -> bool:
    """Mathematics in a line, with its signs: `$…$`, `$$…$$`, `\\(…\\)` and `\\[…\\]`. Prices are none."""
    if state.src[state.pos] not in "$\\":
        return False
    match = _MATH.match(state.src, state.pos, min(state.posMax, state.pos + _MOST_MATH))
    if match is None:
        return False
    if not silent:
        token = state.push("math_inline", "", 0)
        token.content = match.group()
    state.pos = match.end()
    return True


def _break_tag(state: StateInline, silent: bool) -> bool:
    """`<br>`, which is how a cell of a table gets a second line."""
    match = _BREAK_TAG.match(state.src, state.pos, state.posMax)
    if match is None:
        return False
    if not silent:
        state.push("hardbreak", "br", 0)
    state.pos = match.end()
    return True


def _math_block(state: StateBlock, startLine: int, endLine: int, silent: bool) -> bool:  # noqa: N803
    """Mathematics on lines of its own: from a line that begins with `$$` or `\\[` to the one that ends with its match."""
    if state.is_code_block(startLine):
        return False
    first = state.src[state.bMarks[startLine] + state.tShift[startLine] : state.eMarks[startLine]].strip()
    closing = {"$$": "$$", "\\[": "\\]"}.get(first[:2])
    if closing is None:
        return False
    line = startLine
    rest = first[2:]
    while not rest.endswith(closing):
        line += 1
        if line >= endLine or state.sCount[line] < state.blkIndent:
            return False
        rest = state.src[state.bMarks[line] + state.tShift[line] : state.eMarks[line]].strip()
    if closing in rest[: -len(closing)]:
        return False
    if silent:
        return True
    token = state.push("math_block", "", 0)
    token.content = state.getLines(startLine, line + 1, state.blkIndent, keepLastLF=False)
    token.map = [startLine, line + 1]
    state.line = line + 1
    return True


def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False, "maxNesting": DEPTH})
    parser.enable(["table", "strikethrough"])
    parser.disable(["html_block", "html_inline", "reference"])
    blocks = _Blocks()
    blocks.ruler = parser.block.ruler
    parser.block = blocks
    parser.block.ruler.before("fence", "math", _math_block, {"alt": ["paragraph", "blockquote", "list"]})
    parser.inline.ruler.before("escape", "math", _math_inline)
    parser.inline.ruler.before("autolink", "break_tag", _break_tag)
    parser.core.ruler.at("inline", _inline)
    return parser


_PARSER: Final = _parser()
