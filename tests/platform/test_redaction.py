"""Secrets in text: whole, in part, and by their looks."""

import base64
import json
import secrets
import time
from collections import deque
from hashlib import sha256
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baatcheet.platform import redaction
from baatcheet.platform.redaction import (
    MOST_PASSING,
    REDACTED,
    SHORTEST_FRAGMENT,
    _Known,
    redact,
    register_passing_secret,
    register_secret,
)

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
keys = st.builds(
    "".join,
    st.tuples(
        st.sampled_from(["", "sk-or-v1-", "sk-ant-api03-", "gsk_", "hf_", "AIzaSy"]),
        st.text(LETTERS, min_size=32, max_size=60).filter(lambda text: len(set(text)) > 12),
    ),
)
# What surrounds a key is written with letters that no key has, so that it can be told from it.
around = st.text(" ,.:;!?äöüاردو漢字\n", max_size=40)


@pytest.fixture(autouse=True)
def forget_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("baatcheet.platform.redaction._known", _Known())
    monkeypatch.setattr("baatcheet.platform.redaction._passing", deque())


@given(keys, around, around)
def test_a_key_is_taken_out_whole_and_nothing_else(key: str, before: str, after: str) -> None:
    register_secret(key, fragments=True)
    assert redact(f"{before}{key}{after}") == f"{before}{REDACTED}{after}"


@given(keys, around, around, st.data())
def test_any_part_of_a_key_that_is_long_enough_to_matter_is_taken_out(
    key: str, before: str, after: str, data: st.DataObject
) -> None:
    register_secret(key, fragments=True)
    public = next(
        (p for p in ("sk-or-v1-", "sk-ant-api03-", "gsk_", "hf_", "AIzaSy") if key.startswith(p)), ""
    )
    first = data.draw(st.integers(len(public), len(key) - SHORTEST_FRAGMENT))
    end = data.draw(st.integers(first + SHORTEST_FRAGMENT, len(key)))
    assert key[first:end] not in redact(f"{before}{key[first:end]}{after}")


@given(keys, st.binary(max_size=20), st.binary(max_size=20))
def test_the_spellings_of_a_key_are_taken_out(key: str, before: bytes, after: bytes) -> None:
    register_secret(key, fragments=True)
    spelt = [
        quote(f"?key={key}&x", safe=""),
        json.dumps({"key": key}),
        (before + key.encode() + after).hex(),
        base64.b64encode(before + key.encode() + after).decode(),
        base64.urlsafe_b64encode(before + key.encode() + after).decode(),
    ]
    for text in spelt:
        assert REDACTED in redact(text), text
        assert key not in redact(text)


def test_what_keys_of_a_provider_have_in_common_stays() -> None:
    register_secret("sk-or-v1-" + "0f9a" * 16, fragments=True)
    said = "Keys of OpenRouter begin with sk-or-v1- and have 64 digits."
    assert redact(said) == said


def test_a_hint_of_a_key_stays() -> None:
    register_secret("gsk_Zq3kXw81LmNpTt5rVv7sBb2dFf4gHh6jKk", fragments=True)
    assert redact("groq gsk_…Hh6jKk rests") == "groq gsk_…Hh6jKk rests"


def test_a_password_is_taken_out_whole_and_its_words_stay() -> None:
    register_secret("administrators-of-the-house")
    assert redact("the administrators-of-the-house came") == f"the {REDACTED} came"
    assert redact("the administrators came") == "the administrators came"


def test_of_tokens_that_pass_the_last_are_known_and_what_a_line_costs_does_not_grow() -> None:
    tokens = [f"hvs.{sha256(bytes([number % 256, number // 256])).hexdigest()}" for number in range(500)]
    for token in tokens:
        register_passing_secret(token)
    assert all(redact(f"is {token[4:]}?") == f"is {REDACTED}?" for token in tokens[-MOST_PASSING:])
    assert redact(f"is {tokens[0][4:]}?") == f"is {tokens[0][4:]}?"
    known = redaction._known
    assert len(known.windows) < 500 * MOST_PASSING


def test_many_keys_in_one_text_are_all_taken_out() -> None:
    several = [f"gsk_{letter}Zq3kXw81LmNp{letter}Tt5rVv7s{letter}" for letter in "abcdefgh"]
    for key in several:
        register_secret(key, fragments=True)
    assert redact("|".join(several)) == "|".join([REDACTED] * len(several))


def test_registering_a_key_costs_the_same_however_many_there_are() -> None:
    def seconds() -> float:
        several = [f"gsk_{secrets.token_hex(26)}" for _ in range(20)]
        begun = time.process_time()
        for key in several:
            register_secret(key, fragments=True)
        return time.process_time() - begun

    first = min(seconds() for _ in range(3))
    for _ in range(20):
        seconds()

    assert min(seconds() for _ in range(3)) < 5 * first
