"""`POST /v1/audio/transcriptions`, through OpenAI's own client."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2
import openai
import pytest
import pytest_asyncio
from jsonschema import Draft202012Validator

from baatcheet.audio.direct import MOST_WAITING, DirectTranscriber, Places
from baatcheet.audio.engines.model import Wish
from baatcheet.audio.errors import TranscriptionUnavailable, UnreadableRecording
from baatcheet.audio.transcribing import Transcriber
from baatcheet.jobs.isolation import Sandbox, SandboxFailed
from baatcheet.openai_api.audio import PATH
from baatcheet.platform.errors import RateLimited
from tests.audio import sounds
from tests.audio.conftest import BASE, Caller, Stage
from tests.audio.whisper import refusing
from tests.openai_api.extract_schemas import EXTRACTED


@pytest_asyncio.fixture
async def client(stage: Stage, alice: Caller) -> AsyncIterator[openai.AsyncOpenAI]:
    """A client as its user makes one: a key and a base URL, nothing else."""
    transport = httpx2.ASGITransport(app=stage.app, raise_app_exceptions=False)
    async with openai.AsyncOpenAI(
        api_key=alice.token,
        base_url=f"{BASE}/v1",
        max_retries=0,
        http_client=httpx2.AsyncClient(transport=transport),
    ) as made:
        yield made


def faults(name: str, value: object) -> list[str]:
    """Where `value` is not what OpenAI's specification calls a `name`."""
    schemas = json.loads(EXTRACTED.read_bytes())
    validator = Draft202012Validator({"$ref": f"#/components/schemas/{name}", **schemas})
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]


async def test_the_text_of_a_recording(stage: Stage, client: openai.AsyncOpenAI, tmp_path: Path) -> None:
    path = sounds.make(tmp_path / "talk.mp3", 4, sounds.talk, rate=44_100)
    with path.open("rb") as file:
        said = await client.audio.transcriptions.create(
            model="whisper-1", file=file, language="en", prompt="Names: Farrukh", temperature=0.2
        )
    assert said.text == "4.0 seconds. And an end."
    assert faults("CreateTranscriptionResponseJson", said.model_dump(exclude_unset=True)) == []
    (sent,) = stage.whisper.heard
    assert (sent.one("language"), sent.one("prompt"), sent.one("temperature")) == (
        "en",
        "Names: Farrukh",
        "0.2",
    )


async def test_with_the_times_of_segments_and_words(
    stage: Stage, client: openai.AsyncOpenAI, tmp_path: Path
) -> None:
    path = sounds.make(tmp_path / "talk.wav", 25, sounds.talk)
    said = await client.audio.transcriptions.create(
        model="whisper-1",
        file=path,
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
    )
    assert said.language == "english"
    assert said.duration == 25
    assert said.segments is not None
    assert said.words is not None
    assert len(said.segments) == len(said.words) == 2 * len(stage.whisper.heard)
    assert [one.id for one in said.segments] == list(range(len(said.segments)))
    assert said.segments[-1].end == said.words[-1].end == 25
    assert said.segments[0].avg_logprob == -0.1
    assert faults("CreateTranscriptionResponseVerboseJson", said.model_dump(exclude_unset=True)) == []


async def test_without_being_asked_there_are_segments_and_no_words(
    client: openai.AsyncOpenAI, tmp_path: Path
) -> None:
    path = sounds.make(tmp_path / "talk.wav", 3)
    said = await client.audio.transcriptions.create(model="auto", file=path, response_format="verbose_json")
    assert said.segments is not None
    assert said.words is None
    only = await client.audio.transcriptions.create(
        model="auto", file=path, response_format="verbose_json", timestamp_granularities=["word"]
    )
    assert only.segments is None
    assert only.words is not None


