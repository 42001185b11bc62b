"""A worker that dies in the middle of a transcription: the next one ends it, once, and pays for nothing twice."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from tests.audio import sounds
from tests.audio.conftest import Caller, Stage
from tests.running import worker_process


async def becomes(condition: Callable[[], bool], seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


def children_of(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        if parent == pid:
            found.append(int(stat.parent.name))
    return found


@pytest.mark.parametrize("kills", [(0, 4), (7, 9)])
async def test_a_transcription_outlives_its_workers(
    stage: Stage, alice: Caller, tmp_path: Path, kills: tuple[int, ...]
) -> None:
    """`kills`: how many pieces have been sent when a worker is killed; 0: as soon as it has begun."""
    answer = await alice.upload(sounds.make(tmp_path / "long.wav", 90, sounds.chatter))
    job_id, audio_id = answer.json()["job"]["id"], answer.json()["audio"]["id"]
    orphans: list[int] = []
    for attempt, pieces in enumerate(kills, 1):
        with worker_process(stage.environment, tmp_path / "worker.log", queues="audio") as worker:
            if pieces == 0:
                await _begun(alice, job_id, attempt)
            else:
                await becomes(lambda pieces=pieces: len(stage.whisper.heard) >= pieces)  # type: ignore[misc]
            assert worker.process is not None
            orphans += children_of(worker.process.pid)
            worker.kill()
    with worker_process(stage.environment, tmp_path / "worker.log", queues="audio"):
        job = await alice.ended(job_id)
    assert job["status"] == "succeeded", (job, (tmp_path / "worker.log").read_text()[-3000:])
    audio = (await alice.get(answer.headers["location"])).json()
    assert audio["status"] == "completed"
    assert audio["segments"][-1]["end"] == pytest.approx(90, abs=0.01)
    heard = [one.audio for one in stage.whisper.heard]
    assert len(set(heard)) == len(audio["segments"]) // 2
    assert len(heard) <= len(set(heard)) + len(kills)  # the piece under way when it was killed, at most
    async with stage.db.system() as session:
        told = text(  # the workers relay it too
            "SELECT count(*) FROM (SELECT type, data FROM outbox UNION ALL SELECT type, data FROM events) told "
            "WHERE type = 'audio.transcribed' AND data->>'audio_id' = :id"
        )
        assert await session.scalar(told, {"id": audio_id}) == 1
        kept = text("SELECT count(*) FROM audio_pieces WHERE audio_id = :id")
        assert await session.scalar(kept, {"id": audio_id}) == 0
    await becomes(lambda: not any(Path(f"/proc/{pid}").exists() for pid in orphans), 10)


async def _begun(caller: Caller, job_id: str, attempt: int) -> None:
    async with asyncio.timeout(60):
        while True:
            job = (await caller.get(f"/api/v1/jobs/{job_id}")).json()
            if job["status"] == "running" and job["attempts"] >= attempt:
                return
            await asyncio.sleep(0.01)
