"""A provider of transcriptions on a real socket: it says how long a recording is, and fails when it is told to."""

import asyncio
import io
import json
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

import av
from aiohttp import web


@dataclass(frozen=True)
class Heard:
    """A request that has come."""

    fields: dict[str, list[str]]
    audio: bytes
    filename: str
    authorization: str | None

    @property
    def seconds(self) -> float:
        with av.open(io.BytesIO(self.audio), "r") as source:
            return sum(int(frame.samples) for frame in source.decode(source.streams.audio[0])) / 16_000

    def one(self, name: str) -> str | None:
        return self.fields[name][0] if name in self.fields else None


Answer = Callable[[Heard], web.StreamResponse]


def refusing(status: int, message: str, **headers: str) -> Answer:
    """Answers with OpenAI's error object."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _: web.json_response({"error": {"message": message}}, status=status, headers=named)


def saying(value: Any) -> Answer:
    """Answers with `value`, whatever was asked."""
    text = value if isinstance(value, str) else json.dumps(value)
    return lambda _: web.Response(text=text, content_type="application/json")


def transcription(heard: Heard, *, language: str = "english") -> dict[str, Any]:
    """What the provider says if it says nothing else: two phrases, the second of which ends where the piece does."""
    seconds = heard.seconds
    half = seconds / 2
    text = f"{seconds:.1f} seconds. And an end."
    if "json" in heard.fields["response_format"]:
        logprobs = [{"token": "a", "logprob": math.log(0.5)}, {"token": "b", "logprob": math.log(0.5)}]
        return {"text": text, "logprobs": logprobs}
    segments = [
        {"id": 0, "start": 0.0, "end": half, "text": f" {seconds:.1f} seconds.", "avg_logprob": -0.1,
         "no_speech_prob": 0.01, "compression_ratio": 1.1, "temperature": 0.0, "tokens": [1]},
        {"id": 1, "start": half, "end": seconds, "text": " And an end.", "avg_logprob": -0.3,
         "no_speech_prob": 0.02, "compression_ratio": 1.0, "temperature": 0.0, "tokens": [2]},
    ]  # fmt: skip
    answer: dict[str, Any] = {
        "task": "transcribe", "language": language, "duration": seconds, "text": text, "segments": segments,
    }  # fmt: skip
    if "word" in heard.fields.get("timestamp_granularities[]", []):
        answer["words"] = [
            {"word": "seconds", "start": 0.0, "end": half},
            {"word": "end", "start": half, "end": 99},
        ]
    return answer


@dataclass
class Whisper:
    """The provider. `script`: what it does with the next requests; then it transcribes."""

    script: deque[Answer | None] = field(default_factory=deque)
    heard: list[Heard] = field(default_factory=list)
    language: str = "english"
    hang: asyncio.Event | None = None
    url: str = ""

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/v1/audio/transcriptions", self._transcribe)
        app.router.add_get("/v1/models", self._models)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.hang is not None:
            self.hang.set()
        await self._runner.cleanup()

    async def _models(self, request: web.Request) -> web.Response:
        return web.json_response({"data": []})

    async def _transcribe(self, request: web.Request) -> web.StreamResponse:
        form = await request.post()
        fields: dict[str, list[str]] = {}
        audio, filename = b"", ""
        for name, value in form.items():
            if isinstance(value, web.FileField):
                audio, filename = value.file.read(), value.filename
            else:
                fields.setdefault(name, []).append(str(value))
        heard = Heard(fields, audio, filename, request.headers.get("authorization"))
        self.heard.append(heard)
        if self.hang is not None:
            await self.hang.wait()
        answer = self.script.popleft() if self.script else None
        if answer is not None:
            return answer(heard)
        return web.json_response(transcription(heard, language=self.language))
