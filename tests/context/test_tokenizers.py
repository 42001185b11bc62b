"""Every model is counted by its own vocabulary where there is one, and by an estimate that says so otherwise."""

import random
import time
from collections.abc import Iterator
from functools import partial
from typing import Any
from unittest.mock import Mock

import pytest
from benchmarks.texts import mixed, sentences
from hypothesis import given, settings
from hypothesis import strategies as st

from baatcheet.chat import token_counts
from baatcheet.context import counting, other_vocabularies
from baatcheet.context.cutting import MARKER, cut_item, cut_middle
from baatcheet.context.pieces import pieces
from baatcheet.context.planning import Item
from baatcheet.context.tokenizers import MOST_MODELS, Estimate, Tokenizer, Tokenizers, Vocabulary
from baatcheet.conversations.wire import stored_form
from baatcheet.platform.settings import load
from baatcheet.providers.families import family_of
from baatcheet.providers.model import Encoding, ModelCard
from baatcheet.providers.profiles import GROQ, OPENAI, Known

OTHERS: tuple[Encoding, ...] = ("llama3", "deepseek_v3", "gemma2", "gemma3", "qwen3", "mistral_v3")
needs_extra = pytest.mark.skipif(not other_vocabularies.INSTALLED, reason="the extra `tokenizers` is missing")
MESSAGES = [
    {"role": "user", "content": "Where is Attabad Lake?"},
    {"role": "user", "content": "اور یہ کیا ہے؟"},
]


def card(name: str, encoding: Encoding | None = None) -> ModelCard:
    return Known(name, 8_192, encoding=encoding).card("somewhere")


@pytest.fixture
def without_extra(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(other_vocabularies, "INSTALLED", False)
    yield
    monkeypatch.undo()


@pytest.mark.parametrize(
    ("name", "encoding"),
    [
        ("gpt-4o", "o200k_base"),
        ("gpt-5-mini", "o200k_base"),
        ("o3-mini", "o200k_base"),
        ("openai/gpt-oss-120b", "o200k_base"),
        ("gpt-4-turbo", "cl100k_base"),
        ("gpt-3.5-turbo", "cl100k_base"),
        ("text-embedding-3-small", "cl100k_base"),
        ("meta-llama/Llama-3.3-70B-Instruct", "llama3"),
        ("llama3.2:3b", "llama3"),
        ("deepseek-chat", "deepseek_v3"),
        ("deepseek-ai/DeepSeek-R1", "deepseek_v3"),
        ("google/gemma-3-27b-it", "gemma3"),
        ("gemma2:9b", "gemma2"),
        ("qwen/qwen3-32b", "qwen3"),
        ("Qwen/Qwen2.5-Coder-32B-Instruct", "qwen3"),
        ("mistralai/Mistral-Nemo-Instruct-2407", "mistral_v3"),
        ("gpt-5.1", None),
        ("meta-llama/llama-4-scout-17b-16e-instruct", None),
        ("deepseek-r1-distill-qwen-32b", None),
        ("qwen3.5-plus", None),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", None),
        ("gemini-2.5-flash", None),
        ("some/llama-3-imitation", "llama3"),
        ("not-a-llama-3", None),
        ("deepseek/deepseek-r1:free", "deepseek_v3"),
        ("deepseek-r1:671b-q4_K_M", "deepseek_v3"),
        ("deepseek-ai/DeepSeek-R1-0528", "deepseek_v3"),
        ("deepseek-v3.1", "deepseek_v3"),
        ("deepseek-r1:7b", None),
        ("deepseek-r1:1.5b", None),
        ("deepseek-r1:70b", None),
        ("deepseek-r1:latest", None),
        ("deepseek-r1-8b", None),
        ("deepseek/deepseek-r1-0528-qwen3-8b", None),
        ("mistralai/Mistral-Small-24B-Instruct-2501", "mistral_v3"),
        ("mistral-small-2503", "mistral_v3"),
        ("mistral-small-2506", "mistral_v3"),
        ("mistral-small-3.2-24b-instruct", "mistral_v3"),
        ("mistral-small3.1:24b", "mistral_v3"),
        ("mistral-small-2402", None),
        ("mistral-small-2409", None),
        ("mistral-small:22b", None),
        ("mistral-small-latest", None),
        ("gpt-4o" + "x" * 500, None),
    ],
)
def test_a_family_is_known_by_its_name(name: str, encoding: Encoding | None) -> None:
    found = family_of(name)
    assert (found.encoding if found else None) == encoding
    assert card(name).exact_encoding is (encoding is not None)


def test_openais_models_are_counted_exactly() -> None:
    tokenizers = Tokenizers()
    for known in (*OPENAI.models, *GROQ.models):
        counted = tokenizers.of(known.card("openai"))
        if known.name.startswith(("gpt", "o3", "o4", "openai/", "text")):
            assert counted.exact
            assert counted.margin == 0
    assert tokenizers.of(card("gpt-4o")) is Tokenizers.stored


def test_a_stored_count_is_taken_as_it_is_by_the_vocabulary_that_made_it() -> None:
    tokenizer = Tokenizers().of(card("gpt-4o"))
    assert tokenizer.stored("any text at all", None, 77) == 77
    url = {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}}
    small = Tokenizers().of(card("gpt-4o-mini"))
    assert small.stored("any text at all", {"content": [url]}, 77 + 1445) == 77 + 2833 + 8 * 5667


