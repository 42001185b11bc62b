"""Markdown and plain text: every message as it was written, streamed; and what all formats have in common."""

import json
import re
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from baatcheet.exports import wording
from baatcheet.exports.document import (
    Attached,
    Called,
    Document,
    Format,
    Line,
    Rendered,
    Rendering,
    Said,
    Talk,
    line,
    lines,
)
from baatcheet.exports.rendering import render
from baatcheet.jobs.isolation import Sandbox

AT = datetime(2026, 5, 12, 9, 30, 15, 123456, tzinfo=UTC)


def written(folder: Path, document: Sequence[Line] | Iterator[Line]) -> Path:
    source = folder / "document.jsonl"
    with source.open("wb") as file:
        for one in document:
            file.write(line(one))
    return source


def made(folder: Path, document: Sequence[Line], format_: Format) -> str:
    target = folder / f"made.{format_}"
    order = Rendering(str(written(folder, document)), str(target), format_)
    rendered = render(order, lambda percent, phrase: None)
    assert rendered == Rendered(0, target.stat().st_size, sum(isinstance(one, Said) for one in document))
    return target.read_bytes().decode()


def conversation(*contents: str) -> list[Line]:
    said = [
        Said(
            str(number),
            "assistant" if number % 2 else "user",
            content,
            AT + timedelta(minutes=number),
            model="m",
        )
        for number, content in enumerate(contents)
    ]
    head = Document("Tea: “green” [1]", AT, 1, len(said), owner="Saba", time_zone="Asia/Karachi")
    return [head, Talk("1", "Tea: “green” [1]", AT, messages=len(said), system_prompt="Be *brief*."), *said]


def test_markdown_has_front_matter_roles_times_and_the_source(tmp_path: Path) -> None:
    text = made(tmp_path, conversation("Which **tea**?", "# Green\n\n```py\nx = 1\n```"), "md")

    assert text == (
        "---\n"
        'title: "Tea: “green” [1]"\n'
        "exported_at: 2026-05-12T14:30:15+05:00\n"
        'time_zone: "Asia/Karachi"\n'
        "conversations: 1\n"
        "messages: 2\n"
        'owner: "Saba"\n'
        "---\n"
        "\n# Tea: “green” \\[1\\]\n\n12 May 2026, 14:30 · 2 messages\n"
        "\n## System prompt\n\nBe *brief*.\n"
        "\n---\n\n<!-- message 1 user 2026-05-12T14:30:15+05:00 -->\n\n"
        "## You\n\n*12 May 2026, 14:30*\n\nWhich **tea**?\n"
        "\n---\n\n<!-- message 2 assistant 2026-05-12T14:31:15+05:00 -->\n\n"
        "## Assistant\n\n*m · 12 May 2026, 14:31*\n\n# Green\n\n```py\nx = 1\n```\n"
    )


def test_text_has_roles_times_and_the_source(tmp_path: Path) -> None:
    text = made(tmp_path, conversation("Which **tea**?\n", "Green.\x1b[31m\r\nOr چائے"), "txt")

    assert text == (
        "Tea: “green” [1]\n================\n\nExported 12 May 2026, 14:30 (Asia/Karachi)\nBy Saba\n2 messages\n"
        "\n\nTea: “green” [1]\n----------------\n12 May 2026, 14:30\n\nSystem prompt:\nBe *brief*.\n"
        "\n[1] You · 12 May 2026, 14:30\nWhich **tea**?\n"
        "\n[2] Assistant · m · 12 May 2026, 14:31\nGreen.\ufffd[31m\nOr چائے\n"
    )


@pytest.mark.parametrize("format_", ["md", "txt"])
def test_tools_files_and_endings_are_told(tmp_path: Path, format_: Format) -> None:
    said = Said(
        "1",
        "assistant",
        "Look",
        AT,
        calls=(Called("weather", '{"a": "```"}', "call_1"),),
        attachments=(Attached("a_b.png", "image/png", 1_500_000), Attached("c.pdf", "application/pdf")),
        finish_reason="length",
    )

    text = made(tmp_path, [Document("x", AT), Talk("1", "", AT), said], format_)

    assert "weather" in text
    assert '{"a": "```"}' in text
    assert "(1.5 MB)" in text
    assert "c.pdf" in text
    assert "cut off at the model's limit" in text
    assert wording.UNTITLED in text


@pytest.mark.parametrize(
    "left_open",
    [
        "```python\nx = 1",
        "~~~~\n```\n~~~",
        "text\n\n````\n```\n",
        "<!-- a comment",
        "    ```\nnot one\n```js\nx",
    ],
)
def test_what_a_message_leaves_open_swallows_no_other(tmp_path: Path, left_open: str) -> None:
    text = made(tmp_path, conversation(left_open, "**The second**"), "md")

    assert left_open in text
    assert "<strong>The second</strong>" in MarkdownIt("commonmark").render(text)


