"""Exports and imports as clients send and see them."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, ConfigDict, Field

from baatcheet.jobs.schemas import JobOut
from baatcheet.platform.rest import Body, Flag, Id, Out, Page, Text

Format = Literal["pdf", "md", "json", "txt"]
AnyFormat = Literal["pdf", "md", "json", "txt", "zip"]
Branch = Literal["active", "all"]
ExportStatus = Literal["pending", "completed", "failed", "cancelled", "expired"]
ImportStatus = Literal["pending", "completed", "failed", "cancelled"]
Duplicates = Literal["skip", "copy"]


def _known_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("is not a time zone's name, such as Asia/Karachi") from None
    return name


TimeZone = Annotated[Text, Field(max_length=64), AfterValidator(_known_zone)]


class NewExport(Body):
    """How a conversation is to be exported."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"format": "pdf", "time_zone": "Asia/Karachi"}, {"format": "json"}]}
    )

    format: Format
    branch: Branch | None = Field(
        None,
        description="`active`: the branch that is active now; `all`: every branch. Left out: `all` for json, "
        "which can be imported again, and `active` for what is read.",
    )
    time_zone: TimeZone = Field("UTC", description="Whose clock the times in pdf, md and txt are told by.")
    paper: Literal["a4", "letter"] = Field("a4", description="Of a pdf.")
    urdu: Literal["naskh", "nastaliq"] = Field("naskh", description="The hand that Urdu is set in, in a pdf.")


class NewArchive(Body):
    """What all of one's data is to be packed with."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"files": True}]})

    files: Flag = Field(True, description="With the files that were uploaded.")


class DownloadOut(Out):
    """A link that opens the file to whoever holds it, without a token."""

    url: str = Field(examples=["/files/exports/0190f3a2-7c1e-7d4b-9a51-3f0c2b8e6d10?expires=…&signature=…"])
    expires_at: datetime


class ExportOut(Out):
    """An export: a file that is being made, is there, or was there."""

    id: UUID
    scope: Literal["conversation", "account"] = Field(description="What is in it; `account`: all one's data.")
    conversation_id: UUID | None
    format: AnyFormat
    branch: Branch
    status: ExportStatus = Field(description="`expired`: its time was over, and the file was deleted.")
    filename: str
    size: int | None = Field(description="Bytes of the file.")
    notes: list[str] = Field(description="What the file shows otherwise than it was said.")
    error: str | None = Field(description="Why it could not be made.")
    job_id: UUID | None
    created_at: datetime
    completed_at: datetime | None
    expires_at: datetime | None = Field(description="When the file is deleted.")
    download: DownloadOut | None = Field(None, description="Where the file is to be had, while it is there.")


class ExportPage(Page[ExportOut]):
    """Exports, newest first."""


class ExportMade(Out):
    """An export that was asked for, and the job that makes it."""

    export: ExportOut
    job: JobOut
    message: str = Field(examples=["The export is being made in the background."])


class ImportOrder(Body):
    """What makes two imports the same one."""

    sha256: str
    duplicates: Duplicates
    project_id: Id | None


class ImportOut(Out):
    """An import: an upload whose conversations are being made, or were."""

    id: UUID
    status: ImportStatus = Field(description="What was imported before a failure or a cancellation stays.")
    filename: str
    size: int = Field(description="Bytes of the upload.")
    source: Literal["baatcheet", "chatgpt"] | None = Field(
        description="Whose export it is; null until it is read."
    )
    duplicates: Duplicates
    imported: int = Field(description="Conversations that were made.")
    skipped: int = Field(description="Conversations that were imported before, unchanged.")
    failed: int = Field(description="Conversations that could not be imported.")
    messages: int = Field(description="Messages of the conversations that were made.")
    error: str | None = Field(description="Why it failed.")
    job_id: UUID | None
    created_at: datetime
    ended_at: datetime | None


class ImportPage(Page[ImportOut]):
    """Imports, newest first."""


class ImportMade(Out):
    """An import that was asked for, and the job that does it."""

    model_config = ConfigDict(serialize_by_alias=True, validate_by_name=True, validate_by_alias=True)

    upload: ImportOut = Field(alias="import")
    job: JobOut
    message: str = Field(examples=["The conversations are being imported in the background."])


class ImportedOut(Out):
    """What became of one conversation of an upload."""

    place: int = Field(description="In the upload, from 0.")
    status: Literal["imported", "skipped", "failed"]
    conversation_id: UUID | None = Field(
        description="The new one; of a skipped one, that of its first import."
    )
    source_id: str = Field(description="Its id in the upload.")
    title: str
    messages: int
    problem: str | None = Field(description="Why it could not be imported, and where in the upload that is.")
    notes: list[str] = Field(description="What of it was left out.")


class ImportedPage(Page[ImportedOut]):
    """The conversations of an upload, in its order."""
