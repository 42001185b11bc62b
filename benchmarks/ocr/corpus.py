"""Files to upload: honest ones, damaged ones, and those that were made to do harm."""

import hashlib
import io
import random
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import docx
import typst
from PIL import Image

from benchmarks.ocr.pages import TEXTS, Sheet, draw

SENTENCE = "The quick brown fox jumps over the lazy dog near the river bank."


def picture(text: str = SENTENCE, *, size: int = 40, width: int = 1400, form: str = "PNG") -> bytes:
    """A printed line or more, as a picture."""
    return encoded(draw(text, Sheet(font="DejaVuSans.ttf", size=size, width=width, margin=50)), form)


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    kept = io.BytesIO()
    image.save(kept, form, **options)
    return kept.getvalue()


def scanned_pdf(*texts: str) -> bytes:
    """A PDF whose pages are pictures only."""
    pages = [draw(text, Sheet(font="DejaVuSerif.ttf", size=40, width=1400, margin=80)) for text in texts]
    kept = io.BytesIO()
    pages[0].save(kept, "PDF", resolution=200, save_all=True, append_images=pages[1:])
    return kept.getvalue()


def printed_pdf(markup: str) -> bytes:
    """A PDF with text in it, made from Typst's markup."""
    made = typst.compile(markup.encode())
    assert isinstance(made, bytes)
    return made


def bare_pdf(content: bytes, *, media_box: str = "0 0 300 300", extra: Mapping[int, bytes] = {}) -> bytes:
    """A PDF by hand: one page that draws `content`; `extra` are further objects, by number from 6 on."""
    objects: dict[int, bytes] = {
        1: b"<</Type/Catalog/Pages 2 0 R>>",
        2: b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        3: b"<</Type/Page/Parent 2 0 R/MediaBox[%s]/Contents 4 0 R/Resources"
        b"<</Font<</F1 5 0 R>>/XObject<</I1 6 0 R>>>>>>" % media_box.encode(),
        4: b"<</Length %d>>stream\n%s\nendstream" % (len(content), content),
        5: b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
        **extra,
    }
    return assembled(objects, b"/Root 1 0 R")


def assembled(objects: Mapping[int, bytes], trailer: bytes) -> bytes:
    out = bytearray(b"%PDF-1.4\n")
    places = {}
    for number, body in sorted(objects.items()):
        places[number] = len(out)
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(out)
    size = max(objects) + 1
    out += b"xref\n0 %d\n0000000000 65535 f \n" % size
    for number in range(1, size):
        out += b"%010d 00000 %s \n" % (places.get(number, 0), b"n" if number in places else b"f")
    out += b"trailer\n<</Size %d%s>>\nstartxref\n%d\n%%%%EOF\n" % (size, trailer, start)
    return bytes(out)


def many_pages(count: int) -> bytes:
    """A PDF that says it has so many pages; they are all the same one."""
    kids = b" ".join([b"3 0 R"] * count)
    return assembled(
        {
            1: b"<</Type/Catalog/Pages 2 0 R>>",
            2: b"<</Type/Pages/Kids[%s]/Count %d>>" % (kids, count),
            3: b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 100 100]>>",
        },
        b"/Root 1 0 R",
    )


def picture_bomb_pdf() -> bytes:
    """A small PDF whose one picture has 90,000 by 90,000 pixels."""
    side = 90_000
    packer = zlib.compressobj(9)
    row = bytes(side)
    packed = b"".join([packer.compress(row) for _ in range(2_000)]) + packer.flush()
    body = (
        b"<</Type/XObject/Subtype/Image/Width %d/Height %d/ColorSpace/DeviceGray/BitsPerComponent 8"
        b"/Filter/FlateDecode/Length %d>>stream\n%s\nendstream" % (side, side, len(packed), packed)
    )
    return bare_pdf(b"q 300 0 0 300 0 0 cm /I1 Do Q", extra={6: body})


def stream_bomb_pdf() -> bytes:
    """A small PDF whose page's instructions unpack to a gigabyte."""
    packer = zlib.compressobj(9)
    block = b"0 0 m 1 1 l S\n" * 75_000
    packed = b"".join([packer.compress(block) for _ in range(1_000)]) + packer.flush()
    body = b"<</Filter/FlateDecode/Length %d>>stream\n%s\nendstream" % (len(packed), packed)
    return bare_pdf(b"", extra={4: body})


def _rc4(key: bytes, data: bytes) -> bytes:
    state, j = list(range(256)), 0
    for i in range(256):
        j = (j + state[i] + key[i % len(key)]) % 256
        state[i], state[j] = state[j], state[i]
    i = j = 0
    out = bytearray()
    for byte in data:
        i = (i + 1) % 256
        j = (j + state[i]) % 256
        state[i], state[j] = state[j], state[i]
        out.append(byte ^ state[(state[i] + state[j]) % 256])
    return bytes(out)


def protected_pdf(password: str = "open sesame") -> bytes:
    """A PDF that opens with a password only (the standard handler, revision 2)."""
    pad = bytes.fromhex("28BF4E5E4E758A4164004E56FFFA01082E2E00B6D0683E802F0CA9FE6453697A")
    padded = (password.encode() + pad)[:32]
    identity = b"0123456789abcdef"
    owner = _rc4(hashlib.md5(padded).digest()[:5], padded)
    permissions = -4
    seed = padded + owner + struct.pack("<i", permissions) + identity
    key = hashlib.md5(seed).digest()[:5]
    user = _rc4(key, pad)
    content = b"BT /F1 20 Tf 20 100 Td (secret) Tj ET"
    of_object = hashlib.md5(key + (4).to_bytes(3, "little") + b"\x00\x00").digest()[:10]
    sealed = _rc4(of_object, content)
    return assembled(
        {
            1: b"<</Type/Catalog/Pages 2 0 R>>",
            2: b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
            3: b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 300 300]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
            4: b"<</Length %d>>stream\n%s\nendstream" % (len(sealed), sealed),
            5: b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
            6: b"<</Filter/Standard/V 1/R 2/O<%s>/U<%s>/P %d>>"
            % (owner.hex().encode(), user.hex().encode(), permissions),
        },
        b"/Root 1 0 R/Encrypt 6 0 R/ID[<%s><%s>]" % (identity.hex().encode(), identity.hex().encode()),
    )


