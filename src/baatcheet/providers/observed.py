"""A provider whose every call is counted, and traced where traces are on."""

import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import MappingProxyType
from typing import Final, Protocol, TypeVar

from baatcheet.platform.telemetry import CallSpan, Telemetry, trace_headers
from baatcheet.providers.model import (
    Body,
    Chunk,
    Completion,
    ModelCard,
    Provider,
    ProviderError,
    Speech,
    Usage,
)

Answer = TypeVar("Answer")

OK: Final = "ok"
ABANDONED: Final = "abandoned"  # given up by us: cancelled, or its answer was of no use
_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


class Stopwatch(Protocol):
    """What is told of each stream's beginning."""

    def first_token(self, provider: str, model: str, seconds: float) -> None: ...

    def failed(self, provider: str, model: str) -> None:
        """It was asked, and had nothing to say."""
        ...


class Observed:
    """`provider`, as it is; `telemetry` is told of each call's outcome, first token and tokens.

    `stopwatch` is told of each stream's beginning, by model.
    """

    def __init__(self, provider: Provider, telemetry: Telemetry, stopwatch: Stopwatch | None = None) -> None:
        self._provider = provider
        self._telemetry = telemetry
        self._stopwatch = stopwatch

    @property
    def name(self) -> str:
        return self._provider.name

    async def models(self) -> Sequence[ModelCard]:
        return await self._provider.models()

    def stream(self, model: ModelCard, body: Body) -> AbstractAsyncContextManager[AsyncIterator[list[Chunk]]]:
        return self._stream(model, body)

    @contextlib.asynccontextmanager
    async def _stream(self, model: ModelCard, body: Body) -> AsyncIterator[AsyncIterator[list[Chunk]]]:
        call = _Call(self._telemetry, self.name, model.name, "chat", self._stopwatch)
        try:
            async with contextlib.AsyncExitStack() as stack:
                with call.sending():
                    chunks = await stack.enter_async_context(self._provider.stream(model, body))
                yield _Watched(chunks, call)
        except ProviderError as error:
            call.failed(error)
            raise
        finally:
            call.end()

    async def complete(self, model: ModelCard, body: Body) -> Completion:
        call = _Call(self._telemetry, self.name, model.name, "chat")
        completion = await _whole(call, lambda: self._provider.complete(model, body))
        call.usage = completion.usage
        call.end()
        return completion

    async def embed(self, model: ModelCard, body: Body) -> bytes:
        call = _Call(self._telemetry, self.name, model.name, "embeddings")
        answer = await _whole(call, lambda: self._provider.embed(model, body))
        call.end()
        return answer

    async def transcribe(self, model: str, speech: Speech) -> bytes:
        call = _Call(self._telemetry, self.name, model, "transcription")
        answer = await _whole(call, lambda: self._provider.transcribe(model, speech))
        call.end()
        return answer

    async def close(self) -> None:
        await self._provider.close()


async def _whole(call: "_Call", ask: Callable[[], Awaitable[Answer]]) -> Answer:
    try:
        with call.sending():
            answer = await ask()
    except BaseException as error:
        if isinstance(error, ProviderError):
            call.failed(error)
        call.end()
        raise
    call.outcome = OK
    return answer


class _Call:
    def __init__(
        self,
        telemetry: Telemetry,
        provider: str,
        model: str,
        operation: str,
        stopwatch: Stopwatch | None = None,
    ) -> None:
        self._metrics = telemetry.metrics
        self._provider = provider
        self._model = model
        self._stopwatch = stopwatch  # until it was told
        self._begun = time.perf_counter()
        self._span: CallSpan | None = None
        if telemetry.tracer is not None:
            self._span = telemetry.tracer.call(provider, model, operation=operation)
        self._status: int | None = None
        self.outcome: str = ABANDONED
        self.usage: Usage | None = None

    @contextlib.contextmanager
    def sending(self) -> Iterator[None]:
        """While a request is sent, the provider is told which trace it belongs to."""
        if self._span is None:
            yield
            return
        trace_headers.set(self._span.headers)
        try:
            yield
        finally:
            trace_headers.set(_NO_HEADERS)

    def first_token(self) -> None:
        seconds = time.perf_counter() - self._begun
        self._metrics.first_token(self._provider, seconds)
        if self._stopwatch is not None:
            self._stopwatch.first_token(self._provider, self._model, seconds)
            self._stopwatch = None

    def failed(self, error: ProviderError) -> None:
        self.outcome = error.kind
        self._status = error.status
        if self._stopwatch is not None and error.another_may_answer:
            self._stopwatch.failed(self._provider, self._model)
            self._stopwatch = None

    def end(self) -> None:
        self._metrics.attempt(self._provider, self.outcome)
        if self._span is not None:
            tokens = (self.usage.prompt_tokens, self.usage.completion_tokens) if self.usage else None
            self._span.end(self.outcome, status=self._status, tokens=tokens)


class _Watched(AsyncIterator[list[Chunk]]):
    """A stream's chunks, passed on; how it began and ended is noted."""

    def __init__(self, chunks: AsyncIterator[list[Chunk]], call: _Call) -> None:
        self._chunks = chunks
        self._call = call
        self._silent = True

    async def __anext__(self) -> list[Chunk]:
        try:
            block = await anext(self._chunks)
        except StopAsyncIteration:
            self._call.outcome = OK
            raise
        except ProviderError as error:
            self._call.failed(error)
            raise
        for chunk in block:
            if self._silent and (chunk.text or chunk.choice is not None):
                self._silent = False
                self._call.first_token()
            if chunk.usage is not None:
                self._call.usage = chunk.usage
        return block
