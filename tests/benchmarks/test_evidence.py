"""The generated questions are what the benchmark says they are: fair, findable, and not a test of keywords."""

from collections import Counter
from datetime import timedelta

import pytest
from benchmarks.evidence import (
    CATEGORIES,
    LANGUAGES,
    Conversation,
    Question,
    conversations,
    held,
    sliding_window,
)
from benchmarks.evidence.baseline import RECENT, Lexical
from benchmarks.evidence.composing import shared
from benchmarks.evidence.scoring import cost
from benchmarks.evidence.world import world
from benchmarks.evidence.writer import LEAST, MOST

SEED = 3


@pytest.fixture(scope="module")
def made() -> list[Conversation]:
    return list(conversations(SEED, quick=True))


def test_a_seed_gives_the_same_conversations_and_another_gives_others(made: list[Conversation]) -> None:
    assert next(conversations(SEED, quick=True)) == made[0]
    assert next(conversations(SEED + 1, quick=True)).messages != made[0].messages


def test_no_two_conversations_are_alike(made: list[Conversation]) -> None:
    for one, other in zip(made, made[len(LANGUAGES) :], strict=False):  # of the same language
        common = {message.text for message in one.messages} & {message.text for message in other.messages}
        assert len(common) < 0.2 * len(one.messages)  # pleasantries, and what the same story is told with


def test_evidence_is_in_its_message_and_in_no_other(made: list[Conversation]) -> None:
    for conversation in made:
        for question in conversation.questions:
            assert question.evidence
            for index, part in question.evidence:
                assert [at for at, one in enumerate(conversation.messages) if part in one.text] == [index]


def test_every_category_and_language_has_questions(made: list[Conversation]) -> None:
    questions = [question for conversation in made for question in conversation.questions]
    categories = Counter(question.category for question in questions)
    languages = Counter(question.language for question in questions)
    assert set(categories) == set(CATEGORIES)
    assert set(languages) == set(LANGUAGES) == {conversation.language for conversation in made}
    assert min(categories.values()) >= 20
    assert min(languages.values()) >= 20
    assert len(questions) >= 120
    assert all(len(conversation.questions) >= 8 for conversation in made)


def test_evidence_of_what_was_spread_or_changed_is_in_several_messages(made: list[Conversation]) -> None:
    for conversation in made:
        for question in conversation.questions:
            if question.category in {"spread", "changed"}:
                assert 2 <= len({index for index, _ in question.evidence}) <= 4


def test_most_evidence_is_older_than_the_last_messages(made: list[Conversation]) -> None:
    old = [
        index < len(conversation.messages) - RECENT
        for conversation in made
        for question in conversation.questions
        for index, _ in question.evidence
    ]
    assert sum(old) > 0.9 * len(old)


def test_sizes_are_within_bounds(made: list[Conversation]) -> None:
    for conversation in made:
        sizes = [cost(message.text) - 4 for message in conversation.messages]
        assert sum(sizes) == conversation.tokens
        assert 9_500 < conversation.tokens < 33_000
        assert min(sizes) >= LEAST
        assert max(sizes) <= MOST


def test_user_and_assistant_take_turns_over_weeks(made: list[Conversation]) -> None:
    for conversation in made:
        roles = [message.role for message in conversation.messages]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        times = [message.at for message in conversation.messages]
        assert times == sorted(times)
        assert times[-1] - times[0] > timedelta(days=3)


def test_nothing_of_the_templates_is_left(made: list[Conversation]) -> None:
    for conversation in made:
        texts = [message.text for message in conversation.messages]
        for text in (*texts, *(question.text for question in conversation.questions)):
            assert not {"«", "»"} & set(text)
            assert "$" not in text.replace("$1", "")  # a parameter of SQL


def test_a_paraphrase_shares_no_rare_word_with_its_evidence(made: list[Conversation]) -> None:
    for conversation in made:
        for question in conversation.questions:
            if question.category == "paraphrase":
                assert not shared(conversation, question), question


@pytest.mark.parametrize("name", LANGUAGES)
def test_a_story_has_all_the_evidence_that_its_questions_name(name: str) -> None:
    for thread in world(name).threads:
        told = " ".join(step.text for sitting in thread.sittings for step in sitting)
        for asked in thread.questions:
            assert asked.category in CATEGORIES
            assert all(f"«{key}:" in told for key in asked.keys), (thread.name, asked)


def test_a_prompt_holds_the_evidence_when_every_part_is_whole_in_a_message() -> None:
    question = Question("When?", "single", "english", ((0, "on Monday"), (5, "at noon")))
    assert held(["We meet on Monday.", "So at noon then."], question)
    assert not held(["We meet on Monday.", "So at no", "on then."], question)


def test_the_references_keep_to_the_budget_and_are_not_enough(made: list[Conversation]) -> None:
    conversation = made[-1]
    lexical, window, found = Lexical(conversation), 0, 0
    for question in conversation.questions:
        newest = sliding_window(conversation, question, 8_000)
        chosen = lexical.prompt(question, 8_000)
        for texts in (newest, chosen):
            assert sum(map(cost, texts)) + cost(question.text) <= 8_000
        assert newest == [message.text for message in conversation.messages[-len(newest) :]]
        window += held(newest, question)
        found += held(chosen, question)
    assert window < 0.3 * len(conversation.questions)
    assert 0.3 * len(conversation.questions) < found < 0.9 * len(conversation.questions)
