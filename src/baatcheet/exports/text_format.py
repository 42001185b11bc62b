"""Plain text: what was said, as it was written, with who said it and when above it."""

import re
from collections.abc import Iterator
from typing import Final

from baatcheet.exports import wording
from baatcheet.exports.document import Document, Line, Said, Talk
from baatcheet.exports.wording import Clock

# What would move a terminal's cursor, or colour it.
_CONTROL: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_WIDTH: Final = 72


def pieces(lines: Iterator[Line]) -> Iterator[str]:
    """The file, piece by piece, of a document's lines."""
    clock: Clock | None = None
    number = 0
    for line in lines:
        match line:
            case Document():
                clock = Clock(line)
                yield _head(line, clock)
            case Talk():
                assert clock is not None
                number = 0
                yield _talk(line, clock)
            case Said():
                assert clock is not None
                number += 1
                yield _said(line, number, clock)


def _head(document: Document, clock: Clock) -> str:
    title = _line(document.title) or wording.UNTITLED
    about = f"Exported {clock.at(document.exported_at)} ({clock.name})"
    counts = [wording.counted(document.messages, "message")]
    if document.conversations > 1:
        counts.insert(0, wording.counted(document.conversations, "conversation"))
    owner = f"By {_line(document.owner)}\n" if document.owner else ""
    return f"{title}\n{'=' * min(_WIDTH, len(title))}\n\n{about}\n{owner}{', '.join(counts)}\n"


def _talk(talk: Talk, clock: Clock) -> str:
    title = _line(wording.title(talk))
    model = f" · {_line(talk.model)}" if talk.model else ""
    head = f"\n\n{title}\n{'-' * min(_WIDTH, len(title))}\n{clock.at(talk.created_at)}{model}\n"
    if talk.system_prompt:
        head += f"\nSystem prompt:\n{_text(talk.system_prompt)}\n"
    return head


def _said(said: Said, number: int, clock: Clock) -> str:
    about = [_line(wording.author(said)), clock.at(said.at)]
    if said.model and said.role == "assistant":
        about.insert(1, _line(said.model))
    parts = [f"\n[{number}] {' · '.join(about)}\n{_text(said.content)}\n"]
    parts += [f"(called the tool {_line(call.name)}: {_line(call.arguments)})\n" for call in said.calls]
    for attached in said.attachments:
        kind = "picture" if attached.media_type.startswith("image/") else "file"
        parts.append(f"({kind}: {_line(wording.file_line(attached))})\n")
    if note := wording.ending(said):
        parts.append(f"({note})\n")
    return "".join(parts)


def _text(content: str) -> str:
    return _CONTROL.sub("\ufffd", content.replace("\r\n", "\n").replace("\r", "\n")).rstrip("\n")


def _line(words: str) -> str:
    return _CONTROL.sub("\ufffd", " ".join(words.split()))
