"""Code in its colours, line by line."""

from collections.abc import Iterator
from enum import IntEnum
from functools import cache, lru_cache
from typing import Final

from pygments.lexer import Lexer
from pygments.lexers import get_lexer_by_name
from pygments.token import Comment, Generic, Keyword, Name, Number, Operator, String, Token

from baatcheet.exports.pdf import text
from baatcheet.exports.pdf.tree import Gap, Listing, Tinted

MOST_TINTED: Final = 20_000  # characters of code that are coloured; what is longer stays black
MOST_LINE: Final = 2_000  # characters of a line in it
LINES: Final = 200  # of one listing: a longer one is several, which a page break may part
LONG_WORD: Final = 48
STEP: Final = 8
TAB: Final = 4


class Tint(IntEnum):
    """The colours of code; the template has them in this order."""

    PLAIN = 0
    KEYWORD = 1
    NAME = 2
    STRING = 3
    NUMBER = 4
    COMMENT = 5
    ADDED = 6
    REMOVED = 7


_TINTS = {
    Keyword: Tint.KEYWORD,
    Keyword.Constant: Tint.NUMBER,
    Operator.Word: Tint.KEYWORD,
    Name.Function: Tint.NAME,
    Name.Class: Tint.NAME,
    Name.Tag: Tint.NAME,
    Name.Decorator: Tint.NAME,
    Name.Attribute: Tint.NAME,
    Name.Builtin: Tint.NAME,
    Name.Namespace: Tint.PLAIN,
    String: Tint.STRING,
    Number: Tint.NUMBER,
    Comment: Tint.COMMENT,
    Comment.Preproc: Tint.KEYWORD,
    Generic.Inserted: Tint.ADDED,
    Generic.Deleted: Tint.REMOVED,
    Generic.Heading: Tint.NAME,
    Generic.Subheading: Tint.NAME,
}

# Languages by the names that people write behind a fence. Only lexers that are known to be quick: text that is coloured
# is anybody's, and some of Pygments' take their time over what they do not expect.
_LEXERS = {
    **dict.fromkeys(("python", "py", "python3", "pycon"), "python"),
    **dict.fromkeys(("javascript", "js", "jsx", "mjs", "node"), "javascript"),
    **dict.fromkeys(("typescript", "ts", "tsx"), "typescript"),
    **dict.fromkeys(("bash", "sh", "shell", "zsh", "console"), "bash"),
    **dict.fromkeys(("html", "vue", "svelte"), "html"),
    **dict.fromkeys(("xml", "svg"), "xml"),
    **dict.fromkeys(("css",), "css"),
    **dict.fromkeys(("scss", "sass", "less"), "scss"),
    **dict.fromkeys(("json", "jsonc", "json5", "jsonl"), "json"),
    **dict.fromkeys(("yaml", "yml"), "yaml"),
    **dict.fromkeys(("toml",), "toml"),
    **dict.fromkeys(("ini", "cfg", "conf", "properties", "env", "dotenv"), "ini"),
    **dict.fromkeys(("sql", "postgresql", "postgres", "psql", "plpgsql", "mysql", "sqlite"), "sql"),
    **dict.fromkeys(("c", "h"), "c"),
    **dict.fromkeys(("cpp", "c++", "cc", "hpp", "cxx"), "cpp"),
    **dict.fromkeys(("csharp", "cs", "c#"), "csharp"),
    **dict.fromkeys(("java",), "java"),
    **dict.fromkeys(("kotlin", "kt"), "kotlin"),
    **dict.fromkeys(("scala",), "scala"),
    **dict.fromkeys(("swift",), "swift"),
    **dict.fromkeys(("go", "golang"), "go"),
    **dict.fromkeys(("rust", "rs"), "rust"),
    **dict.fromkeys(("ruby", "rb"), "ruby"),
    **dict.fromkeys(("php",), "php"),
    **dict.fromkeys(("perl", "pl"), "perl"),
    **dict.fromkeys(("lua",), "lua"),
    **dict.fromkeys(("r",), "r"),
    **dict.fromkeys(("dart",), "dart"),
    **dict.fromkeys(("haskell", "hs"), "haskell"),
    **dict.fromkeys(("elixir", "ex", "exs"), "elixir"),
    **dict.fromkeys(("powershell", "ps1", "pwsh"), "powershell"),
    **dict.fromkeys(("dockerfile", "docker"), "docker"),
    **dict.fromkeys(("nginx",), "nginx"),
    **dict.fromkeys(("diff", "patch"), "diff"),
    **dict.fromkeys(("graphql",), "graphql"),
    **dict.fromkeys(("markdown", "md"), "markdown"),
    **dict.fromkeys(("latex", "tex"), "latex"),
    **dict.fromkeys(("http",), "http"),
    **dict.fromkeys(("protobuf", "proto"), "protobuf"),
}


