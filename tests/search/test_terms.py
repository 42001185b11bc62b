"""What a text gives to the index: nothing is lost, and what is the same to a reader is the same to the index."""
# ruff: noqa: RUF001 - letters that look like others are meant.

import time
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from baatcheet.search.query import matches, parse
from baatcheet.search.snippets import Snippets
from baatcheet.search.terms import LARGEST_PIECE, LONGEST, analyse, pair, pieces, stem, words_of
from tests.search.texts import texts

NAMES = st.lists(st.from_regex("[a-z]{2,8}", fullmatch=True), min_size=2, max_size=4)
STYLES: dict[str, Callable[[list[str]], str]] = {
    "snake_case": "_".join,
    "SCREAMING_SNAKE": lambda parts: "_".join(parts).upper(),
    "kebab-case": "-".join,
    "camelCase": lambda parts: parts[0] + "".join(part.capitalize() for part in parts[1:]),
    "PascalCase": lambda parts: "".join(part.capitalize() for part in parts),
    "a/path.py": lambda parts: "/".join(parts) + ".py",
    "dotted.name": ".".join,
    "cpp::name": "::".join,
    "arrow->name": "->".join,
    "host@name": lambda parts: "@".join((parts[0], ".".join(parts[1:]))),
    "_private_": lambda parts: f"__{'_'.join(parts)}__",
    "call(name)": lambda parts: f"{'_'.join(parts)}()",
}


def finds(query: str, text: str) -> bool:
    return matches(parse(query), text)


@given(texts())
@example("foo_bar\ufdfa")  # a letter that is four words
@settings(max_examples=150)
def test_any_text_can_be_analysed(text: str) -> None:
    analysis = analyse(text)
    assert analysis.length == len(words_of(text))
    assert analysis.words == {term[1:] for term in analysis.terms if term[0] == "w"}
    assert set(words_of(text)) <= analysis.words
    for term, times in analysis.terms.items():
        assert term[0] in "wsr2p"
        assert 1 < len(term) <= LONGEST
        assert times >= 1
        assert len(term) == {"2": 4, "p": 3}.get(term[0], len(term))
        assert not any(character.isspace() for character in term)


@given(texts())
@settings(max_examples=150)
def test_every_two_neighbours_are_known_as_a_pair(text: str) -> None:
    terms = analyse(text).terms
    pairs = {pair(one, two) for one, two in pairwise(words_of(text))}
    assert {term for term in terms if term[0] == "2"} == pairs


def test_a_pair_is_told_from_its_reverse_and_stays_the_same_in_every_process() -> None:
    """A stored index was written by another process, of another year."""
    assert pair("quick", "brown") == "2_6a"
    assert pair("brown", "quick") == "24Sn"
    assert len({pair(f"a{n}", f"b{n}") for n in range(2_000)}) > 1_980


def test_words_are_counted() -> None:
    analysis = analyse("The cat, the dog and the other cats.")
    assert analysis.length == 8
    assert analysis.terms["wthe"] == 3
    assert analysis.terms["wcat"] == 1
    assert analysis.terms["scat"] == 1
    assert "scats" not in analysis.terms
    assert analysis.terms["pth"] == 3


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("كتاب", "کتاب"),
        ("لاهور", "لاہور"),
        ("پاکستاني", "پاکستانی"),
        ("۲۰۲۳", "2023"),
        ("٢٠٢٣", "2023"),
        ("२०२३", "2023"),
        ("مُحَمَّد", "محمد"),
        ("می\u200cروم", "میروم"),
        ("کتـــاب", "کتاب"),
        ("أحمد", "احمد"),
        ("ﻛﺘﺎﺏ", "کتاب"),
        ("ज़रूर", "जरूर"),
        ("ज\u093cरूर", "ज़रूर"),
        ("हँसना", "हंसना"),
        ("café", "CAFE"),
        ("cafe\u0301", "café"),
        ("naïve", "naive"),
        ("Straße", "STRASSE"),
        ("Łódź", "lodz"),
        ("Điện", "dien"),
        ("ế", "e"),
        ("Ёлка", "елка"),
        ("ΑΘΗΝΑ", "Αθήνα"),
        ("İstanbul", "istanbul"),
        ("ＡＢＣ", "abc"),
        ("co\u00adoperate", "cooperate"),
        ("don’t", "don't"),
        ("dont", "don't"),
        ("1,000,000", "1000000"),
        ("1,00,000", "100000"),
        ("user's", "user"),
        ("USER’S", "user"),
    ],
)
def test_variants_of_a_word_are_the_same_word(one: str, other: str) -> None:
    assert words_of(one) == words_of(other) != []
    assert finds(one, f"a {other}, b")
    assert finds(other, f"a «{one}» b")


