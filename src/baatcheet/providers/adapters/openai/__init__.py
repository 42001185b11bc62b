"""The adapter for every provider that speaks OpenAI's protocol."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager

import aiohttp

from baatcheet.platform.telemetry import trace_headers
from baatcheet.providers.adapters.errors import Redactor, Reporter
from baatcheet.providers.adapters.http import SECRET_HEADER, TimeLimits, Wire
from baatcheet.providers.adapters.openai import request, response
from baatcheet.providers.adapters.streaming import Stream
from baatcheet.providers.discovery import Listing
from baatcheet.providers.model import Access, Body, Chunk, Completion, ModelCard, ProviderError, Speech
from baatcheet.providers.profiles import Profile


class OpenAIAdapter:
    """One provider of the OpenAI protocol, spoken to over `session`. `access` lends a key to what asks for its list."""

    def __init__(
        self,
        profile: Profile,
        session: aiohttp.ClientSession,
        *,
        access: Callable[[], Access | None] = lambda: None,
        limits: TimeLimits | None = None,
    ) -> None:
        self.profile = profile
        self._access = access
        self._limits = limits or TimeLimits()
        self._asks_for_usage = profile.stream_options
        secrets = [value for value in profile.headers.values() if len(value) >= SECRET_HEADER]
        self._report = Reporter(profile.name, Redactor(tuple(secrets)))
        self._wire = Wire(profile.base_url, session, self._report, self._limits, self._headers)
        self.listing = Listing(profile, self._entries)

    def stream(
        self, model: ModelCard, body: Body, access: Access | None
    ) -> AbstractAsyncContextManager[AsyncIterator[list[Chunk]]]:
        return self._stream(model, body, access)

    @contextlib.asynccontextmanager
    async def _stream(
        self, model: ModelCard, body: Body, access: Access | None
    ) -> AsyncIterator[AsyncIterator[list[Chunk]]]:
        deadline = asyncio.get_running_loop().time() + self._limits.first_token
        answered = await self._open_stream(model, body, access, deadline)
        stream = Stream(answered, response.Chunks(model.name), self._report, self._limits, deadline)
        try:
            yield stream
        finally:
            await stream.close()

    async def _open_stream(
        self, model: ModelCard, body: Body, access: Access | None, deadline: float
    ) -> aiohttp.ClientResponse:
        usage = self._asks_for_usage
        try:
            return await self._try_stream(model, body, access, deadline, usage=usage)
        except ProviderError as error:
            # An older server refuses the option, and says so.
            if not (
                usage and error.kind == "rejected" and "stream_options" in f"{error.param} {error.message}"
            ):
                raise
        answered = await self._try_stream(model, body, access, deadline, usage=False)
        self._asks_for_usage = False
        return answered

    async def _try_stream(
        self, model: ModelCard, body: Body, access: Access | None, deadline: float, *, usage: bool
    ) -> aiohttp.ClientResponse:
        sent = self._chat(model, body, stream=True, usage=usage)
        return await self._wire.stream(
            "/chat/completions", sent, access, deadline, lambda raw: response.completion(raw, model.name)
        )

    async def complete(self, model: ModelCard, body: Body, access: Access | None) -> Completion:
        """Bounded by the first token's and the idle limit together until the answer begins."""
        sent = self._chat(model, body, stream=False, usage=False)
        return await self._wire.whole(
            "/chat/completions", sent, access, lambda raw: response.completion(raw, model.name)
        )

    async def embed(self, model: ModelCard, body: Body, access: Access | None) -> bytes:
        try:
            sent = request.embeddings(body, model)
        except (ValueError, TypeError) as error:
            raise self._report.error("rejected", f"the request can't be written as JSON: {error}") from None
        return await self._wire.whole("/embeddings", sent, access, response.embedding)

    async def transcribe(self, model: str, speech: Speech, access: Access | None) -> bytes:
        body, media_type = request.transcription(speech, model)
        return await self._wire.whole(
            "/audio/transcriptions", body, access, response.transcription, media_type
        )

    def _chat(self, model: ModelCard, body: Body, *, stream: bool, usage: bool) -> bytes:
        name = self.profile.max_tokens_name
        try:
            return request.chat(body, model, stream=stream, usage=usage, max_tokens_name=name)
        except (ValueError, TypeError) as error:
            raise self._report.error("rejected", f"the request can't be written as JSON: {error}") from None

    def _headers(self, access: Access | None, media_type: str) -> dict[str, str]:
        headers = {"Content-Type": media_type, "Accept-Encoding": "identity", **self.profile.headers}
        headers |= trace_headers.get()
        if access is not None:
            headers["Authorization"] = f"Bearer {access.key.reveal()}"
        return headers

    async def check(self, access: Access | None) -> int:
        return len(await self._wire.listing("/models", access, response.listing))

    async def _entries(self) -> Sequence[object] | None:
        """The entries of GET /models; None when it did not answer."""
        try:
            return await self._wire.listing("/models", self._access(), response.listing)
        except ProviderError:
            return None

    async def close(self) -> None:
        await self.listing.close()


__all__ = ["OpenAIAdapter", "TimeLimits"]
