"""Recordings through the API: uploaded, transcribed in the background, looked at, deleted."""

import asyncio
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from baatcheet.budgets.limits import Amounts, Limits
from baatcheet.budgets.service import Budgeting
from baatcheet.keys.audit import SYSTEM
from tests.audio import sounds
from tests.audio.conftest import Caller, Stage
from tests.audio.whisper import refusing


async def transcribed(caller: Caller, path: Path, **fields: str) -> dict[str, Any]:
    """The recording, once its job has ended well."""
    answer = await caller.upload(path, **fields)
    assert answer.status_code == 202, answer.text
    job = await caller.ended(answer.json()["job"]["id"])
    assert job["status"] == "succeeded", job
    found: dict[str, Any] = (await caller.get(answer.headers["location"])).json()
    return found


async def failed(stage: Stage, caller: Caller, path: Path, **fields: str) -> str:
    """Why the recording was not transcribed."""
    await stage.work()
    answer = await caller.upload(path, **fields)
    assert answer.status_code == 202, answer.text
    job = await caller.ended(answer.json()["job"]["id"])
    audio = (await caller.get(answer.headers["location"])).json()
    assert (job["status"], audio["status"]) == ("dead", "failed")
    assert job["error"] == audio["error"]
    return str(audio["error"])


async def test_an_upload_is_answered_at_once_and_transcribed_in_the_background(
    stage: Stage, alice: Caller, tmp_path: Path
) -> None:
    path = sounds.make(tmp_path / "Hello there.mp3", 4, sounds.talk, rate=44_100)
    answer = await alice.upload(path, language="en")
    assert answer.status_code == 202
    body = answer.json()
    assert body["success"] is True
    assert body["message"] == "Transcription running in background"
    audio, job = body["audio"], body["job"]
    assert answer.headers["location"] == f"/api/v1/audio/{audio['id']}"
    assert audio["status"] == "processing"
    assert audio["filename"] == "Hello there.mp3"
    assert audio["media_type"] == "audio/mpeg"
    assert audio["size"] == path.stat().st_size
    assert audio["transcription_text"] is None
    assert (job["kind"], job["status"], job["subject_id"]) == ("audio.transcribe", "queued", audio["id"])
    assert job["id"] == audio["job_id"]

    await stage.work()
    assert (await alice.ended(job["id"]))["status"] == "succeeded"
    audio = (await alice.get(answer.headers["location"])).json()
    assert audio["status"] == "completed"
    assert audio["transcription_text"] == "4.0 seconds. And an end."
    assert audio["detected_language"] == "en"
    assert audio["engine"] == "openai/whisper-1"
    assert 0.7 < audio["confidence"] < 0.95
    assert audio["seconds"] == pytest.approx(4, abs=0.1)
    assert [one["text"] for one in audio["segments"]] == ["4.0 seconds.", "And an end."]
    assert audio["segments"][0]["confidence"] == pytest.approx(0.905, abs=0.01)
    assert audio["warning"] is None
    assert audio["completed_at"] is not None
    (sent,) = stage.whisper.heard
    assert sent.one("language") == "en"
    assert sent.authorization == "Bearer sk-whisper-secret"


async def limited(stage: Stage, caller: Caller, limits: Limits) -> None:
    me = (await caller.get("/api/v1/me")).json()
    await Budgeting(stage.db).limit_user(SYSTEM, UUID(me["user"]["id"]), limits)
    await stage.budgets.refresh()


async def used(stage: Stage, caller: Caller) -> dict[str, Any]:
    await stage.budgets.flush()
    found: dict[str, Any] = (await caller.get("/api/v1/usage")).json()
    return found


async def test_a_recording_counts_towards_its_users_budget(
    stage: Stage, alice: Caller, tmp_path: Path
) -> None:
    await limited(stage, alice, Limits(day=Amounts(requests=1)))
    path = sounds.make(tmp_path / "a.wav", 2)
    first = await alice.upload(path)
    assert first.status_code == 202
    refused = await alice.upload(sounds.make(tmp_path / "b.wav", 3))
    assert (refused.status_code, refused.json()["type"]) == (429, "budget-exhausted")
    await stage.work()
    await alice.ended(first.json()["job"]["id"])
    usage = await used(stage, alice)
    assert usage["user"]["day"]["used"]["requests"] == 1
    assert usage["user"]["day"]["under_way"]["requests"] == 0
    [model] = [one for one in usage["models"] if one["model"] == "openai/whisper-1"]
    assert model["recorded_seconds"] == 2


