"""HTTP towards one provider, with its time limits: whatever goes wrong is a ProviderError."""

import asyncio
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import aiohttp

from baatcheet.providers.adapters.errors import BODY_LIMIT, Reporter
from baatcheet.providers.adapters.received import ErrorEvent, UnreadableError
from baatcheet.providers.model import Access, ProviderError

REPLY_LIMIT = 64 * 1024 * 1024  # bytes of one whole answer
LARGE_BODY = 1024 * 1024  # bytes
JSON = "application/json"
STREAMS = frozenset({"text/event-stream", "application/octet-stream", "text/plain"})  # types of a stream
SECRET_HEADER = 8  # characters from which a configured header's value is taken to be secret
_ERROR_BODY_TIMEOUT = 5.0  # seconds
_LISTING_TIMEOUT = 5.0  # seconds

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class TimeLimits:
    """Seconds: to connect, until the first token, between two tokens."""

    connect: float = 5.0
    first_token: float = 60.0
    idle: float = 60.0


class Wire:
    """Requests to the addresses below `base_url`. `headers`: those of a request, by its key and its media type."""

    def __init__(
        self,
        base_url: str,
        session: aiohttp.ClientSession,
        report: Reporter,
        limits: TimeLimits,
        headers: Callable[[Access | None, str], Mapping[str, str]],
    ) -> None:
        self._base = base_url.rstrip("/")
        self._session = session
        self._report = report
        self._limits = limits
        self._headers = headers

    async def stream(
        self, path: str, body: bytes, access: Access | None, deadline: float, read: Callable[[bytes], object]
    ) -> aiohttp.ClientResponse:
        """A stream that begins before `deadline`, in the loop's time. `read`: of a whole answer that came instead."""
        late = f"sent no token within {self._limits.first_token:g} s"
        answered = await self._post(path, body, access, deadline, late, JSON)
        if answered.content_type in STREAMS:
            return answered
        # A 200 whose type is wrong: an error object, or a page made for people.
        kind = answered.content_type
        try:
            read(await self._error_body(answered))
        except ErrorEvent as event:
            raise self._report.from_event(event.error) from None
        except UnreadableError:
            pass
        raise self._report.error(
            "malformed", f"answered with {kind} where a stream was asked for", status=200
        )

    async def whole(
        self,
        path: str,
        body: bytes,
        access: Access | None,
        read: Callable[[bytes], Answer],
        media_type: str = JSON,
    ) -> Answer:
        """What `read` makes of a whole answer. Bounded by both limits together until the answer begins."""
        patience = self._limits.first_token + self._limits.idle
        late = f"did not answer within {patience:g} s"
        deadline = asyncio.get_running_loop().time() + patience
        answered = await self._post(path, body, access, deadline, late, media_type)
        ended = False
        try:
            raw = await self._read_whole(answered)
            ended = True
            return read(raw)
        except ErrorEvent as event:
            raise self._report.from_event(event.error) from None
        except UnreadableError as error:
            raise self._report.error(
                "malformed", f"sent an answer that can't be read: {error}", status=200
            ) from None
        finally:
            if ended:
                answered.release()
            else:
                answered.close()

    async def listing(
        self, path: str, access: Access | None, read: Callable[[bytes], list[object]]
    ) -> list[object]:
        """The provider's models, as `read` finds them in its answer."""
        try:
            async with (
                asyncio.timeout(self._limits.connect + _LISTING_TIMEOUT),
                self._session.get(
                    self._base + path,
                    headers=self._headers(access, JSON),
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(total=None, connect=self._limits.connect),
                ) as answered,
            ):
                if access is not None:
                    access.heard(answered.headers)
                if answered.status != 200:
                    said = await self._error_body(answered)
                    raise self._report.from_response(answered.status, answered.headers, said)
                return read(await self._read_whole(answered))
        except TimeoutError:
            raise self._report.error("timeout", "did not list its models in time") from None
        except UnreadableError as error:
            raise self._report.error("malformed", f"sent a list that can't be read: {error}") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise self._report.error("unreachable", f"could not be reached: {type(error).__name__}") from None

    async def _post(
        self, path: str, body: bytes, access: Access | None, deadline: float, late: str, media_type: str
    ) -> aiohttp.ClientResponse:
        """An answer that begins with 200; anything else is raised."""
        try:
            async with asyncio.timeout_at(deadline):
                answered = await self._send(path, body, self._headers(access, media_type))
        except TimeoutError:
            raise self._report.error("timeout", late) from None
        if access is not None:
            access.heard(answered.headers)
        if answered.status == 200:
            return answered
        raise self._report.from_response(answered.status, answered.headers, await self._error_body(answered))

    async def _send(self, path: str, body: bytes, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        for last in (False, True):
            try:
                return await self._session.post(
                    self._base + path,
                    # Many bytes in one piece would hold up the loop, and aiohttp warns of it.
                    data=body if len(body) < LARGE_BODY else io.BytesIO(body),
                    headers=headers,
                    # A redirect would carry the conversation to an address that nobody configured.
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(total=None, connect=self._limits.connect),
                )
            except aiohttp.ServerDisconnectedError:
                # Most likely a kept connection that the provider closed just as it was taken: once more.
                if last:
                    raise self._report.error(
                        "unreachable", "closed the connection without an answer"
                    ) from None
            except aiohttp.ClientError as error:
                raise self._refused(error) from None
            except (ValueError, OSError) as error:
                raise self._malformed(error) from None
        raise AssertionError("unreachable")

    def _refused(self, error: aiohttp.ClientError) -> ProviderError:
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            why = f"could not be reached within {self._limits.connect:g} s"
        elif isinstance(error, aiohttp.ClientSSLError | aiohttp.ClientConnectorCertificateError):
            why = "its TLS certificate or connection was refused"
        elif isinstance(error, aiohttp.ClientConnectionError):
            known = error.strerror if isinstance(error, OSError) else None
            why = f"could not be reached: {known or type(error).__name__}"
        else:
            return self._malformed(error)
        return self._report.error("unreachable", why)

    def _malformed(self, error: Exception) -> ProviderError:
        return self._report.error("malformed", f"did not answer in HTTP: {type(error).__name__}")

    async def _read_whole(self, answered: aiohttp.ClientResponse) -> bytes:
        parts: list[bytes] = []
        size = 0
        try:
            while True:
                async with asyncio.timeout(self._limits.idle):
                    part = await answered.content.readany()
                if not part:
                    return b"".join(parts)
                parts.append(part)
                size += len(part)
                if size > REPLY_LIMIT:
                    raise self._report.error("malformed", f"sent more than {REPLY_LIMIT} bytes")
        except TimeoutError:
            raise self._report.error("timeout", f"sent nothing for {self._limits.idle:g} s") from None
        except (aiohttp.ClientError, OSError):
            raise self._report.error("cut", "ended before the answer was complete") from None

    async def _error_body(self, answered: aiohttp.ClientResponse) -> bytes:
        """The beginning of an answer that is not wanted, as far as it comes; its connection is closed."""
        body = b""
        try:
            async with asyncio.timeout(min(_ERROR_BODY_TIMEOUT, self._limits.idle)):
                while len(body) < BODY_LIMIT and (part := await answered.content.readany()):
                    body += part
        except (TimeoutError, aiohttp.ClientError, OSError):
            return body[:BODY_LIMIT]
        finally:
            if answered.content.at_eof():
                answered.release()
            else:
                answered.close()
        return body[:BODY_LIMIT]
