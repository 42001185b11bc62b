"""A portion that can't be set, without the messages in it that are why.

There is no such message that we know of. But a typesetter is a large program and what is said is anything at all, and
one message is no reason to lose the other ten thousand.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from baatcheet.exports.pdf.composing import headings
from baatcheet.exports.pdf.tree import Block, Cell, Note, Opening, Pages, Part, Turn

_DECODER: Final = msgspec.json.Decoder(Pages)
_BLOCK: Final = msgspec.json.Decoder(Block)
_NOTE: Final = msgspec.Raw(
    msgspec.json.encode(
        Note(["This message can't be set in a PDF. An export as Markdown, text or JSON has it."])
    )
)

Entry = Opening | Turn
Sets = Callable[[Pages], bool]
"""Whether these pages can be set."""


@dataclass(frozen=True)
class Mended:
    """What can be set. `dropped`: which of the portion's headings, counted from 0, are not in it."""

    pages: Pages
    dropped: list[int]


def mended(data: bytes, sets: Sets) -> Mended:
    """The portion `data` with a note in place of each message that can't be set."""
    pages = _DECODER.decode(data)
    places = [(part, entry) for part, one in enumerate(pages.parts) for entry in range(len(one.entries))]
    broken = set(_broken(pages, places, sets))
    dropped: list[int] = []
    number = 0
    parts: list[Part] = []
    for part, one in enumerate(pages.parts):
        entries: list[Entry] = []
        for place, entry in enumerate(one.entries):
            own = 1 if isinstance(entry, Opening) or entry.first else 0
            inner = sum(1 for _ in headings([_BLOCK.decode(block) for block in _blocks(entry)]))
            if (part, place) in broken:
                dropped += range(number + own, number + own + inner)
                entry = _without_content(entry)  # noqa: PLW2901
            number += own + inner
            entries.append(entry)
        parts.append(Part(one.running, entries))
    return Mended(Pages(pages.style, parts), dropped)


def _broken(pages: Pages, places: Sequence[tuple[int, int]], sets: Sets) -> list[tuple[int, int]]:
    """Those of the entries at `places` that can't be set, found by halves."""
    parts = [Part(None, [pages.parts[part].entries[entry]]) for part, entry in places]
    if not parts or sets(Pages(pages.style, parts)):
        return []
    if len(places) == 1:
        return list(places)
    half = len(places) // 2
    return [*_broken(pages, places[:half], sets), *_broken(pages, places[half:], sets)]


def _blocks(entry: Entry) -> list[msgspec.Raw]:
    return entry.prompt if isinstance(entry, Opening) else entry.blocks


def _without_content(entry: Entry) -> Entry:
    if isinstance(entry, Opening):
        return Opening(Cell(0, "", ["Conversation"]), entry.about, [])
    return Turn(entry.kind, Cell(0, "", ["Message"]), "", entry.number, [_NOTE], entry.first, entry.last)
