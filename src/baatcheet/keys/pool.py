"""The keys of one provider, and which of them is used next.

    lease = pool.pick()                      # raises PoolExhausted
    lease.heard(answer.headers)
    lease.done(tokens=412)                   # or .failed(…), or .abandon()

A pool does no input or output and waits for nothing. Keys take turns in proportion to what is left of their quota
(stride scheduling, Waldspurger and Weihl 1995: the lowest pass is next, and goes up by the inverse of the weight), so
that all of them run out at about the same moment. A key that rests, is quarantined, has no quota left or fails too
often is not handed out. Quota is what `grant` has given: a slice of the day's, which this process alone uses up.
"""

import random
import re
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from operator import attrgetter
from typing import Final, Literal

import msgspec

from baatcheet.keys import rate_limit_headers
from baatcheet.keys.limits import UNLIMITED, Limits
from baatcheet.keys.rate_limit_headers import Allowance
from baatcheet.keys.secret import SecretKey
from baatcheet.kit.text import storable
from baatcheet.platform.redaction import redact

DAY: Final = 86_400  # seconds
LONGEST_REST: Final = 86_400.0  # seconds, whatever a provider asks
LONGEST_DAILY_REST: Final = 3600.0  # seconds, where a day's quota is said to be over and not until when
FIRST_REST: Final = 1.0  # seconds, after a 429 that does not say how long; twice as long each time
LONGEST_BACK_OFF: Final = 300.0  # seconds
CALM: Final = 60.0  # seconds without a 429 after which the back-off is one step shorter
KEY_FAILURES: Final = 3  # in a row, that open a key's breaker
PROVIDER_FAILURES: Final = 5  # in a row, over all keys, that open the provider's
FIRST_BREAK: Final = 5.0  # seconds; twice as long each time the probe fails
LONGEST_BREAK: Final = 60.0
PROBE_PATIENCE: Final = 120.0  # seconds after which a probe of which nothing was heard is made again
LEAST_WEIGHT: Final = 1 / 32  # of the heaviest: no key starves
SOON: Final = 1.0  # seconds until more quota may have been granted
MOST_MODELS: Final = 64  # whose limits are known of one key
MESSAGE_LIMIT: Final = 300  # characters
_ALWAYS: Final = float("inf")

_DAILY: Final = re.compile(r"per[ _-]?day|daily|\b[rt]pd\b", re.IGNORECASE)
_BREAKING: Final = frozenset({"overloaded", "malformed", "cut"})
_UNCOUNTED: Final = frozenset(
    {"unreachable", "rate_limited", "unauthorized", "rejected"}
)  # no tokens were used
_UNREACHED: Final = frozenset({"unreachable", "timeout"})

Condition = Literal["usable", "resting", "quarantined", "exhausted", "failing"]
Stored = Literal["active", "quarantined", "retired"]


class PooledKey(msgspec.Struct, frozen=True):
    """A key, and what it is called. `id`: its fingerprint."""

    id: str
    hint: str
    key: SecretKey


class KeyState(msgspec.Struct, frozen=True, kw_only=True):
    """How a key fares. Moments are in Unix seconds.

    `state`: as the ledger keeps it; `condition`: whether it can be used now, and why not. What only the ledger knows
    (`store`, `added_at`, `retired_at`, today's use by all processes) is empty in what a pool tells, but `left`: the
    requests of the day that are not used, as far as is known; None where there is no limit. `as_of`: when
    this was read.
    """

    id: str
    provider: str
    hint: str = ""
    state: Stored = "active"
    condition: Condition = "usable"
    reason: str | None = None
    resting_until: float | None = None
    last_error: str | None = None
    last_error_at: float | None = None
    last_used_at: float | None = None
    left: int | None = None
    store: str | None = None
    added_at: float | None = None
    retired_at: float | None = None
    granted_today: int = 0
    requests_today: int = 0
    tokens_today: int = 0
    errors_today: int = 0
    as_of: float = _ALWAYS


class Use(msgspec.Struct, frozen=True):
    """What a key was used for since this was asked last, on one day (UTC, days since 1970)."""

    id: str
    day: int
    requests: int
    tokens: int
    errors: int


class Change(msgspec.Struct, frozen=True):
    """A key whose state has changed here and is to be written. `version` counts its changes.

    `restored`: what was known against it before is void.
    """

    id: str
    version: int
    quarantined: bool
    restored: bool
    reason: str | None
    resting_until: float | None


