"""Uploads, as clients on real sockets send them."""

import asyncio
import contextlib
import errno
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
from fastapi import FastAPI, Request
from hypothesis import given
from hypothesis import strategies as st

from baatcheet.platform import failures
from baatcheet.platform.asgi import Frame
from baatcheet.platform.blobs import FolderBlobs
from baatcheet.platform.errors import BadRequest, Invalid, TooLarge, UnsupportedMediaType
from baatcheet.platform.settings import ServerSettings
from baatcheet.platform.telemetry import Telemetry
from baatcheet.platform.uploads import MAX_FIELD_BYTES, MAX_PARTS, OVERHEAD_BYTES, body_limit, receive_upload
from tests.platform.test_asgi import METRICS, serving

LIMITS = {"image": 100_000, "text": 2_000_000}
BOUNDARY = "frontier"


def kind_of(head: bytes) -> str | None:
    if head.startswith(b"MZ"):
        raise UnsupportedMediaType("Programs are not taken.")
    return "image" if head.startswith(b"\x89PNG") else "text" if head.isascii() else None


def uploads(folder: Path) -> FastAPI:
    """Answers what was received."""
    app = FastAPI()
    failures.install(app)
    blobs = FolderBlobs(folder)

    @app.post("/up")
    async def up(request: Request) -> dict[str, Any]:
        async with blobs.scratch() as scratch:
            received = await receive_upload(request, scratch, LIMITS, kind_of=kind_of)
            content = received.path.read_bytes()
            assert len(content) == received.size
            assert hashlib.sha256(content).hexdigest() == received.sha256
            assert received.path.parent == scratch
            return {
                "size": received.size,
                "sha256": received.sha256,
                "filename": received.filename,
                "content_type": received.content_type,
                "kind": received.kind,
                "fields": received.fields,
                "tags": received.several("tag"),
            }

    return app


@pytest.fixture
async def url(tmp_path: Path) -> AsyncIterator[str]:
    limits = {"/up": body_limit(LIMITS)}
    settings = ServerSettings.model_validate({"max_body_bytes": 5000})
    async with serving(Frame(uploads(tmp_path), settings, Telemetry(METRICS), limits)) as served:
        yield served
        await nothing_is_left(tmp_path)


async def nothing_is_left(folder: Path) -> None:
    async with asyncio.timeout(5):
        while list(folder.glob(".scratch/*")):
            await asyncio.sleep(0.01)


@pytest.fixture
async def client(url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=url, timeout=10, trust_env=False) as opened:
        yield opened


def part(body: bytes, disposition: str = 'form-data; name="file"; filename="a.txt"', more: str = "") -> bytes:
    head = f"--{BOUNDARY}\r\ncontent-disposition: {disposition}\r\n{more}\r\n"
    return head.encode() + body + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()


async def send(client: httpx.AsyncClient, body: bytes, content_type: str | None = None) -> httpx.Response:
    said = content_type or f"multipart/form-data; boundary={BOUNDARY}"
    return await client.post("/up", content=body, headers={"content-type": said})


async def test_a_file_arrives_with_its_name_hash_and_fields(client: httpx.AsyncClient) -> None:
    body = b"hello " * 200_000
    answer = await client.post(
        "/up",
        files={"file": ("میرا متن.txt", body, "text/plain; charset=utf-8")},
        data={"language": "اردو", "tag": ["a", "b"]},
    )
    assert answer.status_code == 200, answer.text
    assert answer.json() == {
        "size": len(body),
        "sha256": hashlib.sha256(body).hexdigest(),
        "filename": "میرا متن.txt",
        "content_type": "text/plain",
        "kind": "text",
        "fields": {"language": "اردو", "tag": "b"},
        "tags": ["a", "b"],
    }


async def test_a_field_may_come_after_the_file(client: httpx.AsyncClient) -> None:
    answer = await send(client, part(b"x") + part(b"ur", 'form-data; name="language"') + END)
    assert answer.json()["fields"] == {"language": "ur"}


