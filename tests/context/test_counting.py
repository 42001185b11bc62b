"""Counting is exact, offline, and survives anything."""

import asyncio
import subprocess
import sys
import threading
import time
from functools import partial
from typing import Any

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from baatcheet.context import counting
from baatcheet.context.cutting import cut_middle
from baatcheet.context.pieces import pieces
from baatcheet.context.tokenizers import Vocabulary
from baatcheet.providers.model import OpenAIEncoding

ENCODINGS: tuple[OpenAIEncoding, ...] = ("o200k_base", "cl100k_base")
BLANKS = " \t\v\f\x85\xa0\u1680\u2003\u2028\u3000"
# What differs between two versions of Unicode, what only looks like a letter of a contraction, and neighbours.
ODD = (
    "\u017f\u212a\ufb05\u088f\u1ace\u1acf\u1ada\u1b00\ua7d2\U00010940\U000187f8\U000323b0\U00033479\U0003347a"
)
SNIPPETS = st.one_of(
    st.text(max_size=6),
    st.text(ODD + "'lLsSdDtT/\n aA1", min_size=1, max_size=10),
    st.sampled_from([
        "The quick brown fox", "don't ", "سلام، آپ کیسے ہیں؟", "नमस्ते, आप कैसे हैं?", "中文漢字かな", "👩‍👩‍👧‍👦🎉",
        "    return x+1\n", "1234567", "//\n/", "\r\n\t", "e\u0301\u0327",
    ]),
)  # fmt: skip
TEXTS = st.lists(SNIPPETS, max_size=20).map("".join)


def by_tiktoken(text: str, name: OpenAIEncoding) -> int:
    return len(counting.encoding(name).encode_ordinary(text))


@settings(max_examples=500, deadline=None)
@given(text=st.one_of(TEXTS, st.text(max_size=500)))
def test_a_count_is_tiktokens_own(text: str) -> None:
    for name in ENCODINGS:
        assert counting.count(text, name) == by_tiktoken(text, name)


@pytest.mark.parametrize("name", ENCODINGS)
def test_every_character_is_counted_as_tiktoken_does_whatever_is_beside_it(name: OpenAIEncoding) -> None:
    contexts = ("{}/Z", "{}\n\t\n", "{}'L", "AB{}cd", "a{}Bc", "12{}45", "'{}LL", "  {}  x", "{}\u0947\u0915")
    points = [*range(0xD800), *range(0xE000, 0x33500), *range(0x33500, 0x110000, 997)]
    wrong = []
    for at in range(0, len(points), 64):
        some = [chr(point) for point in points[at : at + 64]]
        text = "\x00\x00".join([one.replace("{}", letter) for letter in some for one in contexts])
        if not counting.is_disputed(text) and counting.count(text, name) != by_tiktoken(text, name):
            wrong += some
    assert wrong == []


@settings(max_examples=300, deadline=None)
@given(text=TEXTS, size=st.integers(1, 12))
def test_the_counts_of_a_texts_pieces_add_up(text: str, size: int) -> None:
    parts = list(pieces(text, size))
    assert "".join(parts) == text
    for name in ENCODINGS:
        assert sum(by_tiktoken(part, name) for part in parts) == by_tiktoken(text, name)


def test_a_long_text_with_one_disputed_character_is_exact() -> None:
    text = (
        "words of all sorts, and numbers 123.\n" * 9_000 + "\U000323b0/Z don'\u017f't" + " more of it" * 9_000
    )
    assert counting.count(text) == by_tiktoken(text, "o200k_base")


@settings(max_examples=500, deadline=None)
@given(
    text=st.lists(
        st.one_of(
            st.text(max_size=6),
            st.text(BLANKS, min_size=4, max_size=40),
            st.text("\r\n /!a\x1c\u200b", max_size=5),
        ),
        max_size=8,
    ).map("".join)
)
def test_a_text_divided_around_its_long_runs_of_blanks_has_the_tokens_of_the_whole(text: str) -> None:
    parts = list(counting.around_blanks(text, limit=8))
    assert "".join(part for part, _ in parts) == text
    for name in ENCODINGS:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(counting, "BLANK_LIMIT", 8)
            assert counting.encode(text, name) == tiktoken.get_encoding(name).encode_ordinary(text)


def test_what_is_long_without_a_seam_goes_to_tiktoken_only_around_what_is_disputed() -> None:
    counting.count("\u017f")
    for text, tokens in (
        ("\u017f" + "a" * 16_000_000, 2_000_001),
        ("a" * 8_000_000 + "\u017f" + "a" * 8_000_000, 2_000_001),
        ("漢" * 5_300_000 + "\u1acf", 5_300_001),
        ("\u017f" + " " * 16_000_000, 125_001),
        (("a" * 100_000 + "\u017f") * 20, 250_020),
    ):
        began = time.perf_counter()
        assert counting.count(text) == pytest.approx(tokens, abs=65)
        assert time.perf_counter() - began < 3  # a fifth of that on a quiet machine; by tiktoken alone 25


@settings(max_examples=200, deadline=None)
@given(text=TEXTS)
def test_what_is_around_a_disputed_character_is_counted_as_the_whole_is_where_nothing_is_cut(
    text: str,
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counting, "_PART", 3)
        patch.setattr(counting, "_REACH", 1_000)
        for name in ENCODINGS:
            assert counting._around_disputed(text, name) == by_tiktoken(text, name)


