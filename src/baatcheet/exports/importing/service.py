"""Imports: asking for one, and looking at what became of it."""

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from baatcheet.auth.principal import Principal
from baatcheet.exports import repository
from baatcheet.exports.errors import ImportNotFound
from baatcheet.exports.importing.jobs import Importing, import_conversations
from baatcheet.exports.importing.receiving import Uploaded
from baatcheet.exports.keys import import_key
from baatcheet.exports.models import Import, ImportedConversation
from baatcheet.exports.repository import Counts
from baatcheet.jobs.enqueueing import enqueue
from baatcheet.jobs.models import JobRow
from baatcheet.kit.pagination import Slice, decode, slice_of
from baatcheet.platform.blobs import Blobs, FileStoreUnavailable
from baatcheet.platform.database import Database
from baatcheet.platform.logging import get_logger
from baatcheet.platform.settings import ExportSettings
from baatcheet.projects.service import hold_project

log = get_logger(__name__)

_LIST: Final = "imports"


@dataclass(frozen=True)
class Counted:
    """An import, with what has become of its conversations so far."""

    row: Import
    counts: Counts


class Imports:
    """One user's imports. What is not theirs is not there: ImportNotFound."""

    def __init__(self, db: Database, blobs: Blobs, settings: ExportSettings) -> None:
        self._db = db
        self.blobs = blobs
        self.limit = settings.max_import_bytes

    async def keep(self, who: Principal, import_id: UUID, uploaded: Uploaded) -> None:
        """Keep an upload for the import that is to be asked for."""
        await self.blobs.put(import_key(who.user_id, import_id), uploaded.path)

    async def drop(self, who: Principal, import_id: UUID) -> None:
        """Forget an upload that nobody needs."""
        try:
            await self.blobs.delete(import_key(who.user_id, import_id))
        except FileStoreUnavailable:
            log.warning("import.file_left", import_id=str(import_id))  # the next clean-up finds it

    async def create(
        self,
        session: AsyncSession,
        who: Principal,
        import_id: UUID,
        uploaded: Uploaded,
        *,
        duplicates: str,
        project_id: UUID | None,
    ) -> tuple[Counted, JobRow]:
        """Have what was kept imported. Raises ProjectNotFound."""
        if project_id is not None:
            await hold_project(session, who, project_id)
        payload = Importing(owner=who.user_id, upload=import_id)
        queued = await enqueue(session, import_conversations, payload, owner=who.user_id, subject=import_id)
        row = Import(
            id=import_id,
            user_id=who.user_id,
            filename=uploaded.filename,
            size=uploaded.size,
            sha256=uploaded.sha256,
            duplicates=duplicates,
            project_id=project_id,
            job_id=queued.id,
        )
        session.add(row)
        await session.flush()
        return Counted(row, Counts()), await session.get_one(JobRow, queued.id)

    async def list(self, who: Principal, *, limit: int, cursor: str | None) -> Slice[Counted]:
        """Newest first. Raises BadCursor."""
        last = decode(_LIST, cursor, UUID) if cursor is not None else None
        async with self._db.tenant(who.user_id) as session:
            rows = await repository.imports_after(session, who.user_id, last, limit + 1)
            counts = await repository.counts(session, who.user_id, [row.id for row in rows])
        counted = [Counted(row, counts.get(row.id, Counts())) for row in rows]
        return slice_of(_LIST, counted, limit, lambda one: one.row.id)

    async def get(self, who: Principal, import_id: UUID) -> Counted:
        async with self._db.tenant(who.user_id) as session:
            row = await repository.import_(session, who.user_id, import_id)
            if row is None:
                raise ImportNotFound(import_id)
            counts = await repository.counts(session, who.user_id, [import_id])
        return Counted(row, counts.get(import_id, Counts()))

    async def conversations(
        self, who: Principal, import_id: UUID, *, status: str | None, limit: int, cursor: str | None
    ) -> Slice[ImportedConversation]:
        """What became of each conversation, in the order of the upload. Raises BadCursor."""
        name = f"{_LIST}:{import_id}:{status}"
        last = decode(name, cursor, int) if cursor is not None else None
        async with self._db.tenant(who.user_id) as session:
            if await repository.import_(session, who.user_id, import_id) is None:
                raise ImportNotFound(import_id)
            rows = await repository.imported_after(session, who.user_id, import_id, last, limit + 1, status)
        return slice_of(name, rows, limit, lambda row: row.place)
