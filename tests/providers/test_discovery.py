"""Reading a provider's list of models: pure, so against anything."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from baatcheet.kit.text import unstorable
from baatcheet.providers import profiles
from baatcheet.providers.discovery import cards_of
from baatcheet.providers.profiles import BUILT_IN, Profile

LAB = Profile(name="lab", base_url="https://lab.example/v1", default_window=1000)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
ENTRY = st.fixed_dictionaries(
    {},
    optional={
        "id": JSON,
        "created": JSON,
        "active": JSON,
        "context_length": JSON,
        "context_window": JSON,
        "max_model_len": JSON,
        "max_completion_tokens": JSON,
        "architecture": JSON,
        "top_provider": JSON,
        "supported_parameters": JSON,
        "providers": JSON,
        "meta": JSON,
    },
)


@given(st.lists(ENTRY | JSON, max_size=4), st.sampled_from([*BUILT_IN, LAB]))
def test_any_list_gives_usable_cards(entries: list[Any], profile: Profile) -> None:
    cards = cards_of(profile, entries)
    assert len({card.name for card in cards}) == len(cards)
    for card in cards:
        assert card.provider == profile.name
        assert card.name
        assert card.context_window > 0
        assert card.max_output is None or card.max_output > 0
        assert 0 <= card.created < 2**40
        assert unstorable(card.name) is None


def test_what_is_no_name_or_number_is_passed_over() -> None:
    entries = [{"id": "a\0b"}, {"id": "c\ud800"}, {"id": "d", "created": True, "context_length": True}]
    (card,) = cards_of(LAB, entries)
    assert (card.name, card.created, card.context_window) == ("d", 0, 1000)


def test_each_providers_fields_are_read() -> None:
    cards = cards_of(
        LAB,
        [
            {"id": "a", "context_window": 11, "max_completion_tokens": 5, "active": True},
            {"id": "b", "context_length": 12, "top_provider": {"max_completion_tokens": 6}},
            {"id": "c", "meta": {"n_ctx_train": 13}},
            {"id": "d", "providers": [{"context_length": 15}, {"context_length": 14}, {}]},
            {
                "id": "e",
                "architecture": {"input_modalities": ["text", "image"]},
                "supported_parameters": ["seed"],
            },
            {"id": "gone", "active": False},
            {"id": "f"},
        ],
    )
    assert [(card.name, card.context_window, card.max_output) for card in cards] == [
        ("a", 11, 5),
        ("b", 12, 6),
        ("c", 13, None),
        ("d", 14, None),
        ("e", 1000, None),
        ("f", 1000, None),
    ]
    assert [card.vision for card in cards if card.name in {"a", "e"}] == [False, True]
    assert [card.tools for card in cards if card.name in {"a", "e"}] == [True, False]


def test_what_is_known_beforehand_is_kept_and_comes_first() -> None:
    cards = cards_of(profiles.OPENAI, [{"id": "gpt-9"}, {"id": "gpt-4o", "created": 7}, {"id": "whisper-1"}])
    assert [card.name for card in cards] == ["gpt-4o", "gpt-9"]
    assert (cards[0].context_window, cards[0].vision, cards[0].created) == (128_000, True, 7)


def test_geminis_names_lose_their_prefix() -> None:
    cards = cards_of(
        profiles.GEMINI, [{"id": "models/gemini-2.5-pro"}, {"id": "models/gemini-embedding-001"}]
    )
    assert [(card.name, card.embedding) for card in cards] == [
        ("gemini-2.5-pro", False),
        ("gemini-embedding-001", True),
    ]


def test_every_profile_has_its_default_among_its_models() -> None:
    for profile in BUILT_IN:
        assert profile.default_model is None or profile.default_model in {
            known.name for known in profile.models
        }
        assert profile.base_url.startswith(("https://", "http://127.0.0.1"))