class Holding(msgspec.Struct, frozen=True):
    """What is left here of a key's slices. `tomorrow`: of the slice for the day after `day`.

    `remaining`: what nobody has been granted of `day`, as far as is known here.
    """

    id: str
    day: int
    left: int
    tomorrow: int
    remaining: int


class PoolExhausted(Exception):
    """No key of this provider can be used now.

    `retry_after`: seconds until one may be usable again, None when that can't be known. `states`: keys by why they are
    not used: `resting`, `quarantined`, `exhausted`, `failing`, `limited` (this minute's tokens), `unreachable` (the
    provider is), `tried` (the caller did not want it again).
    """

    def __init__(self, provider: str, retry_after: float | None, states: Mapping[str, int]) -> None:
        told = ", ".join(f"{count} {state}" for state, count in states.items()) or "there is none"
        super().__init__(f"no key of {provider} can be used now: {told}")
        self.provider = provider
        self.retry_after = retry_after
        self.states = dict(states)


class _Breaker:
    """Opens after several failures in a row; then lets one probe through, and opens for longer when that fails."""

    __slots__ = ("_after", "_breaks", "_failures", "probing_until", "until")

    def __init__(self, after: int) -> None:
        self._after = after
        self._failures = 0
        self._breaks = 0
        self.until = 0.0  # 0: closed; a moment: open until then, half-open after it
        self.probing_until = 0.0

    def failed(self, now: float, *, probe: bool) -> bool:
        """Whether it has opened."""
        if self.until:
            if not probe:  # It began before the breaker opened, and tells nothing new.
                return False
        else:
            self._failures += 1
            if self._failures < self._after:
                return False
        self.until = now + min(LONGEST_BREAK, FIRST_BREAK * 2.0 ** min(self._breaks, 10))
        self.probing_until = 0.0
        self._breaks += 1
        return True

    def succeeded(self) -> bool:
        """Whether it was open."""
        was_open = self.until > 0
        self._failures = self._breaks = 0
        self.until = self.probing_until = 0.0
        return was_open

    def next_try(self) -> float:
        """When a request may go through: the moment is past when one may now."""
        return max(self.until, self.probing_until)


class _Key:
    """A key and all that is known of it here."""

    __slots__ = (
        "breaker",
        "bucket",
        "bucket_at",
        "calm_since",
        "errors",
        "hint",
        "id",
        "in_flight",
        "key",
        "last_error",
        "last_error_at",
        "last_used_at",
        "left",
        "level",
        "low",
        "of_model",
        "quarantined",
        "reason",
        "remaining",
        "requests",
        "rested_at",
        "resting_until",
        "restored",
        "settled_at",
        "stride",
        "token_window",
        "tokens",
        "tomorrow",
        "tomorrow_remaining",
        "turn",
        "version",
        "window",
        "written",
    )

    def __init__(self, pooled: PooledKey, limits: Limits) -> None:
        self.id = pooled.id
        self.hint = pooled.hint
        self.key = pooled.key
        self.turn = 0.0
        self.stride = 1.0
        self.in_flight = 0
        self.quarantined = False
        self.reason: str | None = None
        self.resting_until = 0.0
        self.rested_at = 0.0
        self.level = 0
        self.calm_since = 0.0
        self.breaker = _Breaker(KEY_FAILURES)
        self.last_error: str | None = None
        self.last_error_at: float | None = None
        self.last_used_at: float | None = None
        # Quota: `left` of this process's slice; `remaining`: of the deployment's day, beyond all slices.
        self.left: float = _ALWAYS if limits.requests_per_day is None else 0
        self.low = 0.0
        self.remaining = limits.requests_per_day or 0
        self.tomorrow = 0
        self.tomorrow_remaining = 0
        self.window: _Window | None = None
        self.token_window: _Window | None = None
        self.of_model: dict[str, _OfModel] = {}
        self.bucket = float(limits.tokens_per_minute or 0)
        self.bucket_at = 0.0
        # Not yet written to the ledger.
        self.requests = self.tokens = self.errors = 0
        self.version = self.written = 0
        self.settled_at = -_ALWAYS
        self.restored = False

    def ready_at(self) -> float:
        """From when on it may be used: the moment is past when it may now; infinite when time alone won't do."""
        if self.quarantined or self.left < 1:
            return _ALWAYS
        at = max(self.resting_until, self.breaker.next_try())
        if self.window is not None and self.window.left < 1:
            at = max(at, self.window.ends)
        return at

    def condition(self, now: float) -> Condition:
        if self.quarantined:
            return "quarantined"
        if self.resting_until > now:
            return "resting"
        if self.left < 1 and self.remaining < 1:
            return "exhausted"
        if self.breaker.until:
            return "failing"
        return "resting" if self.window is not None and self.window.holds(now) else "usable"


