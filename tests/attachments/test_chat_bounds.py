"""What attachments may cost a chat, what is not an attachment's, and what happens when one is gone."""

import asyncio
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest
from benchmarks.ocr.corpus import picture

from baatcheet.attachments.service import PATH, Attachments
from baatcheet.chat.attaching import Attaching
from baatcheet.context.tokenizers import Tokenizers
from baatcheet.kit.ids import new_id
from baatcheet.providers.model import ModelCard
from tests.attachments.conftest import Caller, Stage
from tests.attachments.test_chat import CHAT, NOTE, OPENAI, read, sent

FOREIGN = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}, "attachment_id": "x"}


async def test_a_part_that_is_no_text_is_not_ours_whatever_it_says(stage: Stage, alice: Caller) -> None:
    content = [{"type": "text", "text": "Look"}, FOREIGN]
    answer = await alice.post(CHAT, json={"message": content, "model": "sees"})
    assert answer.status_code == 200, answer.text
    assert sent(stage)[0]["content"] == content
    again = {"message": "And?", "conversation_id": answer.json()["conversation_id"], "model": "sees"}
    assert (await alice.post(CHAT, json=again)).status_code == 200
    messages = [{"role": "user", "content": content}]
    answer = await alice.post(OPENAI, json={"model": "sees", "messages": messages})
    assert answer.status_code == 200, answer.text
    assert sent(stage)[0]["content"] == content
    # Beside an attachment it is kept, too.
    note = await read(stage, alice, NOTE, "note.txt")
    answer = await alice.post(CHAT, json={"message": content, "attachments": [note], "model": "sees"})
    assert answer.status_code == 200, answer.text
    assert FOREIGN in sent(stage)[0]["content"]


