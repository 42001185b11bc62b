"""Attachments in a chat: their text to every model, and pictures to those that see."""

import asyncio
from typing import Any

import pytest
from benchmarks.ocr.corpus import picture

from baatcheet.attachments.ocr.availability import Tessdata
from baatcheet.attachments.service import PATH
from tests.attachments.conftest import Caller, Stage

CHAT = "/api/v1/chat/completions"
OPENAI = "/v1/chat/completions"
NOTE = b"The code word is Zanzibar."


def sent(stage: Stage) -> list[dict[str, Any]]:
    """The messages that the provider was sent last."""
    messages: list[dict[str, Any]] = stage.models.bodies[-1]["messages"]
    return messages


async def read(stage: Stage, who: Caller, data: bytes, name: str) -> str:
    await stage.work()
    attachment = await who.read(data, name)
    assert attachment["status"] == "completed", attachment
    found: str = attachment["id"]
    return found


async def test_an_attachment_brings_its_text_marked_with_its_name(stage: Stage, alice: Caller) -> None:
    note = await read(stage, alice, NOTE, "note.txt")
    body = {"message": "What is the code?", "model": "reads"}
    expected = "What is the code?\n[Attachment note.txt]\nThe code word is Zanzibar.\n[End of note.txt]"
    answer = await alice.post(CHAT, json={**body, "attachment_ids": [note]})
    assert sent(stage) == [{"role": "user", "content": expected}], answer.text
    answer = await alice.post(CHAT, json={**body, "attachments": [note]})
    assert sent(stage) == [{"role": "user", "content": expected}], answer.text
    conversation = answer.json()["conversation_id"]
    listed = (await alice.get(f"/api/v1/conversations/{conversation}/messages")).json()["data"]
    question = next(one for one in listed if one["role"] == "user")
    assert question["parts"]["content"][0] == {"type": "text", "text": "What is the code?"}
    assert question["parts"]["content"][-1] == {
        "type": "file",
        "file": {"file_id": note, "filename": "note.txt"},
    }
    # The next turn carries it on, and it needs the attachment no more.
    assert (await alice.delete(f"{PATH}/{note}")).status_code == 204
    await alice.post(CHAT, json={"message": "Again?", "conversation_id": conversation, "model": "reads"})
    assert "Zanzibar" in sent(stage)[0]["content"]


async def test_a_picture_is_shown_to_a_model_that_sees_and_read_to_one_that_does_not(
    stage: Stage, alice: Caller, tessdata: Tessdata
) -> None:
    shot = await read(stage, alice, picture("Kestrel Point 1987"), "shot.png")
    body = {"message": "What does it say?", "attachments": [shot]}
    answer = await alice.post(CHAT, json={**body, "model": "sees"})
    assert answer.status_code == 200, answer.text
    words, shown = sent(stage)[0]["content"]
    assert words == {"type": "text", "text": "What does it say?"}
    assert shown["type"] == "image_url"
    assert shown["image_url"]["url"].startswith("data:image/jpeg;base64,/9j/")
    conversation = answer.json()["conversation_id"]
    # Another model answers the next turn of the same conversation: it can only be told.
    await alice.post(CHAT, json={"message": "And now?", "conversation_id": conversation, "model": "reads"})
    assert "[Attachment shot.png]\nKestrel Point 1987\n" in sent(stage)[0]["content"]
    await alice.post(CHAT, json={"message": "And now?", "conversation_id": conversation, "model": "sees"})
    assert sent(stage)[0]["content"][1]["type"] == "image_url"
    async with stage.db.hot() as connection:
        stored = await connection.fetchval(
            "SELECT string_agg(content || parts::text, '') FROM messages WHERE conversation_id = $1::uuid "
            "AND parts IS NOT NULL",
            conversation,
        )
    assert "base64" not in stored
    assert shot in stored


async def test_openais_file_parts_name_attachments_on_both_surfaces(stage: Stage, alice: Caller) -> None:
    note = await read(stage, alice, NOTE, "note.txt")
    content = [
        {"type": "file", "file": {"file_id": note}},
        {"type": "text", "text": "What is the code?"},
    ]
    expected = "[Attachment note.txt]\nThe code word is Zanzibar.\n[End of note.txt]\nWhat is the code?"
    messages = [{"role": "user", "content": content}]
    for extra in ({}, {"conversation": "new"}, {"stream": True}):
        answer = await alice.post(OPENAI, json={"model": "reads", "messages": messages, **extra})
        assert answer.status_code == 200, answer.text
        assert sent(stage)[-1] == {"role": "user", "content": expected}, extra
    answer = await alice.post(CHAT, json={"message": content, "model": "reads"})
    assert answer.status_code == 200
    assert sent(stage)[-1]["content"] == expected


