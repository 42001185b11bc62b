"""`POST /v1/audio/transcriptions`, as OpenAI's clients call it: answered at once, for what is short."""

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

import msgspec
from fastapi import Request

from baatcheet.audio import captions
from baatcheet.audio.direct import DirectTranscriber
from baatcheet.audio.engines.model import Wish
from baatcheet.audio.errors import NotARecording, UnreadableRecording
from baatcheet.audio.languages import name_of
from baatcheet.audio.sniffing import media_type_of
from baatcheet.audio.transcribing import Transcribed
from baatcheet.audio.transcript import Segment, Transcript
from baatcheet.budgets.admission import SECONDS_GUESSED, Admission, Budgets
from baatcheet.chat.errors import ModelNotFound
from baatcheet.chat.openapi import operation
from baatcheet.chat.serving import Gate, headers_of, listening, unless_gone
from baatcheet.openai_api.openapi import ERROR_SCHEMA
from baatcheet.platform.asgi import Receive, Scope, Send
from baatcheet.platform.blobs import Blobs
from baatcheet.platform.errors import BadRequest, Invalid, Problem
from baatcheet.platform.uploads import Received, receive_upload
from baatcheet.providers.model import Usage

PATH: Final = "/v1/audio/transcriptions"


Format = Literal["json", "text", "srt", "verbose_json", "vtt"]

_TYPES: Final = {
    "json": b"application/json",
    "verbose_json": b"application/json",
    "text": b"text/plain; charset=utf-8",
    "srt": b"text/plain; charset=utf-8",
    "vtt": b"text/plain; charset=utf-8",
}


_TRANSCRIPTION: Final[dict[str, Any]] = {
    "title": "Transcription",
    "description": "OpenAI's transcription: with response_format=verbose_json as it is, with json `text` and `usage`.",
    "type": "object",
    "required": ["text", "usage"],
    "properties": {
        "text": {"type": "string"},
        "task": {"const": "transcribe"},
        "language": {"type": "string", "description": "By its English name, as OpenAI does."},
        "duration": {"type": "number", "description": "Seconds."},
        "segments": {"type": "array", "items": {"type": "object"}},
        "words": {"type": "array", "items": {"type": "object"}},
        "usage": {"type": "object"},
    },
}
_FORM: Final[dict[str, Any]] = {
    "title": "TranscriptionForm",
    "type": "object",
    "required": ["file"],
    "properties": {
        "file": {"type": "string", "format": "binary", "description": "The recording."},
        "model": {"type": "string", "minLength": 1, "maxLength": 200, "example": "whisper-1"},
        "language": {"type": "string", "pattern": "^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})?$", "example": "en"},
        "prompt": {"type": "string", "maxLength": 1000},
        "response_format": {"enum": list(_TYPES), "default": "json"},
        "temperature": {"type": "number", "minimum": 0, "maximum": 1},
        "timestamp_granularities[]": {
            "type": "array",
            "items": {"enum": ["word", "segment"]},
            "description": "With response_format=verbose_json.",
        },
    },
}


class TranscriptionFields(msgspec.Struct, forbid_unknown_fields=True):
    """The fields of the form beside the file."""

    model: Annotated[str, msgspec.Meta(min_length=1, max_length=200)] = "auto"
    language: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})?$(?!\n)")] | None = None
    prompt: Annotated[str, msgspec.Meta(max_length=1000)] | None = None
    response_format: Format = "json"
    temperature: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    timestamp_granularities: list[Literal["word", "segment"]] = []
    stream: Literal["true", "false"] | None = None
    include: list[str] = []
    chunking_strategy: str | None = None
    user: str | None = None


_LISTS = frozenset({"timestamp_granularities", "include"})


@dataclass(frozen=True)
class _Asked:
    fields: TranscriptionFields

    @property
    def words(self) -> bool:
        return "word" in self.fields.timestamp_granularities

    @property
    def segments(self) -> bool:
        wanted = self.fields.timestamp_granularities
        return not wanted or "segment" in wanted

    def wish(self) -> Wish:
        fields = self.fields
        return Wish(fields.language, fields.prompt, fields.temperature, words=self.words)


