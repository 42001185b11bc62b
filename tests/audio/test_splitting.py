"""A recording is cut into pieces without a gap, in its pauses."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from baatcheet.audio.splitting import LEVELS_PER_SECOND, PAUSE, Bounds, cut, is_audible

LOUD = 4_000
LEVELS = st.lists(st.integers(0, 32_767), max_size=600)


def pieces(levels: Sequence[int], bounds: Bounds) -> list[int]:
    """The lengths of all pieces."""
    lengths = []
    while levels:
        lengths.append(cut(levels, bounds))
        levels = levels[lengths[-1] :]
    return lengths


@given(LEVELS, st.integers(2, 200))
def test_the_pieces_are_the_whole_and_none_is_too_long(levels: list[int], longest: int) -> None:
    bounds = Bounds(longest)
    lengths = pieces(levels, bounds)
    assert sum(lengths) == len(levels)
    assert all(1 <= length <= longest for length in lengths)
    assert all(length >= bounds.earliest for length in lengths[:-1])


@given(LEVELS, st.integers(2, 200))
def test_where_it_is_cut_does_not_depend_on_what_comes_after(levels: list[int], longest: int) -> None:
    bounds = Bounds(longest)
    if len(levels) > longest:
        assert cut(levels, bounds) == cut([*levels[: longest + 1], 32_767, 0], bounds)


def test_it_is_cut_in_the_middle_of_the_longest_pause() -> None:
    levels = [LOUD] * 1000
    levels[600:620] = [20] * 20
    levels[700:760] = [20] * 60
    levels[850:880] = [20] * 30
    assert cut(levels, Bounds(900)) == 730


def test_of_two_pauses_that_are_alike_it_is_the_later_one() -> None:
    levels = [LOUD] * 1000
    levels[600:640] = [20] * 40
    levels[800:840] = [25] * 40
    assert cut(levels, Bounds(900)) == 820


def test_a_pause_in_noise_is_found_where_it_is_least_loud() -> None:
    levels = [LOUD + 100 * (at % 7) for at in range(1000)]
    levels[640:680] = [900 + at % 50 for at in range(40)]
    assert 640 <= cut(levels, Bounds(900)) <= 680


def test_what_has_no_pause_is_cut_all_the_same() -> None:
    assert pieces([LOUD] * 1000, Bounds(300)) == [225, 225, 225, 225, 100]


def test_what_is_short_enough_stays_whole() -> None:
    assert cut([LOUD, 0] * 150, Bounds(300)) == 300


def test_an_hour_of_levels_is_cut_in_a_moment() -> None:
    levels = [LOUD if at // 200 % 3 else 10 for at in range(3600 * LEVELS_PER_SECOND)]
    lengths = pieces(levels, Bounds(300 * LEVELS_PER_SECOND))
    assert sum(lengths) == len(levels)
    assert 12 <= len(lengths) <= 24


def test_what_is_below_a_whisper_is_not_audible() -> None:
    assert not is_audible([0] * 1000)
    assert not is_audible([20] * 1000)
    assert not is_audible([])
    assert not is_audible([0] * 500 + [LOUD] * 2 + [0] * 500)
    assert is_audible([0] * 500 + [300] * PAUSE + [0] * 500)
    assert is_audible([300, 300])
