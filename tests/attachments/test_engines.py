"""The engines and their failing over, each alone: what is asked of services elsewhere, and what their answers mean."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import pytest_asyncio
from benchmarks.ocr.corpus import picture, write

from baatcheet.attachments.ocr.availability import Tessdata, engine_states, find_tessdata
from baatcheet.attachments.ocr.engine import Box, EngineFailed, Page, PageText
from baatcheet.attachments.ocr.local import RapidOcrEngine, TesseractEngine
from baatcheet.attachments.ocr.ocr_space import PROVIDER, OcrSpaceEngine, probe
from baatcheet.attachments.ocr.reading import NobodyRead, Reading
from baatcheet.attachments.ocr.vision import INSTRUCTIONS, VisionEngine
from baatcheet.jobs.isolation import Sandbox
from baatcheet.keys.pool import KeyPool
from baatcheet.keys.pools import pools_with
from baatcheet.keys.secret import SecretKey
from baatcheet.platform.http import client_session
from baatcheet.platform.settings import load
from baatcheet.providers.catalogue import build_catalogue
from tests.attachments.fakes import FakeModels, FakeOcrSpace


@pytest.fixture
def page(tmp_path: Path) -> Page:
    return Page(str(write(tmp_path, "page.png", picture("Hello world"))), "png")


def pool_of(*keys: str) -> KeyPool:
    return pools_with({PROVIDER: [SecretKey(key) for key in keys]}).of(PROVIDER)


@pytest_asyncio.fixture
async def space(ocr_space: FakeOcrSpace, sandbox: Sandbox) -> AsyncIterator[OcrSpaceEngine]:
    async with client_session() as session:
        yield OcrSpaceEngine(
            session, sandbox, url=ocr_space.address, pool=pool_of(ocr_space.KEY), max_bytes=100_000
        )


async def test_ocr_space_is_asked_as_its_protocol_says(
    ocr_space: FakeOcrSpace, space: OcrSpaceEngine, page: Page, tmp_path: Path
) -> None:
    read = await space.read(page, ("ar",), tmp_path)
    [asked] = ocr_space.asked
    assert asked["content"].startswith(b"\xff\xd8\xff")
    assert len(asked["content"]) <= 100_000
    assert asked["type"] == "image/jpeg"
    assert (asked["language"], asked["OCREngine"], asked["isOverlayRequired"]) == ("ara", "1", "true")
    assert read.text == "Hello world"
    assert (read.engine, read.confidence, read.width) == ("ocr_space", None, 1500)
    assert [word.text for word in read.lines[0].words] == ["Hello", "world"]
    assert read.lines[0].box == Box(10, 20, 190, 50)
    await space.read(page, (), tmp_path)
    assert (ocr_space.asked[-1]["language"], ocr_space.asked[-1]["OCREngine"]) == ("auto", "3")


@pytest.mark.parametrize(
    ("status", "body", "words", "for_all", "passing"),
    [
        (403, '"The API key is invalid"', "refuses the key: The API key is invalid", True, False),
        (429, "", "asked too often", True, True),
        (503, "<html>", "status 503", False, True),
        (200, "<html>", "can't be read", False, False),
        (200, json.dumps({"OCRExitCode": 99, "IsErroredOnProcessing": True,
                          "ErrorMessage": ["Unable to recognize the file type", "E216"]}),
         "Unable to recognize the file type E216", False, False),
        (200, json.dumps({"ParsedResults": [{"ParsedText": "", "ErrorMessage": "Timed out"}], "OCRExitCode": 3,
                          "IsErroredOnProcessing": False}), "Timed out", False, False),
        (200, json.dumps({"OCRExitCode": 1}), "did not say why", False, False),
    ],
)  # fmt: skip
async def test_what_ocr_space_refuses_is_told_in_its_words(
    ocr_space: FakeOcrSpace,
    space: OcrSpaceEngine,
    page: Page,
    tmp_path: Path,
    status: int,
    body: str,
    words: str,
    for_all: bool,
    passing: bool,
) -> None:
    ocr_space.answer = (status, body)
    with pytest.raises(EngineFailed, match=words) as failed:
        await space.read(page, (), tmp_path)
    assert (failed.value.for_all, failed.value.passing) == (for_all, passing)


async def test_a_wrong_key_is_refused_and_none_is_never_sent(
    ocr_space: FakeOcrSpace, sandbox: Sandbox, page: Page, tmp_path: Path
) -> None:
    async with client_session() as session:
        wrong = OcrSpaceEngine(
            session, sandbox, url=ocr_space.address, pool=pool_of("K-wrong"), max_bytes=100_000
        )
        with pytest.raises(EngineFailed, match="The API key is invalid"):
            await wrong.read(page, (), tmp_path)
        none = OcrSpaceEngine(session, sandbox, url=ocr_space.address, pool=pool_of(), max_bytes=100_000)
        assert none.unavailable() == "There is no key for OCR.space (OCR_SPACE_API_KEY)."
        nobody = OcrSpaceEngine(
            session, sandbox, url="http://127.0.0.1:9/parse", pool=pool_of("K"), max_bytes=100_000
        )
        with pytest.raises(EngineFailed, match="can't be reached"):
            await nobody.read(page, (), tmp_path)
    assert ocr_space.asked == []


async def test_a_key_of_ocr_space_is_passed_over_when_it_is_refused_or_used_up(
    ocr_space: FakeOcrSpace, sandbox: Sandbox, page: Page, tmp_path: Path
) -> None:
    pool = pool_of("K-wrong", ocr_space.KEY)
    async with client_session() as session:
        engine = OcrSpaceEngine(session, sandbox, url=ocr_space.address, pool=pool, max_bytes=100_000)
        for _ in range(3):
            assert (await engine.read(page, (), tmp_path)).text
        assert [state.condition for state in pool.states()] == ["quarantined", "usable"]
        spent = "You may only perform this action upto maximum 500 number of times within 86400 seconds"
        ocr_space.answer = (403, json.dumps(spent))
        with pytest.raises(EngineFailed, match="asked too often") as failed:
            await engine.read(page, (), tmp_path)
        assert failed.value.passing
        assert [state.condition for state in pool.states()] == ["quarantined", "resting"]
        with pytest.raises(EngineFailed, match="no key that can be used now"):
            await engine.read(page, (), tmp_path)


async def test_a_key_of_ocr_space_is_probed_with_a_dot(ocr_space: FakeOcrSpace) -> None:
    async with client_session() as session:
        good = await probe(session, ocr_space.address, SecretKey(ocr_space.KEY))
        wrong = await probe(session, ocr_space.address, SecretKey("K-wrong"))
        nobody = await probe(session, "http://127.0.0.1:9/parse", SecretKey("K-wrong"))
    assert [one.verdict for one in (good, wrong, nobody)] == ["good", "refused", "unknown"]
    assert "invalid" in wrong.words


@pytest_asyncio.fixture
async def vision(models: FakeModels, sandbox: Sandbox) -> AsyncIterator[VisionEngine]:
    settings = load(
        {"OPENAI_BASE_URL": models.base_url, "OPENAI_API_KEY": "sk-x", "OLLAMA_HOST": ""}, dotenv=None
    )
    async with client_session() as session:
        catalogue = build_catalogue(settings.providers, session)
        yield VisionEngine(catalogue, sandbox, "openai/sees")
        await catalogue.close()


async def test_a_vision_model_is_shown_the_page_and_asked_for_its_text(
    models: FakeModels, vision: VisionEngine, page: Page, tmp_path: Path
) -> None:
    models.reply = "```\nHello world\n```"
    read = await vision.read(page, ("ur", "en"), tmp_path)
    assert (read.text, read.engine, read.confidence) == ("Hello world", "vision", None)
    [body] = models.bodies
    words, shown = body["messages"][0]["content"]
    assert words["text"] == INSTRUCTIONS + "\nThe text is in Urdu or English."
    assert shown["image_url"]["url"].startswith("data:image/jpeg;base64,/9j/")
    models.reply = "[no text]"
    assert (await vision.read(page, (), tmp_path)).text == ""
    models.status = 500
    with pytest.raises(EngineFailed, match="can't be asked now") as failed:
        await vision.read(page, (), tmp_path)
    assert failed.value.passing


async def test_rapidocr_reads_where_it_is_installed(sandbox: Sandbox, page: Page, tmp_path: Path) -> None:
    engine = RapidOcrEngine(sandbox)
    with pytest.raises(EngineFailed, match="Latin and Chinese letters only"):
        await engine.read(page, ("ur",), tmp_path)
    if (reason := engine.unavailable()) is not None:
        assert "pip install 'baatcheet[rapidocr]'" in reason
        pytest.skip(reason)
    read = await engine.read(page, (), tmp_path)
    assert read.text == "Hello world"
    assert read.confidence is not None
    assert read.confidence > 0.8


async def test_tesseract_says_which_data_is_missing(sandbox: Sandbox, page: Page, tmp_path: Path) -> None:
    nowhere = TesseractEngine(sandbox, lambda: None)
    assert "scripts/ocr-data" in str(nowhere.unavailable())
    with pytest.raises(EngineFailed, match="no language data"):
        await nowhere.read(page, (), tmp_path)
    english = TesseractEngine(sandbox, lambda: Tessdata(tmp_path, ("en",)))
    with pytest.raises(EngineFailed, match="no language data for Hindi or Urdu") as failed:
        await english.read(page, ("hi", "ur"), tmp_path)
    assert failed.value.for_all


def test_the_data_is_found_where_it_is_and_a_setting_wins(tmp_path: Path) -> None:
    assert find_tessdata(tmp_path, tmp_path) is None
    (tmp_path / "tessdata").mkdir()
    (tmp_path / "tessdata" / "eng.traineddata").touch()
    found = find_tessdata(tmp_path, Path("/nowhere"))
    assert found == Tessdata(tmp_path / "tessdata", ("en",))
    states = engine_states(load({"TESSDATA_PREFIX": str(tmp_path)}, dotenv=None).attachments, tmp_path)
    assert [(one.name, one.available) for one in states if one.name != "rapidocr"] == [
        ("tesseract", True),
        ("ocr_space", False),
        ("vision", False),
    ]
    assert all((one.reason is None) == one.available for one in states)


class Scripted:
    """An engine that does what the test says: texts with a confidence, or failures, one a page."""

    def __init__(self, name: str, *said: PageText | Exception, missing: str | None = None) -> None:
        self.name = name
        self._said = list(said)
        self._missing = missing
        self.asked = 0

    def unavailable(self) -> str | None:
        return self._missing

    async def read(self, page: Page, languages: Sequence[str], scratch: Path) -> PageText:
        self.asked += 1
        said = self._said.pop(0)
        if isinstance(said, Exception):
            raise said
        return said


def said(text: str, engine: str, confidence: float | None = None) -> PageText:
    return PageText(text, engine, 10, 10, confidence)


PAGE = Page("x", "png")


async def test_the_next_engine_is_asked_where_one_fails_or_doubts(tmp_path: Path) -> None:
    first = Scripted(
        "a", EngineFailed("Broken."), said("hm", "a", 0.4), said("", "a"), said("sure", "a", 0.9)
    )
    second = Scripted("b", said("two", "b", 0.9), said("better", "b", 0.8), said("some", "b"))
    reading = Reading([first, second])
    texts = [(await reading.read(PAGE, tmp_path)).text for _ in range(4)]
    assert texts == ["two", "better", "some", "sure"]
    assert (first.asked, second.asked) == (4, 3)
    assert [(one.engine, one.reason) for one in reading.failures] == [("a", "Broken.")]


async def test_the_best_is_kept_of_engines_that_all_doubt(tmp_path: Path) -> None:
    reading = Reading([Scripted("a", said("less", "a", 0.3)), Scripted("b", said("more", "b", 0.5))])
    assert (await reading.read(PAGE, tmp_path)).text == "more"
    reading = Reading([Scripted("a", said("kept", "a", 0.3)), Scripted("b", said("", "b"))])
    assert (await reading.read(PAGE, tmp_path)).text == "kept"


async def test_who_fails_for_all_pages_is_not_asked_again(tmp_path: Path) -> None:
    first = Scripted("a", EngineFailed("No key.", for_all=True))
    second = Scripted("b", said("1", "b"), EngineFailed("Down.", passing=True))
    third = Scripted("c", missing="Not installed.")
    reading = Reading([first, second, third])
    assert (await reading.read(PAGE, tmp_path)).text == "1"
    with pytest.raises(NobodyRead) as nobody:
        await reading.read(Page("x", "png", 1), tmp_path)
    assert nobody.value.passing
    assert str(nobody.value) == "c: Not installed. a: No key. b: Down."
    assert (first.asked, third.asked) == (1, 0)


async def test_ocr_space_that_hangs_is_given_up_when_the_job_is(
    ocr_space: FakeOcrSpace, space: OcrSpaceEngine, page: Page, tmp_path: Path
) -> None:
    ocr_space.hang = True
    task = asyncio.create_task(space.read(page, (), tmp_path))
    await asyncio.sleep(0.5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
