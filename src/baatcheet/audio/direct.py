"""Transcribing what is short while its client waits. Nothing of it is kept."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from uuid import UUID

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
from baatcheet.audio.transcribing import DECODING_SECONDS, Limit, Transcribed, Transcriber
from baatcheet.jobs.isolation import Refused, SandboxFailed
from baatcheet.platform.errors import Invalid, RateLimited
from baatcheet.platform.settings import AudioSettings

MOST_WAITING: Final = 8  # requests in a process beyond those that are worked on
RETRY_AFTER: Final = 10  # seconds


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


class Places:
    """Whom this process transcribes for while they wait: `running` at once, and `waiting` more, of each user one.

    Each has a file on disk. Belongs to one event loop.
    """

    def __init__(self, running: int, waiting: int = MOST_WAITING) -> None:
        self._running = running
        self._waiting = waiting
        self._users: dict[object, UUID] = {}  # in the order in which they came

    @contextmanager
    def taken(self, user: UUID) -> Iterator[None]:
        """A place, given back at the end. Raises RateLimited and TranscriptionUnavailable, at once."""
        waiting = list(self._users.values())[self._running :]
        if user in waiting:
            raise RateLimited(
                "A recording of yours waits already to be transcribed. Send this one when it is done, or have it "
                "transcribed in the background: POST /api/v1/audio.",
                headers={"retry-after": str(RETRY_AFTER)},
            )
        if len(waiting) >= self._waiting:
            raise TranscriptionUnavailable(
                f"Too many recordings wait to be transcribed. Try again in {RETRY_AFTER} s, or have it transcribed "
                "in the background: POST /api/v1/audio.",
                retry_after=RETRY_AFTER,
            )
        place = object()
        self._users[place] = user
        try:
            yield
        finally:
            del self._users[place]


class DirectTranscriber:
    """As many at once as the sandbox has processes; so many more wait for theirs as there are `places`."""

    def __init__(self, transcriber: Transcriber, settings: AudioSettings, *, processes: int = 2) -> None:
        self.settings = settings
        self.places = Places(processes)
        self._transcriber = transcriber
        seconds = settings.direct_seconds
        self._limit = Limit(
            seconds,
            f"The recording is longer than {length(seconds)}, which is the most that is transcribed while you wait. "
            "POST /api/v1/audio takes it, and transcribes it in the background.",
            decoding=min(DECODING_SECONDS, 30 + seconds / 10),
        )

    def engines(self, model: str | None, wish: Wish) -> list[str]:
        """Who can transcribe this, by name, first to last. Raises NoTranscription, Invalid."""
        return [engine.name for engine in engines_for(self._transcriber.engines, model, wish)]

    async def transcribe(
        self, path: Path, folder: Path, model: str | None, wish: Wish, among: Collection[str] | None = None
    ) -> Transcribed:
        """What is said in the file at `path`. Its pieces are written into `folder`. `among`: who may be asked.

        Raises NoTranscription, Invalid, UnreadableRecording, RecordingTooLong, TranscriptionUnavailable and
        TranscriptionFailed.
        """
        engines = [
            engine
            for engine in engines_for(self._transcriber.engines, model, wish)
            if among is None or engine.name in among
        ]
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
