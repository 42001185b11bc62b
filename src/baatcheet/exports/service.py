"""Exports: asking for one, looking at them, and their files."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from baatcheet.auth.principal import Principal
from baatcheet.conversations.errors import ConversationNotFound
from baatcheet.exports import repository
from baatcheet.exports.errors import ExportExpired, ExportNotFound, ExportNotReady
from baatcheet.exports.jobs import Exporting, render_export
from baatcheet.exports.keys import export_key
from baatcheet.exports.models import Export
from baatcheet.exports.schemas import DownloadOut
from baatcheet.jobs.enqueueing import enqueue
from baatcheet.jobs.errors import JobNotFound, JobNotInState
from baatcheet.jobs.models import JobRow
from baatcheet.jobs.service import Jobs
from baatcheet.kit.file_names import safe_name
from baatcheet.kit.ids import new_id
from baatcheet.kit.pagination import Slice, decode, slice_of
from baatcheet.platform.blobs import Blobs, FileStoreUnavailable
from baatcheet.platform.database import Database
from baatcheet.platform.logging import get_logger
from baatcheet.platform.settings import ExportSettings
from baatcheet.platform.signed_links import SignedLinks

log = get_logger(__name__)

MEDIA_TYPES: Final = {
    "pdf": "application/pdf",
    "md": "text/markdown; charset=utf-8",
    "json": "application/json",
    "txt": "text/plain; charset=utf-8",
    "zip": "application/zip",
}
FILES: Final = "/files/exports"  # where a link leads
_LIST = "exports"


class Exports:
    """One user's exports. What is not theirs is not there: ExportNotFound, ConversationNotFound."""

    def __init__(
        self, db: Database, blobs: Blobs, links: SignedLinks, jobs: Jobs, settings: ExportSettings
    ) -> None:
        self._db = db
        self.blobs = blobs
        self._links = links
        self._jobs = jobs
        self._settings = settings

    async def create(
        self,
        session: AsyncSession,
        who: Principal,
        conversation_id: UUID,
        *,
        format: str,  # noqa: A002 - what it is
        branch: str | None,
        options: dict[str, Any],
    ) -> tuple[Export, JobRow]:
        """Have a conversation exported, with the branch that is active now. `options`: as `Style`."""
        conversation = await repository.conversation(session, who.user_id, conversation_id)
        if conversation is None:
            raise ConversationNotFound(conversation_id)
        return await self._create(
            session,
            Export(
                id=new_id(),
                user_id=who.user_id,
                scope="conversation",
                conversation_id=conversation_id,
                format=format,
                branch=branch or ("all" if format == "json" else "active"),
                head_id=conversation.head_id,
                options=options,
                filename=safe_name(f"{conversation.title or 'conversation'}.{format}"),
            ),
        )

    async def create_archive(
        self, session: AsyncSession, who: Principal, *, files: bool
    ) -> tuple[Export, JobRow]:
        """Have all of one's data exported."""
        today = datetime.now(UTC).date().isoformat()
        return await self._create(
            session,
            Export(
                id=new_id(),
                user_id=who.user_id,
                scope="account",
                format="zip",
                branch="all",
                options={"files": files},
                filename=f"baatcheet {today}.zip",
            ),
        )

    async def _create(self, session: AsyncSession, export: Export) -> tuple[Export, JobRow]:
        payload = Exporting(owner=export.user_id, export=export.id)
        queued = await enqueue(session, render_export, payload, owner=export.user_id, subject=export.id)
        export.job_id = queued.id
        session.add(export)
        await session.flush()
        return export, await session.get_one(JobRow, queued.id)

    async def list(
        self, who: Principal, *, filters: dict[str, Any], limit: int, cursor: str | None
    ) -> Slice[Export]:
        """Newest first. `filters`: `conversation_id`, `status`, `format`. Raises BadCursor."""
        last = decode(_LIST, cursor, UUID) if cursor is not None else None
        async with self._db.tenant(who.user_id) as session:
            rows = await repository.exports_after(session, who.user_id, last, limit + 1, filters)
        return slice_of(_LIST, rows, limit, lambda row: row.id)

    async def get(self, who: Principal, export_id: UUID) -> Export:
        async with self._db.tenant(who.user_id) as session:
            export = await repository.export(session, who.user_id, export_id)
        if export is None:
            raise ExportNotFound(export_id)
        return export

    async def delete(self, who: Principal, export_id: UUID) -> None:
        """With its file. One that is being made is no longer made."""
        export = await self.get(who, export_id)
        if export.status == "pending" and export.job_id is not None:
            try:
                await self._jobs.cancel(who, export.job_id)
            except (JobNotFound, JobNotInState) as ended:
                log.debug("export.job_had_ended", reason=str(ended))
        async with self._db.tenant(who.user_id) as session:
            removed = await repository.remove_export(session, who.user_id, export_id)
        if removed is None:
            raise ExportNotFound(export_id)
        try:
            await self.blobs.delete(export_key(who.user_id, export_id))
        except FileStoreUnavailable:
            log.warning("export.file_left", export_id=str(export_id))  # the next clean-up finds it

    async def link(self, export: Export) -> DownloadOut | None:
        """A link to the file, which is good for a while; None when there is no file."""
        now = datetime.now(UTC)
        if not _is_there(export, now):
            return None
        assert export.expires_at is not None
        seconds = min(self._settings.link_minutes * 60, max(1.0, (export.expires_at - now).total_seconds()))
        url = await self._links.sign(f"{FILES}/{export.id}", seconds)
        return DownloadOut(url=url, expires_at=now + timedelta(seconds=seconds))

    async def file(self, who: Principal, export_id: UUID) -> Export:
        """The export, whose file is there. Raises ExportNotReady, ExportExpired."""
        return _ready(await self.get(who, export_id))

    async def linked_file(self, path: str, query: dict[str, str], export_id: UUID) -> Export:
        """The export that a link leads to; a link to what is an inactive user's leads nowhere.

        Raises LinkNotValid, ExportNotFound, ExportNotReady, ExportExpired.
        """
        await self._links.check(path, query)
        async with self._db.system() as session:
            export = await repository.export_of_anybody(session, export_id)
        if export is None:
            raise ExportNotFound(export_id)
        return _ready(export)


def _is_there(export: Export, now: datetime) -> bool:
    return export.status == "completed" and export.expires_at is not None and export.expires_at > now


def _ready(export: Export) -> Export:
    if _is_there(export, datetime.now(UTC)):
        return export
    match export.status:
        case "completed" | "expired":
            raise ExportExpired(export.id)
        case "pending":
            raise ExportNotReady(f"The file is still being made: see /api/v1/jobs/{export.job_id}.")
        case _:
            raise ExportNotReady(f"The file could not be made: {export.error}")
