"""Counting is exact, offline, and survives anything."""

import subprocess
import sys

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from baatcheet.context import counting


@settings(max_examples=300, deadline=None)
@given(text=st.text(max_size=500))
def test_a_count_is_tiktokens_own(text: str) -> None:
    for name in ("o200k_base", "cl100k_base"):
        assert counting.count(text, name) == len(tiktoken.get_encoding(name).encode_ordinary(text))


def test_known_texts_have_the_counts_that_openai_publishes() -> None:
    # The OpenAI cookbook's examples for "how to count tokens".
    assert counting.count("tiktoken is great!", "cl100k_base") == 6
    assert counting.count("antidisestablishmentarianism", "o200k_base") == 6
    assert counting.count("2 + 2 = 4", "o200k_base") == 7
    assert counting.count("お誕生日おめでとう", "cl100k_base") == 9
    assert counting.count("お誕生日おめでとう", "o200k_base") == 8


@pytest.mark.parametrize(
    "text", [" " * 1_000_000, "a" * 1_000_000, "\n " * 500_000, "e" + "\u0301" * 200_000]
)
def test_hostile_texts_are_counted(text: str) -> None:
    assert counting.count(text) > 0


def test_special_tokens_in_a_text_are_plain_text() -> None:
    assert counting.count("<|endoftext|>") > 1


def test_the_vocabularies_are_read_without_a_network() -> None:
    code = (
        "import socket\n"
        "def refuse(*args, **kwargs): raise OSError('no network')\n"
        "socket.socket.connect = refuse\n"
        "from baatcheet.context import counting\n"
        "print(counting.count('hello world'), counting.count('hello world', 'cl100k_base'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PATH": ""}, timeout=60
    )
    assert done.stdout.split() == ["2", "2"]
