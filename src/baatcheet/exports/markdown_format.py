"""Markdown: what was said, letter by letter, with who said it and when around it.

A message stands between a heading and the next rule, and its own text is not touched. Only what it leaves open, a fence
of code or a comment, is closed after it: it would swallow the messages that follow.
"""

import json
import re
from collections.abc import Iterator
from typing import Final

from baatcheet.exports import wording
from baatcheet.exports.document import Document, Line, Said, Talk
from baatcheet.exports.wording import Clock

_FENCE: Final = re.compile(r"^ {0,3}(`{3,}|~{3,})(.*)$")
_SPECIAL: Final = re.compile(r"([\\`*_\[\]<>#|~&])")


def pieces(lines: Iterator[Line]) -> Iterator[str]:
    """The file, piece by piece, of a document's lines."""
    clock: Clock | None = None
    number = 0
    for line in lines:
        match line:
            case Document():
                clock = Clock(line)
                yield _front_matter(line, clock)
            case Talk():
                assert clock is not None
                number = 0
                yield _talk(line, clock)
            case Said():
                assert clock is not None
                number += 1
                yield _said(line, number, clock)


def _front_matter(document: Document, clock: Clock) -> str:
    """YAML, in which every string is written as JSON writes it."""
    rows = [
        ("title", json.dumps(_line(document.title) or wording.UNTITLED, ensure_ascii=False)),
        ("exported_at", clock.exact(document.exported_at)),
        ("time_zone", json.dumps(clock.name)),
        ("conversations", str(document.conversations)),
        ("messages", str(document.messages)),
    ]
    if document.owner:
        rows.append(("owner", json.dumps(_line(document.owner), ensure_ascii=False)))
    return "---\n" + "".join(f"{name}: {value}\n" for name, value in rows) + "---\n"


def _talk(talk: Talk, clock: Clock) -> str:
    about = [clock.at(talk.created_at)]
    if talk.messages:
        about.append(wording.counted(talk.messages, "message"))
    if talk.model:
        about.append(_escaped(talk.model))
    head = f"\n# {_escaped(wording.title(talk))}\n\n{' · '.join(about)}\n"
    if talk.system_prompt:
        head += f"\n## System prompt\n\n{_whole(talk.system_prompt)}"
    return head


def _said(said: Said, number: int, clock: Clock) -> str:
    about = [clock.at(said.at)]
    if said.model and said.role == "assistant":
        about.insert(0, _escaped(said.model))
    parts = [
        f"\n---\n\n<!-- message {number} {said.role} {clock.exact(said.at)} -->\n\n",
        f"## {_escaped(wording.author(said))}\n\n*{' · '.join(about)}*\n\n",
        _whole(said.content),
    ]
    for call in said.calls:
        fence = _fence_around(call.arguments)
        parts.append(
            f"\nCalled the tool **{_escaped(call.name)}**\n\n{fence}json\n{call.arguments}\n{fence}\n"
        )
    for attached in said.attachments:
        kind = "Picture" if attached.media_type.startswith("image/") else "File"
        parts.append(f"\n*{kind}: {_escaped(wording.file_line(attached))}*\n")
    if note := wording.ending(said):
        parts.append(f"\n*{note}*\n")
    return "".join(parts)


def _whole(content: str) -> str:
    """`content` and a line break, and what closes the block that it leaves open."""
    ended = content if content.endswith("\n") else f"{content}\n"
    return ended + _closing(content)


def _closing(content: str) -> str:
    open_fence = ""
    if "```" in content or "~~~" in content:
        for line in content.splitlines():
            match = _FENCE.match(line)
            if match is None:
                continue
            fence, rest = match.groups()
            if not open_fence:
                if fence[0] == "~" or "`" not in rest:
                    open_fence = fence
            elif fence[0] == open_fence[0] and len(fence) >= len(open_fence) and not rest.strip():
                open_fence = ""
    if open_fence:
        return f"{open_fence}\n"
    return "-->\n" if content.rfind("<!--") > content.rfind("-->") else ""


def _fence_around(content: str) -> str:
    longest = max((len(run) for run in re.findall(r"`+", content)), default=0)
    return "`" * max(3, longest + 1)


def _escaped(words: str) -> str:
    """`words` as one line in which nothing is Markdown."""
    return _SPECIAL.sub(r"\\\1", _line(words))


def _line(words: str) -> str:
    return " ".join(words.split())
