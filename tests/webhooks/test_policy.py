"""What follows from an answer, and who gets an event."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baatcheet.events.catalogue import CATALOGUE, WEBHOOK_TYPES, EventType
from baatcheet.webhooks.policy import cut, is_hopeless, objection, wants, wished_pause

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


@given(st.integers(100, 999))
def test_only_an_answer_between_200_and_299_is_success(status: int) -> None:
    assert (objection(status, None) is None) == (200 <= status < 300)


def test_an_objection_is_in_words() -> None:
    assert objection(500, None) == "The receiver answered 500 Internal Server Error."
    assert objection(599, None) == "The receiver answered 599."
    said = objection(301, "https://elsewhere.example/")
    assert said is not None
    assert "redirects to https://elsewhere.example/ (status 301)" in said
    assert "not followed" in said


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120.0),
        (" 7 ", 7.0),
        ("0", 0.0),
        ("999999999999999999", 86_400.0),
        (format_datetime(NOW + timedelta(minutes=2), usegmt=True), 120.0),
        (format_datetime(NOW - timedelta(minutes=2), usegmt=True), 0.0),
        ("Wed, 25 Nov 2026 12:01:00 -0000", 60.0),
        ("soon", None),
        ("-5", None),
        ("", None),
        ("٣", None),
        ("Mon, 01 Jan 2024 00:00:00 +99999999999999999999", None),
        ("Mon, 01 Jan 99999999999999999999 00:00:00 GMT", None),
        (None, None),
    ],
)
def test_a_busy_receivers_wish_is_seconds_or_a_date_and_a_day_at_most(
    header: str | None, seconds: float | None
) -> None:
    assert wished_pause(429, header, NOW) == seconds
    assert wished_pause(503, header, NOW) == seconds
    assert wished_pause(500, header, NOW) is None


@given(st.text(max_size=40) | st.from_regex(r"Mon, \d{1,9} Jan \d{1,25} \d{1,25}:\d\d:\d\d [+-]\d{1,25}"))
def test_any_retry_after_is_read_without_an_error(header: str) -> None:
    pause = wished_pause(429, header, NOW)
    assert pause is None or 0 <= pause <= 86_400


@given(st.text(), st.integers(0, 64))
def test_a_text_is_cut_at_a_characters_end(text: str, limit: int) -> None:
    text = text.encode(errors="ignore").decode()
    short, was_cut = cut(text, limit)
    assert text.startswith(short)
    assert len(short.encode()) <= limit
    assert was_cut == (len(text.encode()) > limit)
    if was_cut:
        assert len(short.encode()) > limit - 4


@given(st.sampled_from(CATALOGUE))
def test_a_filter_takes_a_type_its_group_or_everything(kind: EventType) -> None:
    name, allowed = kind.name, kind.name in WEBHOOK_TYPES
    group = name.partition(".")[0]
    for names in ((name,), (f"{group}.*",), ("*",), ("turn.failed", name)):
        assert wants(names, name) == allowed
    assert not wants(("nothing.*", f"{group}.nothing"), name)


def test_a_group_is_not_taken_for_another_whose_name_begins_alike() -> None:
    assert wants(("turn.*",), "turn.completed")
    assert not wants(("tur.*",), "turn.completed")
    assert not wants(("turn",), "turn.completed")
    assert not wants(("*",), "job.updated")


def test_an_endpoint_is_given_up_after_days_of_failure_and_not_at_a_first_attempt() -> None:
    long_ago, lately = NOW - timedelta(days=6), NOW - timedelta(days=4)
    assert is_hopeless(long_ago, NOW, attempt=3, days=5)
    assert not is_hopeless(long_ago, NOW, attempt=1, days=5)
    assert not is_hopeless(lately, NOW, attempt=9, days=5)
