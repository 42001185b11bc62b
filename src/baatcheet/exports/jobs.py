"""The jobs of exports: making a file, and forgetting it when its time is over."""

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from baatcheet.auth.models import User
from baatcheet.events.outbox import record
from baatcheet.exports import repository
from baatcheet.exports.account import Account
from baatcheet.exports.archive import Packing, add_file, pack
from baatcheet.exports.document import Rendering
from baatcheet.exports.gathering import ConversationGone, Gatherer, Options, Style
from baatcheet.exports.json_format import Writing, write
from baatcheet.exports.keys import EXPORTS, IMPORTS, export_key, row_of
from baatcheet.exports.models import Export
from baatcheet.exports.rendering import render
from baatcheet.jobs.declaration import DeadJob, GiveUp, Job, job
from baatcheet.jobs.isolation import Refused, Sandbox, SandboxFailed
from baatcheet.platform.blobs import Blobs, FileMissing
from baatcheet.platform.database import Database
from baatcheet.platform.logging import get_logger
from baatcheet.platform.settings import ExportSettings
from baatcheet.platform.threads import in_thread

log = get_logger(__name__)

MEMORY: Final = 2_000_000_000  # bytes that a sandbox may take to make a file
RENDER_SECONDS: Final = 1800.0
KEPT_ROWS: Final = timedelta(days=90)  # that an export which has no file any more is listed
ORPHANED: Final = timedelta(hours=1)  # after which a file without a row is nobody's
BATCH = 500  # files that are looked up, or rows that are deleted, at once
_READ_SHARE: Final = 0.4  # of an export's progress; the rest is making the file

GONE: Final = "The conversation was deleted before the export was made."
DELETED: Final = "The export was deleted."


class Exporting(msgspec.Struct, frozen=True):
    """Which export is to be made."""

    owner: UUID
    export: UUID


class Nothing(msgspec.Struct, frozen=True):
    """The payload of work that is always the same."""


@dataclass(frozen=True)
class ExportParts:
    """What making an export takes."""

    db: Database
    blobs: Blobs
    sandbox: Sandbox
    settings: ExportSettings


@dataclass(frozen=True)
class Made:
    """A file that is ready to be kept."""

    path: Path
    notes: Sequence[str] = ()


async def _bury(dead: DeadJob, session: AsyncSession, _parts: ExportParts | None) -> None:
    status = "cancelled" if dead.cancelled else "failed"
    export = await repository.end_export(session, *dead.concerns, status, dead.error)
    if export is not None and not dead.cancelled:
        await record(
            session,
            "export.failed",
            {**_told(export), "error": dead.error},
            user=export.user_id,
            conversation=export.conversation_id,
        )


@job(
    "export.render",
    queue="export",
    seconds=2 * RENDER_SECONDS,
    lane_limit=1,
    link="/api/v1/exports/{subject}",
    on_dead=_bury,
)
async def render_export(job: Job[Exporting], parts: ExportParts) -> None:
    """The export's file is there, and its row and an event say so.

    Run twice, it makes the same file under the same key, and only the run that ends the job tells of it.
    """
    owner, export_id = job.payload.owner, job.payload.export
    key = export_key(owner, export_id)
    async with parts.db.tenant(owner) as session:
        export = await repository.begin_export(session, owner, export_id)
    if export is None:
        await parts.blobs.delete(key)
        raise GiveUp(DELETED)
    async with parts.blobs.scratch() as folder:
        maker = _Maker(job, parts, export, folder)
        try:
            made = await (maker.account() if export.scope == "account" else maker.conversation())
        except ConversationGone:
            raise GiveUp(GONE) from None
        except Refused as refusal:
            raise GiveUp(f"The file can't be made: {refusal}") from None
        except SandboxFailed as failure:
            if failure.kind in {"memory", "time"}:
                raise GiveUp(f"The export is too large to be made: {failure}") from failure
            raise
        size = made.path.stat().st_size
        await job.progress(98, "Keeping the file")
        await parts.blobs.put(key, made.path)
    await _finish(job, parts, export, key, size, made.notes)


async def _finish(
    job: Job[Exporting], parts: ExportParts, export: Export, key: str, size: int, notes: Sequence[str]
) -> None:
    kept = parts.settings.kept_days * 86_400
    try:
        async with job.finish({"export_id": export.id, "filename": export.filename, "size": size}) as session:
            await _complete(session, export, {"size": size, "notes": list(notes)}, kept)
    except GiveUp:
        await parts.blobs.delete(key)
        raise


async def _complete(
    session: AsyncSession, export: Export, fields: Mapping[str, Any], kept_seconds: float
) -> None:
    done = await repository.complete_export(session, export.user_id, export.id, fields, kept_seconds)
    if done is None:
        raise GiveUp(DELETED)
    told = {**_told(done), "size": done.size}
    await record(session, "export.completed", told, user=done.user_id, conversation=done.conversation_id)


def _told(export: Export) -> dict[str, Any]:
    return {
        "export_id": export.id,
        "conversation_id": export.conversation_id,
        "format": export.format,
    }


