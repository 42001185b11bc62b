"""What is found in files: text, pages, and what is wrong with them. All of it in a sandbox, as it is for users."""

# ruff: noqa: RUF001 - several scripts, each meant

import io
from contextlib import suppress
from pathlib import Path

import pytest
from benchmarks.ocr.corpus import (
    bare_pdf,
    encoded,
    entity_bomb_docx,
    many_pages,
    picture,
    picture_bomb_pdf,
    png_header,
    printed_pdf,
    protected_pdf,
    repacked,
    scanned_pdf,
    stream_bomb_pdf,
    word_document,
    write,
    zip_bomb_docx,
)
from benchmarks.ocr.pages import TEXTS
from benchmarks.ocr.scoring import right
from PIL import Image

from baatcheet.attachments.contents import found
from baatcheet.attachments.contents.examining import (
    PAGES,
    VIEW,
    Examination,
    Examined,
    Sent,
    examine,
    picture_to_send,
)
from baatcheet.attachments.contents.found import FoundPage
from baatcheet.attachments.ocr.engine import Page
from baatcheet.jobs.isolation import Refused, Sandbox, SandboxFailed

MEMORY = 600_000_000


async def looked_at(
    sandbox: Sandbox, folder: Path, data: bytes, kind: str, *, seconds: float = 60, **limits: int
) -> tuple[Examination, list[FoundPage]]:
    path = write(folder, f"file.{kind}", data)
    bounds = {"max_pixels": 20_000_000, "max_pages": 50, "max_characters": 1_000_000, **limits}
    asked = Examined(str(path), kind, str(folder), **bounds)
    done = await sandbox.run(examine, asked, seconds=seconds, memory=MEMORY)
    return done, list(found.read(folder / PAGES))


async def test_a_pdf_gives_its_text_page_by_page(sandbox: Sandbox, tmp_path: Path) -> None:
    markup = "First page, with words.\n#pagebreak()\nSecond page.\n#pagebreak()\n"
    done, pages = await looked_at(sandbox, tmp_path, printed_pdf(markup), "pdf")
    assert (done.pages, done.to_read) == (3, 0)
    assert [page.text for page in pages] == ["First page, with words.", "Second page.", ""]
    [line] = pages[0].lines
    assert line.text == "First page, with words."
    assert pages[0].width is not None
    # A4 at 144 to the inch, and Typst's margins of 2.5 cm.
    assert (pages[0].width, pages[0].height) == (1191, 1684)
    assert 130 < line.box.left < line.box.right < 600
    assert 120 < line.box.top < line.box.bottom < 200


