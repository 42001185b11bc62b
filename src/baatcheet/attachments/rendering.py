"""Pages of attachments as JSON, a piece after another: a page may have ten million characters, or many words."""

from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import UUID

import msgspec

from baatcheet.attachments.ocr.engine import Line, Word
from baatcheet.attachments.repository import ShownPage
from baatcheet.attachments.service import Attachments
from baatcheet.auth.principal import Principal
from baatcheet.kit.pagination import Slice
from baatcheet.platform.threads import in_thread

_LINES = msgspec.json.Decoder(list[msgspec.Raw])
_LINE = msgspec.json.Decoder(Line)


async def page_list(
    attachments: Attachments, who: Principal, attachment_id: UUID, reading: UUID, found: Slice[ShownPage]
) -> AsyncIterator[bytes]:
    """A `PageList`."""
    yield b'{"data":['
    for index, shown in enumerate(found.rows):
        if index:
            yield b","
        async for piece in page(attachments, who, attachment_id, reading, shown):
            yield piece
    end = {"next_cursor": found.next_cursor, "has_more": found.next_cursor is not None}
    yield b"]," + msgspec.json.encode(end)[1:]


async def page(
    attachments: Attachments, who: Principal, attachment_id: UUID, reading: UUID, shown: ShownPage
) -> AsyncIterator[bytes]:
    """A `PageOut`."""
    fields = shown._asdict()
    beginning, lines = fields.pop("beginning"), fields.pop("lines")
    characters = fields.pop("characters")
    yield msgspec.json.encode(fields)[:-1] + b',"text":"' + _in_string(beginning)
    rest = attachments.text_from(who, attachment_id, reading, shown.number, len(beginning), characters)
    async for text in rest:
        yield _in_string(text)
    yield b'","lines":' + await in_thread(lines_json, lines) + b"}"


def _in_string(text: str) -> bytes:
    """Text as it is within a string of JSON."""
    return msgspec.json.encode(text)[1:-1]


def lines_json(stored: str) -> bytes:
    """Lines as they are shown, of lines as they are stored. One by one, so that other threads have their turn."""
    return b"[" + b",".join([_line(raw) for raw in _LINES.decode(stored)]) + b"]"


def _line(raw: msgspec.Raw) -> bytes:
    line = _LINE.decode(raw)
    return msgspec.json.encode({**_placed(line), "words": _words(line.words)})


def _words(words: Sequence[Word]) -> list[dict[str, Any]]:
    return [_placed(word) for word in words]


def _placed(what: Line | Word) -> dict[str, Any]:
    return {"text": what.text, "box": what.box._asdict(), "confidence": what.confidence}
