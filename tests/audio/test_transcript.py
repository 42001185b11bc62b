"""What was heard in pieces, as one."""

import math
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from baatcheet.audio.transcript import Heard, Part, Segment, Word, confidence_of, join

TIMES = st.floats(-1e6, 1e9) | st.sampled_from([math.inf, -math.inf, math.nan])
SEGMENTS = st.builds(Segment, start=TIMES, end=TIMES, text=st.text(max_size=5))
WORDS = st.builds(Word, word=st.text(max_size=5), start=TIMES, end=TIMES)
HEARD = st.builds(
    Heard,
    text=st.text(max_size=10),
    language=st.none() | st.sampled_from(["en", "ur", "ja"]),
    confidence=st.none() | st.floats(0, 1),
    segments=st.lists(SEGMENTS, max_size=5),
    words=st.lists(WORDS, max_size=5),
)


@st.composite
def parts(draw: st.DrawFn) -> list[Part]:
    made: list[Part] = []
    at = 0
    for heard in draw(st.lists(HEARD, max_size=6)):
        samples = draw(st.integers(1, 5_000_000))
        made.append(Part(at / 16_000, (at + samples) / 16_000, heard, draw(st.sampled_from(["a/b", None]))))
        at += samples
    return made


@given(parts())
def test_segments_and_words_come_in_order_and_inside_the_recording(given_parts: list[Part]) -> None:
    whole = join(given_parts)
    for found in (whole.segments, whole.words):
        times = [time for one in found for time in (one.start, one.end)]
        assert all(before <= after for before, after in pairwise(times))
        assert all(0 <= time <= round(whole.seconds, 3) for time in times)
    assert whole.seconds == (given_parts[-1].end if given_parts else 0)


@given(parts())
def test_nothing_that_was_said_is_lost_and_it_stays_in_its_piece(given_parts: list[Part]) -> None:
    whole = join(given_parts)
    assert [one.word for one in whole.words] == [one.word for part in given_parts for one in part.heard.words]
    said = iter(whole.segments)
    for part in given_parts:
        expected = [one.text for one in part.heard.segments]
        if not expected and part.heard.text.strip():
            expected = [part.heard.text.strip()]
        for text in expected:
            segment = next(said)
            assert segment.text == text
            assert round(part.start, 3) <= segment.start <= segment.end <= round(part.end, 3)
    assert next(said, None) is None


@given(parts())
def test_confidence_is_a_share_or_not_known(given_parts: list[Part]) -> None:
    confidence = join(given_parts).confidence
    assert confidence is None or 0 <= confidence <= 1


def test_times_are_those_of_the_whole() -> None:
    first = Heard("one two", segments=[Segment(0, 1.5, "one"), Segment(1.4, 9, "two")])
    second = Heard("three", segments=[Segment(0.25, 1, "three")], words=[Word("three", 0.25, 0.75)])
    whole = join([Part(0, 2, first), Part(2, 4, second)])
    assert [(one.start, one.end) for one in whole.segments] == [(0, 1.5), (1.5, 2), (2.25, 3)]
    assert whole.words == [Word("three", 2.25, 2.75)]
    assert whole.text == "one two three"


def test_languages_without_blanks_are_joined_without() -> None:
    whole = join([Part(0, 2, Heard("你好", "zh")), Part(2, 4, Heard("世界", "zh"))])
    assert whole.text == "你好世界"


def test_the_language_is_the_one_that_was_spoken_longest() -> None:
    whole = join([Part(0, 2, Heard("a", "ur")), Part(2, 9, Heard("b", "en")), Part(9, 99, Heard("", "de"))])
    assert whole.language == "en"


def test_an_engine_that_tells_no_times_has_said_it_all_in_its_piece() -> None:
    whole = join([Part(0, 2, Heard("a")), Part(2, 5, Heard("b", confidence=0.5))])
    assert [(one.start, one.end, one.text) for one in whole.segments] == [(0, 2, "a"), (2, 5, "b")]
    assert whole.segments[1].confidence == 0.5
    assert whole.confidence == 0.5


def test_everybody_who_heard_is_named_once() -> None:
    pieces = [Part(at, at + 1.0, Heard("x"), engine) for at, engine in enumerate(["a/1", "b/2", "a/1", None])]
    assert join(pieces).engine == "a/1, b/2"
    assert join([]).engine is None


def test_the_confidence_of_segments_is_weighed_by_their_time() -> None:
    segments = [Segment(0, 3, "a", avg_logprob=math.log(0.9)), Segment(3, 4, "b", avg_logprob=math.log(0.5))]
    assert confidence_of(segments) == 0.8
    assert confidence_of([Segment(0, 1, "a")]) is None
