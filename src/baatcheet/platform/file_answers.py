"""Answering with a file of the store: streamed, in part where a part is asked for (RFC 9110 § 14), under its name."""

import re
from collections.abc import AsyncIterator
from typing import Any, ClassVar, Final

from fastapi import Request
from starlette.responses import Response, StreamingResponse

from baatcheet.kit.file_names import content_disposition
from baatcheet.platform.blobs import Blobs, FileMissing
from baatcheet.platform.errors import PROBLEM_JSON, Problem
from baatcheet.platform.openapi import Responses

_RANGE: Final = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)


class RangeNotSatisfiable(Problem):
    """The file has no such part."""

    status: ClassVar[int] = 416
    type = "range-not-satisfiable"
    openai_code = "range_not_satisfiable"

    def __init__(self, size: int) -> None:
        super().__init__(
            f"The file has {size} bytes; the range begins after them.",
            headers={"content-range": f"bytes */{size}", "accept-ranges": "bytes"},
        )


def part_of(header: str | None, size: int) -> tuple[int, int] | None:
    """The bytes that a Range header asks for: from, and up to but not including. None: the whole file.

    A header that can't be read, and one that asks for several parts, counts as none, as the standard allows.
    Raises RangeNotSatisfiable.
    """
    found = _RANGE.fullmatch(header.strip()) if header is not None else None
    if found is None or found.group() == "bytes=-":
        return None
    first, last = found.groups()
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < start:
            return None
    if start >= size:
        raise RangeNotSatisfiable(size)
    return start, end


async def file_answer(
    request: Request, blobs: Blobs, key: str, *, filename: str, media_type: str, tag: str
) -> Response:
    """The file under `key`, to be saved as `filename`. `tag`: what changes whenever the file does.

    Raises FileMissing, RangeNotSatisfiable, FileStoreUnavailable.
    """
    size = await blobs.size(key)
    if size is None:
        raise FileMissing("The file is no longer there.")
    etag = f'"{tag}-{size:x}"'
    headers = {
        "accept-ranges": "bytes",
        "content-disposition": content_disposition(filename),
        "etag": etag,
        "cache-control": "private, no-cache",
    }
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers=headers)
    # A part of what was another file when its beginning was fetched is of no use.
    wanted = request.headers.get("if-range", etag) == etag
    part = part_of(request.headers.get("range"), size) if wanted else None
    start, end = part or (0, size)
    headers["content-length"] = str(end - start)
    if part is not None:
        headers["content-range"] = f"bytes {start}-{end - 1}/{size}"
    status = 200 if part is None else 206
    return StreamingResponse(_read(blobs, key, start, end), status, headers, media_type=media_type)


async def _read(blobs: Blobs, key: str, start: int, end: int) -> AsyncIterator[bytes]:
    async for chunk in blobs.read(key, start, end):
        yield chunk


def file_responses(*media_types: str) -> Responses:
    """What an operation that answers with a file says of it."""
    content: dict[str, Any] = {
        one: {"schema": {} if one == "application/json" else {"type": "string", "format": "binary"}}
        for one in media_types
    }
    headers = {
        "content-disposition": {"description": "The file's name (RFC 6266).", "schema": {"type": "string"}},
        "accept-ranges": {"description": "`bytes`.", "schema": {"type": "string"}},
        "etag": {"description": "Which file it is, for If-Range.", "schema": {"type": "string"}},
    }
    part = {"content-range": {"description": "Which part it is.", "schema": {"type": "string"}}}
    problem = {
        "description": RangeNotSatisfiable.title() + ".",
        "content": {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        "headers": part,
    }
    return {
        200: {"description": "The file.", "content": content, "headers": headers},
        206: {
            "description": "The part that Range asked for.",
            "content": content,
            "headers": headers | part,
        },
        304: {"description": "It is the file that If-None-Match names."},
        416: problem,
    }