async def test_a_recording_that_is_not_transcribed_counts_for_nothing(
    stage: Stage, alice: Caller, tmp_path: Path
) -> None:
    await limited(stage, alice, Limits(day=Amounts(requests=1)))
    answer = await alice.upload(sounds.make(tmp_path / "a.wav", 2))
    cancelled = await alice.post(f"/api/v1/jobs/{answer.json()['job']['id']}/cancel")
    assert cancelled.status_code == 200, cancelled.text
    assert (await alice.upload(sounds.make(tmp_path / "b.wav", 3))).status_code == 202


async def test_an_engine_that_its_user_may_not_use_is_not_asked(
    stage: Stage, alice: Caller, tmp_path: Path
) -> None:
    await limited(stage, alice, Limits(models=("groq/*",)))
    refused = await alice.upload(sounds.make(tmp_path / "a.wav", 2))
    assert refused.status_code == 403
    assert "groq/*" in refused.json()["detail"]
    assert list(stage.whisper.heard) == []


async def test_an_event_tells_of_it_once(stage: Stage, alice: Caller, tmp_path: Path) -> None:
    await stage.work()
    audio = await transcribed(alice, sounds.make(tmp_path / "a.wav", 2))
    async with stage.db.system() as session:
        query = text("SELECT data FROM outbox WHERE type = 'audio.transcribed' AND data->>'audio_id' = :id")
        (told,) = (await session.scalars(query, {"id": audio["id"]})).all()
    assert told == {
        "audio_id": audio["id"],
        "filename": "a.wav",
        "seconds": 2.0,
        "detected_language": "en",
        "confidence": audio["confidence"],
        "characters": len(audio["transcription_text"]),
        "engine": "openai/whisper-1",
    }


async def test_a_long_recording_is_heard_in_pieces_and_joined(
    stage: Stage, alice: Caller, tmp_path: Path
) -> None:
    await stage.work()
    audio = await transcribed(alice, sounds.make(tmp_path / "long.wav", 45, sounds.talk))
    pieces = len(stage.whisper.heard)
    assert pieces >= 5
    assert sum(one.seconds for one in stage.whisper.heard) == pytest.approx(45, abs=0.01)
    segments = audio["segments"]
    assert len(segments) == 2 * pieces
    times = [time for one in segments for time in (one["start"], one["end"])]
    assert times == sorted(times)
    assert times[0] == 0
    assert times[-1] == pytest.approx(45, abs=0.01)
    assert audio["transcription_text"].count("And an end.") == pieces
    # What was said before tells the engine how to go on.
    assert stage.whisper.heard[0].one("prompt") is None
    assert "And an end." in (stage.whisper.heard[1].one("prompt") or "")


async def test_silent_pieces_are_not_paid_for(stage: Stage, alice: Caller, tmp_path: Path) -> None:
    await stage.work()

    def seldom(second: int, rate: int) -> Any:
        return sounds.tone(second, rate) if second in {1, 38} else sounds.silence(second, rate)

    audio = await transcribed(alice, sounds.make(tmp_path / "seldom.wav", 40, seldom))
    assert len(stage.whisper.heard) == 2
    assert audio["segments"][-1]["end"] == pytest.approx(40, abs=0.01)