def listings(code: str, language: str) -> Iterator[Listing]:
    """`code`, of a fence that says `language`, as listings of at most `LINES` lines, in their order."""
    code = text.shown_code(code)
    label = text.shown_code(language)[:40]
    lines = _lines(code, language.lower())
    parts = range(0, max(1, len(lines)), LINES)
    for start in parts:
        last = start == parts[-1]
        yield Listing(label, lines[start : start + LINES], first=start == 0, last=last)


def _lines(code: str, language: str) -> list[list[str | Tinted | Gap]]:
    lines: list[list[tuple[int, str]]] = [[]]
    for tint, value in _tinted(code, language):
        for number, part in enumerate(value.split("\n")):
            if number:
                lines.append([])
            if not part:
                continue
            line = lines[-1]
            if line and (line[-1][0] == tint or part.isspace()):
                line[-1] = (line[-1][0], line[-1][1] + part)
            else:
                line.append((tint, part))
    while len(lines) > 1 and not lines[-1]:
        lines.pop()
    return [_breakable(line) for line in lines]


def _tinted(code: str, language: str) -> Iterator[tuple[int, str]]:
    name = _LEXERS.get(language)
    if name is None or len(code) > MOST_TINTED or max(map(len, code.split("\n"))) > MOST_LINE:
        yield Tint.PLAIN, code
        return
    for kind, value in _lexer(name).get_tokens(code):
        yield _tint(kind), value


@lru_cache
def _lexer(name: str) -> Lexer:
    # Nothing is stripped, and no line break added: every character comes out as it went in.
    return get_lexer_by_name(name, stripnl=False, ensurenl=False)


@cache
def _tint(kind: object) -> int:
    while kind is not Token and kind is not None:
        if kind in _TINTS:
            return _TINTS[kind]
        kind = getattr(kind, "parent", None)
    return Tint.PLAIN


def _breakable(line: list[tuple[int, str]]) -> list[str | Tinted | Gap]:
    """The line with its tabs as blanks, and places where it may break inside what has none."""
    whole = "".join(value for _, value in line)
    if "\t" in whole:
        line = _expanded(line)
        whole = "".join(value for _, value in line)
    cuts = _cuts(whole)
    found: list[str | Tinted | Gap] = []
    at = 0
    for tint, value in line:
        end = at + len(value)
        inner = sorted(cut for cut in cuts if at < cut < end) if cuts else []
        if at in cuts:
            found += cuts[at]
        for start, stop in zip([at, *inner], [*inner, end], strict=True):
            if start != at:
                found += cuts[start]
            part = value[start - at : stop - at]
            found.append(part if tint == Tint.PLAIN else Tinted(int(tint), part))
        at = end
    return found


def _cuts(whole: str) -> dict[int, list[str | Tinted | Gap]]:
    """Where the line may end inside an endless word, and what makes it so."""
    cuts: dict[int, list[str | Tinted | Gap]] = {}
    at = 0
    for part in text.pieces(whole, LONG_WORD, STEP)[:-1]:
        hard = part.endswith(text.ZERO_WIDTH_SPACE) and not whole.startswith(part, at)
        at += len(part) - hard
        cuts[at] = [text.ZERO_WIDTH_SPACE] if hard else [Gap()]
    return cuts


def _expanded(line: list[tuple[int, str]]) -> list[tuple[int, str]]:
    column = 0
    expanded = []
    for tint, value in line:
        parts = []
        for one in value:
            part = " " * (TAB - column % TAB) if one == "\t" else one
            column += len(part)
            parts.append(part)
        expanded.append((tint, "".join(parts)))
    return expanded
