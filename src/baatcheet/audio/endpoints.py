"""`/api/v1/audio`."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import Response

from baatcheet.audio.engines.model import Wish
from baatcheet.audio.keys import audio_key
from baatcheet.audio.schemas import (
    AudioAccepted,
    AudioOut,
    AudioPage,
    AudioStatus,
    AudioSummary,
    Format,
    TranscriptionWish,
    UploadedRecording,
)
from baatcheet.audio.service import MEDIA_TYPES, NewRecording, Recordings
from baatcheet.audio.sniffing import RECORDINGS, media_type_of
from baatcheet.auth.access import Reader, Writer
from baatcheet.auth.idempotency import Made, Once
from baatcheet.budgets.admission import SECONDS_GUESSED, Budgets
from baatcheet.jobs.schemas import JobOut
from baatcheet.kit.file_names import content_disposition
from baatcheet.kit.ids import new_id
from baatcheet.platform.file_answers import file_answer, file_responses
from baatcheet.platform.openapi import Responses, accepted, found, problems
from baatcheet.platform.rest import LIMIT, Cursor, Limit, PathId, page_fields
from baatcheet.platform.uploads import receive_upload

PATH = "/api/v1/audio"
TAG = {"name": "audio", "description": "Recordings, and what is said in them."}

router = APIRouter(prefix=PATH, tags=["audio"])


def _recordings(request: Request) -> Recordings:
    service: Recordings = request.app.state.recordings
    return service


Service = Annotated[Recordings, Depends(_recordings)]

_MADE = {"audio_id": "$response.body#/audio/id"}
_LINKS = {
    "getAudio": _MADE,
    "getTranscription": _MADE,
    "deleteAudio": _MADE,
    "getJob": {"job_id": "$response.body#/job/id"},
}
_ID = {"audio_id": "$response.body#/id"}
_FILE: Responses = {
    200: {
        "description": "The file.",
        "content": {
            one.partition(";")[0]: {"schema": {"type": "object" if name == "json" else "string"}}
            for name, one in MEDIA_TYPES.items()
        },
    }
}
_FOUND = {"getTranscription": _ID, "downloadAudio": _ID, "deleteAudio": _ID}


def _form() -> dict[str, Any]:
    """What the document says of the form: FastAPI sees no body, since it is read as it comes."""
    wish = TranscriptionWish.model_json_schema()
    fields = {name: _without_null(field) for name, field in wish["properties"].items()}
    schema = {
        "title": "AudioUpload",
        "type": "object",
        "required": ["file"],
        "properties": {
            "file": {
                "type": "string",
                "format": "binary",
                "description": "The recording, or a video with sound.",
            },
            **fields,
        },
    }
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


def _without_null(field: dict[str, Any]) -> dict[str, Any]:
    kinds = [one for one in field.get("anyOf", [field]) if one.get("type") != "null"]
    return {name: value for name, value in kinds[0].items() if name not in {"default", "title"}}


@router.post(
    "",
    summary="Have a recording transcribed",
    status_code=202,
    response_model=AudioAccepted,
    responses=accepted("The recording, and the job that transcribes it.", _LINKS) | problems(409, body=True),
    openapi_extra=_form(),
)
async def create_audio(request: Request, who: Writer, recordings: Service, once: Once) -> Response:
    """It is transcribed in the background: follow the job, or wait for the event `audio.transcribed`."""
    async with recordings.blobs.scratch() as folder:
        received = await receive_upload(request, folder, recordings.settings.max_bytes, kind_of=media_type_of)
        wanted = _wanted(received.fields)
        wish = Wish(wanted.language, wanted.prompt, wanted.temperature)
        budgets: Budgets = request.app.state.budgets
        models = await budgets.names(who, recordings.engines(wanted.model, wish))
        audio_id = new_id()
        admission = await budgets.admit(who, models, seconds=SECONDS_GUESSED, reservation=audio_id)
        same = UploadedRecording(
            **wanted.model_dump(exclude_unset=True), sha256=received.sha256, filename=received.filename
        )

        with admission:
            await recordings.keep(who, audio_id, received)
        made = False

        async def make(session: AsyncSession) -> Made[AudioAccepted]:
            nonlocal made
            new = NewRecording(received, wish, wanted.model, admission.hand_over(models))
            row, job = await recordings.create(session, who, audio_id, new)
            made = True
            answer = AudioAccepted(audio=AudioOut.of(row), job=JobOut.of(job))
            return Made(answer, f"{PATH}/{row.id}")

        try:
            return await once.run(who, same, AudioAccepted, make, status=202)
        finally:
            if not made:  # it was sent before and its file is there already, or nothing came of it
                admission.give_back()
                await recordings.drop(who, audio_id)


def _wanted(fields: dict[str, str]) -> TranscriptionWish:
    try:
        return TranscriptionWish.model_validate(fields)
    except ValidationError as error:
        raise RequestValidationError(
            [{**one, "loc": ("body", *one["loc"])} for one in error.errors(include_input=False)]
        ) from None


@router.get("", summary="List recordings", responses=problems(400, 422))
async def list_audio(
    who: Reader,
    recordings: Service,
    status: AudioStatus | None = None,
    limit: Limit = LIMIT,
    cursor: Cursor = None,
) -> AudioPage:
    """Newest first."""
    filters = {"status": status} if status is not None else {}
    rows = await recordings.list(who, filters=filters, limit=limit, cursor=cursor)
    return AudioPage(**page_fields(rows, AudioSummary.model_validate))


@router.get(
    "/{audio_id}", summary="Get a recording", responses=found("The recording.", _FOUND) | problems(404)
)
async def get_audio(who: Reader, audio_id: PathId, recordings: Service) -> AudioOut:
    """With its transcription, once that is there."""
    return AudioOut.of(await recordings.get(who, audio_id))


@router.delete("/{audio_id}", summary="Delete a recording", status_code=204, responses=problems(404))
async def delete_audio(who: Writer, audio_id: PathId, recordings: Service) -> None:
    """With its file and its transcription. One that is being transcribed is no longer."""
    await recordings.delete(who, audio_id)


@router.get(
    "/{audio_id}/transcription",
    summary="Get a transcription as a file",
    response_class=Response,
    responses=_FILE | problems(404, 409, 422),
)
async def get_transcription(
    who: Reader,
    audio_id: PathId,
    recordings: Service,
    format: Annotated[Format, Query(description="`srt` and `vtt` are subtitles.")] = "txt",  # noqa: A002
) -> Response:
    """Plain text, subtitles, or JSON with the times of phrases and, where the engine tells them, of words."""
    content, name = await recordings.transcription(who, audio_id, format)
    return Response(
        content,
        media_type=MEDIA_TYPES[format],
        headers={"content-disposition": content_disposition(name)},
    )


@router.get(
    "/{audio_id}/content",
    summary="Get the file of a recording",
    response_class=Response,
    responses=file_responses(*RECORDINGS) | problems(404),
)
async def download_audio(request: Request, who: Reader, audio_id: PathId, recordings: Service) -> Response:
    """As it was uploaded; whole, or in part with Range."""
    row = await recordings.get(who, audio_id)
    return await file_answer(
        request,
        recordings.blobs,
        audio_key(row.user_id, row.id),
        filename=row.filename,
        media_type=row.media_type,
        tag=row.sha256,
    )
