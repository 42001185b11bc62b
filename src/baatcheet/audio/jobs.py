"""Transcribing in the background, and tidying up."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from baatcheet.audio import repository
from baatcheet.audio.engines.model import EngineFailed, NobodyTranscribes, Wish
from baatcheet.audio.keys import PREFIX, audio_key, row_of
from baatcheet.audio.models import Recording
from baatcheet.audio.pieces import CutPiece, Decoded
from baatcheet.audio.transcribing import Kept, Place, Transcribed, Transcriber
from baatcheet.audio.transcript import Heard
from baatcheet.budgets.admission import Budgets, Handed, forget_reservation
from baatcheet.events.outbox import record
from baatcheet.jobs.declaration import DeadJob, GiveUp, Job, TryAgain, job
from baatcheet.jobs.isolation import Refused, SandboxFailed
from baatcheet.platform.blobs import Blobs, FileMissing
from baatcheet.platform.database import Database

DELETED = "The recording has been deleted."
TRANSCRIBING_SECONDS = 6 * 3600.0  # the longest recording, by the slowest engine
ORPHANED = timedelta(hours=24)  # after which a file without a row is nobody's
BATCH = 500
_DECODED = 10  # percent of the work that decoding is taken for


@dataclass(frozen=True)
class AudioParts:
    """What the jobs need."""

    db: Database
    blobs: Blobs
    transcriber: Transcriber
    budgets: Budgets | None = None  # None: nobody is charged


class Transcribing(msgspec.Struct, frozen=True):
    """Which recording is to be transcribed, and whose it is. `admitted`: on whose account, and by which engines."""

    owner: UUID
    audio: UUID
    admitted: Handed | None = None


class Nothing(msgspec.Struct, frozen=True):
    """The payload of work that is always the same."""


async def _bury(dead: DeadJob, session: AsyncSession, _parts: AudioParts | None) -> None:
    status = "cancelled" if dead.cancelled else "failed"
    await repository.end_without(session, *dead.concerns, status=status, error=dead.error)
    await forget_reservation(session, dead.concerns[1])


@job(
    "audio.transcribe",
    queue="audio",
    seconds=TRANSCRIBING_SECONDS,
    lane_limit=1,
    link="/api/v1/audio/{subject}",
    on_dead=_bury,
)
async def transcribe(job: Job[Transcribing], parts: AudioParts) -> None:
    """The recording has its transcription, and an event says so.

    Each piece is kept as soon as it has been heard, so a second run pays for none twice; the transcription is written
    with the job's end, so it is told of once.
    """
    owner, audio_id = job.payload.owner, job.payload.audio
    async with parts.db.tenant(owner) as session:
        recording = await repository.begin(session, owner, audio_id)
    if recording is None:
        raise GiveUp(DELETED)
    async with parts.blobs.scratch() as folder:
        decoded = await _decode(job, parts, folder)
        transcribed = await _hear(job, parts, recording, decoded)
    await _finish(job, recording, transcribed)
    admitted, engine = job.payload.admitted, transcribed.transcript.engine
    if parts.budgets is not None and admitted is not None and engine is not None:
        by = engine.partition(", ")[0]  # where several heard it, the first
        parts.budgets.charge_job(owner, admitted, by, seconds=transcribed.transcript.seconds)


async def _decode(job: Job[Transcribing], parts: AudioParts, folder: Path) -> Decoded:
    async def progress(percent: float, phrase: str) -> None:
        await job.progress(percent * _DECODED / 100, phrase)

    try:
        async with parts.blobs.local(audio_key(job.payload.owner, job.payload.audio)) as path:
            return await parts.transcriber.decode(path, folder, on_progress=progress)
    except FileMissing:
        raise GiveUp("The file of the recording is no longer there. Upload it again.") from None
    except Refused as refusal:
        raise GiveUp(str(refusal)) from None
    except SandboxFailed as failure:
        words = f"The recording could not be decoded. {failure}"
        raise (GiveUp if failure.kind in {"memory", "time"} else TryAgain)(words) from failure


async def _hear(
    job: Job[Transcribing], parts: AudioParts, recording: Recording, decoded: Decoded
) -> Transcribed:
    wish = Wish(recording.language, recording.prompt, recording.temperature)

    async def keep(piece: CutPiece, kept: Kept) -> None:
        async with parts.db.system() as session:
            await repository.keep_piece(session, _piece(recording, piece, kept))

    async def on_piece(number: int, count: int) -> None:
        percent = _DECODED + (100 - _DECODED) * (number - 1) / count
        await job.progress(percent, f"Piece {number} of {count}")

    try:
        engines = parts.transcriber.engines.choose(recording.model, wish)
        if (admitted := job.payload.admitted) is not None:
            engines = [engine for engine in engines if engine.name in admitted.models]
            if not engines:
                raise GiveUp("No engine that you may use transcribes any more. Upload it again.")
        return await parts.transcriber.hear(
            decoded, engines, wish, kept=await _kept(parts, recording), keep=keep, on_piece=on_piece
        )
    except NobodyTranscribes as error:
        raise GiveUp(str(error)) from None
    except EngineFailed as failure:
        words = f"The recording could not be transcribed. {failure}"
        if failure.passing:
            raise TryAgain(words, after=failure.after) from failure
        raise GiveUp(words) from failure


async def _kept(parts: AudioParts, recording: Recording) -> dict[Place, Kept]:
    async with parts.db.system() as session:
        rows = await repository.pieces_of(session, recording.user_id, recording.id)
    return {
        (row.first_sample, row.last_sample): Kept(msgspec.convert(row.heard, Heard), row.engine)
        for row in rows
    }


def _piece(recording: Recording, piece: CutPiece, kept: Kept) -> Mapping[str, Any]:
    return {
        "audio_id": recording.id,
        "first_sample": piece.first,
        "user_id": recording.user_id,
        "last_sample": piece.last,
        "engine": kept.engine,
        "heard": msgspec.to_builtins(kept.heard),
    }


async def _finish(job: Job[Transcribing], recording: Recording, transcribed: Transcribed) -> None:
    transcript = transcribed.transcript
    told = {
        "audio_id": recording.id,
        "filename": recording.filename,
        "seconds": round(transcript.seconds, 3),
        "detected_language": transcript.language,
        "confidence": transcript.confidence,
        "characters": len(transcript.text),
        "engine": transcript.engine,
    }
    fields = {
        "seconds": told["seconds"],
        "transcription_text": transcript.text,
        "detected_language": transcript.language,
        "confidence": transcript.confidence,
        "segments": msgspec.to_builtins(transcript.segments),
        "words": msgspec.to_builtins(transcript.words),
        "engine": transcript.engine,
        "warning": transcribed.warning,
    }
    async with job.finish(msgspec.to_builtins(told)) as session:
        if not await repository.complete(session, recording.user_id, recording.id, fields):
            raise GiveUp(DELETED)
        await record(session, "audio.transcribed", told, user=recording.user_id)


@job("audio.tidy", queue="maintenance", visible=False, seconds=3600)
async def tidy(job: Job[Nothing], parts: AudioParts) -> dict[str, int]:
    """Files of recordings that are no longer there are gone. Run twice, it finds nothing more."""
    swept = 0
    async for orphans in _orphans(parts):
        for key in orphans:
            await parts.blobs.delete(key)
        swept += len(orphans)
    return {"orphans": swept}


async def _orphans(parts: AudioParts) -> AsyncIterator[list[str]]:
    now = datetime.now(UTC)
    old: dict[UUID, str] = {}
    async for stored in parts.blobs.keys(PREFIX):
        row = row_of(stored.key)
        if row is not None and stored.age(now) > ORPHANED:
            old[row] = stored.key
        if len(old) == BATCH:
            yield await _without_row(parts, old)
            old = {}
    yield await _without_row(parts, old)


async def _without_row(parts: AudioParts, old: Mapping[UUID, str]) -> list[str]:
    async with parts.db.system() as session:
        there = await repository.still_there(session, list(old))
    return [key for row, key in old.items() if row not in there]
