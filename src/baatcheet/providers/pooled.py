"""A provider and the pool of its keys: a key that can't be used is passed over before anybody notices.

What concerns a key (too many requests, refused, an error of the server's own) is tried again with the next one, until
the pool is exhausted or the time for a first token is over. What concerns the address (it can't be reached, it is
silent) or the request is the same with every key, and is raised at once.
"""

import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final, TypeVar

from baatcheet.keys.pool import KeyPool, Lease, PoolExhausted
from baatcheet.keys.secret import SecretKey
from baatcheet.providers.beginning import Resumed, beginning
from baatcheet.providers.discovery import Listing
from baatcheet.providers.model import (
    Access,
    Adapter,
    Body,
    Chunk,
    Completion,
    FailureKind,
    ModelCard,
    ProviderError,
    Speech,
    Usage,
)
from baatcheet.providers.profiles import Profile

Answer = TypeVar("Answer")

PER_KEY: Final[frozenset[FailureKind]] = frozenset({"rate_limited", "unauthorized", "overloaded"})
_FORBIDDEN: Final = 403
_CHARACTERS: Final = 4  # of a prompt that are taken for a token, where a key's tokens are counted beforehand


class PooledProvider:
    """The provider that `adapter` speaks to, with the keys of `pool`.

    `keyless`: it is asked without a key while the pool has none. `patience`: seconds in which further keys are tried.
    """

    def __init__(
        self,
        adapter: Adapter,
        pool: KeyPool,
        *,
        keyless: bool = False,
        patience: float = 60.0,
        wait: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.adapter = adapter
        self.pool = pool
        self._keyless = keyless
        self._patience = patience
        self._wait = wait
        self._clock = clock

    @property
    def name(self) -> str:
        return self.adapter.profile.name

    @property
    def profile(self) -> Profile:
        return self.adapter.profile

    @property
    def listing(self) -> Listing:
        return self.adapter.listing

    @property
    def usable(self) -> bool:
        """Whether it can be asked: it needs no key, or there is one, however it fares at the moment."""
        return self._keyless or len(self.pool) > 0

    async def models(self) -> Sequence[ModelCard]:
        """What it serves now. Waits for the provider the first time only, at most as long as to connect."""
        return await self.listing.cards(wait=self._wait)

    async def check(self) -> int:
        """How many models it lists now, to one of its keys. Raises ProviderError."""
        return await self.adapter.check(loan_of(self.pool))

    def stream(self, model: ModelCard, body: Body) -> AbstractAsyncContextManager[AsyncIterator[list[Chunk]]]:
        return self._stream(model, body)

    @contextlib.asynccontextmanager
    async def _stream(self, model: ModelCard, body: Body) -> AsyncIterator[AsyncIterator[list[Chunk]]]:
        walk = self._walk(body, model.name)
        while True:
            access = walk.next()
            async with contextlib.AsyncExitStack() as stack:
                try:
                    chunks = await stack.enter_async_context(self.adapter.stream(model, body, access))
                    first = await beginning(self.name, chunks)
                except ProviderError as error:
                    walk.failed(access, error)
                    continue
                except BaseException:
                    walk.abandon(access)
                    raise
                walk.settled()
                watched = _Watched(Resumed(first, chunks), access)
                try:
                    yield watched
                finally:
                    watched.end()
                return

    async def complete(self, model: ModelCard, body: Body) -> Completion:
        return await self._whole(
            lambda access: self.adapter.complete(model, body, access),
            self._walk(body, model.name),
            lambda completion: _tokens(completion.usage),
        )

    async def embed(self, model: ModelCard, body: Body) -> bytes:
        return await self._whole(
            lambda access: self.adapter.embed(model, body, access), self._walk(body, model.name)
        )

    async def transcribe(self, model: str, speech: Speech) -> bytes:
        return await self._whole(
            lambda access: self.adapter.transcribe(model, speech, access), self._walk({}, model)
        )

    async def close(self) -> None:
        await self.adapter.close()

    async def _whole(
        self,
        ask: Callable[[Access | None], Awaitable[Answer]],
        walk: "_Walk",
        tokens: Callable[[Answer], int] = lambda _: 0,
    ) -> Answer:
        while True:
            access = walk.next()
            try:
                answer = await ask(access)
            except ProviderError as error:
                walk.failed(access, error)
                continue
            except BaseException:
                walk.abandon(access)
                raise
            walk.settled()
            if access is not None:
                access.done(tokens(answer))
            return answer

    def _walk(self, body: Body, model: str) -> "_Walk":
        tokens = _estimate(body) if self.pool.limits.tokens_per_minute is not None else 0
        keyless = self._keyless and len(self.pool) == 0
        return _Walk(self.name, None if keyless else self.pool, tokens, model, self._clock, self._patience)


class Loan:
    """A key that is used once, outside its pool."""

    def __init__(self, key: SecretKey) -> None:
        self.key = key

    def heard(self, headers: Mapping[str, str]) -> None:
        """Nothing is made of it."""


def loan_of(pool: KeyPool) -> Access | None:
    """A key of `pool` for what costs no quota: nobody keeps account of it."""
    key = pool.peek()
    return Loan(key) if key is not None else None


class _Walk:
    """One request's way through the keys."""

    def __init__(
        self,
        provider: str,
        pool: KeyPool | None,
        tokens: int,
        model: str,
        clock: Callable[[], float],
        patience: float,
    ) -> None:
        self._provider = provider
        self._pool = pool
        self._tokens = tokens
        self._model = model
        self._clock = clock
        self._until = clock() + patience
        self._tried: set[str] = set()
        self._last: ProviderError | None = None
        self._doubted: tuple[Lease, ProviderError] | None = None

    def next(self) -> Lease | None:
        """The next key. Raises ProviderError when there is none."""
        if self._pool is None:
            return None
        try:
            return self._pool.pick(self._tokens, self._tried, self._model)
        except PoolExhausted as exhausted:
            self.settled()
            raise self._given_up(exhausted) from None

    def failed(self, access: Lease | None, error: ProviderError) -> None:
        """Take note of it. Raises it when another key would change nothing, or it is too late for one."""
        if access is None:
            raise error
        if error.status == _FORBIDDEN and error.kind == "unauthorized":
            self._doubt(access, error)
        else:
            access.failed(
                error.kind, status=error.status, retry_after=error.retry_after, message=error.message
            )
        self._tried.add(access.id)
        if error.kind not in PER_KEY or self._clock() >= self._until:
            self.settled()
            raise error
        self._last = error

    def _doubt(self, access: Lease, error: ProviderError) -> None:
        """A 403 may be about what is asked and not about who asks: it is held against a key once another was answered.

        When two keys are told the same, nothing is held against either. Raises `error` then.
        """
        if self._doubted is not None:
            self._doubted[0].abandon()
            access.abandon()
            self._doubted = None
            raise error
        self._doubted = access, error

    def settled(self) -> None:
        """Another key was answered, or there was none to compare with: a doubt is none any more."""
        if self._doubted is not None:
            access, error = self._doubted
            self._doubted = None
            access.failed(
                error.kind, status=error.status, retry_after=error.retry_after, message=error.message
            )

    def abandon(self, access: Lease | None) -> None:
        """Nobody wants an answer any more."""
        for one in (access, self._doubted[0] if self._doubted is not None else None):
            if one is not None:
                one.abandon()
        self._doubted = None

    def _given_up(self, exhausted: PoolExhausted) -> ProviderError:
        last, tried = self._last, len(self._tried)
        if last is None:
            how = ", ".join(f"{count} {state}" for state, count in exhausted.states.items()) or "it has none"
            return ProviderError(
                self._provider,
                _kind_of(exhausted.states),
                f"has no key that can be used now: {how}",
                retry_after=exhausted.retry_after,
            )
        if tried > 1:
            last.message = f"{last.message.rstrip('.')}. {tried} keys were tried"
        last.retry_after = exhausted.retry_after if exhausted.retry_after is not None else last.retry_after
        return last


class _Watched(AsyncIterator[list[Chunk]]):
    """A stream's chunks, passed on; its key is told how it went."""

    def __init__(self, chunks: AsyncIterator[list[Chunk]], access: Lease | None) -> None:
        self._chunks = chunks
        self._access = access
        self._usage: Usage | None = None

    async def __anext__(self) -> list[Chunk]:
        try:
            block = await anext(self._chunks)
        except StopAsyncIteration:
            if self._access is not None:
                self._access.done(_tokens(self._usage))
            raise
        except ProviderError as error:
            if self._access is not None:
                self._access.failed(
                    error.kind, status=error.status, retry_after=error.retry_after, message=error.message
                )
            raise
        for chunk in block:
            if chunk.usage is not None:
                self._usage = chunk.usage
        return block

    def end(self) -> None:
        """Nobody reads on: whoever asked has left, or all was read."""
        if self._access is not None:
            self._access.done(_tokens(self._usage))


def _kind_of(states: Mapping[str, int]) -> FailureKind:
    """What it comes to for whoever asks that no key can be used."""
    if "unreachable" in states:
        return "unreachable"
    if not states or set(states) <= {"quarantined"}:
        return "unauthorized"
    return "overloaded" if set(states) <= {"quarantined", "failing"} else "rate_limited"


def _tokens(usage: Usage | None) -> int:
    return usage.total_tokens if usage is not None else 0


def _estimate(body: Body) -> int:
    """About how many tokens a request will take, its reply included where it says how long that may be."""
    characters = 0
    messages = body.get("messages")
    for message in messages if isinstance(messages, Sequence) else ():
        content = message.get("content")
        if isinstance(content, str):
            characters += len(content)
        elif isinstance(content, Sequence):
            characters += sum(len(part["text"]) for part in content if isinstance(part.get("text"), str))
    limits = (body.get("max_completion_tokens"), body.get("max_tokens"))
    reply = next((one for one in limits if isinstance(one, int) and one > 0), 0)
    return characters // _CHARACTERS + reply