class _Window:
    """What the provider itself has said may still be used until a moment."""

    __slots__ = ("ends", "left", "limit")

    def __init__(self, told: Allowance, now: float) -> None:
        self.left = told.left
        self.limit = told.limit or 0
        self.ends = now + min(told.seconds, LONGEST_REST)

    def holds(self, now: float) -> bool:
        """Whether nothing is left, and that is still so."""
        return self.left < 1 and self.ends > now


class _OfModel:
    """What is known of one key for one model: many providers count per model, and say so of that model alone."""

    __slots__ = ("calm_since", "level", "rested_at", "resting_until", "token_window", "window")

    def __init__(self) -> None:
        self.resting_until = 0.0
        self.rested_at = 0.0
        self.level = 0
        self.calm_since = 0.0
        self.window: _Window | None = None
        self.token_window: _Window | None = None

    def ready_at(self, tokens: int, now: float) -> float:
        """From when on it may be asked for a request of `tokens`: the moment is past when it may now."""
        at = self.resting_until
        if self.window is not None and self.window.left < 1:
            at = max(at, self.window.ends)
        window = self.token_window
        if window is not None and now < window.ends and window.left < max(tokens, 1):
            at = max(at, window.ends)
        return at

    def count(self, tokens: int) -> None:
        """A request is made."""
        if self.window is not None:
            self.window.left -= 1
        if self.token_window is not None:
            self.token_window.left -= tokens


class Lease:
    """One use of one key. Exactly one of `done`, `failed` and `abandon` ends it; later calls change nothing."""

    __slots__ = (
        "_ended",
        "_key",
        "_model",
        "_pool",
        "_probe",
        "_provider_probe",
        "_since",
        "_tokens",
        "hint",
        "id",
        "key",
    )

    def __init__(
        self,
        pool: "KeyPool",
        key: _Key,
        tokens: int,
        since: float,
        model: str | None,
        *,
        probe: bool,
        provider_probe: bool,
    ) -> None:
        self.id = key.id
        self.hint = key.hint
        self.key = key.key
        self._pool = pool
        self._key = key
        self._tokens = tokens
        self._since = since
        self._model = model
        self._probe = probe
        self._provider_probe = provider_probe
        self._ended = False

    def heard(self, headers: Mapping[str, str]) -> None:
        """The headers of an answer: what they say of this key's quota is obeyed. May come at any time, repeatedly."""
        self._pool._heard(self._key, self._model, headers)  # noqa: SLF001 - a lease is a part of its pool

    def done(self, tokens: int = 0) -> None:
        """The provider has answered. `tokens`: of prompt and reply, as far as is known."""
        if self._end():
            self._pool._done(self._key, self._model, tokens, self._tokens)  # noqa: SLF001

    def failed(
        self,
        kind: str,
        *,
        status: int | None = None,
        retry_after: float | None = None,
        message: str = "",
    ) -> None:
        """The request failed. `kind`: a `FailureKind`; `retry_after`: seconds; `message`: holds no key."""
        if self._end():
            self._pool._failed(  # noqa: SLF001
                self._key,
                self._model,
                kind,
                status=status,
                retry_after=retry_after,
                message=message,
                lease=(self._since, self._tokens),
                probes=(self._probe, self._provider_probe),
            )

    def abandon(self) -> None:
        """Nobody wants the answer any more: nothing for or against the key. The request is counted as made."""
        if self._end():
            self._pool._abandoned(self._key, probes=(self._probe, self._provider_probe))  # noqa: SLF001

    def _end(self) -> bool:
        ended, self._ended = self._ended, True
        return not ended

    def __repr__(self) -> str:
        return f"Lease({self.id}, {self.hint})"


_turn = attrgetter("turn")


