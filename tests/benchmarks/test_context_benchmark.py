"""The parts of the context benchmark that need no servers."""

import random
from collections import Counter
from typing import Any

import pytest
from benchmarks.context.latency import percentile
from benchmarks.context.measuring import prompt_tokens, texts_of, tokens_of
from benchmarks.context.overflow import RandomTurn, some_texts
from benchmarks.context.stability import Prefix, common, common_tokens, window
from benchmarks.context.talk import LEAST, MOST, QUESTIONS, Talk

from baatcheet.context import counting

SYSTEM = {"role": "system", "content": "Be brief."}


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def test_a_prompt_that_only_grows_is_all_prefix_but_for_what_was_added() -> None:
    prefix = Prefix()
    prefix.add([SYSTEM, user("one")])
    prefix.add([SYSTEM, user("one"), user("two")])
    kept, added = tokens_of(SYSTEM) + tokens_of(user("one")), tokens_of(user("two"))
    assert prefix.share == pytest.approx(kept / (kept + added))


def test_after_the_first_message_that_differs_nothing_counts() -> None:
    prefix = Prefix()
    prefix.add([SYSTEM, user("one"), user("two")])
    prefix.add([SYSTEM, user("two"), user("two")])
    assert prefix.share == pytest.approx(tokens_of(SYSTEM) / (tokens_of(SYSTEM) + 2 * tokens_of(user("two"))))


def test_only_the_stable_part_of_a_prompt_is_looked_at_and_all_of_the_one_before() -> None:
    prefix = Prefix()
    prefix.add([SYSTEM, user("one")], 1)
    prefix.add([SYSTEM, user("one"), user("excerpts"), user("two")], 2)
    assert prefix.share == 1


def test_without_a_prompt_before_nothing_is_shared() -> None:
    prefix = Prefix()
    prefix.add([SYSTEM])
    assert prefix.share == 0
    assert common([SYSTEM, user("one")], [SYSTEM, user("two")]) == 1
    assert common([], [SYSTEM]) == 0


def test_a_message_that_begins_as_before_counts_in_part() -> None:
    prefix = Prefix()
    prefix.add([user("The first section.\nThe second."), user("one")])
    prefix.add([user("The first section.\nAnother."), user("one")])
    assert prefix.share == 0
    assert 0 < prefix.share_of_text < 1
    assert common_tokens(SYSTEM, user("Be brief.")) == 0


def test_a_window_holds_the_newest_messages_that_fit() -> None:
    said = [user(f"message {number}") for number in range(100)]
    held = window(said, 200)
    assert 0 < len(held) < 100
    assert list(held) == said[-len(held) :]
    assert prompt_tokens(held) <= 200
    assert list(window(said, 100_000)) == said


def test_a_prompt_is_counted_with_its_format_and_its_tools() -> None:
    assert prompt_tokens([user("one")], beside=10) == tokens_of(user("one")) + counting.REPLY_PRIMING + 10
    parts = [{"type": "text", "text": "one"}]
    assert texts_of([SYSTEM, {"role": "user", "content": parts}]) == ["Be brief.", "one"]


def test_a_percentile_is_one_of_the_values() -> None:
    values = [float(number) for number in range(100, 0, -1)]
    assert percentile(values, 0.5) == 51
    assert percentile(values, 0.99) == 100
    assert percentile([7.0], 0.99) == 7


def test_talk_is_the_same_every_time_and_within_its_sizes() -> None:
    messages = Talk(1).messages(60)
    assert messages == Talk(1).messages(60)
    assert all(LEAST <= counting.count(message.text) <= MOST for message in messages)
    assert [message.role for message in messages[:3]] == ["user", "assistant", "user"]
    assert [message.at for message in messages] == sorted(message.at for message in messages)


def test_a_question_for_a_rare_word_asks_for_one_that_was_said_little() -> None:
    talk = Talk(2)
    messages = talk.messages(500)
    said = Counter(" ".join(message.text for message in messages).lower().replace(".", "").split())
    asked = [talk.question("rare", messages).rstrip("?").split()[-1] for _ in range(20)]
    assert all(1 <= said[word] <= 10 for word in asked)
    assert len({talk.question(kind, messages) for kind in QUESTIONS}) == len(QUESTIONS)


def test_random_turns_are_planned_within_their_budget() -> None:
    chance = random.Random(4)
    texts = some_texts(chance)
    plans = [plan for _ in range(30) if (plan := RandomTurn(chance, texts).plan()) is not None]
    assert len(plans) > 5
    assert any(plan.recalled for plan in plans)
    assert all(prompt_tokens(plan.messages, beside=plan.tool_tokens) <= plan.budget for plan in plans)
