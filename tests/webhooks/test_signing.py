"""Signatures hold for whoever checks them: by two libraries, and by hand."""

import base64
import hashlib
import hmac
import time

import pytest
import standardwebhooks
import svix.webhooks
from hypothesis import given
from hypothesis import strategies as st

from baatcheet.webhooks.signing import new_secret, plain_signature, signature_headers

BODIES = st.text().map(lambda text: text.encode(errors="ignore"))


def verify(secret: str, headers: dict[str, str], body: bytes) -> None:
    standardwebhooks.Webhook(secret).verify(body, headers, json_parse=False)
    svix.webhooks.Webhook(secret).verify(body, headers)


@given(BODIES, st.uuids())
def test_two_libraries_take_our_signature_for_any_body(body: bytes, message: object) -> None:
    secret = new_secret()
    verify(secret, signature_headers([secret], f"msg_{message}", int(time.time()), body), body)


@given(BODIES)
def test_our_own_header_is_the_hmac_of_the_body_under_the_whole_secret(body: bytes) -> None:
    secret = new_secret()
    expected = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    assert plain_signature(secret, body) == f"sha256={expected}"
    assert signature_headers([secret], "msg_1", 1, body)["X-BaatCheet-Signature"] == f"sha256={expected}"


def test_while_a_secret_is_rotated_both_are_good_and_no_other() -> None:
    old, new, other = new_secret(), new_secret(), new_secret()
    headers = signature_headers([new, old], "msg_1", int(time.time()), b"{}")
    verify(new, headers, b"{}")
    verify(old, headers, b"{}")
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        verify(other, headers, b"{}")
    assert headers["X-BaatCheet-Signature"] == plain_signature(new, b"{}")
    assert headers["X-BaatCheet-Signature-Previous"] == plain_signature(old, b"{}")


def test_what_was_changed_is_refused() -> None:
    secret = new_secret()
    headers = signature_headers([secret], "msg_1", int(time.time()), b'{"a":1}')
    for changed, body in (
        (headers, b'{"a":2}'),
        (headers | {"webhook-id": "msg_2"}, b'{"a":1}'),
        (headers | {"webhook-timestamp": str(int(time.time()) - 1)}, b'{"a":1}'),
    ):
        with pytest.raises(standardwebhooks.WebhookVerificationError):
            verify(secret, changed, body)


def test_secrets_are_long_and_each_is_another() -> None:
    made = {new_secret() for _ in range(100)}
    assert len(made) == 100
    assert all(len(base64.b64decode(one.removeprefix("whsec_"))) == 32 for one in made)
