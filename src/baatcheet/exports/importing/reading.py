"""What a sandbox does with an upload: find out what it is, check it, and put its conversations down as lines.

A file of JSON is mapped into memory and never decoded whole: first where its conversations begin and end, then of one
conversation where its messages do, then one message at a time.
"""

import mmap
import re
import zipfile
import zlib
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import IO, Any, Final, Literal

import msgspec

from baatcheet.exports.importing import chatgpt, own_format
from baatcheet.exports.importing.normal import Limits, Normalized, Wrong
from baatcheet.exports.json_format import FORMAT, NULL
from baatcheet.jobs.isolation_frames import Refused

Source = Literal["baatcheet", "chatgpt"]

ZIP: Final = b"PK\x03\x04"
EMPTY_ZIP: Final = b"PK\x05\x06"
BOM: Final = b"\xef\xbb\xbf"
MOST_FILES: Final = 100_000  # in an archive
CHUNK: Final = 1024 * 1024
MOST_CONVERSATIONS: Final = 200_000

_OWN_FILE = re.compile(r"(?:^|/)conversations/[^/]+\.json$")
_CHATGPT_FILE = re.compile(r"(?:^|/)conversations(?:[-_]\d+)?\.json$")
# A surrogate escape, paired or alone; what is escaped otherwise is stepped over.
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)

Report = Callable[[float, str], None]
Reader = Callable[[Any, str, Normalized, Limits, Callable[[], None]], None]

WHAT_IS_READ: Final = (
    "What can be imported: BaatCheet's own export (JSON, or the ZIP of all one's data) and ChatGPT's (the ZIP, or its "
    "conversations.json)"
)


class Upload(msgspec.Struct, frozen=True):
    """An order: put the conversations of the file at `path` down in `folder`. Sizes are in bytes."""

    path: str
    folder: str
    limits: Limits
    unpacked: int  # that all files of an archive may have together
    now: datetime


class Read(msgspec.Struct, frozen=True):
    """What was found."""

    source: Source
    usable: int
    unusable: int
    messages: int


def read(upload: Upload, report: Report) -> Read:
    """Read a whole upload. Raises Refused when it is nothing that can be imported."""
    folder = Path(upload.folder)
    into = Normalized(folder, upload.now)
    try:
        found = _Upload(upload, into, report).read()
    except Wrong as problem:
        raise Refused(f"The file can't be imported. {_sentence(str(problem))}") from None
    finally:
        into.close()
    if into.place == 0:
        raise Refused(f"There is no conversation in this file. {WHAT_IS_READ}.")
    return Read(found, into.usable, into.unusable, into.messages)


def recognise(text: bytes) -> None:
    """Raises Refused when a small file of JSON is nothing that can be imported, without looking into it far."""
    try:
        _opened(memoryview(text), "", mended=False)
    except _Unpaired:
        return
    except Wrong as problem:
        raise Refused(f"The file can't be imported. {_sentence(str(problem))}") from None


def looks_like(start: bytes) -> Literal["json", "zip"] | None:
    """What a file is that begins with `start`; None for what can't be imported."""
    if start.startswith((ZIP, EMPTY_ZIP)):
        return "zip"
    return "json" if re.match(rb"(?:\xef\xbb\xbf)?\s*[\[{]", start) else None


def _sentence(words: str) -> str:
    return words if words.endswith(".") else f"{words}."


class _Upload:
    def __init__(self, upload: Upload, into: Normalized, report: Report) -> None:
        self._upload = upload
        self._into = into
        self._report = report
        self._ticks = 0
        self._source: Source | None = None

    def read(self) -> Source:
        path = Path(self._upload.path)
        with path.open("rb") as file:
            start = file.read(4)
        if start in {ZIP, EMPTY_ZIP}:
            self._read_archive(path)
        else:
            self._read_json(path, "")
        if self._source is None:
            raise Wrong(f"There is no conversation in it. {WHAT_IS_READ}")
        return self._source

    def _tick(self) -> None:
        self._ticks += 1
        if self._ticks % 1000 == 0:
            self._report(0.0, f"Checked {self._ticks:,} messages")

    # Archives

    def _read_archive(self, path: Path) -> None:
        try:
            with zipfile.ZipFile(path) as archive:
                entries = archive.infolist()
                if len(entries) > MOST_FILES:
                    raise Wrong(f"The archive has more than {MOST_FILES:,} files")
                self._read_entries(archive, _chosen(entries))
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, UnicodeDecodeError) as error:
            raise Wrong(f"The archive is damaged: {error}") from None

    def _read_entries(self, archive: zipfile.ZipFile, entries: list[zipfile.ZipInfo]) -> None:
        if not entries:
            raise Wrong(f"There are no conversations in the archive. {WHAT_IS_READ}")
        left = self._upload.unpacked
        unpacked = Path(self._upload.folder) / "unpacked.json"
        for entry in entries:
            if entry.flag_bits & 0x1:
                raise Wrong("The archive is encrypted. Unpack it, and import what is in it")
            with archive.open(entry) as packed, unpacked.open("wb") as target:
                left -= _copy(packed, target, left)
            self._read_json(unpacked, f"{_shown(entry.filename)}: ")
            unpacked.unlink()

    # JSON

    def _read_json(self, path: Path, where: str) -> None:
        try:
            self._read_text(_mapped(path), where)
        except _Unpaired:
            # What JavaScript cuts between the halves of an emoji: no JSON, but in files of this kind not rare.
            mended = Path(self._upload.folder) / "mended.json"
            with mended.open("wb") as target:
                _mend(_mapped(path), target)
            self._read_text(_mapped(mended), where, mended=True)
            mended.unlink()

    def _read_text(self, text: memoryview, where: str, *, mended: bool = False) -> None:
        reader, source, conversations, names = _opened(text, where, mended=mended)
        if self._source is not None and source != self._source:
            raise Wrong(f"{where}is an export of another kind than what is before it")
        self._source = source
        if self._into.place + len(conversations) > MOST_CONVERSATIONS:
            raise Wrong(f"There are more than {MOST_CONVERSATIONS:,} conversations in it")
        for at, conversation in enumerate(conversations):
            reader(
                conversation,
                f"{where}{names}[{at}]",
                self._into,
                self._upload.limits,
                self._tick,
            )


