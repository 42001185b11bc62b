"""What is exported, as plain data: the one form between the database and every file that a person reads.

A document travels as a file of JSON lines, so that neither who writes it nor who renders it ever holds more than one
message: first the `Document`, then each conversation as a `Talk` followed by its `Said`, in reading order.

    with path.open("wb") as file:
        file.write(line(Document(title="Hunza in May", exported_at=now, conversations=1, messages=2)))
        file.write(line(Talk(id="…", title="Hunza in May", created_at=then)))
        file.write(line(Said(id="…", role="user", content="Where is **Attabad**?", at=then)))
        file.write(line(Said(id="…", role="assistant", content="In Gojal.", at=then, model="llama-3.3-70b")))
"""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Literal

import msgspec

Format = Literal["pdf", "md", "txt"]
Role = Literal["system", "developer", "user", "assistant", "tool"]


class Document(msgspec.Struct, frozen=True, tag="document", tag_field="kind", omit_defaults=True):
    """The head of an export: the first line of its file. `conversations` and `messages` count what follows."""

    title: str
    exported_at: datetime  # aware
    conversations: int = 1
    messages: int = 0
    owner: str = ""  # whose conversations they are, as a reader knows them: a name or an address
    time_zone: str = "UTC"  # an IANA name: the zone in which every time is shown
    paper: Literal["a4", "letter"] = "a4"
    urdu: Literal["naskh", "nastaliq"] = "naskh"  # the hand in which Urdu is set, in a PDF


class Talk(msgspec.Struct, frozen=True, tag="talk", tag_field="kind", omit_defaults=True):
    """The head of one conversation. Its messages follow, each a line, until the next `Talk` or the end."""

    id: str
    title: str
    created_at: datetime
    updated_at: datetime | None = None
    model: str = ""
    system_prompt: str = ""  # shown before the first message
    messages: int = 0


class Attached(msgspec.Struct, frozen=True, omit_defaults=True):
    """A file that was given with a message.

    `path`: a local file with its content, absolute, or "" where only its name is shown. A PDF shows PNG, JPEG, GIF and
    WebP pictures; of any other file every format names it alone.
    """

    name: str
    media_type: str = ""
    size: int | None = None  # bytes
    path: str = ""


class Called(msgspec.Struct, frozen=True, omit_defaults=True):
    """A tool that the model asked for. `arguments` is JSON text, as the model wrote it."""

    name: str
    arguments: str = ""
    id: str = ""


class Said(msgspec.Struct, frozen=True, tag="said", tag_field="kind", omit_defaults=True):
    """One message. `content` is Markdown, exactly as it was written."""

    id: str
    role: Role
    content: str
    at: datetime
    author: str = ""  # who it is by, where that is more than the role says
    model: str = ""
    attachments: tuple[Attached, ...] = ()
    calls: tuple[Called, ...] = ()
    answers: str = ""  # of a tool's message: the id of the call that it answers
    finish_reason: str = (
        ""  # told where it is "length", "interrupted", "cancelled", "error" or "content_filter"
    )


Line = Document | Talk | Said


class Rendering(msgspec.Struct, frozen=True):
    """An order: make `target` (a path; written whole or not at all) of the JSON lines at `source`."""

    source: str
    target: str
    format: Format


class Rendered(msgspec.Struct, frozen=True):
    """What became of it. `pages` is 0 for what has none."""

    pages: int
    bytes: int
    messages: int
    notes: tuple[
        str, ...
    ] = ()  # in plain words, what the file shows otherwise than it was said: a missing font, a picture left out


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Line)


def line(record: Line) -> bytes:
    """`record` as one line of the file, with its line break. A lone surrogate becomes U+FFFD: UTF-8 has none."""
    try:
        return _ENCODER.encode(record) + b"\n"
    except UnicodeEncodeError:
        return _ENCODER.encode(_mended(record)) + b"\n"


def lines(path: Path) -> Iterator[Line]:
    """Each line of the file at `path`, one at a time."""
    with path.open("rb") as file:
        for text in file:
            yield _DECODER.decode(text)


def _mended(record: Line) -> Line:
    mended: Line = msgspec.convert(_without_surrogates(msgspec.to_builtins(record)), type=Line)
    return mended


def _without_surrogates(value: object) -> object:
    match value:
        case str():
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        case dict():
            return {key: _without_surrogates(item) for key, item in value.items()}
        case list() | tuple():
            return [_without_surrogates(item) for item in value]
        case _:
            return value
