"""Wrong tokens, counted per client address in front of every surface."""

import functools
import ipaddress
from collections.abc import Mapping

from baatcheet.auth.oidc.claims import EXPIRED, TokenExpired
from baatcheet.auth.rate_limits import FailureLimit
from baatcheet.platform.asgi import ASGIApp, Message, Receive, Scope, Send, send_problem
from baatcheet.platform.errors import RateLimited, Unauthenticated


class FailureGuard:
    """Answers 429 in place of 401 to an address that has presented too many wrong tokens.

    A right token always passes. No token at all is not a guess, and neither is one of an identity provider that was
    right until it expired. Loopback is not counted: it is this machine, or a proxy that is not declared in
    BAATCHEET_TRUSTED_PROXIES and behind which all look alike.
    """

    def __init__(self, app: ASGIApp, limit: FailureLimit) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        address = _guesser(scope) if scope["type"] == "http" else None
        if address is None:
            await self._app(scope, receive, send)
            return
        replaced = False

        async def watched(message: Message) -> None:
            nonlocal replaced
            if (
                message["type"] == "http.response.start"
                and message["status"] == 401
                and not _expired(message)
            ):
                try:
                    await self._limit.failed(address)
                except RateLimited as refused:
                    replaced = True
                    await send_problem(scope, send, refused)
            if not replaced:
                await send(message)

        try:
            await self._app(scope, receive, watched)
        except TokenExpired:
            raise
        except Unauthenticated:
            await self._limit.failed(address)
            raise


def _expired(message: Message) -> bool:
    """Whether it refuses a token that was right until its time was over, as those of identity providers often do."""
    return (b"www-authenticate", EXPIRED.encode()) in message.get("headers", ())


def _guesser(scope: Mapping[str, object]) -> str | None:
    """The address of a client that presents a token and is not on this machine."""
    client = scope.get("client")
    headers = scope["headers"]
    assert isinstance(headers, list)
    if not isinstance(client, tuple) or all(name != b"authorization" for name, _ in headers):
        return None
    address = str(client[0])
    return None if is_loopback(address) else address


@functools.lru_cache(maxsize=1024)
def is_loopback(address: str) -> bool:
    """Whether `address` is this machine's own. What is no address is not."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
