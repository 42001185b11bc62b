"""Looking past what is done with, and missing nothing by it."""

from hypothesis import given
from hypothesis import strategies as st

from baatcheet.events.floor import SETTLED, SWEEP_EVERY, Floor


def test_what_was_passed_long_ago_is_not_looked_at_again() -> None:
    floor = Floor()
    assert floor.look_from(0) == 0
    floor.passed(10, 0, all_of_it=True)
    floor.passed(20, 5, all_of_it=True)
    assert floor.look_from(SETTLED - 1) == 0
    assert floor.look_from(SETTLED) == 0  # a sweep
    floor.passed(20, SETTLED, all_of_it=True)
    assert floor.look_from(SETTLED + 1) == 10
    assert floor.look_from(SETTLED + 6) == 20
    assert floor.look_from(SETTLED + SWEEP_EVERY) == 0


def test_a_sweep_goes_on_until_it_has_found_everything() -> None:
    floor = Floor()
    floor.passed(500, 0, all_of_it=False)
    assert floor.look_from(SETTLED + 1) == 0
    floor.passed(700, SETTLED + 1, all_of_it=True)
    assert floor.look_from(SETTLED + 2) == 500


ROWS = st.lists(
    st.tuples(
        st.floats(min_value=0, max_value=200),  # when its place is given out
        st.floats(min_value=0, max_value=0.1)
        | st.floats(min_value=0, max_value=90),  # how long it takes to commit
    ),
    max_size=60,
)


@given(rows=ROWS, pauses=st.lists(st.floats(min_value=0.05, max_value=40), min_size=1, max_size=30))
def test_every_row_is_found_soon_however_late_it_commits(
    rows: list[tuple[float, float]], pauses: list[float]
) -> None:
    waiting = {place: began + took for place, (began, took) in enumerate(sorted(rows), start=1)}
    given_out = {place: began for place, (began, _) in enumerate(sorted(rows), start=1)}
    floor, now, looks, most = Floor(), 0.0, 0, 5
    seen_since: dict[int, float] = {}
    while waiting:
        now += pauses[looks % len(pauses)]
        looks += 1
        begin = floor.look_from(now)
        found = [place for place, commits in sorted(waiting.items()) if commits <= now and place > begin][
            :most
        ]
        for place in found:
            del waiting[place]
        for place, commits in waiting.items():
            if commits <= now:
                seen_since.setdefault(place, now)
        if found:
            floor.passed(found[-1], now, all_of_it=len(found) < most)
        else:
            last = max((place for place, began in given_out.items() if began <= now), default=0)
            floor.passed(last, now, all_of_it=True)
        overdue = [
            p for p in waiting if p in seen_since and now - seen_since[p] > SWEEP_EVERY + 40 * len(rows)
        ]
        assert not overdue
        assert looks < 20_000
