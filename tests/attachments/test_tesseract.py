"""How much of a printed page Tesseract reads right, however hard the page is. Figures: `python -m benchmarks.ocr`."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from benchmarks.ocr.pages import CONDITIONS, FONTS, TEXTS, Condition, FontMissing, Sheet, draw, font_file
from benchmarks.ocr.scoring import right
from PIL import Image, ImageDraw, ImageFont

from baatcheet.attachments.ocr.availability import Tessdata
from baatcheet.attachments.ocr.engine import Page, PageText
from baatcheet.attachments.ocr.local import TesseractEngine
from baatcheet.jobs.isolation import Sandbox

Record = Callable[[str, object], None]
BY_NAME = {condition.name: condition for condition in CONDITIONS}
CODES = {"eng": "en", "urd": "ur", "urd_nastaliq": "ur", "ara": "ar", "hin": "hi"}


@pytest.fixture
def engine(sandbox: Sandbox, tessdata: Tessdata) -> TesseractEngine:
    return TesseractEngine(sandbox, lambda: tessdata)


async def read(engine: TesseractEngine, folder: Path, image: Image.Image, *languages: str) -> PageText:
    path = folder / "page.png"
    image.save(path, compress_level=1)
    return await engine.read(Page(str(path), "png"), languages, folder)


def page_of(language: str, condition: Condition, font: str) -> Image.Image:
    sheet = Sheet(font=font, right_to_left=language[:3] in {"urd", "ara"})
    try:
        return condition.page(TEXTS[language[:3]][0], sheet)
    except FontMissing as missing:
        pytest.skip(f"the font {missing} is not installed")


@pytest.mark.parametrize("number", range(len(CONDITIONS)), ids=list(BY_NAME))
async def test_printed_english_is_read_right_however_it_lies(
    engine: TesseractEngine, tmp_path: Path, number: int, record_property: Record
) -> None:
    condition = CONDITIONS[number]
    fonts = FONTS["eng"]
    found = await read(engine, tmp_path, page_of("eng", condition, fonts[number % len(fonts)]))
    score = right(TEXTS["eng"][0], found.text)
    record_property("right", score)
    assert score >= 0.98
    assert found.language == "en"
    assert found.confidence is not None
    assert found.confidence > 0.85


@pytest.mark.parametrize(
    ("language", "condition", "least"),
    [
        ("hin", "clean", 0.98),
        ("hin", "turned_180", 0.98),
        ("ara", "clean", 0.97),
        ("urd", "clean", 0.98),
        ("urd", "skewed_2", 0.97),
        ("urd_nastaliq", "clean", 0.7),
    ],
)
async def test_other_languages_are_found_out_and_read_as_well_as_the_data_allows(
    engine: TesseractEngine,
    tmp_path: Path,
    language: str,
    condition: str,
    least: float,
    record_property: Record,
) -> None:
    found = await read(engine, tmp_path, page_of(language, BY_NAME[condition], FONTS[language][0]))
    score = right(TEXTS[language[:3]][0], found.text)
    record_property("right", score)
    assert score >= least
    assert found.language == CODES[language]


async def test_a_page_in_two_languages_is_read_in_both(engine: TesseractEngine, tmp_path: Path) -> None:
    english = draw(TEXTS["eng"][2], Sheet(font=FONTS["eng"][1]))
    urdu = page_of("urd", BY_NAME["clean"], FONTS["urd"][0])
    page = Image.new("L", (english.width, english.height + urdu.height), 255)
    page.paste(english, (0, 0))
    page.paste(urdu, (0, english.height))
    found = await read(engine, tmp_path, page)
    assert right(f"{TEXTS['eng'][2]} {TEXTS['urd'][0]}", found.text) > 0.98


@pytest.mark.parametrize("size", [14, 24, 60])
@pytest.mark.parametrize("text", ["Hello", "Total: 42.50", "Invoice No. 2231"])
async def test_a_word_alone_is_read(engine: TesseractEngine, tmp_path: Path, text: str, size: int) -> None:
    sheet = Sheet(font="LiberationSans-Regular.ttf", size=size, width=size * len(text), margin=4)
    assert (await read(engine, tmp_path, draw(text, sheet))).text == text


async def test_letters_are_seen_where_only_their_colour_tells(
    engine: TesseractEngine, tmp_path: Path
) -> None:
    page = Image.new("RGB", (1200, 200), (200, 60, 60))
    font = ImageFont.truetype(str(font_file("DejaVuSans.ttf")), 36)
    ImageDraw.Draw(page).text((30, 60), "Green letters on red paper, 12345", font=font, fill=(60, 120, 60))
    assert (await read(engine, tmp_path, page)).text == "Green letters on red paper, 12345"


@pytest.mark.parametrize(
    "image",
    [
        Image.new("L", (900, 700), 255),
        Image.new("L", (1, 1), 0),
        Image.linear_gradient("L").resize((800, 600)),
        Image.effect_noise((900, 700), 80),
    ],
    ids=["blank", "dot", "gradient", "noise"],
)
async def test_where_there_is_no_text_none_is_made_up(
    engine: TesseractEngine, tmp_path: Path, image: Image.Image
) -> None:
    found = await read(engine, tmp_path, image)
    assert (found.text, found.confidence, found.language, found.lines) == ("", None, None, ())


@pytest.mark.parametrize("name", ["clean", "turned_90", "turned_180", "skewed_8", "small_14"])
async def test_words_are_where_they_say_they_are(engine: TesseractEngine, tmp_path: Path, name: str) -> None:
    page = page_of("eng", BY_NAME[name], FONTS["eng"][0])
    found = await read(engine, tmp_path, page)
    words = [word for line in found.lines for word in line.words if len(word.text) > 6][:8]
    assert words
    for word in words:
        # What is cut out of the page at that place says that word, and the ink is in there.
        box = word.box
        assert 0 <= box.left < box.right <= page.width
        assert 0 <= box.top < box.bottom <= page.height
        assert any(page.crop((box.left, box.top, box.right, box.bottom)).histogram()[:100])
    word = words[0]
    room = 12
    around = (word.box.left - room, word.box.top - room, word.box.right + room, word.box.bottom + room)
    if name != "skewed_8":  # its neighbours lean into the cut
        alone = await read(engine, tmp_path, page.crop(around))
        assert word.text.strip(".,;") in alone.text


async def test_the_loop_goes_on_while_a_page_is_read(engine: TesseractEngine, tmp_path: Path) -> None:
    page = page_of("eng", BY_NAME["noise_gauss"], FONTS["eng"][0])
    await read(engine, tmp_path, page)
    stalls = []
    reading = asyncio.create_task(read(engine, tmp_path, page))
    while not reading.done():
        before = time.perf_counter()
        await asyncio.sleep(0.002)
        stalls.append(time.perf_counter() - before - 0.002)
    stalls.sort()
    assert stalls[len(stalls) // 2] < 0.05
    assert (await reading).text
