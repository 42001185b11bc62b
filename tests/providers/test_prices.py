"""Prices: exact, never rounded down, and found by the most particular row."""

from decimal import Decimal
from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baatcheet.providers.model import Usage
from baatcheet.providers.prices import BUILT_IN, MICROCENTS, Price, Prices, dollars, matches, microcents

NAMES = st.text("abAB./-1", max_size=8)
COSTS = st.decimals(0, 1000, places=6)
TOKENS = st.integers(0, 2_000_000)


def price(prompt: str, completion: str = "0") -> Price:
    return Price(Decimal(prompt), Decimal(completion))


@given(COSTS, COSTS, COSTS, TOKENS, TOKENS, TOKENS)
def test_a_cost_is_the_exact_sum_rounded_up_to_a_millionth_of_a_cent(
    prompt: Decimal, completion: Decimal, cached: Decimal, asked: int, said: int, known: int
) -> None:
    usage = Usage(asked, said, asked + said, prompt_tokens_details={"cached_tokens": known})
    read = min(asked, known)
    exact = (asked - read) * Fraction(prompt) + read * Fraction(cached) + said * Fraction(completion)
    cost = Price(prompt, completion, cached).cost(usage)
    assert cost == ceil(exact * MICROCENTS / 1_000_000)


@given(st.lists(st.tuples(TOKENS, TOKENS), max_size=20), COSTS, COSTS)
def test_many_small_requests_cost_no_less_than_one_large_one(
    requests: list[tuple[int, int]], prompt: Decimal, completion: Decimal
) -> None:
    one = Price(prompt, completion)
    apart = sum(one.cost(Usage(asked, said, asked + said)) for asked, said in requests)
    whole = one.cost(Usage(sum(asked for asked, _ in requests), sum(said for _, said in requests), 0))
    assert whole <= apart <= whole + len(requests)


@given(st.integers(0, 10**15))
def test_dollars_and_back_again_lose_nothing(amount: int) -> None:
    assert microcents(dollars(amount)) == amount


@given(st.integers(0, 100_000), COSTS)
def test_recordings_cost_by_the_second(seconds: int, hour: Decimal) -> None:
    one = Price(Decimal(0), hour=hour)
    assert one.cost_of_recording(seconds) == ceil(Fraction(hour) * seconds * MICROCENTS / 3600)
    assert one.cost_of_recording(seconds - 0.5 if seconds else 0) == one.cost_of_recording(seconds)


@given(NAMES)
def test_a_name_without_a_star_means_itself_alone(name: str) -> None:
    assert matches(name, name.upper())
    assert not matches(name, name + "x")
    assert not matches(name, "x" + name)


@given(st.lists(NAMES, min_size=1, max_size=4), st.lists(NAMES, min_size=4, max_size=4))
def test_each_star_stands_for_any_text(pieces: list[str], between: list[str]) -> None:
    filled = "".join(piece + gap for piece, gap in zip(pieces, between, strict=False))
    assert matches("*".join([*pieces, ""]), filled)


@pytest.mark.parametrize(
    ("pattern", "model", "means"),
    [
        ("groq/*", "groq/openai/gpt-oss-120b", True),
        ("groq/*", "openrouter/groq/x", False),
        ("a*b", "ab", True),
        ("a*b", "aXbX", False),
        ("ab*ba", "aba", False),  # the ends do not overlap
        ("*:free", "openrouter/x:free", True),
        ("a*x*x*b", "axxb", True),
        ("a*x*x*b", "axb", False),
        ("[a]*", "a", False),  # no other character stands for anything but itself
        ("?", "a", False),
    ],
)
def test_what_patterns_mean(pattern: str, model: str, means: bool) -> None:
    assert matches(pattern, model) is means


def test_an_operators_row_comes_first_then_an_id_then_the_longest_pattern() -> None:
    prices = Prices({"openai/*": price("7")})
    assert prices.of("openai/gpt-4.1") == price("7")
    prices.replace({"openai/gpt-*": price("1"), "openai/gpt-4*": price("2"), "OpenAI/gpt-4.1": price("3")})
    assert prices.of("openai/gpt-4.1") == price("3")
    assert prices.of("openai/gpt-4.5") == price("2")
    assert prices.of("openai/gpt-9") == price("1")
    assert prices.of("openai/o3") == BUILT_IN["openai/o3"]
    prices.replace({})
    assert prices.of("openai/gpt-4.1") == BUILT_IN["openai/gpt-4.1"]
    assert prices.of("lab/unheard-of") is None


@pytest.mark.parametrize(
    ("model", "like"),
    [
        ("openai/gpt-4.1-2025-04-14", "openai/gpt-4.1"),
        ("openai/gpt-4.1-mini-2025-04-14", "openai/gpt-4.1-mini*"),
        ("openai/gpt-4o-mini-2024-07-18", "openai/gpt-4o-mini"),
        ("openai/gpt-5-mini", "openai/gpt-5-mini*"),
        ("anthropic/claude-opus-4-5-20251101", "anthropic/claude-opus-4-5*"),
        ("anthropic/claude-opus-4-1-20250805", "anthropic/claude-opus-4*"),
        ("ollama/llama3:8b", "ollama/*"),
    ],
)
def test_a_dated_name_costs_what_its_model_does(model: str, like: str) -> None:
    assert Prices().of(model) == BUILT_IN[like]
    assert Prices().of("openai/gpt-4o-audio-preview") is None
