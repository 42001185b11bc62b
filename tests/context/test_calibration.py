"""Estimates learn from what providers report, stay in bounds, and are shared by all processes."""

import asyncio
import itertools
import math
import random
import statistics
from collections.abc import AsyncIterator, Mapping
from typing import Any
from unittest.mock import Mock

import msgspec
import pytest
import pytest_asyncio
from benchmarks.texts import sentences
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from baatcheet.context import counting, other_vocabularies
from baatcheet.context.calibration import (
    HIDDEN,
    KINDS,
    LEAST,
    MOST,
    PROMPT_TOKENS,
    SEVERAL,
    Calibration,
    Sums,
    divided,
    features,
)
from baatcheet.context.calibration_keeper import CalibrationKeeper, _read
from baatcheet.context.tokenizers import Tokenizers
from baatcheet.kit.ids import new_id
from baatcheet.platform.database import Database, DatabaseUnavailable
from baatcheet.platform.settings import DatabaseSettings
from baatcheet.providers.model import Encoding, ModelCard
from tests.running import ROOT

SCRIPTS = ("english", "urdu", "hindi", "code")
UNCHANGING = sorted((ROOT / "src/baatcheet/migrations/versions").glob("00*.py"))[:15]  # migrations
UNKNOWN: list[Encoding] = ["cl100k_base", "llama3", "gemma3", "qwen3"]
MODEL = ModelCard("somewhere", "unheard-of", 8_192)


def written(kind: str, characters: int, chance: random.Random) -> str:
    """As the benchmark's texts, but for code: of files that never change, so that no commit draws other texts."""
    if kind != "code":
        return sentences(kind, characters, chance)
    lines = "".join(path.read_text(encoding="utf-8") for path in UNCHANGING).splitlines(keepends=True)
    at = chance.randrange(len(lines) - 60)
    return "".join(lines[at : at + 60])[:characters]


def conversation(script: str, chance: random.Random) -> list[dict[str, Any]]:
    def kind() -> str:
        return chance.choice(SCRIPTS) if script == "mixed" else script

    return [
        {"role": "user", "content": written(kind(), chance.randint(60, 1_500), chance)}
        for _ in range(chance.randint(1, 8))
    ]


def reported(messages: list[dict[str, Any]], vocabulary: Encoding) -> int:
    return 20 + sum(5 + counting.count(message["content"], vocabulary) for message in messages)


def error(tokenizers: Tokenizers, messages: list[dict[str, Any]], vocabulary: Encoding) -> float:
    tokenizer = tokenizers.of(MODEL)
    estimate = tokenizer.priming + sum(tokenizer.message(one["content"], None) for one in messages)
    return abs(estimate / reported(messages, vocabulary) - 1)


def taught(script: str, vocabulary: Encoding, chance: random.Random, replies: int = 20) -> Tokenizers:
    tokenizers = Tokenizers(clock=itertools.count(0.0, 2.0).__next__)  # its replies come seconds apart
    for _ in range(replies):
        messages = conversation(script, chance)
        tokenizers.learn(MODEL, messages, [], reported(messages, vocabulary))
    return tokenizers


@pytest.mark.parametrize("vocabulary", UNKNOWN)
@pytest.mark.parametrize("script", [*SCRIPTS, "mixed"])
def test_after_twenty_replies_an_estimate_is_within_five_per_cent(script: str, vocabulary: Encoding) -> None:
    if vocabulary != "cl100k_base" and not other_vocabularies.INSTALLED:
        pytest.skip("the extra `tokenizers` is missing")
    chance = random.Random(f"{script} {vocabulary}")
    several = [taught(script, vocabulary, chance) for _ in range(4)]
    for asked in [*SCRIPTS, "mixed"] if script == "mixed" else [script]:
        errors = [error(one, conversation(asked, chance), vocabulary) for one in several for _ in range(15)]
        assert statistics.mean(errors) < 0.05, asked


def test_before_it_has_learned_an_estimate_of_urdu_is_far_off() -> None:
    chance = random.Random(4)
    assert error(Tokenizers(), conversation("urdu", chance), "cl100k_base") > 0.4


