"""Text as it is set: what acts unseen made visible, its direction and language, and where an endless word may break."""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Final

from baatcheet.exports.pdf.tree import Direction

# A word of more units than this gets places where it may break; a unit is half an em, about a Latin letter.
LONG_WORD: Final = 32
STEP: Final = 8
EMBEDDED: Final = 30  # levels of direction in each other, of the 125 that there may be
MARKS: Final = 40  # of them on one letter, at most
# A letter from left to right that is not seen; and what is set so between the other two, wherever it stands (UAX #9).
LRM: Final = "\u200e"
LRI: Final = "\u2066"
PDI: Final = "\u2069"
ZERO_WIDTH_SPACE: Final = "\u200b"

_BREAKS = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
# Controls; the two overrides, which turn readable text around; noncharacters; what joins lines or breaks words unseen.
_UNSHOWN = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x9f\xad\u202d\u202e\u2060\ufeff\ufdd0-\ufdef\ufff9-\ufffb\ufffe\uffff\ud800-\udfff"
    + "".join(f"{chr(plane << 16 | 0xFFFE)}{chr(plane << 16 | 0xFFFF)}" for plane in range(1, 17))
    + "]"
)
_DIRECTING = re.compile("[\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069]")
_JOINERS_AFTER_HAN = re.compile(
    "(?<=[\u2e80-\u2fdf\u3005-\u3007\u3400-\u9fff\uac00-\ud7a3\uf900-\ufaff])[\u200c\u200d]+"
)


def shown(text: str) -> str:
    """`text` with one kind of line break, and every character that would act unseen removed or made visible."""
    if text.isascii() and text.isprintable():
        return text
    text = _JOINERS_AFTER_HAN.sub("", _UNSHOWN.sub(_visible, _BREAKS.sub("\n", text)))
    return _MAY_BE_MARKS.sub(_fewer_marks, _flatter(text) if _OPENING.search(text) else text)


_OPENING = re.compile("[\u202a\u202b\u2066-\u2068]")
_NESTING = re.compile("[\u202a-\u202c\u2066-\u2069]|\n\n")


def _flatter(text: str) -> str:
    """`text` without the embeddings and isolates that are deeper in each other than the typesetter can bear."""
    depth = 0

    def kept(match: re.Match[str]) -> str:
        nonlocal depth
        one = match.group()
        if one == "\n\n":
            depth = 0
        elif _OPENING.match(one):
            depth += 1
            if depth > EMBEDDED:
                return ""
        else:
            depth = max(0, depth - 1)
        return one

    return _NESTING.sub(kept, text)


# What is neither letter nor digit nor blank nor ASCII: marks are among it.
_MAY_BE_MARKS = re.compile(f"[^\\w\\s!-~]{{{MARKS + 1},}}")


def _fewer_marks(match: re.Match[str]) -> str:
    """The run without the marks that are too many for one letter: shaping takes the square of their number."""
    kept: list[str] = []
    marks = 0
    for one in [*match.group(), " "]:
        if _units(one) == 0:
            marks += 1
            if marks > MARKS:
                continue
        else:
            if marks > MARKS:
                kept.append(f"\u2039{marks - MARKS:,} more marks\u203a")
            marks = 0
        kept.append(one)
    return "".join(kept[:-1])


def shown_code(text: str) -> str:
    """The same for code, where marks of direction, too, are made visible: they are how code lies about its order."""
    return _DIRECTING.sub(_named, shown(text))


def _visible(match: re.Match[str]) -> str:
    one = match.group()
    code = ord(one)
    if one in "\xad\u2060\ufeff":
        return ""
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "\u2421"
    return _named(match) if one in "\u202d\u202e" else "\ufffd"


def _named(match: re.Match[str]) -> str:
    return f"\u2039U+{ord(match.group()):04X}\u203a"


def direction(texts: Iterable[str], otherwise: Direction = Direction.LTR) -> Direction:
    """The direction of a paragraph: that of its first strong character (UAX #9, P2), `otherwise` if there is none."""
    depth = 0
    for text in texts:
        if not depth and text.isascii():
            if any(one.isalpha() for one in text[:200]) or any(one.isalpha() for one in text):
                return Direction.LTR
            continue
        for one in text:
            match unicodedata.bidirectional(one):
                case "LRI" | "RLI" | "FSI":
                    depth += 1
                case "PDI":
                    depth = max(0, depth - 1)
                case "L" if not depth:
                    return Direction.LTR
                case "R" | "AL" if not depth:
                    return Direction.RTL
                case _:
                    pass
    return otherwise