@pytest.mark.parametrize(
    "name", ["سالانہ رپورٹ (آخری).pdf", "my file.pdf", "100% sure.pdf", "日本.png", "a+b;c.txt"]
)
async def test_aiohttp_and_curl_are_understood(url: str, name: str, tmp_path: Path) -> None:
    async with aiohttp.ClientSession() as session:
        form = aiohttp.FormData()
        form.add_field("file", b"some text", filename=name)
        async with session.post(f"{url}/up", data=form) as answer:
            assert (await answer.json())["filename"] == name
    (tmp_path / name).write_bytes(b"some text")
    curl = await asyncio.create_subprocess_exec(
        "curl", "-sS", "-F", f'file=@"{name}"', f"{url}/up", cwd=tmp_path, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await curl.communicate()
    assert json.loads(said)["filename"] == name


@pytest.mark.parametrize(
    ("body", "content_type", "status", "told"),
    [
        pytest.param(b"{}", "application/json", 415, "multipart/form-data", id="JSON"),
        pytest.param(b"a=b", "application/x-www-form-urlencoded", 415, "multipart", id="a plain form"),
        pytest.param(part(b"x") + END, "multipart/mixed; boundary=frontier", 415, "multipart", id="mixed"),
        pytest.param(part(b"x") + END, "multipart/form-data", 400, "boundary", id="no boundary"),
        pytest.param(part(b"x") + END, 'multipart/form-data; boundary=""', 400, "boundary", id="an empty one"),
        pytest.param(part(b"x") + END, f"multipart/form-data; boundary={'b' * 80}", 400, "boundary", id="a long one"),
        pytest.param(part(b"x") + END, "multipart/form-data; boundary=other", 400, "can't be read", id="another one"),
        pytest.param(b"", None, 400, "closing boundary", id="nothing"),
        pytest.param(END, None, 422, "no file", id="an empty form"),
        pytest.param(part(b"x"), None, 400, "closing boundary", id="no end"),
        pytest.param(part(b"x" * 9000)[:4000], None, 400, "closing boundary", id="cut in the file"),
        pytest.param(part(b"x")[:40], None, 400, "closing boundary", id="cut in a header"),
        pytest.param(part(b"") + END, None, 422, "empty", id="zero bytes"),
        pytest.param(part(b"x") + part(b"y") + END, None, 422, "more than one file", id="two files"),
        pytest.param(
            part(b"x", 'form-data; name="other"; filename="a"') + END, None, 422, "not in other", id="another field"
        ),
        pytest.param(part(b"x", 'form-data; name="file"') + END, None, 422, "filename", id="no file name"),
        pytest.param(part(b"x", 'form-data; name="a"') + END, None, 422, "no file", id="only a field"),
        pytest.param(part(b"x", "form-data") + END, None, 400, "content-disposition", id="no name"),
        pytest.param(part(b"x", 'inline; name="file"; filename="a"') + END, None, 400, "form-data", id="inline"),
        pytest.param(f"--{BOUNDARY}\r\n\r\nx\r\n".encode() + END, None, 400, "content-disposition", id="no header"),
        pytest.param(part(b"x", more=f"x-long: {'a' * 9000}\r\n") + END, None, 400, "header size", id="a long header"),
        pytest.param(
            part(b"x", f'form-data; name="file"; filename="{"a" * 100_000}"') + END, None, 400, "header size",
            id="a name of 100 kB",
        ),
        pytest.param(part(b"x", more="x: y\r\n" * 20) + END, None, 400, "twice", id="a header again and again"),
        pytest.param(
            part(b"x", more="".join(f"x-{one}: y\r\n" for one in range(20))) + END, None, 400, "header count",
            id="many headers",
        ),
        pytest.param(
            part(b"x", 'form-data; name="file"; filename="a\nset-cookie: b"') + END, None, 400, "control character",
            id="a line feed in a name",
        ),
        pytest.param(
            part(b"x", 'form-data; name="file"; filename="a\rb"') + END, None, 400, "can't be read",
            id="a carriage return in a name",
        ),
        pytest.param(
            part(b"eA==", more="content-transfer-encoding: base64\r\n") + END, None, 422, "transfer-encoding",
            id="base64",
        ),
        pytest.param(part(b"\xff", 'form-data; name="a"') + END, None, 422, "not UTF-8", id="a field in Latin-1"),
        pytest.param(part(b"\0", 'form-data; name="a"') + END, None, 422, "NUL", id="a NUL"),
        pytest.param(
            part(b"x" * (MAX_FIELD_BYTES + 1), 'form-data; name="a"') + END, None, 413, "fields", id="a huge field"
        ),
        pytest.param(
            b"".join(part(b"x", f'form-data; name="{one}"') for one in range(MAX_PARTS + 1)) + END, None, 422,
            "parts", id="many parts",
        ),
        pytest.param(part(b"MZ program") + END, None, 415, "Programs", id="a kind that is refused"),
    ],
)  # fmt: skip
async def test_a_bad_upload_is_told_what_is_wrong(
    client: httpx.AsyncClient, body: bytes, content_type: str | None, status: int, told: str
) -> None:
    answer = await send(client, body, content_type)
    problem = answer.json()
    assert (answer.status_code, problem["status"]) == (status, status), answer.text
    assert told in problem["detail"]


@pytest.mark.parametrize(
    ("raw", "kept"),
    [
        ("../../../etc/passwd", "passwd"),
        ("a%0d%0aset-cookie%3a%20b", "a set-cookie_ b"),
        ("%2e%2e%2f%2e%2e%2fshadow", "shadow"),
        ('a\\"b.txt', "a_b.txt"),
        ("\u202etxt.exe", "txt.exe"),
        ("   ...   ", "file"),
    ],
)
async def test_a_hostile_name_becomes_a_harmless_one(client: httpx.AsyncClient, raw: str, kept: str) -> None:
    answer = await send(client, part(b"x", f'form-data; name="file"; filename="{raw}"') + END)
    assert answer.json()["filename"] == kept


async def test_each_kind_has_its_own_limit(client: httpx.AsyncClient) -> None:
    fits = await client.post("/up", files={"file": b"\x89PNG" + b"x" * (LIMITS["image"] - 4)})
    assert fits.json()["kind"] == "image"
    beyond = await client.post("/up", files={"file": b"\x89PNG" + b"x" * (LIMITS["image"] - 3)})
    assert beyond.status_code == 413
    assert beyond.json()["detail"] == "A file of this kind (image) may have 100000 bytes at most."
    assert (await client.post("/up", files={"file": b"x" * LIMITS["text"]})).json()["kind"] == "text"
    for beyond_all in (b"x" * (LIMITS["text"] + 1), b"x" * (LIMITS["text"] + OVERHEAD_BYTES)):
        answer = await client.post("/up", files={"file": beyond_all})
        assert answer.status_code == 413


async def test_other_addresses_keep_the_small_limit(client: httpx.AsyncClient) -> None:
    answer = await client.post("/other", content=b"x" * 5001)
    assert answer.status_code == 413
    assert "5000" in answer.json()["detail"]


async def test_an_endless_upload_is_refused_while_it_comes(client: httpx.AsyncClient) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        yield part(b"")[:-2]
        while sent < 100_000_000:
            sent += 10_000
            yield b"x" * 10_000
            await asyncio.sleep(0)

    with contextlib.suppress(httpx.WriteError):
        answer = await client.post(
            "/up", content=endless(), headers={"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
        )
        assert answer.status_code == 413


async def test_a_client_that_leaves_leaves_nothing(url: str, tmp_path: Path) -> None:
    host, port = url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"POST /up HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n")
    writer.write(f"content-type: multipart/form-data; boundary={BOUNDARY}\r\n\r\n".encode())
    writer.write(part(b"x" * 200_000))
    await writer.drain()
    async with asyncio.timeout(5):
        while not [*tmp_path.glob(".scratch/*/*")]:
            await asyncio.sleep(0.01)
    writer.close()
    await nothing_is_left(tmp_path)


async def test_a_full_disk_is_told(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("baatcheet.platform.uploads.os.write", fail)
    answer = await client.post("/up", files={"file": b"x" * 200_000})
    assert answer.status_code == 503
    assert answer.json()["type"] == "file-store-unavailable"
    assert answer.headers["retry-after"] == "60"


class _Chunks:
    """A request as `receive_upload` reads it, whose body comes in the given pieces."""

    def __init__(self, chunks: list[bytes]) -> None:
        self.headers = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
        self._chunks = chunks

    async def stream(self) -> AsyncIterator[bytes]:
        for one in self._chunks:
            yield one


def receive_in(tmp: Path, chunks: list[bytes]) -> Any:
    return asyncio.run(receive_upload(_Chunks(chunks), tmp, 10_000_000))  # type: ignore[arg-type]


def _cut(body: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    return [body[a:b] for a, b in pairwise(edges)]


@given(
    content=st.lists(
        st.sampled_from([b"x", b"\r\n", b"--", b"frontier", b"\r\n--frontie", b"\r", b"-"]), min_size=1
    ),
    cuts=st.lists(st.integers(0, 10_000), max_size=12),
)
def test_a_file_arrives_unchanged_however_its_body_is_cut(
    content: list[bytes], cuts: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = b"".join(content).replace(b"\r\n--frontier", b"")
    if not data:
        return
    body = part(b"1", 'form-data; name="first"') + part(data) + END
    received = receive_in(tmp_path_factory.mktemp("upload"), _cut(body, cuts))
    assert received.path.read_bytes() == data
    assert received.sha256 == hashlib.sha256(data).hexdigest()
    assert received.fields == {"first": "1"}


@given(
    raw=st.one_of(st.binary(max_size=300), st.text(max_size=100).map(str.encode)),
    where=st.integers(0, 400),
    mutate=st.sampled_from(["insert", "overwrite", "cut"]),
)
def test_a_damaged_form_is_read_or_refused_and_never_a_fault(
    raw: bytes, where: int, mutate: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    whole = part(b"1", 'form-data; name="first"') + part(b"content") + END
    where %= len(whole)
    change: dict[str, Callable[[], bytes]] = {
        "insert": lambda: whole[:where] + raw + whole[where:],
        "overwrite": lambda: whole[:where] + raw + whole[where + len(raw) :],
        "cut": lambda: whole[:where],
    }
    folder = tmp_path_factory.mktemp("upload")
    try:
        received = receive_in(folder, [change[mutate]()])
    except (BadRequest, Invalid, TooLarge):
        left = list(folder.iterdir())
    else:
        left = [one for one in folder.iterdir() if one != received.path or received.size == 0]
    assert not left