def test_what_was_learned_is_forgotten_when_a_model_changes() -> None:
    chance = random.Random(6)
    tokenizers = taught("urdu", "cl100k_base", chance, 60)
    for _ in range(200):
        messages = conversation("urdu", chance)
        tokenizers.learn(MODEL, messages, [], reported(messages, "o200k_base"))
    errors = [error(tokenizers, conversation("urdu", chance), "o200k_base") for _ in range(20)]
    assert statistics.mean(errors) < 0.35


FEATURES = st.lists(st.floats(0, 1e6), min_size=len(KINDS), max_size=len(KINDS))


@settings(deadline=None)
@given(replies=st.lists(st.tuples(FEATURES, st.integers(-5, 2**31)), max_size=60), asked=FEATURES)
@example(replies=[([0.0] * (len(KINDS) - 1) + [5e-324], 0)], asked=[0.0] * len(KINDS))
def test_whatever_is_reported_an_estimate_stays_in_bounds(
    replies: list[tuple[list[float], int]], asked: list[float]
) -> None:
    calibration = Calibration()
    for seen, tokens in replies:
        calibration.learn(seen, tokens)
    *weights, prompt = calibration.weights
    assert all(LEAST <= weight <= MOST for weight in weights)
    assert 0 <= prompt * PROMPT_TOKENS <= HIDDEN + 1e-6
    estimate = calibration.estimate(asked)
    least, most = LEAST * sum(asked[:-1]), MOST * sum(asked[:-1]) + prompt * asked[-1]
    assert least - 1 <= estimate <= most + 1
    assert 0.03 <= calibration.margin <= 0.50
    more = calibration.estimate([size * 2 for size in asked])
    assert more >= estimate


@settings(deadline=None)
@given(text=st.text(max_size=300), tokens=st.integers(0, 10_000))
def test_every_token_of_a_text_is_of_some_kind(text: str, tokens: int) -> None:
    kinds = divided(text, tokens)
    assert len(kinds) == len(KINDS)
    assert all(size >= 0 and math.isfinite(size) for size in kinds)
    assert sum(kinds) == pytest.approx(tokens)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("plain words", "latin"),
        ("déjà vu, naïveté", "latin"),
        ("یہ اردو ہے", "arabic"),
        ("यह हिन्दी है", "devanagari"),
        ("漢字かな한글", "cjk"),
        ("Это русский язык", "other"),
        ("😀🎉👍🏽", "other"),
        ("{}[]();\n\n  1234", "marks"),
        ("   ", "marks"),
    ],
)
def test_a_text_is_of_the_kind_that_most_of_it_is(text: str, kind: str) -> None:
    kinds = dict(zip(KINDS, divided(text, 100), strict=True))
    assert max(kinds, key=lambda name: kinds[name]) == kind


@pytest.mark.parametrize("reported_tokens", [0, -3, 1, 900_000])
def test_an_absurd_report_teaches_nothing(reported_tokens: int) -> None:
    calibration = Calibration()
    assert not calibration.learn(features([("hello", 100)], 4, 6), reported_tokens)
    assert calibration.replies == 0
    assert calibration.weights == pytest.approx([1.0] * len(KINDS))


ENGLISH = "The river was high and the boats stayed in the harbour all day long. "


def prompt_of(sentences_in_it: int) -> list[float]:
    text = ENGLISH * sentences_in_it
    return features([(text, counting.count(text))], 4, PROMPT_TOKENS)


@pytest.mark.parametrize("hidden", [300, 1_000, 3_000])
def test_a_system_prompt_that_a_provider_hides_is_learned(hidden: int) -> None:
    chance, calibration = random.Random(3), Calibration()
    for _ in range(40):
        seen = prompt_of(chance.choice([3, 10, 20, 40, 100, 300]))
        assert calibration.learn(seen, round(sum(seen)) + hidden)
    for size in (5, 20, 100, 400):
        seen = prompt_of(size)
        assert calibration.estimate(seen) == pytest.approx(sum(seen) + hidden, rel=0.06)
    assert calibration.margin <= 0.06