@pytest.mark.parametrize(
    ("one", "other"),
    [("й", "и"), ("Lahore", "Karachi"), ("کتاب", "خواب"), ("1,000", "1"), ("c++", "c#"), ("can", "can't")],
)
def test_what_is_another_word_is_another_word(one: str, other: str) -> None:
    assert not finds(one, f"a {other} b")


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("run", "we were running"),
        ("running", "they run"),
        ("buy", "she bought it"),
        ("studies", "to study"),
        ("کتاب", "بہت سی کتابیں"),
        ("کتابوں", "ایک کتاب"),
        ("لڑکے", "ایک لڑکا"),
        ("किताब", "बहुत सी किताबें"),
        ("लड़के", "एक लड़का"),
        ("كتاب", "هذا الكتاب جميل"),
        ("الكتاب", "كتاب جديد"),
    ],
)
def test_other_forms_of_a_word_are_found(query: str, text: str) -> None:
    assert finds(query, text)


def test_an_urdu_word_that_begins_like_the_arabic_article_keeps_its_beginning() -> None:
    assert stem("الماری") != stem("ماری")
    assert stem("والدین") != stem("دین")


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("kitaab", "meri kitab kahan hai bhai"),
        ("kitab", "meri kitaab kahan hai bhai"),
        ("nahi", "mujhe ye pasand nahee hai"),
        ("khoobsurat", "wo bohat khubsurat hai yar"),
        ("zindagi", "zindagee bohat mushkil hai"),
        ("kitab", "Kitaab"),
        ("kitaab", "aur phir us ne kaha ke meri kitab wahan nahi hai to main chala gaya"),
    ],
)
def test_roman_urdu_is_found_in_another_spelling(query: str, text: str) -> None:
    assert finds(query, text)


def test_english_is_not_read_as_roman_urdu() -> None:
    text = "We will meet at the book shop, and look for a good week to do this."
    assert not any(term[0] == "r" for term in analyse(text).terms)
    assert not finds("mit", text)
    assert not finds("luk", text)


@given(NAMES, st.sampled_from(sorted(STYLES)))
@settings(max_examples=150)
def test_an_identifier_is_found_whole_and_by_every_part(parts: list[str], style: str) -> None:
    name = STYLES[style](parts)
    text = f"Look at `{name}`, please."
    assert finds(name, text)
    assert finds(name.lower(), text)
    for part in parts:
        assert finds(part, text)
        assert finds(part.upper(), text)


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("foo_bar", "fooBar()"),
        ("fooBar", "the foo_bar setting"),
        ("foo-bar", "foo_bar"),
        ("foobar", "foo-bar"),
        ("email", "by e-mail"),
        ("e-mail", "by email"),
        ("foo bar", "fooBar"),
        ("main.py", "in src/app/main.py:12"),
        ("app/main.py", "in src/app/main.py"),
        ("http", "HTTPServer"),
        ("server", "HTTPServer"),
        ("sha", "sha256"),
        ("256", "sha256"),
        ("c++", "in C++ or so"),
        ("c#", "C#"),
        ("c", "C++"),
        ("homme", "l'homme"),
        ("O'Brien", "obrien"),
        ("gpt-4o", "with gpt-4o, say"),
        ("3.14", "about 3.14."),
        ("192.168.0.1", "host 192.168.0.1:80"),
        ("example.com", "https://www.example.com/path?x=1"),
        ("someone@example.com", "<someone@example.com>"),
        ("--force", "git push --force"),
        ("API", "یہAPIہے"),
        ("日本", "我在日本語学校"),
        ("語", "日本語"),
        ("한국", "한국어를"),
    ],
)
def test_names_are_found_however_they_are_written(query: str, text: str) -> None:
    assert finds(query, text)


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("foo_bar", "foo and bar"),
        ("foo_bar", "bar_foo"),
        ("main.py", "main.rs and a.py"),
        ("日本", "本日"),
        ("3.14", "14.3"),
        ("net", "internet"),
    ],
)
def test_names_that_are_not_there_are_not_found(query: str, text: str) -> None:
    assert not finds(query, text)


