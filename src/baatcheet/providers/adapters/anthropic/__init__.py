"""The adapter for Anthropic's Messages API, natively."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager

import aiohttp

from baatcheet.platform.telemetry import trace_headers
from baatcheet.providers.adapters.anthropic import request, response
from baatcheet.providers.adapters.anthropic.errors import MessagesReporter
from baatcheet.providers.adapters.anthropic.history import Untranslatable
from baatcheet.providers.adapters.errors import Redactor
from baatcheet.providers.adapters.http import SECRET_HEADER, TimeLimits, Wire
from baatcheet.providers.adapters.streaming import Stream
from baatcheet.providers.discovery import Listing
from baatcheet.providers.model import Access, Body, Chunk, Completion, ModelCard, ProviderError, Speech
from baatcheet.providers.profiles import Profile

API_VERSION = "2026-10-21"  # platform.claude.com/docs/en/api/versioning; a profile's headers may name another
MODELS_PATH = "/models?limit=1000"


class AnthropicAdapter:
    """One provider of the Messages API, spoken to over `session`. `access` lends a key to what asks for its list."""

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
        secrets = [value for value in profile.headers.values() if len(value) >= SECRET_HEADER]
        self._report = MessagesReporter(profile.name, Redactor(tuple(secrets)))
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
        sent = self._chat(model, body, stream=True)
        answered = await self._wire.stream(
            "/messages", sent, access, deadline, lambda raw: response.completion(raw, model.name)
        )
        stream = Stream(answered, response.MessageEvents(model.name), self._report, self._limits, deadline)
        try:
            yield stream
        finally:
            await stream.close()

    async def complete(self, model: ModelCard, body: Body, access: Access | None) -> Completion:
        """Bounded by the first token's and the idle limit together until the answer begins."""
        sent = self._chat(model, body, stream=False)
        return await self._wire.whole(
            "/messages", sent, access, lambda raw: response.completion(raw, model.name)
        )

    async def embed(self, model: ModelCard, body: Body, access: Access | None) -> bytes:
        raise self._report.error(
            "rejected", "has no embeddings; ask for an embedding model of another provider"
        )

    async def transcribe(self, model: str, speech: Speech, access: Access | None) -> bytes:
        raise self._report.error(
            "rejected", "does not turn speech into text; ask a provider that has a model for it"
        )

    def _chat(self, model: ModelCard, body: Body, *, stream: bool) -> bytes:
        try:
            return request.chat(body, model, stream=stream)
        except Untranslatable as error:
            raise self._report.error("rejected", str(error)) from None
        except (ValueError, TypeError) as error:
            raise self._report.error("rejected", f"the request can't be written as JSON: {error}") from None

    def _headers(self, access: Access | None, media_type: str) -> dict[str, str]:
        headers = {
            "Content-Type": media_type,
            "Accept-Encoding": "identity",
            "anthropic-version": API_VERSION,
            **self.profile.headers,
        }
        headers |= trace_headers.get()
        if access is not None:
            headers["x-api-key"] = access.key.reveal()
        return headers

    async def check(self, access: Access | None) -> int:
        return len(await self._wire.listing(MODELS_PATH, access, response.listing))

    async def _entries(self) -> Sequence[object] | None:
        """The entries of GET /models; None when it did not answer."""
        try:
            return await self._wire.listing(MODELS_PATH, self._access(), response.listing)
        except ProviderError:
            return None

    async def close(self) -> None:
        await self.listing.close()


__all__ = ["AnthropicAdapter", "TimeLimits"]
