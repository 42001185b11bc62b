"""Percentiles of what turns took, from counts that add up."""

import hypothesis.strategies as st
from hypothesis import given

from baatcheet.analytics.latency import BOUNDS, TOOK, percentile

TIMES = st.lists(st.integers(0, 400_000) | st.sampled_from(BOUNDS), min_size=1, max_size=60)


def counted(times: list[int]) -> dict[str, int]:
    counts = dict.fromkeys(TOOK, 0) | {"completed": len(times), "slowest_ms": max(times)}
    for one in times:
        bound = next((bound for bound in BOUNDS if one <= bound), None)
        if bound is not None:
            counts[f"took_{bound}"] += 1
    return counts


@given(times=TIMES, share=st.sampled_from([0.5, 0.95]))
def test_a_percentile_is_between_the_bounds_that_the_true_one_is_between(
    times: list[int], share: float
) -> None:
    true = next(one for at, one in enumerate(sorted(times), 1) if at >= share * len(times))
    found = percentile(counted(times), share)
    assert found is not None
    above = max((bound for bound in BOUNDS if bound < true), default=0)
    upto = next((bound for bound in BOUNDS if bound >= true), max(times))
    assert above <= found <= min(upto, max(times))


@given(times=TIMES)
def test_more_turns_are_never_quicker(times: list[int]) -> None:
    counts = counted(times)
    half, most = percentile(counts, 0.5), percentile(counts, 0.95)
    assert half is not None
    assert most is not None
    assert half <= most <= max(times)


def test_without_a_completed_turn_there_is_none() -> None:
    assert percentile(dict.fromkeys((*TOOK, "completed", "slowest_ms"), 0), 0.5) is None
