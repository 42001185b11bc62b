"""The search finds what it is to find, in every form, and no more: else finding nothing would prove nothing."""

import base64
import gzip
import io
import json
import zipfile
import zlib
from collections.abc import Callable
from urllib.parse import quote

import pytest
import zstandard

from tests.leaks.canaries import ALPHANUMERIC, AWKWARD, HEX, PART, WORD, Canary, Search, canary

KEYS = [
    canary("groq", "gsk_", ALPHANUMERIC, 52),
    canary("openrouter", "sk-or-v1-", HEX, 64),
    canary("openai", "sk-proj-", WORD, 40),
    canary("lab", "", AWKWARD, 40),
    canary("ocr_space", "K8", "0123456789", 13),
]
FORMS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "reversed": lambda text: text[::-1],
    "URL-encoded": lambda text: quote(text, safe=""),
    "URL-encoded but for slashes": quote,
    "JSON": json.dumps,
    "JSON within JSON": lambda text: json.dumps(json.dumps({"said": text})),
    "hexadecimal": lambda text: text.encode().hex(),
    "hexadecimal in capitals": lambda text: text.encode().hex().upper(),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64, one byte later": lambda text: base64.b64encode(b"k" + text.encode()).decode(),
    "base64, two bytes later": lambda text: base64.b64encode(b"k=" + text.encode()).decode(),
    "base64 of a header": lambda text: base64.b64encode(b"Bearer " + text.encode() + b"\r\n").decode(),
    "URL-safe base64": lambda text: base64.urlsafe_b64encode(text.encode()).decode(),
    "base64, reversed": lambda text: base64.b64encode(text.encode()).decode()[::-1],
}


@pytest.fixture(scope="module")
def search() -> Search:
    return Search(KEYS)


def found(search: Search, data: bytes | str) -> set[str]:
    data = data.encode() if isinstance(data, str) else data
    return {leak.canary for leak in search.everything({"somewhere": b"before " + data + b" after"})}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.name)
def test_a_whole_key_is_found(search: Search, key: Canary, form: str) -> None:
    assert found(search, FORMS[form](key.text)) == {key.name}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.name)
def test_any_twelve_characters_of_its_secret_part_are_found(search: Search, key: Canary, form: str) -> None:
    for at in range(len(key.secret) - PART + 1):
        assert found(search, FORMS[form](key.secret[at : at + PART])) == {key.name}, at


def test_both_halves_of_a_split_key_are_found(search: Search) -> None:
    key = KEYS[1]
    halves = json.dumps({"message": key.text[:40], "code": key.text[40:]})
    assert [leak.characters for leak in search.text("", halves)].count(31) > 0
    assert len({leak.characters for leak in search.text("", halves)}) == 2


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.name)
def test_what_people_may_see_of_a_key_is_no_leak(search: Search, key: Canary) -> None:
    assert found(search, f"{key.text[:4]}…{key.text[-4:]} {key.secret[: PART - 1]}") == set()


@pytest.mark.parametrize(
    "pack",
    [
        gzip.compress,
        zlib.compress,
        zstandard.ZstdCompressor().compress,
        lambda data: gzip.compress(zlib.compress(data)),
    ],
)
def test_what_is_packed_is_searched(search: Search, pack: Callable[[bytes], bytes]) -> None:
    packed = pack(b"x" * 100 + KEYS[0].text.encode())
    assert {leak.canary for leak in search.everything({"file": packed})} == {"groq"}


def test_archives_are_searched(search: Search) -> None:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/b.json", json.dumps({"said": KEYS[2].text}))
    [leak, *_] = search.everything({"all.zip": made.getvalue()})
    assert (leak.canary, leak.place) == ("openai", "all.zip/a/b.json")


def test_a_report_does_not_tell_the_key(search: Search) -> None:
    key = KEYS[0]
    for leak in search.everything({"log": f"it was {key.text}.".encode()}):
        assert not list(search.text("report", str(leak)))