def test_the_margin_is_as_wide_as_estimates_are_wrong() -> None:
    chance, calibration = random.Random(3), Calibration()
    for _ in range(60):  # what a provider has cached is sometimes left out
        seen = prompt_of(chance.randint(50, 150))
        calibration.learn(seen, round(sum(seen) * chance.choice([1.0, 0.21, 0.25])))
    assert calibration.margin > 0.25
    for _ in range(80):
        seen = prompt_of(chance.randint(50, 150))
        calibration.learn(seen, round(sum(seen) * calibration.estimate(seen) / sum(seen)))
    assert calibration.margin == pytest.approx(0.03, abs=0.01)


def test_an_odd_report_is_ignored_and_several_in_a_row_are_believed() -> None:
    calibration, seen = Calibration(), prompt_of(100)
    for _ in range(20):
        calibration.learn(seen, round(sum(seen)))
    for _ in range(SEVERAL):
        assert not calibration.learn(seen, 3 * round(sum(seen)))
        assert calibration.margin > 0.03
        assert calibration.learn(seen, round(sum(seen)))
    assert calibration.estimate(seen) == pytest.approx(sum(seen), rel=0.01)
    taught = [calibration.learn(seen, 3 * round(sum(seen))) for _ in range(SEVERAL + 3)]
    assert taught == [False] * (SEVERAL - 1) + [True] * 4
    assert calibration.margin == 0.50


def test_a_weight_that_is_held_in_bounds_leaves_the_others_right() -> None:
    chance, calibration = random.Random(5), Calibration()
    for _ in range(60):
        seen = [float(chance.randint(100, 1_000)), float(chance.randint(100, 1_000)), 0, 0, 0, 0, 4, 6]
        calibration.learn(seen, round(seen[0] * 0.1 + seen[1] * 1.5 + 10))
    assert calibration.weights[0] == LEAST
    # The best that is left once the first is held: less than what it would be with it free.
    asked = [500.0, 500.0, 0, 0, 0, 0, 4, 6]
    assert calibration.estimate(asked) == pytest.approx(0.1 * 500 + 1.5 * 500 + 10, rel=0.06)


BAD: dict[str, dict[str, Any]] = {
    "true": {"replies": True},
    "huge": {"replies": 10**400},
    "negative": {"reports": -1},
    "not a number": {"errors": math.nan},
    "infinite": {"errors": -math.inf},
    "singular": {"a": [-0.2] + [0.0] * (len(KINDS) ** 2 - 1)},
    "indefinite": {"a": [-5.0] * len(KINDS) ** 2},
    "1e308": {"a": [1e308] * len(KINDS) ** 2},
    "huge sums": {"b": [10**400] * len(KINDS)},
    "texts": {"b": ["1"] * len(KINDS)},
    "truths": {"b": [True] * len(KINDS)},
    "kinds": {"kinds": {"a": 1}},
    "null": {"a": None},
}


@pytest.mark.parametrize("wrong", BAD.values(), ids=BAD)
def test_a_state_that_is_not_sound_is_not_taken(wrong: dict[str, Any]) -> None:
    found = Sums.read(Sums(3, 3).document() | wrong)
    assert (found.replies, found.reports) == (0, 0)
    assert Calibration(found).weights == pytest.approx([1.0] * len(KINDS))


@settings(max_examples=30, deadline=None)
@given(order=st.permutations(range(12)), split=st.integers(0, 12))
def test_what_two_processes_learn_adds_up(order: list[int], split: int) -> None:
    seen = [features([("x", 50 + 10 * n)], 4, 6) for n in range(12)]
    one, other, alone = Calibration(), Calibration(), Calibration()
    for place, number in enumerate(order):
        (one if place < split else other).learn(seen[number], 150 + 20 * number)
        alone.learn(seen[number], 150 + 20 * number)
    shared = Sums()
    for calibration in (one, other):
        if delta := calibration.take_delta():
            shared.add(delta)
    together = Calibration(Sums.read(msgspec.json.decode(msgspec.json.encode(shared.document()))))
    assert together.replies == 12
    assert together.weights == pytest.approx(alone.weights, rel=0.05)  # each trusts by what it knew itself


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"kinds": ["other"]},
        {"kinds": list(KINDS), "replies": 3, "a": [1], "b": []},
        {"kinds": list(KINDS), "replies": "3"},
    ],
)
def test_a_state_of_another_time_is_not_taken(document: Mapping[str, Any]) -> None:
    assert Sums.read(document).replies == 0


