"""Reading one attachment: looked at as a whole first, then the pages that are pictures, one by one."""

import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final, NoReturn
from uuid import UUID

import msgspec

from baatcheet.attachments import repository
from baatcheet.attachments.contents import found
from baatcheet.attachments.contents.examining import PAGES, VIEW, Examination, Examined, examine
from baatcheet.attachments.contents.found import FoundPage
from baatcheet.attachments.jobs import Extraction, told_of
from baatcheet.attachments.keys import file_key, view_key
from baatcheet.attachments.kinds import MOST_CHARACTERS
from baatcheet.attachments.models import Attachment
from baatcheet.attachments.ocr.engine import Engine, Page, PageText
from baatcheet.attachments.ocr.reading import NobodyRead, Reading
from baatcheet.events.outbox import record
from baatcheet.jobs.declaration import GiveUp, Job, TryAgain
from baatcheet.jobs.isolation import Refused, Sandbox, SandboxFailed
from baatcheet.kit.text import storable, storable_json
from baatcheet.platform.blobs import Blobs, FileMissing
from baatcheet.platform.database import Database
from baatcheet.platform.settings import AttachmentSettings
from baatcheet.platform.threads import in_thread

EXAMINING_SECONDS: Final = 300.0
MEMORY: Final = 1_500_000_000  # bytes
TEXT: Final = "text"  # what "reads" a page that has its text in it as such
CERTAIN: Final = 1.0
DELETED: Final = "The attachment has been deleted."
BATCH: Final = 50  # pages that are written at once
MOST_NOTES: Final = 50
_EXAMINED: Final = 15  # percent of the work that looking at the whole is taken for

_WHY: Final = {
    "memory": "It takes more memory to open than any file may: it is damaged, or made to do harm.",
    "time": "It takes longer to open than any file may: it is damaged, or made to do harm.",
    "crash": "What opens it broke off unexpectedly.",
    "error": "What opens it failed unexpectedly.",
}


@dataclass
class _Work:
    """One reading under way."""

    job: Job[Extraction]
    row: Attachment
    folder: Path
    path: Path
    reading: Reading
    notes: list[dict[str, Any]] = field(default_factory=list)
    unread: list[tuple[FoundPage, NobodyRead]] = field(default_factory=list)
    read: int = 0  # pages that have been read, or had their text in them
    pictures: int = 0  # pages whose text is in their picture
    seconds: float = 0.0  # that engines have had

    def note(self, reason: str, page: int | None = None, engine: str | None = None) -> None:
        said = {"engine": engine, "page": page, "reason": reason}
        if said not in self.notes and len(self.notes) < MOST_NOTES:
            self.notes.append(said)

    @property
    def again(self) -> bool:
        """Whether there are pages that a later attempt may read."""
        return not self.job.last_attempt and any(nobody.passing for _, nobody in self.unread)

    def given_up(self) -> list[dict[str, Any]]:
        """The rows of the pages that nobody will read, which are left as they are. Raises GiveUp when all are such."""
        if self.unread and self.read == 0 and not self.again:
            raise GiveUp(self.why()) from self.unread[-1][1]
        over = [(page, nobody) for page, nobody in self.unread if not (self.again and nobody.passing)]
        return [_own(self, page, note=str(nobody)) for page, nobody in over]

    def why(self) -> str:
        return f"No engine could read it. {self.unread[-1][1]}"


