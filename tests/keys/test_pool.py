"""Which key is used next."""

import base64
from collections import Counter
from collections.abc import Mapping

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from baatcheet.keys.limits import Limits, limits_of
from baatcheet.keys.pool import (
    DAY,
    FIRST_BREAK,
    KEY_FAILURES,
    LONGEST_BACK_OFF,
    LONGEST_REST,
    PROBE_PATIENCE,
    PROVIDER_FAILURES,
    KeyPool,
    KeyState,
    Lease,
    PooledKey,
    PoolExhausted,
)
from baatcheet.keys.secret import SecretKey

NOON = 20_000 * DAY + DAY / 2
TODAY = 20_000


class Clock:
    """The time, as the test says."""

    def __init__(self, now: float = NOON) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def key(name: str) -> PooledKey:
    return PooledKey(name, f"…{name}", SecretKey(f"sk-secret-of-{name}"))


def pool_of(count: int, clock: Clock, limits: Limits | None = None) -> KeyPool:
    """`count` keys; those with a daily limit have all of it."""
    pool = KeyPool("groq", limits or Limits(), clock=clock, chance=lambda: 0.0)
    pool.replace([key(f"k{number}") for number in range(count)])
    if limits is not None and limits.requests_per_day is not None:
        for number in range(count):
            pool.grant(f"k{number}", TODAY, limits.requests_per_day, 0)
    return pool


def picks(pool: KeyPool, count: int) -> Counter[str]:
    counted: Counter[str] = Counter()
    for _ in range(count):
        lease = pool.pick()
        counted[lease.id] += 1
        lease.done()
    return counted


def exhausted(pool: KeyPool, tokens: int = 0, without: tuple[str, ...] = ()) -> PoolExhausted:
    with pytest.raises(PoolExhausted) as raised:
        pool.pick(tokens, without)
    return raised.value


def state_of(pool: KeyPool, name: str = "k0") -> KeyState:
    return next(state for state in pool.states() if state.id == name)


@pytest.fixture
def clock() -> Clock:
    return Clock()


# Turns -----------------------------------------------------------------------------------------------------


def test_keys_take_turns(clock: Clock) -> None:
    pool = pool_of(5, clock)

    assert picks(pool, 500) == dict.fromkeys((f"k{number}" for number in range(5)), 100)


def test_turns_are_in_proportion_to_what_is_left_and_all_run_out_together(clock: Clock) -> None:
    pool = pool_of(2, clock, Limits(requests_per_day=300))
    pool.take_back("k0", TODAY, 200)
    pool.grant("k0", TODAY, 0, 0)

    first = picks(pool, 200)

    assert first["k0"] == pytest.approx(50, abs=2)
    assert sum(picks(pool, 200).values()) == 200
    assert exhausted(pool).states == {"exhausted": 2}


def test_a_key_that_was_away_does_not_make_up_for_what_it_missed(clock: Clock) -> None:
    pool = pool_of(2, clock)
    pool.rest("k0", NOON + 60, "rests")
    picks(pool, 1000)
    clock.now += 61

    assert picks(pool, 100)["k0"] == pytest.approx(50, abs=1)


def test_several_processes_do_not_all_begin_with_the_same_key(clock: Clock) -> None:
    begun = set()
    for chance in (0.1, 0.9):
        chances = iter([chance, 1 - chance])
        pool = KeyPool("groq", clock=clock, chance=lambda chances=chances: next(chances))  # type: ignore[misc]
        pool.replace([key("k0"), key("k1")])
        begun.add(pool.pick().id)

    assert begun == {"k0", "k1"}


def test_what_was_tried_already_is_not_handed_out_again(clock: Clock) -> None:
    pool = pool_of(3, clock)

    tried: list[str] = []
    for _ in range(3):
        tried.append(pool.pick(without=tried).id)

    assert sorted(tried) == ["k0", "k1", "k2"]
    assert exhausted(pool, without=tuple(tried)).states == {"tried": 3}


def test_an_empty_pool_says_that_there_is_no_key() -> None:
    error = exhausted(KeyPool("lab"))

    assert str(error) == "no key of lab can be used now: there is none"
    assert error.retry_after is None
    assert error.states == {}


# Rests -----------------------------------------------------------------------------------------------------


