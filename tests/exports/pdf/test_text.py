"""Text as it is set: what acts unseen is shown, direction, language, and where an endless word may break."""

# ruff: noqa: RUF001 - several scripts, each meant

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baatcheet.exports.pdf import text
from baatcheet.exports.pdf.tree import Direction


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("plain", "plain"),
        ("a\r\nb\rc\u2028d\x0be", "a\nb\nc\nd\ne"),
        ("a\x00b\x1bc\x7fd", "a␀b␛c␡d"),
        ("a\x9bb\ufffec\ufdd0", "a�b�c�"),
        ("soft\u00adhyphen\ufeff and\u2060joiner", "softhyphen andjoiner"),
        ("a\u202eb", "a‹U+202E›b"),
        ("کہ\u200cاں 👩\u200d👧 क\u200dष", "کہ\u200cاں 👩\u200d👧 क\u200dष"),
        ("漢\u200d字", "漢字"),
        ("x" + "\u0301" * 45 + "y", "x" + "\u0301" * 40 + "‹5 more marks›y"),
        ("\u2067اردو\u2069", "\u2067اردو\u2069"),
    ],
)
def test_what_acts_unseen_is_shown(given: str, shown: str) -> None:
    assert text.shown(given) == shown


def test_code_shows_its_marks_of_direction() -> None:
    assert text.shown_code("a\u2066b\u200f") == "a‹U+2066›b‹U+200F›"


def test_isolates_are_not_deeper_than_can_be_borne() -> None:
    flat = text.shown("\u2067" * 100 + "x" + "\u2069" * 100 + "\n\n" + "\u2067y\u2069")

    assert flat.count("\u2067") == text.EMBEDDED + 1
    assert flat.endswith("\u2067y\u2069")


@given(st.text())
def test_no_control_is_left(given: str) -> None:
    shown = text.shown(given)

    assert not [one for one in shown if unicodedata.category(one) in {"Cc", "Cs"} and one not in "\n\t"]
    assert text.shown(shown) == shown


@pytest.mark.parametrize(
    ("given", "way"),
    [
        ("English اردو", Direction.LTR),
        ("اردو English", Direction.RTL),
        ("1. «اردو»", Direction.RTL),
        ("\u2066English\u2069 اردو", Direction.RTL),
        ("\u2067اردو", Direction.LTR),
        ("𞤀𞤣", Direction.RTL),
        ("עברית", Direction.RTL),
    ],
)
def test_direction_is_that_of_the_first_strong_letter(given: str, way: Direction) -> None:
    assert text.direction([given]) == way


def test_text_without_letters_has_no_direction_of_its_own() -> None:
    assert text.direction(["123 ... !"], Direction.RTL) == Direction.RTL
    assert text.direction(["123", " «", "اردو"]) == Direction.RTL


@pytest.mark.parametrize(
    ("given", "language"),
    [
        ("English", ""),
        ("اردو ہے", "ur"),
        ("العربية لغة جميلة", "ar"),
        ("کتاب", "fa"),
        ("हिन्दी में लिखा", "hi"),
        ("One हिन्दी word in a long English sentence", ""),
        ("日本語です", "ja"),
        ("中文", "zh"),
        ("한국어", "ko"),
        ("עברית", "he"),
        ("русский", ""),
    ],
)
def test_language_is_told_by_the_letters(given: str, language: str) -> None:
    assert text.language(given) == language


def test_what_leaves_its_language_open_has_that_of_before() -> None:
    assert text.language("سلام", "ur") == "ur"
    assert text.language("السلامة", "ur") == "ar"


@given(st.text(), st.integers(3, 60))
def test_pieces_are_the_text(given: str, most: int) -> None:
    joined = "".join(text.pieces(given, most, max(2, most // 4)))

    assert joined.replace(text.ZERO_WIDTH_SPACE, "") == given.replace(text.ZERO_WIDTH_SPACE, "")


@given(st.text(st.sampled_from("aW0/()[]\"'.-漢字かーّ👩🏽\u200dक्षกے“”"), min_size=40, max_size=300))
def test_no_piece_is_too_wide(given: str) -> None:
    for piece in text.pieces(given):
        # What a line may end in anyway is wide; nothing else is.
        for word in _unbroken(piece):
            assert text.width(word) <= text.LONG_WORD + 4 * text.STEP


def _unbroken(piece: str) -> list[str]:
    """The stretches of `piece` in which a line can't end, if it can between Han letters, kana and pictures."""
    found, start = [], 0
    for at in range(1, len(piece)):
        if piece[at - 1] in "漢字かー👩" and piece[at] in "漢字か👩":
            found.append(piece[start:at])
            start = at
    return [*found, piece[start:]]


def test_ordinary_text_is_one_piece() -> None:
    for ordinary in (
        "Several ordinary words, and donaudampfschifffahrt.",
        "漢字とひらがな、カタカナ。" * 9,
        "یہ ایک عام جملہ ہے۔",
    ):
        assert text.pieces(ordinary) == [ordinary]


def test_pieces_keep_together_what_is_one_letter() -> None:
    for letter in ("👩‍👩‍👧‍👦", "🇵🇰", "👍🏽", "क्ष", "e\u0301", "1️⃣"):
        pieces = text.pieces(letter * 60)
        assert all(piece.replace("\u200b", "").replace(letter, "") == "" for piece in pieces), letter


def test_emoji_are_told_from_text() -> None:
    runs = list(text.with_emoji("a 😀👩‍👩‍👧 b ✅ c ☎ d ☎️ 1️⃣ 2 🇵🇰© ©️"))

    assert [part for is_emoji, part in runs if is_emoji] == ["😀👩‍👩‍👧", "✅", "☎️", "1️⃣", "🇵🇰", "©️"]
    assert "".join(part for _, part in runs) == "a 😀👩‍👩‍👧 b ✅ c ☎ d ☎️ 1️⃣ 2 🇵🇰© ©️"
