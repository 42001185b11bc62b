"""What the scripted provider can be told to do with one request."""

from typing import Any, Literal

import msgspec

LOREM = (
    "The quick brown fox jumps over the lazy dog while seventeen patient herons watch from the reeds and "
    "count every splash that the river makes on its long way down to the sea where the fishermen are "
    "mending their nets"
)


class Call(msgspec.Struct, frozen=True):
    """One tool call to be made. `arguments` is JSON, sent as it is written."""

    name: str
    arguments: str = "{}"


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One behaviour. Times are seconds; `…_after: n` means after n content chunks."""

    reply: str | None = None  # None: an answer made from the request
    tool_calls: tuple[Call, ...] = ()
    reasoning: str | None = None  # sent first, as `reasoning_content`
    finish_reason: str | None = None
    usage: Literal["asked", "last_chunk", "never", "always"] = "asked"

    # Pace.
    latency: float = 0  # before the headers
    first_token_delay: float = 0  # between the headers and the first content
    chunk_delay: float = 0  # between content chunks
    chunks: int | None = None  # content chunks; None: a word each
    chunk_size: int | None = None  # characters of a content chunk
    split: int | None = None  # cut the bytes themselves into writes of this size
    stamp: bool = False  # each content chunk is `time.monotonic_ns()` and a space
    hang: Literal["headers", "first", "mid", "end"] | None = None  # silent for ever, from here on

    # Failure.
    status: int = 200
    retry_after: str | None = None
    error: dict[str, Any] | None = None  # the envelope's `error`; None: one that fits the status
    raw_body: str | None = None  # instead of any envelope or answer
    content_type: str | None = None
    leak_key: bool = False  # repeat the Authorization header's key in the error message
    location: str | None = None  # where a redirect (status=307) leads
    cut_after: int | None = None  # the socket closes
    end_after: int | None = None  # the response ends properly, without finish_reason or [DONE]
    malformed_after: int | None = None  # an event whose data is not JSON
    error_after: int | None = None  # `data: {"error": …}` inside the stream

    # Dialect.
    done: bool = True  # send [DONE]
    finish: bool = True  # send the chunk with finish_reason
    role_chunk: bool = True
    comments: bool = False  # `: comments` between events
    crlf: bool = False
    bare: bool = False  # without id, object, created and model
    pretty: bool = False  # each event's JSON over several `data:` lines
    extra: dict[str, Any] | None = None  # more fields in every chunk


PRESETS: dict[str, Step] = {
    "scripted": Step(),
    "scripted-echo": Step(),
    "scripted-tools": Step(),
    "scripted-json": Step(),
    "scripted-fixed": Step(reply=LOREM),
    "scripted-fixed-50": Step(reply=LOREM, chunks=50),
    "scripted-50x20ms": Step(reply=LOREM, chunks=50, chunk_delay=0.02),
    "scripted-stamped-50x20ms": Step(chunks=50, chunk_delay=0.02, stamp=True),
    "scripted-slow": Step(chunk_delay=0.2),
    "scripted-endless": Step(reply="tick " * 20_000, chunk_delay=0.05),
    "scripted-reasoning": Step(reasoning="Let me think about that."),
    "scripted-parallel-tools": Step(
        tool_calls=(Call("get_weather", '{"location":"Paris"}'), Call("get_weather", '{"location":"London"}'))
    ),
    "scripted-cut": Step(reply=LOREM, cut_after=3),
    "scripted-unfinished": Step(reply=LOREM, end_after=3),
    "scripted-malformed": Step(reply=LOREM, malformed_after=3),
    "scripted-error-in-stream": Step(reply=LOREM, error_after=3),
    "scripted-hang": Step(hang="headers"),
    "scripted-hang-first": Step(hang="first"),
    "scripted-hang-mid": Step(reply=LOREM, hang="mid"),
    "scripted-400": Step(status=400),
    "scripted-401": Step(status=401, leak_key=True),
    "scripted-402": Step(status=402),
    "scripted-403": Step(status=403),
    "scripted-404": Step(status=404),
    "scripted-429": Step(status=429, retry_after="7"),
    "scripted-500": Step(status=500, leak_key=True),
    "scripted-503": Step(status=503, retry_after="2"),
    "scripted-html": Step(raw_body="<html><body>Welcome to nginx</body></html>", content_type="text/html"),
    "scripted-legacy": Step(crlf=True, bare=True, comments=True, usage="last_chunk", done=False),
    "scripted-whole": Step(chunks=1),
}
