"""How much one token may ask for, and how often one address may fail to prove who it is.

Requests are counted in a sliding window: a window of a minute begins with a token's first request, and the
window before it counts in proportion to how much of it still lies within the last minute. So a fresh token
gets exactly its limit in a burst, and about that in any minute.

Model tokens fill a bucket that empties at the limit's pace. What a turn will cost is known only after it, so
a request passes while the bucket is not full, and a turn that overfills it leaves a debt to be waited off.

The counts live in Redis, by its clock, for all processes and machines. Without Redis they are local to the
process, which is said once in the log.
"""

import hashlib
import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple
from uuid import UUID

from redis.exceptions import NoScriptError

from baatcheet.platform.cache import MISS, Cache, Miss, tolerated
from baatcheet.platform.errors import RateLimited
from baatcheet.platform.logging import get_logger
from baatcheet.platform.settings import AuthSettings

log = get_logger(__name__)

WINDOW: Final = 60_000  # milliseconds
FAILURES_PER_MINUTE: Final = 20
_MOST_KEPT: Final = 50_000  # tokens or addresses that one process counts by itself

# KEYS[1]: a token's state. ARGV: requests and model tokens a minute, requests and model tokens to count.
# Answers what _State holds.
_SCRIPT: Final = b"""
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local limit, tokens, ask, spend = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local kept = redis.call('HMGET', KEYS[1], 's', 'c', 'p', 'd')
local start, current = tonumber(kept[1]) or now, tonumber(kept[2]) or 0
local previous, due = tonumber(kept[3]) or 0, tonumber(kept[4]) or 0
if now >= start + 120000 then
  start, current, previous = now, 0, 0
elseif now >= start + 60000 then
  start, current, previous = start + 60000, 0, current
end
local used = current + previous * (start + 60000 - now) / 60000
local passed = 1
if ask > 0 then
  if limit > 0 and used + ask > limit then passed = 0 end
  if tokens > 0 and due - now >= 60000 then passed = 0 end
  if passed == 1 then current = current + ask end
end
if spend > 0 and tokens > 0 then
  due = math.max(due, now) + math.ceil(spend * 60000 / tokens)
end
if passed == 1 then
  redis.call('HSET', KEYS[1], 's', start, 'c', current, 'p', previous, 'd', due)
  redis.call('PEXPIRE', KEYS[1], math.max(120000, due - now))
end
return {passed, start, current, previous, due, now}
"""
_SCRIPT_HASH: Final = hashlib.sha1(_SCRIPT).hexdigest()  # noqa: S324 - Redis names scripts so

# KEYS[1]: an address's failures. Counts one more; answers how many there are and for how long they are kept.
_FAILURE_SCRIPT: Final = b"""
local count = redis.call('INCR', KEYS[1])
if count == 1 then redis.call('PEXPIRE', KEYS[1], 60000) end
return {count, redis.call('PTTL', KEYS[1])}
"""
_FAILURE_HASH: Final = hashlib.sha1(_FAILURE_SCRIPT).hexdigest()  # noqa: S324 - Redis names scripts so


class _State(NamedTuple):
    """A token's counts; times in milliseconds."""

    passed: bool
    start: int  # of the current window
    current: int  # requests in it
    previous: int  # requests in the window before it
    due: int  # when the bucket of model tokens will be empty
    now: int


@dataclass(frozen=True, slots=True)
class Allowance:
    """One limit as it stands: how much of it is left, and the seconds until all of it is."""

    limit: int
    remaining: int
    reset: float

    def headers(self, what: str) -> dict[str, str]:
        return {
            f"x-ratelimit-limit-{what}": str(self.limit),
            f"x-ratelimit-remaining-{what}": str(self.remaining),
            f"x-ratelimit-reset-{what}": duration(self.reset),
        }


@dataclass(frozen=True, slots=True)
class LimitState:
    """What a token has left, as OpenAI's headers say it; a limit that is not set has no headers."""

    requests: Allowance | None = None
    tokens: Allowance | None = None

    def headers(self) -> dict[str, str]:
        """`x-ratelimit-{limit,remaining,reset}-{requests,tokens}`."""
        headers: dict[str, str] = {}
        if self.requests is not None:
            headers |= self.requests.headers("requests")
        if self.tokens is not None:
            headers |= self.tokens.headers("tokens")
        return headers


