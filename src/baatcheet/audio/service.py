"""Recordings: taking them in, looking at them, and what was said in them as a file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from baatcheet.audio import captions, repository
from baatcheet.audio.direct import engines_for
from baatcheet.audio.engines.model import Wish
from baatcheet.audio.errors import RecordingNotFound, TranscriptionNotReady
from baatcheet.audio.jobs import Transcribing, transcribe
from baatcheet.audio.keys import audio_key
from baatcheet.audio.models import Recording
from baatcheet.audio.sniffing import UNKNOWN
from baatcheet.audio.transcribing import Transcriber
from baatcheet.audio.transcript import Segment
from baatcheet.auth.principal import Principal
from baatcheet.budgets.admission import Handed
from baatcheet.jobs.enqueueing import enqueue
from baatcheet.jobs.errors import JobNotFound, JobNotInState
from baatcheet.jobs.models import JobRow
from baatcheet.jobs.service import Jobs
from baatcheet.kit.pagination import Slice, decode, slice_of
from baatcheet.platform.blobs import Blobs, FileStoreUnavailable
from baatcheet.platform.database import Database
from baatcheet.platform.logging import get_logger
from baatcheet.platform.settings import AudioSettings
from baatcheet.platform.uploads import Received

log = get_logger(__name__)

MEDIA_TYPES: Final = {
    "txt": "text/plain; charset=utf-8",
    "srt": "application/x-subrip; charset=utf-8",
    "vtt": "text/vtt; charset=utf-8",
    "json": "application/json",
}
_LIST = "audio"


@dataclass(frozen=True)
class NewRecording:
    """An upload that has come, and how it is to be transcribed."""

    received: Received
    wish: Wish
    model: str | None
    admitted: Handed | None = None


class Recordings:
    """One user's recordings. What is not theirs is not there: RecordingNotFound."""

    def __init__(
        self, db: Database, blobs: Blobs, transcriber: Transcriber, jobs: Jobs, settings: AudioSettings
    ) -> None:
        self.blobs = blobs
        self.settings = settings
        self._db = db
        self._transcriber = transcriber
        self._jobs = jobs

    def engines(self, model: str | None, wish: Wish) -> list[str]:
        """Who can transcribe this, first to last. Raises NoTranscription, Invalid."""
        return [engine.name for engine in engines_for(self._transcriber.engines, model, wish)]

    async def keep(self, who: Principal, audio_id: UUID, received: Received) -> None:
        """Put an upload into the store, for `create`. `audio_id`: the id that its recording is to have.

        Before any transaction, which must not wait for a store. What becomes of none is found by the clean-up.
        Raises FileStoreUnavailable.
        """
        await self.blobs.put(audio_key(who.user_id, audio_id), received.path)

    async def drop(self, who: Principal, audio_id: UUID) -> None:
        """Take a file out of the store. One that can't be now is found by the clean-up."""
        try:
            await self.blobs.delete(audio_key(who.user_id, audio_id))
        except FileStoreUnavailable:
            log.warning("audio.file_left", audio_id=str(audio_id))

    async def create(
        self, session: AsyncSession, who: Principal, audio_id: UUID, new: NewRecording
    ) -> tuple[Recording, JobRow]:
        """Have an upload that was kept as `audio_id` transcribed."""
        received, wish = new.received, new.wish
        payload = Transcribing(owner=who.user_id, audio=audio_id, admitted=new.admitted)
        queued = await enqueue(session, transcribe, payload, owner=who.user_id, subject=audio_id)
        recording = Recording(
            id=audio_id,
            user_id=who.user_id,
            job_id=queued.id,
            filename=received.filename,
            media_type=received.kind or UNKNOWN,
            size=received.size,
            sha256=received.sha256,
            model=new.model,
            language=wish.language,
            prompt=wish.prompt,
            temperature=wish.temperature,
        )
        session.add(recording)
        await session.flush()
        await session.refresh(recording)
        return recording, await session.get_one(JobRow, queued.id)

    async def list(
        self, who: Principal, *, filters: Mapping[str, Any], limit: int, cursor: str | None
    ) -> Slice[Recording]:
        """Newest first, without what was said in them. `filters`: `status`. Raises BadCursor."""
        last = decode(_LIST, cursor, UUID) if cursor is not None else None
        async with self._db.tenant(who.user_id) as session:
            rows = await repository.after(session, who.user_id, last, limit + 1, filters)
        return slice_of(_LIST, rows, limit, lambda row: row.id)

    async def get(self, who: Principal, audio_id: UUID) -> Recording:
        async with self._db.tenant(who.user_id) as session:
            recording = await repository.by_id(session, who.user_id, audio_id)
        if recording is None:
            raise RecordingNotFound(audio_id)
        return recording

    async def delete(self, who: Principal, audio_id: UUID) -> None:
        """With its file and its transcription. One that is being transcribed is no longer."""
        recording = await self.get(who, audio_id)
        if recording.status == "processing":
            try:
                await self._jobs.cancel(who, recording.job_id)
            except (JobNotFound, JobNotInState) as ended:
                log.debug("audio.job_had_ended", reason=str(ended))
        async with self._db.tenant(who.user_id) as session:
            if not await repository.remove(session, who.user_id, audio_id):
                raise RecordingNotFound(audio_id)
        await self.drop(who, audio_id)

    async def transcription(self, who: Principal, audio_id: UUID, format: str) -> tuple[bytes, str]:  # noqa: A002
        """What was said, as a file in `format`, and its name. Raises TranscriptionNotReady."""
        recording = await self.get(who, audio_id)
        if recording.status == "processing":
            raise TranscriptionNotReady(
                f"The recording is still being transcribed: see /api/v1/jobs/{recording.job_id}."
            )
        if recording.status != "completed":
            raise TranscriptionNotReady(f"The recording was not transcribed: {recording.error}")
        stem = recording.filename.rpartition(".")[0] or recording.filename
        return _rendered(recording, format).encode(), f"{stem}.{format}"


def _rendered(recording: Recording, format: str) -> str:  # noqa: A002 - what it is
    segments = msgspec.convert(recording.segments or [], list[Segment])
    match format:
        case "srt":
            return captions.srt(segments)
        case "vtt":
            return captions.vtt(segments)
        case "json":
            return msgspec.json.encode(_document(recording, segments)).decode()
        case _:
            return captions.text(recording.transcription_text or "")


def _document(recording: Recording, segments: Sequence[Segment]) -> dict[str, Any]:
    return {
        "text": recording.transcription_text,
        "language": recording.detected_language,
        "seconds": recording.seconds,
        "confidence": recording.confidence,
        "engine": recording.engine,
        "warning": recording.warning,
        "segments": [
            {"start": one.start, "end": one.end, "text": one.text, "confidence": one.confidence}
            for one in segments
        ],
        "words": recording.words or [],
    }
