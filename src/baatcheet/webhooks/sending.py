"""One attempt at one delivery: a POST that takes a bounded time, reads a bounded answer and follows no redirect."""

import asyncio
import errno
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import aiohttp

from baatcheet import __version__
from baatcheet.kit.text import printable, storable
from baatcheet.platform.outbound import AddressRefused
from baatcheet.webhooks.policy import MAX_RESPONSE, Answer, objection, wished_pause
from baatcheet.webhooks.signing import signature_headers

_LONGEST_REASON = 300  # characters
_PLAIN: tuple[tuple[type[aiohttp.ClientError], str], ...] = (
    (aiohttp.ClientConnectorDNSError, "The receiver's host name can't be found."),
    (aiohttp.ServerDisconnectedError, "The receiver closed the connection without an answer."),
    (aiohttp.ClientResponseError, "What the receiver answered is not HTTP."),
    (aiohttp.InvalidURL, "The address is not one that can be called."),
)
_PLAIN_ERRNO = {
    errno.ECONNREFUSED: "nothing listens at its address",
    errno.ECONNRESET: "the connection was cut",
    errno.EPIPE: "the connection was cut",
    errno.EHOSTUNREACH: "its host can't be reached",
    errno.ENETUNREACH: "its network can't be reached",
    errno.ETIMEDOUT: "its host did not answer",
    errno.EADDRNOTAVAIL: "its address can't be used",
}


@dataclass(frozen=True)
class Request:
    """What is sent, and where. `secrets`: those that sign, the newest first."""

    url: str
    headers: Mapping[str, str]
    secrets: Sequence[str]
    delivery_id: UUID
    message_id: str
    event: str
    body: bytes


class Sender:
    """Makes attempts over `session`, which decides what may be called (`platform.outbound.guarded_session`)."""

    def __init__(self, session: aiohttp.ClientSession, *, seconds: float) -> None:
        self._session = session
        self._seconds = seconds

    async def attempt(self, request: Request) -> Answer:
        """How it ended. Every failure is an answer with its reason; only a cancellation is raised."""
        began = time.perf_counter()
        seen = _Seen()
        try:
            async with asyncio.timeout(self._seconds):
                await self._exchange(request, seen)
        except TimeoutError:
            seen.error = (
                f"The receiver did not answer within {self._seconds:g} seconds."
                if seen.status == 0
                else f"The receiver's answer did not end within {self._seconds:g} seconds."
            )
        except aiohttp.ClientError as error:
            seen.error = _in_words(error, answered=seen.status != 0)
        except OSError as error:
            seen.error = f"The receiver could not be called: {_reason(error)}."
        except ValueError as error:  # aiohttp's word for an address or a header that it can't send
            seen.error = f"The request could not be made: {_shown(error)}."
        return Answer(
            status=seen.status,
            duration_ms=round((time.perf_counter() - began) * 1000),
            response=storable(bytes(seen.body).decode(errors="replace")),
            error=seen.error,
            retry_after=seen.retry_after,
        )

    async def _exchange(self, request: Request, seen: "_Seen") -> None:
        async with self._session.post(
            request.url, data=request.body, headers=_headers(request), allow_redirects=False
        ) as response:
            try:
                seen.status = response.status
                location = response.headers.get("location")
                seen.error = objection(response.status, printable(location[:200]) if location else None)
                seen.retry_after = wished_pause(
                    response.status, response.headers.get("retry-after"), datetime.now(UTC)
                )
                while len(seen.body) < MAX_RESPONSE:
                    piece = await response.content.read(MAX_RESPONSE - len(seen.body))
                    if not piece:
                        break
                    seen.body += piece
            finally:
                response.close()  # what is longer is not read


class _Seen:
    """What has come of an answer so far."""

    def __init__(self) -> None:
        self.status = 0
        self.body = bytearray()
        self.error: str | None = None
        self.retry_after: float | None = None


def _headers(request: Request) -> dict[str, str]:
    return (
        dict(request.headers)
        | {
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": f"BaatCheet/{__version__}",
            "X-BaatCheet-Event": request.event,
            "X-BaatCheet-Delivery-ID": str(request.delivery_id),
        }
        | signature_headers(request.secrets, request.message_id, int(time.time()), request.body)
    )


def _in_words(error: aiohttp.ClientError, *, answered: bool) -> str:
    """What went wrong, for the endpoint's owner."""
    if answered:
        return "The connection was lost before the whole answer had come."
    if isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, AddressRefused):
        return f"Not sent: the address {error.os_error}."
    for kind, words in _PLAIN:
        if isinstance(error, kind):
            return words
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return f"The receiver's TLS certificate is not valid: {_shown(error.certificate_error)}."
        case aiohttp.ClientSSLError():
            return f"No TLS connection could be made: {_shown(error)}."
        case aiohttp.ClientConnectorError():
            return f"The receiver could not be reached: {_reason(error.os_error)}."
        case OSError():
            return f"The receiver could not be called: {_reason(error)}."
        case _:
            return f"The receiver could not be called: {_shown(error)}."


def _reason(error: OSError) -> str:
    return _PLAIN_ERRNO.get(error.errno or 0) or _shown(error.strerror or error)


def _shown(what: object) -> str:
    return printable(storable(str(what)))[:_LONGEST_REASON].rstrip(".") or "no reason was given"
