"""The parts of the console that need neither a server nor a browser."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baatcheet.console.forms import ForeignForm, require_own_page, require_word
from baatcheet.console.pages import duration, moment, query, rate, said
from baatcheet.console.sessions import csrf_of
from baatcheet.console.sharing import MOST_KEPT, Shared


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "–"),  # noqa: RUF001 - a dash
        (0, "0 ms"),
        (-0.5, "0 ms"),
        (0.0123, "12 ms"),
        (0.5, "0.5 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (125, "2 min 5 s"),
        (3600, "1 h"),
        (7320, "2 h 2 min"),
        (90_000, "1 d 1 h"),
    ],
)
def test_a_duration_is_told_in_the_units_that_matter(seconds: float | None, words: str) -> None:
    assert duration(seconds) == words


@given(st.floats(0, 1e8))
def test_every_duration_is_short(seconds: float) -> None:
    assert 0 < len(duration(seconds)) <= 12


def test_a_moment_is_told_in_utc_for_people_and_for_machines() -> None:
    there = datetime(2026, 3, 4, 2, 5, 6, tzinfo=timezone(timedelta(hours=5)))
    text = moment(there, age=True)
    assert 'datetime="2026-03-03T21:05:06Z"' in text
    assert ">3 Mar 21:05:06 UTC<" in text
    assert "data-age" in text
    assert "data-age" not in moment(datetime(2026, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize(("per_minute", "words"), [(0, "0"), (0.2, "0.2"), (9.96, "10"), (1234.5, "1,234")])
def test_a_rate_is_told_as_exactly_as_it_matters(per_minute: float, words: str) -> None:
    assert rate(per_minute) == words


def test_an_address_carries_what_was_given_and_nothing_else() -> None:
    assert query(a="1 &", b=None, c="") == "?a=1+%26"
    assert query(a=None) == ""


@given(st.text(max_size=30), st.text(max_size=10))
def test_an_address_can_put_no_words_into_our_mouth(word: str, number: str) -> None:
    words = said(word, number)
    assert words is None or word.isascii()


def test_how_many_were_tried_again_is_told() -> None:
    assert said("redriven", "1") == "1 job is queued again."
    assert said("redriven", "1200") == "1,200 jobs are queued again."
    assert said("redriven", "<b>") is None
    assert said("discarded", "2") == "2 jobs are forgotten."


@pytest.mark.parametrize(
    ("headers", "ours"),
    [
        ({"sec-fetch-site": "same-origin"}, True),
        ({"sec-fetch-site": "same-origin", "origin": "null"}, True),
        ({"sec-fetch-site": "cross-site", "origin": "http://here", "host": "here"}, False),
        ({"origin": "http://here:8080", "host": "here:8080"}, True),
        ({"origin": "https://Here", "host": "here"}, True),
        ({"origin": "http://here:81", "host": "here:80"}, False),
        ({"origin": "null", "host": "here"}, False),
        ({"host": "here"}, False),
        ({}, False),
        ({"origin": "http://", "host": ""}, False),
    ],
)
def test_a_form_is_taken_from_a_page_of_this_host_only(headers: dict[str, str], ours: bool) -> None:
    if ours:
        require_own_page(headers)
    else:
        with pytest.raises(ForeignForm):
            require_own_page(headers)


@given(st.text(min_size=1), st.text(min_size=1))
def test_the_word_of_one_session_is_not_that_of_another(one: str, other: str) -> None:
    if one.encode(errors="replace") == other.encode(errors="replace"):
        return
    one, other = (name.encode(errors="replace").decode() for name in (one, other))
    require_word({"csrf": csrf_of(one)}, csrf_of(one))
    with pytest.raises(ForeignForm):
        require_word({"csrf": csrf_of(other)}, csrf_of(one))


async def test_what_many_ask_for_at_once_is_made_once() -> None:
    made = 0
    go = asyncio.Event()

    async def make() -> int:
        nonlocal made
        made += 1
        await go.wait()
        return made

    shared: Shared[str, int] = Shared(60, patience=0)
    asking = [asyncio.create_task(shared.get("a", make)) for _ in range(20)]
    await asyncio.sleep(0)
    asking[0].cancel()  # one who leaves fails nobody else
    await asyncio.sleep(0)
    go.set()
    assert await asyncio.gather(*asking[1:]) == [1] * 19
    assert await shared.get("a", make) == 1
    assert await shared.get("b", make) == 2
    shared.forget()
    assert await shared.get("a", make) == 3


async def test_what_was_changed_meanwhile_is_not_kept() -> None:
    go = asyncio.Event()
    answers = iter(["old", "new"])

    async def make() -> str:
        answer = next(answers)
        await go.wait()
        return answer

    shared: Shared[None, str] = Shared(60, patience=0)
    before = asyncio.create_task(shared.get(None, make))
    await asyncio.sleep(0)
    shared.forget()
    go.set()
    assert await shared.get(None, make) == "new"
    assert await before == "old"
    assert await shared.get(None, make) == "new"


async def test_what_takes_long_to_make_is_believed_for_longer() -> None:
    made = 0

    async def make() -> int:
        nonlocal made
        made += 1
        await asyncio.sleep(0.05)
        return made

    quick: Shared[None, int] = Shared(0, patience=0)
    patient: Shared[None, int] = Shared(0, patience=1000)
    assert [await quick.get(None, make), await quick.get(None, make)] == [1, 2]
    assert [await patient.get(None, make), await patient.get(None, make)] == [3, 3]


async def test_what_failed_is_tried_again() -> None:
    answers: Iterator[RuntimeError | str] = iter([RuntimeError("away"), "here"])

    async def make() -> str:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    shared: Shared[None, str] = Shared(60, patience=0)
    with pytest.raises(RuntimeError, match="away"):
        await shared.get(None, make)
    assert await shared.get(None, make) == "here"


async def test_what_is_kept_is_bounded() -> None:
    async def make() -> int:
        return 1

    shared: Shared[int, int] = Shared(60, patience=0)
    for key in range(MOST_KEPT * 2):
        await shared.get(key, make)
    assert len(shared._kept) <= MOST_KEPT
