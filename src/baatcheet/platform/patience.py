"""How long one request may wait for the database: once, for everything that it asks of it.

Each unit of work has a deadline of its own. A request has several of them (who is asking, may they, the work itself),
and against a server that is slow, each of them a little, it would wait for their sum. So what a request has waited is
counted, and a unit of work gets what is left. When the answer begins, the client waits no longer, and nothing is
counted any more; what belongs to no request, or to several, is not counted either.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar


class Account:
    """What one request has waited, in seconds. `closed`: its answer has begun."""

    __slots__ = ("closed", "waited")

    def __init__(self) -> None:
        self.closed = False
        self.waited = 0.0


_account: ContextVar[Account | None] = ContextVar("database_patience", default=None)


@contextlib.contextmanager
def one_request() -> Iterator[Account]:
    """All that is done here, and in the tasks that are begun here, is for one request."""
    account = Account()
    token = _account.set(account)
    try:
        yield account
    finally:
        account.closed = True
        _account.reset(token)


@contextlib.contextmanager
def of_nobody() -> Iterator[None]:
    """What is done here is for several requests, though one of them began it."""
    token = _account.set(None)
    try:
        yield
    finally:
        _account.reset(token)


def left(seconds: float) -> float:
    """What is left of `seconds` to this request; 0 at least."""
    account = _account.get()
    if account is None or account.closed:
        return seconds
    return max(0.0, seconds - account.waited)


@contextlib.contextmanager
def counted() -> Iterator[None]:
    """Count the time that this takes."""
    account = _account.get()
    began = time.monotonic()
    try:
        yield
    finally:
        if account is not None:
            account.waited += time.monotonic() - began


@contextlib.asynccontextmanager
async def within(seconds: float) -> AsyncIterator[None]:
    """Count what is waited for here, where something else than this request asks the database.

    Raises TimeoutError after what is left of `seconds`.
    """
    with counted():
        async with asyncio.timeout(left(seconds)):
            yield