def test_a_key_rests_as_long_as_its_provider_asked(clock: Clock) -> None:
    pool = pool_of(1, clock)
    pool.pick().failed("rate_limited", status=429, retry_after=7, message="slow down")

    error = exhausted(pool)
    assert error.states == {"resting": 1}
    assert error.retry_after == pytest.approx(7)
    clock.now += 7
    assert pool.pick().id == "k0"


@pytest.mark.parametrize("seconds", [1e9, 3.2e8, 86_401.0])
def test_no_rest_is_longer_than_a_day_whatever_is_asked(clock: Clock, seconds: float) -> None:
    pool = pool_of(1, clock)
    pool.pick().failed("rate_limited", status=429, retry_after=seconds, message="")

    assert state_of(pool).resting_until == NOON + LONGEST_REST


@pytest.mark.parametrize(
    "message",
    [
        "Rate limit reached on requests per day (RPD): Limit 14400",
        "Rate limit exceeded: free-models-per-day",
        "Quota exceeded for metric GenerateRequestsPerDay",
    ],
)
def test_the_rest_of_a_days_quota_ends_at_midnight_utc(clock: Clock, message: str) -> None:
    pool = pool_of(1, clock)
    pool.pick().failed("rate_limited", status=429, retry_after=1e9, message=message)

    assert state_of(pool).resting_until == (TODAY + 1) * DAY


@pytest.mark.parametrize("strange", [float("nan"), float("inf"), -5.0])
def test_a_wait_that_is_none_is_as_good_as_not_told(clock: Clock, strange: float) -> None:
    pool = pool_of(1, clock)
    pool.pick().failed("rate_limited", status=429, retry_after=strange, message="")

    assert exhausted(pool).retry_after == pytest.approx(1)


def test_without_a_wait_it_backs_off_longer_each_time_and_forgets_with_time(clock: Clock) -> None:
    pool = pool_of(1, clock)
    waits = []
    for _ in range(12):
        pool.pick().failed("rate_limited", status=429, retry_after=None, message="")
        wait = exhausted(pool).retry_after
        assert wait is not None
        waits.append(wait)
        clock.now += wait

    assert waits[:4] == pytest.approx([1, 2, 4, 8])
    assert max(waits) == waits[-1] == pytest.approx(LONGEST_BACK_OFF)
    clock.now += 3600
    pool.pick().failed("rate_limited", status=429, retry_after=None, message="")
    assert exhausted(pool).retry_after == pytest.approx(1)


def test_requests_that_are_refused_together_are_one_step_of_the_back_off(clock: Clock) -> None:
    pool = pool_of(1, clock)
    together = [pool.pick() for _ in range(50)]
    for lease in together:
        clock.now += 0.001
        lease.failed("rate_limited", status=429, retry_after=None, message="")

    wait = exhausted(pool).retry_after
    assert wait is not None
    assert wait <= 1


def test_a_shorter_wait_does_not_cut_a_longer_one_short(clock: Clock) -> None:
    pool = pool_of(1, clock)
    first, second = pool.pick(), pool.pick()
    first.failed("rate_limited", status=429, retry_after=60, message="")
    second.failed("rate_limited", status=429, retry_after=1, message="")

    assert exhausted(pool).retry_after == pytest.approx(60)


# Quarantine ------------------------------------------------------------------------------------------------


def test_a_refused_key_is_not_used_until_it_is_restored(clock: Clock) -> None:
    pool = pool_of(2, clock)
    changed: list[str] = []
    pool.on_change = changed.append
    pool.pick().failed("unauthorized", status=401, retry_after=None, message="Invalid API key")
    clock.now += 10 * DAY

    assert set(picks(pool, 10)) == {"k1"}
    assert changed == ["k0"]
    assert state_of(pool).state == state_of(pool).condition == "quarantined"
    assert state_of(pool).reason == "Invalid API key"
    pool.restore("k0")
    assert set(picks(pool, 10)) == {"k0", "k1"}
    assert state_of(pool).reason is None


def test_quarantined_keys_say_nothing_of_when_to_come_back(clock: Clock) -> None:
    pool = pool_of(2, clock)
    pool.quarantine("k0", "leaked")
    pool.quarantine("k1", "leaked")

    assert exhausted(pool).retry_after is None
    assert exhausted(pool).states == {"quarantined": 2}


def test_a_request_that_is_at_fault_itself_is_nothing_against_the_key(clock: Clock) -> None:
    pool = pool_of(1, clock)
    for _ in range(100):
        pool.pick().failed("rejected", status=400, retry_after=None, message="no such model")

    assert state_of(pool).condition == "usable"
    assert state_of(pool).last_error == "rejected (400): no such model"