@pytest.mark.parametrize(
    ("form", "begins"),
    [
        ("text", "3.0 seconds. And an end.\n"),
        ("srt", "1\n00:00:00,000 --> 00:00:01,500\n3.0 seconds.\n"),
        ("vtt", "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\n3.0 seconds.\n"),
    ],
)
async def test_as_text_and_as_subtitles(
    client: openai.AsyncOpenAI, tmp_path: Path, form: Any, begins: str
) -> None:
    path = sounds.make(tmp_path / "talk.wav", 3)
    said = await client.audio.transcriptions.create(model="whisper-1", file=path, response_format=form)
    assert isinstance(said, str)
    assert said.startswith(begins)


async def test_nothing_is_kept(
    stage: Stage, client: openai.AsyncOpenAI, alice: Caller, tmp_path: Path
) -> None:
    await client.audio.transcriptions.create(model="auto", file=sounds.make(tmp_path / "talk.wav", 3))
    assert (await alice.get("/api/v1/audio")).json()["data"] == []
    assert [one async for one in stage.blobs.keys("")] == []
    assert list((tmp_path / "files" / ".scratch").iterdir()) == []


@pytest.mark.parametrize(
    ("more", "status", "param"),
    [
        ({"model": "nobody/knows"}, 404, "model"),
        ({"language": "the tongue of the elves"}, 400, "language"),
        ({"temperature": 2}, 400, "temperature"),
        ({"response_format": "docx"}, 400, "response_format"),
        ({"timestamp_granularities": ["word"]}, 400, "timestamp_granularities"),
        ({"stream": True}, 400, "stream"),
        ({"include": ["logprobs"]}, 400, "include"),
        ({"extra_body": {"volume": 11}}, 400, "volume"),
    ],
)
async def test_a_field_that_is_wrong_is_named_in_openais_envelope(
    client: openai.AsyncOpenAI, tmp_path: Path, more: dict[str, Any], status: int, param: str
) -> None:
    arguments = {"model": "whisper-1", "file": sounds.make(tmp_path / "talk.wav", 1), **more}
    with pytest.raises(openai.APIStatusError) as refused:
        await client.audio.transcriptions.create(**arguments)
    assert (refused.value.status_code, refused.value.param) == (status, param), refused.value.message
    assert faults("ErrorResponse", refused.value.response.json()) == []


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        (b"", 400, "is empty"),
        (b"%PDF-1.7 and so on", 400, "The file is a PDF document, not a recording."),
        (b"OggS" + bytes(5_000), 400, "The file can't be read as a recording."),
        (b"RIFF" + bytes(3_000_001), 413, "3000000 bytes at most"),
    ],
)
async def test_what_is_no_recording_is_refused(
    client: openai.AsyncOpenAI, content: bytes, status: int, words: str
) -> None:
    with pytest.raises(openai.APIStatusError) as refused:
        await client.audio.transcriptions.create(model="whisper-1", file=("a.mp3", content))
    assert refused.value.status_code == status
    assert words in refused.value.message
    assert faults("ErrorResponse", refused.value.response.json()) == []


async def test_what_is_too_long_to_wait_for_is_sent_elsewhere(
    client: openai.AsyncOpenAI, tmp_path: Path
) -> None:
    with pytest.raises(openai.APIStatusError) as refused:
        await client.audio.transcriptions.create(model="whisper-1", file=sounds.make(tmp_path / "a.wav", 31))
    assert refused.value.status_code == 413
    assert refused.value.code == "audio_too_long"
    assert "POST /api/v1/audio takes it" in refused.value.message


async def test_a_provider_that_fails_is_told_of(
    stage: Stage, client: openai.AsyncOpenAI, tmp_path: Path
) -> None:
    path = sounds.make(tmp_path / "a.wav", 1)
    stage.whisper.script.append(refusing(429, "Slow down.", Retry_After="7"))
    with pytest.raises(openai.InternalServerError) as unavailable:
        await client.audio.transcriptions.create(model="whisper-1", file=path)
    assert unavailable.value.status_code == 503
    assert unavailable.value.response.headers["retry-after"] == "7"