def word_document() -> bytes:
    """Paragraphs, a table between them, a list, a content control and a deletion."""
    made = docx.Document()
    made.add_heading("Report on the valley", 1)
    made.add_paragraph("Before the table.")
    table = made.add_table(rows=2, cols=2)
    for row, texts in zip(table.rows, (("Station", "Metres"), ("Kestrel", "812")), strict=True):
        for cell, text in zip(row.cells, texts, strict=True):
            cell.text = text
    made.add_paragraph("After the table.")
    made.add_paragraph("First point", style="List Bullet")
    inner = docx.oxml.parse_xml(  # type: ignore[attr-defined]
        '<w:sdt xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:sdtContent>'
        "<w:p><w:r><w:t>Inside a control.</w:t></w:r></w:p></w:sdtContent></w:sdt>"
    )
    made.element.body.insert(4, inner)
    gone = docx.oxml.parse_xml(  # type: ignore[attr-defined]
        '<w:p xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:del><w:r><w:delText>'
        "Deleted.</w:delText></w:r></w:del><w:ins><w:r><w:t>Inserted.</w:t></w:r></w:ins></w:p>"
    )
    made.element.body.insert(5, gone)
    kept = io.BytesIO()
    made.save(kept)
    return kept.getvalue()


def repacked(document: bytes, changes: Mapping[str, bytes | None], *, stored: bool = False) -> bytes:
    """A DOCX with parts put in place of its own, or (None) left out."""
    kept = io.BytesIO()
    how = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
    with (
        zipfile.ZipFile(io.BytesIO(document)) as old,
        zipfile.ZipFile(kept, "w", how, compresslevel=9) as new,
    ):
        for entry in old.infolist():
            if entry.filename not in changes:
                new.writestr(entry.filename, old.read(entry))
        for name, content in changes.items():
            if content is not None:
                new.writestr(name, content)
    return kept.getvalue()


def zip_bomb_docx() -> bytes:
    return repacked(word_document(), {"word/media/large.bin": bytes(300_000_000)})


def entity_bomb_docx() -> bytes:
    entities = b'<!ENTITY a "lollollol">' + b"".join(
        b'<!ENTITY %c "%s">' % (98 + at, b"&%c;" % (97 + at) * 10) for at in range(12)
    )
    xml = (
        b'<?xml version="1.0"?><!DOCTYPE d [' + entities + b"]>"
        b'<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body><w:p><w:r>'
        b"<w:t>&m;</w:t></w:r></w:p></w:body></w:document>"
    )
    return repacked(word_document(), {"word/document.xml": xml})


def protected_docx() -> bytes:
    """The beginning of what Word makes of a document with a password: an OLE file with an encrypted package in it."""
    return (
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
        + bytes(1016)
        + "EncryptedPackage".encode("utf-16-le")
        + bytes(600)
    )


def png_header(width: int, height: int) -> bytes:
    """A PNG that says it has so many pixels, and has none."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    packed = zlib.compress(bytes(100_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def honest() -> dict[str, bytes]:
    """One small file of every kind, by name."""
    image = Image.new("RGB", (220, 80), "white")
    image.paste(
        draw("Hello 123", Sheet(font="DejaVuSans.ttf", size=28, width=200, margin=8)).resize((220, 80))
    )
    tiff = io.BytesIO()
    image.save(tiff, "TIFF", save_all=True, append_images=[image.rotate(180)], compression="tiff_lzw")
    return {
        "a.png": encoded(image),
        "a.jpg": encoded(image, "JPEG"),
        "a.webp": encoded(image, "WEBP"),
        "a.gif": encoded(image.convert("P"), "GIF"),
        "a.tiff": tiff.getvalue(),
        "a.bmp": encoded(image, "BMP"),
        "a.pdf": bare_pdf(b"BT /F1 20 Tf 20 100 Td (Hello from a small PDF file) Tj ET"),
        "a.docx": word_document(),
        "a.txt": TEXTS["urd"][0].encode(),
        "a.csv": b"name,metres\r\nKestrel,812\r\n",
        "a.json": b'{"name": "Kestrel", "metres": 812}',
    }


def mutated(files: Mapping[str, bytes], count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """`count` damaged files: bytes flipped, cut out, doubled or moved, numbers made huge, ends cut off."""
    chance = random.Random(seed)
    names = sorted(files)
    for number in range(count):
        name = names[number % len(names)]
        data = bytearray(files[name])
        for _ in range(chance.choice((1, 1, 2, 4, 16, 64))):
            at = chance.randrange(len(data)) if data else 0
            match chance.randrange(6):
                case 0:
                    data[at : at + 1] = bytes([chance.randrange(256)])
                case 1:
                    del data[at : at + chance.choice((1, 4, 64, 1024))]
                case 2:
                    data[at:at] = data[at : at + chance.choice((1, 16, 256))]
                case 3:
                    data[at : at + 4] = chance.choice(
                        (b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x00\x00\x00\x00")
                    )
                case 4:
                    data[at:at] = chance.randbytes(chance.choice((1, 8, 200)))
                case 5 if chance.random() < 0.2:
                    del data[at:]
        yield f"{number:05}-{name}", bytes(data)


def write(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path
