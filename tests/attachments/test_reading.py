"""Reading attachments in the background: progress, failures, kills, and reading once more."""

import asyncio
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest
from benchmarks.ocr.corpus import (
    encoded,
    many_pages,
    picture,
    png_header,
    printed_pdf,
    protected_pdf,
    scanned_pdf,
    zip_bomb_docx,
)
from benchmarks.ocr.pages import TEXTS, Sheet, draw
from benchmarks.ocr.scoring import right

from baatcheet.attachments.jobs import AttachmentParts, tidy
from baatcheet.attachments.ocr.availability import Tessdata
from baatcheet.attachments.ocr.engine import EngineFailed, Page, PageText
from baatcheet.attachments.reading import AttachmentReader
from baatcheet.attachments.service import PATH
from tests.attachments.conftest import Caller, Stage
from tests.attachments.fakes import FakeOcrSpace


async def test_a_scanned_document_is_read_page_by_page_with_progress(
    stage: Stage, alice: Caller, tessdata: Tessdata
) -> None:
    texts = [TEXTS["eng"][number % 3] for number in range(4)]
    made = await alice.uploaded(scanned_pdf(*texts), "scan.pdf")
    await stage.work()
    phrases = set()
    async with asyncio.timeout(90):
        while (job := (await alice.get(f"/api/v1/jobs/{made['job']['id']}")).json())["status"] != "succeeded":
            assert job["status"] in {"queued", "running"}, job
            phrases.add(job["phrase"])
            await asyncio.sleep(0.05)
    assert any(phrase and phrase.endswith(" of 4") for phrase in phrases), phrases
    read = await alice.attachment(made["attachment"]["id"])
    assert (read["pages"], read["engine"], read["language"]) == (4, "tesseract", "en")
    for number, text in enumerate(texts, 1):
        page = (await alice.get(f"{PATH}/{read['id']}/pages/{number}")).json()
        assert right(text, page["text"]) > 0.98


async def test_a_document_of_both_kinds_keeps_what_is_text_and_reads_what_is_not(
    stage: Stage, alice: Caller, tessdata: Tessdata
) -> None:
    await stage.work()
    read = await alice.read(
        printed_pdf("Words of its own.\n#pagebreak()\n#box[]\n#rect(width: 2cm)"), "x.pdf"
    )
    assert (read["pages"], read["engine"]) == (2, "text")
    assert read["extracted_text"].startswith("Words of its own.")


