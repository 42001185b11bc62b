"""Anything at all can be said, and makes a PDF in which everything else can still be read."""

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from baatcheet.exports.document import Said
from baatcheet.exports.pdf import mending
from baatcheet.exports.pdf.fonts import Shelf
from baatcheet.exports.pdf.mending import mended
from baatcheet.exports.pdf.tree import Pages
from baatcheet.exports.pdf.typesetting import NotSet, Typesetter
from tests.exports.pdf.making import LEFT, RIGHT, WRITTEN, Book, Publisher, squeezed

TYPST = (
    '#import "@preview/cetz:0.2.0"\n#include "/etc/passwd"\n#read("/etc/passwd") #json("portion-0.json") $x$ \\ '
    "#{panic()} <label> @reference `#raw` [#link] *#strong* _#emph_ = heading\n- #item\n/ term: x\n"
    "#set page(width: 1cm)"
)
HOSTILE = {
    "typst": TYPST,
    "typst in code": f"```typst\n{TYPST}\n```",
    "quotes in quotes": ">" * 10_000 + " x",
    "quotes line by line": "\n".join(">" * depth + " x" for depth in range(1, 400)),
    "lists in lists": "\n".join(" " * 2 * depth + "- x" for depth in range(400)),
    "lists on one line": "- " * 5_000 + "x",
    "a word of a megabyte": "W" * 1_000_000,
    "an Urdu word of many letters": "ی" * 50_000,
    "brackets": "[" * 50_000,
    "closing brackets": ")" * 20_000,
    "emphasis": "*a **b " * 5_000,
    "bold words in a row": "**WWWWWWWW**WWWWWWWW" * 1_000,
    "links in a row": "[WWWWWWWWW](https://example.com)" * 500,
    "backslashes": "\\" * 50_000,
    "dollars": "$a \\b" * 5_000,
    "backticks": "".join("`" * number + "a" for number in range(1, 300)),
    "angles": "<a " * 20_000,
    "controls": "".join(map(chr, range(0x20))) * 50 + "".join(map(chr, range(0x7F, 0xA0))),
    "lone surrogates": "a\ud800b\udfffc",
    "noncharacters": "\ufffe\uffff\U0001ffff\ufdd0x" * 50,
    "overrides of direction": "\u202eabc\u202d" * 2_000,
    "isolates in isolates": "\u2067x" * 5_000,
    "embeddings": "\u202b\u202ax" * 5_000,
    "joiners": "\u200d" * 5_000 + "👩\u200d" * 5_000,
    "marks on one letter": "a" + "\u0301" * 100_000,
    "viramas": "क्" * 5_000,
    "no-break spaces": "a\u00a0" * 10_000,
    "word joiners": "漢\u2060" * 5_000,
    "Han in quotation marks": "“漢”" * 3_000,
    "the widest letters": "﷽" * 1_000 + "\u2e3b" * 500 + "𒐫" * 200,
    "flags": "🇵" * 5_000,
    "headings of nothing": "#\n##\n# \n#  #\n# `x`\n# ![a](b)\n# [](https://example.com)\n",
    "a heading without end": "# " + "W" * 5_000 + "\n# " + "word " * 3_000,
    "a table of long words": f"|{('W' * 300 + '|') * 12}\n|{'-|' * 12}\n|{('W' * 300 + ' i' * 300 + '|') * 12}\n",
    "a table of a thousand columns": f"|{'a|' * 1_000}\n|{'-|' * 1_000}\n|{'b|' * 1_000}",
    "a table of many rows": "|a|b|\n|-|-|\n" + "|x|y|\n" * 3_000,
    "many short lines": "a\n" * 10_000,
    "many fences": "```\n" * 10_000,
    "many rules": "---\n" * 3_000,
    "an address without end": "https://" + "a" * 100_000,
    "a picture of nothing": "![a](data:image/png;base64," + "A" * 300_000 + ")",
    "only blanks": "   \n\n \t\n",
    "nothing": "",
}


def _letters_outside(book: Book) -> list[str]:
    """What stands outside the margins of the first and the last pages."""
    pages = {number for number in (1, 2, 3, len(book) - 1, len(book)) if 1 <= number <= len(book)}
    return [
        one.text
        for number in sorted(pages)
        for one in book.letters(number)
        if one.text.strip() and one.right > one.left and (one.left < LEFT or one.right > RIGHT)
    ]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_stays_on_its_pages(publisher: Publisher, name: str) -> None:
    content = HOSTILE[name]
    hostile = Said("1", "user", content, WRITTEN, author=content[:40], model=content[:60])
    last = Said("2", "assistant", "The **very** last", WRITTEN, model=content[:60])

    book = publisher.of_messages([hostile, last], title=content[:300].strip() or "x", owner=content[:60])

    assert "The very last" in book.page(len(book))
    assert _letters_outside(book) == []
    assert "marked" not in " ".join(book.rendered.notes)