@pytest.mark.parametrize(
    "closed", ["```\nx\n```", "~~~ a ~ b\nx\n~~~~", "`` ``` ``", "<!-- x --> y", "no ``` fence"]
)
def test_nothing_is_added_to_what_is_closed(tmp_path: Path, closed: str) -> None:
    assert f"{closed}\n\n---\n" in made(tmp_path, conversation(closed, "x"), "md")


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(st.characters(codec="utf-8")), max_size=8))
def test_markdown_is_the_source_to_the_letter(tmp_path: Path, contents: list[str]) -> None:
    text = made(tmp_path, conversation(*contents), "md")

    at = 0
    for content in contents:
        at = text.index(content, at) + len(content)
    front = text.split("---\n")[1]
    assert json.loads(front.split("\n")[0].removeprefix("title: ")) == "Tea: “green” [1]"


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=200), max_size=5))
def test_no_text_moves_a_terminals_cursor(tmp_path: Path, contents: list[str]) -> None:
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", made(tmp_path, conversation(*contents), "txt"))


@given(st.text(st.characters()), st.text(st.characters()))
def test_any_text_makes_a_line_and_is_read_again(content: str, title: str) -> None:
    one = line(Said("1", "user", content, AT))

    assert one.count(b"\n") == 1
    line(Document(title, AT))
    if content.isascii():
        assert json.loads(one)["content"] == content


def test_lines_are_read_as_they_were_written(tmp_path: Path) -> None:
    document = conversation("a\nb\u2028c", "d")

    assert list(lines(written(tmp_path, document))) == document


@pytest.mark.parametrize("format_", ["md", "txt"])
def test_memory_does_not_grow_with_the_length(tmp_path: Path, format_: Format) -> None:
    def many() -> Iterator[Line]:
        yield Document("Long", AT, 1, 3_000)
        yield Talk("1", "Long", AT)
        for number in range(3_000):
            yield Said(str(number), "user", "word " * 2_000, AT)

    source = written(tmp_path, many())
    progress: list[float] = []
    tracemalloc.start()
    render(
        Rendering(str(source), str(tmp_path / "long"), format_),
        lambda percent, phrase: progress.append(percent),
    )
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert source.stat().st_size > 30_000_000
    assert peak < 2_000_000
    assert progress == sorted(progress)
    assert len(progress) == 7


@pytest.mark.parametrize("format_", ["md", "txt"])
def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path, format_: Format) -> None:
    source = written(tmp_path, conversation("a", "b"))
    source.write_bytes(source.read_bytes() + b'{"kind":"said"')

    with pytest.raises(ValueError, match="truncated"):
        render(Rendering(str(source), str(tmp_path / "made"), format_), lambda percent, phrase: None)

    assert list(tmp_path.iterdir()) == [source]


async def test_a_pdf_is_made_in_a_sandbox(tmp_path: Path) -> None:
    source = written(tmp_path, conversation(*(f"Message {number} `code` یہ 😀" for number in range(600))))
    order = Rendering(str(source), str(tmp_path / "made.pdf"), "pdf")
    heard: list[str] = []

    async with Sandbox() as sandbox:
        rendered = await sandbox.run(
            render,
            order,
            seconds=120,
            memory=800_000_000,
            on_progress=lambda percent, phrase: heard.append(phrase),
        )

    assert rendered.messages == 600
    assert rendered.bytes == (tmp_path / "made.pdf").stat().st_size
    assert heard
    assert {path.name for path in tmp_path.iterdir()} == {"document.jsonl", "made.pdf"}


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1_000, "1.0 KB"),
        (15_400, "15 KB"),
        (1_234_567, "1.2 MB"),
        (3 * 10**12, "3,000 GB"),
    ],
)
def test_sizes_are_for_people(count: int, shown: str) -> None:
    assert wording.size(count) == shown


def test_the_first_and_the_last_day_there_are_can_be_told() -> None:
    clock = wording.Clock(Document("x", AT, time_zone="Pacific/Kiritimati"))

    assert clock.at(datetime.max.replace(tzinfo=UTC)).startswith("31 December 9999")
    assert clock.exact(datetime.min.replace(tzinfo=UTC))


def test_reading_a_long_document_takes_no_time(tmp_path: Path) -> None:
    source = written(tmp_path, conversation(*["word " * 200] * 2_000))

    began = time.process_time()
    render(Rendering(str(source), str(tmp_path / "made.md"), "md"), lambda percent, phrase: None)

    assert time.process_time() - began < 2
