"""Attachments: taking them in, looking at them, and their text for a chat."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from baatcheet.attachments import repository
from baatcheet.attachments.errors import (
    AttachmentBusy,
    AttachmentNotFound,
    AttachmentNotReady,
    AttachmentUnreadable,
    PageNotFound,
)
from baatcheet.attachments.jobs import Extraction, extract
from baatcheet.attachments.keys import file_key, view_key
from baatcheet.attachments.kinds import KINDS, TAIL_BYTES, kind_of_head, settled
from baatcheet.attachments.models import Attachment
from baatcheet.attachments.ocr.availability import EngineState, engine_states
from baatcheet.attachments.repository import Measure, ShownPage
from baatcheet.auth.principal import Principal
from baatcheet.jobs import repository as jobs_repository
from baatcheet.jobs.enqueueing import enqueue
from baatcheet.jobs.errors import JobNotFound, JobNotInState
from baatcheet.jobs.models import JobRow
from baatcheet.jobs.service import Jobs
from baatcheet.keys.pool import KeyPool
from baatcheet.kit.ids import new_id
from baatcheet.kit.pagination import Slice, decode, encode, slice_of
from baatcheet.platform.blobs import Blobs, FileMissing, FileStoreUnavailable
from baatcheet.platform.database import Database
from baatcheet.platform.errors import Invalid, TooLarge, Unavailable
from baatcheet.platform.logging import get_logger
from baatcheet.platform.settings import AttachmentSettings
from baatcheet.platform.threads import in_thread
from baatcheet.platform.uploads import HEAD_BYTES, Received

log = get_logger(__name__)

PATH: Final = "/api/v1/attachments"
SHOWN_CHARACTERS: Final = 100_000  # of a text that is shown with its attachment
PIECE: Final = 500_000  # characters that are sent at once: some milliseconds of the event loop
LISTED: Final = 4_000_000  # bytes of pages, with their lines and words, that one list has
BETWEEN_PAGES: Final = "\n\n"
_LIST = "attachments"
_LOOK_EVERY = 0.25  # seconds


@dataclass(frozen=True)
class Accepted:
    """An attachment, the job that reads it or has read it, and what is to be said of that."""

    attachment: Attachment
    job: JobRow | None
    message: str


DELETED_JUST_NOW = "The same file was deleted just now. Send it again."


@dataclass(frozen=True)
class NewAttachment:
    """An upload that has come and is of a kind that is taken."""

    received: Received
    kind: str


@dataclass(frozen=True)
class Kept:
    """An upload in the store. `id`: what its attachment is to be; `instead_of`: the one whose file it is now."""

    id: UUID
    instead_of: UUID | None = None


@dataclass(frozen=True)
class Brought:
    """What an attachment brings to a chat. `picture`: it can be shown to a model that sees."""

    id: UUID
    filename: str
    text: str
    complete: bool
    picture: bool
    width: int | None
    height: int | None


class WholeText(NamedTuple):
    """A text to be sent as a file: its name, its bytes, and their pieces."""

    name: str
    size: int
    pieces: AsyncIterator[bytes]


class Asked(NamedTuple):
    """What a chat asks of an attachment: the first `most` characters of its text, `times` over, for `param`."""

    most: int
    times: int
    param: str


class Attachments:
    """One user's attachments. What is not theirs is not there: AttachmentNotFound."""

    def __init__(
        self,
        db: Database,
        blobs: Blobs,
        jobs: Jobs,
        settings: AttachmentSettings,
        data_dir: Path,
        *,
        ocr_space: KeyPool | None = None,
    ) -> None:
        self.blobs = blobs
        self.settings = settings
        self._db = db
        self._jobs = jobs
        self._data_dir = data_dir
        self._ocr_space = ocr_space

    @property
    def limits(self) -> dict[str, int]:
        """Bytes that a file of each kind may have."""
        return {name: self._limit(name) for name in KINDS}

    def _limit(self, kind: str) -> int:
        image = KINDS[kind].family == "image"
        return self.settings.max_image_bytes if image else self.settings.max_document_bytes

    def engines(self) -> list[EngineState]:
        """How the engines stand, in the order in which they are asked."""
        return engine_states(self.settings, self._data_dir, ocr_space=bool(self._ocr_space))

    # Taking in -------------------------------------------------------------------------------------------------

    async def told(self, received: Received) -> NewAttachment:
        """An upload with its kind. Raises UnknownKind, ProtectedFile, TooLarge."""
        head, tail = await in_thread(_ends, received.path)
        kind = settled(received.kind or kind_of_head(head), received.filename, head, tail)
        limit = self._limit(kind)
        if received.size > limit:
            raise TooLarge(f"A file of this kind ({kind}) may have {limit} bytes at most.")
        return NewAttachment(received, kind)

    async def keep(self, who: Principal, new: NewAttachment) -> Kept:
        """Put an upload into the store, for `create`.

        Before any transaction, which must not wait for a store. What becomes of none is found by the clean-up.
        Where the file of an attachment is gone, the same file uploaded again takes its place.
        Raises FileStoreUnavailable, DatabaseUnavailable.
        """
        async with self._db.tenant(who.user_id) as session:
            there = await repository.id_of(session, who.user_id, new.received.sha256)
        if there is not None and await self.blobs.size(file_key(who.user_id, there)) is None:
            kept = Kept(new_id(), instead_of=there)
        else:
            kept = Kept(new_id())
        await self.blobs.put(file_key(who.user_id, kept.instead_of or kept.id), new.received.path)
        return kept

    async def drop(self, who: Principal, attachment_id: UUID) -> None:
        """Take an attachment's files out of the store. Those that can't be now are found by the clean-up."""
        try:
            await self.blobs.delete(file_key(who.user_id, attachment_id))
            await self.blobs.delete(view_key(who.user_id, attachment_id))
        except FileStoreUnavailable:
            log.warning("attachments.file_left", attachment_id=str(attachment_id))

    async def create(self, session: AsyncSession, who: Principal, kept: Kept, new: NewAttachment) -> Accepted:
        """Have an upload that was kept read; where it was uploaded before, what is there. Raises AttachmentBusy."""
        attachment_id, kind = kept.id, KINDS[new.kind]
        fields = {
            "id": attachment_id,
            "user_id": who.user_id,
            "job_id": attachment_id,  # until there is one
            "filename": new.received.filename,
            "kind": kind.name,
            "media_type": kind.media_type,
            "size": new.received.size,
            "sha256": new.received.sha256,
        }
        row = await repository.add(session, fields)
        if row is None:
            return await self._there(session, who, kept, new.received.sha256)
        if kept.instead_of is not None:
            raise AttachmentBusy(DELETED_JUST_NOW)  # and the file is kept as that one's
        job = await self._enqueue(session, Extraction(who.user_id, attachment_id))
        await self._begin_again(session, row, job)
        what = "OCR processing" if kind.family == "image" else "Text extraction"
        return Accepted(row, job, f"{what} in background")

    async def _there(self, session: AsyncSession, who: Principal, kept: Kept, sha256: str) -> Accepted:
        """A file that its owner has already: read once more where that failed, or where it was gone."""
        there = await repository.by_hash(session, who.user_id, sha256)
        if there is None:
            raise AttachmentBusy(DELETED_JUST_NOW)
        failed = there.status in {"failed", "cancelled"}
        if failed or (there.id == kept.instead_of and there.status != "processing"):
            job = await self._enqueue(session, Extraction(there.user_id, there.id))
            await self._begin_again(session, there, job)
            what = "could not be read: trying once more" if failed else "was gone: reading it once more"
            return Accepted(there, job, f"This file was uploaded before and {what}")
        found = await jobs_repository.by_id(session, there.user_id, there.job_id)
        state = "is being read" if there.status == "processing" else "has been read"
        return Accepted(there, found, f"This file was uploaded before and {state}")

    async def read_again(
        self, session: AsyncSession, who: Principal, attachment_id: UUID, wanted: Extraction
    ) -> Accepted:
        """Have a picture or a PDF read once more. Raises AttachmentBusy, AttachmentUnreadable."""
        row = await repository.locked(session, who.user_id, attachment_id)
        if row is None:
            raise AttachmentNotFound(attachment_id)
        if row.status == "processing":
            raise AttachmentBusy(
                f"It is being read now: see /api/v1/jobs/{row.job_id}. Wait for that job, or cancel it."
            )
        if KINDS[row.kind].family != "image" and row.kind != "pdf":
            raise AttachmentUnreadable("Only pictures and PDFs are read by OCR; this file is text.")
        job = await self._enqueue(session, wanted)
        await self._begin_again(session, row, job)
        return Accepted(row, job, "OCR processing in background")

    async def _enqueue(self, session: AsyncSession, wanted: Extraction) -> JobRow:
        queued = await enqueue(session, extract, wanted, owner=wanted.owner, subject=wanted.attachment)
        return await session.get_one(JobRow, queued.id)

    @staticmethod
    async def _begin_again(session: AsyncSession, row: Attachment, job: JobRow) -> None:
        row.job_id, row.status, row.error = job.id, "processing", None
        await session.flush()

    # Looking -----------------------------------------------------------------------------------------------------

    async def list(
        self, who: Principal, *, filters: Mapping[str, Any], limit: int, cursor: str | None
    ) -> Slice[Attachment]:
        """Newest first. `filters`: `status`, `kind`. Raises BadCursor."""
        last = decode(_LIST, cursor, UUID) if cursor is not None else None
        async with self._db.tenant(who.user_id) as session:
            rows = await repository.after(session, who.user_id, last, limit + 1, filters)
        return slice_of(_LIST, rows, limit, lambda row: row.id)

    async def get(self, who: Principal, attachment_id: UUID) -> Attachment:
        async with self._db.tenant(who.user_id) as session:
            row = await repository.by_id(session, who.user_id, attachment_id)
        if row is None:
            raise AttachmentNotFound(attachment_id)
        return row

    async def text(self, who: Principal, attachment_id: UUID, most: int) -> tuple[Attachment, str | None]:
        """The attachment and the first `most` characters of its text; None while there is none."""
        async with self._db.tenant(who.user_id) as session:
            row = await repository.by_id(session, who.user_id, attachment_id)
            if row is None:
                raise AttachmentNotFound(attachment_id)
            if row.reading is None:
                return row, None
            texts = await repository.texts(session, who.user_id, row.id, row.reading, most=most)
        return row, BETWEEN_PAGES.join(texts)[:most]

    async def whole_text(self, who: Principal, attachment_id: UUID) -> "WholeText":
        """All of its text, to be sent a piece after another. Raises AttachmentNotReady."""
        async with self._db.tenant(who.user_id) as session:
            row = await repository.by_id(session, who.user_id, attachment_id)
            if row is None:
                raise AttachmentNotFound(attachment_id)
            reading = _read(row)
            pages = await repository.measures(session, who.user_id, row.id, reading)
        stem = row.filename.rpartition(".")[0] or row.filename
        size = sum(page.bytes for page in pages) + len(BETWEEN_PAGES) * max(0, len(pages) - 1)
        return WholeText(f"{stem}.txt", size, self._pieces(who, row.id, reading, pages))

    async def _pieces(
        self, who: Principal, attachment_id: UUID, reading: UUID, pages: Sequence[Measure]
    ) -> AsyncIterator[bytes]:
        """The text of `pages`, PIECE characters at a time: no piece holds up the event loop."""
        ending = b""
        for first, last in _in_pieces(pages):
            if first.number == last.number:
                yield ending
                async for text in self.text_from(
                    who, attachment_id, reading, first.number, 0, first.characters
                ):
                    yield text.encode()
            else:
                async with self._db.tenant(who.user_id) as session:
                    texts = await repository.texts_between(
                        session, who.user_id, attachment_id, reading, first.number, last.number
                    )
                if not texts:
                    raise _changed()
                yield ending + BETWEEN_PAGES.join(texts).encode()
            ending = BETWEEN_PAGES.encode()

    async def text_from(
        self, who: Principal, attachment_id: UUID, reading: UUID, number: int, start: int, end: int
    ) -> AsyncIterator[str]:
        """A page's text from one character to another, PIECE characters at a time."""
        for at in range(start, end, PIECE):
            async with self._db.tenant(who.user_id) as session:
                text = await repository.text_from(
                    session, who.user_id, attachment_id, reading, number, at, min(PIECE, end - at)
                )
            if text is None:
                raise _changed()
            yield text

    async def page(self, who: Principal, attachment_id: UUID, number: int) -> tuple[UUID, ShownPage]:
        """The page, and the reading that it is of. Raises AttachmentNotReady, PageNotFound."""
        row, reading, pages = await self._pages(who, attachment_id, number - 1, 1)
        if not pages or pages[0].number != number:
            raise PageNotFound(f"The attachment has {row.pages} pages.")
        return reading, pages[0]

    async def pages(
        self, who: Principal, attachment_id: UUID, *, limit: int, cursor: str | None
    ) -> tuple[UUID, Slice[ShownPage]]:
        """In their order, and the reading that they are of: at most `limit`, and LISTED bytes or one page.

        Raises AttachmentNotReady, BadCursor.
        """
        row = await self.get(who, attachment_id)
        name = f"attachment-pages:{_read(row)}"
        last = decode(name, cursor, int) if cursor is not None else 0
        row, reading, pages = await self._pages(who, attachment_id, last, limit)
        more = bool(pages) and pages[-1].number < (row.pages or 0)
        after = encode(f"attachment-pages:{reading}", pages[-1].number) if more else None
        return reading, Slice(list(pages), after)

    async def _pages(
        self, who: Principal, attachment_id: UUID, last: int, limit: int
    ) -> tuple[Attachment, UUID, Sequence[ShownPage]]:
        async with self._db.tenant(who.user_id) as session:
            row = await repository.by_id(session, who.user_id, attachment_id)
            if row is None:
                raise AttachmentNotFound(attachment_id)
            reading = _read(row)
            pages = await repository.pages_after(
                session, who.user_id, row.id, reading, last, limit, begin=PIECE, most=LISTED
            )
        return row, reading, pages

    async def delete(self, who: Principal, attachment_id: UUID) -> None:
        """With its files and its text. One that is being read is no longer; messages keep what they brought."""
        row = await self.get(who, attachment_id)
        if row.status == "processing":
            try:
                await self._jobs.cancel(who, row.job_id)
            except (JobNotFound, JobNotInState) as ended:
                log.debug("attachments.job_had_ended", reason=str(ended))
        async with self._db.tenant(who.user_id) as session:
            if not await repository.remove(session, who.user_id, attachment_id):
                raise AttachmentNotFound(attachment_id)
        await self.drop(who, attachment_id)

    # For a chat ------------------------------------------------------------------------------------------------

    async def brought(
        self, who: Principal, asked: Mapping[UUID, Asked], *, together: int, param: str
    ) -> Mapping[UUID, Brought]:
        """What these attachments bring to a turn, each fetched once. All have `together` characters at most.

        Those that are still being read are waited for, a while. Raises AttachmentNotFound, AttachmentNotReady,
        AttachmentUnreadable, Invalid when they have more characters.
        """
        rows = await self._settled(who, asked)
        for attachment_id, how in asked.items():
            _check_readable(rows[attachment_id], how.param)
        size = sum(how.times * min(rows[one].characters or 0, how.most) for one, how in asked.items())
        if size > together:
            raise Invalid(
                f"The attachments of one request may bring {together:,} characters together; these bring {size:,}, "
                "each counted as often as a message refers to it.",
                param=param,
            )
        brought = {}
        for attachment_id, how in asked.items():
            row, text = await self.text(who, attachment_id, how.most + 1)
            text = text or ""
            brought[attachment_id] = Brought(
                id=row.id,
                filename=row.filename,
                text=text[: how.most],
                complete=len(text) <= how.most and not row.truncated,
                picture=row.has_view,
                width=row.width,
                height=row.height,
            )
        return brought

    async def _settled(self, who: Principal, asked: Mapping[UUID, Asked]) -> dict[UUID, Attachment]:
        """Their rows, once none is being read for the first time, or when there was no more waiting for that."""
        until = time.monotonic() + self.settings.wait_seconds
        while True:
            async with self._db.tenant(who.user_id) as session:
                rows = await repository.by_ids(session, who.user_id, set(asked))
            for attachment_id, how in asked.items():
                if attachment_id not in rows:
                    raise AttachmentNotFound(attachment_id, param=how.param)
            reading = any(row.status == "processing" and row.reading is None for row in rows.values())
            if not reading or time.monotonic() > until:
                return rows
            await asyncio.sleep(_LOOK_EVERY)

    async def picture(self, owner: UUID, attachment_id: UUID) -> bytes | None:
        """A picture as models are shown it, as JPEG; None when it is not there, or not to be had now."""
        taken = bytearray()
        try:
            async with self._db.tenant(owner) as session:
                row = await repository.by_id(session, owner, attachment_id)
            if row is None or not row.has_view:  # deleted: its file may be there a while longer
                return None
            async for chunk in self.blobs.read(view_key(owner, attachment_id)):
                taken += chunk
        except (FileMissing, Unavailable) as error:
            log.warning("attachments.no_picture", attachment_id=str(attachment_id), reason=str(error))
            return None
        return bytes(taken)