def test_a_message_is_kept_short_and_without_what_no_table_holds(clock: Clock) -> None:
    pool = pool_of(1, clock)
    pool.pick().failed("rejected", status=400, retry_after=None, message="\x00\ud800 gsk_" + "A1b2" * 200)

    kept = state_of(pool).last_error
    assert kept is not None
    assert len(kept) <= 300
    assert "\x00" not in kept
    assert "A1b2A1b2" not in kept
    kept.encode()


# Breakers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["overloaded", "malformed", "cut"])
def test_a_failing_key_is_left_alone_then_probed_once(clock: Clock, kind: str) -> None:
    pool = pool_of(1, clock)
    for _ in range(KEY_FAILURES):
        pool.pick().failed(kind, status=503, retry_after=None, message="")

    assert exhausted(pool).states == {"failing": 1}
    assert exhausted(pool).retry_after == pytest.approx(FIRST_BREAK)
    clock.now += FIRST_BREAK
    probe = pool.pick()
    assert exhausted(pool).states == {"failing": 1}
    probe.done()
    assert sum(picks(pool, 5).values()) == 5


def test_a_probe_that_fails_opens_the_breaker_for_longer(clock: Clock) -> None:
    pool = pool_of(1, clock)
    for _ in range(KEY_FAILURES):
        pool.pick().failed("overloaded", status=500, retry_after=None, message="")
    clock.now += FIRST_BREAK
    pool.pick().failed("overloaded", status=500, retry_after=None, message="")

    assert exhausted(pool).retry_after == pytest.approx(2 * FIRST_BREAK)


@pytest.mark.parametrize("end", ["abandoned", "lost"])
def test_a_probe_without_a_result_is_made_again(clock: Clock, end: str) -> None:
    pool = pool_of(1, clock)
    for _ in range(KEY_FAILURES):
        pool.pick().failed("overloaded", status=500, retry_after=None, message="")
    clock.now += FIRST_BREAK
    probe = pool.pick()
    if end == "abandoned":
        probe.abandon()
    else:
        clock.now += PROBE_PATIENCE

    pool.pick().done()
    assert state_of(pool).condition == "usable"


def test_failures_that_are_not_in_a_row_open_nothing(clock: Clock) -> None:
    pool = pool_of(1, clock)
    for _ in range(20):
        pool.pick().failed("overloaded", status=500, retry_after=None, message="")
        pool.pick().done()


@pytest.mark.parametrize("kind", ["unreachable", "timeout"])
def test_an_address_that_is_down_is_the_providers_fault_and_no_keys(clock: Clock, kind: str) -> None:
    pool = pool_of(14, clock)
    for _ in range(PROVIDER_FAILURES):
        pool.pick().failed(kind, status=None, retry_after=None, message="")

    error = exhausted(pool)
    assert error.states == {"unreachable": 14}
    assert error.retry_after == pytest.approx(FIRST_BREAK)
    assert {state.condition for state in pool.states()} == {"usable"}
    clock.now += FIRST_BREAK
    probe = pool.pick()
    assert exhausted(pool).states == {"unreachable": 14}
    probe.heard({})
    assert len(picks(pool, 14)) == 14


def test_what_began_before_the_breaker_opened_does_not_open_it_for_longer(clock: Clock) -> None:
    pool = pool_of(3, clock)
    together = [pool.pick() for _ in range(100)]
    for lease in together:
        lease.failed("unreachable", status=None, retry_after=None, message="")

    assert exhausted(pool).retry_after == pytest.approx(FIRST_BREAK)


# What the provider says ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1m26.4s"}, 86.4),
        ({"X-RateLimit-Remaining-Requests": "0", "X-RateLimit-Reset-Requests": "20ms"}, 0.1),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "7.5"}, 7.5),
        ({"RateLimit": '"default";r=0;t=30'}, 30),
        ({"ratelimit": '"burst";r=40;t=5, "daily";r=0;t=90'}, 90),
        ({"RateLimit": "limit=100, remaining=0, reset=12"}, 12),
        ({"RateLimit-Limit": "100", "RateLimit-Remaining": "0", "RateLimit-Reset": "50"}, 50),
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int((NOON + 40) * 1000))}, 40),
        (
            {
                "anthropic-ratelimit-requests-remaining": "0",
                "anthropic-ratelimit-requests-reset": "2024-10-04T12:00:33Z",
            },
            33,
        ),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "24h0m0s"}, DAY / 2),
    ],
)
def test_a_key_of_which_nothing_is_left_rests_until_there_is(
    clock: Clock, headers: Mapping[str, str], seconds: float
) -> None:
    pool = pool_of(1, clock)
    lease = pool.pick()
    lease.heard(headers)
    lease.done()

    assert exhausted(pool).retry_after == pytest.approx(seconds)
    clock.now += seconds
    assert pool.pick().id == "k0"


