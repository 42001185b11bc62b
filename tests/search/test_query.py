"""Any text is a query, and it finds what a person means by it."""
# ruff: noqa: RUF001 - letters that look like others are meant.

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from baatcheet.search.query import MOST_WORDS, Leaf, Query, confirms, matches, parse
from baatcheet.search.terms import LONGEST, analyse, words_of
from tests.search.texts import texts

QUOTES = re.compile('["“”„‟«»]')


def finds(query: str, text: str, *, typing: bool = False) -> bool:
    return matches(parse(query, typing=typing), text)


def leaves(query: Query) -> list[Leaf]:
    return [*query.excluded, *(leaf for clause in query.clauses for leaf in clause.leaves)]


@given(texts(), st.booleans())
@settings(max_examples=200)
@example(text='"', typing=True)
@example(text='-""-"" or -or or"or', typing=True)
@example(text="- -- --- -\u200c or - or", typing=True)
def test_any_text_is_a_query(text: str, typing: bool) -> None:
    query = parse(text, typing=typing)
    used = 0
    for leaf in leaves(query):
        assert leaf.text
        assert leaf.groups
        assert all(leaf.groups)
        for term in (term for group in leaf.groups for term in group):
            assert term[0] in "wsr2p"
            assert 1 < len(term) <= LONGEST
        assert leaf.prefix is None or 3 <= len(leaf.prefix) < LONGEST
        assert len(leaf.phrase) != 1
        used = max(used, len(leaf.phrase))
    assert used <= MOST_WORDS
    assert len(query.clauses) <= MOST_WORDS
    assert all(clause.leaves for clause in query.clauses)
    words = words_of(QUOTES.sub(" ", text))
    assert (
        max(0, len(words) - words.count("or") - MOST_WORDS)
        <= query.dropped
        <= max(0, len(words) - MOST_WORDS)
    )


@given(texts(), texts(), st.booleans())
@settings(max_examples=150)
def test_any_query_may_be_put_to_any_text(asked: str, text: str, typing: bool) -> None:
    query = parse(asked, typing=typing)
    found = matches(query, text)
    assert not found or confirms(query, text)
    assert query.has_phrase or confirms(query, text)


@given(texts(), st.data())
@settings(max_examples=200)
def test_a_text_has_every_phrase_of_its_own_words(text: str, data: st.DataObject) -> None:
    runs = QUOTES.sub(" ", text).split()
    text = " ".join(runs)
    start = data.draw(st.integers(0, len(runs)))
    end = data.draw(st.integers(start, len(runs)))
    query = parse(f'"{" ".join(runs[start:end])}"')
    assert confirms(query, text)
    assert matches(query, text) == bool(words_of(" ".join(runs[start:end])))
    against = parse(f'-"{" ".join(runs[start:end])}"')
    if any(leaf.phrase for leaf in against.excluded):
        assert not confirms(against, text)


@given(texts(), st.data())
@settings(max_examples=150)
def test_what_is_being_typed_finds_what_it_will_be(text: str, data: st.DataObject) -> None:
    """Each beginning of a word of the text, after the words before it, finds the text."""
    words = [one for one in words_of(text) if one.isascii() and one.isalpha() and one != "or"]
    if not words:
        return
    word = data.draw(st.sampled_from(words))
    for end in range(2, len(word) + 1):
        assert finds(f"{words[0]} {word[:end]}", text, typing=True)