def test_typst_is_shown_and_not_run(publisher: Publisher) -> None:
    book = publisher.publish(TYPST)

    said = squeezed(book.said)
    for line in (
        '#import"@preview/cetz:0.2.0"',
        '#read("/etc/passwd")',
        "#{panic()}<label>@reference",
        "#raw",
    ):
        assert line in said
    assert "root:" not in book.text


def test_the_typesetter_reads_nothing_outside_its_folder(tmp_path: Path, shelf: Shelf) -> None:
    outside = tmp_path / "secret.txt"
    outside.write_text("secret", encoding="utf-8")
    folder = tmp_path / "root"
    folder.mkdir()
    with Typesetter(folder, shelf, WRITTEN, 1) as typesetter:
        for path in ("/etc/passwd", "../secret.txt", str(outside), "@preview/cetz:0.2.0"):
            (folder / "spy.typ").write_text(
                f'#read("{path}")' if "@" not in path else f'#import "{path}"', "utf-8"
            )
            data = folder / "data.json"
            data.write_bytes(b"{}")
            with pytest.raises(NotSet):
                typesetter.set("spy.typ", data, tagged=False)


def test_a_message_that_cannot_be_set_costs_no_other(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = Typesetter.set

    def failing(self: Typesetter, template: str, data: Path, *, tagged: bool) -> Path:
        if b"poison" in data.read_bytes() and template == "messages.typ":
            raise NotSet("a panic")
        return really(self, template, data, tagged=tagged)

    monkeypatch.setattr(Typesetter, "set", failing)
    contents = [f"# Title {number}\n\n## Part {number}\n\nText {number}" for number in range(20)]
    contents[7] = "# Bad\n\npoison\n\n## Worse"

    book = publisher.publish(*contents)

    for number in set(range(20)) - {7}:
        assert f"Text {number}" in book.said
    assert "poison" not in book.said
    assert "can't be set in a PDF" in book.said
    assert any("are marked" in note for note in book.rendered.notes)
    bookmarks = [title for level, title, _ in book.bookmarks() if level >= 2]
    assert len(bookmarks) == 38
    assert "Part 19" in bookmarks
    last = book.bookmarks()[-1]
    assert "Text 19" in book.page(last[2])


def test_when_nothing_can_be_set_nothing_is_left() -> None:
    calls: list[Pages] = []

    def never(pages: Pages) -> bool:
        calls.append(pages)
        return False

    data = (
        b'{"style":{"text":[],"languages":{},"code":[],"emoji":[],"nastaliq":false,"paper":"a4"},"parts":[{"running":'
        b'null,"entries":[["talk",["d",0,"",["x"]],"",[["h",1,0,"",["a"]]]],["said","user",["d",0,"",["You"]],"","#1",'
        b'[["h",1,0,"",["b"]],["q",0,[["h",2,0,"",["c"]]]]],true,true]]}]}'
    )

    found = mended(data, never)

    assert found.dropped == [1, 3, 4]
    assert len(calls) == 3
    assert mending.mended(data, lambda pages: True).dropped == []


# Letters of Latin, Greek and Cyrillic, and digits, that are the same in both cases or small.
LETTERS = [one for one in map(chr, range(0x30, 0x530)) if one.isalnum() and one.casefold() == one]
WORDS = st.text(st.sampled_from(LETTERS), min_size=1, max_size=12)
URDU_WORDS = st.text(
    st.sampled_from("ابپتٹثجچحخدڈذرڑزژسشصضطظعغفقکگلمنںوہھءیے"), min_size=1, max_size=10
).filter(
    # The name of God is one glyph, in which poppler and pdfium each find the letters in an order of their own.
    lambda word: "لل" not in word
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(max_size=400), min_size=1, max_size=8))
def test_any_text_makes_a_pdf(publisher: Publisher, contents: list[str]) -> None:
    between = [one for number, content in enumerate(contents) for one in (content, f"marker{number}")]

    book = publisher.publish(*between, title=contents[0] or "x")

    assert book.rendered.messages == len(between)
    assert _letters_outside(book) == []
    places = [book.said.find(f"marker{number}") for number in range(len(contents))]
    assert -1 not in places
    assert places == sorted(places)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        # Both in one line are set right, but a reader guesses which way the line runs.
        st.one_of(st.lists(WORDS, min_size=1, max_size=40), st.lists(URDU_WORDS, min_size=1, max_size=40)),
        min_size=1,
        max_size=6,
    )
)
def test_every_word_extracts(publisher: Publisher, messages: list[list[str]]) -> None:
    book = publisher.publish(*(" ".join(words) for words in messages))

    said = squeezed(re.sub(r"\n?A conversation \d+ of \d+\n?", "", book.said))
    for words in messages:
        for word in words:
            assert word in said