@given(
    st.dictionaries(
        st.sampled_from(
            [
                "x-ratelimit-remaining-requests",
                "x-ratelimit-reset-requests",
                "x-ratelimit-limit-requests",
                "x-ratelimit-remaining-tokens",
                "x-ratelimit-reset-tokens",
                "ratelimit",
                "anthropic-ratelimit-requests-reset",
                "anthropic-ratelimit-requests-remaining",
            ]
        ),
        st.text()
        | st.sampled_from(
            ["0", "99999999999999999999", "-1", "1e400", "9" * 400, "1h" * 90, "0001-01-01T00:00:00"]
        ),
    )
)
def test_no_header_breaks_anything_or_rests_a_key_for_longer_than_a_day(headers: dict[str, str]) -> None:
    clock = Clock()
    pool = pool_of(1, clock)
    pool.pick().heard(headers)
    clock.now += LONGEST_REST

    pool.pick()


def test_as_many_requests_as_the_provider_says_are_left_are_made_and_no_more(clock: Clock) -> None:
    pool = pool_of(1, clock)
    pool.pick().heard({"x-ratelimit-remaining-requests": "3", "x-ratelimit-reset-requests": "10s"})

    for _ in range(3):
        pool.pick()
    assert exhausted(pool).retry_after == pytest.approx(10)
    clock.now += 10
    assert pool.pick().id == "k0"


def test_a_request_goes_where_the_provider_says_that_its_tokens_are_left(clock: Clock) -> None:
    pool = pool_of(2, clock)
    pool.pick().heard({"x-ratelimit-remaining-tokens": "100", "x-ratelimit-reset-tokens": "30s"})
    pool.rest("k1", NOON + 60, "rests")

    assert exhausted(pool, tokens=500).states == {"limited": 1, "resting": 1}
    assert exhausted(pool, tokens=500).retry_after == pytest.approx(30)
    assert pool.pick(tokens=80).id == "k0"
    assert exhausted(pool, tokens=80).states["limited"] == 1
    clock.now += 30
    assert pool.pick(tokens=500).id == "k0"


# Tokens of a minute ----------------------------------------------------------------------------------------


def test_a_minutes_tokens_are_not_passed_and_come_back_with_time(clock: Clock) -> None:
    pool = pool_of(1, clock, Limits(tokens_per_minute=6000))
    pool.pick(tokens=4000).done(tokens=5000)

    error = exhausted(pool, tokens=2000)
    assert error.states == {"limited": 1}
    assert error.retry_after == pytest.approx(10)
    clock.now += 10
    pool.pick(tokens=2000)


def test_processes_share_a_minutes_tokens(clock: Clock) -> None:
    pool = pool_of(1, clock, Limits(tokens_per_minute=6000))
    pool.divide(3)

    pool.pick(tokens=1900)
    exhausted(pool, tokens=200)


def test_a_request_larger_than_a_minute_goes_when_nothing_else_has(clock: Clock) -> None:
    pool = pool_of(1, clock, Limits(tokens_per_minute=1000))

    pool.pick(tokens=50_000)
    assert exhausted(pool, tokens=1).states == {"limited": 1}


def test_tokens_of_a_request_that_was_refused_are_free_again(clock: Clock) -> None:
    pool = pool_of(2, clock, Limits(tokens_per_minute=1000))
    pool.rest("k1", NOON + 60, "rests")
    pool.pick(tokens=900).failed("rejected", status=400, retry_after=None, message="")

    assert pool.pick(tokens=900).id == "k0"


# Quota -----------------------------------------------------------------------------------------------------


def test_what_is_granted_is_used_up_exactly(clock: Clock) -> None:
    pool = pool_of(3, clock, Limits(requests_per_day=7))

    assert sum(picks(pool, 21).values()) == 21
    error = exhausted(pool)
    assert error.states == {"exhausted": 3}
    assert error.retry_after == pytest.approx(DAY / 2)


