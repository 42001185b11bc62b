"""Taking an upload to import from: a form with a file, or the JSON itself as the body."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from fastapi import Request
from starlette.requests import ClientDisconnect

from baatcheet.exports.importing.reading import WHAT_IS_READ, looks_like, recognise
from baatcheet.jobs.isolation_frames import Refused
from baatcheet.platform.errors import BadRequest, Invalid, TooLarge, UnsupportedMediaType
from baatcheet.platform.threads import in_thread
from baatcheet.platform.uploads import receive_upload

SMALL: Final = (
    256 * 1024
)  # bytes of JSON that are looked at before the answer: a few milliseconds at most, in a thread
START: Final = 8192
BATCH: Final = 256 * 1024
NAMELESS: Final = "conversations.json"

_JSON = ("application/json", "text/json")
_ZIP = ("application/zip", "application/x-zip-compressed", "application/octet-stream")


@dataclass(frozen=True)
class Uploaded:
    """A file that has come, whole and on disk."""

    path: Path
    size: int
    sha256: str
    filename: str


async def receive(request: Request, folder: Path, limit: int) -> Uploaded:
    """What `request` brings, written into `folder`.

    Raises UnsupportedMediaType, BadRequest, TooLarge (beyond `limit` bytes) and Invalid (what can't be imported, as
    far as that is seen at once).
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == "multipart/form-data":
        received = await receive_upload(request, folder, limit, kind_of=_kind)
        uploaded = Uploaded(received.path, received.size, received.sha256, received.filename)
    elif media_type in _JSON or media_type in _ZIP or media_type.endswith("+json"):
        uploaded = await _receive_body(request, folder / "body", limit)
    else:
        raise UnsupportedMediaType(
            "The body must be JSON (content-type: application/json), or a form with the file in the field file "
            "(content-type: multipart/form-data)."
        )
    if uploaded.size <= SMALL:
        await in_thread(_look_at, uploaded.path)
    return uploaded


def _kind(start: bytes) -> str:
    """Raises Invalid."""
    kind = looks_like(start)
    if kind is None:
        raise Invalid(f"The file is neither JSON nor a ZIP archive. {WHAT_IS_READ}.", param="file")
    return kind


def _look_at(path: Path) -> None:
    content = path.read_bytes()
    if looks_like(content[:START]) == "json":
        try:
            recognise(content)
        except Refused as refusal:
            raise Invalid(str(refusal)) from None


async def _receive_body(request: Request, path: Path, limit: int) -> Uploaded:
    digest = hashlib.sha256()
    size = 0
    pending = bytearray()
    known = False
    with path.open("xb") as file:
        try:
            async for chunk in request.stream():
                size += len(chunk)
                if size > limit:
                    raise TooLarge(f"What is imported may have {limit} bytes at most.")
                pending += chunk
                if not known and len(pending) >= START:
                    _kind(bytes(pending[:START]))
                    known = True
                if len(pending) >= BATCH:
                    batch, pending = bytes(pending), bytearray()
                    await in_thread(_write, file, batch, digest)
        except ClientDisconnect:
            raise BadRequest("The upload broke off.") from None
        if size == 0:
            raise BadRequest("The body is empty.")
        if not known:
            _kind(bytes(pending[:START]))
        await in_thread(_write, file, bytes(pending), digest)
        await in_thread(file.flush)
    return Uploaded(path, size, digest.hexdigest(), NAMELESS)


def _write(file: IO[bytes], batch: bytes, digest: "hashlib._Hash") -> None:
    digest.update(batch)
    file.write(batch)
