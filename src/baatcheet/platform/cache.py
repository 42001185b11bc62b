"""Redis or Valkey: it may vanish, stall or fill at any time, and costs a few milliseconds when it does.

Commands that are given at the same time share one round trip. A round trip that fails or is late closes the
connection; from then on every command is answered `MISS` at once, while a task in the background tries to
connect again. Blocking reads of streams have connections of their own (`streams`).
"""

import asyncio
import contextlib
import enum
import random
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import hiredis
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection, Connection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import InvalidResponse, OutOfMemoryError, ReadOnlyError, RedisError, ResponseError

from baatcheet.kit.batching import Batcher
from baatcheet.platform.logging import get_logger
from baatcheet.platform.settings import CacheSettings, SettingsError

log = get_logger(__name__)

# What the cache's client raises when the cache, and not the caller, is at fault.
CACHE_ERRORS: Final = (RedisError, OSError, TimeoutError)

CONNECT_TIMEOUT: Final = 1.0  # seconds, in the background
LONGEST_PAUSE: Final = 5.0  # seconds between two tries to connect again
SETTLED: Final = 5.0  # seconds after which a connection counts as good
STREAM_BLOCK: Final = 5.0  # seconds that one XREAD may block
_MAX_STREAMS: Final = 1_000  # connections that blocking reads may take
_MAX_BATCH: Final = 128
_REFUSALS: Final = ("MISCONF", "NOREPLICAS", "CLUSTERDOWN", "MASTERDOWN")

Argument = str | bytes | int | float


class Miss(enum.Enum):
    """The cache has no answer: it is not configured, not there, late, full or being tried again."""

    MISS = "miss"


MISS: Final = Miss.MISS


class _Command(NamedTuple):
    since: float  # loop time
    packed: bytes


