"""What can go wrong with recordings, in words for their client."""

from uuid import UUID

from baatcheet.platform.errors import (
    BadGateway,
    BadRequest,
    Conflict,
    NotFound,
    TooLarge,
    Unavailable,
    UnsupportedMediaType,
)


class RecordingNotFound(NotFound):
    """There is no such recording."""

    type = "recording-not-found"
    openai_code = "recording_not_found"

    def __init__(self, audio_id: UUID) -> None:
        super().__init__(f"There is no recording {audio_id}.")


class NotARecording(UnsupportedMediaType):
    """The file is no recording."""

    type = "not-a-recording"
    openai_code = "invalid_file_format"


class UnreadableRecording(BadRequest):
    """The recording can't be transcribed."""

    type = "unreadable-recording"
    openai_code = "invalid_file"


class RecordingTooLong(TooLarge):
    """The recording is too long to wait for."""

    type = "recording-too-long"
    openai_code = "audio_too_long"


class TranscriptionNotReady(Conflict):
    """There is no transcription of this recording."""

    type = "transcription-not-ready"
    openai_code = "transcription_not_ready"


class NoTranscription(Unavailable):
    """Nothing here can transcribe."""

    type = "no-transcription"
    openai_code = "no_transcription"


class TranscriptionFailed(BadGateway):
    """No engine transcribed the recording."""

    type = "transcription-failed"
    openai_code = "transcription_failed"


class TranscriptionUnavailable(Unavailable):
    """No engine can transcribe now."""

    type = "transcription-unavailable"
    openai_code = "transcription_unavailable"
