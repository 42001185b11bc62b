"""What is set on a page: the tree that messages are read into, and that the templates get as JSON.

Everything is data. A text is a string and nothing else, whatever is in it: the templates show it and never read it as
their own language. Structs travel as arrays, their tag first.
"""

from enum import IntEnum, IntFlag
from typing import Literal

import msgspec

Align = Literal["start", "left", "center", "right"]


class Direction(IntEnum):
    LTR = 0
    RTL = 1


class Style(IntFlag):
    BOLD = 1
    ITALIC = 2
    STRUCK = 4
    CODE = 8
    MATH = 16
    EMOJI = 32
    FAINT = 64


class Styled(msgspec.Struct, frozen=True, array_like=True, tag="s"):
    """Text in a style. Text without one is a plain string."""

    style: int
    text: str


class Code(msgspec.Struct, frozen=True, array_like=True, tag="c"):
    """Code within a line: in a box of its own, left to right, when it is short; `style` is that around it."""

    style: int
    pieces: list["Piece"]
    boxed: bool


class Linked(msgspec.Struct, frozen=True, array_like=True, tag="a"):
    """A link to `url`."""

    url: str
    pieces: list["Piece"]


class Gap(msgspec.Struct, frozen=True, array_like=True, tag="g"):
    """Nothing, where a line may end."""


class Newline(msgspec.Struct, frozen=True, array_like=True, tag="n"):
    """The end of a line."""


class Inset(msgspec.Struct, frozen=True, array_like=True, tag="i"):
    """A picture: a file beside the templates, and what it shows in words. `points`: how wide it would like to be."""

    file: str
    alternative: str
    points: float


Piece = str | Styled | Code | Linked | Gap | Newline | Inset


class Paragraph(msgspec.Struct, frozen=True, array_like=True, tag="p"):
    direction: int
    language: str
    pieces: list[Piece]


class Heading(msgspec.Struct, frozen=True, array_like=True, tag="h"):
    """A heading in a message, of `level` 1 to 6."""

    level: int
    direction: int
    language: str
    pieces: list[Piece]


class Listing(msgspec.Struct, frozen=True, array_like=True, tag="code"):
    """Code: its lines, each of plain strings and `Tinted` ones. `first` and `last`: whether it begins and ends here."""

    language: str
    lines: list[list["str | Tinted | Gap"]]
    first: bool = True
    last: bool = True


class Tinted(msgspec.Struct, frozen=True, array_like=True, tag="t"):
    """Code in one of the colours of `code.Tint`."""

    tint: int
    text: str


class Quote(msgspec.Struct, frozen=True, array_like=True, tag="q"):
    direction: int
    blocks: list["Block"]


class Bullets(msgspec.Struct, frozen=True, array_like=True, tag="ul"):
    direction: int
    tight: bool
    items: list[list["Block"]]


class Numbers(msgspec.Struct, frozen=True, array_like=True, tag="ol"):
    direction: int
    tight: bool
    start: int
    items: list[list["Block"]]


class Cell(msgspec.Struct, frozen=True, array_like=True, tag="d"):
    direction: int
    language: str
    pieces: list[Piece]


class Table(msgspec.Struct, frozen=True, array_like=True, tag="table"):
    direction: int
    aligns: list[Align]
    header: list[Cell]
    rows: list[list[Cell]]
    small: bool
    repeated: bool  # whether the header stands on each page again


class Rule(msgspec.Struct, frozen=True, array_like=True, tag="hr"):
    """A line across."""


class Note(msgspec.Struct, frozen=True, array_like=True, tag="note"):
    """What we say ourselves, beside what was said."""

    pieces: list[Piece]


Block = Paragraph | Heading | Listing | Quote | Bullets | Numbers | Table | Rule | Note


class Opening(msgspec.Struct, frozen=True, array_like=True, tag="talk"):
    """The head of a conversation, on a new page."""

    title: Cell
    about: str
    prompt: list[msgspec.Raw]  # the blocks of the system prompt


class Turn(msgspec.Struct, frozen=True, array_like=True, tag="said"):
    """A message, or as much of it as has room here: `first` and `last` say whether it begins and ends here."""

    kind: str  # user, assistant, system, tool
    label: Cell
    about: str  # model and time
    number: str
    blocks: list[msgspec.Raw]
    first: bool = True
    last: bool = True


class Part(msgspec.Struct, frozen=True):
    """Entries of one conversation, on pages of their own. `running` stands at the top of each page, if at all."""

    running: Cell | None
    entries: list[Opening | Turn]


class LatinOf(msgspec.Struct, frozen=True):
    """The letters of a font, without the punctuation that it shares with East Asian ones."""

    name: str
    covers: Literal["latin-in-cjk"] = "latin-in-cjk"


Font = str | LatinOf


class Look(msgspec.Struct, frozen=True):
    """The paper, and fonts: by what they are for, in the order in which they are tried. `nastaliq`: how Urdu is set."""

    text: list[Font]
    languages: dict[str, list[Font]]
    code: list[Font]
    emoji: list[Font]
    nastaliq: bool
    paper: str


class Pages(msgspec.Struct, frozen=True):
    """What `messages.typ` makes pages of."""

    style: Look
    parts: list[Part]
