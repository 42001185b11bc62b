"""Markdown read into the tree that is set: structure where there is some, and never a word lost."""

# ruff: noqa: RUF001 - several scripts, each meant

import time
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baatcheet.exports.pdf import markdown, text
from baatcheet.exports.pdf.tree import (
    Block,
    Bullets,
    Cell,
    Code,
    Gap,
    Heading,
    Inset,
    Linked,
    Listing,
    Newline,
    Note,
    Numbers,
    Paragraph,
    Piece,
    Quote,
    Rule,
    Style,
    Styled,
    Table,
    Tinted,
)


def read(source: str) -> list[Block]:
    return list(markdown.blocks(source, lambda url, words: None))


def words(blocks: Sequence[Block]) -> str:
    """All that is said in `blocks`."""
    return "\n".join(_words(blocks)).replace(text.ZERO_WIDTH_SPACE, "")


def _words(blocks: Sequence[Block]) -> Iterator[str]:
    for block in blocks:
        match block:
            case Paragraph() | Heading() | Note():
                yield line(block.pieces)
            case Listing():
                yield from ("".join(map(_code, row)) for row in block.lines)
            case Quote():
                yield from _words(block.blocks)
            case Bullets() | Numbers():
                for item in block.items:
                    yield from _words(item)
            case Table():
                for row in [block.header, *block.rows]:
                    yield from (line(cell.pieces) for cell in row)
            case Rule():
                pass


def _code(piece: str | Tinted | Gap) -> str:
    return piece if isinstance(piece, str) else piece.text if isinstance(piece, Tinted) else ""


def line(pieces: Sequence[Piece]) -> str:
    found = ""
    for piece in pieces:
        match piece:
            case str():
                found += piece
            case Styled():
                found += piece.text
            case Code() | Linked():
                found += line(piece.pieces)
            case Newline():
                found += "\n"
            case Inset() | Gap():
                pass
    return found


def only(source: str) -> Block:
    (block,) = read(source)
    return block


def test_styles_within_a_line() -> None:
    assert only("a **b *c*** ~~d~~") == Paragraph(
        0,
        "",
        [
            "a ",
            Styled(Style.BOLD, "b "),
            Styled(Style.BOLD | Style.ITALIC, "c"),
            " ",
            Styled(Style.STRUCK, "d"),
        ],
    )


def test_line_breaks_are_kept() -> None:
    assert only("one\ntwo  \nthree<br>four") == Paragraph(
        0, "", ["one", Newline(), "two", Newline(), "three", Newline(), "four"]
    )


def test_inline_code_is_boxed_where_it_is_short() -> None:
    assert only("`short`") == Paragraph(0, "", [Code(0, ["short"], boxed=True)])
    assert only(f"`{'long ' * 9}`") == Paragraph(0, "", [Code(0, ["long " * 9], boxed=False)])


def test_bare_addresses_are_links_without_the_sentence_around_them() -> None:
    shown = only("See (https://example.com/a_(b)), or https://example.org/c?d=e.")

    assert isinstance(shown, Paragraph)
    assert [piece.url for piece in shown.pieces if isinstance(piece, Linked)] == [
        "https://example.com/a_(b)",
        "https://example.org/c?d=e",
    ]
    assert line(shown.pieces) == "See (https://example.com/a_(b)), or https://example.org/c?d=e."


@pytest.mark.parametrize(
    "formula", ["$a_1 * b_1 * c$", r"\(a \* b\)", r"\[\frac{a_b}{c_d}\]", "$$x_1_2$$", "$x$,"]
)
def test_mathematics_is_no_markdown(formula: str) -> None:
    assert words(read(f"so {formula} is")) == f"so {formula} is"


def test_prices_are_no_mathematics() -> None:
    assert line(only("from $5 to *$6* a $7").pieces) == "from $5 to $6 a $7"  # type: ignore[union-attr]


def test_mathematics_on_lines_of_its_own() -> None:
    assert words(read("$$\na = b\n\n===\nc_1*d*\n$$")) == "$$\na = b\n\n===\nc_1*d*\n$$"


def test_lists_know_their_numbers_tasks_and_directions() -> None:
    match only("3. پہلا\n4. second\n\n   more"):
        case Numbers(direction, tight, start, items):
            assert (direction, tight, start, len(items)) == (1, False, 3, 2)
        case other:
            raise AssertionError(other)
    assert words(read("- [ ] open\n- [x] done\n- [y] none")) == "☐ open\n☑ done\n[y] none"


def test_a_long_list_goes_on_with_its_numbers() -> None:
    lists = read("\n".join(f"{number}. x" for number in range(1, 251)))

    assert [one.start for one in lists if isinstance(one, Numbers)] == [1, 101, 201]


def test_tables_have_alignments_and_directions() -> None:
    match only("| نام | b | c |\n|:--|:-:|--:|\n| 1 | 2<br>3 |"):
        case Table(direction, aligns, header, rows, small):
            assert (direction, aligns, small) == (1, ["left", "center", "right"], False)
            assert [line(cell.pieces) for cell in header] == ["نام", "b", "c"]
            assert [line(cell.pieces) for cell in rows[0]] == ["1", "2\n3", ""]
        case other:
            raise AssertionError(other)


def test_a_table_of_many_columns_is_a_list_of_its_rows() -> None:
    columns = [f"c{number}" for number in range(markdown.COLUMNS + 1)]
    row = [f"v{number}" for number in range(markdown.COLUMNS + 1)]
    source = f"|{'|'.join(columns)}|\n|{'-|' * len(columns)}\n|{'|'.join(row)}|"

    shown = only(source)

    assert isinstance(shown, Bullets)
    assert words([shown]).split("\n") == [
        f"{name}: {value}" for name, value in zip(columns, row, strict=True)
    ]


