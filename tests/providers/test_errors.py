"""Reading what providers say when they refuse: pure, so against anything."""

import json
from datetime import UTC, datetime
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baatcheet.providers.adapters.errors import MESSAGE_LIMIT, Redactor, Reporter, retry_after
from baatcheet.providers.model import ProviderError

KEY = "sk-or-v1/abc+def=="
NOW = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.just(KEY),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["error", "message", "detail", "code", "type", "param", "x"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


def report(status: int, body: object, headers: dict[str, str] | None = None) -> ProviderError:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Reporter("lab", Redactor((KEY,))).from_response(status, headers or {}, raw)


@given(st.integers(300, 599), JSON)
def test_any_json_makes_a_bounded_message_without_the_key(status: int, body: object) -> None:
    error = report(status, body)
    assert 0 < len(error.message) <= MESSAGE_LIMIT
    assert KEY not in repr(error)


@given(st.integers(400, 599), st.binary(max_size=200))
def test_any_bytes_make_a_bounded_message(status: int, body: bytes) -> None:
    assert 0 < len(report(status, body).message) <= MESSAGE_LIMIT


@given(st.text(min_size=8, max_size=60), st.text(max_size=30), st.text(max_size=30))
def test_a_secret_is_taken_out_in_each_of_its_spellings(secret: str, before: str, after: str) -> None:
    redact = Redactor((secret,))
    assert secret not in redact(before + secret + after).replace("[redacted]", "\x00")
    try:
        encoded = quote(secret, safe="")
    except UnicodeEncodeError:
        return
    assert encoded not in redact(f"?key={encoded}&").replace("[redacted]", "\x00")


@pytest.mark.parametrize(
    ("status", "body", "message", "kind"),
    [
        (400, {"error": {"message": "no", "type": "t"}}, "no", "rejected"),
        (400, {"error": "plain words"}, "plain words", "rejected"),
        (404, {"message": "gone"}, "gone", "rejected"),
        (422, {"detail": "wrong"}, "wrong", "rejected"),
        (400, b"just text", "just text", "rejected"),
        (502, b"<html>bad gateway</html>", "answered 502", "overloaded"),
        (500, {"error": {}}, "answered 500", "overloaded"),
        (413, {"error": {"message": "TPM", "code": "rate_limit_exceeded"}}, "TPM", "rate_limited"),
        (403, {"error": {"message": "Invalid key"}}, "Invalid key", "unauthorized"),
        # A user's words, or the account's: quarantining one key after another would stop everybody.
        (403, {"error": {"message": "Your input was flagged"}}, "Your input was flagged", "rejected"),
        (403, {"error": {"message": "no", "code": "model_not_found"}}, "no", "rejected"),
        (403, {"error": {"message": "Country not supported"}}, "Country not supported", "unreachable"),
        (402, {"error": {"message": "You can only afford 9"}}, "You can only afford 9", "rate_limited"),
        (402, {"error": {"message": "Insufficient Balance"}}, "Insufficient Balance", "unauthorized"),
        (
            400,
            [{"error": {"code": 400, "message": "API key not valid."}}],
            "API key not valid.",
            "unauthorized",
        ),
    ],
)
def test_each_providers_form_is_understood(status: int, body: object, message: str, kind: str) -> None:
    error = report(status, body)
    assert (error.message, error.kind, error.status) == (message, kind, status)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "12"}, 12),
        ({"Retry-After": " 1.5 "}, 1.5),
        ({"Retry-After": "Sat, 31 Jan 2026 12:00:30 GMT"}, 30),
        ({"Retry-After": "Sat, 31 Jan 2026 11:00:00 GMT"}, 0),
        ({"Retry-After": "-3"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": f"Sat, 31 Jan {'9' * 20} 12:00:30 GMT"}, None),
        ({"Retry-After": f"Sat, 31 Jan 2026 12:00:30 +{'9' * 20}"}, None),
        ({"Retry-After": "3", "retry-after-ms": "250"}, 0.25),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, NOW) == seconds


@given(st.text(max_size=40))
def test_any_retry_after_is_survived(value: str) -> None:
    seconds = retry_after({"Retry-After": value}, NOW)
    assert seconds is None or seconds >= 0


@pytest.mark.parametrize("code", ["9" * 5000, "\u0664\u0662\u0669", 10**40, True, 1e400, None, "429"])
def test_any_code_inside_a_stream_is_survived(code: object) -> None:
    error = Reporter("lab", Redactor()).from_event({"message": "broke", "code": code})
    assert error.message == "broke"
    assert error.status == (429 if code == "429" else None)
