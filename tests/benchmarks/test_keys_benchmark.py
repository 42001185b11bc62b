"""The benchmark of keys measures what it says: its FAKE provider knows keys, and a stream that fails is counted."""

import asyncio
import time
from collections.abc import Iterator

import pytest
from benchmarks.clients import body
from benchmarks.keys.costs import redaction
from benchmarks.keys.deployment import Upstream, new_keys
from benchmarks.keys.streams import QUESTION, Asked, Streams
from benchmarks.keys.upstream import PACES
from benchmarks.load import Answer, Server
from benchmarks.processes import first_line, running
from benchmarks.report import Report

from baatcheet.platform.redaction import _Known


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with running("-m", "benchmarks.keys.upstream") as process:
        yield Upstream(first_line(process), process.pid)


async def ask(upstream: Upstream, key: str, model: str = "fixed") -> Answer:
    asked = Server.at(upstream.url, key).post(
        body(model=model, messages=QUESTION), "/groq/v1/chat/completions"
    )
    connection = await upstream.server.connect()
    try:
        return await connection.ask(asked)
    finally:
        connection.close()


async def test_the_fake_provider_answers_those_keys_alone_that_it_was_told_of(upstream: Upstream) -> None:
    good, limited, unknown = new_keys(3)
    await upstream.tell([good], "good")
    await upstream.tell([limited], "limited")

    answers = {key: await ask(upstream, key) for key in (good, limited, unknown)}

    assert [answer.status for answer in answers.values()] == [200, 429, 401]
    assert answers[limited].headers[b"retry-after"] == b"1"


async def test_it_writes_down_when_a_key_came_and_what_came_after_its_revocation(upstream: Upstream) -> None:
    [key] = new_keys(1)
    await upstream.tell([key], "good")
    before = time.monotonic_ns()
    await ask(upstream, key)
    between = time.monotonic_ns()
    revoked = (await upstream.seen()).after_revocation
    await upstream.tell([key], "revoked")

    assert (await ask(upstream, key)).status == 401

    [account] = await upstream.accounts([key])
    assert before < account.first < between < account.last < time.monotonic_ns()
    assert (account.answered, account.refused) == (1, 1)
    assert (await upstream.seen()).after_revocation == revoked + 1


async def test_a_late_refusal_takes_as_long_as_a_late_answer(upstream: Upstream) -> None:
    [key] = new_keys(1)
    begun = time.perf_counter()
    assert (await ask(upstream, key, "late")).status == 401
    assert time.perf_counter() - begun >= 0.045


@pytest.fixture
async def cut() -> "asyncio.Server":
    """A server that breaks a stream off without its end."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65_536):
            writer.write(b'HTTP/1.1 200 OK\r\ncontent-length: 17\r\n\r\ndata: {"word ": 1')
        writer.close()
        await writer.wait_closed()

    return await asyncio.start_server(answer, "127.0.0.1", 0)


async def test_streams_begin_at_their_rate_and_one_that_ends_early_has_failed(cut: asyncio.Server) -> None:
    async with cut:
        port = cut.sockets[0].getsockname()[1]
        streams = Streams(Server("127.0.0.1", port), lambda: Asked("lab/stream", PACES["stream"][0]))
        begun = time.perf_counter()
        await streams.run(100, 0.5)
        took = time.perf_counter() - begun
        streams.close()

    assert len(streams.done) == pytest.approx(50, abs=2)
    assert took >= 0.5
    assert all(one.failure is not None and "ended early" in one.failure for one in streams.done)


async def test_a_stream_that_came_whole_has_not_failed_and_one_that_was_refused_has(
    upstream: Upstream,
) -> None:
    good, unknown = new_keys(2)
    await upstream.tell([good], "good")
    for key, fails in ((good, False), (unknown, True)):
        streams = Streams(Server.at(upstream.url, key), lambda: Asked("stream", PACES["stream"][0]))
        await streams.run(20, 0.2)
        streams.close()
        assert streams.done
        assert all((one.failure is not None) == fails for one in streams.done)


def test_the_report_says_what_a_line_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("baatcheet.platform.redaction._known", _Known())
    report = Report("keys")
    redaction(report, quick=True)
    assert report.figures["redaction.line"].value is not None
    assert report.figures["redaction.line.no_keys"].value is not None
    assert report.figures["redaction.characters"].value == pytest.approx(320, abs=20)