class KeyPool:
    """The keys of one provider, for one event loop.

    `on_change` is called with a key's id when its state has changed and is to be written and told to others; `on_need`
    when a slice of quota is half used up or a request found none. `chance`: 0 ≤ chance() < 1, where in the round a new
    key begins, so that several processes don't all begin with the same one.
    """

    def __init__(
        self,
        provider: str,
        limits: Limits = UNLIMITED,
        *,
        clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.provider = provider
        self.limits = limits
        self.on_change: Callable[[str], None] = _ignore
        self.on_need: Callable[[], None] = _nothing
        self._clock = clock
        self._chance = chance
        self._keys: dict[str, _Key] = {}
        self._gone: dict[str, _Key] = {}
        self._usable: list[_Key] = []
        self._sort_at = 0.0  # when who is usable is to be looked at again
        self._turn = 0.0
        self._breaker = _Breaker(PROVIDER_FAILURES)
        self._processes = 1
        self._day = int(clock() // DAY)
        self._past: list[Use] = []
        self._advance: dict[str, dict[int, tuple[int, int]]] = {}
        self._picked = 0
        self._refused = 0
        self._failures: Counter[str] = Counter()

    # -- the keys ------------------------------------------------------------------------------------------------

    def replace(self, keys: Sequence[PooledKey]) -> None:
        """Make `keys` the pool's. One that stays keeps its state; one that goes is picked no more."""
        now = self._now()
        before, self._keys = self._keys, {}
        for pooled in keys:
            key = before.pop(pooled.id, None) or self._gone.pop(pooled.id, None)
            if key is None:
                key = _Key(pooled, self.limits)
                key.bucket, key.bucket_at = self._bucket_size(), now
                key.turn = self._turn + self._chance()
            self._keys[pooled.id] = key
            for day, (count, remaining) in self._advance.pop(pooled.id, {}).items():
                self._grant(key, day, count, remaining)
        self._gone |= before
        self._forget_gone()
        self._sort_at = 0.0

    def __len__(self) -> int:
        return len(self._keys)

    def peek(self) -> SecretKey | None:
        """A key to ask with for what costs no quota, a list of models; None when there is none that is not refused."""
        now = self._clock()
        keys = [key for key in self._keys.values() if not key.quarantined]
        return min(keys, key=lambda key: key.resting_until > now).key if keys else None

    def in_flight(self, *, retired: bool) -> dict[str, int]:
        """Requests under way by key id: with keys that the pool holds no longer, or with those that it holds."""
        self._forget_gone()
        keys = self._gone if retired else self._keys
        return {key.id: key.in_flight for key in keys.values() if key.in_flight}

    def _forget_gone(self) -> None:
        for key in [one for one in self._gone.values() if not one.in_flight]:
            self._put_by(key)
            del self._gone[key.id]
            if self.limits.requests_per_day is not None:  # It may come back: a rotation that is rolled back.
                self.grant(key.id, self._day, int(key.left), key.remaining)
                self.grant(key.id, self._day + 1, key.tomorrow, key.tomorrow_remaining)

    # -- picking -------------------------------------------------------------------------------------------------

    def pick(self, tokens: int = 0, without: Collection[str] = (), model: str | None = None) -> Lease:
        """The key whose turn it is, for a request of about `tokens`. Raises PoolExhausted.

        `without`: ids that are not wanted, because they were tried already. `model`: who is asked for; what the
        provider then says of its limits holds for that model only, until it says so of a second one.
        """
        now = self._now()
        if now >= self._sort_at:
            self._sort(now)
        breaker = self._breaker
        if breaker.until and breaker.next_try() > now:
            raise self._exhausted(now, tokens, without, model)
        key = self._choose(tokens, without, now, model)
        if key is None:
            raise self._exhausted(now, tokens, without, model)
        self._turn = key.turn
        key.turn += key.stride
        key.in_flight += 1
        key.requests += 1
        key.last_used_at = now
        self._picked += 1
        key.left -= 1
        if key.left < 1:
            self._sort_at = 0.0
        if key.left <= key.low:
            self.on_need()
        if key.window is not None:
            self._count_in_window(key, now)
        if tokens or key.of_model:
            self._reserve(key, tokens, model)
        probe = key.breaker.until > 0
        if probe:
            key.breaker.probing_until = now + PROBE_PATIENCE
            self._sort_at = 0.0
        provider_probe = breaker.until > 0
        if provider_probe:
            breaker.probing_until = now + PROBE_PATIENCE
        return Lease(self, key, tokens, now, model, probe=probe, provider_probe=provider_probe)

    def _choose(self, tokens: int, without: Collection[str], now: float, model: str | None) -> _Key | None:
        usable = self._usable
        if not usable:
            return None
        key = min(usable, key=_turn)
        if (not without or key.id not in without) and self._has_room(key, tokens, now, model):
            return key
        fitting = [one for one in usable if one.id not in without and self._has_room(one, tokens, now, model)]
        return min(fitting, key=_turn, default=None)

    def _sort(self, now: float) -> None:
        """Find who is usable now, and when that may change by itself."""
        self._usable = usable = []
        again = _ALWAYS
        for key in self._keys.values():
            at = key.ready_at()
            if at > now:
                again = min(again, at)
                continue
            # What a key has missed while it was away is not made up for.
            key.turn = max(key.turn, self._turn)
            usable.append(key)
        self._sort_at = again

    def _now(self) -> float:
        now = self._clock()
        if now >= (self._day + 1) * DAY:
            self._turn_day(int(now // DAY))
        return now

    def _exhausted(
        self, now: float, tokens: int, without: Collection[str], model: str | None
    ) -> PoolExhausted:
        self._refused += 1
        states: Counter[str] = Counter()
        moments: list[float] = []
        breaking = self._breaker.next_try() if self._breaker.until else 0.0
        for key in self._keys.values():
            condition: str = key.condition(now)
            at = max(key.ready_at(), breaking)
            if condition == "quarantined":
                states[condition] += 1
                continue
            if key.left < 1:  # A slice may be had soon, or the day is over.
                states["exhausted"] += 1
                moments.append(now + SOON if key.remaining > 0 else (self._day + 1) * DAY)
                continue
            if condition == "usable" and breaking > now:
                condition = "unreachable"
            elif condition == "usable" and (until := _model_ready_at(key, model, tokens, now)) > now:
                condition, at = "resting", max(at, until)
            elif condition == "usable" and key.id in without:
                states["tried"] += 1
                continue
            elif condition == "usable":
                condition, at = "limited", max(at, self._room_at(key, tokens, now))
            states[condition] += 1
            moments.append(at)
        if any(key.left < 1 <= key.remaining for key in self._keys.values()):
            self.on_need()
        soonest = min(moments, default=None)
        # What has a moment behind it is a probe that is under way.
        wait = None if soonest is None else min(LONGEST_REST, max(soonest - now, 0.1))
        return PoolExhausted(self.provider, wait, +states)

    # -- what became of it ---------------------------------------------------------------------------------------

    def _done(self, key: _Key, model: str | None, tokens: int, reserved: int) -> None:
        key.in_flight -= 1
        key.tokens += max(0, tokens)
        if self.limits.tokens_per_minute is not None and tokens:
            key.bucket -= tokens - reserved
        key.level //= 2
        if key.of_model and model is not None and (of := key.of_model.get(model)) is not None:
            of.level //= 2
        self._reached()
        if key.breaker.succeeded():
            self._sort_at = 0.0

    def _reached(self) -> None:
        if self._breaker.succeeded():
            self._sort_at = 0.0

    def _failed(
        self,
        key: _Key,
        model: str | None,
        kind: str,
        *,
        status: int | None,
        retry_after: float | None,
        message: str,
        lease: tuple[float, int],
        probes: tuple[bool, bool],
    ) -> None:
        now = self._now()
        since, reserved = lease
        if reserved and kind in _UNCOUNTED:
            self._reserve(key, -reserved)
        self._failures[kind] += 1
        key.errors += 1
        key.last_error = fit(f"{kind}{'' if status is None else f' ({status})'}: {message}")
        key.last_error_at = now
        if kind in _UNREACHED:
            key.in_flight -= 1
            self._release(key, (probes[0], False))
            self._breaker.failed(now, probe=probes[1])
            return
        self._reached()
        self._abandoned(key, probes=(probes[0] and kind not in _BREAKING, False))
        if key.id not in self._keys:
            return
        if kind == "unauthorized":
            self.quarantine(key.id, message or f"refused with {status}")
        elif kind == "rate_limited":
            self._rate_limited(key, model, now, retry_after, message, since)
        elif kind in _BREAKING:
            if key.breaker.failed(now, probe=probes[0]):
                self._sort_at = 0.0
        elif key.breaker.succeeded():  # It was refused by a server that works.
            self._sort_at = 0.0

    def _abandoned(self, key: _Key, *, probes: tuple[bool, bool]) -> None:
        key.in_flight -= 1
        self._release(key, probes)

    def _release(self, key: _Key, probes: tuple[bool, bool]) -> None:
        """A probe ended without a result: the next request is one."""
        if probes[0]:
            key.breaker.probing_until = 0.0
            self._sort_at = 0.0
        if probes[1]:
            self._breaker.probing_until = 0.0

    def _rate_limited(
        self,
        key: _Key,
        model: str | None,
        now: float,
        retry_after: float | None,
        message: str,
        since: float,
    ) -> None:
        limited = key if model is None else self._of_model(key, model, now)
        daily = _DAILY.search(message) is not None
        midnight = (self._day + 1) * DAY
        if retry_after is None or not 0 <= retry_after < _ALWAYS:
            # Requests that were under way together are refused together: that is one step, not many.
            if since >= limited.rested_at or not limited.level:
                calm = int(max(0.0, now - limited.calm_since) / CALM)
                limited.level = max(0, limited.level - calm) + 1
            seconds = min(LONGEST_BACK_OFF, FIRST_REST * 2.0 ** min(limited.level - 1, 30))
            if daily:
                seconds = LONGEST_DAILY_REST
        else:
            seconds = min(retry_after, LONGEST_REST)
        limited.calm_since = now + seconds
        until = min(now + seconds, midnight) if daily else now + seconds
        self._rest_for(key, limited, until, "asked to wait (429)", now)

    def _of_model(self, key: _Key, model: str, now: float) -> "_OfModel":
        found = key.of_model.get(model)
        if found is None:
            if len(key.of_model) >= MOST_MODELS:
                key.of_model = {name: one for name, one in key.of_model.items() if one.ready_at(1, now) > now}
            found = key.of_model[model] = _OfModel()
        return found

    def _rest_for(self, key: _Key, limited: "_Key | _OfModel", until: float, reason: str, now: float) -> None:
        """Rest it for the model; wholly when none was named, or a second one must wait: then it is the key's limit."""
        if isinstance(limited, _Key):
            self._rest(key, until, reason)
            return
        limited.rested_at = now
        limited.resting_until = max(limited.resting_until, until)
        resting = [one.resting_until for one in key.of_model.values() if one.resting_until > now]
        if len(resting) > 1:
            self._rest(key, min(resting), reason)

    # -- the provider's own word on quota ------------------------------------------------------------------------

    def _heard(self, key: _Key, model: str | None, headers: Mapping[str, str]) -> None:
        now = self._now()
        self._reached()
        told = rate_limit_headers.read(headers, now)
        if told.requests is None and told.tokens is None:
            return
        limited = key if model is None else self._of_model(key, model, now)
        if told.requests is not None:
            limited.window = _Window(told.requests, now)
            if told.requests.left < 1 and key.id in self._keys:
                # A wait of hours is a day's: at midnight it is over at the latest.
                ends = limited.window.ends
                if told.requests.seconds > LONGEST_DAILY_REST:
                    ends = min(ends, (self._day + 1) * DAY)
                limited.window = None
                if ends > now:
                    self._rest_for(key, limited, ends, "the provider says that no request is left", now)
            self._weigh(key)
        if told.tokens is not None:
            limited.token_window = _Window(told.tokens, now)

    def _count_in_window(self, key: _Key, now: float) -> None:
        window = key.window
        assert window is not None
        if now >= window.ends:
            key.window = None
            return
        window.left -= 1
        if window.left < 1:
            self._sort_at = 0.0

    def _has_room(self, key: _Key, tokens: int, now: float, model: str | None) -> bool:
        """Whether this model's limits, and this minute's tokens, allow a request of `tokens`."""
        if key.of_model and _model_ready_at(key, model, tokens, now) > now:
            return False
        window = key.token_window
        if window is not None and now < window.ends and window.left < max(tokens, 1):
            return False
        if self.limits.tokens_per_minute is None:
            return True
        size = self._fill(key, now)
        # One that is larger than a whole minute's goes when nothing else has been for a while.
        return key.bucket >= min(max(tokens, 1), size)

    def _room_at(self, key: _Key, tokens: int, now: float) -> float:
        at = now
        window = key.token_window
        if window is not None and window.left < max(tokens, 1):
            at = max(at, window.ends)
        if self.limits.tokens_per_minute is not None:
            size = self._bucket_size()
            at = max(at, now + 60 * (min(max(tokens, 1), size) - key.bucket) / size)
        return at

    def _fill(self, key: _Key, now: float) -> float:
        size = self._bucket_size()
        key.bucket = min(size, key.bucket + max(0.0, now - key.bucket_at) * size / 60)
        key.bucket_at = now
        return size

    def _bucket_size(self) -> float:
        return max(1.0, (self.limits.tokens_per_minute or 0) / self._processes)

    def _reserve(self, key: _Key, tokens: int, model: str | None = None) -> None:
        if model is not None and (of := key.of_model.get(model)) is not None:
            of.count(tokens)
        if self.limits.tokens_per_minute is not None:
            key.bucket -= tokens
        if key.token_window is not None:
            key.token_window.left -= tokens

    # -- states --------------------------------------------------------------------------------------------------

    def rest(self, id: str, until: float, reason: str) -> None:  # noqa: A002 - what it is
        """Don't use it before `until` (Unix seconds; 24 hours from now at most). Unknown ids are passed over."""
        key = self._keys.get(id)
        if key is not None:
            self._rest(key, min(until, self._now() + LONGEST_REST), reason)

    def _rest(self, key: _Key, until: float, reason: str) -> None:
        key.rested_at = self._clock()
        if until <= key.resting_until or key.quarantined:
            return
        key.resting_until = until
        key.reason = fit(reason)
        self._changed(key)

    def quarantine(self, id: str, reason: str) -> None:  # noqa: A002
        """Don't use it until it is restored."""
        key = self._keys.get(id)
        if key is None or key.quarantined:
            return
        key.quarantined = True
        key.reason = fit(reason)
        self._changed(key)

    def restore(self, id: str) -> None:  # noqa: A002
        """Use it again: what was known against it is void."""
        key = self._keys.get(id)
        if key is None:
            return
        self._void(key)
        key.restored = True
        self._changed(key)

    def _void(self, key: _Key) -> None:
        key.quarantined = False
        key.reason = None
        key.resting_until = 0.0
        key.level = 0
        key.window = key.token_window = None
        key.of_model.clear()
        key.breaker.succeeded()
        self._sort_at = 0.0

    def _changed(self, key: _Key) -> None:
        key.version += 1
        self._sort_at = 0.0
        self.on_change(key.id)

    def apply(self, states: Mapping[str, KeyState]) -> None:
        """Take over what the ledger says; what has changed here since and is not written yet stands."""
        for id, key in self._keys.items():  # noqa: A001
            state = states.get(id)
            if state is None or key.version != key.written or state.as_of <= key.settled_at:
                continue
            until = state.resting_until or 0.0
            if key.quarantined and state.state != "quarantined":
                self._void(key)
            key.quarantined = state.state == "quarantined"
            key.resting_until = until
            if key.quarantined or until > self._clock():
                key.reason = state.reason
            self._sort_at = 0.0

    def states(self) -> list[KeyState]:
        """How the pool's keys fare, in their order."""
        now = self._now()
        return [self._state(key, now) for key in self._keys.values()]

    def _state(self, key: _Key, now: float) -> KeyState:
        condition = key.condition(now)
        return KeyState(
            id=key.id,
            provider=self.provider,
            hint=key.hint,
            state="quarantined" if key.quarantined else "active",
            condition=condition,
            reason=key.reason if condition in {"quarantined", "resting"} else None,
            resting_until=key.resting_until if key.resting_until > now else None,
            last_error=key.last_error,
            last_error_at=key.last_error_at,
            last_used_at=key.last_used_at,
            left=None if key.left == _ALWAYS else int(key.left) + key.remaining,
        )

    # -- for the ledger ------------------------------------------------------------------------------------------

    def changes(self) -> list[Change]:
        """The keys whose state is to be written; `written` takes one off."""
        return [
            Change(
                id=key.id,
                version=key.version,
                quarantined=key.quarantined,
                restored=key.restored,
                reason=key.reason,
                resting_until=key.resting_until or None,
            )
            for key in self._keys.values()
            if key.version != key.written
        ]

    def written(self, change: Change) -> None:
        """`change` has been written. Has the key changed again since, it is still to be written."""
        key = self._keys.get(change.id)
        if key is not None and key.version == change.version:
            key.written = change.version
            key.settled_at = self._clock()
            key.restored = False

    def take_uses(self) -> list[Use]:
        """What the keys were used for since the last time. `give_back_uses` when it could not be written."""
        for key in (*self._keys.values(), *self._gone.values()):
            self._put_by(key)
        uses, self._past = self._past, []
        return uses

    def give_back_uses(self, uses: Sequence[Use]) -> None:
        self._past.extend(uses)

    def take_failures(self) -> Mapping[str, int]:
        """Failures by kind since the last time."""
        failures, self._failures = self._failures, Counter()
        return failures

    def _put_by(self, key: _Key) -> None:
        if key.requests or key.tokens or key.errors:
            self._past.append(Use(key.id, self._day, key.requests, key.tokens, key.errors))
            key.requests = key.tokens = key.errors = 0

    # -- for the quota -------------------------------------------------------------------------------------------

    def divide(self, processes: int) -> None:
        """So many processes share the tokens of a minute."""
        self._processes = max(1, processes)

    def grant(self, id: str, day: int, count: int, remaining: int) -> None:  # noqa: A002
        """`count` more requests may be made with a key on `day` (days since 1970), or none; the slice is not shared.

        `remaining`: what nobody has been granted of that day. For a key that is not in the pool the slice is kept
        until `replace` brings it.
        """
        self._now()
        key = self._keys.get(id)
        if key is not None:
            self._grant(key, day, count, remaining)
        else:
            advance = self._advance.setdefault(id, {})
            advance[day] = (advance.get(day, (0, 0))[0] + count, remaining)

    def _grant(self, key: _Key, day: int, count: int, remaining: int) -> None:
        if self.limits.requests_per_day is None:
            return
        if day == self._day:
            if key.left < 1 <= key.left + count:
                self._sort_at = 0.0
            key.left += count
            key.remaining = remaining
            key.low = key.left // 2 if remaining else -1.0
            self._weigh(key)
        elif day == self._day + 1:
            key.tomorrow += count
            key.tomorrow_remaining = remaining

    def take_back(self, id: str, day: int, count: int) -> int:  # noqa: A002
        """Up to `count` requests of a slice that were not made; how many they are. They can't be made any more."""
        self._now()
        key = self._keys.get(id)
        if key is None:
            kept, remaining = self._advance.get(id, {}).get(day, (0, 0))
            taken = min(count, kept)
            if taken:
                self._advance[id][day] = (kept - taken, remaining)
        elif self.limits.requests_per_day is None:
            taken = 0
        elif day == self._day:
            taken = min(count, int(key.left))
            key.left -= taken
            self._sort_at = 0.0
        elif day == self._day + 1:
            taken = min(count, key.tomorrow)
            key.tomorrow -= taken
        else:
            taken = 0
        return taken

    def holdings(self) -> list[Holding]:
        """What is left here of the keys' slices; nothing for keys without a limit."""
        self._now()
        if self.limits.requests_per_day is None:
            return []
        return [
            Holding(key.id, self._day, int(key.left), key.tomorrow, key.remaining)
            for key in self._keys.values()
        ]

    def kept(self) -> list[Holding]:
        """What is kept of slices for keys that are not in the pool."""
        self._now()
        return [
            Holding(key_id, self._day, days.get(self._day, (0, 0))[0], days.get(self._day + 1, (0, 0))[0], 0)
            for key_id, days in self._advance.items()
        ]

    def take_demand(self) -> tuple[int, int]:
        """Requests since the last time: those that got a key, and those that got none."""
        demand = (self._picked, self._refused)
        self._picked = self._refused = 0
        return demand

    def _weigh(self, key: _Key) -> None:
        shares = [1.0]
        if self.limits.requests_per_day:
            shares.append((key.left + key.remaining) / self.limits.requests_per_day)
        if key.window is not None and key.window.limit:
            shares.append(key.window.left / key.window.limit)
        key.stride = 1 / max(LEAST_WEIGHT, min(shares))

    def _turn_day(self, day: int) -> None:
        """It is midnight (UTC): yesterday's slices are void, today's begin."""
        for key in (*self._keys.values(), *self._gone.values()):
            self._put_by(key)
            if self.limits.requests_per_day is None:
                continue
            follows = day == self._day + 1
            key.left = key.tomorrow if follows else 0
            key.remaining = key.tomorrow_remaining if follows else self.limits.requests_per_day
            key.low = key.left // 2
            key.tomorrow = key.tomorrow_remaining = 0
            self._weigh(key)
        self._day = day
        self._advance = {
            key_id: {of: slice_ for of, slice_ in days.items() if of >= day}
            for key_id, days in self._advance.items()
        }
        self._sort_at = 0.0


def fit(text: str) -> str:
    """What is kept of a message: storable, without secrets that are known, and not long."""
    text = redact(storable(text))
    return text if len(text) <= MESSAGE_LIMIT else text[: MESSAGE_LIMIT - 1] + "…"


def _model_ready_at(key: _Key, model: str | None, tokens: int, now: float) -> float:
    of = key.of_model.get(model) if model is not None else None
    return of.ready_at(tokens, now) if of is not None else 0.0


def _ignore(_id: str) -> None: ...


def _nothing() -> None: ...
