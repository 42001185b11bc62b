"""What an upload is read as, without a server."""

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from baatcheet.exports.importing.normal import INDEX, MESSAGES, Entry, Limits, Line, Unusable, Usable
from baatcheet.exports.importing.reading import Read, Upload, read

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
LIMITS = Limits(content=100_000, parts=200_000)


@dataclass(frozen=True)
class Found:
    """What was found in an upload: each conversation, and the messages of the usable ones."""

    read: Read
    entries: list[Entry]
    lines: list[list[Line]]

    @property
    def usable(self) -> list[Usable]:
        return [entry for entry in self.entries if isinstance(entry, Usable)]

    @property
    def problems(self) -> list[str]:
        return [entry.problem for entry in self.entries if isinstance(entry, Unusable)]

    def only(self) -> tuple[Usable, list[Line]]:
        assert self.problems == []
        (entry,), (lines,) = self.usable, self.lines
        return entry, lines


def read_upload(
    folder: Path, content: object, *, limits: Limits = LIMITS, unpacked: int = 100_000_000
) -> Found:
    """`content`: bytes as they are, anything else as JSON."""
    folder.mkdir(exist_ok=True, parents=True)
    path = folder / "upload"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    upload = Upload(str(path), str(folder), limits, unpacked, NOW)
    result = read(upload, lambda _percent, _phrase: None)
    entries = [msgspec.json.decode(line, type=Entry) for line in (folder / INDEX).read_bytes().splitlines()]
    lines = []
    with (folder / MESSAGES).open("rb") as file:
        for entry in entries:
            if isinstance(entry, Usable):
                file.seek(entry.offset)
                lines.append([msgspec.json.decode(file.readline(), type=Line) for _ in range(entry.messages)])
    return Found(result, entries, lines)


def archive(files: Mapping[str, object]) -> bytes:
    """A ZIP archive of `files`: bytes as they are, anything else as JSON."""
    into = io.BytesIO()
    with zipfile.ZipFile(into, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in files.items():
            packed.writestr(name, content if isinstance(content, bytes) else json.dumps(content))
    return into.getvalue()


def beside(line: Line) -> Any:
    """What a message has beside its text."""
    return msgspec.json.decode(line.parts)