async def test_it_can_be_taken_away_as_a_file(stage: Stage, alice: Caller, tmp_path: Path) -> None:
    await stage.work()
    path = sounds.make(tmp_path / "talk.ogg", 3, rate=48_000)
    audio = await transcribed(alice, path)
    address = f"/api/v1/audio/{audio['id']}"
    plain = await alice.get(f"{address}/transcription")
    assert plain.text == f"{audio['transcription_text']}\n"
    assert plain.headers["content-type"] == "text/plain; charset=utf-8"
    assert 'filename="talk.txt"' in plain.headers["content-disposition"]
    srt = await alice.get(f"{address}/transcription?format=srt")
    assert srt.text.startswith("1\n00:00:00,000 --> 00:00:01,500\n3.0 seconds.\n\n2\n")
    assert srt.headers["content-type"] == "application/x-subrip; charset=utf-8"
    vtt = await alice.get(f"{address}/transcription?format=vtt")
    assert vtt.text.startswith("WEBVTT\n\n00:00:00.000 --> 00:00:01.500\n3.0 seconds.\n\n")
    whole = (await alice.get(f"{address}/transcription?format=json")).json()
    assert whole["text"] == audio["transcription_text"]
    assert [one["text"] for one in whole["segments"]] == ["3.0 seconds.", "And an end."]
    assert (await alice.get(f"{address}/transcription?format=docx")).status_code == 422
    content = await alice.get(f"{address}/content", headers={"range": "bytes=0-3"})
    assert (content.status_code, content.content) == (206, b"OggS")
    assert content.headers["content-type"] == "audio/ogg"


async def test_there_is_no_file_before_there_is_a_transcription(
    stage: Stage, alice: Caller, tmp_path: Path
) -> None:
    answer = await alice.upload(sounds.make(tmp_path / "a.wav", 2))
    early = await alice.get(f"{answer.headers['location']}/transcription")
    assert early.status_code == 409
    assert early.json()["type"] == "transcription-not-ready"


async def test_the_list_is_newest_first_and_paged(stage: Stage, alice: Caller, tmp_path: Path) -> None:
    path = sounds.make(tmp_path / "a.wav", 1)
    ids = [(await alice.upload(path)).json()["audio"]["id"] for _ in range(3)]
    first = (await alice.get("/api/v1/audio?limit=2")).json()
    assert [one["id"] for one in first["data"]] == ids[:0:-1]
    assert first["has_more"]
    second = (await alice.get(f"/api/v1/audio?limit=2&cursor={first['next_cursor']}")).json()
    assert [one["id"] for one in second["data"]] == ids[:1]
    assert "segments" not in second["data"][0]
    assert (await alice.get("/api/v1/audio?status=failed")).json()["data"] == []


async def test_what_is_not_yours_is_not_there(
    stage: Stage, alice: Caller, bob: Caller, tmp_path: Path
) -> None:
    await stage.work()
    audio = await transcribed(alice, sounds.make(tmp_path / "a.wav", 1))
    address = f"/api/v1/audio/{audio['id']}"
    for method, path in (
        ("GET", address),
        ("DELETE", address),
        ("GET", f"{address}/transcription"),
        ("GET", f"{address}/content"),
    ):
        answer = await bob.request(method, path)
        assert (answer.status_code, answer.json()["type"]) == (404, "recording-not-found"), path
    assert (await bob.get("/api/v1/audio")).json()["data"] == []
    assert (await alice.get(address)).status_code == 200


async def test_the_same_request_again_is_one_recording(stage: Stage, alice: Caller, tmp_path: Path) -> None:
    path = sounds.make(tmp_path / "a.wav", 1)
    first = await alice.upload(path, key="once", language="en")
    again = await alice.upload(path, key="once", language="en")
    assert again.status_code == 202
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json()["audio"]["id"] == first.json()["audio"]["id"]
    assert len([one async for one in stage.blobs.keys("audio/")]) == 1
    other = await alice.upload(path, key="once", language="ur")
    assert (other.status_code, other.json()["type"]) == (422, "idempotency-key-reused")
    assert len([one async for one in stage.blobs.keys("audio/")]) == 1


