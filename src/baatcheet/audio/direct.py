"""Transcribing what is short while its client waits. Nothing of it is kept."""

from pathlib import Path

from baatcheet.audio.engines import Engine, Engines
from baatcheet.audio.engines.model import EngineFailed, NobodyTranscribes, Wish
from baatcheet.audio.errors import (
    NoTranscription,
    RecordingTooLong,
    TranscriptionFailed,
    TranscriptionUnavailable,
    UnreadableRecording,
)
from baatcheet.audio.pieces import Decoded, length
from baatcheet.audio.transcribing import Limit, Transcribed, Transcriber
from baatcheet.jobs.isolation import Refused, SandboxFailed
from baatcheet.platform.errors import Invalid
from baatcheet.platform.settings import AudioSettings


def engines_for(engines: Engines, model: str | None, wish: Wish) -> list[Engine]:
    """Those to ask, first to last. Raises NoTranscription when nothing here transcribes, Invalid when not this."""
    try:
        return engines.choose(model, wish)
    except NobodyTranscribes as error:
        if engines.names:
            raise Invalid(str(error), param=error.param) from None
        raise NoTranscription(
            f"{error} An administrator can set GROQ_API_KEY or OPENAI_API_KEY, or install the extra `speech`.",
            retry_after=3600,
        ) from None


class DirectTranscriber:
    """As many at once as the sandbox has places; whoever comes later waits for theirs."""

    def __init__(self, transcriber: Transcriber, settings: AudioSettings) -> None:
        self.settings = settings
        self._transcriber = transcriber
        seconds = settings.direct_seconds
        self._limit = Limit(
            seconds,
            f"The recording is longer than {length(seconds)}, which is the most that is transcribed while you wait. "
            "POST /api/v1/audio takes it, and transcribes it in the background.",
        )

    def check(self, model: str | None, wish: Wish) -> None:
        """Whether anybody can transcribe this. Raises NoTranscription, Invalid."""
        engines_for(self._transcriber.engines, model, wish)

    async def transcribe(self, path: Path, folder: Path, model: str | None, wish: Wish) -> Transcribed:
        """What is said in the file at `path`. Its pieces are written into `folder`.

        Raises NoTranscription, Invalid, UnreadableRecording, RecordingTooLong, TranscriptionUnavailable and
        TranscriptionFailed.
        """
        engines = engines_for(self._transcriber.engines, model, wish)
        decoded = await self._decode(path, folder)
        try:
            return await self._transcriber.hear(decoded, engines, wish)
        except EngineFailed as failure:
            if failure.passing:
                raise TranscriptionUnavailable(str(failure), retry_after=failure.after or 5) from failure
            raise TranscriptionFailed(str(failure)) from failure

    async def _decode(self, path: Path, folder: Path) -> Decoded:
        try:
            return await self._transcriber.decode(path, folder, self._limit)
        except Refused as refusal:
            if str(refusal) == self._limit.words:
                raise RecordingTooLong(self._limit.words, param="file") from None
            raise UnreadableRecording(str(refusal), param="file") from None
        except SandboxFailed as failure:
            raise UnreadableRecording(
                f"The recording could not be decoded. {failure}", param="file"
            ) from failure
