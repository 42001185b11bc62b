"""The adapter for every provider that speaks OpenAI's protocol."""

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TypeVar

import aiohttp
from pydantic import SecretStr

from baatcheet.platform.telemetry import trace_headers
from baatcheet.providers.adapters.openai import request, response
from baatcheet.providers.adapters.openai.errors import BODY_LIMIT, Redactor, Reporter
from baatcheet.providers.adapters.openai.stream import Stream
from baatcheet.providers.discovery import Listing
from baatcheet.providers.model import Body, Chunk, Completion, ModelCard, ProviderError, Speech
from baatcheet.providers.profiles import Profile

REPLY_LIMIT = 64 * 1024 * 1024  # bytes of one whole answer
LARGE_BODY = 1024 * 1024  # bytes
JSON = "application/json"
_ERROR_BODY_TIMEOUT = 5.0  # seconds
_SECRET_HEADER = 8  # characters from which a configured header's value is taken to be secret

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class TimeLimits:
    """Seconds: to connect, until the first token, between two tokens."""

    connect: float = 5.0
    first_token: float = 60.0
    idle: float = 60.0


class OpenAIProvider:
    """One provider of the OpenAI protocol, spoken to over `session` with one key."""

    def __init__(
        self,
        profile: Profile,
        session: aiohttp.ClientSession,
        *,
        key: SecretStr | None = None,
        limits: TimeLimits | None = None,
    ) -> None:
        self.profile = profile
        self._session = session
        self._key = key
        self._limits = limits or TimeLimits()
        self._base = profile.base_url.rstrip("/")
        self._asks_for_usage = profile.stream_options
        secrets = [value for value in profile.headers.values() if len(value) >= _SECRET_HEADER]
        if key is not None:
            secrets.append(key.get_secret_value())
        self._report = Reporter(profile.name, Redactor(tuple(secrets)))
        self.listing = Listing(profile, self._entries)

    @property
    def name(self) -> str:
        return self.profile.name

    async def models(self) -> Sequence[ModelCard]:
        """What it serves now. Waits for the provider the first time only, at most as long as to connect."""
        return await self.listing.cards(wait=self._limits.connect)

    def stream(self, model: ModelCard, body: Body) -> AbstractAsyncContextManager[AsyncIterator[list[Chunk]]]:
        return self._stream(model, body)

    @contextlib.asynccontextmanager
    async def _stream(self, model: ModelCard, body: Body) -> AsyncIterator[AsyncIterator[list[Chunk]]]:
        deadline = asyncio.get_running_loop().time() + self._limits.first_token
        answered = await self._open_stream(model, body, deadline)
        stream = Stream(
            answered,
            model.name,
            self._report,
            first_token_deadline=deadline,
            first_token_timeout=self._limits.first_token,
            idle_timeout=self._limits.idle,
        )
        try:
            yield stream
        finally:
            await stream.close()

    async def _open_stream(self, model: ModelCard, body: Body, deadline: float) -> aiohttp.ClientResponse:
        usage = self._asks_for_usage
        try:
            return await self._try_stream(model, body, deadline, usage=usage)
        except ProviderError as error:
            # An older server refuses the option, and says so.
            if not (
                usage and error.kind == "rejected" and "stream_options" in f"{error.param} {error.message}"
            ):
                raise
        answered = await self._try_stream(model, body, deadline, usage=False)
        self._asks_for_usage = False
        return answered

    async def _try_stream(
        self, model: ModelCard, body: Body, deadline: float, *, usage: bool
    ) -> aiohttp.ClientResponse:
        limit = f"sent no token within {self._limits.first_token:g} s"
        answered = await self._post(
            "/chat/completions", self._chat(model, body, stream=True, usage=usage), deadline, limit
        )
        if answered.content_type not in {"text/event-stream", "application/octet-stream", "text/plain"}:
            raise await self._not_a_stream(answered)
        return answered

    async def _not_a_stream(self, answered: aiohttp.ClientResponse) -> ProviderError:
        """A 200 whose type is wrong: an error object, or a page made for people."""
        kind = answered.content_type
        body = await self._error_body(answered)
        try:
            response.completion(body, "")
        except response.ErrorEvent as event:
            return self._report.from_event(event.error)
        except response.UnreadableError:
            pass
        return self._report.error(
            "malformed", f"answered with {kind} where a stream was asked for", status=200
        )

    async def complete(self, model: ModelCard, body: Body) -> Completion:
        """Bounded by the first token's and the idle limit together until the answer begins."""
        sent = self._chat(model, body, stream=False, usage=False)
        return await self._whole("/chat/completions", sent, lambda raw: response.completion(raw, model.name))

    async def embed(self, model: ModelCard, body: Body) -> bytes:
        try:
            sent = request.embeddings(body, model)
        except (ValueError, TypeError) as error:
            raise self._report.error("rejected", f"the request can't be written as JSON: {error}") from None
        return await self._whole("/embeddings", sent, response.embedding)

    async def transcribe(self, model: str, speech: Speech) -> bytes:
        body, media_type = request.transcription(speech, model)
        return await self._whole("/audio/transcriptions", body, response.transcription, media_type)

    def _chat(self, model: ModelCard, body: Body, *, stream: bool, usage: bool) -> bytes:
        name = self.profile.max_tokens_name
        try:
            return request.chat(body, model, stream=stream, usage=usage, max_tokens_name=name)
        except (ValueError, TypeError) as error:
            raise self._report.error("rejected", f"the request can't be written as JSON: {error}") from None

    async def _whole(
        self, path: str, sent: bytes, read: Callable[[bytes], Answer], media_type: str = JSON
    ) -> Answer:
        loop = asyncio.get_running_loop()
        patience = self._limits.first_token + self._limits.idle
        limit = f"did not answer within {patience:g} s"
        answered = await self._post(path, sent, loop.time() + patience, limit, media_type)
        ended = False
        try:
            raw = await self._read_whole(answered)
            ended = True
            return read(raw)
        except response.ErrorEvent as event:
            raise self._report.from_event(event.error) from None
        except response.UnreadableError as error:
            raise self._report.error(
                "malformed", f"sent an answer that can't be read: {error}", status=200
            ) from None
        finally:
            if ended:
                answered.release()
            else:
                answered.close()

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

    async def _post(
        self, path: str, body: bytes, deadline: float, late: str, media_type: str = JSON
    ) -> aiohttp.ClientResponse:
        """An answer that begins with 200; anything else is raised."""
        try:
            async with asyncio.timeout_at(deadline):
                answered = await self._send(path, body, media_type)
        except TimeoutError:
            raise self._report.error("timeout", late) from None
        if answered.status == 200:
            return answered
        raise self._report.from_response(answered.status, answered.headers, await self._error_body(answered))

    async def _send(self, path: str, body: bytes, media_type: str) -> aiohttp.ClientResponse:
        for last in (False, True):
            try:
                return await self._session.post(
                    self._base + path,
                    # Many bytes in one piece would hold up the loop, and aiohttp warns of it.
                    data=body if len(body) < LARGE_BODY else io.BytesIO(body),
                    headers=self._headers(media_type),
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
            except aiohttp.ConnectionTimeoutError:
                raise self._report.error(
                    "unreachable", f"could not be reached within {self._limits.connect:g} s"
                ) from None
            except (aiohttp.ClientSSLError, aiohttp.ClientConnectorCertificateError):
                raise self._report.error(
                    "unreachable", "its TLS certificate or connection was refused"
                ) from None
            except aiohttp.ClientConnectionError as error:
                reason = (
                    error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
                )
                raise self._report.error("unreachable", f"could not be reached: {reason}") from None
            except (aiohttp.ClientError, ValueError, OSError) as error:
                raise self._report.error(
                    "malformed", f"did not answer in HTTP: {type(error).__name__}"
                ) from None
        raise AssertionError("unreachable")

    def _headers(self, media_type: str = JSON) -> dict[str, str]:
        headers = {"Content-Type": media_type, "Accept-Encoding": "identity", **self.profile.headers}
        headers |= trace_headers.get()
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key.get_secret_value()}"
        return headers

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

    async def check(self) -> int:
        """How many models it lists now. Raises ProviderError, its kind `unauthorized` for a refused key."""
        try:
            async with (
                asyncio.timeout(self._limits.connect + 5),
                self._session.get(
                    self._base + "/models",
                    headers=self._headers(),
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(total=None, connect=self._limits.connect),
                ) as answered,
            ):
                if answered.status != 200:
                    body = await self._error_body(answered)
                    raise self._report.from_response(answered.status, answered.headers, body)
                return len(response.listing(await self._read_whole(answered)))
        except TimeoutError:
            raise self._report.error("timeout", "did not list its models in time") from None
        except response.UnreadableError as error:
            raise self._report.error("malformed", f"sent a list that can't be read: {error}") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise self._report.error("unreachable", f"could not be reached: {type(error).__name__}") from None

    async def _entries(self) -> Sequence[object] | None:
        """The entries of GET /models; None when it did not answer."""
        try:
            async with (
                asyncio.timeout(self._limits.connect + 5),
                self._session.get(
                    self._base + "/models",
                    headers=self._headers(),
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(total=None, connect=self._limits.connect),
                ) as answered,
            ):
                if answered.status != 200:
                    return None
                return response.listing(await self._read_whole(answered))
        except (
            ProviderError,
            response.UnreadableError,
            TimeoutError,
            aiohttp.ClientError,
            OSError,
            ValueError,
        ):
            return None

    async def close(self) -> None:
        await self.listing.close()


__all__ = ["OpenAIProvider", "TimeLimits"]
