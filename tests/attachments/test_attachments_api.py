"""Uploading pictures and documents, and looking at them: through the API."""

# ruff: noqa: RUF001 - several scripts, each meant

import asyncio

import pytest
from benchmarks.ocr.corpus import SENTENCE, encoded, picture, protected_docx, word_document
from benchmarks.ocr.pages import Sheet, draw

from baatcheet.attachments.ocr.availability import Tessdata
from baatcheet.attachments.service import PATH
from tests.attachments.conftest import Caller, Stage

ABSENT = "0190f3a2-7c1e-7d4b-9a51-3f0c2b8e6d10"


async def test_an_upload_is_answered_at_once_and_read_in_the_background(
    stage: Stage, alice: Caller, tessdata: Tessdata
) -> None:
    answer = await alice.upload(picture(), "fox.png")
    assert answer.status_code == 202
    made = answer.json()
    assert made["success"] is True
    assert made["message"] == "OCR processing in background"
    assert made["job"]["status"] == "queued"
    assert made["job"]["kind"] == "ocr.extract"
    attachment = made["attachment"]
    assert (attachment["status"], attachment["media_type"]) == ("processing", "image/png")
    assert answer.headers["location"] == f"{PATH}/{attachment['id']}"
    assert (await alice.attachment(attachment["id"]))["extracted_text"] is None
    await stage.work()
    job = await alice.ended(made["job"]["id"])
    assert job["status"] == "succeeded", job
    assert job["result"]["attachment_id"] == attachment["id"]
    read = await alice.attachment(attachment["id"])
    assert read["status"] == "completed"
    assert read["extracted_text"].split() == SENTENCE.split()
    assert read["extracted_text_complete"] is True
    assert 0.9 < read["confidence"] <= 1
    assert (read["language"], read["engine"], read["pages"]) == ("en", "tesseract", 1)
    assert (read["width"], read["height"]) == (1500, read["height"])
    [event] = await stage.events(attachment["id"])
    assert event["status"] == "completed"
    assert event["characters"] == len(read["extracted_text"])
    assert (event["language"], event["confidence"]) == ("en", read["confidence"])


async def test_pages_tell_where_their_words_are(stage: Stage, alice: Caller, tessdata: Tessdata) -> None:
    await stage.work()
    read = await alice.read(picture("Kestrel Point"))
    page = (await alice.get(f"{PATH}/{read['id']}/pages/1")).json()
    assert (page["number"], page["width"], page["text"]) == (1, 1500, "Kestrel Point")
    [line] = page["lines"]
    assert [word["text"] for word in line["words"]] == ["Kestrel", "Point"]
    first, second = (word["box"] for word in line["words"])
    assert 40 <= first["left"] < first["right"] < second["left"] < second["right"] < 500
    assert 40 <= first["top"] < first["bottom"] < 110
    listed = (await alice.get(f"{PATH}/{read['id']}/pages")).json()
    assert listed["data"] == [page]
    assert (await alice.get(f"{PATH}/{read['id']}/pages/2")).status_code == 404


async def test_a_document_gives_its_text_without_being_looked_at(stage: Stage, alice: Caller) -> None:
    made = await alice.uploaded("سلام دنیا۔ یہ اردو ہے۔".encode("utf-16"), "note.txt")
    assert made["message"] == "Text extraction in background"
    await stage.work()
    await alice.ended(made["job"]["id"])
    read = await alice.attachment(made["attachment"]["id"])
    assert (read["extracted_text"], read["language"]) == ("سلام دنیا۔ یہ اردو ہے۔", "ur")
    assert (read["engine"], read["confidence"]) == ("text", 1.0)
    whole = await alice.get(f"{PATH}/{read['id']}/text")
    assert whole.text == read["extracted_text"]
    assert whole.headers["content-type"] == "text/plain; charset=utf-8"
    assert whole.headers["content-disposition"].startswith("inline")


async def test_the_same_file_again_is_the_attachment_that_is_there(stage: Stage, alice: Caller) -> None:
    first = await alice.uploaded(b"The same words.", "one.txt")
    again = await alice.uploaded(b"The same words.", "two.txt")
    assert again["attachment"]["id"] == first["attachment"]["id"]
    assert again["attachment"]["filename"] == "one.txt"
    assert again["job"]["id"] == first["job"]["id"]
    assert again["message"] == "This file was uploaded before and is being read"
    await stage.work()
    await alice.ended(first["job"]["id"])
    later = await alice.uploaded(b"The same words.", "three.txt")
    assert later["message"] == "This file was uploaded before and has been read"
    listed = (await alice.get(PATH)).json()
    assert len(listed["data"]) == 1
    files = [path for path in (stage.blobs._root / "attachments").rglob("*") if path.is_file()]
    assert len(files) == 1, "a copy was left behind"


