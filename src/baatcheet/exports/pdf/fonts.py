"""The fonts of a PDF: those of this package, and what the machine has for the scripts that are too large for it."""

import struct
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import IO, Final, Literal

import typst

from baatcheet.exports.pdf.tree import Font, LatinOf, Look

FOLDER: Final = Path(__file__).parent.parent / "fonts"

_OURS = ("Sans", "Naskh", "Devanagari")
_OTHERS: Final = [
    "Hebrew",
    "Bengali",
    "Gujarati",
    "Gurmukhi",
    "Oriya",
    "Tamil",
    "Telugu",
    "Kannada",
    "Malayalam",
    "Sinhala",
    "Thai",
    "Lao",
    "Khmer",
    "Myanmar",
    "Armenian",
    "Georgian",
    "Math",
    "Symbols",
]
_CJK: Final = (
    *(
        "Noto Sans CJK SC",
        "Noto Sans SC",
        "Noto Sans CJK JP",
        "Noto Sans JP",
        "Source Han Sans SC",
        "Source Han Sans",
    ),
    *("WenQuanYi Micro Hei", "Droid Sans Fallback", "PingFang SC", "Hiragino Sans GB", "Microsoft YaHei"),
)
_COLOUR_EMOJI = ("Noto Color Emoji", "Apple Color Emoji", "Segoe UI Emoji", "Twemoji Mozilla")
_NASTALIQ = ("Noto Nastaliq Urdu", "Jameel Noori Nastaleeq", "Urdu Typesetting")
_CODE = "DejaVu Sans Mono"  # inside the typesetter

_CJK_RANGES = (
    (0x2E80, 0x33FF),
    (0x3400, 0x9FFF),
    (0xA960, 0xA97F),
    (0xAC00, 0xD7FF),
    (0xF900, 0xFAFF),
    (0xFF00, 0xFFEF),
)
_BOX_DRAWING = range(0x2500, 0x25A0)  # in the typesetter's own monospaced font


class Shelf:
    """The fonts that there are. Made once for a PDF: looking through the machine's takes a while."""

    def __init__(self, *, system: bool = True) -> None:
        self.fonts = typst.Fonts(include_system_fonts=system, font_paths=[FOLDER])
        self._families = frozenset(self.fonts.families())
        self._has_cjk = any(name in self._families for name in _CJK)

    def look(self, paper: Literal["a4", "letter"], urdu: Literal["naskh", "nastaliq"]) -> Look:
        emoji = [*self._first(_COLOUR_EMOJI), "BaatCheet Emoji"]
        cjk = [name for name in _CJK if name in self._families][:2]
        ours = [f"BaatCheet {name}" for name in _OURS]
        rest = [*cjk, *(f"BaatCheet {name}" for name in _OTHERS), *emoji]
        latin, naskh, devanagari = ours

        def led_by(*first: Font) -> list[Font]:
            return [*first, *(name for name in [*ours, *rest] if name not in first)]

        hand = self._first(_NASTALIQ) if urdu == "nastaliq" else []
        east_asian = led_by(LatinOf(latin), *cjk)
        return Look(
            text=led_by(latin, *hand),
            # The script of a paragraph comes first in it, with its own blanks and brackets.
            languages={
                "ur": led_by(*hand, naskh),
                **dict.fromkeys(("ar", "fa"), led_by(naskh)),
                "he": led_by("BaatCheet Hebrew"),
                "hi": led_by(devanagari),
                **(dict.fromkeys(("zh", "ja", "ko"), east_asian) if cjk else {}),
            },
            code=led_by(_CODE),
            emoji=[*emoji, *ours, "BaatCheet Symbols"],
            nastaliq=bool(hand),
            paper={"a4": "a4", "letter": "us-letter"}[paper],
        )

    def _first(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if name in self._families][:1]

    def missing(self, characters: set[str]) -> list[str]:
        """What of `characters` no font has, as lines in plain words; it is set as empty boxes."""
        left = {ord(one) for one in characters if ord(one) > 0x7E} - set(_BOX_DRAWING)
        for number in list(left):
            if chr(number).isspace() or _is_invisible(number):
                left.discard(number)
        for path, index in self._files():
            if not left:
                break
            left -= _characters(path, index, frozenset(left))
        cjk = set() if self._has_cjk else {number for number in left if _is_cjk(number)}
        notes = []
        if cjk:
            notes.append(
                f"This machine has no font for Chinese, Japanese and Korean: {_some(cjk)} shown as empty boxes. "
                "The Debian package fonts-noto-cjk has one."
            )
        if left - cjk:
            notes.append(f"No font on this machine has {_some(left - cjk)}, shown as empty boxes.")
        return notes

    def _files(self) -> list[tuple[str, int]]:
        """Every font file, those of this package first."""
        found = [(font.path, font.index) for font in self.fonts.fonts() if font.path]
        return sorted(set(found), key=lambda one: (not one[0].startswith(str(FOLDER)), one))