async def test_files_of_a_provider_and_files_inline_pass_through(stage: Stage, alice: Caller) -> None:
    parts = [
        {"type": "text", "text": "Look"},
        {"type": "file", "file": {"file_id": "file-abc123"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AAAA"}},
    ]
    answer = await alice.post(
        OPENAI, json={"model": "reads", "messages": [{"role": "user", "content": parts}]}
    )
    assert answer.status_code == 200, answer.text
    assert sent(stage)[0]["content"] == parts


async def test_what_is_not_hers_is_not_there(stage: Stage, alice: Caller, bob: Caller) -> None:
    note = await read(stage, alice, NOTE, "note.txt")
    native = await bob.post(CHAT, json={"message": "Read it", "attachments": [note]})
    assert (native.status_code, native.json()["type"]) == (404, "attachment-not-found")
    assert native.json()["param"] == "attachments"
    content = [{"type": "text", "text": "Read it"}, {"type": "file", "file": {"file_id": note}}]
    openai = await bob.post(
        OPENAI, json={"model": "reads", "messages": [{"role": "user", "content": content}]}
    )
    assert openai.status_code == 404
    assert openai.json()["error"]["code"] == "attachment_not_found"
    assert openai.json()["error"]["param"] == "messages[0].content"
    assert stage.models.bodies == []


async def test_a_picture_alone_is_a_message(stage: Stage, alice: Caller) -> None:
    note = await read(stage, alice, NOTE, "note.txt")
    answer = await alice.post(CHAT, json={"message": "", "attachments": [note], "model": "reads"})
    assert answer.status_code == 200, answer.text
    assert sent(stage)[0]["content"].startswith("[Attachment note.txt]")
    assert (await alice.post(CHAT, json={"message": "", "model": "reads"})).status_code == 422


async def test_a_large_attachment_is_cut_within_the_budget_and_found_again_later(
    stage: Stage, alice: Caller
) -> None:
    chapters = [f"Chapter {n}. Nothing of note happened in the harbour on day {n}." for n in range(3000)]
    chapters[1700] = "Chapter 1700. The lighthouse keeper buried the silver astrolabe under the fig tree."
    book = await read(stage, alice, "\n\n".join(chapters).encode(), "book.txt")
    answer = await alice.post(CHAT, json={"message": "Summarise.", "attachments": [book], "model": "reads"})
    assert answer.status_code == 200, answer.text
    [message] = sent(stage)
    assert message["content"].startswith("Summarise.")
    assert "tokens left out" in message["content"]
    assert "astrolabe" not in message["content"]
    turn = answer.json()
    await alice.post(
        CHAT,
        json={
            "message": "Where did the lighthouse keeper bury the silver astrolabe?",
            "conversation_id": turn["conversation_id"],
            "model": "reads",
        },
    )
    assert any("fig tree" in str(one["content"]) for one in sent(stage)), "it was forgotten"


async def test_a_turn_waits_for_an_attachment_that_is_being_read(stage: Stage, alice: Caller) -> None:
    made = await alice.uploaded(NOTE, "late.txt")
    asking = asyncio.create_task(
        alice.post(
            CHAT, json={"message": "And?", "attachments": [made["attachment"]["id"]], "model": "reads"}
        )
    )
    await asyncio.sleep(0.5)
    assert not asking.done()
    await stage.work()
    answer = await asking
    assert answer.status_code == 200, answer.text
    assert "Zanzibar" in sent(stage)[0]["content"]


class TestImpatient:
    @pytest.fixture
    def attachment_settings(self) -> dict[str, str]:
        return {"BAATCHEET_ATTACHMENT_WAIT_SECONDS": "0.3"}

    async def test_one_that_takes_longer_is_said_to_with_its_job(self, stage: Stage, alice: Caller) -> None:
        made = await alice.uploaded(NOTE, "late.txt")
        body = {"message": "And?", "attachments": [made["attachment"]["id"]], "model": "reads"}
        answer = await alice.post(CHAT, json=body)
        assert (answer.status_code, answer.json()["type"]) == (409, "attachment-not-ready")
        assert answer.json()["job_id"] == made["job"]["id"]
        assert "late.txt is still being read" in answer.json()["detail"]


async def test_one_that_could_not_be_read_is_refused_with_the_reason(stage: Stage, alice: Caller) -> None:
    await stage.work()
    broken = await alice.read(picture()[:2000], "broken.png")
    answer = await alice.post(CHAT, json={"message": "And?", "attachments": [broken["id"]], "model": "reads"})
    assert (answer.status_code, answer.json()["type"]) == (422, "attachment-unreadable")
    assert "broken.png could not be read: The picture is damaged" in answer.json()["detail"]


async def test_an_edited_message_brings_its_attachments_anew(stage: Stage, alice: Caller) -> None:
    note = await read(stage, alice, NOTE, "note.txt")
    first = (await alice.post(CHAT, json={"message": "One", "attachments": [note], "model": "reads"})).json()
    edited = await alice.post(
        "/api/v1/chat/edit",
        json={
            "message_id": first["user_message_id"],
            "message": "Two",
            "attachments": [note],
            "model": "reads",
        },
    )
    assert edited.status_code == 200, edited.text
    assert sent(stage)[0]["content"].startswith("Two\n[Attachment note.txt]")
    # A client that sends back what it was given does not bring the text twice.
    listed = (await alice.get(f"/api/v1/conversations/{first['conversation_id']}/messages")).json()["data"]
    parts = next(one["parts"]["content"] for one in listed if one["role"] == "user")
    again = await alice.post(CHAT, json={"message": parts, "model": "reads"})
    assert again.status_code == 200, again.text
    assert sent(stage)[0]["content"].count("Zanzibar") == 1


async def test_a_message_takes_only_so_many(stage: Stage, alice: Caller) -> None:
    ids = [f"0190f3a2-7c1e-7d4b-9a51-3f0c2b8e6d{number:02}" for number in range(21)]
    answer = await alice.post(CHAT, json={"message": "Many", "attachments": ids})
    assert (answer.status_code, answer.json()["type"]) == (422, "invalid")
