"""Signatures by which a receiver knows that a delivery is ours: Standard Webhooks', and a plain HMAC.

A secret is `whsec_` and the base64 of random bytes. Standard Webhooks signs with these bytes. Our own header signs with
the secret as it is written, `whsec_` included, because that is what somebody who computes it by hand has before them.
"""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Sequence

PREFIX = "whsec_"
_BYTES = 32


def new_secret() -> str:
    return PREFIX + base64.b64encode(secrets.token_bytes(_BYTES)).decode()


def standard_signature(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """`v1,<base64>`: the HMAC-SHA256 of the message's id, its time and its body (Standard Webhooks 1.0.0)."""
    key = base64.b64decode(secret.removeprefix(PREFIX))
    signed = b"%s.%d.%s" % (message_id.encode(), timestamp, body)
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


def plain_signature(secret: str, body: bytes) -> str:
    """`sha256=<hex>`: the HMAC-SHA256 of the body alone."""
    return "sha256=" + hmac.digest(secret.encode(), body, hashlib.sha256).hex()


def signature_headers(
    secrets_: Sequence[str], message_id: str, timestamp: int, body: bytes
) -> dict[str, str]:
    """The headers that prove a message, by every secret in `secrets_`, the newest first.

    `webhook-signature` holds one signature for each. `X-BaatCheet-Signature` has room for one only: the newest
    secret's; that of the one before, while it counts, is in `X-BaatCheet-Signature-Previous`.
    """
    headers = {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(
            standard_signature(secret, message_id, timestamp, body) for secret in secrets_
        ),
    }
    names = ("X-BaatCheet-Signature", "X-BaatCheet-Signature-Previous")
    return headers | {
        name: plain_signature(secret, body) for name, secret in zip(names, secrets_, strict=False)
    }