@pytest.mark.parametrize("was_read", [True, False])
async def test_a_file_that_is_gone_is_there_again_once_it_is_uploaded_again(
    stage: Stage, alice: Caller, was_read: bool
) -> None:
    made = await alice.uploaded(b"Words.", "a.txt")
    where = f"{PATH}/{made['attachment']['id']}"
    if was_read:
        await stage.work()
        await alice.ended(made["job"]["id"])
    (file,) = [path for path in (stage.blobs._root / "attachments").rglob("*") if path.is_file()]
    file.unlink()
    if not was_read:
        await stage.work()
        assert (await alice.ended(made["job"]["id"]))[
            "error"
        ] == "The file is no longer there. Upload it again."
    assert (await alice.get(f"{where}/content")).status_code == 404
    again = await alice.uploaded(b"Words.", "a.txt")
    assert again["attachment"]["id"] == made["attachment"]["id"]
    assert (await alice.ended(again["job"]["id"]))["status"] == "succeeded"
    assert again["message"].endswith("was gone: reading it once more" if was_read else "trying once more")
    assert (await alice.get(f"{where}/content")).content == b"Words."
    assert (await alice.attachment(made["attachment"]["id"]))["extracted_text"] == "Words."


async def test_the_same_file_at_once_makes_one_attachment(stage: Stage, alice: Caller) -> None:
    answers = await asyncio.gather(*(alice.upload(b"At once.", f"{n}.txt") for n in range(5)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["attachment"]["id"] for answer in answers}) == 1
    assert len((await alice.get("/api/v1/jobs", params={"kind": "ocr.extract"})).json()["data"]) == 1


async def test_an_idempotency_key_is_for_one_file(alice: Caller) -> None:
    first = await alice.upload(b"Once.", "a.txt", key="k1")
    again = await alice.upload(b"Once.", "a.txt", key="k1")
    assert again.json() == first.json()
    assert again.headers["idempotent-replayed"] == "true"
    other = await alice.upload(b"Twice.", "a.txt", key="k1")
    assert other.status_code == 422
    assert other.json()["type"] == "idempotency-key-reused"


async def test_the_file_comes_back_as_it_was(alice: Caller) -> None:
    data = picture("Round trip")
    made = await alice.uploaded(data, "Ärger; x=1.png")
    where = f"{PATH}/{made['attachment']['id']}/content"
    whole = await alice.get(where)
    assert (whole.content, whole.headers["content-type"]) == (data, "image/png")
    assert whole.headers["content-disposition"].startswith("attachment")
    part = await alice.get(where, headers={"range": "bytes=2-5"})
    assert (part.status_code, part.content) == (206, data[2:6])


async def test_one_that_is_deleted_is_gone_with_its_file_and_its_job(stage: Stage, alice: Caller) -> None:
    made = await alice.uploaded(picture("Going"), "going.png")
    where = f"{PATH}/{made['attachment']['id']}"
    assert (await alice.delete(where)).status_code == 204
    assert (await alice.get(where)).status_code == 404
    assert (await alice.delete(where)).status_code == 404
    assert (await alice.get(f"/api/v1/jobs/{made['job']['id']}")).json()["status"] == "cancelled"
    assert not [path for path in (stage.blobs._root / "attachments").rglob("*") if path.is_file()]
    assert (await alice.uploaded(picture("Going"), "going.png"))["attachment"]["id"] != made["attachment"][
        "id"
    ]


async def test_nothing_of_hers_is_seen_by_him(
    stage: Stage, alice: Caller, bob: Caller, tessdata: Tessdata
) -> None:
    await stage.work()
    hers = await alice.read(picture("Private words"))
    where = f"{PATH}/{hers['id']}"
    for path in ("", "/text", "/pages", "/pages/1", "/content"):
        answer = await bob.get(where + path)
        absent = await bob.get(f"{PATH}/{ABSENT}{path}")
        assert answer.status_code == absent.status_code == 404
        assert answer.json()["type"] == absent.json()["type"]
        assert "Private" not in answer.text
    assert (await bob.delete(where)).status_code == 404
    assert (await bob.post(f"{where}/ocr", json={})).status_code == 404
    assert (await bob.get(PATH)).json()["data"] == []
    # His own copy of the same file is his own.
    his = await bob.uploaded(picture("Private words"))
    assert his["attachment"]["id"] != hers["id"]
    assert his["message"] == "OCR processing in background"
    assert (await alice.attachment(hers["id"]))["status"] == "completed"


