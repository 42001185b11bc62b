"""A conversation that is ready to be made, whatever file it came from.

An index file has a line for every conversation that was found, usable or not; the messages of the usable ones stand in
a second file, each after its parent, which it names by its place among them.
"""

from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import IO, Final

import msgspec
from msgspec.structs import replace

from baatcheet.exports.json_format import NULL, ProjectEntry

INDEX: Final = "conversations.lines"
MESSAGES: Final = "messages.lines"


class Limits(msgspec.Struct, frozen=True):
    """In bytes: of one message's text, and of what it has beside."""

    content: int
    parts: int


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """A message. `parent` is the place of another before it."""

    role: str
    content: str
    created_at: datetime
    parent: int | None = None
    parts: msgspec.Raw = NULL
    model: str | None = None
    finish_reason: str | None = None


class Usable(msgspec.Struct, frozen=True, tag="usable", tag_field="kind", omit_defaults=True):
    """A conversation that can be made. Its messages are `messages` lines from byte `offset` of the second file on."""

    place: int  # in the upload, over all of its files
    source_id: str
    title: str
    created_at: datetime
    updated_at: datetime
    offset: int
    messages: int
    digest: str  # of what it says, ids left out: the same conversation has the same
    head: int | None = None
    system_prompt: str | None = None
    model: str | None = None
    project: ProjectEntry | None = None
    archived: bool = False
    pinned: bool = False
    tags: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Unusable(msgspec.Struct, frozen=True, tag="unusable", tag_field="kind", omit_defaults=True):
    """A conversation that can't be made, and why: `problem` says where in the file."""

    place: int
    source_id: str
    title: str
    problem: str


Entry = Usable | Unusable


class Wrong(ValueError):
    """Something in a conversation can't be used. The message says where and what."""


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_encoder = msgspec.json.Encoder()


class Normalized:
    """The two files, written in a folder. `now` is the time of what tells no time of its own."""

    def __init__(self, folder: Path, now: datetime) -> None:
        self.now = now
        self._index = (folder / INDEX).open("wb")
        self._messages: IO[bytes] = (folder / MESSAGES).open("wb")
        self._start = 0
        self._digest = sha256()
        self.usable = 0
        self.unusable = 0
        self.messages = 0
        self._lines = 0

    @property
    def place(self) -> int:
        """Of the next conversation."""
        return self.usable + self.unusable

    def begin(self) -> None:
        """A conversation begins; what is left of one that came to nothing is forgotten."""
        self._messages.seek(self._start)
        self._messages.truncate()
        self._digest = sha256()
        self._lines = 0

    def add(self, line: Line) -> None:
        """Its next message."""
        text = _encoder.encode(line) + b"\n"
        # When it is imported makes no other conversation of it.
        timeless = line.created_at == self.now
        self._digest.update(_encoder.encode(replace(line, created_at=_EPOCH)) if timeless else text)
        self._messages.write(text)
        self._lines += 1

    @property
    def written(self) -> int:
        """Messages of the conversation so far."""
        return self._lines

    def keep(
        self,
        *,
        source_id: str,
        title: str,
        created_at: datetime,
        updated_at: datetime,
        head: int | None,
        system_prompt: str | None = None,
        model: str | None = None,
        project: ProjectEntry | None = None,
        archived: bool = False,
        pinned: bool = False,
        tags: tuple[str, ...] = (),
        notes: tuple[str, ...] = (),
    ) -> None:
        """The conversation is complete."""
        begun = created_at if created_at != self.now else None
        self._digest.update(_encoder.encode([title, system_prompt, begun]))
        entry = Usable(
            place=self.place,
            source_id=source_id,
            title=title,
            created_at=created_at,
            updated_at=updated_at,
            offset=self._start,
            messages=self._lines,
            digest=self._digest.hexdigest(),
            head=head,
            system_prompt=system_prompt,
            model=model,
            project=project,
            archived=archived,
            pinned=pinned,
            tags=tags,
            notes=notes,
        )
        self._index.write(_encoder.encode(entry) + b"\n")
        self._start = self._messages.tell()
        self.usable += 1
        self.messages += self._lines

    def refuse(self, *, source_id: str, title: str, problem: str) -> None:
        """The conversation can't be used."""
        self.begin()
        self._index.write(_encoder.encode(Unusable(self.place, source_id, title, problem)) + b"\n")
        self.unusable += 1

    def close(self) -> None:
        self._index.close()
        self._messages.close()