async def test_a_provider_that_refuses_is_told_of(
    stage: Stage, client: openai.AsyncOpenAI, tmp_path: Path
) -> None:
    path = sounds.make(tmp_path / "a.wav", 1)
    stage.whisper.script.append(refusing(400, "Unheard of."))
    with pytest.raises(openai.InternalServerError) as failed:
        await client.audio.transcriptions.create(model="whisper-1", file=path)
    assert failed.value.status_code == 502
    assert "Unheard of" in failed.value.message
    assert "sk-whisper-secret" not in failed.value.message


async def test_a_token_is_needed(stage: Stage, client: openai.AsyncOpenAI, tmp_path: Path) -> None:
    stranger = client.with_options(api_key="bc_nobody_at_all_0123456789")
    with pytest.raises(openai.AuthenticationError):
        await stranger.audio.transcriptions.create(model="auto", file=sounds.make(tmp_path / "a.wav", 1))


async def test_several_are_transcribed_at_once(
    stage: Stage, client: openai.AsyncOpenAI, tmp_path: Path
) -> None:
    path = sounds.make(tmp_path / "a.wav", 2)
    said = await asyncio.gather(
        *(client.audio.transcriptions.create(model="auto", file=path) for _ in range(3))
    )
    assert {one.text for one in said} == {"2.0 seconds. And an end."}


async def test_of_one_user_one_waits_and_the_body_of_more_is_not_read(
    stage: Stage, alice: Caller, bob: Caller, client: openai.AsyncOpenAI, tmp_path: Path
) -> None:
    stage.whisper.hang = asyncio.Event()
    path = sounds.make(tmp_path / "a.wav", 1)
    first = [
        asyncio.create_task(client.audio.transcriptions.create(model="auto", file=path)) for _ in range(3)
    ]
    async with asyncio.timeout(60):
        while len(stage.whisper.heard) < 3:
            await asyncio.sleep(0.02)
    read = False

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        read = True
        yield b"--x"

    refused = await alice.post(
        PATH, content=body(), headers={"content-type": "multipart/form-data; boundary=x"}
    )
    assert (refused.status_code, read) == (429, False)
    assert int(refused.headers["retry-after"]) > 0
    assert "waits already" in refused.json()["error"]["message"]
    assert faults("ErrorResponse", refused.json()) == []
    stage.whisper.hang.set()
    his = await bob.post(PATH, files={"file": ("a.wav", path.read_bytes())})
    assert his.status_code == 200, his.text
    assert {one.text for one in await asyncio.gather(*first)} == {"1.0 seconds. And an end."}
    assert (await alice.post(PATH, files={"file": ("a.wav", path.read_bytes())})).status_code == 200


def test_no_more_wait_than_there_are_places_to_wait_in() -> None:
    places = Places(running=2)
    one = UUID(int=0)
    with ExitStack() as stack:
        first = stack.enter_context(ExitStack())
        first.enter_context(places.taken(one))
        stack.enter_context(places.taken(one))
        for n in range(MOST_WAITING):
            stack.enter_context(places.taken(UUID(int=n)))
        with pytest.raises(TranscriptionUnavailable, match="Try again") as full, places.taken(UUID(int=99)):
            pass
        assert int(full.value.headers["retry-after"]) > 0
        first.close()  # whoever has waited longest runs now: somebody may wait again, even the same user
        with places.taken(one), pytest.raises(RateLimited), places.taken(one):
            pass
    for n in range(3):
        stack.enter_context(places.taken(UUID(int=n)))


class _Slow(Sandbox):
    """Notes how much time it is given, and says that it was too little."""

    given: float = 0

    async def run(self, function: Any, argument: Any, *, seconds: float = 0, **more: Any) -> Any:
        self.given = seconds
        raise SandboxFailed("time", f"It took longer than {seconds:g} s.")


async def test_decoding_takes_no_longer_than_what_may_be_waited_for_needs(
    stage: Stage, tmp_path: Path
) -> None:
    slow = _Slow()
    direct = DirectTranscriber(
        Transcriber(slow, stage.transcriber.engines, stage.settings.audio), stage.settings.audio
    )
    with pytest.raises(UnreadableRecording, match="longer than 33 s"):
        await direct.transcribe(tmp_path / "a.wav", tmp_path, None, Wish())
    assert slow.given == 33