def test_what_is_too_deep_is_kept_as_it_was_written() -> None:
    assert words(read(">" * 100 + " deep")).endswith(" deep")
    assert words(read("\n".join("  " * depth + f"- item{depth}" for depth in range(60)))).count("item") == 60


def test_html_is_text() -> None:
    assert words(read("<script>alert(1)</script> <b>bold</b>\n\n<div>\n*x*\n</div>")) == (
        "<script>alert(1)</script> <b>bold</b>\n<div>\nx\n</div>"
    )


def test_definitions_of_links_are_shown() -> None:
    assert words(read("[a][1]\n\n[1]: https://example.com/x")) == "[a][1]\n[1]: https://example.com/x"


def test_a_picture_is_shown_or_told() -> None:
    inset = Inset("p.png", "words", 10.0)
    long = "data:image/png;base64," + "A" * 3_000
    asked: list[str] = []

    def picture(url: str, words: str) -> Inset | None:
        asked.append(url)
        return inset if "A" in url else None

    shown = list(markdown.blocks(f"![words]({long}) ![b](data:image/png;base64,xyz) `![c]({long})`", picture))

    assert asked == [long, "data:image/png;base64,xyz"]
    assert isinstance(shown[0], Paragraph)
    assert shown[0].pieces[0] == inset
    assert "[Picture: b]" in words(shown)


def test_a_long_paragraph_is_set_as_several() -> None:
    source = " ".join(f"word{number}" for number in range(5_000))

    blocks = read(source)

    assert len(blocks) > 4
    assert "".join(line(block.pieces) for block in blocks if isinstance(block, Paragraph)) == source


@pytest.mark.parametrize(
    "unit",
    ["word ", "a\n", "a paragraph\n\n", "- item\n", "| a |\n|---|\n| b |\n\n", "```py\nx\n```\n\n", "漢字"],
    ids=["line", "lines", "paragraphs", "items", "tables", "fences", "han"],
)
def test_a_long_source_is_read_in_segments(unit: str) -> None:
    source = unit * (300_000 // len(unit))

    segments = list(markdown.segments(source))

    assert "".join(segments) == source
    assert 2 <= len(segments) <= 4
    assert max(map(len, segments)) <= 2 * markdown.SEGMENT + 20


def test_a_fence_that_is_longer_than_a_segment_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(markdown, "SEGMENT", 500)
    code = "".join(f"x = {number}\n\n" for number in range(500))
    source = f"# Before\n\n````python\n{code}```\n````\n\n# After **it**"

    blocks = read(source)

    assert words(blocks).split() == f"Before\n{code}```\nAfter it".split()
    assert isinstance(blocks[0], Heading)
    assert isinstance(blocks[-1], Heading)
    assert {block.language for block in blocks if isinstance(block, Listing)} == {"python"}


def test_code_is_coloured_and_kept() -> None:
    source = 'def f(x):\n\treturn "ب"  # why\n\n' * 120

    parts = [block for block in read(f"```python\n{source}```") if isinstance(block, Listing)]

    assert [(part.first, part.last) for part in parts] == [(True, False), (False, True)]
    assert words(parts) == source.replace("\t", "    ").rstrip("\n")
    assert {
        piece.tint for part in parts for row in part.lines for piece in row if isinstance(piece, Tinted)
    } >= {1, 2, 3, 5}


@pytest.mark.parametrize("language", ["", "no-such-language", "PYTHON", "c++", "{.python}", "diff", "json5"])
def test_code_of_any_language_is_kept(language: str) -> None:
    assert words(read(f"```{language}\n+ a = 'b'\n- c\n```")) == "+ a = 'b'\n- c"


@given(
    st.text(st.characters(codec="utf-8"), max_size=300),
    st.sampled_from(["python", "json", "html", "sql", "bash", "x"]),
)
def test_no_code_is_changed(source: str, language: str) -> None:
    shown = text.shown_code(source)
    if "`" in source or "\t" in source:
        return
    assert words(read(f"````{language}\n{source}\n````")).rstrip("\n") == shown.rstrip("\n")


PLAIN = st.text(st.characters(codec="utf-8", categories=["L", "N", "Zs"]), max_size=300)


@given(PLAIN)
def test_plain_text_is_kept_word_by_word(source: str) -> None:
    assert words(read(source)).split() == text.shown(source).split()


@given(st.text(st.sampled_from("ab *_`[]()<>#-+|!&;~$\\:/.\n 1یہ\u0301"), max_size=300))
def test_no_letter_of_markdown_is_lost(source: str) -> None:
    """But in addresses, pictures' and languages' names, which are shown in other ways, and in entities."""
    if any(sign in source for sign in ("](", "```", "~~~", "&")):
        return
    shown = words(read(source))

    assert [one for one in shown if one in "abیہ"] == [one for one in source if one in "abیہ"]


@pytest.mark.parametrize(
    "source",
    [
        "[" * 50_000,
        "*a **b " * 20_000,
        "`" * 5_000 + "a" + "`" * 4_999,
        "<a " * 50_000,
        "![" * 50_000,
        "$a\\" * 50_000,
        "\\[" * 50_000,
    ],
    ids=["brackets", "stars", "ticks", "angles", "pictures", "dollars", "formulas"],
)
def test_signs_without_end_take_no_time(source: str) -> None:
    began = time.process_time()
    blocks = read(source)

    assert time.process_time() - began < 5
    assert words(blocks)


def test_cells_speak_of_direction_and_language() -> None:
    match only("| a |\n|-|\n| یہ اردو ہے |"):
        case Table(rows=[[Cell(direction, language)]]):
            assert (direction, language) == (1, "ur")
        case other:
            raise AssertionError(other)
