"""The order in which a route's models are asked, whatever they are."""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baatcheet.providers.model import ModelCard, Provider, Target
from baatcheet.providers.routing.choosing import Group, Means, arranged, drawn, sight_first
from baatcheet.providers.routing.latency import FAILED, HALF_LIFE, MOST, Latencies
from baatcheet.providers.routing.model import STRATEGIES, Route, Step, Strategy

PROVIDER = cast("Provider", None)  # nobody is asked


def target(name: str, *, vision: bool = False) -> Target:
    return Target(PROVIDER, ModelCard(provider="lab", name=name, context_window=1_000, vision=vision))


def names(targets: list[Target]) -> list[str]:
    return [one.model.name for one in targets]


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def means(
    draw: Callable[[], float] = lambda: 0.5,
    latencies: Latencies | None = None,
    prices: dict[str, Any] | None = None,
) -> Means:
    known = prices or {}
    return Means(
        draw,
        latencies or Latencies(Clock()),
        lambda card: Decimal(known[card.name]) if card.name in known else None,
    )


def choose(strategy: Strategy, groups: list[Group], by: Means) -> list[Target]:
    route = Route("way", tuple(Step(str(at)) for at in range(len(groups))), strategy=strategy)
    return arranged(route, groups, by)


def one_each(*models: str, weights: tuple[int, ...] = ()) -> list[Group]:
    return [
        Group([target(name)], weight)
        for name, weight in zip(models, weights or (1,) * len(models), strict=True)
    ]


@given(
    strategy=st.sampled_from(STRATEGIES),
    groups=st.lists(
        st.tuples(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=3), st.integers(0, 5)),
        max_size=6,
    ),
    seed=st.integers(),
    measured=st.dictionaries(st.sampled_from("abcdefgh"), st.floats(0.01, 10)),
    priced=st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 100)),
)
def test_whatever_the_strategy_everybody_is_asked_once_and_it_is_said_why(
    strategy: Strategy,
    groups: list[tuple[list[str], int]],
    seed: int,
    measured: dict[str, float],
    priced: dict[str, int],
) -> None:
    latencies = Latencies(Clock())
    for name, seconds in measured.items():
        latencies.first_token("lab", name, seconds)
    found = choose(
        strategy,
        [Group([target(name) for name in some], weight) for some, weight in groups],
        means(random.Random(seed).random, latencies, priced),
    )
    assert sorted(names(found)) == sorted({name for some, _ in groups for name in some})
    assert all(one.reason.startswith("route way: ") for one in found)


def test_an_ordered_route_is_asked_in_its_order() -> None:
    found = choose("ordered", [Group([target("b"), target("a")]), Group([target("c"), target("b")])], means())
    assert names(found) == ["b", "a", "c"]
    assert found[0].reason == "route way: 1 of 4 in its order"


def test_a_weighted_route_comes_to_what_its_weights_say() -> None:
    draw = random.Random(7).random
    firsts = Counter(
        choose("weighted", one_each("a", "b", "c", weights=(6, 3, 1)), means(draw))[0].model.name
        for _ in range(10_000)
    )
    assert firsts["a"] == pytest.approx(6_000, abs=200)
    assert firsts["b"] == pytest.approx(3_000, abs=200)
    assert firsts["c"] == pytest.approx(1_000, abs=120)


@given(weights=st.lists(st.integers(0, 1_000), min_size=1, max_size=12), seed=st.integers())
def test_a_weight_of_nothing_comes_last(weights: list[int], seed: int) -> None:
    order = drawn(weights, random.Random(seed).random)
    assert sorted(order) == list(range(len(weights)))
    tail = [at for at, weight in enumerate(weights) if weight == 0]
    assert order[len(weights) - len(tail) :] == tail


def test_the_fastest_is_asked_first_and_what_nobody_knows_last() -> None:
    latencies = Latencies(Clock())
    latencies.first_token("lab", "slow", 2.0)
    latencies.first_token("lab", "quick", 0.25)
    found = choose("fastest", one_each("new", "slow", "quick"), means(lambda: 0.9, latencies))
    assert names(found) == ["quick", "slow", "new"]
    assert found[0].reason == "route way: fastest; 0.25 s to the first token"
    assert found[2].reason == "route way: fastest; not measured yet"