def test_more_is_asked_for_before_it_is_needed(clock: Clock) -> None:
    pool = pool_of(1, clock, Limits(requests_per_day=100))
    pool.take_back("k0", TODAY, 90)
    pool.grant("k0", TODAY, 0, 90)
    asked: list[int] = []
    pool.on_need = lambda: asked.append(pool.holdings()[0].left)

    picks(pool, 10)

    assert asked[0] == 5
    assert exhausted(pool).retry_after == pytest.approx(1)


def test_at_midnight_utc_a_new_day_begins_with_the_slice_that_was_got_before(clock: Clock) -> None:
    pool = pool_of(1, clock, Limits(requests_per_day=10))
    picks(pool, 10)
    pool.grant("k0", TODAY + 1, 4, 6)
    exhausted(pool)
    clock.now = (TODAY + 1) * DAY

    picks(pool, 4)

    assert exhausted(pool).retry_after == pytest.approx(1)
    assert [(use.day, use.requests) for use in pool.take_uses()] == [(TODAY, 10), (TODAY + 1, 4)]


def test_yesterdays_slice_is_void(clock: Clock) -> None:
    pool = pool_of(1, clock, Limits(requests_per_day=10))
    clock.now = (TODAY + 1) * DAY + 1

    exhausted(pool)
    pool.grant("k0", TODAY, 5, 5)
    exhausted(pool)


def test_what_was_given_back_cannot_be_used(clock: Clock) -> None:
    pool = pool_of(1, clock, Limits(requests_per_day=10))
    picks(pool, 4)

    assert pool.take_back("k0", TODAY, 100) == 6
    exhausted(pool)


# Replacing keys --------------------------------------------------------------------------------------------


def test_a_key_that_stays_keeps_its_state_and_one_that_goes_finishes_its_requests(clock: Clock) -> None:
    pool = pool_of(2, clock)
    old = [pool.pick(), pool.pick()]
    pool.quarantine("k1", "leaked")
    pool.replace([key("k1"), key("k2")])

    assert set(picks(pool, 10)) == {"k2"}
    assert pool.in_flight(retired=True) == {"k0": 1}
    assert pool.in_flight(retired=False) == {"k1": 1}
    for lease in old:
        lease.done(tokens=5)
    assert pool.in_flight(retired=True) == pool.in_flight(retired=False) == {}
    assert {use.id: (use.requests, use.tokens) for use in pool.take_uses()} == {
        "k0": (1, 5),
        "k1": (1, 5),
        "k2": (10, 0),
    }


def test_what_becomes_of_a_key_that_is_gone_changes_no_state(clock: Clock) -> None:
    pool = pool_of(1, clock)
    lease = pool.pick()
    pool.replace([key("new")])
    lease.failed("unauthorized", status=401, retry_after=None, message="revoked")

    assert pool.changes() == []
    assert [use.errors for use in pool.take_uses()] == [1]


def test_new_keys_can_be_used_at_once_when_their_slices_were_got_before(clock: Clock) -> None:
    pool = pool_of(1, clock, Limits(requests_per_day=10))
    pool.grant("new", TODAY, 5, 5)
    pool.replace([key("new")])

    assert picks(pool, 5) == {"new": 5}


def test_a_key_that_comes_back_has_what_was_left_of_its_slice(clock: Clock) -> None:
    pool = pool_of(1, clock, Limits(requests_per_day=10))
    picks(pool, 3)
    pool.replace([])
    pool.replace([key("k0")])

    picks(pool, 7)
    exhausted(pool)


def test_a_lease_is_ended_once(clock: Clock) -> None:
    pool = pool_of(1, clock)
    lease = pool.pick()
    lease.done(tokens=3)
    lease.done(tokens=3)
    lease.failed("unauthorized", status=401, retry_after=None, message="")
    lease.abandon()

    assert pool.in_flight(retired=False) == {}
    assert [(use.tokens, use.errors) for use in pool.take_uses()] == [(3, 0)]
    assert state_of(pool).state == "active"


# What other processes know ---------------------------------------------------------------------------------


def told(**values: object) -> dict[str, KeyState]:
    state = msgspec.convert({"id": "k0", "provider": "groq"} | values, KeyState)
    return {"k0": state}


