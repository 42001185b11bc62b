"""What a document is made of: a message's own text, its pictures and files, its tool calls."""

import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from baatcheet.attachments.keys import view_key
from baatcheet.exports.document import Attached, Called, Said
from baatcheet.exports.gathering import VIEWS, Pictures, said
from baatcheet.exports.repository import Row
from baatcheet.kit.ids import new_id
from baatcheet.platform.blobs import FolderBlobs

NOW = datetime(2026, 5, 1, tzinfo=UTC)
OWNER = new_id()
PNG = base64.b64encode(b"\x89PNG not looked into").decode()


async def shown(
    folder: Path, content: str, parts: Any, *, role: str = "user", blobs: FolderBlobs | None = None
) -> Said:
    row = Row(new_id(), None, new_id(), role, content, json.dumps(parts), None, 1, None, NOW)
    return await said(row, Pictures(folder, OWNER, blobs))


async def test_a_picture_in_a_message_is_put_down_for_who_shows_it(tmp_path: Path) -> None:
    parts = {
        "content": [
            {"type": "text", "text": "look"},
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
            {"type": "image_url", "image_url": {"url": "https://example.com/a/rakaposhi.jpg?w=3"}},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,???"}},
            {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
            {"type": "odd"},
        ]
    }
    one = await shown(tmp_path, "look", parts, blobs=FolderBlobs(tmp_path / "files"))
    picture, linked, broken, sound, odd = one.attachments
    assert Path(picture.path).read_bytes() == base64.b64decode(PNG)
    assert (picture.media_type, picture.size) == ("image/png", len(base64.b64decode(PNG)))
    assert linked == Attached(name="rakaposhi.jpg", media_type="image/*")
    assert (broken.path, broken.media_type) == ("", "image/png")
    assert (sound.name, odd.name) == ("input_audio", "odd")
    unseen = await shown(tmp_path / "other", "look", parts)
    assert [one.path for one in unseen.attachments] == [""] * 5


async def test_an_attachment_stands_beside_the_message_that_it_came_with(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path / "files")
    picture, paper, gone = new_id(), new_id(), new_id()
    (tmp_path / "view").write_bytes(b"jpeg")
    await blobs.put(view_key(OWNER, picture), tmp_path / "view")
    size = {"picture": {"width": 3, "height": 4}}
    parts = {
        "content": [
            {"type": "text", "text": "What is this?"},
            {
                "type": "text",
                "text": "[Attachment a.png]\nread\nin it\n[End of a.png]",
                "attachment_id": str(picture),
            },
            {"type": "file", "file": {"file_id": str(picture), "filename": "a.png", **size}},
            {
                "type": "text",
                "text": "[Attachment b.pdf: no text was found in it]",
                "attachment_id": str(paper),
            },
            {"type": "file", "file": {"file_id": str(paper), "filename": "b.pdf"}},
            {"type": "file", "file": {"file_id": str(gone), "filename": "c.png", **size}},
        ]
    }
    one = await shown(tmp_path, "What is this?\n[Attachment a.png] …", parts, blobs=blobs)
    assert one.content == "What is this?"
    first, second, third = one.attachments
    assert (first.name, first.media_type) == ("a.png", "image/jpeg")
    assert Path(first.path).read_bytes() == b"jpeg"
    assert second == Attached(name="b.pdf")
    assert third == Attached(name="c.png", media_type="image/jpeg")


async def test_tool_calls_and_their_results_are_told(tmp_path: Path) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Hunza"}'}}
    one = await shown(tmp_path, "", {"tool_calls": [call, {"id": 5}, "odd"]}, role="assistant")
    assert one.calls == (Called("weather", '{"city":"Hunza"}', "c1"),)
    result = await shown(tmp_path, "sunny", {"tool_call_id": "c1", "name": "weather"}, role="tool")
    assert (result.answers, result.author, result.content) == ("c1", "weather", "sunny")


def test_pictures_are_looked_for_where_they_are_kept() -> None:
    assert f"{VIEWS}{OWNER}/x" == view_key(OWNER, OWNER).replace(f"/{OWNER}/{OWNER}", f"/{OWNER}/x")