async def test_many_messages_fetch_an_attachment_once(
    stage: Stage, alice: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = await read(stage, alice, NOTE, "note.txt")
    calls: list[UUID] = []
    whole = Attachments.text

    async def counted(self: Attachments, who: Any, one: UUID, most: int) -> Any:
        calls.append(one)
        return await whole(self, who, one, most)

    monkeypatch.setattr(Attachments, "text", counted)
    part = {"type": "file", "file": {"file_id": note}}
    messages = [{"role": "user", "content": [part]} for _ in range(300)]
    answer = await alice.post(OPENAI, json={"model": "reads", "messages": messages})
    assert answer.status_code == 200, answer.text
    assert len(calls) == 1
    assert all("Zanzibar" in one["content"] for one in sent(stage))


async def test_a_request_brings_only_so_many_characters_and_so_many_attachments(
    stage: Stage, alice: Caller
) -> None:
    book = await read(stage, alice, b"words and " * 30_000, "book.txt")
    part = {"type": "file", "file": {"file_id": book}}
    messages = [{"role": "user", "content": [part]} for _ in range(100)]
    answer = await alice.post(OPENAI, json={"model": "reads", "messages": messages})
    assert answer.status_code == 422, answer.text
    assert "16,777,216 characters together" in answer.json()["error"]["message"]
    messages = [
        {"role": "user", "content": [{"type": "file", "file": {"file_id": str(new_id())}}]} for _ in range(51)
    ]
    answer = await alice.post(OPENAI, json={"model": "reads", "messages": messages})
    assert answer.status_code == 422, answer.text
    assert "50 different attachments" in answer.json()["error"]["message"]
    assert stage.models.bodies == []


async def test_a_repeated_key_finds_its_turn_when_the_attachment_is_gone(stage: Stage, alice: Caller) -> None:
    note = await read(stage, alice, NOTE, "note.txt")
    headers = {"idempotency-key": "once"}
    native = {"message": "What is it?", "attachments": [note], "model": "reads"}
    part = {"type": "file", "file": {"file_id": note}}
    openai = {"model": "reads", "messages": [{"role": "user", "content": [part]}]}
    first = await alice.post(CHAT, json=native, headers=headers)
    second = await alice.post(OPENAI, json=openai, headers={"idempotency-key": "two"})
    assert (first.status_code, second.status_code) == (200, 200)
    assert (await alice.delete(f"{PATH}/{note}")).status_code == 204
    again = await alice.post(CHAT, json=native, headers=headers)
    assert again.status_code == 200, again.text
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json() == first.json()
    again = await alice.post(OPENAI, json=openai, headers={"idempotency-key": "two"})
    assert again.status_code == 200, again.text
    assert again.json()["choices"] == second.json()["choices"]
    other = await alice.post(CHAT, json={**native, "message": "Other"}, headers=headers)
    assert (other.status_code, other.json()["type"]) == (422, "idempotency-key-reused")
    assert (await alice.post(CHAT, json=native)).status_code == 404


async def test_a_deleted_picture_is_not_shown_though_its_file_is_there(stage: Stage, alice: Caller) -> None:
    shot = await read(stage, alice, picture("Going"), "shot.png")
    [view] = [p for p in (stage.blobs._root / "attachment-views").rglob(shot) if p.is_file()]
    kept = view.read_bytes()
    body = {"message": "What?", "attachments": [shot], "model": "sees"}
    conversation = (await alice.post(CHAT, json=body)).json()["conversation_id"]
    assert sent(stage)[0]["content"][1]["type"] == "image_url"
    assert (await alice.delete(f"{PATH}/{shot}")).status_code == 204
    view.parent.mkdir(parents=True, exist_ok=True)
    view.write_bytes(kept)
    await alice.post(CHAT, json={"message": "Now?", "conversation_id": conversation, "model": "sees"})
    assert "image_url" not in str(sent(stage))


class Shots:
    """FAKE of the store of attachments: every picture is there."""

    async def picture(self, _: UUID, one: UUID) -> bytes:
        return one.bytes


async def test_many_pictures_are_dropped_in_steps_so_that_the_prefix_stays() -> None:
    attaching = Attaching(Shots(), 1000)  # type: ignore[arg-type]
    messages: list[dict[str, Any]] = []
    shown: list[str] = []
    for number in range(30):
        one = str(new_id())
        file = {"file_id": one, "filename": "a.png", "picture": {"width": 100, "height": 100}}
        parts = [{"type": "text", "text": f"{number}", "attachment_id": one}, {"type": "file", "file": file}]
        messages.append({"role": "user", "content": parts})
        made = await attaching.shown(new_id(), messages, sees=True)
        shown.append("".join("P" if isinstance(message["content"], list) else "t" for message in made))
        assert shown[-1].count("P") == min(number + 1, 6 + (number % 5))
    changed = sum(not after.startswith(before) for before, after in pairwise(shown))
    assert changed == 4


def test_an_attachment_costs_what_is_sent_of_it() -> None:
    one = str(new_id())
    text = "word " * 50
    file = {"file_id": one, "filename": "a.png", "picture": {"width": 1000, "height": 1000}}
    parts = [{"type": "text", "text": text, "attachment_id": one}, {"type": "file", "file": file}]
    counts = {}
    for sees in (True, False):
        card = ModelCard("openai", "gpt-4o", context_window=128_000, vision=sees, exact_encoding=True)
        counts[sees] = Tokenizers().of(card).message(text, {"content": parts})
    plain = Tokenizers.stored.message(text, None)
    assert counts[False] == plain
    assert counts[True] == 765 + 4


async def test_who_leaves_while_an_attachment_is_read_opens_no_turn(stage: Stage, alice: Caller) -> None:
    made = await alice.uploaded(NOTE, "late.txt")
    body = {"message": "And?", "attachments": [made["attachment"]["id"]], "model": "reads"}
    asking = asyncio.create_task(alice.post(CHAT, json=body))
    await asyncio.sleep(0.5)
    asking.cancel()
    await asyncio.wait([asking])
    await stage.work()
    await alice.ended(made["job"]["id"])
    await asyncio.sleep(0.5)
    assert stage.models.bodies == []