def test_what_others_found_out_is_taken_over(clock: Clock) -> None:
    pool = pool_of(1, clock)
    pool.apply(told(state="quarantined", reason="refused elsewhere"))
    assert exhausted(pool).states == {"quarantined": 1}
    pool.apply(told(resting_until=NOON + 5))
    assert exhausted(pool).retry_after == pytest.approx(5)
    pool.apply(told())
    pool.pick()
    assert pool.changes() == []


def test_what_was_found_out_here_stands_until_it_is_written(clock: Clock) -> None:
    pool = pool_of(1, clock)
    pool.quarantine("k0", "refused")
    (change,) = pool.changes()
    pool.apply(told())
    exhausted(pool)

    pool.written(change)
    pool.apply(told(as_of=NOON - 1))  # read before it was written
    exhausted(pool)
    pool.apply(told(as_of=NOON + 1))
    pool.pick()


def test_a_change_while_another_was_written_is_still_to_be_written(clock: Clock) -> None:
    pool = pool_of(1, clock)
    pool.rest("k0", NOON + 5, "busy")
    (change,) = pool.changes()
    pool.quarantine("k0", "refused")
    pool.written(change)

    assert [one.quarantined for one in pool.changes()] == [True]


def test_nothing_that_a_pool_tells_holds_a_key(clock: Clock) -> None:
    pool = pool_of(2, clock)
    lease = pool.pick()
    lease.failed("rate_limited", status=429, retry_after=5, message="slow")
    pool.quarantine("k1", "refused")

    shown = f"{lease!r} {pool.states()!r} {exhausted(pool)!r} {pool.changes()!r} {key('k0')!r} {vars(exhausted(pool))}"
    assert "secret-of" not in shown
    assert base64.b64encode(b"secret-of").decode() not in shown
    with pytest.raises(TypeError):
        msgspec.json.encode(key("k0"))


# Properties ------------------------------------------------------------------------------------------------


@given(
    st.integers(1, 40),
    st.lists(st.integers(1, 500), min_size=40, max_size=40),
    st.integers(1, 3),
)
def test_no_key_starves(count: int, left: list[int], rounds: int) -> None:
    pool = pool_of(count, Clock(), Limits(requests_per_day=500))
    for number in range(count):
        pool.take_back(f"k{number}", TODAY, 500 - left[number])
        pool.grant(f"k{number}", TODAY, 0, 0)
    for _ in range(count):
        pool.pick()
    gap = 33 * count  # the least weight is a thirty-second of the greatest
    for _ in range(rounds):
        left_now = {one.id: one.left for one in pool.holdings()}
        served = {pool.pick().id for _ in range(min(gap, sum(left_now.values())))}

        assert served == {name for name, some in left_now.items() if some}


