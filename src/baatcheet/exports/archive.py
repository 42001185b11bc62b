"""The ZIP of all one's data. For a sandbox: packing takes its time.

export.json             what this is, whose, and how much of what
conversations/<id>.json each conversation, whole, in the export format: what an import takes
projects.json …         a list each of what else there is
files/…                 uploaded files; they are added afterwards, as they are
"""

import zipfile
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from baatcheet.exports.json_format import REPORT_EVERY, write_file

FORMAT: Final = "baatcheet.archive"
VERSION: Final = 1
CONVERSATIONS: Final = "conversations"
TABLES: Final = "tables"
LINES: Final = ".lines"
CHUNK: Final = 1024 * 1024  # bytes of a file that are copied at once

Report = Callable[[float, str], None]


class Packing(msgspec.Struct, frozen=True):
    """An order: pack what was put down in `folder` into `target`. `about` is what `export.json` says."""

    folder: str
    target: str
    exported_at: datetime
    about: dict[str, Any]
    messages: int


class Packed(msgspec.Struct, frozen=True):
    conversations: int
    messages: int


def pack(order: Packing, report: Report) -> Packed:
    """Write the archive, but for the files."""
    folder = Path(order.folder)
    sources = sorted((folder / CONVERSATIONS).glob(f"*{LINES}"))
    written = 0
    with zipfile.ZipFile(order.target, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for source in sources:
            name = f"{CONVERSATIONS}/{source.stem}.json"
            with archive.open(_entry(name, order.exported_at), "w", force_zip64=True) as target:
                for _ in write_file(target, [source], order.exported_at):
                    written += 1
                    if written % REPORT_EVERY == 0 and order.messages:
                        report(
                            100 * written / order.messages,
                            f"Packed {written:,} of {order.messages:,} messages",
                        )
            source.unlink()
        for table in sorted((folder / TABLES).glob(f"*{LINES}")):
            with archive.open(
                _entry(f"{table.stem}.json", order.exported_at), "w", force_zip64=True
            ) as target:
                for part in _as_list(table):
                    target.write(part)
        about = {"format": FORMAT, "version": VERSION, "exported_at": order.exported_at, **order.about}
        text = msgspec.json.format(msgspec.json.encode(about))
        archive.writestr(_entry("export.json", order.exported_at), text)
    return Packed(len(sources), written)


def _entry(name: str, at: datetime) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, at.timetuple()[:6])
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o600 << 16
    return entry


def _as_list(table: Path) -> Iterator[bytes]:
    """The rows of a table as one JSON list."""
    yield b"["
    with table.open("rb") as rows:
        for count, row in enumerate(rows):
            yield b",\n" if count else b"\n"
            yield row.rstrip(b"\n")
    yield b"\n]\n"


def add_file(archive: zipfile.ZipFile, name: str, source: Path, at: datetime) -> None:
    """Add a file as it is: what people upload is compressed already. For a thread."""
    entry = _entry(name, at)
    entry.compress_type = zipfile.ZIP_STORED
    with source.open("rb") as file, archive.open(entry, "w", force_zip64=True) as target:
        while chunk := file.read(CHUNK):
            target.write(chunk)
