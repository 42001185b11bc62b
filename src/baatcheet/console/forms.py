"""Forms that come back: who may have sent them, and what is in them."""

import hmac
from collections.abc import Mapping
from urllib.parse import parse_qsl, urlsplit

from fastapi import Request
from starlette.requests import ClientDisconnect

from baatcheet.kit.text import storable
from baatcheet.platform.asgi import Disconnected
from baatcheet.platform.errors import BadRequest, Forbidden, TooLarge

LARGEST = 16_384  # bytes
MOST_FIELDS = 30

_ELSEWHERE = "This form was not sent from this page. Open the console in a tab of its own and try again."
_STALE = (
    "This form is out of date: its page was made for another session. Go back, load it anew and try again."
)


class ForeignForm(Forbidden):
    """A form was sent from somewhere else."""

    type = "foreign-form"


def require_own_page(headers: Mapping[str, str]) -> None:
    """Raises ForeignForm unless the browser says that a page of this host has sent the form.

    The scheme is not compared: behind a proxy that ends TLS, and is not declared, the two differ.
    """
    site = headers.get("sec-fetch-site")
    if site is not None:
        if site != "same-origin":
            raise ForeignForm(_ELSEWHERE)
        return
    origin = urlsplit(headers.get("origin", ""))
    if not origin.netloc or origin.netloc.lower() != headers.get("host", "").lower():
        raise ForeignForm(_ELSEWHERE)


def require_word(form: Mapping[str, str], csrf: str) -> None:
    """Raises ForeignForm unless the form carries its session's word."""
    if not hmac.compare_digest(form.get("csrf", "").encode(), csrf.encode()):
        raise ForeignForm(_STALE)


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a form, without blanks around them. Raises TooLarge, BadRequest, Disconnected."""
    body = bytearray()
    try:
        async for part in request.stream():
            body += part
            if len(body) > LARGEST:
                raise TooLarge(f"A form may have {LARGEST} bytes at most.")
    except ClientDisconnect:
        raise Disconnected from None
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=MOST_FIELDS)
    except ValueError:
        raise BadRequest("The form can't be read.") from None
    return {name: storable(value).strip() for name, value in pairs}