@pytest.mark.parametrize(
    ("query", "found", "not_found"),
    [
        ("red apple", ["the apple is red", "red apples"], ["a red pear", "apple"]),
        ('"red apple"', ["a Red, apple!", "red\napple"], ["apple red", "red sweet apple", "red apples"]),
        ('"red', ["red"], ["reds", "blue"]),
        ('"red apple', ["red apple pie"], ["apple red"]),
        ("“red apple”", ["a red apple"], ["apple red"]),
        ("«red apple»", ["a red apple"], ["apple red"]),
        ('"red" apple', ["apple red", "red apples"], ["reds apple"]),
        ("apple -red", ["apple", "apple redder"], ["red apple", "apple reds"]),
        ('apple -"red apple"', ["apple red"], ["red apple", "a red apple is an apple"]),
        ('apple - "red pear"', ["apple, red pear"], ["apple"]),
        ("apple -", ["apple"], ["pear"]),
        ("apple --red", ["apple --red"], ["apple"]),
        ("apple-red", ["apple red", "apple-red"], ["red apple", "apple"]),
        ("red or blue", ["red", "blue", "red blue"], ["green", "or"]),
        ("red OR blue OR green", ["red", "blue", "green"], ["or"]),
        ("sweet red or blue pie", ["sweet red pie", "pie sweet blue"], ["sweet pie", "red pie"]),
        ('"red pie" or "blue cake"', ["a red pie", "a blue cake"], ["red cake", "blue pie", "cake blue"]),
        ('"red pie" or cakes', ["red pie", "one cake"], ["pie red"]),
        ("or", ["this or that"], ["this"]),
        ("or red", ["red or blue"], ["red"]),
        ("red or", ["red or blue"], ["red"]),
        ("red or -blue", ["red or green"], ["red", "red or blue"]),
        ("red or or blue", ["red blue", "or blue"], ["red"]),
        ('"or"', ["this or that"], ["this"]),
        ("red red or blue", ["red"], ["blue"]),
        ("RED Apple", ["red apple"], []),
        ("red,apple;pie", ["pie of an apple that is red"], ["red apple"]),
        ("f(x)", ["x of f"], ["f"]),
        ("std::vector<int>", ["std::vector<int> v", "std vector int"], ["int std vector"]),
        ("a->b", ["a.b", "a->b"], ["b a"]),
        ("user-friendly", ["user-friendly", "user friendly", "userfriendly"], ["friendly user"]),
        ("-foo_bar baz", ["baz foo bat", "baz"], ["baz foo_bar", "baz fooBar", "baz foo bar"]),
        ("日本語", ["日本語を"], ["語本日", "日本 本語"[:2]]),
        ('"لاهور شهر"', ["لاہور شہر میں"], ["شہر لاہور"]),
        ('"don\'t panic"', ["Don’t panic!"], ["panic, don't"]),
        ("don't", ["I dont know"], ["don"]),
    ],
)
def test_what_a_query_finds(query: str, found: list[str], not_found: list[str]) -> None:
    assert [text for text in found if not finds(query, text)] == []
    assert [text for text in not_found if finds(query, text)] == []


@pytest.mark.parametrize(
    ("query", "found", "not_found"),
    [
        ("photo", ["photosynthesis", "photos", "photo"], ["graph", "pho"]),
        ("ph", ["photo", "phone", "ph"], ["p", "graph"]),
        ("p", ["p"], ["photo"]),
        ("blue pho", ["blue phone"], ["phone", "blues"]),
        ("photo ", ["photos"], ["photosynthesis"]),
        ("pho blue", ["pho blue"], ["phone blue"]),
        ("getUs", ["getUserName()"], ["useGet"]),
        ("user", ["getUserName()", "users"], ["use"]),
        ("foo_ba", ["foo_bar", "fooBar", "foo bar"], ["bar foo", "foo"]),
        ("foo_", ["foo_bar", "food"], ["fo"]),
        ("src/ap", ["in src/app/main.py"], ["src/main.py"]),
        ('"red app', ["a red apple", "red app"], ["apple red", "red pear"]),
        ('"red ap', ["a red apple"], ["red pear"]),
        ('"red a', ["red pear"], ["green"]),
        ('"red app"', ["red app"], ["red apple"]),
        ("red -app", ["red apple"], ["red app"]),
        ("لاہ", ["شہر لاہور"], ["شہر"]),
        ("लाह", ["शहर लाहौर"], ["शहर"]),
        ("日本", ["日本語"], ["本日"]),
        ("pho,gra", ["pho gravel"], ["photo gravel"]),
        ("red or blu", ["blues", "red", "bluebird"], ["green"]),
    ],
)
def test_what_is_found_while_one_types(query: str, found: list[str], not_found: list[str]) -> None:
    assert [text for text in found if not finds(query, text, typing=True)] == []
    assert [text for text in not_found if finds(query, text, typing=True)] == []