class AudioApi:
    """The endpoint: a plain ASGI application; what it raises is rendered by the frame around it."""

    def __init__(self, *, gate: Gate, direct: DirectTranscriber, blobs: Blobs, budgets: Budgets) -> None:
        self._gate = gate
        self._budgets = budgets
        self._direct = direct
        self._blobs = blobs

    async def transcriptions(self, scope: Scope, receive: Receive, send: Send) -> None:
        who_headers = headers_of(scope)
        who, headers = await self._gate.admit(scope, who_headers, "chat")
        with self._direct.places.taken(who.user_id):  # before a byte of the body is read
            async with self._blobs.scratch() as folder:
                try:
                    received = await receive_upload(
                        Request(scope, receive),
                        folder,
                        self._direct.settings.max_bytes,
                        kind_of=media_type_of,
                    )
                    asked = _asked(received)
                    fields, wish = asked.fields, asked.wish()
                    models = await self._budgets.names(who, self._direct.engines(fields.model, wish))
                    admission = await self._budgets.admit(who, models, seconds=SECONDS_GUESSED)
                    with admission:
                        async with listening(receive) as watch:
                            work = self._direct.transcribe(received.path, folder, fields.model, wish, models)
                            transcribed = await unless_gone(watch, work)
                    _charge(admission, transcribed.transcript)
                except (Invalid, NotARecording) as wrong:
                    raise _refusal(wrong) from None
        body = rendered(transcribed, asked)
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        raw += [
            (b"content-type", _TYPES[fields.response_format]),
            (b"content-length", b"%d" % len(body)),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": raw})
        await send({"type": "http.response.body", "body": body, "more_body": False})


def _charge(admission: Admission, transcript: Transcript) -> None:
    """Charge the whole to who heard it; where several did, to the first of them."""
    if transcript.engine is None:  # there was nothing to be heard, and nobody was asked
        admission.release()
    else:
        admission.charge(
            transcript.engine.partition(", ")[0], Usage(), seconds=transcript.seconds, kind="recording"
        )


def _asked(received: Received) -> _Asked:
    """The fields. Raises BadRequest."""
    given: dict[str, Any] = {}
    for name, value in received.values:
        name = name.removesuffix("[]")  # noqa: PLW2901 - lists come as one field after another
        if name in _LISTS:
            given.setdefault(name, []).append(value)
        elif value != "":
            given[name] = value
    try:
        fields = msgspec.convert(given, TranscriptionFields, strict=False)
    except msgspec.ValidationError as error:
        raise _unreadable(str(error)) from None
    if fields.stream == "true":
        raise BadRequest("A transcription is answered whole: leave stream out.", param="stream")
    asked = _Asked(fields)
    if fields.timestamp_granularities and fields.response_format != "verbose_json":
        raise BadRequest(
            "timestamp_granularities needs response_format=verbose_json.", param="timestamp_granularities"
        )
    if fields.include:
        raise BadRequest("include is not known here: leave it out.", param="include")
    return asked


def _unreadable(told: str) -> BadRequest:
    """From msgspec's words, `Expected … - at `$.temperature``, to ours."""
    what, _, where = told.partition(" - at `$.")
    param = where.rstrip("`").partition("[")[0] or None
    if param is None and "unknown field" in what:
        param = what.rpartition("unknown field ")[2].strip("`")
        return BadRequest(f"There is no field {param}.", param=param)
    return BadRequest(f"{param}: {what}." if param else f"{what}.", param=param)


def _refusal(wrong: Problem) -> Problem:
    """OpenAI's clients know 400 and 404 where the REST surface is more exact."""
    if isinstance(wrong, NotARecording):
        return UnreadableRecording(wrong.detail, param="file")
    if wrong.param == "model":
        return ModelNotFound(wrong.detail, param="model")
    return BadRequest(wrong.detail, param=wrong.param)


def rendered(transcribed: Transcribed, asked: _Asked) -> bytes:
    """The answer's body."""
    transcript = transcribed.transcript
    match asked.fields.response_format:
        case "text":
            return captions.text(transcript.text).encode()
        case "srt":
            return captions.srt(transcript.segments).encode()
        case "vtt":
            return captions.vtt(transcript.segments).encode()
        case "json":
            return msgspec.json.encode({"text": transcript.text, "usage": _usage(transcript)})
        case "verbose_json":
            return msgspec.json.encode(_verbose(transcript, asked))


def _verbose(transcript: Transcript, asked: _Asked) -> Mapping[str, Any]:
    answer: dict[str, Any] = {
        "task": "transcribe",
        "language": name_of(transcript.language or asked.fields.language or "unknown"),
        "duration": round(transcript.seconds, 3),
        "text": transcript.text,
    }
    if asked.words:
        answer["words"] = [{"word": one.word, "start": one.start, "end": one.end} for one in transcript.words]
    if asked.segments:
        answer["segments"] = [_segment(number, one) for number, one in enumerate(transcript.segments)]
    return answer | {"usage": _usage(transcript)}


def _segment(number: int, one: Segment) -> dict[str, Any]:
    """OpenAI's form. Tokens are not kept; what an engine does not tell is 0."""
    ratio = one.compression_ratio
    return {
        "id": number,
        "seek": 0,
        "start": one.start,
        "end": one.end,
        "text": one.text,
        "tokens": [],
        "temperature": one.temperature or 0.0,
        "avg_logprob": one.avg_logprob or 0.0,
        "compression_ratio": _compression(one.text) if ratio is None else ratio,
        "no_speech_prob": one.no_speech_prob or 0.0,
    }


def _compression(text: str) -> float:
    """How much shorter zlib makes it: what repeats itself was hardly said."""
    raw = text.encode()
    return round(len(raw) / len(zlib.compress(raw)), 4) if raw else 0.0


def _usage(transcript: Transcript) -> dict[str, Any]:
    return {"type": "duration", "seconds": math.ceil(transcript.seconds)}


def paths(components: dict[str, Any]) -> dict[str, Any]:
    """What the OpenAPI document says of it; its schemas are put into `components`."""
    components |= {"Transcription": _TRANSCRIPTION, "OpenAIError": ERROR_SCHEMA}
    text = {"schema": {"type": "string"}}
    answer = {
        "description": "What is said, in the form that was asked for.",
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/Transcription"}},
            "text/plain": text,
        },
    }
    made = operation(
        id="createTranscription",
        tag="openai",
        summary="OpenAI's transcriptions",
        description="Answered at once, for recordings of a few minutes; `POST /api/v1/audio` takes long ones. `model` "
        "may be `auto`; `whisper-1` means whoever transcribes here. Errors come in OpenAI's envelope.",
        answer=answer,
        refusals=(400, 404, 408, 413, 415, 422, 502),
        components=components,
    )
    made["requestBody"] = {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}}
    refused = {"application/json": {"schema": {"$ref": "#/components/schemas/OpenAIError"}}}
    for status, told in made["responses"].items():
        if int(status) >= 400:
            told["content"] = refused
    return {PATH: {"post": made}}