def test_known_texts_have_the_counts_that_openai_publishes() -> None:
    # The OpenAI cookbook's examples for "how to count tokens".
    assert counting.count("tiktoken is great!", "cl100k_base") == 6
    assert counting.count("antidisestablishmentarianism", "o200k_base") == 6
    assert counting.count("2 + 2 = 4", "o200k_base") == 7
    assert counting.count("お誕生日おめでとう", "cl100k_base") == 9
    assert counting.count("お誕生日おめでとう", "o200k_base") == 8


HOSTILE = {
    "blanks": " " * 1_200_000,
    "blanks before a word": " " * 1_200_000 + "word",
    "blanks between words": "x" + " " * 1_200_000 + "y" + "\u3000\t" * 600_000,
    "blanks before a line break": " " * 1_200_000 + "\nword",
    "blanks and a long s": "\u017f" + " " * 1_200_000,
    "runs of blanks": (" " * 4095 + "a") * 250,
    "line breaks": "\n " * 500_000,
    "one letter": "a" * 1_000_000,
    "one mark": "!" * 1_000_000,
    "slashes": "/" * 1_000_000,
    "combining marks": "e" + "\u0301" * 500_000,
    "control characters": "\x00\x01" * 500_000,
}


@pytest.mark.parametrize("name", ENCODINGS)
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_text_is_counted_and_cut(text: str, name: OpenAIEncoding) -> None:
    began = time.perf_counter()
    tokens = counting.count(text, name)
    assert time.perf_counter() - began < 5
    assert tokens == len(counting.encode(text, name))
    shorter = cut_middle(text, 100, Vocabulary(name, partial(counting.count, name=name)))
    assert counting.count(shorter, name) <= 100
    assert len(shorter) < len(text)


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_text_is_encoded_whole(text: str) -> None:
    assert counting.encoding("o200k_base").decode(counting.encode(text)) == text


def test_a_run_of_blanks_costs_what_its_largest_tokens_cover() -> None:
    # 128 spaces are one token of this vocabulary.
    assert counting.count(" " * 1_280_000) == 10_000
    assert counting.count(" " * 1_280_001 + "word") == 10_001


async def test_very_long_texts_wait_for_each_other_and_others_for_none_of_them() -> None:
    counting.warm_up()
    long = [asyncio.create_task(counting.count_aside("/" * 6_000_000)) for _ in range(3)]
    await asyncio.sleep(0)
    assert await counting.count_aside("a word and " * 2_000) == 6_001
    assert not any(task.done() for task in long[1:])
    await asyncio.gather(*long)


async def test_nothing_waits_while_a_hostile_text_is_counted() -> None:
    counting.warm_up()
    stalls: list[float] = []

    async def beat() -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.01)
            stalls.append(time.perf_counter() - before)

    beating = asyncio.create_task(beat())
    began = time.perf_counter()
    for text in HOSTILE.values():
        await counting.count_aside(text * 4)
    took = time.perf_counter() - began
    beating.cancel()
    assert max(stalls) < took / 4


def test_special_tokens_in_a_text_are_plain_text() -> None:
    assert counting.count("<|endoftext|>") > 1


def test_the_vocabularies_are_read_without_a_network() -> None:
    code = (
        "import socket\n"
        "def refuse(*args, **kwargs): raise OSError('no network')\n"
        "socket.socket.connect = refuse\n"
        "from baatcheet.context import counting\n"
        "print(counting.count('hello world'), counting.count('hello \\u017f world', 'cl100k_base'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PATH": ""}, timeout=60
    )
    assert done.stdout.split() == ["2", "4"]


def test_how_long_something_takes_is_told_at_once() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 1_000_000}}
    large = [[0] * 5_000_000, {str(at): at for at in range(100_000)}, deep, ["x" * 600_000] * 10_000]
    for value in large:
        began = time.perf_counter()
        assert counting.extent(value) > counting.VERY_LONG
        assert time.perf_counter() - began < 0.1
    assert counting.message_extent("x" * 50) == 50 + 64
    assert counting.message_extent([picture] * 3) == 3 * 256 + 64
    assert counting.message_extent([{"type": "text", "text": "x" * 1_000}]) > 1_000
    assert counting.message_extent("", {"name": "x" * 20_000}) > 20_000


async def test_many_pictures_are_looked_at_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    where: list[str] = []

    def looked(parts: Any, cost: Any) -> int:
        where.append(threading.current_thread().name)
        return 7

    monkeypatch.setattr(counting, "picture_tokens", looked)
    picture = {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}}
    for pictures in (1, 100):
        assert await counting.count_message("", {"content": [picture] * pictures}) == 4 + 7
    assert where[0] == threading.current_thread().name
    assert where[1].startswith("counting")


def test_what_can_not_be_encoded_is_counted_too() -> None:
    calls = [{"id": "a", "function": {"name": "f", "arguments": "\ud800\x00"}}]
    text = counting.counted_text("\ud800\x00", {"tool_calls": calls, "name": "\udfff"})
    assert counting.count(text) > 10


def test_warming_up_reads_what_is_seldom_needed_in_a_thread() -> None:
    code = (
        "import time\n"
        "from baatcheet.context import counting\n"
        "counting.warm_up()\n"
        "deadline = time.monotonic() + 30\n"
        "while counting.encoding.cache_info().currsize < 1: assert time.monotonic() < deadline\n"
        "print(counting._counter.cache_info().currsize)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["2"]
