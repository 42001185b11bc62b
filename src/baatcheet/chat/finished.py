"""A turn that has ended, made again from what was stored."""

from typing import Any

from baatcheet.chat.events import unpack
from baatcheet.chat.feed import Outcome, TurnFeed, TurnIdentity
from baatcheet.chat.store import TurnRow
from baatcheet.conversations.wire import wire_form
from baatcheet.providers.model import Chunk, Usage


def finished_feed(row: TurnRow) -> TurnFeed:
    """The events of a turn that has ended, made again from what was stored of it."""
    feed = TurnFeed(
        TurnIdentity(
            row.id, row.user_id, row.model, row.conversation_id, row.input_id, row.reply_id, row.title
        ),
        answered_by=row.answered_by,
    )
    message = row.reply
    if row.stored:
        message = wire_form("assistant", row.content or "", row.parts)
    if row.events is not None:
        feed.chunks = unpack(row.events)
    else:
        feed.chunks = _pieces((message or {}).get("content") or "", row)
    finish = row.finish_reason if row.status == "completed" else None
    usage = Usage(
        **{key: value for key, value in (row.usage or {}).items() if key in Usage.__struct_fields__}
    )
    status: Any = row.status
    feed.outcome = Outcome(status, message, row.answered_by, finish, usage if row.usage else None, row.error)
    return feed


def _pieces(text: str, row: TurnRow) -> list[Chunk]:
    """A reply of nothing but text, in the pieces in which it came; the last one says how it ended."""
    pieces: list[Chunk] = []
    at = 0
    for length in row.lengths or ():
        pieces.append(Chunk(raw=b"", text=text[at : at + length]))
        at += length
    if row.status == "completed" and pieces:
        pieces[-1].finish_reason = row.finish_reason
    return pieces
