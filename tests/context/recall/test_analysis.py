"""Terms and passages: nothing of a text is lost, and what is the same to a reader is the same to the index."""
# ruff: noqa: RUF001 - Urdu letters that look like Latin ones are meant.

import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baatcheet.context.recall import scripts, signs
from baatcheet.context.recall.analysis import is_roman, passages, terms

WORDS = st.sampled_from(
    [
        "Lahore",
        "لاہور",
        "कमरा",
        "a_b.c",
        "2023-05-05",
        "don't",
        "我喜欢",
        "\n",
        "\n\n",
        "۔ ",
        ". ",
        "   ",
        "👩‍👩‍👧",
        "ء",
    ]
)
TEXTS = st.one_of(st.text(max_size=3000), st.lists(WORDS, max_size=900).map("".join))


@settings(max_examples=150, deadline=None)
@given(TEXTS)
def test_passages_follow_each_other_and_cover_the_text(text: str) -> None:
    found = passages(text)
    assert "".join(text[one.start : one.end] for one in found) == text
    assert all(before.end == after.start for before, after in pairwise(found))
    assert all(one.start < one.end for one in found[1:])


@given(st.text(max_size=500))
def test_terms_are_the_same_every_time_and_never_empty(text: str) -> None:
    first = terms(text)
    assert first == terms(text)
    assert all(first)


def test_a_short_message_is_one_passage() -> None:
    assert len(passages("I went to the museum. " * 20)) == 1


def test_a_long_message_is_cut_at_the_ends_of_sentences_and_paragraphs() -> None:
    text = "\n\n".join("The committee met again and agreed on the plan. " * 8 for _ in range(10))
    found = passages(text)
    assert len(found) > 5
    assert all(text[one.start : one.end].rstrip().endswith(".") for one in found)
    assert all(120 < one.end - one.start <= 750 for one in found)


@pytest.mark.parametrize("end", ["۔ ", "। ", "。", "؟ "])
def test_urdu_hindi_and_chinese_sentences_are_kept_whole(end: str) -> None:
    sentence = "یہ ایک جملہ ہے جو کافی لمبا ہے" + end
    text = sentence * 80
    found = passages(text)
    assert len(found) > 3
    assert all(text[: one.end].endswith(end) for one in found)


@pytest.mark.parametrize(
    "text", ["a" * 500_000, "ا" * 500_000, "我" * 200_000, "\n" * 500_000, "1," * 200_000, "a_" * 200_000]
)
def test_a_megabyte_without_a_blank_takes_no_quadratic_time(text: str) -> None:
    begun = time.process_time()
    found = passages(text)
    assert time.process_time() - begun < 15
    assert found[-1].end == len(text)
    assert max(one.end - one.start for one in found) < 800


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Lahore", "لاہور"),
        ("Lahore", "लाहौर"),
        ("Karachi", "کراچی"),
        ("Fatima", "فاطمہ"),
        ("Shaadi", "شادی"),
        ("Shadi", "शादी"),
    ],
)
def test_a_name_is_found_in_another_script(one: str, other: str) -> None:
    bones = {term for term in terms(one) if term.startswith("^")}
    assert bones
    assert bones <= set(terms(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("كتاب", "کتاب"),
        ("کتابیں", "کتاب"),
        ("مَیں پاكِستان", "میں پاکستان"),
        ("ज़मीन", "जमीन"),
        ("bought children", "buy child"),
        ("5th", "5"),
        ("1,200", "1200"),
        ("۱۲", "12"),
        ("café", "cafe"),
    ],
)
def test_spellings_of_one_word_give_the_same_term(one: str, other: str) -> None:
    assert [term for term in terms(one) if term[0] not in "~^"] == [
        term for term in terms(other) if term[0] not in "~^"
    ]


def test_words_alike_in_meaning_share_a_concept_across_languages() -> None:
    for text in ("my profession", "meri naukri kya hai", "میری ملازمت", "मेरा पेशा"):
        assert "~job" in terms(text), text


def test_a_thing_gives_its_kind() -> None:
    assert "~activity" in terms("pottery")
    assert "~activity" not in terms("pension")


def test_identifiers_are_kept_whole_and_in_parts() -> None:
    found = terms("see load_user_by_id in src/app/main.py and getUserName")
    assert {"load_user_by_id", "load", "user", "src/app/main.py"} <= set(found)


def test_a_speaker_before_a_colon_is_a_mark_and_not_a_word() -> None:
    found = terms("Caroline: I went hiking")
    assert "@carolin" in found
    assert "carolin" not in found


def test_common_words_of_each_language_are_left_out() -> None:
    assert terms("what is the of and") == []
    assert terms("یہ کیا ہے اور") == []
    assert terms("यह क्या है और") == []
    assert terms("yeh kya hai aur mein") == []


def test_roman_urdu_is_told_from_english() -> None:
    assert is_roman("mera passport kab khatam ho raha hai")
    assert not is_roman("The main thing is to be there on time")


def test_signs_tell_dates_money_and_questions() -> None:
    def of(text: str) -> int:
        return passages(text)[0].signals

    assert of("We met on Monday, it cost $40") & signs.DATE
    assert of("It cost 500 rupees") & signs.MONEY
    assert of("Did you like it?") & signs.QUESTION
    assert of("آپ کیسے ہیں؟") & signs.QUESTION
    assert of("Thanks! That's great.") & signs.CHATTER
    assert not of("Thanks! The visa came on Monday.") & signs.CHATTER


def test_the_length_of_a_passage_counts_words_and_not_concepts() -> None:
    one = passages("My profession is teaching in Lahore")[0]
    assert one.length == len(
        [term for term in terms("My profession is teaching in Lahore") if term[0] not in "~^"]
    )
    assert one.length < sum(one.terms.values())


@given(st.text(alphabet="abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=20))
def test_a_skeleton_has_no_vowels(word: str) -> None:
    assert not set(scripts.skeleton(word)) & set("aeiou")