class AttachmentReader:
    """Reads attachments with the engines of this deployment, everything hostile in a sandbox."""

    def __init__(
        self,
        db: Database,
        blobs: Blobs,
        sandbox: Sandbox,
        engines: Sequence[Engine],
        settings: AttachmentSettings,
    ) -> None:
        self._db = db
        self._blobs = blobs
        self._sandbox = sandbox
        self._engines = engines
        self._settings = settings

    async def read(self, job: Job[Extraction]) -> None:
        """See `jobs.extract`."""
        owner, attachment = job.payload.owner, job.payload.attachment
        async with self._db.system() as session:
            row = await repository.begin(session, owner, attachment, job.id)
            there = row or await repository.by_id(session, owner, attachment)
        if row is None:
            raise GiveUp(_superseded(there) if there is not None else DELETED)
        engines = [one for one in self._engines if job.payload.engine in {None, one.name}]
        reading = Reading(engines, job.payload.languages)
        async with self._blobs.scratch() as folder, self._file(row) as path:
            work = _Work(job, row, folder, path, reading)
            examination = await self._examine(work)
            if examination.view:
                await self._keep_view(work)
            await self._read_pages(work, examination)
        await self._finish(work, examination)

    @asynccontextmanager
    async def _file(self, row: Attachment) -> AsyncIterator[Path]:
        """The uploaded file, here. Raises GiveUp when it is gone."""
        async with AsyncExitStack() as stack:
            try:
                path = await stack.enter_async_context(self._blobs.local(file_key(row.user_id, row.id)))
            except FileMissing:
                raise GiveUp("The file is no longer there. Upload it again.") from None
            yield path

    async def _examine(self, work: _Work) -> Examination:
        async def progress(percent: float, phrase: str) -> None:
            await work.job.progress(percent * _EXAMINED / 100, phrase)

        asked = Examined(
            path=str(work.path),
            kind=work.row.kind,
            folder=str(work.folder),
            max_pixels=self._settings.max_pixels,
            max_pages=self._settings.max_pages,
            max_characters=MOST_CHARACTERS,
        )
        try:
            return await self._sandbox.run(
                examine, asked, seconds=EXAMINING_SECONDS, memory=MEMORY, on_progress=progress
            )
        except Refused as refusal:
            raise GiveUp(str(refusal)) from None
        except SandboxFailed as failure:
            _give_up_or_try_again(failure, attempt=work.job.attempt)

    async def _keep_view(self, work: _Work) -> None:
        """The picture is there to be shown, however its text turns out."""
        key = view_key(work.row.user_id, work.row.id)
        await self._blobs.put(key, work.folder / VIEW)
        async with self._db.system() as session:
            there = await repository.show_view(session, work.row.user_id, work.row.id)
        if not there:
            await self._blobs.delete(key)
            raise GiveUp(DELETED)

    # Pages -----------------------------------------------------------------------------------------------------

    async def _read_pages(self, work: _Work, examination: Examination) -> None:
        """Keep every page that is not kept yet."""
        async with self._db.system() as session:
            kept = await repository.kept_notes(session, work.row.id, work.job.id)
        batch: list[dict[str, Any]] = []
        async for page in _pages(work.folder / PAGES):
            if page.number + 1 in kept:
                work.read += kept[page.number + 1] in {None, page.note}
                work.pictures += page.to_read
                continue
            row = await self._row(work, page, examination)
            if row is None:
                continue
            batch.append(row)
            if row["engine"] != TEXT or len(batch) >= BATCH:
                await self._keep(work, batch)
                batch = []
        batch += work.given_up()
        if batch:
            await self._keep(work, batch)
        if work.again:
            raise TryAgain(work.why()) from work.unread[-1][1]

    async def _row(self, work: _Work, page: FoundPage, examination: Examination) -> dict[str, Any] | None:
        """A page's row: with its own text, or what an engine read on it. None when nobody could read it."""
        if not page.to_read and not (work.job.payload.every_page and work.row.kind == "pdf"):
            work.read += 1
            return _own(work, page)
        work.pictures += 1
        if work.pictures > self._settings.max_ocr_pages:
            most = self._settings.max_ocr_pages
            work.note(f"Only {most} pages of one document are read from their pictures; the others are not.")
            return _own(work, page)
        if work.seconds >= self._settings.max_ocr_seconds:
            seconds = self._settings.max_ocr_seconds
            work.note(
                f"Reading pages of one document from their pictures may take {seconds:g} s; those that were left are "
                "not read."
            )
            return _own(work, page)
        percent = _EXAMINED + (100 - _EXAMINED) * page.number / examination.pages
        await work.job.progress(percent, f"Page {page.number + 1} of {examination.pages}")
        asked = Page(str(work.path), work.row.kind, page.number, self._settings.max_pixels)
        began = time.monotonic()
        try:
            read = await work.reading.read(asked, work.folder)
        except Refused as refusal:
            return _own(work, page, note=str(refusal))
        except NobodyRead as nobody:
            work.unread.append((page, nobody))
            return None
        finally:
            work.seconds += time.monotonic() - began
        work.read += 1
        if len(read.text.strip()) < len(page.text.strip()) and not work.job.payload.every_page:
            return _own(work, page)  # what is stamped on it says more
        return _of(work, page.number + 1, read)

    async def _keep(self, work: _Work, pages: Sequence[Mapping[str, Any]]) -> None:
        async with self._db.system() as session:
            if not await repository.keep_pages(session, pages):
                raise GiveUp(DELETED)

    # The end -----------------------------------------------------------------------------------------------------

    async def _finish(self, work: _Work, examination: Examination) -> None:
        row, job = work.row, work.job
        async with self._db.system() as session:
            pages = await repository.sums(session, row.id, job.id)
        for failure in work.reading.failures:
            if failure.page is not None:
                work.note(failure.reason, failure.page, failure.engine)
        for page in pages:
            if page.note is not None:
                work.note(page.note, page.number)
        fields = {
            "pages": len(pages),
            "characters": sum(page.characters for page in pages),
            "truncated": examination.cut,
            "confidence": _confidence(pages),
            "language": _most(pages, lambda page: page.language),
            "engine": _most(pages, lambda page: page.engine),
            "width": examination.width,
            "height": examination.height,
            "notes": storable_json(work.notes),
        }
        if examination.cut:
            fields["notes"].append(
                {
                    "engine": None,
                    "page": None,
                    "reason": f"Its first {MOST_CHARACTERS:,} characters are kept.",
                }
            )
        result = {
            "attachment_id": str(row.id),
            **{name: fields[name] for name in ("pages", "characters", "confidence", "language", "engine")},
            "truncated": examination.cut,
        }
        async with job.finish(result) as session:
            if not await repository.complete(session, row.user_id, row.id, job.id, fields):
                raise GiveUp(DELETED)
            for name, value in fields.items():
                setattr(row, name, value)
            row.status, row.error = "completed", None
            await record(session, "image.ocr_completed", told_of(row), user=row.user_id)


