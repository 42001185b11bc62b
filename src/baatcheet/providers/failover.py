"""Asking one target after another until one answers."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from baatcheet.providers.beginning import Resumed, beginning
from baatcheet.providers.model import (
    AllProvidersFailed,
    Attempt,
    Body,
    Chunk,
    Completion,
    ProviderError,
    Target,
)

BodyFor = Callable[[Target], Awaitable[Body]]
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Answering:
    """A target that has begun to answer. `attempts`: those that were asked before it, in vain."""

    target: Target
    attempts: tuple[Attempt, ...]
    chunks: AsyncIterator[list[Chunk]]


@dataclass(frozen=True)
class Completed:
    """A whole reply, who gave it, and who was asked before in vain."""

    target: Target
    attempts: tuple[Attempt, ...]
    completion: Completion


@dataclass(frozen=True)
class Embedded:
    """An embeddings answer (JSON), who gave it, and who was asked before in vain."""

    target: Target
    attempts: tuple[Attempt, ...]
    raw: bytes


@contextlib.asynccontextmanager
async def stream_first(targets: Sequence[Target], body_for: BodyFor) -> AsyncIterator[Answering]:
    """The first of `targets` to deliver something. Entering waits for that; nothing of it is lost.

    `body_for` makes the request for one target, since each has its own window. Raises ProviderError at once
    when the request itself is refused (`kind == "rejected"`), and AllProvidersFailed when nobody answers. A
    failure after entering is raised by `chunks` and not mended: its text has been seen.
    """
    failures = _Failures()
    for target in targets:
        async with contextlib.AsyncExitStack() as stack:
            try:
                body = await body_for(target)
                chunks = await stack.enter_async_context(target.provider.stream(target.model, body))
                first = await beginning(target.provider.name, chunks)
            except ProviderError as error:
                failures.add(target, error)
                continue
            yield Answering(target, failures.attempts, Resumed(first, chunks))
            return
    raise failures.all_failed()


async def complete_first(targets: Sequence[Target], body_for: BodyFor) -> Completed:
    """As `stream_first`, for a whole reply."""

    async def ask(target: Target, body: Body) -> Completion:
        return await target.provider.complete(target.model, body)

    return Completed(*await _first(targets, body_for, ask))


async def embed_first(targets: Sequence[Target], body_for: BodyFor) -> Embedded:
    """As `complete_first`, for embeddings."""

    async def ask(target: Target, body: Body) -> bytes:
        return await target.provider.embed(target.model, body)

    return Embedded(*await _first(targets, body_for, ask))


async def _first(
    targets: Sequence[Target], body_for: BodyFor, ask: Callable[[Target, Body], Awaitable[Answer]]
) -> tuple[Target, tuple[Attempt, ...], Answer]:
    failures = _Failures()
    for target in targets:
        try:
            return target, failures.attempts, await ask(target, await body_for(target))
        except ProviderError as error:
            failures.add(target, error)
    raise failures.all_failed()


class _Failures:
    def __init__(self) -> None:
        self._attempts: list[Attempt] = []
        self._errors: list[ProviderError] = []

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        return tuple(self._attempts)

    def add(self, target: Target, error: ProviderError) -> None:
        """Take note, or raise `error` when nobody else could do better."""
        if not error.another_may_answer:
            raise error
        self._errors.append(error)
        self._attempts.append(Attempt(target.provider.name, target.model.name, error.kind, error.message))

    def all_failed(self) -> AllProvidersFailed:
        waits = [error.retry_after for error in self._errors if error.retry_after is not None]
        last = self._errors[-1] if self._errors else None
        return AllProvidersFailed(self._attempts, min(waits, default=None), last)
