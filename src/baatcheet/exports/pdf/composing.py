"""From messages to what the typesetter is given, in portions that it can hold."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, islice
from pathlib import Path
from typing import Final

import msgspec
from msgspec.structs import replace

from baatcheet.exports import wording
from baatcheet.exports.document import Attached, Document, Said, Talk
from baatcheet.exports.pdf import code, markdown, pieces, text
from baatcheet.exports.pdf.contents import Entry
from baatcheet.exports.pdf.pictures import FORMATS, Pictures
from baatcheet.exports.pdf.tree import (
    Block,
    Bullets,
    Cell,
    Code,
    Gap,
    Heading,
    Inset,
    Linked,
    Listing,
    Look,
    Newline,
    Note,
    Numbers,
    Opening,
    Pages,
    Paragraph,
    Part,
    Piece,
    Quote,
    Style,
    Styled,
    Table,
    Tinted,
    Turn,
)
from baatcheet.kit.text import headline

PORTION: Final = 400_000  # bytes of JSON: what one run of the typesetter gets
MESSAGES: Final = 400
PICTURE: Final = 30_000  # bytes of a portion that a picture counts as
TITLE: Final = 90  # characters of a line in the table of contents, and of a bookmark
LONG_TITLE: Final = 300
BEGINNING: Final = 3  # blocks in which the first words of a message are looked for
LARGE_WORD: Final = 16  # units of a word in a title, from which on it may break
_KINDS: Final = {
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "system": "system",
    "developer": "system",
}
_PICTURES: Final = {f"image/{name.lower()}" for name in FORMATS}

_encode = msgspec.json.encode


@dataclass(frozen=True)
class Portion:
    """What one run of the typesetter gets."""

    path: Path
    messages: int  # of the document, up to its end
    headings: int  # in it
    pictures: list[Path]  # that it shows


class Composer:
    """Turns the lines of a document into portions. `entries` grows by each heading; `seen` by each character."""

    def __init__(self, document: Document, folder: Path, look: Look) -> None:
        self.entries: list[Entry] = []
        self.seen: set[str] = set()
        self.messages = 0
        self.talks = 0
        self.first: datetime | None = None
        self.latest: datetime | None = None
        self.pictures = Pictures(folder)
        self.clock = wording.Clock(document)
        self._folder = folder
        self._look = look
        self._portions = 0
        self._number = 0  # of a message in its conversation
        self._language = ""  # of the latest text in the Arabic script
        self._running: Cell | None = None
        self._alone = document.conversations == 1
        self._start()

    def _start(self) -> None:
        self._parts: list[Part] = []
        self._size = self._held = 0
        self._headings = 0

    def add(self, line: Talk | Said) -> Iterator[Portion]:
        """Take in one line; gives the portions that are full by then."""
        if isinstance(line, Talk):
            self._talk(line)
            if self._size >= PORTION:
                yield self._portion()
            return
        yield from self._said(line)

    def end(self) -> Iterator[Portion]:
        """What is left."""
        if self._parts:
            yield self._portion()

    def _talk(self, talk: Talk) -> None:
        self.talks += 1
        self._number = 0
        title = cell(headline(text.shown(wording.title(talk)), LONG_TITLE), LARGE_WORD)
        brief = short_cell(wording.title(talk))
        self._running = None if self._alone else brief
        about = [self.clock.at(talk.created_at)]
        if talk.messages:
            about.append(wording.counted(talk.messages, "message"))
        if talk.model:
            about.append(short(talk.model, 60))
        prompt = list(self._read(talk.system_prompt))
        self._see(wording.title(talk), talk.model, talk.system_prompt)
        shown = "".join(_words(title.pieces))
        self._enter(Entry(1, shown, brief, "", talk.created_at))
        self._note_headings(prompt, "system", talk.created_at)
        encoded = [_encode(block) for block in prompt]
        self._size += 300 + sum(map(len, encoded))
        self._parts.append(
            Part(self._running, [Opening(title, " · ".join(about), [msgspec.Raw(one) for one in encoded])])
        )

    def _said(self, said: Said) -> Iterator[Portion]:
        self.messages += 1
        self._number += 1
        self.first = self.first if self.first is not None and self.first <= said.at else said.at
        self.latest = self.latest if self.latest is not None and self.latest >= said.at else said.at
        blocks = chain(self._content(said), self._beside(said))
        beginning = list(islice(blocks, BEGINNING))
        label = short_cell(wording.author(said), 40)
        about = self.clock.at(said.at)
        if said.model and said.role == "assistant":
            about = f"{short(said.model, 40)} · {about}"
        self._see(said.author, said.model, said.content)
        opening = headline(" ".join(_first_words(beginning)), TITLE)
        line = short_cell(opening or about)
        self._enter(Entry(2, f"{wording.author(said)}: {opening}", line, said.role, said.at))
        turn = Turn(_KINDS[said.role], label, about, f"#{self._number}", [])
        yield from self._turns(turn, chain(beginning, blocks), said)
        self._size += 200 + PICTURE * self.pictures.waiting
        self._held += 1
        if self._size >= PORTION or self._held >= MESSAGES:
            yield self._portion()

    def _turns(self, turn: Turn, blocks: Iterable[Block], said: Said) -> Iterator[Portion]:
        """Put a message into the portion; where it is too long for the rest of it, into as many as it takes."""
        waiting: list[msgspec.Raw] = []
        first = True
        for block in blocks:
            encoded = _encode(block)
            if waiting and self._size + len(encoded) > PORTION:
                self._put(replace(turn, blocks=waiting, first=first, last=False))
                yield self._portion()
                waiting, first = [], False
            waiting.append(msgspec.Raw(encoded))
            # Each piece of it takes room of its own, however short it is.
            self._size += len(encoded) + 15 * encoded.count(b"[")
            self._note_headings([block], said.role, said.at)
        self._put(replace(turn, blocks=waiting, first=first))

    def _put(self, turn: Turn) -> None:
        if not self._parts:
            self._parts.append(Part(self._running, []))
        self._parts[-1].entries.append(turn)

    def _portion(self) -> Portion:
        path = self._folder / f"portion-{self._portions}.json"
        path.write_bytes(_encode(Pages(self._look, self._parts)))
        made = Portion(path, self.messages, self._headings, self.pictures.taken())
        self._portions += 1
        self._start()
        return made

    def _content(self, said: Said) -> Iterator[Block]:
        if said.role == "tool" and said.content[:100].lstrip()[:1] in {"{", "["}:
            return code.listings(said.content, "json")
        return self._read(said.content)

    def _read(self, source: str) -> Iterator[Block]:
        self._language = text.language(source[: markdown.LANGUAGE], self._language) or self._language
        return markdown.blocks(source, self.pictures.of_url, self._language)

    def _beside(self, said: Said) -> Iterator[Block]:
        """What a message has besides its text."""
        for call in said.calls:
            self._see(call.name, call.arguments)
            yield Note(["Called the tool ", Styled(Style.BOLD, text.shown(call.name).replace("\n", " "))])
            if call.arguments.strip():
                yield from code.listings(call.arguments, "json")
        for attached in said.attachments:
            self._see(attached.name)
            yield from self._attached(attached)
        if note := wording.ending(said):
            yield Note([Styled(Style.ITALIC, note)])

    def _attached(self, attached: Attached) -> Iterator[Block]:
        name = text.shown(wording.file_line(attached)).replace("\n", " ")
        picture: Inset | None = None
        if attached.path and (attached.media_type in _PICTURES or attached.media_type == "image/*"):
            picture = self.pictures.of_file(Path(attached.path), name)
        if picture is not None:
            yield Paragraph(0, "", [picture])
        yield Note(
            [
                f"{'Picture' if attached.media_type.startswith('image/') else 'File'}: ",
                *pieces.as_written(name),
            ]
        )

    def _see(self, *texts: str) -> None:
        for one in texts:
            if not one.isascii():
                self.seen.update(text.shown(one))

    def _enter(self, entry: Entry) -> None:
        self.entries.append(entry)
        self._headings += 1

    def _note_headings(self, blocks: Sequence[Block], role: str, at: datetime) -> None:
        for heading in headings(blocks):
            words = "".join(_words(heading.pieces))
            self._enter(Entry(heading.level + 2, headline(words, TITLE), short_cell(words), role, at))


def cell(words: str, most: int = text.LONG_WORD) -> Cell:
    """`words` as they are, as one line of text; one of them that is of more than `most` units may break."""
    line = text.shown(words).replace("\n", " ")
    return Cell(text.direction([line]), text.language(line), pieces.as_written(line, most))


def short(words: str, units: int = TITLE) -> str:
    """The beginning of `words`, as much as fits on one line of so many units."""
    line = headline(text.shown(words), units)
    while not text.is_narrow(line) and text.width(line) > units:
        line = headline(line, min(len(line) - 1, max(2, len(line) * units // text.width(line))))
    return line


def short_cell(words: str, units: int = TITLE) -> Cell:
    return cell(short(words, units))


def headings(blocks: Sequence[Block]) -> Iterator[Heading]:
    """The headings in `blocks`, in the order in which they are set."""
    for block in blocks:
        match block:
            case Heading():
                yield block
            case Quote():
                yield from headings(block.blocks)
            case Bullets() | Numbers():
                for item in block.items:
                    yield from headings(item)
            case _:
                pass


def _words(pieces: Sequence[Piece]) -> Iterator[str]:
    for piece in pieces:
        match piece:
            case str():
                yield piece
            case Styled():
                yield piece.text
            case Code() | Linked():
                yield from _words(piece.pieces)
            case Inset():
                yield piece.alternative
            case Newline():
                yield " "
            case _:
                pass


def _first_words(blocks: Sequence[Block]) -> Iterator[str]:
    """The words with which `blocks` begin."""
    for block in blocks:
        match block:
            case Paragraph() | Heading() | Note():
                yield "".join(_words(block.pieces))
            case Quote():
                yield from _first_words(block.blocks)
            case Bullets() | Numbers():
                for item in block.items:
                    yield from _first_words(item)
            case Table():
                yield " ".join("".join(_words(one.pieces)) for one in block.header)
            case Listing():
                yield " ".join("".join(_code_words(row)) for row in block.lines[:5])
            case _:
                continue
        return


def _code_words(row: Sequence[str | Tinted | Gap]) -> Iterator[str]:
    for piece in row:
        if isinstance(piece, str):
            yield piece
        elif isinstance(piece, Tinted):
            yield piece.text
