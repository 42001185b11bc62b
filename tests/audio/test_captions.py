"""Transcripts as files."""

import re

from hypothesis import given
from hypothesis import strategies as st

from baatcheet.audio import captions
from baatcheet.audio.transcript import Segment

SAID = [
    Segment(0, 1.5, " Hello <b>you</b> & me."),
    Segment(1.5, 2, " "),
    Segment(3661.0005, 3662.9996, "گپ\n\nشپ"),
]


def test_subrip() -> None:
    assert captions.srt(SAID) == (
        "1\n00:00:00,000 --> 00:00:01,500\nHello <b>you</b> & me.\n\n"
        "2\n01:01:01,000 --> 01:01:03,000\nگپ شپ\n"
    )


def test_webvtt() -> None:
    assert captions.vtt(SAID) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nHello &lt;b&gt;you&lt;/b&gt; &amp; me.\n\n"
        "01:01:01.000 --> 01:01:03.000\nگپ شپ\n"
    )


def test_nothing_said_is_an_empty_file() -> None:
    assert captions.srt([]) == ""
    assert captions.vtt([]) == "WEBVTT\n"
    assert captions.text("") == "\n"


@given(st.lists(st.builds(Segment, start=st.floats(0, 1e5), end=st.floats(0, 1e5), text=st.text())))
def test_no_text_can_break_out_of_its_caption(segments: list[Segment]) -> None:
    shown = [one for one in segments if one.text.strip()]
    blocks = [block for block in captions.vtt(segments).split("\n\n")[1:] if block.strip()]
    assert len(blocks) == len(shown)
    for block in blocks:
        clock, said = block.strip("\n").split("\n")
        assert re.fullmatch(r"\d\d+:\d\d:\d\d\.\d{3} --> \d\d+:\d\d:\d\d\.\d{3}", clock)
        assert "-->" not in said