def test_what_looks_like_a_code_is_one_word() -> None:
    assert analyse("aGVsbG8gd29ybGQgYm9vazEyMzQ1Njc4OTA").words == {"agvsbg8gd29ybgqgym9vazeymzq1njc4ota"}
    assert "code" not in analyse("aB" * 9 + "Code").words
    assert analyse("550e8400").words == {"550e8400"}


@pytest.mark.parametrize(
    "word", ["x" * 5_000, "x" * 63, "x" * 64, "é" * 200, "ß" * 40, "x" * 70 + "." + "y" * 70]
)
def test_a_very_long_word_is_found(word: str) -> None:
    assert finds(word, f"so {word} it is")
    assert max(map(len, analyse(word).terms)) <= LONGEST


@given(texts())
@settings(max_examples=250)
@example("a,b++ 1,000# x'a,b")
@example("ﷺ ½ ㎞ … ﬁ")
def test_a_text_is_found_by_each_of_its_words(text: str) -> None:
    for characters in text.split():
        query = parse(characters.lstrip('-"“”„‟«»'))
        if query.clauses and not query.dropped:
            assert matches(query, text), characters


@given(texts(), st.integers(0, 40))
@settings(max_examples=80)
def test_pieces_are_all_of_a_text(text: str, times: int) -> None:
    text = (text + " ") * times * 20
    made = pieces(text)
    assert (made[0][0], made[-1][1]) == (0, len(text))
    shared = [end - start for (_, end), (start, _) in pairwise(made)]
    assert all(0 < characters <= 300 for characters in shared), "each begins with the end of the one before"
    assert all(end - start <= LARGEST_PIECE for start, end in made)
    assert len(made) == 1 or all(end - start >= 1_000 for start, end in made)


@pytest.mark.parametrize("mark", ["\n\n", "\n", ". ", " ", "۔", "。"])
def test_pieces_end_where_something_ends(mark: str) -> None:
    text = ("x" * 150 + mark) * 200
    made = pieces(text)
    assert 6 <= len(made) <= 11
    assert all(text[:end].endswith(mark) for _, end in made)


def test_a_text_of_sixteen_megabytes_is_cut_and_analysed_by_the_piece() -> None:
    text = "lorem " * 2_800_000
    began = time.process_time()
    made = pieces(text)
    assert time.process_time() - began < 1
    assert len(made) < 5_700
    assert analyse(text[slice(*made[-1])]).words == {"lorem"}


def test_english_is_analysed_quickly() -> None:
    """Two megabytes a second is the aim; half of it must hold on a busy machine."""
    words = [
        f"{beginning}{end}"
        for beginning in ("walk", "talk", "start", "end")
        for end in ("", "s", "ed", "ing")
    ]
    text = " ".join(words[(n * n) % len(words)] + (".", "", "", ",")[n % 4] for n in range(900))
    rounds = []
    for _ in range(5):
        began = time.process_time()
        for _ in range(20):
            analyse(text)
        rounds.append(time.process_time() - began)
    assert 20 * len(text) / min(rounds) > 1_000_000


@pytest.mark.parametrize(
    "part", ["a.", "a'", "'s", ",", "1,", "_", "aA", "((x", "\u0301", "ھ", "好", '"', " a"]
)
def test_nothing_that_can_be_written_takes_long(part: str) -> None:
    text = (part * 6_000)[:6_000]
    began = time.process_time()
    analyse(text)
    query = parse(text)
    matches(query, text)
    Snippets(query).of(text)
    Snippets(parse('"' + part * 30)).of(text)
    assert time.process_time() - began < 2