@needs_extra
@pytest.mark.parametrize("encoding", OTHERS)
def test_another_vocabulary_counts_its_own_way_and_in_pieces_the_same(encoding: Encoding) -> None:
    tokenizer = Tokenizers().of(card("mine", encoding))
    assert tokenizer.exact
    assert tokenizer.name == encoding
    # Short enough that no stretch without a seam is as long as must be cut, in whichever order its parts come.
    text = mixed(40_000, random.Random(5))
    whole = other_vocabularies._vocabulary(encoding)
    assert tokenizer.count(text) == len(whole.encode_ordinary(text))
    assert tokenizer.stored(text, None, 1) == tokenizer.message(text, None) > tokenizer.count(text)
    assert tokenizer.count("<|endoftext|>") > 1
    assert tokenizer.count("") == 0


@needs_extra
@settings(max_examples=100, deadline=None)
@given(
    text=st.lists(st.one_of(st.text(max_size=8), st.sampled_from([" ", "\n", "word", "سلام", "1 2"]))).map(
        "".join
    )
)
def test_the_pieces_of_a_text_add_up_in_other_vocabularies(text: str) -> None:
    for encoding in OTHERS:
        parts = [
            len(other_vocabularies._vocabulary(encoding).encode_ordinary(part)) for part in pieces(text, 3)
        ]
        assert sum(parts) == other_vocabularies.count(text, encoding)


@needs_extra
@pytest.mark.parametrize("unit", ["a", "!", "漢", " ", "\n"])
def test_another_vocabulary_is_never_given_much_at_once(unit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    vocabulary, given = other_vocabularies._vocabulary("llama3"), []

    class Watched:
        def encode_ordinary(self, text: str) -> list[int]:
            given.append(text)
            found: list[int] = vocabulary.encode_ordinary(text)
            return found

    monkeypatch.setattr(other_vocabularies, "_vocabulary", lambda _: Watched())
    text = unit * 100_001
    tokens = other_vocabularies.count(text, "llama3")
    assert "".join(given) == text
    assert max(map(len, given)) <= 8_192
    assert tokens == pytest.approx(len(vocabulary.encode_ordinary(text)), abs=len(given))


@pytest.mark.usefixtures("without_extra")
def test_without_the_extra_other_models_are_estimated() -> None:
    tokenizer = Tokenizers().of(card("llama-3.3-70b-versatile"))
    assert not tokenizer.exact
    assert tokenizer.name == "o200k_base, as an estimate"
    assert counting.count("hello world", "llama3") == counting.count("hello world")


def test_an_estimate_begins_as_o200ks_own_count_and_learns() -> None:
    tokenizers, model = Tokenizers(), card("unheard-of")
    before = tokenizers.of(model)
    assert before.message("hello world", None) == counting.count("hello world") + counting.MESSAGE_OVERHEAD
    assert before.margin == pytest.approx(0.10)
    chance = random.Random(2)
    for _ in range(20):
        messages = [{"role": "user", "content": sentences("urdu", 600, chance)}]
        tokenizers.learn(model, messages, [], 3 * counting.count(messages[0]["content"]))
    after = tokenizers.of(model)
    text = sentences("urdu", 2_000, chance)
    assert after.count(text) == pytest.approx(3 * counting.count(text), rel=0.05)
    stored = counting.count(text) + counting.MESSAGE_OVERHEAD
    assert after.stored(text, None, stored) == after.message(text, None)
    assert after.name == "o200k_base, calibrated by 20 replies"
    assert after.margin == pytest.approx(0.03)
    assert tokenizers.of(card("another")).name == "o200k_base, as an estimate"


def test_nothing_is_learned_from_pictures_or_for_models_that_are_counted_exactly() -> None:
    tokenizers = Tokenizers()
    image = {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}}
    tokenizers.learn(card("unheard-of"), [{"role": "user", "content": [image]}], [], 500)
    tokenizers.learn(card("gpt-4o"), MESSAGES, [], 30)
    tokenizers.learn(card("unheard-of"), MESSAGES, [], 10_000_000)
    assert tokenizers.calibrations == {}


