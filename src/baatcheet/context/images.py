"""What pictures cost, by their size and OpenAI's published rules. No picture is decoded."""

import binascii
from collections.abc import Callable, Mapping
from math import ceil, sqrt
from typing import Any, Final, NamedTuple
from uuid import UUID

from baatcheet.kit.ids import parse_id
from baatcheet.providers.families import ImageCost, Patches, Tiles

HEADER = 262_144  # characters of base64 in which a size must be found: a JPEG may carry a thumbnail before it
HEAD = 256  # characters that may be before the base64
SEGMENTS = 128  # of a JPEG, each byte of fill for one, before which a size must be found
TEXT_OF: Final = "attachment_id"  # of a text part: the attachment whose text it is; never sent to anybody
_BOX, _SHORT, _TILE = 2048, 768, 512  # pixels
_PATCH = 32


class Size(NamedTuple):
    """In pixels."""

    width: int
    height: int


class Attached(NamedTuple):
    """What a part of a message refers to: an attachment. `size`: of its picture, where it is one that can be shown."""

    id: UUID
    size: Size | None


def attachment_of(part: Any) -> Attached | None:
    """The attachment of ours that a content part refers to (`{"type": "file", "file": {"file_id": …}}`), or None.

    Providers have files of their own, whose ids are no UUIDs.
    """
    file = part.get("file") if isinstance(part, Mapping) and part.get("type") == "file" else None
    name = file.get("file_id") if isinstance(file, Mapping) else None
    if not isinstance(file, Mapping) or not isinstance(name, str) or (found := parse_id(name)) is None:
        return None
    picture = file.get("picture")
    if not isinstance(picture, Mapping):
        return Attached(found, None)
    sides = (picture.get("width"), picture.get("height"))
    width, height = (side if isinstance(side, int) and 0 < side < 1_000_000 else 1 for side in sides)
    return Attached(found, Size(width, height))


def text_of_attachment(part: Any) -> tuple[str, str] | None:
    """Of a text part that was read in an attachment: the attachment's id and the text. None of any other part."""
    if not isinstance(part, Mapping) or part.get("type") != "text":
        return None
    name, text = part.get(TEXT_OF), part.get("text")
    return (name, text) if isinstance(name, str) and isinstance(text, str) else None


def unsent_tokens(
    parts: Mapping[str, Any] | None, cost: ImageCost, count: Callable[[str], int], *, sees: bool
) -> int:
    """Of `picture_tokens` and the text together, what is not sent: an attachment goes as a picture or as text.

    A model that does not see is sent the text. Of one that does, the more of the two counts: the oldest of many
    pictures go as text.
    """
    content = parts.get("content") if parts else None
    if not isinstance(content, list):
        return 0
    pictures = {
        str(found.id): image_tokens(found.size, cost)
        for part in content
        if (found := attachment_of(part)) is not None and found.size is not None
    }
    if not pictures:
        return 0
    if not sees:
        return sum(pictures.values())
    texts = dict(read for part in content if (read := text_of_attachment(part)) is not None)
    return sum(min(tokens, count(texts.get(name, ""))) for name, tokens in pictures.items())


def picture_tokens(parts: Mapping[str, Any] | None, cost: ImageCost) -> int:
    """The tokens of what is not text among a message's content parts."""
    content = parts.get("content") if parts else None
    if not isinstance(content, list):
        return 0
    return sum(
        _part_tokens(part, cost)
        for part in content
        if isinstance(part, Mapping) and part.get("type") != "text"
    )


def _part_tokens(part: Mapping[str, Any], cost: ImageCost) -> int:
    if (attached := attachment_of(part)) is not None:
        return image_tokens(attached.size, cost) if attached.size is not None else 0
    image = part.get("image_url")
    if not isinstance(image, Mapping):
        return cost.worst
    url, detail = image.get("url"), image.get("detail")
    size = size_of(url) if isinstance(url, str) else None
    return image_tokens(size, cost, low=detail == "low")