class _Unpaired(Exception):
    """A file has unpaired surrogates, and may be mended."""


class _Object(msgspec.Struct):
    """What tells one kind of file from another."""

    format: msgspec.Raw = NULL
    version: msgspec.Raw = NULL
    conversations: msgspec.Raw = NULL
    mapping: msgspec.Raw = NULL


class _First(msgspec.Struct):
    mapping: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    chat_messages: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


def _opened(text: memoryview, where: str, *, mended: bool) -> tuple[Reader, Source, list[msgspec.Raw], str]:
    """Who reads the file, what it is, its conversations, and what their list is called in it."""
    at = re.search(rb"[^ \t\r\n]", text)
    start = at.group() if at is not None else b""
    place = where.removesuffix(": ") or "The file"
    if start not in {b"{", b"["}:
        raise Wrong(f"{place}: is neither JSON in UTF-8 nor a ZIP archive. {WHAT_IS_READ}")
    decode = partial(_decoded, text, where=place, mended=mended)
    if start == b"[":
        conversations = decode(list[msgspec.Raw])
        return chatgpt.read_conversation, "chatgpt", _of_chatgpt(conversations, place), "conversations"
    whole = decode(_Object)
    name = _plain(whole.format)
    if name == FORMAT:
        own_format.check_version(_plain(whole.version))
        return (
            own_format.read_conversation,
            "baatcheet",
            own_format.decoded(whole.conversations, list[msgspec.Raw], "conversations"),
            "conversations",
        )
    if name is not None:
        raise Wrong(f"{place}: the format {_shown(str(name))!r} can't be imported. {WHAT_IS_READ}")
    if bytes(memoryview(whole.mapping)[:1]) == b"{":
        return chatgpt.read_conversation, "chatgpt", [msgspec.Raw(text)], "conversations"
    conversations = (
        own_format.decoded(whole.conversations, list[msgspec.Raw], "conversations")
        if bytes(memoryview(whole.conversations)[:4]) != b"null"
        else []
    )
    if not conversations:
        raise Wrong(f"{place}: has no conversations. {WHAT_IS_READ}")
    return chatgpt.read_conversation, "chatgpt", _of_chatgpt(conversations, place), "conversations"


def _of_chatgpt(conversations: list[msgspec.Raw], place: str) -> list[msgspec.Raw]:
    """Raises Wrong where the first of them shows that it is somebody else's list."""
    for one in conversations[:1]:
        try:
            first = msgspec.json.decode(one, type=_First)
        except (ValueError, RecursionError):
            first = _First()
        if first.chat_messages is not msgspec.UNSET:
            raise Wrong(f"{place}: is an export of Claude's, which can't be imported. {WHAT_IS_READ}")
        if first.mapping is msgspec.UNSET:
            raise Wrong(f"{place}: is a list, but not one of ChatGPT's conversations. {WHAT_IS_READ}")
    return conversations


def _decoded(text: memoryview, shape: Any, *, where: str, mended: bool) -> Any:
    try:
        return own_format.decoded(text, shape, where)
    except Wrong:
        if not mended and FORMAT.encode() not in bytes(text[:4096]) and own_format.has_unpaired(text):
            raise _Unpaired from None
        raise


def _plain(raw: msgspec.Raw) -> object:
    try:
        return msgspec.json.decode(raw)
    except (ValueError, RecursionError):
        return None


def _shown(text: str) -> str:
    return "".join(one for one in text[:200] if one.isprintable())


def _chosen(entries: list[zipfile.ZipInfo]) -> list[zipfile.ZipInfo]:
    """The files that hold conversations, in the order of their names."""
    mine = [one for one in entries if not one.is_dir() and "__MACOSX/" not in one.filename]
    for pattern in (_OWN_FILE, _CHATGPT_FILE):
        if chosen := [one for one in mine if pattern.search(one.filename)]:
            return sorted(chosen, key=lambda one: one.filename)
    return []


def _copy(packed: IO[bytes], target: IO[bytes], most: int) -> int:
    """Bytes copied. Raises Wrong when there are more, whatever the archive says of its sizes."""
    copied = 0
    while chunk := packed.read(CHUNK):
        copied += len(chunk)
        if copied > most:
            raise Wrong("What is in the archive is larger than an import may be")
        target.write(chunk)
    return copied


def _mapped(path: Path) -> memoryview:
    """The file's bytes, without a byte order mark. The map goes with whatever was found in it."""
    if path.stat().st_size == 0:
        raise Wrong("The file is empty")
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return memoryview(mapped)[len(BOM) if mapped[: len(BOM)] == BOM else 0 :]


def _mend(text: memoryview, target: IO[bytes]) -> None:
    """Write U+FFFD in place of every unpaired surrogate escape."""
    at = 0
    for found in _ESCAPE.finditer(text):
        if found.group(1):
            target.write(text[at : found.start()])
            target.write(b"\\ufffd")
            at = found.end()
    target.write(text[at:])
