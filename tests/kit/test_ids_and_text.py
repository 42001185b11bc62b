"""Identifiers that sort by time; texts that can be stored."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baatcheet.kit.ids import new_id, parse_id
from baatcheet.kit.text import headline, is_invisible, printable, storable, uncontrolled, unstorable


def test_ids_are_strictly_increasing_and_of_version_seven() -> None:
    made = [new_id() for _ in range(5000)]
    assert made == sorted(set(made))
    assert {one.version for one in made} == {7}
    assert {one.variant for one in made} == {"specified in RFC 4122"}


def test_ids_made_by_many_threads_are_all_different() -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: new_id(), range(5000)))
    assert len(set(made)) == 5000


def test_an_id_tells_when_it_was_made() -> None:
    millis = new_id().int >> 80
    assert abs(millis - time.time() * 1000) < 2000


ONE = "0190f3a2-7c1e-7d4b-9a51-3f0c2b8e6d10"


@pytest.mark.parametrize(
    "text", ["", "x", ONE[:-1], ONE.replace("-", ""), "{" + ONE + "}", "urn:uuid:" + ONE, ONE + "\n"]
)
def test_only_the_canonical_form_is_an_id(text: str) -> None:
    assert parse_id(text) is None


def test_an_id_is_read_in_either_case() -> None:
    one = new_id()
    assert parse_id(str(one)) == parse_id(str(one).upper()) == one


@given(st.text(alphabet=st.characters(codec=None)))
def test_what_is_made_storable_can_be_stored(text: str) -> None:
    made = storable(text)
    assert unstorable(made) is None
    made.encode()
    assert (unstorable(text) is None) == (made == text)


@pytest.mark.parametrize(("text", "name"), [("a\x00", "U+0000"), ("\ud800", "U+D800"), ("x\udfff", "U+DFFF")])
def test_what_cannot_be_stored_is_named(text: str, name: str) -> None:
    problem = unstorable(text)
    assert problem is not None
    assert name in problem


@given(st.text(), st.integers(2, 80))
def test_a_headline_is_one_line_within_its_limit(text: str, limit: int) -> None:
    line = headline(text, limit)
    assert len(line) <= limit
    assert line == " ".join(line.split())
    assert uncontrolled(line) is None


@given(st.text(alphabet=st.characters(codec=None)))
def test_what_is_made_printable_moves_no_cursor(text: str) -> None:
    shown = printable(text)
    shown.encode()
    assert uncontrolled(shown) is None
    assert "\u202e" not in shown


@pytest.mark.parametrize(
    "name",
    ["علی‌رضا", "नेहा", "👩‍🚀", "Zoë-\u00a0B.", "😀", "\u200fعلی\u200f", "🏴\U000e0067\U000e0062\U000e007f"],
)
def test_a_name_in_any_script_is_seen_and_printed_as_it_is(name: str) -> None:
    assert not is_invisible(name)
    assert uncontrolled(name) is None
    assert printable(name) == name


@pytest.mark.parametrize("name", ["", " ", "\u200b\u2060", "\ufe0f", "\u034f\u0301", "\u3164"])
def test_a_name_of_which_nothing_is_seen_is_told(name: str) -> None:
    assert is_invisible(name)
