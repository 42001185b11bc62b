"""Files that clients send as `multipart/form-data` (RFC 7578), from the socket to a file on disk.

    async with blobs.scratch() as folder:
        received = await receive_upload(request, folder, 50_000_000)
        await blobs.put(f"attachments/{user}/{received.sha256}", received.path)

Nothing of a file is kept in memory but the part that has just come: it is hashed and written in a thread, and
the client is not read from meanwhile. What is wrong with an upload is told as soon as it is seen.
"""

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from fastapi import Request
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from baatcheet.kit.file_names import safe_name
from baatcheet.kit.ids import new_id
from baatcheet.kit.text import unstorable
from baatcheet.platform.blobs import disk_errors
from baatcheet.platform.errors import BadRequest, Invalid, TooLarge, UnsupportedMediaType
from baatcheet.platform.threads import in_thread

HEAD_BYTES: Final = 8192  # of a file, by which its kind is told
BATCH_BYTES: Final = 64 * 1024  # that are written at once
MAX_PARTS: Final = 64
MAX_FIELD_BYTES: Final = 64 * 1024  # of all fields beside the file
MAX_HEADER_BYTES: Final = 4096  # of one header of a part
MAX_BOUNDARY: Final = 70  # characters (RFC 2046 § 5.1.1)
OVERHEAD_BYTES: Final = MAX_FIELD_BYTES + MAX_PARTS * 2 * MAX_HEADER_BYTES