async def test_lines_of_either_direction_come_out_of_a_pdf_in_the_order_of_reading(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    markup = (
        '#set text(font: ("Noto Naskh Arabic", "DejaVu Serif"))\n'
        '#[#set text(lang: "ur")\nہمارے گاؤں کا کتب خانہ Kestrel Point 2024 میں بنا۔]\n\n'
        "English words with کتب خانہ inside, and more.\n\nPlain English, line two (2024).\n"
    )
    _, [page] = await looked_at(sandbox, tmp_path, printed_pdf(markup), "pdf")
    assert page.text.splitlines() == [
        "ہمارے گاؤں کا کتب خانہ Kestrel Point 2024 میں بنا۔",
        "English words with کتب خانہ inside, and more.",
        "Plain English, line two (2024).",
    ]


async def test_hindi_comes_out_of_a_pdf(sandbox: Sandbox, tmp_path: Path) -> None:
    markup = f'#set text(font: "Noto Sans Devanagari", lang: "hi")\n{TEXTS["hin"][0]}'
    _, [page] = await looked_at(sandbox, tmp_path, printed_pdf(markup), "pdf")
    assert right(TEXTS["hin"][0], page.text) > 0.96  # PDFium loses a blank after some signs
    assert page.language == "hi"


async def test_a_scanned_page_is_to_be_read_and_a_blank_one_is_not(sandbox: Sandbox, tmp_path: Path) -> None:
    done, pages = await looked_at(sandbox, tmp_path, scanned_pdf("One.", "Two."), "pdf")
    assert (done.to_read, [page.to_read for page in pages]) == (2, [True, True])
    done, [page] = await looked_at(sandbox, tmp_path, bare_pdf(b""), "pdf")
    assert (done.to_read, page.text) == (0, "")


async def test_a_word_document_is_read_in_order_with_its_table(sandbox: Sandbox, tmp_path: Path) -> None:
    _, [page] = await looked_at(sandbox, tmp_path, word_document(), "docx")
    lines = [line for line in page.text.splitlines() if line]
    assert lines == [
        "Report on the valley",
        "Before the table.",
        "Station | Metres",
        "Kestrel | 812",
        "After the table.",
        "Inside a control.",
        "Inserted.",
        "First point",
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp1256"])
async def test_a_text_is_read_in_its_encoding(sandbox: Sandbox, tmp_path: Path, encoding: str) -> None:
    text = TEXTS["ara"][0]
    _, [page] = await looked_at(sandbox, tmp_path, text.encode(encoding), "txt")
    assert page.text == text
    assert page.language == "ar"


async def test_a_long_text_is_cut_and_that_is_said(sandbox: Sandbox, tmp_path: Path) -> None:
    done, [page] = await looked_at(sandbox, tmp_path, b"word " * 3_000_000, "txt")
    assert (len(page.text), done.cut) == (1_000_000, True)


async def test_what_no_database_can_store_is_replaced(sandbox: Sandbox, tmp_path: Path) -> None:
    _, [page] = await looked_at(sandbox, tmp_path, b"a\x1bb" + b"c\x00d", "txt")
    assert "\x00" not in page.text


async def test_every_picture_format_is_opened_and_its_view_is_upright_and_bare(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    image = Image.new("RGBA", (3000, 200), (255, 255, 255, 0))
    image.paste((10, 20, 30, 255), (0, 0, 300, 200))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    exif[0x010E] = "private words"
    data = encoded(image.convert("RGB"), "JPEG", exif=exif)
    done, [page] = await looked_at(sandbox, tmp_path, data, "jpeg")
    assert (done.view, page.width, page.height) == (True, 200, 3000)
    view = (tmp_path / VIEW).read_bytes()
    with Image.open(io.BytesIO(view)) as shown:
        assert shown.size == (137, 2048)
        assert not shown.getexif()
    assert b"private" not in view
    for form, kind in (("PNG", "png"), ("WEBP", "webp"), ("GIF", "gif"), ("BMP", "bmp"), ("TIFF", "tiff")):
        made = image if form in {"PNG", "WEBP", "TIFF"} else image.convert("RGB")
        done, [page] = await looked_at(sandbox, tmp_path, encoded(made, form), kind)
        assert (page.width, page.height, page.to_read) == (3000, 200, True)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK"])
async def test_every_way_of_colours_becomes_dark_on_white(
    sandbox: Sandbox, tmp_path: Path, mode: str
) -> None:
    form, kind = ("TIFF", "tiff") if mode in {"CMYK", "I;16"} else ("PNG", "png")
    plain = Image.new("L", (60, 40), 255)
    plain.paste(0, (0, 0, 30, 40))
    image = (
        plain.convert("I").point(lambda v: v * 200).convert("I;16") if mode == "I;16" else plain.convert(mode)
    )
    await looked_at(sandbox, tmp_path, encoded(image, form), kind)
    with Image.open(tmp_path / VIEW) as view:
        shown = view.convert("L")
        assert shown.getpixel((5, 20)) < 30  # type: ignore[operator]
        assert shown.getpixel((55, 20)) > 225  # type: ignore[operator]


async def test_the_pages_of_a_tiff_are_pages(sandbox: Sandbox, tmp_path: Path) -> None:
    frames = [Image.new("L", (50 + number, 30), 255) for number in range(3)]
    kept = io.BytesIO()
    frames[0].save(kept, "TIFF", save_all=True, append_images=frames[1:])
    _, pages = await looked_at(sandbox, tmp_path, kept.getvalue(), "tiff")
    assert [(page.width, page.to_read) for page in pages] == [(50, True), (51, True), (52, True)]
    with pytest.raises(Refused, match="more than 2 pages"):
        await looked_at(sandbox, tmp_path, kept.getvalue(), "tiff", max_pages=2)


@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        (png_header(30_000, 30_000), "png", "30,000 by 30,000 pixels"),
        (picture()[:-2000], "png", "damaged or cut short"),
        (picture(form="JPEG")[:3000], "jpeg", "damaged or cut short"),
        (b"\x89PNG\r\n\x1a\n", "png", "damaged"),
        (picture(form="JPEG"), "png", "damaged"),
        (protected_pdf(), "pdf", "protected with a password"),
        (b"%PDF-1.7\n" + bytes(2000), "pdf", "damaged"),
        (many_pages(60), "pdf", "60 pages; at most 50"),
        (bare_pdf(b"", media_box="0 0 300000 300000"), "pdf", "larger than"),
        (zip_bomb_docx(), "docx", "unpacks to far more"),
        (entity_bomb_docx(), "docx", "declares entities"),
        (word_document()[:-300], "docx", "damaged"),
        (repacked(word_document(), {"word/document.xml": b"<w:broken"}), "docx", "damaged"),
        (repacked(word_document(), {"[Content_Types].xml": None}), "docx", "damaged"),
        (bytes(range(256)) * 20, "txt", "not a text"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)  # fmt: skip
async def test_what_can_not_be_read_is_refused_in_plain_words(
    sandbox: Sandbox, tmp_path: Path, data: bytes, kind: str, words: str
) -> None:
    with pytest.raises(Refused, match=words):
        await looked_at(sandbox, tmp_path, data, kind)


async def test_a_bomb_in_a_pdf_takes_a_process_and_no_more(sandbox: Sandbox, tmp_path: Path) -> None:
    path = write(tmp_path, "bomb.pdf", picture_bomb_pdf())
    sent = Sent(Page(str(path), "pdf"), str(tmp_path / "page.jpg"), 1_000_000, 2_000)
    # Whether a bomb goes off is the library's affair; what it takes with it is ours.
    with suppress(SandboxFailed, Refused):
        await sandbox.run(picture_to_send, sent, seconds=30, memory=MEMORY)
    with suppress(SandboxFailed, Refused):
        await looked_at(sandbox, tmp_path, stream_bomb_pdf(), "pdf", seconds=10)
    _, [page] = await looked_at(sandbox, tmp_path, b"Still here.", "txt")
    assert page.text == "Still here."


async def test_a_page_is_sent_as_small_as_it_must_be(sandbox: Sandbox, tmp_path: Path) -> None:
    noisy = Image.effect_noise((3000, 2000), 90)
    path = write(tmp_path, "noise.png", encoded(noisy))
    sent = Sent(Page(str(path), "png"), str(tmp_path / "page.jpg"), 200_000, 2_000)
    size = await sandbox.run(picture_to_send, sent)
    assert (tmp_path / "page.jpg").stat().st_size <= 200_000
    assert (size.page_width, size.page_height) == (3000, 2000)
    assert max(size.width, size.height) <= 2000