def test_while_nothing_is_measured_the_order_of_the_route_holds() -> None:
    assert names(choose("fastest", one_each("b", "a"), means(lambda: 0.0))) == ["b", "a"]


def test_now_and_then_what_was_not_measured_of_late_is_looked_at() -> None:
    clock = Clock()
    latencies = Latencies(clock)
    latencies.first_token("lab", "old", 3.0)
    clock.now += 100
    latencies.first_token("lab", "quick", 0.25)
    groups = one_each("old", "quick")
    assert names(choose("fastest", groups, means(lambda: 0.06, latencies))) == ["quick", "old"]
    looked = choose("fastest", groups, means(lambda: 0.04, latencies))
    assert names(looked) == ["old", "quick"]
    assert looked[0].reason.endswith("its turn to be looked at")
    # One that was never measured comes before one that was long ago.
    assert (
        names(choose("fastest", one_each("old", "quick", "new"), means(lambda: 0.0, latencies)))[0] == "new"
    )


def test_the_cheapest_is_asked_first_and_what_has_no_price_last() -> None:
    groups = one_each("unknown", "dear", "cheap", "free")
    found = choose("cheapest", groups, means(prices={"dear": "10.5", "cheap": "0.07", "free": "0"}))
    assert names(found) == ["free", "cheap", "dear", "unknown"]
    assert found[1].reason == "route way: cheapest; 0.07 USD per million tokens"


def test_those_that_see_come_before_the_others_in_their_order() -> None:
    found = sight_first([target("a"), target("b", vision=True), target("c"), target("d", vision=True)])
    assert names(found) == ["b", "d", "a", "c"]
    assert found[0].reason.endswith("; sees pictures")


# Latencies --------------------------------------------------------------------------------------------------


def seconds(latencies: Latencies, name: str = "a") -> float:
    known = latencies.of("lab", name)
    assert known is not None
    return known.seconds


@given(st.lists(st.tuples(st.floats(0.001, 60), st.floats(0, 600)), min_size=1, max_size=30))
def test_a_latency_is_between_the_least_and_the_most_that_was_seen(seen: list[tuple[float, float]]) -> None:
    clock = Clock()
    latencies = Latencies(clock)
    for took, pause in seen:
        latencies.first_token("lab", "a", took)
        clock.now += pause
    took_all = [took for took, _ in seen]
    assert min(took_all) - 1e-9 <= seconds(latencies) <= max(took_all) + 1e-9


def test_what_was_long_ago_weighs_little() -> None:
    clock = Clock()
    latencies = Latencies(clock)
    latencies.first_token("lab", "a", 10.0)
    latencies.first_token("lab", "a", 1.0)
    assert seconds(latencies) == pytest.approx(0.8 * 10 + 0.2 * 1)
    clock.now += 10 * HALF_LIFE
    latencies.first_token("lab", "a", 1.0)
    assert seconds(latencies) == pytest.approx(1.0, abs=0.01)


def test_a_failure_counts_for_a_long_wait() -> None:
    latencies = Latencies(Clock())
    latencies.first_token("lab", "a", 0.1)
    latencies.failed("lab", "a")
    assert seconds(latencies) == pytest.approx(0.8 * 0.1 + 0.2 * FAILED)


def test_of_many_models_those_are_forgotten_that_were_longest_unseen() -> None:
    latencies = Latencies(Clock())
    for at in range(MOST):
        latencies.first_token("lab", str(at), 1.0)
    latencies.first_token("lab", "0", 1.0)
    latencies.first_token("lab", "one more", 1.0)
    assert latencies.of("lab", "0") is not None
    assert latencies.of("lab", "1") is None


def test_a_target_is_not_changed_by_being_chosen() -> None:
    kept = target("a")
    choose("ordered", [Group([kept])], means())
    assert kept == replace(kept, reason="")