_ARABIC = re.compile("[\u0600-\u06ff\u0750-\u077f\u08a0-\u08ff\ufb50-\ufdff\ufe70-\ufefc]")
_URDU = re.compile("[ٹڈڑںےۓہھۂۃ\u06d4]")
_PERSIAN = re.compile("[گچپژکی]")
_ARABIC_ONLY = re.compile("[ةىيك]")
_LANGUAGES = (
    ("ja", re.compile("[\u3040-\u30ff]")),
    ("ko", re.compile("[\u1100-\u11ff\uac00-\ud7af]")),
    ("zh", re.compile("[\u3400-\u9fff]")),
    ("hi", re.compile("[\u0900-\u097f]")),
    ("he", re.compile("[\u0590-\u05ff]")),
)


def language(text: str, otherwise: str = "") -> str:
    """The language that `text` is set as, "" for English and all that need none: it decides fonts, and letters' forms.

    Where the letters leave open which language of the Arabic script it is, it is `otherwise`.
    """
    if text.isascii():
        return ""
    if _ARABIC.search(text):
        if _URDU.search(text):
            return "ur"
        if _ARABIC_ONLY.search(text):
            return "ar"
        return otherwise if otherwise in {"ur", "fa", "ar"} else "fa" if _PERSIAN.search(text) else "ar"
    for name, sign in _LANGUAGES:
        if sign.search(text):
            # A word of it in other text is no reason to set the whole as that.
            return name if 4 * len(sign.findall(text)) >= len(text) else ""
    return ""


_WIDE = {
    "\ufdfd": 26,
    "\ufdfa": 8,
    "\ufdfb": 6,
    "\u2e3a": 5,
    "\u2e3b": 7,
    "\u2014": 3,
    "\U0001242b": 24,
    "\U00012219": 12,
}
_VERY_WIDE = re.compile(f"[{''.join(one for one, units in _WIDE.items() if units > 2)}]")
_PICTURES = "\U0001f300-\U0001f3fa\U0001f400-\U0001f64f\U0001f680-\U0001f6ff\U0001f900-\U0001f9ff\U0001fa70-\U0001faff"
# Between two of these a line may end anyway; not before the small kana and the marks that lengthen or repeat.
_ENDS = re.compile(f"[{_PICTURES}\u3041-\u30ff\u3400-\u9fff\uac00-\ud7a3\uf900-\ufaff\U00020000-\U0003fffd]")
_STARTS = re.compile(
    f"[{_PICTURES}\u3042\u3044\u3046\u3048\u304a-\u3062\u3064-\u3082\u3084\u3086\u3088-\u308d\u308f-\u3094"
    "\u30a2\u30a4\u30a6\u30a8\u30aa-\u30c2\u30c4-\u30e2\u30e4\u30e6\u30e8-\u30ed\u30ef-\u30f4"
    "\u3400-\u9fff\uac00-\ud7a3\uf900-\ufaff\U00020000-\U0003fffd]"
)
# Scripts without blanks, where the typesetter's dictionary knows better: cut seldom.
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]")


def pieces(text: str, most: int = LONG_WORD, step: int = STEP) -> list[str]:
    """`text` in pieces between which a line may end, where it otherwise could not for more than `most` units.

    An invisible distance lets it end there (`tree.Gap`), but not next to most brackets and quotation marks (UAX #14):
    there a piece ends with a zero-width space. A piece never begins with what belongs to the character before: a mark,
    a joiner, a modifier, the second half of a flag.
    """
    pattern = _ANY_WORD if _VERY_WIDE.search(text) else _word(most)
    cuts = [
        match.start() + cut for match in pattern.finditer(text) for cut in _cuts(match.group(), most, step)
    ]
    if not cuts:
        return [text]
    found: list[str] = []
    at = 0
    for cut in cuts:
        part = text[at:cut]
        found.append(part if _may_end_between(part[-1], text[cut]) else part + ZERO_WIDTH_SPACE)
        at = cut
    return [*found, text[at:]]


def _may_end_between(before: str, after: str) -> bool:
    """Whether a line may end between the two when there is a blank between them."""
    return after.isalnum() and before not in "\"'" and unicodedata.category(before) not in {"Ps", "Pi", "Pf"}


_ANY_WORD = re.compile("[^ \t\n]+")


@lru_cache
def _word(most: int) -> re.Pattern[str]:
    """What may be wider than `most`: a character is two units at most, but for those that are very wide."""
    return re.compile(f"[^ \t\n]{{{max(1, most // 2)},}}")


def _cuts(word: str, most: int, step: int) -> Iterator[int]:
    """Where `word` is cut."""
    if word.isascii():
        if len(word) > most:
            yield from _cuts_in_ascii(word, step)
        return
    start = 0
    for at in range(1, len(word)):
        if _STARTS.match(word, at) and _ENDS.match(word, at - 1):
            yield from _cuts_between(word, start, at, most, step)
            start = at
    yield from _cuts_between(word, start, len(word), most, step)


