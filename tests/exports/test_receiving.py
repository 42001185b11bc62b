"""Looking at an upload before the answer: quick whatever is in it, and beside the event loop."""

import contextlib
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi import Request
from hypothesis import given
from hypothesis import strategies as st

from baatcheet.exports.importing import receiving
from baatcheet.exports.importing.own_format import has_unpaired
from baatcheet.exports.importing.reading import recognise
from baatcheet.jobs.isolation_frames import Refused
from baatcheet.platform.errors import Invalid

SIZE = receiving.SMALL
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
pieces = st.sampled_from(
    [
        b"\\",
        b"\\\\",
        b"\\u",
        b"u",
        b"\\ud83c",
        b"\\uDF0d",
        b"\\ud83c\\udf0d",
        b"d83c",
        b"\\n",
        b"\\ud8",
        b'"',
        b"\n",
    ]
)


def uploaded(content: bytes) -> Request:
    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": content, "more_body": False}

    return Request({"type": "http", "headers": [(b"content-type", b"application/json")]}, receive)


@given(st.lists(pieces, max_size=12).map(b"".join))
def test_an_unpaired_escape_is_found_as_by_stepping_from_one_to_the_next(text: bytes) -> None:
    assert has_unpaired(text) == any(found.group(1) for found in _ESCAPE.finditer(text))


@pytest.mark.parametrize(
    "filled",
    [
        lambda size: b'{"a": "' + b"\\" * (size - 7),
        lambda size: b'{"a": x "' + b"\\\\" * (size // 2 - 10),
        lambda size: b'{"a": x "' + b"\\u" * (size // 2 - 10),
        lambda size: b'{"a": x "' + b"\\ud" * (size // 3 - 10),
        lambda size: b'{"a": x "' + b"\\ud83c" * (size // 6 - 10),
        lambda size: b'{"a": x "' + b"\\ud83c\\udf0d" * (size // 12 - 10),
        lambda size: b'{"a": x ' + b" " * (size - 10),
        lambda size: b"[" * size,
    ],
    ids=["backslashes", "pairs", "cut", "begun", "unpaired", "paired", "blanks", "nested"],
)
def test_no_content_takes_long_to_look_at(filled: Callable[[int], bytes]) -> None:
    content = filled(SIZE)
    began = time.thread_time()
    with contextlib.suppress(Refused):
        recognise(content)
    assert time.thread_time() - began < 0.25


async def test_an_upload_is_looked_at_beside_the_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where: list[threading.Thread] = []

    def noting(content: bytes) -> None:
        where.append(threading.current_thread())
        recognise(content)

    monkeypatch.setattr(receiving, "recognise", noting)
    with pytest.raises(Invalid, match="not valid JSON"):
        await receiving.receive(uploaded(b"{"), tmp_path, 1000)
    assert where
    assert threading.main_thread() not in where