async def test_one_users_recordings_keep_nobody_elses_waiting(
    stage: Stage, alice: Caller, bob: Caller, tmp_path: Path
) -> None:
    stage.whisper.hang = asyncio.Event()
    path = sounds.make(tmp_path / "a.wav", 1)
    hers = [(await alice.upload(path)).json()["job"]["id"] for _ in range(3)]
    await stage.work()
    async with asyncio.timeout(60):
        while not stage.whisper.heard:
            await asyncio.sleep(0.02)
        his = (await bob.upload(path)).json()["job"]["id"]
        while (await bob.get(f"/api/v1/jobs/{his}")).json()["status"] != "running":
            await asyncio.sleep(0.02)
    stage.whisper.hang.set()
    for caller, job in [*((alice, job) for job in hers), (bob, his)]:
        assert (await caller.ended(job))["status"] == "succeeded"


async def test_deleting_takes_the_file_and_ends_the_work(stage: Stage, alice: Caller, tmp_path: Path) -> None:
    stage.whisper.hang = asyncio.Event()
    await stage.work()
    answer = await alice.upload(sounds.make(tmp_path / "a.wav", 1))
    async with asyncio.timeout(20):
        while not stage.whisper.heard:
            await asyncio.sleep(0.02)
    assert (await alice.delete(answer.headers["location"])).status_code == 204
    assert (await alice.get(answer.headers["location"])).status_code == 404
    assert [one async for one in stage.blobs.keys("audio/")] == []
    assert (await alice.ended(answer.json()["job"]["id"]))["status"] == "cancelled"


async def test_cancelling_the_job_is_seen_at_the_recording(
    stage: Stage, alice: Caller, tmp_path: Path
) -> None:
    answer = await alice.upload(sounds.make(tmp_path / "a.wav", 1))
    job_id = answer.json()["job"]["id"]
    assert (await alice.post(f"/api/v1/jobs/{job_id}/cancel")).status_code == 200
    audio = (await alice.get(answer.headers["location"])).json()
    assert (audio["status"], audio["error"]) == ("cancelled", "Cancelled.")
    assert (await alice.post(f"/api/v1/jobs/{job_id}/retry")).status_code == 200
    await stage.work()
    assert (await alice.ended(job_id))["status"] == "succeeded"
    assert (await alice.get(answer.headers["location"])).json()["status"] == "completed"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"language": "the tongue of the elves"}, "language"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": "2"}, "temperature"),
        ({"prompt": "x" * 1001}, "prompt"),
        ({"model": "nobody/knows"}, "model"),
        ({"volume": "11"}, "volume"),
    ],
)
async def test_a_field_that_is_wrong_is_named(
    stage: Stage, alice: Caller, tmp_path: Path, fields: dict[str, str], param: str
) -> None:
    answer = await alice.upload(sounds.make(tmp_path / "a.wav", 1), **fields)
    assert (answer.status_code, answer.json()["param"]) == (422, param), answer.text
    assert [one async for one in stage.blobs.keys("audio/")] == []


