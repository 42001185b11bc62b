"""The word lists: what they name is there, and they can be read."""

from baatcheet.context.recall import signs
from baatcheet.context.recall.vocabulary import patterns, vocabulary


def test_what_is_near_to_a_concept_is_a_concept() -> None:
    words = vocabulary()
    known = {
        concept
        for concepts in (*words.plain.shown.values(), *words.plain.sought.values())
        for concept in concepts
    }
    for concept, others in words.near.items():
        assert {concept, *others} <= known, concept


def test_the_kinds_that_a_question_word_asks_for_are_concepts() -> None:
    known = {concept for concepts in vocabulary().plain.shown.values() for concept in concepts}
    for concepts in patterns("kinds"):
        assert {f"~{concept}" for concept in concepts.split()} <= known


def test_every_sign_that_is_wanted_has_a_pattern_or_a_rule() -> None:
    for names in patterns("wanted"):
        assert set(names.split()) <= signs.BY_NAME.keys()
    assert patterns("signs").keys() == signs.BY_NAME.keys()


def test_no_pattern_matches_nothing_or_everything() -> None:
    for group in ("signs", "wanted", "kinds", "asked"):
        for name, pattern in patterns(group).items():
            assert not pattern.search(""), name
            assert not pattern.search("zzz qqq"), name


def test_months_are_known_in_every_script() -> None:
    months = vocabulary().months
    assert {months[name] for name in ("december", "دسمبر", "दिसंबर")} == {12}
    assert set(months.values()) == set(range(1, 13))