def _superseded(row: Attachment) -> str:
    return (
        f"Another job has read the attachment since, or is reading it: see /api/v1/jobs/{row.job_id}. To have it read "
        f"once more, POST /api/v1/attachments/{row.id}/ocr."
    )


def _give_up_or_try_again(failure: SandboxFailed, *, attempt: int) -> NoReturn:
    """A file that takes all the memory there is takes it again; on a busy machine time may have been short."""
    words = f"The file could not be opened. {_WHY[failure.kind]}"
    hopeless = failure.kind == "memory" or (failure.kind == "time" and attempt > 1)
    raise (GiveUp if hopeless else TryAgain)(words) from failure


async def _pages(path: Path) -> AsyncIterator[FoundPage]:
    """What was found, a few at a time, off the loop."""
    pages = found.read(path)
    while batch := await in_thread(_some, pages):
        for page in batch:
            yield page


def _some(pages: Iterator[FoundPage]) -> list[FoundPage]:
    return list(islice(pages, 10))


def _own(work: _Work, page: FoundPage, note: str | None = None) -> dict[str, Any]:
    """The row of a page whose text was in it as such."""
    return {
        **_place(work, page.number + 1),
        "text": page.text,
        "engine": TEXT,
        "width": page.width,
        "height": page.height,
        "turned": 0.0,
        "confidence": CERTAIN if page.text else None,
        "language": page.language,
        "lines": storable_json(msgspec.to_builtins(page.lines)),
        "note": note or page.note,
    }


def _of(work: _Work, number: int, read: PageText) -> dict[str, Any]:
    return {
        **_place(work, number),
        "text": storable(read.text)[:MOST_CHARACTERS],
        "engine": read.engine,
        "width": read.width,
        "height": read.height,
        "turned": read.turned,
        "confidence": read.confidence,
        "language": read.language,
        "lines": storable_json(msgspec.to_builtins(read.lines)),
        "note": None,
    }


def _place(work: _Work, number: int) -> dict[str, UUID | int]:
    return {
        "attachment_id": work.row.id,
        "reading": work.job.id,
        "number": number,
        "user_id": work.row.user_id,
    }


def _confidence(pages: Sequence[Any]) -> float | None:
    """Of all characters whose engine says something."""
    told = [page for page in pages if page.confidence is not None and page.characters]
    total = sum(page.characters for page in told)
    return round(sum(page.characters * page.confidence for page in told) / total, 4) if total else None


def _most(pages: Sequence[Any], of: Callable[[Any], str | None]) -> str | None:
    """What holds of most of the text; of pages without any, of most pages."""
    counts: dict[str, int] = {}
    for page in pages:
        if (one := of(page)) is not None:
            counts[one] = counts.get(one, 0) + page.characters * 1_000 + 1
    return max(counts, key=lambda one: counts[one], default=None)
