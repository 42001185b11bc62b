"""A key's type does not give it away."""

import copy
import json
import pickle

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baatcheet.keys.secret import LONGEST, KeyNotUsable, SecretKey

texts = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=200)


@given(texts)
def test_it_is_shown_as_dots_and_by_a_hint_of_no_more_than_half(text: str) -> None:
    key = SecretKey(text)
    assert key.reveal() == text
    assert {str(key), "%s" % key} == {"••••••••"}  # noqa: UP031 - the old way, too
    assert {repr(key), repr([key])[1:-1], repr({1: key})[4:-1]} == {"SecretKey(••••••••)"}
    shown = (len(key.hint) - 1) // 2
    assert shown <= min(4, len(text) // 4)
    assert key.hint == f"{text[:shown]}…{text[len(text) - shown :]}"


def test_it_is_not_put_into_text_pickled_copied_or_changed() -> None:
    key = SecretKey("gsk_0123456789abcdef")
    for refuses in (
        lambda: f"{key}",
        lambda: pickle.dumps(key),
        lambda: copy.copy(key),
        lambda: copy.deepcopy({"keys": [key]}),
        lambda: json.dumps({"key": key}),
        lambda: msgspec.json.encode({"key": key}),
    ):
        with pytest.raises(TypeError):
            refuses()
    with pytest.raises(AttributeError):
        key.text = "x"


@given(texts, texts)
def test_two_keys_are_the_same_when_their_texts_are(one: str, other: str) -> None:
    assert (SecretKey(one) == SecretKey(other)) == (one == other)
    assert len({SecretKey(one), SecretKey(one)}) == 1
    assert (SecretKey(one).fingerprint(b"s", "groq") == SecretKey(other).fingerprint(b"s", "groq")) == (
        one == other
    )
    assert SecretKey(one).fingerprint(b"s", "groq") != SecretKey(one).fingerprint(b"s", "lab")
    assert SecretKey(one).fingerprint(b"s", "groq") != SecretKey(one).fingerprint(b"t", "groq")


@pytest.mark.parametrize("text", ["", "two words", "line\nbreak", "naïve", "a" * (LONGEST + 1), "nul\0"])
def test_what_no_key_can_be_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(KeyNotUsable) as refused:
        SecretKey(text)
    assert len(text) < 3 or text not in str(refused.value)
