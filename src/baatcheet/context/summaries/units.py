"""From messages to units: sentences, clauses of long ones, and the telling lines of code."""

# ruff: noqa: RUF001 - letters and punctuation of several scripts, each meant

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from baatcheet.context.summaries.sections import EARLIER, Line

LONGEST = 240  # characters of a unit; a longer sentence is taken apart at its clauses
SEAM = " · "  # between units on one line
_LONGEST_WORD = 120  # characters; more is data, not language, unless it is an address
_CODE_LINES = 4  # units of one code block

_FENCE = re.compile(r"^[ \t]*(?:```|~~~)[ \t]*([\w+#.-]*)[^\n]*$", re.MULTILINE)
_SENTENCE_END = re.compile(r"(?<=[.!?؟۔।…])[\"'”’)\]*_]*\s+|(?<=[。！？])|\s·\s|\n+")
_ABBREVIATION = re.compile(
    r"(?:^|[\s(])(?:[A-Z]|Dr|Mr|Mrs|Ms|Prof|St|Rs|No|Nr|vs|e\.g|i\.e|approx|Eng|Inc|Ltd|Jan|Feb|Aug|Sept|Oct|Nov|Dec|\d+)\.$",
    re.IGNORECASE,
)
_CLAUSE_END = re.compile(r"(?<=[,;:،؛—–|、，；])\s*|\s(?=(?:and|but|because|aur|lekin|اور|لیکن|और|लेकिन)\s)")
_MARKUP = re.compile(r"^\s*(?:[-*+•>]\s+|#{1,6}\s+|>\s*)+|\*\*|__(?=\S)|(?<=\S)__")
_RULE = re.compile(r"^[\W_]*$")
_SPEAKER = re.compile(r"^(User|Assistant|Tool|System|Developer|Function): ")
_DAY = re.compile(r"^\[(\d{4}-\d\d-\d\d)\]$")
_SIGNATURE = re.compile(
    r"^\s*(?:(?:export|default|public|private|protected|static|final|async|pub|abstract|override)\s+)*"
    r"(?:def|class|function|fn|func|interface|struct|enum|trait|impl|type|module|package|namespace|"
    r"CREATE|ALTER|DROP|SELECT|INSERT|UPDATE|DELETE|FROM|@app\.\w+|@router\.\w+)\b|"
    r"^\s*(?:export\s+|const\s+|let\s+|var\s+|static\s+)*[A-Z][A-Z0-9_]{2,}\s*(?::[^=\n]+)?[:=]"
    r"|^\s*(?:\w+\s+){1,3}\w+\s*\([^;\n]*\)\s*\{\s*$|^\s*\w*(?:Error|Exception)\b.*:",
)


class Unit(NamedTuple):
    """One thing that was said, short enough to be quoted."""

    message: int  # its place in the block
    role: str  # empty: nobody's in particular
    day: str  # 2026-03-02, or empty
    text: str
    code: bool = False


def units(lines: Sequence[Line]) -> list[Unit]:
    """All of `lines`, in order."""
    made: list[Unit] = []
    for number, line in enumerate(lines):
        if line.role == EARLIER:
            made += _of_a_summary(number, line.text)
        else:
            day = line.at.date().isoformat() if line.at else ""
            made += [Unit(number, line.role, day, text, code) for text, code in _pieces(line.text)]
    return made


def _of_a_summary(number: int, text: str) -> Iterator[Unit]:
    """What a summary holds, each unit with the speaker and the day that stand in it."""
    day = ""
    for row in text.split("\n"):
        line = _MARKUP.sub("", row).strip()
        if found := _DAY.match(line):
            day = found.group(1)
            continue
        speaker = _SPEAKER.match(line)
        role = speaker.group(1).lower() if speaker else ""
        for piece in _sentences(line[speaker.end() :] if speaker else line):
            code = len(piece) > 1 and piece.startswith("`") and piece.endswith("`")
            yield Unit(number, role, day, piece.strip("`") if code else piece, code)


def _pieces(text: str) -> Iterator[tuple[str, bool]]:
    """The units of a message's text, and of each whether it is code."""
    at, language = 0, None
    for fence in _FENCE.finditer(text):
        yield from _block(text[at : fence.start()], language)
        language = None if language is not None else fence.group(1)
        at = fence.end()
    yield from _block(text[at:], language)


def _block(text: str, language: str | None) -> Iterator[tuple[str, bool]]:
    if language is None:
        yield from ((piece, False) for piece in _sentences(text))
    else:
        yield from ((line, True) for line in _telling_lines(text))


def _telling_lines(code: str) -> list[str]:
    """Signatures, constants and errors of a piece of code, else its first line."""
    rows = [row[: 2 * LONGEST] for row in code.split("\n") if not _RULE.match(row[: 2 * LONGEST])]
    telling = [row for row in rows if _SIGNATURE.match(row)][:_CODE_LINES] or rows[:1]
    return [" ".join(row.split())[:LONGEST] for row in telling]


def _sentences(text: str) -> Iterator[str]:
    begun = ""
    for piece in _split(text, _SENTENCE_END):
        joined = f"{begun} {piece}".strip() if begun else piece.strip()
        if _ABBREVIATION.search(joined[-12:]) and len(joined) < LONGEST:
            begun = joined
            continue
        begun = ""
        yield from _clean(joined)
    yield from _clean(begun)


def _split(text: str, at: re.Pattern[str]) -> Iterator[str]:
    """The parts of `text` between the matches of `at`; a match's closing quotes stay with what is before."""
    start = 0
    for found in at.finditer(text):
        closing = len(found.group().rstrip()) if "·" not in found.group() else 0
        yield text[start : found.start() + closing]
        start = found.end()
    yield text[start:]


def _clean(sentence: str) -> Iterator[str]:
    """`sentence` without markup, in parts when it is long; nothing when it says nothing."""
    shown = " ".join(_short_words(_MARKUP.sub("", sentence).split()))
    if _RULE.match(shown):
        return
    if len(shown) <= LONGEST:
        yield shown
        return
    part = ""
    for clause in _CLAUSE_END.split(shown):
        for piece in _in_reach(clause):
            if part and len(part) + len(piece) >= LONGEST:
                yield part + " …"
                part = ""
            part = f"{part} {piece}".strip()
    if part:
        yield part


def _short_words(found: Sequence[str]) -> Iterator[str]:
    for word in found:
        if len(word) <= _LONGEST_WORD:
            yield word
        elif "://" in word[:_LONGEST_WORD]:
            yield word[:LONGEST]
        elif word.isascii():
            yield word[:24] + "…"
        else:  # a script that puts no blanks between its words
            yield from (word[at : at + _LONGEST_WORD] for at in range(0, len(word), _LONGEST_WORD))


def _in_reach(clause: str) -> Iterator[str]:
    """`clause` in parts that fit a unit, divided between words."""
    part = ""
    for word in clause.split():
        if part and len(part) + len(word) >= LONGEST:
            yield part
            part = ""
        part = f"{part} {word}".strip()
    if part:
        yield part