def test_nothing_that_is_reported_makes_learning_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizers = Tokenizers()
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    tokenizers.learn(card("unheard-of"), [{"role": "user", "content": "hi", "tool_calls": deep}], [], 30)
    tokenizers.learn(card("unheard-of"), [{"role": "user", "content": 3}], [deep], 30)
    tokenizers.learn(card("unheard-of"), [{"content": "\ud800", "name": "\ud800"}], [{"\ud800": 1}], 30)
    tokenizers.learn(card("x" * 501), MESSAGES, [], 40)
    assert list(tokenizers.calibrations) in ([], ["somewhere/unheard-of"])
    monkeypatch.setattr(counting, "count", lambda _: 1 / 0)
    tokenizers.learn(card("unheard-of"), MESSAGES, [], 40)


def test_no_picture_is_looked_at_to_learn_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "count", lambda _: 1 / 0)
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}
    monkeypatch.setattr("baatcheet.context.tokenizers.picture_tokens", lambda *_: 1 / 0)
    log = Mock()
    monkeypatch.setattr("baatcheet.context.tokenizers.log", log)
    Tokenizers().learn(card("unheard-of"), [*MESSAGES, {"role": "user", "content": [image]}], [], 500)
    log.warning.assert_not_called()


def test_the_number_of_models_that_are_remembered_is_bounded() -> None:
    tokenizers = Tokenizers()
    for number in range(MOST_MODELS + 5):
        tokenizers.learn(card(f"model-{number}"), MESSAGES, [{"type": "function"}], 40)
    assert len(tokenizers.calibrations) == MOST_MODELS
    assert "somewhere/model-0" not in tokenizers.calibrations


def tokenizers_to_cut_with() -> list[Tokenizer]:
    tokenizers, model = Tokenizers(), card("unheard-of")
    for _ in range(20):
        tokenizers.learn(model, MESSAGES, [], 70)
    cl100k = Vocabulary("cl100k_base", partial(counting.count, name="cl100k_base"))
    extra = [tokenizers.of(card("mine", "gemma3"))] if other_vocabularies.INSTALLED else []
    return [
        Tokenizers.stored,
        cl100k,
        tokenizers.of(model),
        Estimate(tokenizers.calibrations[model.id]),
        *extra,
    ]


TO_CUT = st.one_of(
    st.text(max_size=400),
    st.builds(lambda word, n: word * n, st.text(min_size=1, max_size=9), st.integers(1, 900)),
    st.integers(0, 999).map(lambda seed: mixed(6_000, random.Random(seed))),
)


@settings(max_examples=100, deadline=None)
@given(text=TO_CUT, tokens=st.integers(0, 400))
def test_a_text_is_cut_to_what_any_tokenizer_allows(text: str, tokens: int) -> None:
    for tokenizer in tokenizers_to_cut_with():
        shorter = cut_middle(text, tokens, tokenizer)
        assert tokenizer.count(shorter) <= tokens
        if tokenizer.count(text) <= tokens:
            assert shorter == text
        elif tokens > 60:
            assert MARKER.partition("{}")[0] in shorter


@settings(max_examples=50, deadline=None)
@given(text=TO_CUT, tokens=st.integers(8, 400))
def test_a_message_is_cut_to_what_any_tokenizer_allows(text: str, tokens: int) -> None:
    wire = {"role": "tool", "content": [{"type": "text", "text": text}], "tool_call_id": "c1"}
    for tokenizer in tokenizers_to_cut_with():
        item = cut_item(Item(wire, tokenizer.message(*stored_form(wire))), tokens + 20, tokenizer)
        assert item.tokens == tokenizer.message(*stored_form(item.wire)) <= tokens + 20