class Cache:
    """A process's connection to the cache at `settings.url`; without a URL everything is a `MISS`.

    Raises SettingsError when the URL can't be read.
    """

    def __init__(self, settings: CacheSettings) -> None:
        self._timeout = settings.timeout
        self._kind: type[AbstractConnection] = Connection
        self._arguments: dict[str, Any] = {}
        self.streams: Redis | None = None
        if settings.url is not None:
            url = settings.url.get_secret_value()
            self._kind, self._arguments = _read_url(url)
            self.streams = _streams(url)
        self._connection: AbstractConnection | None = None
        self._connected_at = 0.0
        self._reconnecting: asyncio.Task[None] | None = None
        self._pause = 0.0
        self._told = False
        self._refused_at = float("-inf")
        self._closed = False
        self._batcher: Batcher[_Command, Any] = Batcher(self._flush, max_items=_MAX_BATCH)

    @property
    def configured(self) -> bool:
        return self.streams is not None

    @property
    def available(self) -> bool:
        """Whether it answered last time."""
        return self._connection is not None

    async def start(self) -> None:
        """Connect, a second at most; goes on trying in the background."""
        if self.configured and self._connection is None and self._reconnecting is None:
            try:
                self._connection = await self._open(CONNECT_TIMEOUT)
            except CACHE_ERRORS as error:
                self._lost(error)

    async def execute(self, *command: Argument) -> Any:
        """The reply to one command (strings as bytes), or `MISS`. Waits 1.25 times the timeout at most.

        Raises redis' ResponseError when the command itself is wrong.
        """
        if self._closed or not self.configured or (self._connection is None and self._reconnecting):
            return MISS
        since = asyncio.get_running_loop().time()
        return await self._batcher.submit(_Command(since, hiredis.pack_command(command)))  # type: ignore[arg-type]

    async def get(self, key: str) -> bytes | None:
        """What is kept under `key`; None when there is nothing, or no cache."""
        value = await self.execute("GET", key)
        return value if isinstance(value, bytes) else None

    async def put(self, key: str, value: bytes, *, seconds: float) -> bool:
        """Keep `value` for `seconds`. Whether the cache took it."""
        reply: object = await self.execute("SET", key, value, "PX", max(1, round(seconds * 1000)))
        return reply == b"OK"

    async def delete(self, *keys: str) -> bool:
        """Forget `keys`. Whether the cache heard it."""
        return await self.execute("DEL", *keys) is not MISS

    async def close(self) -> None:
        """Close every connection and stop trying."""
        self._closed = True
        if self._reconnecting is not None:
            self._reconnecting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reconnecting
            self._reconnecting = None
        if self._connection is not None:
            await _hang_up(self._connection)
            self._connection = None
        if self.streams is not None:
            with tolerated(because="it is being closed"):
                await self.streams.aclose()

    async def _flush(self, commands: Sequence[_Command]) -> Sequence[Any]:
        if self._closed or (self._connection is None and self._reconnecting):
            return [MISS] * len(commands)
        # A command that had to wait for the one before it waits less for its own answer.
        now = asyncio.get_running_loop().time()
        deadline = max(commands[0].since + self._timeout, now + self._timeout / 4)
        try:
            async with asyncio.timeout_at(deadline):
                if self._connection is None:
                    self._connection = await self._open(self._timeout)
                return await self._round_trip(self._connection, commands)
        except CACHE_ERRORS as error:
            self._lost(error)
            return [MISS] * len(commands)

    async def _round_trip(self, connection: AbstractConnection, commands: Sequence[_Command]) -> list[Any]:
        replies: list[Any] = []
        packed = b"".join(command.packed for command in commands)
        await connection.send_packed_command(packed, check_health=False)
        for _ in commands:
            try:
                reply = await connection.read_response(disable_decoding=True, disconnect_on_error=False)
            except ResponseError as error:
                reply = self._refused(error)
            replies.append(reply)
        return replies

    def _refused(self, error: ResponseError) -> Miss | ResponseError:
        if not isinstance(error, OutOfMemoryError | ReadOnlyError) and not str(error).startswith(_REFUSALS):
            return error
        if time.monotonic() > self._refused_at + 60:
            self._refused_at = time.monotonic()
            log.warning(
                "cache.refused",
                reason=str(error),
                meaning="it is full or read-only; see its maxmemory-policy",
            )
        return MISS

    async def _open(self, seconds: float) -> AbstractConnection:
        connection = self._kind(**self._arguments)
        try:
            async with asyncio.timeout(seconds):
                await connection.connect()  # type: ignore[no-untyped-call]
            async with asyncio.timeout(self._timeout):
                await connection.send_packed_command(hiredis.pack_command(("PING",)), check_health=False)
                reply = await connection.read_response(disable_decoding=True, disconnect_on_error=False)
            _expect_pong(reply)
        except BaseException:
            await _hang_up(connection)
            raise
        self._connected_at = time.monotonic()
        if self._told:
            log.info("cache.back")
            self._told = False
        return connection

    def _lost(self, error: Exception) -> None:
        connection, self._connection = self._connection, None
        if self._closed:
            return
        if not self._told:
            self._told = True
            reason = str(error) or type(error).__name__
            log.warning("cache.lost", reason=reason, meaning="the database serves in its place, more slowly")
        settled = connection is not None and time.monotonic() - self._connected_at > SETTLED
        self._pause = 0.0 if settled else min(LONGEST_PAUSE, max(0.1, self._pause * 2))
        self._reconnecting = asyncio.create_task(self._reconnect(connection), name="cache-reconnect")

    async def _reconnect(self, broken: AbstractConnection | None) -> None:
        if broken is not None:
            await _hang_up(broken)
        while True:
            await asyncio.sleep(self._pause * random.uniform(0.5, 1))  # noqa: S311 - spreads processes out
            try:
                self._connection = await self._open(CONNECT_TIMEOUT)
            except CACHE_ERRORS:
                self._pause = min(LONGEST_PAUSE, max(0.1, self._pause * 2))
            else:
                self._reconnecting = None
                return


@contextlib.contextmanager
def tolerated(*, because: str) -> Iterator[None]:
    """Swallow the cache's own errors where the work goes on without it; `because` says why that is right."""
    try:
        yield
    except CACHE_ERRORS as error:
        log.debug("cache.error_tolerated", reason=str(error) or type(error).__name__, because=because)


def _read_url(url: str) -> tuple[type[AbstractConnection], dict[str, Any]]:
    try:
        arguments: dict[str, Any] = dict(parse_url(url))
    except ValueError as error:
        raise SettingsError(f"REDIS_URL: {error}. Example: REDIS_URL=redis://cache:6379/0") from None
    kind = arguments.pop("connection_class", Connection)
    # The time limit is put around a whole round trip, and a second try is the breaker's to make.
    return kind, arguments | {
        "protocol": 2,
        "driver_info": None,
        "socket_timeout": None,
        "socket_connect_timeout": CONNECT_TIMEOUT,
        "retry": Retry(NoBackoff(), 0),
    }


def _streams(url: str) -> Redis:
    client: Redis = Redis.from_url(
        url,
        protocol=2,
        driver_info=None,
        socket_connect_timeout=CONNECT_TIMEOUT,
        socket_timeout=STREAM_BLOCK + 2,
        retry=Retry(NoBackoff(), 0),
        max_connections=_MAX_STREAMS,
    )
    return client


def _expect_pong(reply: object) -> None:
    if reply != b"PONG":
        raise InvalidResponse("it does not speak Redis' protocol")


async def _hang_up(connection: AbstractConnection) -> None:
    with tolerated(because="the connection is given up either way"):
        await connection.disconnect(nowait=True)