_MEDIA_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]{1,100}/[a-z0-9!#$&^_.+-]{1,100}")
_ESCAPED_NAME = re.compile(r"(?:[A-Za-z0-9._~!()'*-]|%[0-9A-Fa-f]{2})+")
_EXTENDED_NAME = re.compile(rb";\s*filename\*\s*=\s*utf-8'[^']*'([^;\s]+)", re.IGNORECASE)
_AS_IT_IS = frozenset({"", "7bit", "8bit", "binary"})


@dataclass(frozen=True)
class Received:
    """A file that has come, whole and on disk."""

    path: Path
    size: int  # bytes
    sha256: str  # in hexadecimal
    filename: str  # a safe name
    content_type: str | None  # what the client says it is: a hint
    kind: str | None  # what `kind_of` says it is
    values: tuple[tuple[str, str], ...]  # the fields beside the file, in their order

    @property
    def fields(self) -> dict[str, str]:
        """The fields by name; of one that came more than once, the last."""
        return dict(self.values)

    def several(self, name: str) -> tuple[str, ...]:
        """Every value of a field that may come more than once."""
        return tuple(value for one, value in self.values if one == name)


def body_limit(limits: int | Mapping[str, int]) -> int:
    """Bytes that the body of an upload within `limits` may have: the file, its fields and what frames them."""
    return _largest(limits) + OVERHEAD_BYTES


async def receive_upload(
    request: Request,
    folder: Path,
    limits: int | Mapping[str, int],
    *,
    field: str = "file",
    kind_of: Callable[[bytes], str | None] | None = None,
) -> Received:
    """The one file that `request` carries in `field`, written into `folder` and on disk for good.

    `limits` is in bytes: one for every file, or one for each kind. `kind_of` tells the kind from a file's first
    `HEAD_BYTES` bytes, as soon as they are there; None, or a kind that is not in `limits`, has the largest.
    It may raise a Problem to refuse the file.

    Raises UnsupportedMediaType (no multipart body), BadRequest (a body that is broken or breaks off), TooLarge,
    Invalid (no file, an empty one, several), FileStoreUnavailable, and what `kind_of` raises. Nothing is left in
    `folder` then.
    """
    parser = _Form(_boundary_of(request), field)
    sink = _Sink(folder / new_id().hex, limits, kind_of)
    try:
        async for chunk in request.stream():
            parser.feed(chunk)
            await sink.take(parser.file_data, last=False)
        parser.end()
        await sink.take(parser.file_data, last=True)
        parser.refuse_empty(sink.size)
        with disk_errors():
            await in_thread(sink.seal)
    except ClientDisconnect:
        await in_thread(sink.drop)
        raise BadRequest("The upload broke off.") from None
    except BaseException:
        await in_thread(sink.drop)
        raise
    return Received(
        path=sink.path,
        size=sink.size,
        sha256=sink.digest.hexdigest(),
        filename=parser.filename,
        content_type=parser.content_type,
        kind=sink.kind,
        values=tuple(parser.values),
    )


def _largest(limits: int | Mapping[str, int]) -> int:
    return limits if isinstance(limits, int) else max(limits.values())


def _boundary_of(request: Request) -> bytes:
    media_type, options = parse_options_header(request.headers.get("content-type", ""))
    if media_type != b"multipart/form-data":
        raise UnsupportedMediaType(
            "The body must be a form with a file: content-type: multipart/form-data; boundary=…"
        )
    boundary = options.get(b"boundary", b"")
    if not boundary or len(boundary) > MAX_BOUNDARY:
        raise BadRequest(
            f"content-type must name the form's boundary, of 1 to {MAX_BOUNDARY} characters.",
            param="content-type",
        )
    return boundary


class _Sink:
    """The file on disk. Its methods but `take` block, and are for a thread."""

    def __init__(
        self,
        path: Path,
        limits: int | Mapping[str, int],
        kind_of: Callable[[bytes], str | None] | None,
    ) -> None:
        self.path = path
        self.size = 0
        self.kind: str | None = None
        self.digest = hashlib.sha256()
        self._limits = limits
        self._limit = _largest(limits)
        self._kind_of = kind_of
        self._known = kind_of is None
        self._file: int | None = None

    async def take(self, data: bytearray, *, last: bool) -> None:
        """Write what is in `data` and empty it, unless it is little and more is to come. Raises TooLarge."""
        if not self._known and data and (last or len(data) >= HEAD_BYTES):
            assert self._kind_of is not None
            self._known = True
            self.kind = self._kind_of(bytes(data[:HEAD_BYTES]))
            if self.kind is not None and not isinstance(self._limits, int):
                self._limit = self._limits.get(self.kind, self._limit)
        if self.size + len(data) > self._limit:
            what = "The file" if self.kind is None else f"A file of this kind ({self.kind})"
            raise TooLarge(f"{what} may have {self._limit} bytes at most.")
        if data and (last or len(data) >= BATCH_BYTES):
            batch = bytes(data)
            data.clear()
            with disk_errors():
                await in_thread(self._write, batch)

    def _write(self, batch: bytes) -> None:
        if self._file is None:
            self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self.digest.update(batch)
        self.size += len(batch)
        rest = memoryview(batch)
        while rest:
            rest = rest[os.write(self._file, rest) :]

    def seal(self) -> None:
        """Close the file once it is on disk."""
        assert self._file is not None
        os.fsync(self._file)
        self._close()

    def drop(self) -> None:
        self._close()
        self.path.unlink(missing_ok=True)

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            os.close(file)


class _Form:
    """A multipart body as it comes: the fields, and in `file_data` what of the file has not been taken yet."""

    def __init__(self, boundary: bytes, field: str) -> None:
        self.values: list[tuple[str, str]] = []
        self.file_data = bytearray()
        self.filename = ""
        self.content_type: str | None = None
        self._field = field
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._header_name,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_end,
                "on_part_data": self._data,
                "on_part_end": self._end_of_part,
                "on_end": self._end,
            },
            max_header_size=MAX_HEADER_BYTES,
        )
        self._parts = 0
        self._has_file = False
        self._in_file = False
        self._whole = False
        self._headers: dict[bytes, bytes] = {}
        self._name = bytearray()
        self._value = bytearray()
        self._field_name = ""
        self._field_value = bytearray()
        self._field_bytes = 0

    def feed(self, chunk: bytes) -> None:
        """Raises BadRequest, Invalid, TooLarge."""
        try:
            self._parser.write(chunk)
        except MultipartParseError as error:
            raise BadRequest(f"The form can't be read: {error}.") from None

    def end(self) -> None:
        """The body is over. Raises BadRequest, Invalid."""
        if not self._whole:
            raise BadRequest("The form breaks off: its closing boundary is missing.")
        if not self._has_file:
            raise Invalid(f"The form has no file in the field {self._field}.", param=self._field)

    def refuse_empty(self, size: int) -> None:
        if size == 0:
            raise Invalid(f"The file in {self._field} is empty.", param=self._field)

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise Invalid(f"The form has more than {MAX_PARTS} parts.")
        self._headers = {}
        self._name.clear()
        self._value.clear()

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        name = bytes(self._name).lower()
        if name in self._headers:
            raise BadRequest("A part of the form has the same header twice.")
        if any(one < 0x20 and one != 0x09 for one in self._value):
            raise BadRequest("A part of the form has a header with a control character in it.")
        self._headers[name] = bytes(self._value).strip()
        self._name.clear()
        self._value.clear()

    def _headers_end(self) -> None:
        given = self._headers.get(b"content-disposition", b"")
        disposition, options = parse_options_header(given)
        if disposition != b"form-data" or b"name" not in options:
            raise BadRequest("Every part of the form must say content-disposition: form-data; name=…")
        encoding = self._headers.get(b"content-transfer-encoding", b"").decode("latin-1").lower()
        if encoding not in _AS_IT_IS:
            raise Invalid("A part of the form has a content-transfer-encoding; send its bytes as they are.")
        name = _text(options[b"name"], "A field's name")
        filename = _file_name(given, options)
        if filename is None:
            self._begin_field(name)
        else:
            self._begin_file(name, filename)

    def _begin_file(self, name: str, filename: str) -> None:
        if name != self._field:
            shown = name[:100]
            raise Invalid(f"The file must be in the field {self._field}, not in {shown}.", param=shown)
        if self._has_file:
            raise Invalid(f"The form has more than one file in {self._field}.", param=self._field)
        self._has_file = self._in_file = True
        self.filename = safe_name(filename)
        said = parse_options_header(self._headers.get(b"content-type", b""))[0].decode("latin-1")
        self.content_type = said if _MEDIA_TYPE.fullmatch(said) else None

    def _begin_field(self, name: str) -> None:
        if name == self._field:
            raise Invalid(f"{self._field} must be a file: a part with a filename.", param=self._field)
        self._in_file = False
        self._field_name = name
        self._field_value.clear()
        self._spend(len(name))

    def _spend(self, size: int) -> None:
        self._field_bytes += size
        if self._field_bytes > MAX_FIELD_BYTES:
            raise TooLarge(f"The form's fields may have {MAX_FIELD_BYTES} bytes together at most.")

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._in_file:
            self.file_data += data[start:end]
        else:
            self._spend(end - start)
            self._field_value += data[start:end]

    def _end_of_part(self) -> None:
        if self._in_file:
            self._in_file = False
        else:
            value = _text(self._field_value, f"The field {self._field_name[:100]}")
            self.values.append((self._field_name, value))

    def _end(self) -> None:
        self._whole = True


def _text(raw: bytes | bytearray, what: str) -> str:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise Invalid(f"{what} is not UTF-8.") from None
    if problem := unstorable(text):
        raise Invalid(f"{what} {problem}.")
    return text


def _file_name(disposition: bytes, options: Mapping[bytes, bytes]) -> str | None:
    """The name that a part gives its file; None for a part that is no file."""
    if b"filename" not in options:
        # Not for forms (RFC 7578 § 4.2), yet some libraries write non-ASCII names like this.
        extended = _EXTENDED_NAME.search(disposition)
        return unquote(extended.group(1).decode("latin-1"), errors="replace") if extended else None
    name = options[b"filename"].decode(errors="replace")
    if "%" in name and _ESCAPED_NAME.fullmatch(name):
        # Others escape whatever is not plain.
        return unquote(name, errors="replace")
    return name