class APool(RuleBasedStateMachine):
    """Beside a pool, what a patient clerk would note of each key."""

    @initialize(count=st.integers(1, 8), limit=st.integers(1, 30))
    def begin(self, count: int, limit: int) -> None:
        self.clock = Clock()
        self.limit = limit
        self.pool = KeyPool("groq", Limits(requests_per_day=limit), clock=self.clock)
        self.names = [f"k{number}" for number in range(count)]
        self.present = set(self.names)
        self.pool.replace([key(name) for name in self.names])
        self.left = dict.fromkeys(self.names, 0)
        self.granted = dict.fromkeys(self.names, 0)
        self.resting = dict.fromkeys(self.names, 0.0)
        self.quarantined: set[str] = set()
        self.failures: Counter[str] = Counter()
        self.leases: list[Lease] = []
        self.requests: Counter[str] = Counter()
        self.written: Counter[str] = Counter()

    def may(self, name: str) -> bool:
        return (
            name in self.present
            and name not in self.quarantined
            and self.resting[name] <= self.clock.now
            and self.left[name] > 0
        )

    @rule(data=st.data(), count=st.integers(1, 10))
    def grant(self, data: st.DataObject, count: int) -> None:
        name = data.draw(st.sampled_from(self.names))
        count = min(count, self.limit - self.granted[name])
        self.granted[name] += count
        self.left[name] += count
        self.pool.grant(name, TODAY, count, self.limit - self.granted[name])

    @rule(data=st.data())
    def take_back(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self.names))
        taken = self.pool.take_back(name, TODAY, 3)
        if name in self.present:
            assert taken == min(3, self.left[name])
        self.left[name] -= taken
        self.granted[name] -= taken

    @rule(data=st.data())
    def pick(self, data: st.DataObject) -> None:
        without = data.draw(st.sets(st.sampled_from(self.names), max_size=2))
        usable = {name for name in self.names if self.may(name)} - without
        if not usable:
            error = exhausted(self.pool, without=tuple(without))
            assert sum(error.states.values()) == len(self.present)
            return
        lease = self.pool.pick(without=without)
        assert lease.id in usable
        self.left[lease.id] -= 1
        self.requests[lease.id] += 1
        self.leases.append(lease)

    def _some_lease(self, data: st.DataObject) -> Lease:
        return self.leases.pop(data.draw(st.integers(0, len(self.leases) - 1)))

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        self._some_lease(data).done(10)

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def abandon(self, data: st.DataObject) -> None:
        self._some_lease(data).abandon()

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), seconds=st.integers(1, 50))
    def limited(self, data: st.DataObject, seconds: int) -> None:
        lease = self._some_lease(data)
        lease.failed("rate_limited", status=429, retry_after=seconds, message="")
        if lease.id in self.present and lease.id not in self.quarantined:
            self.resting[lease.id] = max(self.resting[lease.id], self.clock.now + seconds)

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def refused(self, data: st.DataObject) -> None:
        lease = self._some_lease(data)
        lease.failed("unauthorized", status=401, retry_after=None, message="")
        if lease.id in self.present:
            self.quarantined.add(lease.id)

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def rejected(self, data: st.DataObject) -> None:
        self._some_lease(data).failed("rejected", status=400, retry_after=None, message="")

    @rule(data=st.data())
    def restore(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self.names))
        self.pool.restore(name)
        if name in self.present:
            self.quarantined.discard(name)
            self.resting[name] = 0.0

    @rule(data=st.data())
    def replace(self, data: st.DataObject) -> None:
        under_way = {lease.id for lease in self.leases}
        kept = data.draw(st.sets(st.sampled_from(self.names)))
        for name in self.present - kept - under_way:  # of these nothing is known any more but their quota
            self.quarantined.discard(name)
            self.resting[name] = 0.0
        gone = set(self.names) - self.present - under_way
        for name in gone & kept:
            self.quarantined.discard(name)
            self.resting[name] = 0.0
        self.pool.replace([key(name) for name in sorted(kept)])
        self.present = kept

    @rule(seconds=st.floats(0, 30))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds
        self.clock.now = min((TODAY + 1) * DAY - 60, self.clock.now)

    @rule()
    def write(self) -> None:
        for use in self.pool.take_uses():
            self.written[use.id] += use.requests

    @invariant()
    def nothing_is_lost_or_made_up(self) -> None:
        if not hasattr(self, "pool"):
            return
        uses = self.pool.take_uses()
        counted = self.written + Counter(dict.fromkeys(self.names, 0))
        for use in uses:
            counted[use.id] += use.requests
        self.pool.give_back_uses(uses)
        assert +counted == +self.requests
        assert all(self.requests[name] + self.left[name] == self.granted[name] for name in self.names)
        assert {one.id: one.left for one in self.pool.holdings()} == {
            name: self.left[name] for name in self.present
        }
        flying = Counter(lease.id for lease in self.leases)
        told = self.pool.in_flight(retired=True) | self.pool.in_flight(retired=False)
        assert told == dict(flying)


TestAPool = APool.TestCase


# Limits ----------------------------------------------------------------------------------------------------


def test_known_limits_and_how_they_are_overridden() -> None:
    assert {
        name: limits_of(name).requests_per_day for name in ("groq", "openrouter", "deepseek", "gemini")
    } == {
        "groq": 14_400,
        "openrouter": 200,
        "deepseek": 1_000,
        "gemini": 1_500,
    }
    assert limits_of("huggingface").requests_per_day == 1_000
    assert limits_of("ocr_space").requests_per_day == 500
    assert limits_of("lab") == Limits()
    overrides = {"groq": {"tokens_per_minute": 6000}, "gemini": {"requests_per_day": 0}}
    assert limits_of("groq", overrides) == Limits(14_400, 6000)
    assert limits_of("gemini", overrides) == Limits()
    with pytest.raises(ValueError, match="requests_per_day, tokens_per_minute"):
        limits_of("groq", {"groq": {"requests_per_hour": 3}})
