"""Reading attachments in the background, and tidying up."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol
from uuid import UUID

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from baatcheet.attachments import repository
from baatcheet.attachments.keys import FILES, VIEWS, row_of
from baatcheet.attachments.models import Attachment
from baatcheet.events.outbox import record
from baatcheet.jobs.declaration import DeadJob, Job, job
from baatcheet.platform.blobs import Blobs
from baatcheet.platform.database import Database

SECONDS = 6 * 3600.0  # the longest document, by the slowest engine
ORPHANED = timedelta(hours=24)  # after which a file without a row is nobody's
BATCH = 500


class Extraction(msgspec.Struct, frozen=True):
    """Which attachment is to be read, whose it is, and how. `engine`: the only one to ask."""

    owner: UUID
    attachment: UUID
    languages: tuple[str, ...] = ()
    engine: str | None = None
    every_page: bool = False


class Nothing(msgspec.Struct, frozen=True):
    """The payload of work that is always the same."""


class Reader(Protocol):
    """Reads an attachment and writes down what is in it."""

    async def read(self, job: Job[Extraction]) -> None: ...


@dataclass(frozen=True)
class AttachmentParts:
    """What the jobs need."""

    db: Database
    blobs: Blobs
    reader: Reader


async def _bury(dead: DeadJob, session: AsyncSession, parts: AttachmentParts) -> None:
    status = "cancelled" if dead.cancelled else "failed"
    row = await repository.end_without(session, *dead.concerns, dead.id, status=status, error=dead.error)
    if row is not None and not dead.cancelled:
        await record(session, "image.ocr_completed", told_of(row), user=row.user_id)


def told_of(row: Attachment) -> dict[str, Any]:
    """What an event says of an attachment that was read, or could not be."""
    return {
        "attachment_id": row.id,
        "status": row.status,
        "filename": row.filename,
        "media_type": row.media_type,
        "pages": row.pages,
        "characters": row.characters or 0,
        "confidence": row.confidence,
        "language": row.language,
        "engine": row.engine,
        "error": row.error,
    }


@job(
    "ocr.extract",
    queue="ocr",
    seconds=SECONDS,
    lane_limit=1,
    link="/api/v1/attachments/{subject}",
    on_dead=_bury,
)
async def extract(job: Job[Extraction], parts: AttachmentParts) -> None:
    """The attachment has its text, page by page, and an event says so.

    Each page is kept under the job's id as soon as it is read, so a second run reads none twice; they hold from the
    job's end on, in whose transaction the event is, so it is told of once.
    """
    await parts.reader.read(job)


@job("ocr.tidy", queue="maintenance", visible=False, seconds=3600)
async def tidy(job: Job[Nothing], parts: AttachmentParts) -> dict[str, int]:
    """Files of attachments that are no longer there are gone. Run twice, it finds nothing more."""
    swept = 0
    async for orphans in _orphans(parts):
        for key in orphans:
            await parts.blobs.delete(key)
        swept += len(orphans)
    return {"orphans": swept}


async def _orphans(parts: AttachmentParts) -> AsyncIterator[list[str]]:
    now = datetime.now(UTC)
    for prefix in (FILES, VIEWS):
        old: dict[UUID, str] = {}
        async for stored in parts.blobs.keys(prefix):
            row = row_of(stored.key)
            if row is not None and stored.age(now) > ORPHANED:
                old[row] = stored.key
            if len(old) == BATCH:
                yield await _without_row(parts, old)
                old = {}
        if old:
            yield await _without_row(parts, old)


async def _without_row(parts: AttachmentParts, old: Mapping[UUID, str]) -> list[str]:
    async with parts.db.system() as session:
        there = await repository.still_there(session, list(old))
    return [key for row, key in old.items() if row not in there]
