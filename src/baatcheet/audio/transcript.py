"""What was said and when: of one piece, and of a whole recording joined of pieces. Pure."""

import math
from collections import defaultdict
from collections.abc import Sequence

import msgspec

# They are written without blanks between words.
_UNSPACED = frozenset({"zh", "yue", "ja", "th", "lo", "my", "km", "bo"})


class Word(msgspec.Struct, frozen=True):
    """A word; times are seconds."""

    word: str
    start: float
    end: float


class Segment(msgspec.Struct, frozen=True, omit_defaults=True):
    """A phrase; times are seconds. The rest is as Whisper says it, where the engine does."""

    start: float
    end: float
    text: str
    avg_logprob: float | None = None
    no_speech_prob: float | None = None
    compression_ratio: float | None = None
    temperature: float | None = None

    @property
    def confidence(self) -> float | None:
        """0 to 1: the mean probability of its tokens."""
        return None if self.avg_logprob is None else math.exp(min(0.0, self.avg_logprob))


class Heard(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an engine heard in one piece, in the piece's own time."""

    text: str
    language: str | None = None
    confidence: float | None = None
    segments: list[Segment] = []
    words: list[Word] = []


class Part(msgspec.Struct, frozen=True):
    """A piece of a recording, from `start` to `end` seconds, and what `engine` heard in it."""

    start: float
    end: float
    heard: Heard
    engine: str | None = None


class Transcript(msgspec.Struct, frozen=True):
    """What was said in a recording. `engine`: who heard it; several where it took several."""

    text: str
    seconds: float
    language: str | None = None
    confidence: float | None = None
    segments: list[Segment] = []
    words: list[Word] = []
    engine: str | None = None


NOTHING = Heard("")


def join(parts: Sequence[Part]) -> Transcript:
    """The whole of `parts`, which follow each other without a gap.

    Segments and words come in order: none begins before the one before it has ended, or outside its piece.
    """
    segments: list[Segment] = []
    words: list[Word] = []
    for part in parts:
        clock = _Clock(part.start, part.end)
        for segment in _segments(part):
            start, end = clock.place(segment.start, segment.end)
            segments.append(msgspec.structs.replace(segment, start=start, end=end))
        clock = _Clock(part.start, part.end)
        for word in part.heard.words:
            start, end = clock.place(word.start, word.end)
            words.append(Word(word.word, start, end))
    language = _language(parts)
    said = [part.heard.text.strip() for part in parts]
    engines = dict.fromkeys(part.engine for part in parts if part.engine is not None)
    return Transcript(
        text=("" if language in _UNSPACED else " ").join(text for text in said if text),
        seconds=parts[-1].end if parts else 0.0,
        language=language,
        confidence=_confidence(parts),
        segments=segments,
        words=words,
        engine=", ".join(engines) or None,
    )


class _Clock:
    """Puts the times of a piece into those of the whole. They stay in the piece, so pieces need not know each other."""

    def __init__(self, start: float, end: float) -> None:
        self._start = start
        self._end = end
        self._last = start

    def place(self, start: float, end: float) -> tuple[float, float]:
        begin = min(self._end, max(self._last, self._start + _finite(start)))
        finish = min(self._end, max(begin, self._start + _finite(end)))
        self._last = finish
        return round(begin, 3), round(finish, 3)


def _finite(value: float) -> float:
    return value if math.isfinite(value) else 0.0


def _segments(part: Part) -> Sequence[Segment]:
    """Those of an engine that tells no times are one: the piece."""
    heard = part.heard
    if heard.segments or not heard.text.strip():
        return heard.segments
    logprob = math.log(heard.confidence) if heard.confidence else None
    return [Segment(0.0, part.end - part.start, heard.text.strip(), avg_logprob=logprob)]


def _language(parts: Sequence[Part]) -> str | None:
    """The one that was spoken the longest."""
    seconds: defaultdict[str, float] = defaultdict(float)
    for part in parts:
        if part.heard.language is not None and part.heard.text.strip():
            seconds[part.heard.language] += part.end - part.start
    return max(seconds, key=lambda one: seconds[one]) if seconds else None


def _confidence(parts: Sequence[Part]) -> float | None:
    """The mean over time, where the engine says anything of it."""
    known = [
        (part.heard.confidence, part.end - part.start)
        for part in parts
        if part.heard.confidence is not None and part.heard.text.strip()
    ]
    total = sum(seconds for _, seconds in known)
    if not total:
        return None
    return round(min(1.0, sum(confidence * seconds for confidence, seconds in known) / total), 4)


def confidence_of(segments: Sequence[Segment]) -> float | None:
    """The mean confidence of `segments` over their time."""
    known = [
        (one.confidence, max(0.01, one.end - one.start)) for one in segments if one.confidence is not None
    ]
    total = sum(seconds for _, seconds in known)
    return sum(confidence * seconds for confidence, seconds in known) / total if total else None
