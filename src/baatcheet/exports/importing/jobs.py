"""The job of an import."""

import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from uuid import UUID

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from baatcheet.exports import repository
from baatcheet.exports.importing.normal import INDEX, MESSAGES, Limits, Usable
from baatcheet.exports.importing.reading import Read, Upload, read
from baatcheet.exports.importing.writing import Count, Target, Writer, entries
from baatcheet.exports.keys import import_key
from baatcheet.exports.models import Import
from baatcheet.jobs.declaration import DeadJob, GiveUp, Job, job
from baatcheet.jobs.isolation import Refused, Sandbox, SandboxFailed
from baatcheet.platform.blobs import Blobs, FileMissing, FileStoreUnavailable
from baatcheet.platform.database import Database
from baatcheet.platform.settings import ExportSettings

UNPACKED: Final = 4  # times as large as an upload may be is what an archive may hold
READ_SECONDS: Final = 1800.0
MEMORY: Final = 1_500_000_000  # bytes that a sandbox may take, beside the file that it maps
_READ_SHARE: Final = 20.0  # percent of an import's progress


class Importing(msgspec.Struct, frozen=True):
    """Which upload is to be imported."""

    owner: UUID
    upload: UUID


@dataclass(frozen=True)
class ImportParts:
    """What importing takes. `limits`: of one message."""

    db: Database
    blobs: Blobs
    sandbox: Sandbox
    settings: ExportSettings
    count: Count
    limits: Limits


async def _bury(dead: DeadJob, session: AsyncSession, _parts: ImportParts | None) -> None:
    status = "cancelled" if dead.cancelled else "failed"
    fields = {"status": status, "error": dead.error}
    await repository.end_import(session, *dead.concerns, fields)


@job(
    "import.conversations",
    queue="import",
    seconds=4 * 3600,
    lane_limit=1,
    link="/api/v1/imports/{subject}",
    on_dead=_bury,
)
async def import_conversations(job: Job[Importing], parts: ImportParts) -> None:
    """Every conversation of the upload that can be imported is there, each made in one transaction, and once.

    Run again, it goes on after those that are there. What could not be imported is listed with the reason.
    """
    owner, upload_id = job.payload.owner, job.payload.upload
    key = import_key(owner, upload_id)
    async with parts.db.tenant(owner) as session:
        upload = await repository.begin_import(session, owner, upload_id)
    if upload is None:
        await parts.blobs.delete(key)
        raise GiveUp("The import is no longer there.")
    async with parts.blobs.scratch() as folder:
        found = await _read(job, parts, key, folder)
        await _write(job, parts, upload, found, folder)
    await _finish(job, parts, upload, found)
    with contextlib.suppress(FileStoreUnavailable):  # then the next clean-up does it
        await parts.blobs.delete(key)


async def _read(job: Job[Importing], parts: ImportParts, key: str, folder: Path) -> Read:
    """Raises GiveUp when the upload is nothing that can be imported."""

    async def checking(_percent: float, phrase: str) -> None:
        await job.progress(_READ_SHARE / 2, phrase)

    unpacked = UNPACKED * parts.settings.max_import_bytes
    try:
        async with parts.blobs.local(key) as path:
            upload = Upload(str(path), str(folder), parts.limits, unpacked, datetime.now(UTC))
            return await parts.sandbox.run(
                read, upload, seconds=READ_SECONDS, memory=MEMORY + unpacked, on_progress=checking
            )
    except FileMissing:
        raise GiveUp("The uploaded file is no longer there. Upload it again.") from None
    except Refused as refusal:
        raise GiveUp(str(refusal)) from None
    except SandboxFailed as failure:
        if failure.kind in {"memory", "time"}:
            raise GiveUp(f"The file is too large to be read: {failure}") from failure
        raise


async def _write(job: Job[Importing], parts: ImportParts, upload: Import, found: Read, folder: Path) -> None:
    target = Target(upload.id, upload.user_id, upload.duplicates == "copy", upload.project_id)
    writer = Writer(parts.db, parts.count, target, folder / MESSAGES)
    done = await writer.done()
    messages = 0
    total = found.usable + found.unusable
    for entry in entries(folder / INDEX):
        if entry.place not in done:
            if isinstance(entry, Usable):
                await writer.write(entry)
            else:
                await writer.refuse(entry)
        messages += entry.messages if isinstance(entry, Usable) else 0
        share = messages / max(1, found.messages)
        await job.progress(
            _READ_SHARE + share * (99 - _READ_SHARE),
            f"Imported {entry.place + 1:,} of {total:,} conversations",
        )


async def _finish(job: Job[Importing], parts: ImportParts, upload: Import, found: Read) -> None:
    """Raises GiveUp where nothing could be imported."""
    async with parts.db.tenant(upload.user_id) as session:
        counts = (await repository.counts(session, upload.user_id, [upload.id]))[upload.id]
        if not counts.imported and not counts.skipped:
            failed = await repository.imported_after(session, upload.user_id, upload.id, None, 1, "failed")
            rest = f" (and {counts.failed - 1:,} more)" if counts.failed > 1 else ""
            raise GiveUp(f"Nothing could be imported: {failed[0].problem}{rest}.")
    result = {"import_id": upload.id, **counts._asdict()}
    async with job.finish(result) as session:
        fields = {"status": "completed", "error": None, "source": found.source}
        await repository.end_import(session, upload.user_id, upload.id, fields)
