"""Pictures are priced by their size, which is read from their header alone."""

import base64
import struct
import time
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baatcheet.context.images import Size, image_tokens, picture_tokens, size_of
from baatcheet.providers.families import GPT_4O_IMAGES, ImageCost, Patches, Tiles, family_of

SIZES = st.builds(Size, st.integers(1, 16_000), st.integers(1, 16_000))


def data_url(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def png(width: int, height: int) -> bytes:
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))


def gif(width: int, height: int) -> bytes:
    return b"GIF89a" + struct.pack("<HH", width, height) + b"\x80\x00\x00"


def jpeg(width: int, height: int, before: int = 0) -> bytes:
    thumbnail = b"\xff\xe1" + struct.pack(">H", before + 2) + bytes(before) if before else b""
    table = b"\xff\xc4\x00\x05\x00\x01\x02"
    frame = b"\xff\xc2\x00\x11\x08" + struct.pack(">HH", height, width) + b"\x03" + bytes(9)
    return b"\xff\xd8\xff\xe0\x00\x04JF" + thumbnail + table + b"\xff" + frame


def webp(kind: bytes, body: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", len(body) + 12) + b"WEBP" + kind + struct.pack("<I", len(body)) + body


def lossy(width: int, height: int) -> bytes:
    return webp(b"VP8 ", b"\x00\x00\x00\x9d\x01\x2a" + struct.pack("<HH", width, height) + bytes(8))


def lossless(width: int, height: int) -> bytes:
    return webp(b"VP8L", b"\x2f" + struct.pack("<I", (width - 1) | (height - 1) << 14) + bytes(8))


def extended(width: int, height: int) -> bytes:
    return webp(b"VP8X", bytes(4) + struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3])


@settings(deadline=None)
@given(size=SIZES)
def test_a_size_is_read_from_every_kind_of_header(size: Size) -> None:
    for kind, made in (
        ("png", png),
        ("gif", gif),
        ("jpeg", jpeg),
        ("webp", lossy),
        ("webp", lossless),
        ("webp", extended),
    ):
        assert size_of(data_url(kind, made(*size) + bytes(30))) == size


def test_a_size_behind_a_large_thumbnail_is_found() -> None:
    assert size_of(data_url("jpeg", jpeg(4032, 3024, before=65_000))) == (4032, 3024)


HOSTILE = {
    "fill": b"\xff" * 196_000,
    "restarts": b"\xff\xd0" * 98_000,
    "without lengths": b"\xff\x01" * 98_000,
    "empty segments": b"\xff\xe1\x00\x02" * 49_000,
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_header_takes_no_time(data: bytes) -> None:
    url = data_url("jpeg", b"\xff\xd8" + data + jpeg(10, 10)[2:])
    best = 1.0
    for _ in range(5):
        began = time.perf_counter()
        assert size_of(url) is None
        best = min(best, time.perf_counter() - began)
    assert best < 0.002


def test_nothing_of_the_picture_itself_comes_before_its_frame_header() -> None:
    assert size_of(data_url("jpeg", b"\xff\xd8\xff\xd0" + jpeg(10, 10)[2:])) is None
    assert size_of(data_url("jpeg", b"\xff\xd8" + b"\xff" * 20 + jpeg(10, 10)[2:])) == (10, 10)


@settings(deadline=None)
@given(
    data=st.binary(max_size=200), prefix=st.sampled_from([b"", b"\xff\xd8", b"RIFF....WEBPVP8X", b"GIF89a"])
)
def test_no_header_is_too_broken_to_be_looked_at(data: bytes, prefix: bytes) -> None:
    found = size_of(data_url("png", prefix + data))
    assert found is None or min(found) > 0


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/cat.png",
        "data:image/png,abc",
        "data:image/png;base64,ÄÖ",
        "data:text/plain;base64,AAAA",
        "",
    ],
)
def test_a_size_that_can_not_be_told_is_none(url: str) -> None:
    assert size_of(url) is None


@pytest.mark.parametrize(
    ("size", "low", "tokens"),
    [
        ((1024, 1024), False, 765),
        ((2048, 4096), False, 1105),
        ((4096, 8192), True, 85),
        ((512, 512), False, 255),
    ],
)
def test_tiles_cost_what_openais_guide_says(size: tuple[int, int], low: bool, tokens: int) -> None:
    assert image_tokens(Size(*size), GPT_4O_IMAGES, low=low) == tokens


@pytest.mark.parametrize(("size", "patches"), [((1024, 1024), 1024), ((1800, 2400), 1452), ((32, 33), 2)])
def test_patches_cost_what_openais_guide_says(size: tuple[int, int], patches: int) -> None:
    assert image_tokens(Size(*size), Patches(1.0)) == patches
    assert image_tokens(Size(*size), Patches(1.62)) == -(-patches * 162 // 100)


@settings(deadline=None)
@given(size=SIZES, cost=st.sampled_from([GPT_4O_IMAGES, Tiles(2833, 5667), Patches(1.62), Patches(2.46)]))
def test_no_picture_costs_more_than_one_of_unknown_size(size: Size, cost: ImageCost) -> None:
    assert 0 < image_tokens(size, cost) <= image_tokens(None, cost) + 1


def test_what_is_not_text_is_added_up_whatever_it_is() -> None:
    url = data_url("png", png(512, 512))
    content = [
        {"type": "text", "text": "hello"},
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "image_url", "image_url": {"url": url, "detail": "low"}},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
        {"type": "image_url", "image_url": None},
        "odd",
    ]
    assert picture_tokens({"content": content}, GPT_4O_IMAGES) == 255 + 85 + 2 * GPT_4O_IMAGES.worst
    assert picture_tokens(None, GPT_4O_IMAGES) == picture_tokens({"content": "text"}, GPT_4O_IMAGES) == 0


def test_a_small_model_pays_more_for_a_picture() -> None:
    family = family_of("gpt-4o-mini-2024-07-18")
    assert family is not None
    assert image_tokens(Size(1024, 1024), family.images) == 2833 + 4 * 5667