@pytest.mark.parametrize(
    ("data", "name", "words"),
    [
        (protected_pdf(), "secret.pdf", "protected with a password"),
        (picture()[:2500], "cut.png", "damaged or cut short"),
        (png_header(60_000, 60_000), "bomb.png", "60,000 by 60,000 pixels"),
        (many_pages(3000), "bomb.pdf", "3,000 pages"),
        (zip_bomb_docx(), "bomb.docx", "unpacks to far more"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
async def test_what_can_not_be_read_fails_once_with_a_plain_reason(
    stage: Stage, alice: Caller, data: bytes, name: str, words: str
) -> None:
    await stage.work()
    read = await alice.read(data, name)
    assert read["status"] == "failed"
    assert words in read["error"]
    job = (await alice.get(f"/api/v1/jobs/{read['job_id']}")).json()
    assert (job["status"], job["attempts"], job["error"]) == ("dead", 1, read["error"])
    text = await alice.get(f"{PATH}/{read['id']}/text")
    assert (text.status_code, text.json()["type"]) == (409, "attachment-not-ready")
    assert words in text.json()["detail"]


async def test_a_child_that_is_killed_in_the_middle_costs_a_try_and_no_more(
    stage: Stage, alice: Caller, tessdata: Tessdata
) -> None:
    made = await alice.uploaded(scanned_pdf(*TEXTS["eng"]), "scan.pdf")
    await stage.work()
    async with asyncio.timeout(60):
        while not stage.sandbox.pids:
            await asyncio.sleep(0.01)
        while "of 3" not in str((await alice.get(f"/api/v1/jobs/{made['job']['id']}")).json()["phrase"]):
            await asyncio.sleep(0.02)
    for pid in stage.sandbox.pids:
        os.kill(pid, signal.SIGKILL)
    job = await alice.ended(made["job"]["id"])
    assert job["status"] == "succeeded", job
    read = await alice.attachment(made["attachment"]["id"])
    assert right(" ".join(TEXTS["eng"]), read["extracted_text"]) > 0.98
    assert len(await stage.events(read["id"])) == 1


async def test_a_reading_that_is_cancelled_ends_and_says_so(
    stage: Stage, alice: Caller, tessdata: Tessdata
) -> None:
    scan = scanned_pdf(*TEXTS["eng"] * 10)
    made = await alice.uploaded(scan, "long.pdf")
    await stage.work()
    async with asyncio.timeout(60):
        while "of 30" not in str((await alice.get(f"/api/v1/jobs/{made['job']['id']}")).json()["phrase"]):
            await asyncio.sleep(0.02)
    assert (await alice.post(f"/api/v1/jobs/{made['job']['id']}/cancel")).status_code in {200, 202}
    job = await alice.ended(made["job"]["id"], 30)
    assert job["status"] == "cancelled"
    read = await alice.attachment(made["attachment"]["id"])
    assert (read["status"], read["extracted_text"]) == ("cancelled", None)
    assert await stage.events(read["id"]) == []
    # Uploading it again has it read after all.
    again = await alice.uploaded(scan, "long.pdf")
    assert again["attachment"]["id"] == read["id"]
    assert again["attachment"]["status"] == "processing"
    await alice.post(f"/api/v1/jobs/{again['job']['id']}/cancel")


async def test_one_that_is_deleted_while_it_is_read_stops(
    stage: Stage, alice: Caller, tessdata: Tessdata
) -> None:
    made = await alice.uploaded(scanned_pdf(*TEXTS["eng"] * 10), "long.pdf")
    await stage.work()
    async with asyncio.timeout(60):
        while "of 30" not in str((await alice.get(f"/api/v1/jobs/{made['job']['id']}")).json()["phrase"]):
            await asyncio.sleep(0.02)
    assert (await alice.delete(f"{PATH}/{made['attachment']['id']}")).status_code == 204
    job = await alice.ended(made["job"]["id"], 30)
    assert job["status"] in {"cancelled", "dead"}


async def test_it_is_read_once_more_in_another_language(
    stage: Stage, alice: Caller, tessdata: Tessdata
) -> None:
    page = draw(TEXTS["urd"][0], Sheet(font="NotoNaskhArabic-Regular.ttf", right_to_left=True))
    await stage.work()
    read = await alice.read(encoded(page))
    assert (read["language"], read["status"]) == ("ur", "completed")
    where = f"{PATH}/{read['id']}"
    again = await alice.post(f"{where}/ocr", json={"languages": ["ar"]}, headers={"idempotency-key": "a"})
    assert again.status_code == 202
    busy = await alice.post(f"{where}/ocr", json={})
    assert (busy.status_code, busy.json()["type"]) == (409, "attachment-busy")
    # What was read before holds until the new reading has ended.
    assert (await alice.attachment(read["id"]))["extracted_text"] == read["extracted_text"]
    await alice.ended(again.json()["job"]["id"])
    arabic = await alice.attachment(read["id"])
    assert arabic["language"] == "ar"
    assert arabic["extracted_text"] != read["extracted_text"]
    assert right(TEXTS["urd"][0], read["extracted_text"]) > right(TEXTS["urd"][0], arabic["extracted_text"])
    assert len(await stage.events(read["id"])) == 2
    text = await alice.uploaded(b"plain", "plain.txt")
    await alice.ended(text["job"]["id"])
    refused = await alice.post(f"{PATH}/{text['attachment']['id']}/ocr", json={})
    assert (refused.status_code, refused.json()["type"]) == (422, "attachment-unreadable")


async def test_a_failed_second_reading_leaves_the_first(
    stage: Stage, alice: Caller, tessdata: Tessdata
) -> None:
    await stage.work()
    read = await alice.read(picture("Keep this"))
    again = await alice.post(f"{PATH}/{read['id']}/ocr", json={"engine": "vision"})
    await alice.ended(again.json()["job"]["id"])
    after = await alice.attachment(read["id"])
    assert (after["status"], after["extracted_text"]) == ("failed", read["extracted_text"])
    assert "No engine that reads pictures is configured" in after["error"]


class TestElsewhere:
    @pytest.fixture
    def attachment_settings(self) -> dict[str, str]:
        return {
            "BAATCHEET_OCR_ENGINES": "ocr_space,vision,tesseract",
            "OCR_SPACE_API_KEY": FakeOcrSpace.KEY,
            "BAATCHEET_OCR_VISION_MODEL": "openai/sees",
        }

    async def test_the_engines_are_asked_in_order_and_who_failed_is_told(
        self, stage: Stage, alice: Caller, tessdata: Tessdata
    ) -> None:
        await stage.work()
        read = await alice.read(picture("One"))
        assert (read["engine"], read["extracted_text"]) == ("ocr_space", "Hello world")
        stage.ocr_space.answer = (500, "oops")
        stage.models.reply = "What the model saw."
        read = await alice.read(picture("Two"))
        assert (read["engine"], read["extracted_text"]) == ("vision", "What the model saw.")
        assert read["confidence"] is None
        assert read["notes"] == [
            {"engine": "ocr_space", "page": 1, "reason": "OCR.space answered with status 500."}
        ]
        stage.models.status = 400
        read = await alice.read(picture("Three"))
        assert (read["engine"], read["extracted_text"]) == ("tesseract", "Three")
        assert [note["engine"] for note in read["notes"]] == ["ocr_space", "vision"]

    async def test_the_only_engine_that_is_wished_for_is_asked(
        self, stage: Stage, alice: Caller, tessdata: Tessdata
    ) -> None:
        await stage.work()
        read = await alice.read(picture("Local"))
        assert read["engine"] == "ocr_space"
        again = await alice.post(f"{PATH}/{read['id']}/ocr", json={"engine": "tesseract"})
        await alice.ended(again.json()["job"]["id"])
        read = await alice.attachment(read["id"])
        assert (read["engine"], read["extracted_text"]) == ("tesseract", "Local")


async def test_files_without_an_attachment_are_swept(stage: Stage, alice: Caller) -> None:
    kept = await alice.uploaded(picture("Kept"))
    orphan = (
        stage.blobs._root
        / "attachments"
        / str(kept["attachment"]["id"])
        / "0190f3a2-7c1e-7d4b-9a51-3f0c2b8e6d10"
    )
    orphan.parent.mkdir(parents=True)
    orphan.write_bytes(b"left")
    fresh = orphan.with_name("0190f3a2-7c1e-7d4b-9a51-3f0c2b8e6d11")
    fresh.write_bytes(b"new")
    os.utime(orphan, (1_000_000_000, 1_000_000_000))
    [file] = [p for p in (stage.blobs._root / "attachments").rglob(kept["attachment"]["id"]) if p.is_file()]
    os.utime(file, (1_000_000_000, 1_000_000_000))
    assert await tidy.handler(None, stage.parts) == {"orphans": 1}  # type: ignore[arg-type]
    assert (orphan.exists(), fresh.exists(), file.exists()) == (False, True, True)


class Counting:
    """An engine that counts, and breaks off once at the third page."""

    name = "tesseract"

    def __init__(self) -> None:
        self.asked: list[int] = []

    def unavailable(self) -> str | None:
        return None

    async def read(self, page: Page, languages: Sequence[str], scratch: Path) -> PageText:
        self.asked.append(page.number + 1)
        if self.asked == [1, 2, 3]:
            raise EngineFailed("Its process ended unexpectedly.", passing=True)
        return PageText(f"Page {page.number + 1}", self.name, 100, 100, 0.9, "en")


async def test_a_page_that_was_read_is_not_read_again_by_the_next_attempt(
    stage: Stage, alice: Caller
) -> None:
    engine = Counting()
    settings = stage.settings.attachments
    reader = AttachmentReader(stage.db, stage.blobs, stage.sandbox, [engine], settings)
    stage.parts = AttachmentParts(stage.db, stage.blobs, reader)
    made = await alice.uploaded(scanned_pdf("a", "b", "c", "d"), "four.pdf")
    await stage.work()
    job = await alice.ended(made["job"]["id"])
    assert (job["status"], job["attempts"]) == ("succeeded", 2)
    assert "ended unexpectedly" in job["failures"][0]["error"]
    assert engine.asked == [1, 2, 3, 4, 3]
    read = await alice.attachment(made["attachment"]["id"])
    assert read["extracted_text"] == "Page 1\n\nPage 2\n\nPage 3\n\nPage 4"
    assert len(await stage.events(read["id"])) == 1


class Partial(Counting):
    """An engine that can't read the second page, ever."""

    async def read(self, page: Page, languages: Sequence[str], scratch: Path) -> PageText:
        if page.number == 1:
            raise EngineFailed("It is too dark.")
        return PageText(f"Page {page.number + 1}", self.name, 100, 100, 0.9, "en")


async def test_a_page_that_nobody_can_read_is_noted_and_the_others_are_there(
    stage: Stage, alice: Caller
) -> None:
    settings = stage.settings.attachments
    reader = AttachmentReader(stage.db, stage.blobs, stage.sandbox, [Partial()], settings)
    stage.parts = AttachmentParts(stage.db, stage.blobs, reader)
    await stage.work()
    read = await alice.read(scanned_pdf("a", "b", "c"), "three.pdf")
    assert (read["status"], read["pages"]) == ("completed", 3)
    assert read["extracted_text"] == "Page 1\n\n\n\nPage 3"
    assert {"engine": "tesseract", "page": 2, "reason": "It is too dark."} in read["notes"]
    page = (await alice.get(f"{PATH}/{read['id']}/pages/2")).json()
    assert (page["text"], page["note"]) == ("", "tesseract: It is too dark.")


class TestFewPages:
    @pytest.fixture
    def attachment_settings(self) -> dict[str, str]:
        return {"BAATCHEET_MAX_OCR_PAGES": "2"}

    async def test_only_so_many_pages_are_read_from_their_pictures(self, stage: Stage, alice: Caller) -> None:
        engine = Counting()
        settings = stage.settings.attachments
        reader = AttachmentReader(stage.db, stage.blobs, stage.sandbox, [engine], settings)
        stage.parts = AttachmentParts(stage.db, stage.blobs, reader)
        await stage.work()
        read = await alice.read(scanned_pdf("a", "b", "c", "d"), "four.pdf")
        assert engine.asked == [1, 2]
        assert read["notes"] == [
            {
                "engine": None,
                "page": None,
                "reason": "Only 2 pages of one document are read from their pictures; the others are not.",
            }
        ]


class Slow(Counting):
    """An engine that takes all its time for the first page, breaks off once at the second, and dawdles."""

    async def read(self, page: Page, languages: Sequence[str], scratch: Path) -> PageText:
        self.asked.append(page.number + 1)
        if page.number == 0:
            raise EngineFailed("It took longer than 180 s.", spent=True)
        if self.asked == [1, 2]:
            raise EngineFailed("Its process ended unexpectedly.", passing=True)
        await asyncio.sleep(0.3)
        return PageText(f"Page {page.number + 1}", self.name, 100, 100, 0.9, "en")


async def test_a_page_that_took_too_long_is_not_read_again(stage: Stage, alice: Caller) -> None:
    engine = Slow()
    reader = AttachmentReader(stage.db, stage.blobs, stage.sandbox, [engine], stage.settings.attachments)
    stage.parts = AttachmentParts(stage.db, stage.blobs, reader)
    made = await alice.uploaded(scanned_pdf("a", "b", "c"), "three.pdf")
    await stage.work()
    assert (await alice.ended(made["job"]["id"]))["status"] == "succeeded"
    assert engine.asked == [1, 2, 3, 2]
    read = await alice.attachment(made["attachment"]["id"])
    assert read["extracted_text"] == "\n\nPage 2\n\nPage 3"
    assert any("longer than 180 s" in note["reason"] for note in read["notes"])


class TestLittleTime:
    @pytest.fixture
    def attachment_settings(self) -> dict[str, str]:
        return {"BAATCHEET_MAX_OCR_SECONDS": "0.5"}

    async def test_what_is_left_when_the_time_is_over_is_left_out(self, stage: Stage, alice: Caller) -> None:
        engine = Slow()
        engine.asked = [0]
        reader = AttachmentReader(stage.db, stage.blobs, stage.sandbox, [engine], stage.settings.attachments)
        stage.parts = AttachmentParts(stage.db, stage.blobs, reader)
        await stage.work()
        read = await alice.read(scanned_pdf("a", "b", "c", "d", "e"), "five.pdf")
        assert (read["status"], read["pages"], engine.asked) == ("completed", 5, [0, 1, 2, 3])
        assert any("may take 0.5 s" in note["reason"] for note in read["notes"])


async def test_a_job_whose_attachment_was_read_again_since_says_so(stage: Stage, alice: Caller) -> None:
    class Broken(Counting):
        async def read(self, page: Page, languages: Sequence[str], scratch: Path) -> PageText:
            raise EngineFailed("It is too dark.")

    reader = AttachmentReader(stage.db, stage.blobs, stage.sandbox, [Broken()], stage.settings.attachments)
    stage.parts = AttachmentParts(stage.db, stage.blobs, reader)
    made = await alice.uploaded(picture("Old"))
    await stage.work()
    old = made["job"]["id"]
    assert (await alice.ended(old))["status"] == "dead"
    again = await alice.post(f"{PATH}/{made['attachment']['id']}/ocr", json={})
    await alice.ended(again.json()["job"]["id"])
    redriven = await alice.post(f"/api/v1/jobs/{old}/retry")
    assert redriven.status_code == 200, redriven.text
    job = await alice.ended(old)
    assert "Another job has read the attachment since" in job["error"], job