class RateLimits:
    """Per-token limits, the same for every token. `clock` gives seconds and serves the local counts only."""

    def __init__(
        self, settings: AuthSettings, cache: Cache, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._requests = settings.requests_per_minute
        self._tokens = settings.tokens_per_minute
        self._cache = cache
        self._clock = clock
        self._local: OrderedDict[UUID, _State] = OrderedDict()
        self._told = False
        self._fixed = (str(self._requests).encode(), str(self._tokens).encode())

    async def check(self, token_id: UUID) -> LimitState:
        """Count one request. Raises RateLimited, with `retry-after`, when it is one too many.

        Waits for the cache 1.25 times its timeout at most.
        """
        if not self._requests and not self._tokens:
            return LimitState()
        state = await self._count(token_id, 1, 0)
        told = self._describe(state)
        if not state.passed:
            raise self._refusal(state, told)
        return told

    async def spend_tokens(self, token_id: UUID, tokens: int) -> None:
        """Count a turn's model tokens, its prompt's and its completion's."""
        if self._tokens and tokens > 0:
            await self._count(token_id, 0, tokens)

    async def _count(self, token_id: UUID, ask: int, spend: int) -> _State:
        reply = await _run(
            self._cache, _SCRIPT, _SCRIPT_HASH, b"baatcheet:limit:" + token_id.bytes, *self._fixed, ask, spend
        )
        if reply is MISS or len(reply) != len(_State._fields) or reply[0] not in (0, 1):
            if not self._told:
                self._told = True
                log.warning("rate_limits.local", meaning="each process counts by itself")
            return self._count_here(token_id, ask, spend)
        self._told = False
        passed, *counts = reply
        return _State(bool(passed), *counts)

    def _count_here(self, token_id: UUID, ask: int, spend: int) -> _State:
        # The script above, line by line.
        now = int(self._clock() * 1000)
        kept = self._local.pop(token_id, None)
        start, current, previous, due = (now, 0, 0, 0) if kept is None else kept[1:5]
        if now >= start + 2 * WINDOW:
            start, current, previous = now, 0, 0
        elif now >= start + WINDOW:
            start, current, previous = start + WINDOW, 0, current
        used = current + previous * (start + WINDOW - now) / WINDOW
        passed = True
        if ask:
            over = bool(self._requests) and used + ask > self._requests
            passed = not over and not (self._tokens and due - now >= WINDOW)
            current += ask if passed else 0
        if spend and self._tokens:
            due = max(due, now) + math.ceil(spend * WINDOW / self._tokens)
        state = _State(passed, start, current, previous, due, now)
        self._local[token_id] = state
        while len(self._local) > _MOST_KEPT:
            self._local.popitem(last=False)
        return state

    def _describe(self, state: _State) -> LimitState:
        requests = tokens = None
        ends = state.start + WINDOW - state.now
        if self._requests:
            used = state.current + state.previous * ends / WINDOW
            # What was asked for in this window weighs until the end of the next.
            reset = ends + WINDOW if state.current else ends
            remaining = max(0, math.floor(self._requests - used + 1e-9))
            requests = Allowance(self._requests, remaining, reset / 1000)
        if self._tokens:
            owed = max(0, state.due - state.now)
            left = max(0, math.floor(self._tokens * (1 - owed / WINDOW)))
            tokens = Allowance(self._tokens, left, owed / 1000)
        return LimitState(requests, tokens)

    def _refusal(self, state: _State, told: LimitState) -> RateLimited:
        wait = 0.0
        what = []
        for_requests = self._wait_for_requests(state)
        if for_requests > 0:
            what.append(f"{self._requests} requests a minute")
            wait = for_requests
        if self._tokens and state.due - state.now >= WINDOW:
            what.append(f"{self._tokens} model tokens a minute")
            wait = max(wait, state.due - state.now - WINDOW + 1)
        # "Retry-After" is in whole seconds: rounded up, so that a client that obeys it gets through.
        seconds = max(1, math.ceil(wait / 1000))
        headers = told.headers() | {"retry-after": str(seconds)}
        limits = " and ".join(what)
        return RateLimited(f"This token may use {limits}. Try again in {seconds} s.", headers=headers)

    def _wait_for_requests(self, state: _State) -> float:
        """Milliseconds until one more request fits."""
        if not self._requests:
            return 0
        limit, ends = self._requests, state.start + WINDOW - state.now
        if state.current + 1 <= limit:
            over = state.current + 1 + state.previous * ends / WINDOW - limit
            return 0 if over <= 0 else over * WINDOW / state.previous
        # Only the next window has room, once this one weighs little enough in it.
        return ends + max(0.0, WINDOW * (1 - (limit - 1) / state.current))


class FailureLimit:
    """How often one client address may present a wrong token in a minute; an IPv6 client is its /64.

    Only failures count, so that somebody who shares an address with a guesser can still come in. Blocks are
    kept in the process; what is counted is shared through the cache where there is one.
    """

    def __init__(
        self,
        cache: Cache,
        *,
        limit: int = FAILURES_PER_MINUTE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cache = cache
        self._limit = limit
        self._clock = clock
        self._kept: OrderedDict[str, tuple[int, float]] = OrderedDict()  # failures, until when they count

    def blocked_for(self, address: str) -> float:
        """Seconds for which `address` has used up its failures; 0 when it has not."""
        count, until = self._kept.get(network(address), (0, 0.0))
        return max(0.0, until - self._clock()) if count >= self._limit else 0.0

    async def failed(self, address: str) -> None:
        """Count one failure. Raises RateLimited when there have been too many."""
        key = network(address)
        now = self._clock()
        count, until = self._kept.pop(key, (0, 0.0))
        if until <= now:
            count, until = 0, now + WINDOW / 1000
        count += 1
        name = b"baatcheet:failures:" + key.encode(errors="replace")
        reply = await _run(self._cache, _FAILURE_SCRIPT, _FAILURE_HASH, name)
        if reply is not MISS and len(reply) == 2 and reply[0] > count:
            count, until = reply[0], now + min(WINDOW, reply[1]) / 1000
        self._kept[key] = (count, until)
        while len(self._kept) > _MOST_KEPT:
            self._kept.popitem(last=False)
        if count > self._limit:
            seconds = max(1, math.ceil(until - now))
            raise RateLimited(
                f"Too many wrong tokens from this address. Try again in {seconds} s.",
                headers={"retry-after": str(seconds)},
            )


async def _run(
    cache: Cache, script: bytes, name: str, key: bytes, *arguments: bytes | int
) -> list[int] | Literal[Miss.MISS]:
    """The numbers that a script answers, none below 0; `MISS` where it is refused, or something else is answered."""
    reply: object = MISS
    with tolerated(because="what it would count is counted here"):
        try:
            reply = await cache.execute("EVALSHA", name, 1, key, *arguments)
        except NoScriptError:
            reply = await cache.execute("EVAL", script, 1, key, *arguments)
    if isinstance(reply, list) and all(isinstance(one, int) and one >= 0 for one in reply):
        return reply
    return MISS


def network(address: str) -> str:
    """What a client is counted by: its IPv4 address, or the /64 of its IPv6 address."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.IPv6Network((parsed, 64), strict=False))
    return address


def duration(seconds: float) -> str:
    """`seconds` as OpenAI writes them: `20ms`, `1.5s`, `6m0s`, `1h0m0s`."""
    millis = max(0, math.ceil(seconds * 1000))
    if millis < 1000:
        return f"{millis}ms"
    if millis < 60_000:
        return f"{millis / 1000:g}s"
    minutes, rest = divmod(math.ceil(millis / 1000), 60)
    if minutes < 60:
        return f"{minutes}m{rest}s"
    return f"{minutes // 60}h{minutes % 60}m{rest}s"