def test_much_of_a_text_is_kept_at_both_ends() -> None:
    text = mixed(40_000, random.Random(9))
    for tokenizer in tokenizers_to_cut_with():
        shorter = cut_middle(text, 1_000, tokenizer)
        assert tokenizer.count(shorter) > 900
        head, _, tail = shorter.partition(MARKER.partition("{}")[0])
        assert text.startswith(head)
        assert text.endswith(tail.partition("\n")[2])
        assert min(len(head), len(tail)) > 200


# By POST /api/v1/tokens/count ---------------------------------------------------------------------------------


def counted(**body: Any) -> token_counts.Counted:
    asked = token_counts.Countable.model_validate(body)
    return token_counts._counted(card("gpt-4o"), Tokenizers.stored, asked, load({}))


USER = {"role": "user", "content": "hello"}
CAT = {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}}
CALL = {"id": "a", "type": "function", "function": {"name": "look", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("body", "exact"),
    [
        ({"text": "hello"}, True),
        ({"messages": [USER, {"role": "user", "content": [{"type": "text", "text": "hello"}]}]}, True),
        ({"messages": [USER], "tools": []}, True),
        ({"messages": [USER, {"role": "user", "content": [CAT]}]}, False),
        ({"messages": [USER, {"role": "assistant", "content": None, "tool_calls": [CALL]}]}, False),
        ({"messages": [USER], "tools": [{"type": "function"}]}, False),
        ({"messages": [USER], "response_format": {"type": "json_object"}}, False),
    ],
)
def test_a_count_is_exact_only_of_what_a_vocabulary_alone_decides(body: dict[str, Any], exact: bool) -> None:
    assert counted(**body).exact is exact


def test_all_of_a_response_format_is_counted() -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object"}}}
    found = counted(messages=[USER], response_format=schema)
    assert found.tools == Tokenizers.stored.json(schema) > Tokenizers.stored.json(schema["json_schema"])
    assert counted(messages=[USER], response_format={"type": "json_object"}).tools > 0


def test_what_can_not_be_stored_is_counted() -> None:
    odd = {"role": "user", "content": "\ud800\x00", "name": "\udfff", "x": ["\x00"]}
    assert counted(messages=[odd], tools=[{"\ud800": "\x00"}]).tokens > 10


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [USER] * 300},
        {"messages": [{**USER, "name": "x" * 20_000}]},
        {"messages": [{"role": "user", "content": [CAT] * 100}]},
        {"messages": [{"role": "assistant", "content": "", "tool_calls": [CALL] * 200}]},
        {"messages": [USER], "tools": [{"description": "x" * 20_000}]},
        {"messages": [USER], "response_format": {"schema": ["x"] * 1_000}},
        {"text": "x" * 20_000},
    ],
)
def test_whatever_takes_long_to_count_is_counted_in_a_thread(body: dict[str, Any]) -> None:
    assert token_counts._size(token_counts.Countable.model_validate(body)) > counting.INLINE_CHARACTERS


def test_what_is_not_counted_takes_no_time() -> None:
    body = token_counts.Countable.model_construct(
        text=None, tools=None, response_format=None, messages=[{**USER, "x": [0] * 5_000_000}] * 10_000
    )
    began = time.perf_counter()
    assert token_counts._size(body) > counting.VERY_LONG
    assert token_counts._size(body.model_copy(update={"messages": body.messages[:100]})) < 10_000  # type: ignore[index]
    assert time.perf_counter() - began < 0.2


def test_a_model_that_is_well_known_learns_once_a_second_at_most() -> None:
    now = [100.0]
    tokenizers = Tokenizers(clock=lambda: now[0])
    card = ModelCard("somewhere", "unheard-of", 8_192)
    message = [{"role": "user", "content": "a few words about the harbour and its boats " * 20}]

    def after(replies: int) -> int:
        for _ in range(replies):
            tokenizers.learn(card, message, [], 240)
        return tokenizers.calibrations[card.id].replies

    assert after(40) == 40, "the first ones all teach"
    assert after(1) == 41 - 1, "no second has passed since"
    now[0] += 1.5
    assert after(500) == 41