def test_a_prefix_is_looked_for_only_while_one_types() -> None:
    (leaf,) = leaves(parse("Photo", typing=True))
    assert leaf.prefix == "photo"
    assert leaf.groups[-1][0] == "wphoto"
    (leaf,) = leaves(parse("Photo"))
    assert leaf.prefix is None
    assert leaves(parse("photo ", typing=True))[0].prefix is None
    assert [one.prefix for one in leaves(parse("photo graph", typing=True))] == [None, "graph"]


def test_only_what_is_not_to_be_there_is_no_query_and_says_so() -> None:
    query = parse('-red -"blue sky"')
    assert query.clauses == ()
    assert [leaf.text for leaf in query.excluded] == ["red", "blue sky"]
    assert not matches(query, "green")


@pytest.mark.parametrize("text", ["", " ", "!?", '"', '""', "-", "🎉", "\u200c", '-""'])
def test_a_text_without_words_has_no_clauses(text: str) -> None:
    assert parse(text) == Query(())


def test_the_words_that_are_too_many_are_dropped_and_counted() -> None:
    words = [f"word{number}x" for number in range(50)]
    query = parse(" ".join(words))
    assert [clause.leaves[0].text for clause in query.clauses] == words[:MOST_WORDS]
    assert query.dropped == 50 - MOST_WORDS
    phrase = parse('"' + " ".join(words) + '" more -less')
    assert phrase.clauses[0].leaves[0].phrase == tuple(words[:MOST_WORDS])
    assert (len(phrase.clauses), phrase.excluded, phrase.dropped) == (1, (), 50 - MOST_WORDS + 2)
    assert parse(" ".join(words[:MOST_WORDS])).dropped == 0
    assert len(parse(" or ".join(words)).clauses[0].leaves) == MOST_WORDS


def test_the_same_word_twice_is_looked_for_once() -> None:
    assert parse("red Red red") == parse("red red") != parse("red blue")
    assert [clause.leaves[0].text for clause in parse("red Blue Red blue").clauses] == ["red", "Blue"]
    assert len(parse("-red apple -Red").excluded) == 1


def test_a_phrase_is_looked_for_by_its_words_and_by_its_pairs() -> None:
    (leaf,) = leaves(parse('"the quick brown"'))
    terms = analyse("the quick brown").terms
    assert all(any(term in terms for term in group) for group in leaf.groups)
    assert sum(group[0].startswith("2") for group in leaf.groups) == 2
    swapped = analyse("quick the brown").terms
    assert not all(any(term in swapped for term in group) for group in leaf.groups)


def test_the_index_may_be_wrong_of_a_phrase_and_the_text_says_so() -> None:
    """All its words and pairs are there, only not together."""
    text = "red green, green blue"
    query = parse('"red green blue"')
    (leaf,) = leaves(query)
    terms = analyse(text).terms
    assert all(any(term in terms for term in group) for group in leaf.groups)
    assert not confirms(query, text)


def test_a_word_is_enough_where_a_phrase_or_a_word_is_looked_for() -> None:
    query = parse('"red pie" or cakes')
    assert confirms(query, "a cake")
    assert confirms(parse('"red pie" or kitaab'), "meri kitab kahan hai bhai")
    assert confirms(parse('"red pie" or cak', typing=True), "the caked mud")
    assert not confirms(query, "a pie, red")


def test_a_page_pasted_is_a_query_too() -> None:
    query = parse('x" -y or ' * 20_000)
    assert query.dropped > 20_000
