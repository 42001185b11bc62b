"""Cursors: opaque, and of one list only."""

from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baatcheet.kit.ids import new_id
from baatcheet.kit.pagination import BadCursor, decode, encode, microseconds, moment_of, slice_of


class Place(NamedTuple):
    micros: int
    id: UUID


PLACE = Place(1_800_000_000_000_000, UUID(int=7))


@given(st.integers(-(2**62), 2**62), st.uuids())
def test_a_position_comes_back_as_it_went(micros: int, one: UUID) -> None:
    assert decode("things", encode("things", Place(micros, one)), Place) == Place(micros, one)


@given(st.data())
def test_a_cursor_with_any_character_changed_is_refused(data: st.DataObject) -> None:
    cursor = encode("things", PLACE)
    at = data.draw(st.integers(0, len(cursor) - 1))
    other = data.draw(st.characters().filter(lambda character: character != cursor[at]))
    with pytest.raises(BadCursor):
        decode("things", cursor[:at] + other + cursor[at + 1 :], Place)


def test_a_cursor_cut_short_or_lengthened_is_refused() -> None:
    cursor = encode("things", PLACE)
    for bad in [cursor[:n] for n in range(len(cursor))] + [
        cursor + "A",
        cursor + "=",
        cursor + "\n",
        " " + cursor,
    ]:
        with pytest.raises(BadCursor):
            decode("things", bad, Place)


@given(st.text())
def test_any_text_is_a_cursor_or_a_clear_refusal(text: str) -> None:
    with pytest.raises(BadCursor):
        decode("things", text, Place)


def test_a_cursor_of_another_list_or_of_another_shape_is_refused() -> None:
    with pytest.raises(BadCursor):
        decode("others", encode("things", PLACE), Place)
    with pytest.raises(BadCursor):
        decode("things", encode("things", "elsewhere"), Place)


@given(st.datetimes(timezones=st.just(UTC)))
def test_a_moment_keeps_its_microseconds(moment: datetime) -> None:
    assert moment_of(microseconds(moment)) == moment


def test_a_moment_beyond_the_calendar_is_refused() -> None:
    for micros in (2**62, -(2**62), 10**30):
        with pytest.raises(BadCursor):
            moment_of(micros)


def test_a_slice_says_whether_more_follows() -> None:
    ids = [new_id() for _ in range(3)]
    whole = slice_of("things", ids, 3, lambda one: one)
    assert (whole.rows, whole.next_cursor) == (ids, None)
    part = slice_of("things", ids, 2, lambda one: one)
    assert part.rows == ids[:2]
    assert part.next_cursor is not None
    assert decode("things", part.next_cursor, UUID) == ids[1]


def test_microseconds_are_exact_far_from_1970() -> None:
    far = datetime(9000, 1, 1, tzinfo=UTC) + timedelta(microseconds=1)
    assert microseconds(far) % 10 == 1