class _Maker:
    """Makes the file of one export in a folder."""

    def __init__(self, job: Job[Exporting], parts: ExportParts, export: Export, folder: Path) -> None:
        self._job = job
        self._parts = parts
        self._export = export
        self._folder = folder
        self._target = folder / "export"
        self._gatherer = Gatherer(parts.db, export.user_id, parts.blobs if export.format == "pdf" else None)

    async def conversation(self) -> Made:
        """Raises ConversationGone, Refused, SandboxFailed."""
        export = self._export
        assert export.conversation_id is not None
        conversation, project = await self._gatherer.conversation(export.conversation_id)
        lines = self._folder / "export.lines"
        every_branch = export.branch == "all"
        now = datetime.now(UTC).replace(microsecond=0)
        sandbox = self._parts.sandbox
        if export.format == "json":
            messages = await self._gatherer.write_entries(
                conversation, project, export.head_id, lines, self._read, every_branch=every_branch
            )
            writing = Writing((str(lines),), str(self._target), now, messages)
            await sandbox.run(
                write, writing, seconds=RENDER_SECONDS, memory=MEMORY, on_progress=self._working
            )
            return Made(self._target)
        async with self._parts.db.tenant(export.user_id) as session:
            owner = (await session.get_one(User, export.user_id)).name
        options = Options(
            conversation.title or "Conversation", now, owner, msgspec.convert(export.options, Style)
        )
        await self._gatherer.write_document(
            conversation, export.head_id, lines, options, self._read, every_branch=every_branch
        )
        rendering = Rendering(str(lines), str(self._target), export.format)  # type: ignore[arg-type]
        rendered = await sandbox.run(
            render, rendering, seconds=RENDER_SECONDS, memory=MEMORY, on_progress=self._working
        )
        return Made(self._target, rendered.notes)

    async def account(self) -> Made:
        """Raises Refused, SandboxFailed."""
        account = Account(self._parts.db, self._export.user_id)
        conversations, messages = await account.write_conversations(self._folder, self._gathered)
        tables = await account.write_tables(self._folder)
        about = {"user": await account.user(), "conversations": conversations, "messages": messages, **tables}
        packing = Packing(str(self._folder), str(self._target), datetime.now(UTC), about, messages)
        await self._parts.sandbox.run(
            pack, packing, seconds=RENDER_SECONDS, memory=MEMORY, on_progress=self._working
        )
        return Made(self._target, await self._add_files(account) if self._export.options.get("files") else ())

    async def _add_files(self, account: Account) -> list[str]:
        """Put the uploaded files into the archive; what there is to say of those that are not in it."""
        notes = []
        now = datetime.now(UTC)
        archive = await in_thread(zipfile.ZipFile, self._target, "a")
        try:
            async for file in account.files():
                await self._job.progress(97, f"Packing {file.filename}")
                try:
                    async with self._parts.blobs.local(file.key) as path:
                        await in_thread(add_file, archive, f"files/{file.id}/{file.filename}", path, now)
                except (FileMissing, FileNotFoundError):
                    notes.append(f"{file.filename} is not in it: the file is gone.")
        finally:
            await in_thread(archive.close)
        return notes

    async def _read(self, read: int, total: int) -> None:
        await self._job.progress(
            100 * _READ_SHARE * read / max(1, total), f"Read {read:,} of {total:,} messages"
        )

    async def _gathered(self, read: int, total: int) -> None:
        await self._job.progress(
            100 * _READ_SHARE * read / max(1, total), f"Read {read:,} of {total:,} conversations"
        )

    async def _working(self, percent: float, phrase: str) -> None:
        await self._job.progress(100 * _READ_SHARE + percent * (0.97 - _READ_SHARE), phrase)


@job("exports.expire", queue="maintenance", visible=False, seconds=3600)
async def expire_exports(job: Job[Nothing], parts: ExportParts) -> dict[str, int]:
    """Files whose time is over are gone, and so are those whose rows are. Run twice, it finds nothing more."""
    now = datetime.now(UTC)
    expired = await _expire(parts)
    orphans = await _sweep(parts, EXPORTS, now) + await _sweep(parts, IMPORTS, now)
    forgotten = await _forget(parts, now - KEPT_ROWS)
    return {"expired": expired, "orphans": orphans, "forgotten": forgotten}


async def _forget(parts: ExportParts, before: datetime) -> int:
    forgotten = 0
    while True:
        async with parts.db.system() as session:
            batch = await repository.forget_exports(session, before, BATCH)
        forgotten += batch
        if batch < BATCH:
            return forgotten


async def _expire(parts: ExportParts) -> int:
    expired = 0
    while True:
        async with parts.db.system() as session:
            overdue = await repository.overdue(session, BATCH)
        if not overdue:
            return expired
        for export in overdue:
            await parts.blobs.delete(export_key(export.user_id, export.id))
        async with parts.db.system() as session:
            await repository.expire(session, [export.id for export in overdue])
        expired += len(overdue)


async def _sweep(parts: ExportParts, prefix: str, now: datetime) -> int:
    """Delete the files below `prefix` that no row needs; how many."""
    old: list[tuple[UUID, str]] = []
    swept = 0
    async for stored in parts.blobs.keys(prefix):
        row = row_of(stored.key)
        if row is not None and stored.age(now) > ORPHANED:
            old.append((row, stored.key))
        if len(old) == BATCH:
            swept += await _delete_unneeded(parts, prefix, old, now)
            old = []
    return swept + await _delete_unneeded(parts, prefix, old, now)


async def _delete_unneeded(
    parts: ExportParts, prefix: str, old: Sequence[tuple[UUID, str]], now: datetime
) -> int:
    if not old:
        return 0
    ids = [row for row, _ in old]
    async with parts.db.system() as session:
        if prefix == EXPORTS:
            needed = await repository.exports_with_files(session, ids)
        else:
            kept = timedelta(days=parts.settings.kept_days)
            needed = await repository.imports_with_files(session, ids, now - kept)
    gone = [key for row, key in old if row not in needed]
    for key in gone:
        await parts.blobs.delete(key)
    return len(gone)
