"""Framing and parsing server-sent events."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baatcheet.kit import sse

LINES = st.binary(max_size=12).filter(lambda line: b"\n" not in line and b"\r" not in line)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    """A stream as a server may write it, and the data of its events."""
    written, expected = b"", []
    for _ in range(draw(st.integers(0, 6))):
        end, data = draw(ENDS), draw(st.lists(LINES, max_size=3))
        for line in data:
            written += (
                draw(st.sampled_from([b": comment", b"id: 7", b"event: x", b"retry: 5", b"unknown"])) + end
            )
            written += b"data: " + line + end
        written += end
        if data:
            expected.append(b"\n".join(data))
    return written, expected


def parse(*blocks: bytes) -> list[bytes]:
    parser = sse.Parser()
    events = [event for block in blocks for event in parser.feed(block)]
    return events + parser.close()


@given(streams(), st.data())
def test_a_stream_cut_anywhere_gives_the_same_events(
    stream: tuple[bytes, list[bytes]], data: st.DataObject
) -> None:
    written, expected = stream
    cuts = sorted(data.draw(st.lists(st.integers(0, len(written)), max_size=8)))
    edges = [0, *cuts, len(written)]
    assert parse(*(written[a:b] for a, b in pairwise(edges))) == expected


@given(streams())
def test_a_stream_cut_after_every_byte_gives_the_same_events(stream: tuple[bytes, list[bytes]]) -> None:
    written, expected = stream
    assert parse(*(written[i : i + 1] for i in range(len(written)))) == expected


@given(st.binary(max_size=60), st.integers(0, 60))
def test_arbitrary_bytes_give_the_same_events_wherever_they_are_cut(written: bytes, cut: int) -> None:
    assert parse(written[:cut], written[cut:]) == parse(written)


@given(LINES, st.integers(min_value=0), st.sampled_from([None, "turn"]))
def test_an_event_that_was_framed_is_parsed_back(data: bytes, number: int, name: str | None) -> None:
    assert parse(sse.event(data, id=number, name=name) + sse.KEEP_ALIVE) == [data]


def test_an_event_is_complete_at_its_blank_line_even_one_that_ends_in_cr() -> None:
    parser = sse.Parser()
    assert parser.feed(b"data: a\r\r") == [b"a"]
    assert parser.feed(b"\ndata: b\r\n\r\n") == [b"b"]


def test_what_a_stream_without_its_last_blank_line_held_is_given_at_its_close() -> None:
    parser = sse.Parser()
    assert parser.feed(b"data: a") == []
    assert parser.close() == [b"a"]


def test_one_space_after_the_colon_is_not_data_and_the_next_is() -> None:
    assert parse(b"data:a\n\ndata: b\n\ndata:  c\n\n") == [b"a", b"b", b" c"]


def test_a_byte_order_mark_before_the_first_line_is_dropped() -> None:
    assert parse(b"\xef\xbb", b"\xbfdata: a\n\n") == [b"a"]


@pytest.mark.parametrize("endless", [b"x" * 64, b"data: " + b"x" * 58 + b"\n", b"data:\n" * 10])
def test_an_event_without_end_is_refused_at_the_limit(endless: bytes) -> None:
    parser = sse.Parser(limit=1000)
    with pytest.raises(ValueError, match="larger than 1000 bytes"):  # noqa: PT012 - which of them is not the point
        for _ in range(200):
            parser.feed(endless)


def test_a_long_stream_of_small_events_never_reaches_the_limit() -> None:
    parser = sse.Parser(limit=100)
    assert sum(len(parser.feed(b"data: 0123456789\n\n: comment\n")) for _ in range(1000)) == 1000