def _check_readable(row: Attachment, param: str) -> None:
    """Raises AttachmentNotReady, AttachmentUnreadable."""
    if row.reading is not None:
        return
    if row.status == "processing":
        raise AttachmentNotReady(
            f"{row.filename} is still being read: see /api/v1/jobs/{row.job_id}. Send this again when that "
            "job has succeeded.",
            param=param,
            attachment_id=str(row.id),
            job_id=str(row.job_id),
        )
    if not row.has_view:
        raise AttachmentUnreadable(
            f"{row.filename} could not be read: {row.error}", param=param, attachment_id=str(row.id)
        )


def _read(row: Attachment) -> UUID:
    if row.reading is not None:
        return row.reading
    if row.status == "processing":
        raise AttachmentNotReady(
            f"It is still being read: see /api/v1/jobs/{row.job_id}.", job_id=str(row.job_id)
        )
    raise AttachmentNotReady(f"There is no text of it: {row.error}")


def _changed() -> AttachmentNotReady:
    return AttachmentNotReady("It was deleted or read once more while its text was being sent. Ask again.")


def _in_pieces(pages: Sequence[Measure]) -> Iterator[tuple[Measure, Measure]]:
    """The first and the last page of each piece: as many as have PIECE characters together, or one that has more."""
    piece: list[Measure] = []
    size = 0
    for page in pages:
        if piece and size + page.characters > PIECE:
            yield piece[0], piece[-1]
            piece, size = [], 0
        piece.append(page)
        size += page.characters
    if piece:
        yield piece[0], piece[-1]


def _ends(path: Path) -> tuple[bytes, bytes]:
    """A file's first bytes and its last."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
        size = file.seek(0, 2)
        file.seek(max(0, size - TAIL_BYTES))
        return head, file.read()
