"""Places for which people queue: first come, first served, and never more than there are."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baatcheet.platform.queueing import Places

FAR = 10.0


def later(seconds: float = FAR) -> float:
    return asyncio.get_running_loop().time() + seconds


async def test_who_has_waited_longest_is_next() -> None:
    places = Places(1)
    await places.take(later())
    order: list[int] = []

    async def one(number: int) -> None:
        await places.take(later())
        order.append(number)
        places.leave()

    waiting = [asyncio.create_task(one(number)) for number in range(20)]
    await asyncio.sleep(0)
    assert places.waiting == 20
    places.leave()
    await asyncio.gather(*waiting)
    assert order == list(range(20))
    assert (places.taken, places.waiting) == (0, 0)


async def test_who_comes_as_a_place_becomes_free_does_not_get_ahead() -> None:
    places = Places(1)
    await places.take(later())
    first = asyncio.create_task(places.take(later()))
    await asyncio.sleep(0)
    places.leave()
    late = asyncio.create_task(places.take(later()))  # before the first has run
    await asyncio.wait([first], timeout=1)
    assert first.done()
    assert not late.done()
    places.leave()
    await late


async def test_waiting_ends_at_its_deadline() -> None:
    places = Places(1)
    await places.take(later())
    with pytest.raises(TimeoutError):
        await places.take(later(0.05))
    assert places.waiting == 0
    places.leave()
    await places.take(later(0.05))
    assert places.taken == 1


async def test_who_is_cancelled_as_it_is_given_a_place_passes_it_on() -> None:
    places = Places(1)
    await places.take(later())
    first = asyncio.create_task(places.take(later()))
    second = asyncio.create_task(places.take(later()))
    await asyncio.sleep(0)
    places.leave()
    first.cancel()
    await asyncio.wait([first, second], timeout=1)
    assert first.cancelled()
    assert second.done()
    assert places.taken == 1


async def test_more_places_serve_those_who_wait() -> None:
    places = Places(1)
    await places.take(later())
    waiting = [asyncio.create_task(places.take(later())) for _ in range(3)]
    await asyncio.sleep(0)
    places.resize(3)
    await asyncio.wait(waiting, timeout=0.05)
    assert [one.done() for one in waiting] == [True, True, False]
    places.resize(2)  # nobody is thrown out …
    assert places.taken == 3
    places.leave()
    await asyncio.sleep(0)
    assert not waiting[2].done()  # … and nobody let in before there is room
    places.leave()
    await waiting[2]


STEPS = st.lists(
    st.one_of(
        st.just(("take", 0)),
        st.tuples(st.just("leave"), st.integers(0, 30)),
        st.tuples(st.just("cancel"), st.integers(0, 30)),
        st.tuples(st.just("resize"), st.integers(1, 5)),
        st.just(("pass", 0)),
    ),
    max_size=60,
)


@given(STEPS)
def test_whatever_happens_no_place_is_lost_or_lent_twice(  # noqa: C901 - one branch a step
    steps: list[tuple[str, int]],
) -> None:
    async def play() -> None:
        places, size = Places(2), 2
        tasks: list[asyncio.Task[None]] = []
        for step, number in steps:
            holders = [one for one in tasks if one.done()]
            if step == "take":
                tasks.append(asyncio.create_task(places.take(later())))
            elif step == "leave" and holders:
                tasks.remove(holders[number % len(holders)])
                places.leave()
            elif step == "cancel" and tasks:
                victim = tasks[number % len(tasks)]
                if victim.cancel():
                    tasks.remove(victim)
                    await asyncio.wait([victim])
                    if not victim.cancelled():
                        places.leave()
            elif step == "resize":
                size = number
                places.resize(size)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            held = sum(one.done() for one in tasks)
            assert places.taken == held
            assert places.waiting == len(tasks) - held
            assert held >= min(size, len(tasks))  # nobody waits while there is room
        for _ in range(len(tasks) + 1):
            await asyncio.sleep(0)
            for one in [one for one in tasks if one.done()]:
                tasks.remove(one)
                places.leave()
        assert not tasks
        assert places.taken == 0

    asyncio.run(play())