@pytest.mark.parametrize(
    ("name", "content", "status", "words"),
    [
        ("a.mp3", b"", 422, "is empty"),
        ("a.mp3", b"%PDF-1.7 and so on", 415, "The file is a PDF document, not a recording."),
        ("a.wav", b"\x89PNG\r\n\x1a\n....", 415, "The file is a picture (PNG), not a recording."),
        ("a.ogg", "یہ ایک متن ہے".encode(), 415, "The file is a text, not a recording."),
        ("a.wav", b"RIFF" + bytes(3_000_001), 413, "3000000 bytes at most"),
    ],
)
async def test_what_is_plainly_no_recording_is_refused_at_once(
    stage: Stage, alice: Caller, tmp_path: Path, name: str, content: bytes, status: int, words: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    answer = await alice.upload(path)
    assert answer.status_code == status, answer.text
    assert words in answer.json()["detail"]
    assert [one async for one in stage.blobs.keys("audio/")] == []


async def test_a_form_without_a_file_is_refused(stage: Stage, alice: Caller) -> None:
    answer = await alice.post("/api/v1/audio", files={"sound": ("a.wav", b"RIFF")})
    assert answer.status_code == 422
    answer = await alice.post("/api/v1/audio", json={"file": "a.wav"})
    assert answer.status_code == 415


async def test_silence_fails_with_its_reason(stage: Stage, alice: Caller, tmp_path: Path) -> None:
    error = await failed(stage, alice, sounds.make_silence(tmp_path / "hour.flac", 3600))
    assert error == "Nothing can be heard in the recording: all of its 1 h 0 min are silent."
    assert stage.whisper.heard == []


async def test_a_broken_file_fails_with_its_reason(stage: Stage, alice: Caller, tmp_path: Path) -> None:
    path = tmp_path / "a.ogg"
    path.write_bytes(b"OggS" + bytes(10_000))
    assert (await failed(stage, alice, path)).startswith("The file can't be read as a recording.")


async def test_a_file_that_is_gone_is_told_of(stage: Stage, alice: Caller, tmp_path: Path) -> None:
    answer = await alice.upload(sounds.make(tmp_path / "a.wav", 1))
    async for stored in stage.blobs.keys("audio/"):
        await stage.blobs.delete(stored.key)
    await stage.work()
    job = await alice.ended(answer.json()["job"]["id"])
    assert job["error"] == "The file of the recording is no longer there. Upload it again."


async def test_a_provider_that_refuses_is_not_asked_again(
    stage: Stage, alice: Caller, tmp_path: Path
) -> None:
    stage.whisper.script.append(refusing(400, "Invalid file format."))
    error = await failed(stage, alice, sounds.make(tmp_path / "a.wav", 1))
    assert error == "The recording could not be transcribed. openai/whisper-1: Invalid file format."
    assert len(stage.whisper.heard) == 1


async def test_a_provider_that_fails_is_asked_again(stage: Stage, alice: Caller, tmp_path: Path) -> None:
    stage.whisper.script.append(refusing(503, "Overloaded."))
    await stage.work()
    audio = await transcribed(alice, sounds.make(tmp_path / "a.wav", 1))
    assert audio["status"] == "completed"
    assert len(stage.whisper.heard) == 2


async def test_an_attempt_that_failed_at_the_eighth_piece_pays_for_none_of_the_seven_again(
    stage: Stage, alice: Caller, tmp_path: Path
) -> None:
    stage.whisper.script.extend([None] * 7)
    stage.whisper.script.append(refusing(500, "Out of order."))
    await stage.work()
    audio = await transcribed(alice, sounds.make(tmp_path / "long.wav", 90, sounds.chatter))
    heard = [one.audio for one in stage.whisper.heard]
    assert len(heard) >= 10
    assert len(heard) == len(set(heard)) + 1  # only the one that failed was sent twice
    assert audio["segments"][-1]["end"] == pytest.approx(90, abs=0.01)
    async with stage.db.system() as session:
        assert await session.scalar(text("SELECT count(*) FROM audio_pieces")) == 0


async def test_a_worker_that_stops_at_the_eighth_piece_leaves_the_seven_to_the_next(
    stage: Stage, alice: Caller, tmp_path: Path
) -> None:
    gate = asyncio.Event()
    gate.set()
    stage.whisper.hang = gate
    first = await stage.work()
    answer = await alice.upload(sounds.make(tmp_path / "long.wav", 90, sounds.chatter))
    async with asyncio.timeout(30):
        while len(stage.whisper.heard) < 7:
            await asyncio.sleep(0.001)
    gate.clear()
    await first.stop()
    sent = len(stage.whisper.heard)
    async with stage.db.system() as session:
        kept = await session.scalar(text("SELECT count(*) FROM audio_pieces"))
    assert kept in {sent - 1, sent}
    gate.set()
    await stage.work()
    assert (await alice.ended(answer.json()["job"]["id"]))["status"] == "succeeded"
    heard = [one.audio for one in stage.whisper.heard]
    assert len(heard) - len(set(heard)) <= 1
    audio = (await alice.get(answer.headers["location"])).json()
    assert audio["segments"][-1]["end"] == pytest.approx(90, abs=0.01)


async def test_what_was_cut_short_is_transcribed_with_a_warning(
    stage: Stage, alice: Caller, tmp_path: Path
) -> None:
    path = sounds.make(tmp_path / "talk.flac", 20, sounds.talk)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    await stage.work()
    audio = await transcribed(alice, path)
    assert "may be damaged or cut short" in audio["warning"]
