"""Recordings and their transcriptions as clients send and see them."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from pydantic import BeforeValidator, Field

from baatcheet.audio.models import Recording
from baatcheet.audio.transcript import Segment
from baatcheet.jobs.schemas import JobOut
from baatcheet.platform.rest import Body, Line, Out, Page, Text

AudioStatus = Literal["processing", "completed", "failed", "cancelled"]
Format = Literal["txt", "srt", "vtt", "json"]


def _filled(value: object) -> object:
    """A form can't say null: an empty field is one that was left out."""
    return None if value == "" else value


Language = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})?$",
        description="What is spoken, by its ISO 639 code: `en`, `ur`. Left out: it is found out.",
        examples=["ur"],
    ),
]
Prompt = Annotated[
    Text,
    Field(max_length=1000, description="Names and words that occur, spelt as they should be."),
]
Temperature = Annotated[float, Field(ge=0, le=1, description="0: what is most likely; higher: more varied.")]
Model = Annotated[
    Line,
    Field(
        max_length=200,
        description="Who is to transcribe, as `provider/model`; left out or `auto`: as configured.",
        examples=["groq/whisper-large-v3-turbo"],
    ),
]


class TranscriptionWish(Body):
    """How a recording is to be transcribed: the fields of the form beside the file."""

    language: Annotated[Language | None, BeforeValidator(_filled)] = None
    prompt: Annotated[Prompt | None, BeforeValidator(_filled)] = None
    temperature: Annotated[Temperature | None, BeforeValidator(_filled)] = None
    model: Annotated[Model | None, BeforeValidator(_filled)] = None


class UploadedRecording(TranscriptionWish):
    """What makes two uploads the same."""

    sha256: str
    filename: str


class SegmentOut(Out):
    """A phrase; times are seconds from the beginning."""

    start: float
    end: float
    text: str
    confidence: float | None = Field(None, description="0 to 1; null where the engine does not say.")


class AudioSummary(Out):
    """A recording, without what was said in it."""

    id: UUID
    status: AudioStatus
    filename: str
    media_type: str
    size: int = Field(description="Bytes.")
    language: str | None = Field(description="What was said to be spoken.")
    model: str | None = Field(description="Who was asked to transcribe.")
    seconds: float | None = Field(description="How long it is.")
    detected_language: str | None = Field(description="What was spoken, by its ISO 639 code.")
    confidence: float | None = Field(description="0 to 1; null where the engine does not say.")
    engine: str | None = Field(description="Who transcribed.")
    warning: str | None = Field(description="What to know of the transcription: that the file was damaged …")
    error: str | None = Field(description="Why there is no transcription.")
    job_id: UUID
    created_at: datetime
    completed_at: datetime | None


class AudioOut(AudioSummary):
    """A recording and what was said in it."""

    transcription_text: str | None
    segments: list[SegmentOut] | None

    @classmethod
    def of(cls, row: Recording) -> "AudioOut":
        fields = {name: getattr(row, name) for name in cls.model_fields if name != "segments"}
        return cls(**fields, segments=None if row.segments is None else _shown(row.segments))


def _shown(stored: list[dict[str, Any]]) -> list[SegmentOut]:
    segments = msgspec.convert(stored, list[Segment])
    return [
        SegmentOut(start=one.start, end=one.end, text=one.text, confidence=one.confidence) for one in segments
    ]


class AudioPage(Page[AudioSummary]):
    """Recordings, newest first."""


class AudioAccepted(Out):
    """A recording that is being transcribed."""

    success: Literal[True] = True
    audio: AudioOut
    job: JobOut
    message: str = "Transcription running in background"
