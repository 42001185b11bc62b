"""What reaches the log, and what never does."""

import asyncio
import base64
import contextlib
import io
import json
import logging
import sys
import threading
import timeit
import warnings
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baatcheet.kit.ids import new_id
from baatcheet.platform.logging import configure, get_logger, register_secrets, request_id
from baatcheet.platform.redaction import _Known, redact, register_secret
from baatcheet.platform.settings import TelemetrySettings, load
from tests.conftest import Caller, RunningServer


@contextlib.contextmanager
def logging_to_a_buffer(**settings: Any) -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level, hooks = root.handlers[:], root.level, (sys.excepthook, threading.excepthook)
    out = io.StringIO()
    configure(TelemetrySettings(**settings), stream=out)
    try:
        yield out
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        sys.excepthook, threading.excepthook = hooks
        logging.captureWarnings(capture=False)


@pytest.fixture(autouse=True)
def forget_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one test registers must not blank out another's words."""
    monkeypatch.setattr("baatcheet.platform.redaction._known", _Known())


@pytest.fixture
def out() -> Iterator[io.StringIO]:
    with logging_to_a_buffer() as buffer:
        yield buffer


def lines(out: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_an_event_is_one_json_line_with_its_fields(out: io.StringIO) -> None:
    get_logger("chat").info("turn.closed", turn_id=UUID(int=7), ms=1.5, note="two\nlines")
    (line,) = lines(out)
    assert line["event"] == "turn.closed"
    assert line["level"] == "info"
    assert line["logger"] == "chat"
    assert line["turn_id"] == str(UUID(int=7))
    assert line["ms"] == 1.5
    assert line["note"] == "two\nlines"
    assert line["time"].endswith("Z")


async def test_lines_carry_the_id_of_the_request_that_caused_them(out: io.StringIO) -> None:
    async def request(name: str) -> None:
        request_id.set(name)
        await asyncio.sleep(0)
        get_logger("x").info("a.thing", of=name)

    await asyncio.gather(request("one"), request("two"))
    get_logger("x").info("a.thing", of=None)
    assert [(line["of"], line.get("request_id")) for line in lines(out)] == [
        ("one", "one"),
        ("two", "two"),
        (None, None),
    ]


def test_an_exception_is_written_without_the_values_of_its_locals(out: io.StringIO) -> None:
    def fail() -> None:
        prompt = "".join(reversed("ecnedifnoc ni"))
        raise ValueError(len(prompt))

    try:
        fail()
    except ValueError as error:
        get_logger("x").error("it.failed", error=error)
    (line,) = lines(out)
    assert "ValueError: 13" in line["traceback"]
    assert "in confidence" not in line["traceback"].replace('prompt = "".join(reversed("ecnedifnoc ni"))', "")


def test_a_registered_secret_is_blanked_in_every_spelling(out: io.StringIO) -> None:
    secret = 'pä"ss/w+rd=with\\odd chars'
    register_secret(secret)
    raw = secret.encode()
    spellings = [
        secret,
        quote(secret, safe=""),
        base64.b64encode(raw).decode(),
        base64.b64encode(b"user:" + raw).decode(),
        base64.urlsafe_b64encode(b"me:" + raw + b"!").decode(),
    ]
    for spelling in spellings:
        get_logger("x").info("a.leak", text=f"before {spelling} after")
    text = out.getvalue()
    for line in lines(out):
        assert "[redacted]" in line["text"], line
        assert line["text"].startswith("before ")
    for spelling in spellings[:3]:
        assert spelling not in text
    assert base64.b64encode(raw).decode()[:12] not in text


@given(
    st.binary(max_size=20),
    st.text(st.characters(codec="utf-8"), min_size=8, max_size=40),
    st.binary(max_size=20),
)
def test_a_secret_inside_any_base64_is_blanked(before: bytes, secret: str, after: bytes) -> None:
    register_secret(secret)
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        assert "[redacted]" in redact(f"x {encode(before + secret.encode() + after).decode()} y")


@pytest.mark.parametrize(
    "key",
    [
        "sk-proj-abcdefghijklmnop1234",
        "sk-or-v1-0123456789abcdef0123",
        "gsk_abcdefghijklmnop1234",
        "hf_abcdefghijklmnop1234",
        "AIzaSyA-abcdefghijklmnop_1234",
        "bc_0123456789abcdef0123456789abcdef",
        "Bearer some.opaque-token",
        "Basic dXNlcjpwYXNzd29yZA==",
        "postgresql://baatcheet:hunter2@db/baatcheet",
        "redis://:hunter2@cache:6379/0",
    ],
)
def test_what_looks_like_a_key_is_blanked_without_being_registered(out: io.StringIO, key: str) -> None:
    logging.getLogger("some.library").error("refused: %s", key)
    get_logger("ours").error("refused", detail=f"given {key}.")
    for line in lines(out):
        told = str(line.get("message") or line.get("detail"))
        assert "[redacted]" in told
        for secret in (key.rsplit(" ", maxsplit=1)[-1], "hunter2"):
            assert secret not in told


def test_the_secrets_of_the_settings_are_blanked_and_so_are_the_passwords_of_addresses() -> None:
    given = {
        "DATABASE_URL": "postgresql://me:p%40ssw0rd-of-db@db/x",
        "BAATCHEET_PROVIDERS": '[{"name": "lab", "base_url": "https://x.io", "api_key": "lab-key-12345"}]',
    }
    register_secrets(load(given, dotenv=None))
    for secret in ("p@ssw0rd-of-db", "p%40ssw0rd-of-db", "lab-key-12345"):
        assert redact(f"said {secret} aloud") == "said [redacted] aloud"


def test_ordinary_words_stay() -> None:
    words = "the task-list of basic users at https://example.com/a:b sk-ip bc_x hf_ and a bearer of news"
    assert redact(words) == words


def test_other_libraries_and_warnings_go_through_the_same_handler(out: io.StringIO) -> None:
    logging.getLogger("uvicorn.error").error("Exception in ASGI application")
    logging.getLogger("asyncio").error("never retrieved %s", "gsk_abcdefghijklmnop1234")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old thing", DeprecationWarning, stacklevel=1)
    told = lines(out)
    assert [line["logger"] for line in told] == ["uvicorn.error", "asyncio", "py.warnings"]
    assert "gsk_abc" not in out.getvalue()


def test_an_uncaught_exception_is_written_and_redacted(out: io.StringIO) -> None:
    error = RuntimeError("key gsk_abcdefghijklmnop1234 refused")
    sys.excepthook(RuntimeError, error, None)
    thread = threading.Thread(target=lambda: 1 // 0)
    thread.start()
    thread.join(timeout=5)
    crash, in_thread = lines(out)
    assert crash["event"] == "process.crashed"
    assert "gsk_abc" not in out.getvalue()
    assert "ZeroDivisionError" in in_thread["traceback"]


def test_what_json_can_not_hold_is_still_logged(out: io.StringIO) -> None:
    get_logger("x").info("odd", text="half \ud800 pair", number=float("inf"), thing=object(), key={1: {2}})
    (line,) = lines(out)
    assert line["event"] == "odd"


def test_a_very_long_field_is_cut(out: io.StringIO) -> None:
    get_logger("x").info("long", text="a" * 1_000_000)
    assert len(out.getvalue()) < 20_000


@pytest.mark.parametrize("form", ["json", "text"])
def test_no_form_of_a_line_shows_a_secret(form: str) -> None:
    register_secret("correct horse battery")
    with logging_to_a_buffer(log_format=form) as out:
        get_logger("x").error(
            "a.leak", error=ValueError("correct horse battery"), key="correct horse battery"
        )
        logging.getLogger("library").warning("tried %s", "correct horse battery")
    assert "correct horse battery" not in out.getvalue()
    assert out.getvalue().count("[redacted]") >= 3


def test_text_for_a_terminal_can_not_be_forged_by_what_it_shows() -> None:
    with logging_to_a_buffer(log_format="text") as out:
        get_logger("x").info("a.thing", path="/a\n12:00:00 info forged\x1b[2J", ms=1.23456)
    (line,) = out.getvalue().splitlines()
    assert "\x1b" not in line
    assert r"\n12:00:00" in line
    assert "ms=1.235" in line


def test_the_level_is_obeyed() -> None:
    with logging_to_a_buffer(log_level="warning") as out:
        get_logger("x").info("quiet")
        get_logger("x").warning("loud")
    assert [line["event"] for line in lines(out)] == ["loud"]


def test_a_call_that_is_off_costs_under_a_microsecond(out: io.StringIO) -> None:
    log = get_logger("x")
    best = min(timeit.repeat(lambda: log.debug("off", a=1, b="two"), number=20_000, repeat=5)) / 20_000
    assert best < 1e-6
    assert out.getvalue() == ""


async def test_a_server_blanks_the_secrets_of_its_settings(
    server: RunningServer, environment_of_server: Mapping[str, str]
) -> None:
    secret = environment_of_server["OPENROUTER_PROVISIONING_KEY"]
    assert redact(secret) == secret, "its shape alone gives it away, which is not what is tested here"
    mark = new_id().hex
    async with Caller(server.url) as nobody:
        await nobody.get("/api/v1/me", headers={"x-request-id": f"{mark}.{secret}"})
    async with asyncio.timeout(5):
        while mark not in (written := server.log.read_text()):
            await asyncio.sleep(0.05)
    (line,) = [line for line in written.splitlines() if mark in line]
    assert json.loads(line)["request_id"] == f"{mark}.[redacted]"