# Kept in the database ---------------------------------------------------------------------------------------


@pytest_asyncio.fixture
async def database(services: Mapping[str, str]) -> AsyncIterator[Database]:
    db = Database(DatabaseSettings(url=SecretStr(services["DATABASE_URL"])), pool_size=3)
    yield db
    await db.close()


def card() -> ModelCard:
    return ModelCard("somewhere", f"unheard-of-{new_id().hex}", 8_192)


def teach(tokenizers: Tokenizers, model: ModelCard, factor: int = 2) -> None:
    for number in range(5):
        text = "some words and more of them " * (number + 2)
        tokenizers.learn(model, [{"role": "user", "content": text}], [], factor * counting.count(text) + 10)


async def test_what_processes_learn_at_the_same_time_is_all_kept(database: Database) -> None:
    model = card()
    pairs = [
        (tokenizers, CalibrationKeeper(tokenizers, database)) for tokenizers in (Tokenizers(), Tokenizers())
    ]
    for tokenizers, _ in pairs:
        teach(tokenizers, model)
    await asyncio.gather(*(keeper.flush() for _, keeper in pairs))
    await asyncio.gather(*(keeper.refresh() for _, keeper in pairs))
    for tokenizers, _ in pairs:
        assert tokenizers.calibrations[model.id].replies == 10
    late = Tokenizers()
    keeper = CalibrationKeeper(late, database)
    await keeper.start()
    await keeper.close()
    assert late.of(model).name == "o200k_base, calibrated by 10 replies"
    assert late.of(model).count("word " * 100) == pairs[0][0].of(model).count("word " * 100)


async def test_nothing_is_lost_or_counted_twice_while_the_database_is_away(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizers = card(), Tokenizers()
    keeper = CalibrationKeeper(tokenizers, database)

    def away(**_: Any) -> Any:
        raise DatabaseUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(database, "hot", away)
        await keeper.start()
        for _ in range(2):
            teach(tokenizers, model)
            with pytest.raises(DatabaseUnavailable):
                await keeper.flush()
        assert tokenizers.calibrations[model.id].replies == 10
    await keeper.close()
    assert tokenizers.calibrations[model.id].replies == 10
    again = Tokenizers()
    await CalibrationKeeper(again, database).refresh()
    assert again.calibrations[model.id].replies == 10


async def test_a_model_that_the_database_refuses_keeps_no_other_from_being_kept(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizers = card(), Tokenizers()
    keeper = CalibrationKeeper(tokenizers, database)
    await keeper.start()
    for name in (
        "a" * 100 + "\x00",
        "".join(chr(0x4E00 + at * 7 % 20_000) for at in range(9_000)),
        "z\ud800",
    ):
        taught = Calibration()
        taught.learn(features([("hello", 100)], 4, 6), 150)
        tokenizers.calibrations[name] = taught
    teach(tokenizers, model)
    with monkeypatch.context() as patch:
        log = Mock()
        patch.setattr("baatcheet.context.calibration_keeper.log", log)
        await keeper.close()
    dropped = log.warning.call_args_list
    assert [one.args for one in dropped] == [("calibrations.dropped",)] * 3
    assert max(len(one.kwargs["model"]) for one in dropped) == 200
    again = Tokenizers()
    await CalibrationKeeper(again, database).refresh()
    assert again.calibrations[model.id].replies == 5


async def test_no_error_ends_the_keeping(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("baatcheet.context.calibration_keeper.FLUSH_EVERY", 0.001)
    keeper, failed = CalibrationKeeper(Tokenizers(), database), asyncio.Event()
    tries = 0

    async def fail() -> None:
        nonlocal tries
        tries += 1
        if tries > 2:
            failed.set()
        raise ZeroDivisionError

    monkeypatch.setattr(keeper, "flush", fail)
    await keeper.start()
    await asyncio.wait_for(failed.wait(), 10)
    await keeper.close()


@pytest.mark.parametrize("state", ["1e400", '{"replies": ' + "9" * 5_000 + "}", "[]", '"x"', "null"])
def test_any_json_of_the_database_is_read(state: str) -> None:
    assert _read(state).replies == 0
