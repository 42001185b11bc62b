"""Attachments as clients send and see them."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import ConfigDict, Field, model_validator

from baatcheet.attachments.models import Attachment
from baatcheet.jobs.schemas import JobOut
from baatcheet.platform.rest import Body, Flag, Out, Page

AttachmentStatus = Literal["processing", "completed", "failed", "cancelled"]
LanguageCode = Literal["en", "ur", "ar", "hi"]
EngineName = Literal["tesseract", "rapidocr", "ocr_space", "vision"]


class Note(Out):
    """Something that did not go well on the way to the text."""

    engine: str | None = Field(None, description="Which engine failed.")
    page: int | None = Field(None, description="On which page, from 1.")
    reason: str


class AttachmentSummary(Out):
    """A picture or a document."""

    id: UUID
    filename: str
    media_type: str = Field(description="Told by its bytes, not by its name.", examples=["image/png"])
    size: int = Field(description="Bytes.")
    sha256: str
    status: AttachmentStatus
    job_id: UUID = Field(description="The job that reads it, or did.")
    width: int | None = Field(description="Of a picture, or of the first page, in pixels.")
    height: int | None
    pages: int | None
    characters: int | None = Field(description="Of its text.")
    truncated: bool = Field(description="Whether there is more text in it than is kept.")
    confidence: float | None = Field(
        description="How sure of the text the engine is, 0 to 1; 1 where it was in the file as text; null where "
        "nobody says."
    )
    language: str | None = Field(
        description="Of most of the text: en, ur, ar or hi; null where nobody can tell."
    )
    engine: str | None = Field(description="What read it; `text` where its text was in the file as such.")
    notes: list[Note]
    error: str | None = Field(description="Why it could not be read.")
    created_at: datetime
    completed_at: datetime | None

    @model_validator(mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        if isinstance(value, Attachment):
            return {name: getattr(value, name, None) for name in cls.model_fields}
        return value


class AttachmentOut(AttachmentSummary):
    """A picture or a document, with its text."""

    extracted_text: str | None = Field(
        description="Its beginning, where it is long: see `extracted_text_complete`. null before it is read."
    )
    extracted_text_complete: bool = Field(description="false: GET …/text has all of it.")


class AttachmentPage(Page[AttachmentSummary]):
    """Attachments, newest first."""


class AttachmentAccepted(Out):
    """An attachment that is being read, or has been."""

    success: Literal[True] = True
    attachment: AttachmentSummary
    job: JobOut | None = Field(description="null when it was long ago and is forgotten.")
    message: str = Field(examples=["OCR processing in background"])


class UploadedFile(Body):
    """What makes two uploads the same one."""

    sha256: str
    filename: str


class Box(Out):
    """A rectangle in pixels of the page, from its top left corner."""

    left: int
    top: int
    right: int
    bottom: int


class WordOut(Out):
    """A word and where it is."""

    text: str
    box: Box
    confidence: float | None


class LineOut(Out):
    """A printed line and where it is; its words where the engine tells them apart."""

    text: str
    box: Box
    confidence: float | None
    words: list[WordOut]


class PageOut(Out):
    """A page: its text, and where it stands."""

    number: int = Field(description="From 1.")
    text: str
    engine: str
    width: int | None = Field(
        description="In pixels, 144 to the inch in a PDF; null where there are no pages."
    )
    height: int | None
    turned: float = Field(description="Degrees, clockwise, by which the page stood or lay askew.")
    confidence: float | None
    language: str | None
    lines: list[LineOut]
    note: str | None = Field(description="What is wrong with it.")


class PageList(Page[PageOut]):
    """The pages of an attachment, in their order."""


class ReadAgain(Body):
    """How an attachment is to be read once more."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"languages": ["ur", "en"]}]})

    languages: Annotated[list[LanguageCode], Field(max_length=4)] = Field(
        [], description="Those that it may be in; none named: whichever is found."
    )
    engine: EngineName | None = Field(None, description="The only one to ask; left out: those configured.")
    every_page: Flag = Field(
        False, description="Of a PDF: read pages from their pictures even where they have text of their own."
    )


class EngineOut(Out):
    """Something that reads pictures."""

    name: EngineName
    available: bool
    reason: str | None = Field(description="Why it is not available.")
    languages: list[str]


class EngineList(Out):
    """The engines, in the order in which they are asked."""

    data: list[EngineOut]
