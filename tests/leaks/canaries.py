"""Keys that are nobody's, of the form that providers give theirs; and finding any part of one in anything."""

import base64
import gzip
import io
import json
import secrets
import string
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

import pypdfium2
import zstandard

PART: Final = 12  # characters of a key's secret part in a row that are a leak
_GRAM: Final = 6  # of any run of 2 * 6 - 1 characters, some 6 begin at a multiple of 6
_DEEPEST: Final = 4  # containers within each other
_LARGEST: Final = 64 * 1024 * 1024  # bytes that one container is unpacked to

ALPHANUMERIC: Final = string.ascii_letters + string.digits
WORD: Final = ALPHANUMERIC + "-_"
HEX: Final = "0123456789abcdef"
# What needs another spelling in a URL, in JSON, in HTML.
AWKWARD: Final = ALPHANUMERIC + "+/=%&\"\\<>'"


@dataclass(frozen=True, repr=False)
class Canary:
    """One key. `name`: where it was planted; `public`: how all keys of its provider begin."""

    name: str
    public: str
    secret: str

    @property
    def text(self) -> str:
        return self.public + self.secret

    def __repr__(self) -> str:
        return f"Canary({self.name})"


def canary(name: str, public: str, alphabet: str, length: int) -> Canary:
    """A new one. Both halves hold every kind of character that its alphabet has, where there is room."""
    while True:
        secret = "".join(secrets.choice(alphabet) for _ in range(length))
        special = set(alphabet) - set(ALPHANUMERIC)
        halves = secret[: length // 2], secret[length // 2 :]
        # A comma would part it in the environment, and a blank is no part of a key.
        if not special or all(special & set(half) for half in halves):
            return Canary(name, public, secret)


@dataclass(frozen=True)
class Leak:
    """A part of a key that was found. The key itself is not told: reports are kept."""

    canary: str
    form: str
    place: str
    characters: int
    around: str

    def __str__(self) -> str:
        return f"{self.characters} characters of {self.canary}, {self.form}, in {self.place}: {self.around}"


class Search:
    """Looks for `canaries`, whole and in parts of `PART` characters, in every form."""

    def __init__(self, canaries: Iterable[Canary]) -> None:
        # By gram: the canary, the form, the whole spelling, where the gram stands, the least that is a leak.
        self._grams: dict[str, list[tuple[str, str, str, int, int]]] = {}
        for one in canaries:
            for form, spelling, least in forms(one.secret):
                for at in range(0, len(spelling) - _GRAM + 1, _GRAM):
                    place = (one.name, form, spelling, at, least)
                    self._grams.setdefault(spelling[at : at + _GRAM], []).append(place)

    def everything(self, documents: Mapping[str, bytes]) -> list[Leak]:
        """What is found in `documents`, by name, and in what is packed into them."""
        found: dict[tuple[str, str, str], Leak] = {}
        for name, data in documents.items():
            for place, text in readings(name, data):
                for leak in self.text(place, text):
                    found.setdefault((leak.canary, leak.form, leak.place), leak)
        return list(found.values())

    def text(self, place: str, text: str) -> Iterator[Leak]:
        grams = self._grams
        for at in [at for at in range(len(text) - _GRAM + 1) if text[at : at + _GRAM] in grams]:
            for name, form, spelling, where, least in grams[text[at : at + _GRAM]]:
                first, end = _extent(text, at, spelling, where)
                if end - first >= least:
                    around = f"{text[max(0, first - 120) : first]}▮▮▮{text[end : end + 60]}"
                    yield Leak(name, form, place, end - first, " ".join(around.split()))


def forms(secret: str) -> Iterator[tuple[str, str, int]]:
    """How a key may be written: the form's name, the spelling, and how many of its characters give `PART` away."""
    seen: set[str] = set()
    raw = secret.encode()
    escaped = json.dumps(secret)[1:-1]
    plain: list[tuple[str, str, int]] = [
        ("plain", secret, PART),
        ("URL-encoded", quote(secret, safe=""), PART),
        ("URL-encoded but for slashes", quote(secret), PART),
        ("URL-encoded twice", quote(quote(secret, safe=""), safe=""), PART),
        ("JSON-escaped", escaped, PART),
        ("JSON-escaped twice", json.dumps(escaped)[1:-1], PART),
        ("HTML-escaped", _in_html(secret), PART),
        ("hexadecimal", raw.hex(), 2 * PART),
        ("hexadecimal, in capitals", raw.hex().upper(), 2 * PART),
    ]
    for offset in range(3):
        encoded = base64.b64encode(b"\0" * offset + raw).decode()
        first, end = (offset * 8 + 5) // 6, (offset + len(raw)) * 8 // 6
        # Of twelve bytes, at least 15 characters are theirs alone.
        plain.append((f"base64 from {offset}", encoded[first:end], 15))
        safe = encoded.replace("+", "-").replace("/", "_")
        plain.append((f"URL-safe base64 from {offset}", safe[first:end], 15))
    for form, spelling, least in plain:
        for name, one in ((form, spelling), (f"{form}, reversed", spelling[::-1])):
            if one not in seen:
                seen.add(one)
                yield name, one, least


def _in_html(text: str) -> str:
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&#34;"), ("'", "&#39;")):
        text = text.replace(character, entity)
    return text


def _extent(text: str, at: int, spelling: str, where: int) -> tuple[int, int]:
    """How far `text` around `at` reads as `spelling` around `where`."""
    first = 0
    while first < min(at, where) and text[at - first - 1] == spelling[where - first - 1]:
        first += 1
    end = _GRAM
    while at + end < len(text) and where + end < len(spelling) and text[at + end] == spelling[where + end]:
        end += 1
    return at - first, at + end


def readings(name: str, data: bytes, deep: int = 0) -> Iterator[tuple[str, str]]:
    """`data` as text, and what is packed into it: archives, compressed bytes, the words of a PDF."""
    yield name, data.decode("utf-8", "replace")
    if deep == _DEEPEST:
        return
    if data.startswith(b"\x1f\x8b"):
        yield from readings(f"{name} (gzip)", gzip.decompress(data), deep + 1)
    elif data.startswith(b"\x28\xb5\x2f\xfd"):
        unpacked = zstandard.ZstdDecompressor().decompressobj().decompress(data)
        yield from readings(f"{name} (zstd)", unpacked, deep + 1)
    elif data.startswith(b"PK\x03\x04"):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for member in archive.infolist():
                if member.file_size <= _LARGEST:
                    yield from readings(f"{name}/{member.filename}", archive.read(member), deep + 1)
    elif data.startswith(b"%PDF-"):
        pdf = pypdfium2.PdfDocument(data)
        try:
            words = [page.get_textpage().get_text_bounded() for page in pdf]
        finally:
            pdf.close()
        # A line may break within a key.
        yield f"{name} (its words)", "".join("".join(words).split())
    elif data[:2] in {b"x\x9c", b"x\xda", b"x\x01"}:
        try:
            unpacked = zlib.decompressobj().decompress(data, _LARGEST)
        except zlib.error:
            return  # it only began so
        yield from readings(f"{name} (zlib)", unpacked, deep + 1)