def _is_cjk(number: int) -> bool:
    return any(low <= number <= high for low, high in _CJK_RANGES)


def _is_invisible(number: int) -> bool:
    return (
        number in range(0xFE00, 0xFE10)
        or number in range(0x200B, 0x2070)
        or number in range(0xE0000, 0xE0200)
    )


def _some(numbers: set[int]) -> str:
    """How many characters, and the first of them by their numbers: there is no way to show them."""
    first = ", ".join(f"U+{number:04X}" for number in sorted(numbers)[:4])
    more = ", …" if len(numbers) > 4 else ""
    return f"{len(numbers):,} character{'' if len(numbers) == 1 else 's'} ({first}{more})"


@cache
def _characters(path: str, index: int, wanted: frozenset[int]) -> frozenset[int]:
    """Which of `wanted` the font at `path` has. One that can't be read has none."""
    try:
        with Path(path).open("rb") as file:
            return frozenset(_in_cmap(_cmap(file, index), wanted))
    except (OSError, struct.error):
        return frozenset()


def _cmap(file: IO[bytes], index: int) -> bytes:
    """The table of a TrueType or OpenType file that maps characters to glyphs."""
    start = 0
    if file.read(4) == b"ttcf":
        file.seek(12 + 4 * index)
        (start,) = struct.unpack(">I", file.read(4))
    file.seek(start + 4)
    (tables,) = struct.unpack(">H", file.read(2))
    file.seek(start + 12)
    for _ in range(tables):
        tag, _sum, offset, length = struct.unpack(">4sIII", file.read(16))
        if tag == b"cmap":
            file.seek(offset)
            return file.read(length)
    return b""


def _in_cmap(table: bytes, wanted: frozenset[int]) -> set[int]:
    found: set[int] = set()
    if not table:
        return found
    (count,) = struct.unpack_from(">H", table, 2)
    for number in range(count):
        platform, _encoding, offset = struct.unpack_from(">HHI", table, 4 + 8 * number)
        if platform not in {0, 3}:
            continue
        (kind,) = struct.unpack_from(">H", table, offset)
        if kind == 4:
            found |= _in_segments(table, offset, wanted)
        elif kind == 12:
            (groups,) = struct.unpack_from(">I", table, offset + 12)
            for low, high, _glyph in struct.iter_unpack(
                ">III", table[offset + 16 : offset + 16 + 12 * groups]
            ):
                found.update(one for one in wanted if low <= one <= high)
    return found


def _in_segments(table: bytes, offset: int, wanted: frozenset[int]) -> set[int]:
    (double,) = struct.unpack_from(">H", table, offset + 6)
    segments = double // 2
    form = f">{segments}H"
    ends = struct.unpack_from(form, table, offset + 14)
    starts = struct.unpack_from(form, table, offset + 16 + double)
    deltas = struct.unpack_from(form, table, offset + 16 + 2 * double)
    at = offset + 16 + 3 * double
    places = struct.unpack_from(form, table, at)
    found = set()
    for number, (low, high) in enumerate(zip(starts, ends, strict=True)):
        for one in wanted:
            if not low <= one <= high or one == 0xFFFF:
                continue
            glyph = (one + deltas[number]) & 0xFFFF
            if places[number]:
                (raw,) = struct.unpack_from(">H", table, at + 2 * number + places[number] + 2 * (one - low))
                glyph = (raw + deltas[number]) & 0xFFFF if raw else 0
            if glyph:
                found.add(one)
    return found