def _cuts_in_ascii(word: str, step: int) -> Iterator[int]:
    """A cut every `step` characters, or a little before, where a line may end more easily."""
    at = step
    while at < len(word):
        near = (
            place for place in range(at, at - step // 2, -1) if _may_end_between(word[place - 1], word[place])
        )
        cut = next(near, at)
        yield cut
        at = cut + step


def _cuts_between(word: str, start: int, end: int, most: int, step: int) -> Iterator[int]:
    """Where that part of `word` is cut, in which a line may not end anyway."""
    if width(word[start:end]) <= most:
        return
    since = flags = 0
    before = ""
    for at in range(start, end):
        one = word[at]
        units = _units(one)
        if at > start and since + units > step:
            # What belongs together is parted only where no end of it is to be seen.
            together = _joined(before, one) or _belongs(before, one, flags)
            seldom = 4 if _UNSPACED.match(one) else 3 if together else 1
            if since + units > step * seldom:
                yield at
                since = 0
        flags = flags + 1 if "\U0001f1e6" <= one <= "\U0001f1ff" else 0
        since += units
        before = one


def is_narrow(text: str) -> bool:
    """Whether no character of `text` is wider than one unit: so it is before the Hangul letters."""
    return text.isascii() or max(text) < "\u1100"


def width(text: str) -> int:
    """How many units `text` may take, at most or nearly so."""
    return len(text) if text.isascii() else sum(map(_units, text))


def _units(one: str) -> int:
    if one < "\u0300":
        return 1
    if one in _WIDE:
        return _WIDE[one]
    if unicodedata.combining(one) or unicodedata.category(one) in {"Mn", "Me", "Cf"}:
        return 0
    return 2 if unicodedata.east_asian_width(one) in "WF" or one > "\uffff" else 1


def _belongs(before: str, one: str, flags: int) -> bool:
    """Whether `one` belongs to the character before it."""
    if one < "\u0300":
        return False
    if before == "\u200d" or unicodedata.combining(before) == 9:
        return True
    if "\U0001f1e6" <= one <= "\U0001f1ff":
        return flags % 2 == 1
    return (
        one in "\u200c\u200d\ufe0e\ufe0f\u20e3"
        or unicodedata.category(one) in {"Mn", "Mc", "Me"}
        or "\U0001f3fb" <= one <= "\U0001f3ff"
        or "\U000e0020" <= one <= "\U000e007f"
    )


def _joined(before: str, one: str) -> bool:
    """Whether two letters are written as one, so that a cut between them would be seen."""
    return bool(_ARABIC.match(before) and _ARABIC.match(one))


# Emoji as UTS #51 has them, but for those that are text unless asked (©, ☎): these need the selector U+FE0F.
_BASE = (
    "[\U0001f000-\U0001f0ff\U0001f18e\U0001f191-\U0001f19a\U0001f200-\U0001f2ff\U0001f300-\U0001f3fa\U0001f400-\U0001f64f"
    "\U0001f680-\U0001f6ff\U0001f7e0-\U0001f7eb\U0001f90c-\U0001f9ff\U0001fa70-\U0001faff"
    "\u231a\u231b\u23e9-\u23ec\u23f0\u23f3\u25fd\u25fe\u2614\u2615\u2648-\u2653\u267f\u2693\u26a1\u26aa\u26ab\u26bd"
    "\u26be\u26c4\u26c5\u26ce\u26d4\u26ea\u26f2\u26f3\u26f5\u26fa\u26fd\u2705\u270a\u270b\u2728\u274c\u274e"
    "\u2753-\u2755\u2757\u2795-\u2797\u27b0\u27bf\u2b1b\u2b1c\u2b50\u2b55]"
)
_ONE = (
    "(?:[\U0001f1e6-\U0001f1ff]{2}|[0-9#*]\ufe0f?\u20e3"
    f"|(?:{_BASE}\ufe0f?|[\xa9\xae\u203c-\u3299]\ufe0f)[\U0001f3fb-\U0001f3ff]?[\U000e0020-\U000e007f]*)"
)
_EMOJI = re.compile(f"(?:{_ONE}(?:\u200d(?:{_ONE}|[\u2600-\u27bf\u2b00-\u2bff]\ufe0f?))*)+")
_MAY_BE_EMOJI = re.compile("[\u203c-\u3299\ufe0f\u20e3\U0001f000-\U0001faff]")


def with_emoji(text: str) -> Iterator[tuple[bool, str]]:
    """`text` in runs, each with whether it is emoji."""
    if text.isascii() or not _MAY_BE_EMOJI.search(text):
        yield False, text
        return
    at = 0
    for match in _EMOJI.finditer(text):
        if match.start() > at:
            yield False, text[at : match.start()]
        yield True, match.group()
        at = match.end()
    if at < len(text):
        yield False, text[at:]
