"""Two hundred damaged files through the API: each ends, with its text or a plain reason, and the worker goes on.

Ten thousand of them: `python -m benchmarks.ocr.malformed`.
"""

import asyncio

import pytest
from benchmarks.ocr.corpus import honest, mutated

from baatcheet.attachments.ocr.availability import Tessdata
from tests.attachments.conftest import ENDED, Caller, Stage

FILES = 200
TAKEN = 202
REFUSED = {415, 422}


@pytest.mark.timeout(600)
async def test_damaged_files_end_with_a_text_or_a_plain_reason(
    stage: Stage, alice: Caller, tessdata: Tessdata
) -> None:
    await stage.work()
    jobs: dict[str, str] = {}
    for name, data in mutated(honest(), FILES, seed=20_270_131):
        answer = await alice.upload(data, name)
        if answer.status_code in REFUSED:
            assert len(answer.json()["detail"]) > 15, answer.text
            continue
        assert answer.status_code == TAKEN, (name, answer.text)
        if answer.json()["job"] is not None:
            jobs[answer.json()["job"]["id"]] = name
    assert len(jobs) > FILES // 4
    ended: dict[str, int] = {}
    for job_id, name in jobs.items():
        async with asyncio.timeout(300):
            while (job := (await alice.get(f"/api/v1/jobs/{job_id}")).json())["status"] not in ENDED:
                await asyncio.sleep(0.05)
        assert job["status"] in {"succeeded", "dead"}, (name, job)
        if job["status"] == "dead":
            assert "our side" not in job["error"], (name, job)
            assert job["error"].endswith("."), (name, job)
        ended[job["status"]] = ended.get(job["status"], 0) + 1
    assert set(ended) == {"succeeded", "dead"}
    # The worker that read them all reads on.
    assert (await alice.read(b"Still here.", "fine.txt"))["extracted_text"] == "Still here."