def image_tokens(size: Size | None, cost: ImageCost, *, low: bool = False) -> int:
    """The tokens of one picture; the most that one can cost when its size is not known. `auto` is taken as `high`."""
    match cost:
        case Tiles(base=base) if low:
            return base
        case _ if size is None:
            return cost.worst
        case Tiles(base=base, tile=tile):
            return base + tile * _tiles(size)
        case Patches(factor=factor, most=most):
            return ceil(_patches(size, most) * factor)


def _tiles(size: Size) -> int:
    scale = min(1.0, _BOX / max(size))
    scale = min(scale, _SHORT / min(size))
    return ceil(int(size.width * scale) / _TILE) * ceil(int(size.height * scale) / _TILE) or 1


def _patches(size: Size, most: int) -> int:
    wide, high = size.width / _PATCH, size.height / _PATCH
    if ceil(wide) * ceil(high) <= most:
        return ceil(wide) * ceil(high)
    scale = sqrt(most / (wide * high))
    wide, high = wide * scale, high * scale
    if min(wide, high) >= 1:  # so that the patches cover it with nothing left over on one side
        scale = min(int(wide) / wide, int(high) / high)
        wide, high = wide * scale, high * scale
    return min(most, ceil(round(wide, 6)) * ceil(round(high, 6)))


def size_of(url: str) -> Size | None:
    """The size of the picture in a data URL, from its header. None for any other URL, and when it can't be told."""
    head, comma, _ = url[:HEAD].partition(",")
    if not comma or not head.lower().startswith("data:image/") or not head.lower().endswith(";base64"):
        return None
    data = url[len(head) + 1 : len(head) + 1 + HEADER]
    try:
        header = _bytes(data, 0, 30)
        found = _png(header) or _gif(header) or _webp(header) or _jpeg(data)
    except (binascii.Error, ValueError):  # malformed, or not ASCII
        return None
    return found if found is not None and min(found) > 0 else None


def _bytes(data: str, at: int, size: int) -> bytes:
    """Some of what is in base64, without decoding what is before it: four characters are three bytes."""
    start = at // 3 * 4
    some = data[start : start + (size + 4) // 3 * 4]
    return binascii.a2b_base64(some[: len(some) - len(some) % 4])[at % 3 : at % 3 + size]


def _png(data: bytes) -> Size | None:
    if not data.startswith(b"\x89PNG\r\n\x1a\n") or data[12:16] != b"IHDR" or len(data) < 24:
        return None
    return Size(int.from_bytes(data[16:20]), int.from_bytes(data[20:24]))


def _gif(data: bytes) -> Size | None:
    if data[:6] not in {b"GIF87a", b"GIF89a"} or len(data) < 10:
        return None
    return Size(int.from_bytes(data[6:8], "little"), int.from_bytes(data[8:10], "little"))


def _webp(data: bytes) -> Size | None:
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or len(data) < 30:
        return None
    match data[12:16]:
        case b"VP8 ":  # 14 bits each, behind the frame's tag and start code
            sizes = int.from_bytes(data[26:28], "little"), int.from_bytes(data[28:30], "little")
            return Size(sizes[0] & 0x3FFF, sizes[1] & 0x3FFF)
        case b"VP8L":
            bits = int.from_bytes(data[21:25], "little")
            return Size((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
        case b"VP8X":
            sizes = int.from_bytes(data[24:27], "little"), int.from_bytes(data[27:30], "little")
            return Size(sizes[0] + 1, sizes[1] + 1)
    return None


_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def _jpeg(data: str) -> Size | None:
    """From the first frame header; the segments before it are stepped over, however large they are."""
    if _bytes(data, 0, 2) != b"\xff\xd8":
        return None
    at = 2
    for _ in range(SEGMENTS):
        some = _bytes(data, at, 9)
        if len(some) < 9 or some[0] != 0xFF:
            return None
        marker = some[1]
        if marker in _FRAMES:
            return Size(int.from_bytes(some[7:9]), int.from_bytes(some[5:7]))
        if 0xD0 <= marker <= 0xDA:  # of the picture itself, which no frame header has begun
            return None
        if marker == 0xFF:  # fill
            at += 1
        else:
            at += 2 if marker == 0x01 else 2 + max(2, int.from_bytes(some[2:4]))
    return None