@pytest.mark.parametrize(
    ("data", "name", "status", "type_", "words"),
    [
        (b"", "empty.png", 422, "invalid", "empty"),
        (b"\x7fELF" + bytes(500), "x.png", 415, "file-kind-not-taken", "a program"),
        (b"PK\x03\x04" + bytes(300), "x.docx", 415, "file-kind-not-taken", "ZIP archive"),
        (protected_docx(), "x.docx", 422, "file-protected", "password"),
        (b"\x00\x01\x02" + bytes(range(256)), "x.txt", 415, "file-kind-not-taken", "no kind"),
        (b"\x00\x00\x00\x20ftypheic" + bytes(40), "x.jpg", 415, "file-kind-not-taken", "HEIC"),
        (b"ID3" + bytes(100), "x.mp3", 415, "file-kind-not-taken", "/api/v1/audio"),
    ],
)  # fmt: skip
async def test_what_is_not_taken_is_refused_with_what_to_do(
    alice: Caller, data: bytes, name: str, status: int, type_: str, words: str
) -> None:
    answer = await alice.upload(data, name)
    assert answer.status_code == status, answer.text
    assert answer.json()["type"] == type_
    assert words in answer.json()["detail"]
    assert (await alice.get(PATH)).json()["data"] == []


async def test_a_file_is_what_its_bytes_say_whatever_it_is_called(alice: Caller) -> None:
    for data, name, media_type in (
        (picture(form="JPEG"), "photo.png", "image/jpeg"),
        (
            word_document(),
            "letter.pdf",
            "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        ),
        (b"# Title\n\nwords", "x.md", "text/markdown"),
        (b'{"a": 1}', "x.json", "application/json"),
        (b"Words, no JSON", "x.json", "text/plain"),
        (b"a,b\n1,2\n", "x.csv", "text/csv"),
        (b"plain", "x.exe", "text/plain"),
    ):
        assert (await alice.uploaded(data, name))["attachment"]["media_type"] == media_type, name


class TestLimits:
    @pytest.fixture
    def attachment_settings(self) -> dict[str, str]:
        return {"BAATCHEET_MAX_IMAGE_BYTES": "2000", "BAATCHEET_MAX_DOCUMENT_BYTES": "5000"}

    async def test_pictures_and_documents_have_limits_of_their_own(self, alice: Caller) -> None:
        image = encoded(draw("Large", Sheet(font="DejaVuSans.ttf", size=60, width=400)), "BMP")
        refused = await alice.upload(image, "x.bmp")
        assert (refused.status_code, refused.json()["type"]) == (413, "too-large")
        assert (await alice.upload(b"x" * 4000, "x.txt")).status_code == 202
        assert (await alice.upload(b"x" * 6000, "x.txt")).status_code == 413


async def test_attachments_are_listed_newest_first_and_paged(alice: Caller) -> None:
    ids = [(await alice.uploaded(f"Text {n}".encode(), f"{n}.txt"))["attachment"]["id"] for n in range(5)]
    first = (await alice.get(PATH, params={"limit": 2})).json()
    assert [one["id"] for one in first["data"]] == ids[:-3:-1]
    assert "extracted_text" not in first["data"][0]
    rest = (await alice.get(PATH, params={"cursor": first["next_cursor"]})).json()
    assert [one["id"] for one in rest["data"]] == ids[2::-1]
    assert (await alice.get(PATH, params={"status": "completed"})).json()["data"] == []


async def test_the_engines_say_whether_they_are_there_and_why_not(alice: Caller, tessdata: Tessdata) -> None:
    engines = (await alice.get("/api/v1/ocr/engines")).json()["data"]
    assert [(one["name"], one["available"]) for one in engines] == [("tesseract", True)]
    assert set(engines[0]["languages"]) == {"en", "ur", "ar", "hi"}


class TestUnavailable:
    @pytest.fixture
    def attachment_settings(self) -> dict[str, str]:
        return {"BAATCHEET_OCR_ENGINES": "tesseract,ocr_space,vision", "TESSDATA_PREFIX": "/nowhere"}

    async def test_a_picture_that_nobody_can_read_fails_with_every_reason(
        self, stage: Stage, alice: Caller
    ) -> None:
        await stage.work()
        engines = (await alice.get("/api/v1/ocr/engines")).json()["data"]
        assert [one["available"] for one in engines] == [False, False, False]
        assert "scripts/ocr-data" in engines[0]["reason"]
        read = await alice.read(picture("Unread"))
        assert read["status"] == "failed"
        for words in (
            "tesseract: There is no language data",
            "OCR_SPACE_API_KEY",
            "BAATCHEET_OCR_VISION_MODEL",
        ):
            assert words in read["error"]
        job = (await alice.get(f"/api/v1/jobs/{read['job_id']}")).json()
        assert (job["status"], job["attempts"]) == ("dead", 1)
        [event] = await stage.events(read["id"])
        assert (event["status"], event["error"]) == ("failed", read["error"])
