"""What a reader of a PDF finds: everything that was said, in order, and the way to it."""

import base64
import http.server
import io
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from PIL import Image

from baatcheet.exports.document import Attached, Called, Document, Line, Rendering, Said, Talk, line
from baatcheet.exports.pdf import composing, making
from baatcheet.exports.pdf.fonts import Shelf
from baatcheet.exports.pdf.making import make_pdf
from baatcheet.jobs.isolation_frames import Refused
from tests.exports.pdf.making import EXPORTED, LEFT, RIGHT, WRITTEN, Publisher, messages, squeezed


def _png(colour: str, size: tuple[int, int] = (40, 30)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


def _data_url(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def test_every_message_extracts_in_its_order(publisher: Publisher) -> None:
    contents = [
        f"Message number {number} says {'word ' * (number % 40)}end{number}." for number in range(150)
    ]

    book = publisher.publish(*contents)

    at = -1
    text = squeezed(book.said)
    for content in contents:
        found = text.find(squeezed(content), at + 1)
        assert found > at, content
        at = found
    assert book.rendered.messages == 150
    assert book.rendered.pages == len(book)
    assert book.rendered.bytes == book.path.stat().st_size


@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="poppler-utils are not installed")
def test_poppler_extracts_the_same(publisher: Publisher) -> None:
    book = publisher.publish("First **bold** words", "یہ دوسرا پیغام ہے", "तीसरा संदेश", "Fourth, and `code`")

    done = subprocess.run(
        ["pdftotext", "-f", "2", book.path, "-"], check=True, capture_output=True, text=True
    )

    text = "".join(one for one in done.stdout if one not in "\u202a\u202b\u202c")
    places = [
        text.find(word) for word in ("First bold words", "یہ دوسرا پیغام ہے", "तीसरा संदेश", "Fourth, and code")
    ]
    assert -1 not in places
    assert places == sorted(places)
    assert not done.stderr


def test_roles_times_and_models_are_told_in_the_readers_zone(publisher: Publisher) -> None:
    book = publisher.publish("A question", "An answer", time_zone="Asia/Karachi")

    assert "You 12 May 2026, 14:30 #1" in book.said
    assert "Assistant a-model · 12 May 2026, 14:31 #2" in book.said
    assert "Exported 1 June 2026, 23:00 (Asia/Karachi)" in book.page(1)


def test_an_unknown_time_zone_is_utc(publisher: Publisher) -> None:
    assert "9:30" in publisher.publish("A question", time_zone="Mars/Olympus").said


def test_each_page_says_which_of_how_many_it_is(publisher: Publisher) -> None:
    book = publisher.publish(*["A paragraph.\n\n" * 30] * 12)

    assert len(book) > 5
    for number in range(1, len(book) + 1):
        assert f"{number} of {len(book)}" in book.page(number)
        assert "A conversation" in book.page(number)


def test_the_contents_list_the_questions_and_lead_to_them(publisher: Publisher) -> None:
    questions = [f"Question {number}?" for number in range(9)]
    turns = [one for question in questions for one in (question, "A long answer.\n\n" * 25)]

    book = publisher.publish(*turns)

    contents = book.page(1)
    links = book.links(1)
    assert len(links) == len(questions)
    for question, page in zip(questions, links, strict=True):
        assert isinstance(page, int)
        assert question in book.page(page)
        assert re.search(rf"{re.escape(question)}[ .\n]*{page}\b", contents)


def test_headings_in_answers_are_listed_where_there_is_room(publisher: Publisher) -> None:
    book = publisher.publish("What is it?", "# First part\n\ntext\n\n## Second part\n\ntext\n\n### A detail")

    contents = book.page(1)
    assert "First part" in contents
    assert "Second part" in contents
    assert "A detail" not in contents
    assert [(level, title) for level, title, _ in book.bookmarks()] == [
        (0, "A conversation"),
        (1, "You: What is it?"),
        (1, "Assistant: First part"),
        (2, "First part"),
        (3, "Second part"),
        (4, "A detail"),
    ]


def test_bookmarks_lead_to_the_pages_of_what_they_name(publisher: Publisher) -> None:
    book = publisher.publish(*[f"Topic {number}\n\n" + "Words.\n\n" * 20 for number in range(30)])

    bookmarks = book.bookmarks()
    assert len(bookmarks) == 31
    for _, title, page in bookmarks[1:]:
        assert title.partition(": ")[2].split(" Words")[0] in book.page(page)


def test_several_conversations_begin_on_pages_of_their_own(publisher: Publisher) -> None:
    lines: list[Line] = [Document("All of it", EXPORTED, 3, 6, owner="somebody@example.com")]
    for talk in ("Hunza", "چائے", "Third"):
        lines.append(
            Talk(talk, talk, WRITTEN, messages=2, model="a-model", system_prompt=f"Speak of {talk}.")
        )
        lines += messages([f"Asked about {talk}", f"Answered about {talk}"])

    book = publisher.of_lines(lines)

    assert len(book) == 4
    for page, talk in ((2, "Hunza"), (3, "چائے"), (4, "Third")):
        assert f"Asked about {talk}" in book.page(page)
        assert f"Speak of {talk}." in book.page(page)
        assert "#1" in book.page(page)
    assert "Conversations 3" in book.page(1)
    assert "By somebody@example.com" in book.page(1)
    assert [title for level, title, _ in book.bookmarks() if level == 0] == ["Hunza", "چائے", "Third"]
    assert set(book.links(1)) == {2, 3, 4}


def test_the_file_says_what_it_is(publisher: Publisher) -> None:
    book = publisher.publish("x", title="Tea: (half) \\ چائے", owner="Saba <saba@example.com>")

    about = book.about()
    assert about["Title"] == "Tea: (half) \\ چائے"
    assert about["Author"] == "Saba <saba@example.com>"
    assert about["Creator"] == "BaatCheet"
    assert about["CreationDate"] == "D:20260601180005Z"


def test_the_same_document_makes_the_same_file(publisher: Publisher) -> None:
    first, second = (
        publisher.publish("# Heading\n\nText with `code` 😀", "یہ").path.read_bytes() for _ in range(2)
    )

    assert first == second


def test_a_document_without_messages_is_a_title_page(publisher: Publisher) -> None:
    book = publisher.of_lines([Document("Nothing yet", EXPORTED, 0, 0)])

    assert len(book) == 1
    assert "Nothing yet" in book.page(1)
    assert "1 of 1" in book.page(1)
    assert book.bookmarks() == []


def test_a_conversation_without_messages_and_without_a_title_is_shown(publisher: Publisher) -> None:
    book = publisher.of_lines([Document("", EXPORTED, 1, 0), Talk("1", " ", WRITTEN)])

    assert book.bookmarks() == [(0, "Untitled conversation", 2)]


def test_markdown_is_set_and_not_shown(publisher: Publisher) -> None:
    book = publisher.publish(
        "**bold** *italic* ~~struck~~ `code` [name](https://example.com/a)\n\n"
        "1. one\n2. two\n   - deep\n\n- [x] done\n- [ ] open\n\n> quoted\n\n| a | b |\n|---|--:|\n| c | d |\n\n"
        "```python\nprint('hello')\n```\n\nhttps://example.org/bare, and the end."
    )

    said = squeezed(book.said)
    for shown in (
        "bolditalicstruckcodename",
        "1.one2.two",
        "☑done",
        "☐open",
        "quoted",
        "abcd",
        "print('hello')",
    ):
        assert shown in said
    assert "**" not in said
    assert "```" not in said
    assert "python" in said
    assert book.links(2) == ["https://example.com/a", "https://example.org/bare"]


def test_mathematics_stays_as_it_was_written(publisher: Publisher) -> None:
    formulas = [r"$a_1 * b_2 * c$", r"\(x_i \* y_i\)", "$$\nE = mc^2\n\n\\frac{a}{b}\n$$", r"$5 and $6"]

    said = squeezed(publisher.publish("\n\n".join(formulas)).said)

    for formula in formulas:
        assert squeezed(formula) in said


@pytest.mark.parametrize(
    "code",
    [
        "x" * 900,
        "word " * 300,
        '{"key":[' + '{"a":"b","c":[1,2,3]},' * 60 + "]}",
        "\t\t\tif deep:\n\t\t\t\treturn 1\n" * 300,
        "# اردو\n" + "چ" * 400,
        "漢字" * 300,
    ],
    ids=["one-word", "one-line", "minified", "long", "urdu", "han"],
)
def test_no_code_is_lost_off_the_page(publisher: Publisher, code: str) -> None:
    book = publisher.publish(f"```json\n{code}\n```", "The end.")

    said = squeezed(re.sub(r"\n?A conversation \d+ of \d+\n?", "", book.said)).replace("json", "", 1)
    assert squeezed(code) in said
    for number in range(2, len(book) + 1):
        letters = [one for one in book.letters(number) if one.text.strip()]
        assert min(one.left for one in letters) >= LEFT
        assert max(one.right for one in letters) <= RIGHT


def test_a_wide_table_is_set_row_by_row(publisher: Publisher) -> None:
    columns = [f"column{number}" for number in range(20)]
    cells = [f"value{number}" for number in range(20)]
    table = f"|{'|'.join(columns)}|\n|{'-|' * 20}\n|{'|'.join(cells)}|"

    said = squeezed(publisher.publish(table).said)

    for column, value in zip(columns, cells, strict=True):
        assert f"{column}:{value}" in said


def test_the_head_of_a_long_table_stands_on_each_page(publisher: Publisher) -> None:
    rows = "\n".join(f"| name{number} | {number} |" for number in range(250))

    book = publisher.publish(f"| Header | Number |\n|---|---|\n{rows}")

    assert len(book) > 4
    assert all("Header" in book.page(number) for number in range(2, len(book) + 1))
    assert all(f"name{number}" in book.said for number in range(250))


def test_pictures_are_shown(publisher: Publisher, tmp_path: Path) -> None:
    file = tmp_path / "photo.png"
    file.write_bytes(_png("blue"))
    attached = Attached("photo.png", "image/png", 1_234_567, str(file))
    said = Said(
        "1", "user", f"Look: ![a red one]({_data_url(_png('red'))})", WRITTEN, attachments=(attached,)
    )

    book = publisher.of_messages([said])

    assert "Picture: photo.png (1.2 MB)" in book.said
    colours = book._file[1].render(scale=1).to_pil().convert("RGB").getcolors(1_000_000)
    assert colours is not None
    shown = {colour for count, colour in colours if count > 100}
    assert {(255, 0, 0), (0, 0, 255)} <= shown
    assert not book.rendered.notes


@pytest.mark.parametrize(
    "data",
    [b"", b"not a picture", _png("red")[:40], b"<svg xmlns='http://www.w3.org/2000/svg'><script/></svg>"],
    ids=["empty", "text", "truncated", "svg"],
)
def test_a_picture_that_cannot_be_shown_is_told(publisher: Publisher, tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "broken.png"
    file.write_bytes(data)
    attached = Attached("broken.png", "image/png", len(data), str(file))
    missing = Attached("gone.png", "image/png", 5, str(tmp_path / "gone.png"))
    text = f"before ![words]({_data_url(data)}) after"

    book = publisher.of_messages([Said("1", "user", text, WRITTEN, attachments=(attached, missing))])

    assert "broken.png" in book.said
    assert "gone.png" in book.said
    assert "before" in book.said
    assert "after" in book.said
    assert "could not be shown" in book.page(1)
    assert any("could not be shown" in note for note in book.rendered.notes)


def test_a_picture_on_the_net_is_a_link_and_is_not_fetched(publisher: Publisher) -> None:
    asked: list[str] = []

    class Listening(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

    with http.server.HTTPServer(("127.0.0.1", 0), Listening) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/pixel.png"
        book = publisher.publish(f"![a pixel]({url}) and [a link]({url}) and {url}")
        server.shutdown()
        thread.join()

    assert asked == []
    assert "[Picture: a pixel]" in book.said
    assert book.links(2) == [url, url, url]


def test_only_harmless_addresses_are_links(publisher: Publisher) -> None:
    book = publisher.publish(
        "[a](javascript:alert(1)) [b](file:///etc/passwd) [c](vbscript:x) [d](mailto:a@example.com) [e](/relative) "
        "[f](baatcheet-mark:0)"
    )

    assert book.links(2) == ["mailto:a@example.com"]


def test_tools_are_told(publisher: Publisher) -> None:
    called = Said("1", "assistant", "", WRITTEN, calls=(Called("weather", '{"city": "Hunza"}', "call_1"),))
    answered = Said("2", "tool", '{"degrees": 21}', WRITTEN, answers="call_1")

    said = publisher.of_messages([called, answered]).said

    assert "Called the tool weather" in said
    assert '{"city": "Hunza"}' in said
    assert "Tool" in said
    assert '{"degrees": 21}' in said


def test_how_a_reply_ended_is_told(publisher: Publisher) -> None:
    cut = Said("1", "assistant", "Once upon a", WRITTEN, finish_reason="length")

    assert "cut off at the model's limit" in publisher.of_messages([cut]).said


def test_progress_rises_to_the_end(publisher: Publisher) -> None:
    book = publisher.publish(*[f"Message {number}" for number in range(1_000)])

    percents = [percent for percent, _ in book.progress]
    assert percents == sorted(percents)
    assert percents[-1] == 100
    assert any(phrase.startswith("Message ") and phrase.endswith("of 1,000") for _, phrase in book.progress)


def test_parts_that_are_set_apart_become_one_document(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = [
        f"# Heading {number}\n\nText {number} `code` یہ 😀 https://example.com/{number}"
        for number in range(60)
    ]
    whole = publisher.publish(*contents)
    monkeypatch.setattr(composing, "MESSAGES", 7)
    monkeypatch.setattr(making, "FEET", 4)

    parts = publisher.publish(*contents)

    assert [title for _, title, _ in parts.bookmarks()] == [title for _, title, _ in whole.bookmarks()]
    for number in range(60):
        assert f"Text {number} code" in parts.said
    for number in range(1, len(parts) + 1):
        assert f"{number} of {len(parts)}" in parts.page(number)
    for _, title, page in parts.bookmarks()[2::2]:
        assert title.partition(": ")[2] in parts.page(page)
    assert "#60" in parts.page(len(parts))


def test_a_message_longer_than_a_portion_is_set_in_several(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(composing, "PORTION", 5_000)
    paragraphs = [f"Paragraph {number} {'of many words ' * 20}" for number in range(80)]

    book = publisher.publish("\n\n".join(paragraphs), "The end.")

    text = squeezed(re.sub(r"\n?A conversation \d+ of \d+\n?", "", book.said))
    places = [text.find(squeezed(paragraph)) for paragraph in paragraphs]
    assert -1 not in places
    assert places == sorted(places)
    assert book.said.count("You 12 May 2026") == 1
    assert [title.partition(":")[0] for _, title, _ in book.bookmarks()] == [
        "A conversation",
        "You",
        "Assistant",
    ]


def test_a_long_document_lists_days_and_a_longer_one_months(publisher: Publisher) -> None:
    def said(days: int, each: int) -> Iterator[Said]:
        for number in range(days * each):
            yield Said(str(number), "user", f"Q{number}", WRITTEN + timedelta(days=number // each))

    by_day = publisher.of_messages(list(said(5, 100)))
    by_month = publisher.of_messages(list(said(500, 1)))

    assert "16 May 2026" in by_day.page(1)
    assert "Q3" not in by_day.page(1)
    assert len(by_day.links(1)) == 5
    assert "September 2027" in by_month.page(1)
    assert len(by_month.bookmarks()) == 501


def test_what_is_too_long_is_refused_in_plain_words(
    tmp_path: Path, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "a.jsonl", tmp_path / "a.pdf"
    source.write_bytes(line(Document("Long", EXPORTED, 1, making.MOST_MESSAGES + 1)))
    order = Rendering(str(source), str(target), "pdf")
    with pytest.raises(Refused, match="at most 50,000 messages"):
        make_pdf(order, lambda percent, phrase: None, shelf)

    monkeypatch.setattr(making, "MOST_TEXT", 1_000)
    with source.open("wb") as file:
        talk = Talk("1", "x", WRITTEN)
        file.writelines([line(Document("Long", EXPORTED)), line(talk)])
        file.writelines(line(one) for one in messages(["word " * 150] * 2))
    with pytest.raises(Refused, match="Markdown, text or JSON"):
        make_pdf(order, lambda percent, phrase: None, shelf)
    assert sorted(tmp_path.iterdir()) == [source]


def test_us_paper(publisher: Publisher) -> None:
    book = publisher.publish("x", paper="letter")

    assert book._file[0].get_size() == (612, 792)
