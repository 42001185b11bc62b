"""The parser of Markdown, with what chats have beside CommonMark, and bounds on what it takes upon itself."""

import re
from typing import Final

from markdown_it import MarkdownIt
from markdown_it.parser_block import ParserBlock
from markdown_it.rules_block import StateBlock
from markdown_it.rules_core import StateCore
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token

DEPTH: Final = 12  # levels of quotes and lists; what is deeper is shown as it was written
MOST_SIGNS: Final = (
    2_000  # signs of Markdown in one paragraph: one with more is no prose, and shown as it was written
)
MOST_MATH: Final = 4_000  # characters

_SIGNS: Final = re.compile(r"[*_`\[\]<&~!$\\]")
_BREAK_TAG: Final = re.compile(r"<br\s*/?>", re.IGNORECASE)


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


_MATH: Final = re.compile(
    r"\$\$(?P<a>[^$]+?)\$\$|\\\[(?P<b>.+?)\\\]|\\\((?P<c>.+?)\\\)"
    r"|\$(?![\s$])(?P<d>(?:[^$\\\n]|\\[^\n]){1,500}?)(?<![\s\\])\$(?![\d$])",
    re.DOTALL,
)


def _math_inline(state: StateInline, silent: bool) -> bool:
    r"""Mathematics in a line, with its signs: `$…$`, `$$…$$`, `\(…\)` and `\[…\]`. Prices are none."""
    if state.src[state.pos] not in "$\\":
        return False
    match = _MATH.match(state.src, state.pos, min(state.posMax, state.pos + MOST_MATH))
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
    r"""Mathematics on lines of its own: from one that begins with `$$` or `\[` to the one that ends with its match."""
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


PARSER: Final = _parser()
