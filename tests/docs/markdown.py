"""Our documents as the tests read them: their snippets, their links, their headings."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

_FENCE = re.compile(r"^```(?P<language>\S*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`[^`\n]*`")
_LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} (?P<text>.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Snippet:
    """One fenced block; `line` is the number of its first line in the document."""

    language: str
    text: str
    line: int


def documents() -> list[Path]:
    """Every document that a reader may come to."""
    return [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def name_of(document: Path) -> str:
    return str(document.relative_to(ROOT))


def snippets(document: Path) -> list[Snippet]:
    """The document's fenced blocks, in order."""
    text = document.read_text("utf-8")
    return [
        Snippet(found["language"], found["text"], text.count("\n", 0, found.start("text")) + 1)
        for found in _FENCE.finditer(text)
    ]


def links(document: Path) -> list[str]:
    """Where the document's links lead, code left out."""
    prose = _CODE.sub("", _FENCE.sub("", document.read_text("utf-8")))
    return [found["target"] for found in _LINK.finditer(prose)]


def anchors(document: Path) -> set[str]:
    """The names of the document's headings, as the sites that show it make them."""
    prose = _FENCE.sub("", document.read_text("utf-8"))
    return {_anchor(found["text"]) for found in _HEADING.finditer(prose)}


def _anchor(heading: str) -> str:
    kept = re.sub(r"[^\w\- ]", "", heading.strip().lower())
    return kept.replace(" ", "-")
