"""Very long texts and crowded pages are sent without holding anybody else up."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from baatcheet.attachments.service import PATH
from tests.attachments.conftest import Caller, Stage

LINE = {"text": "w" * 20, "box": [1, 2, 3, 4], "confidence": 0.5, "words": []}


@asynccontextmanager
async def lag() -> AsyncIterator[list[float]]:
    """The seconds by which the event loop was late."""
    late: list[float] = []

    async def probe() -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0.002)
            late.append(time.perf_counter() - began - 0.002)

    task = asyncio.create_task(probe())
    try:
        yield late
    finally:
        task.cancel()


async def test_ten_million_characters_hold_nobody_up(stage: Stage, alice: Caller) -> None:
    await stage.work()
    line = 'اردو "quoted" text\n'
    text = (line * (10_000_000 // len(line))).strip()
    read = await alice.read(text.encode(), "long.txt")
    assert read["status"] == "completed", read
    where = f"{PATH}/{read['id']}"
    for path in ("/text", "/pages?limit=50", "/pages/1"):
        async with lag() as late:
            answer = await alice.get(where + path)
        assert answer.status_code == 200
        if path == "/text":
            assert answer.text == text
        elif path == "/pages/1":
            assert answer.json()["text"] == text
        else:
            assert [page["text"] for page in answer.json()["data"]] == [text]
        assert sorted(late)[-2] < 0.1, path  # a busy machine is late by itself


async def test_crowded_pages_are_listed_a_few_at_a_time(stage: Stage, alice: Caller) -> None:
    await stage.work()
    read = await alice.read(b"some text", "some.txt")
    async with stage.db.hot() as connection:
        await connection.execute(
            "INSERT INTO attachment_pages (attachment_id, reading, number, user_id, text, engine, lines) "
            "SELECT p.attachment_id, p.reading, n, p.user_id, 'Page ' || n, 'tesseract', "
            "(SELECT jsonb_agg($2::text::jsonb) FROM generate_series(1, 15000)) "
            "FROM attachment_pages p, generate_series(2, 12) n WHERE p.attachment_id = $1::uuid",
            read["id"],
            json.dumps(LINE),
        )
        await connection.execute("UPDATE attachments SET pages = 12 WHERE id = $1::uuid", read["id"])
    where, cursor, numbers, asked = f"{PATH}/{read['id']}/pages", None, [], 0
    while asked == 0 or cursor:
        async with lag() as late:
            answer = await alice.get(where, params={"limit": 50, **({"cursor": cursor} if cursor else {})})
        assert answer.status_code == 200, answer.text
        assert sorted(late)[-2] < 0.1  # a busy machine is late by itself
        listed = answer.json()
        assert 0 < len(listed["data"]) <= 5
        assert listed["has_more"] is (listed["next_cursor"] is not None)
        numbers += [page["number"] for page in listed["data"]]
        cursor, asked = listed["next_cursor"], asked + 1
        box = {"left": 1, "top": 2, "right": 3, "bottom": 4}
        assert listed["data"][-1]["lines"][0] == {**LINE, "box": box}
    assert numbers == list(range(1, 13))
