"""One attempt against receivers of every manner: it ends in time, and says in words what came of it."""

import asyncio
import ssl
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import pytest
import pytest_asyncio
import standardwebhooks

from baatcheet import __version__
from baatcheet.platform.outbound import OutboundPolicy, guarded_session
from baatcheet.webhooks.policy import MAX_RESPONSE
from baatcheet.webhooks.sending import Request, Sender
from baatcheet.webhooks.signing import new_secret
from tests.webhooks.receiver import Receiver

SECONDS = 0.6
DELIVERY = UUID("0190f3a2-7c1e-7d4b-9a51-3f0c2b8e6d10")
SECRET = new_secret()
BODY = '{"type":"turn.completed","data":{"title":"بات چیت"}}'.encode()


def request(url: str, **headers: str) -> Request:
    return Request(url, headers, [SECRET], DELIVERY, "msg_1", "turn.completed", BODY)


@pytest_asyncio.fixture
async def sender() -> AsyncIterator[Sender]:
    async with guarded_session(OutboundPolicy.allowing(["127.0.0.1", "localhost"])) as session:
        yield Sender(session, seconds=SECONDS)


async def test_what_is_sent_says_what_it_is_and_proves_itself(sender: Sender, receiver: Receiver) -> None:
    answer = await sender.attempt(request(receiver.url("/ok?a=1"), Authorization="Bearer mine"))
    assert answer.delivered
    assert (answer.status, answer.response, answer.error) == (200, "thank you", None)
    assert 0 <= answer.duration_ms < 1000 * SECONDS
    (sent,) = receiver.requests
    assert sent.body == BODY
    assert sent.path == "/ok?a=1"
    standardwebhooks.Webhook(SECRET).verify(sent.body, sent.headers)
    expected = {
        "content-type": "application/json",
        "user-agent": f"BaatCheet/{__version__}",
        "x-baatcheet-event": "turn.completed",
        "x-baatcheet-delivery-id": str(DELIVERY),
        "webhook-id": "msg_1",
        "authorization": "Bearer mine",
        "content-length": str(len(BODY)),
        "host": f"127.0.0.1:{receiver.port}",
    }
    assert expected.items() <= sent.headers.items()
    assert sent.headers["x-baatcheet-signature"].startswith("sha256=")
    assert "cookie" not in sent.headers


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/status/500", 500, "answered 500 Internal Server Error"),
        ("/status/404", 404, "answered 404 Not Found"),
        ("/status/410", 410, "gone for good"),
        ("/status/307", 307, "redirects (status 307)"),
        ("/busy/7", 429, "answered 429"),
        ("/redirect", 302, "are not followed"),
        ("/hang", 0, "did not answer within 0.6 seconds"),
        ("/drip-head", 0, "did not answer within 0.6 seconds"),
        ("/drip", 200, "did not end within 0.6 seconds"),
        ("/cut", 0, "closed the connection without an answer"),
        ("/cut-body", 200, "lost before the whole answer"),
        ("/nonsense", 0, "not HTTP"),
    ],
)
async def test_whatever_else_comes_is_a_failure_in_words(
    sender: Sender, receiver: Receiver, path: str, status: int, words: str
) -> None:
    began = time.monotonic()
    answer = await sender.attempt(request(receiver.url(path)))
    assert time.monotonic() - began < SECONDS + 0.5
    assert not answer.delivered
    assert answer.status == status
    assert answer.error is not None
    assert words in answer.error
    assert answer.error.endswith(".")
    assert len(receiver.requests) == 1, "it was sent again, or elsewhere"


async def test_of_a_huge_answer_no_more_is_read_than_is_kept(sender: Sender, receiver: Receiver) -> None:
    answer = await sender.attempt(request(receiver.url("/huge")))
    assert answer.delivered
    assert answer.response == "y" * MAX_RESPONSE
    assert answer.duration_ms < 1000 * SECONDS


async def test_a_busy_receivers_wish_is_told(sender: Sender, receiver: Receiver) -> None:
    assert (await sender.attempt(request(receiver.url("/busy/90")))).retry_after == 90
    assert (await sender.attempt(request(receiver.url("/status/500")))).retry_after is None


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://127.0.0.1:1/", "nothing listens at its address"),
        ("http://10.0.0.1/", "Not sent: the address leads to a private address"),
        ("https://169.254.169.254/latest/meta-data", "Not sent: the address leads to a link-local address"),
        ("http://no-such-host.invalid/", "host name can't be found"),
        ("http://127.0.0.1:0/", "Not sent: the address has port 0"),
    ],
)
async def test_what_can_not_be_reached_is_said_in_words(sender: Sender, url: str, words: str) -> None:
    answer = await sender.attempt(request(url))
    assert answer.status == 0
    assert answer.error is not None
    assert words in answer.error


async def test_a_name_whose_servers_are_silent_is_cut_off_in_time() -> None:
    async def silent(host: str, port: int) -> list[tuple[int, str]]:
        await asyncio.sleep(3600)
        return []

    async with guarded_session(OutboundPolicy.allowing(["127.0.0.1"]), lookup=silent) as session:
        answer = await Sender(session, seconds=0.2).attempt(request("https://silent.example/"))
    assert answer.error == "The receiver did not answer within 0.2 seconds."
    assert answer.duration_ms < 1000


async def test_a_certificate_that_nobody_vouches_for_is_refused(sender: Sender, tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    where = ["-keyout", str(key), "-out", str(certificate), "-days", "1", "-subj", "/CN=localhost"]
    await asyncio.to_thread(subprocess.run, [*make, *where], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    seen = []
    server = await asyncio.start_server(lambda reader, writer: seen.append(1), "127.0.0.1", 0, ssl=context)
    async with server:
        answer = await sender.attempt(request(f"https://localhost:{server.sockets[0].getsockname()[1]}/"))
    assert answer.status == 0
    assert answer.error is not None
    assert "certificate is not valid" in answer.error
    assert not seen


async def test_tls_where_none_is_spoken_is_said_so(sender: Sender) -> None:
    def plain(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(plain, "127.0.0.1", 0)
    async with server:
        answer = await sender.attempt(request(f"https://localhost:{server.sockets[0].getsockname()[1]}/"))
    assert answer.status == 0
    assert answer.error is not None
    assert answer.error.startswith("No TLS connection could be made")
