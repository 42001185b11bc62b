"""A transcript as a file: plain text, SubRip, WebVTT. Pure."""

from collections.abc import Sequence

from baatcheet.audio.transcript import Segment


def text(said: str) -> str:
    """Plain text, with a line's end at its end."""
    return f"{said}\n"


def srt(segments: Sequence[Segment]) -> str:
    """SubRip."""
    blocks = (
        f"{number}\n{_clock(one.start, ',')} --> {_clock(one.end, ',')}\n{_line(one.text)}\n"
        for number, one in enumerate(_shown(segments), 1)
    )
    return "\n".join(blocks)


def vtt(segments: Sequence[Segment]) -> str:
    """WebVTT (https://www.w3.org/TR/webvtt1/)."""
    blocks = (
        f"{_clock(one.start, '.')} --> {_clock(one.end, '.')}\n{_escaped(_line(one.text))}\n"
        for one in _shown(segments)
    )
    return "\n".join(["WEBVTT\n", *blocks])


def _shown(segments: Sequence[Segment]) -> list[Segment]:
    return [one for one in segments if one.text.strip()]


def _clock(seconds: float, point: str) -> str:
    millis = max(0, round(seconds * 1000))
    return f"{millis // 3_600_000:02}:{millis // 60_000 % 60:02}:{millis // 1000 % 60:02}{point}{millis % 1000:03}"


def _line(said: str) -> str:
    """On one line: an empty line would end the caption."""
    return " ".join(said.split())


def _escaped(said: str) -> str:
    return said.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
