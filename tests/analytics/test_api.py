"""What was used, as clients ask for it: a real server, a real database, a scripted provider."""

import asyncio
import csv
import io
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from baatcheet.entrypoints.cli import app
from baatcheet.platform.database import Database
from tests.conftest import Caller

MODEL = "scripted-echo"
ANSWERED_BY = f"openai/{MODEL}"
VECTORS = "text-embedding-scripted"
USAGE, OVERVIEW = "/api/v1/analytics/usage", "/api/v1/analytics/overview"


def today() -> str:
    return datetime.now(UTC).date().isoformat()


async def report(caller: Caller, **asked: Any) -> dict[str, Any]:
    answer = await caller.get(USAGE, params=asked)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def overview(caller: Caller, **asked: Any) -> dict[str, Any]:
    answer = await caller.get(OVERVIEW, params=asked)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def say(caller: Caller, conversation: str | None = None, **more: Any) -> dict[str, Any]:
    body = {"message": "hello", "model": MODEL, "stream": False, **more}
    answer = await caller.post(
        "/api/v1/chat/completions", json=body | ({"conversation_id": conversation} if conversation else {})
    )
    assert answer.status_code < 300 or more, answer.text
    said: dict[str, Any] = answer.json()
    return said


@pytest.fixture
async def price(database: Database, admin: Caller, alice: Caller) -> Any:
    async def set_prices(change: str) -> None:
        async with database.system() as session:
            await session.execute(text(change))
            await session.execute(text("UPDATE spending_changes SET prices = prices + 1"))
        # The server looks at the prices whenever it is told of limits.
        told = await admin.put(f"/api/v1/users/{alice.user_id}/limits", json={})
        assert told.status_code < 300, told.text

    await set_prices(
        "INSERT INTO model_prices (pattern, prompt, completion) VALUES ('openai/scripted-echo', 1, 2) "
        "ON CONFLICT DO NOTHING"
    )
    yield
    await set_prices("DELETE FROM model_prices WHERE pattern = 'openai/scripted-echo'")


async def test_a_turn_counts_at_once_with_its_messages_tokens_and_cost(alice: Caller, price: None) -> None:
    await say(alice)
    turns = (await alice.get("/api/v1/turns")).json()["data"]
    tokens = turns[0]["usage"]
    (row,) = (await report(alice, group_by=["day", "model"]))["data"]
    assert (row["from"], row["to"], row["model"]) == (today(), today(), ANSWERED_BY)
    assert (row["turns"], row["completed"], row["messages"], row["user_id"]) == (1, 1, 2, None)
    assert (row["prompt_tokens"], row["completion_tokens"]) == (
        tokens["prompt_tokens"],
        tokens["completion_tokens"],
    )
    worth = tokens["prompt_tokens"] * 100 + tokens["completion_tokens"] * 200
    assert row["usd"] == turns[0]["usd"] == f"{worth / 10**8:.8f}".rstrip("0")
    assert (row["unpriced"], row["slowest_ms"]) == (0, row["latency_ms"])
    assert 0 <= row["latency_ms"] < 60_000
    assert "microcents" not in tokens


async def test_every_way_of_asking_counts_once_under_its_model(alice: Caller) -> None:
    conversation = (await alice.post("/api/v1/conversations", json={"title": "t"})).json()["id"]
    await say(alice, conversation)
    await say(alice, conversation)
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}
    for stream in (False, True):
        assert (await alice.post("/v1/chat/completions", json=body | {"stream": stream})).status_code == 200
    await alice.post(
        "/api/v1/chat/completions", json={"message": "x", "model": "scripted-500", "stream": False}
    )
    vectors = await alice.post("/v1/embeddings", json={"model": VECTORS, "input": ["one", "two"]})
    rows: dict[str, Any] = {}
    for _ in range(200):  # what is stateless is recorded after its answer, an embedding within a second
        rows = {row["model"]: row for row in (await report(alice, group_by="model"))["data"]}
        if rows.get(ANSWERED_BY, {}).get("turns") == 4 and f"openai/{VECTORS}" in rows:
            break
        await asyncio.sleep(0.05)
    assert {name: row["turns"] for name, row in rows.items()} == {
        ANSWERED_BY: 4,
        "openai/scripted-500": 1,
        f"openai/{VECTORS}": 0,
    }
    assert rows[ANSWERED_BY]["messages"] == 4
    failed = rows["openai/scripted-500"]
    assert (failed["failed"], failed["completed"], failed["latency_ms"]) == (1, 0, None)
    embedded = rows[f"openai/{VECTORS}"]
    assert (embedded["embeddings"], embedded["prompt_tokens"]) == (1, vectors.json()["usage"]["total_tokens"])


async def test_what_was_used_is_told_after_its_conversation_is_gone(alice: Caller) -> None:
    conversation = (await alice.post("/api/v1/conversations", json={"title": "t"})).json()["id"]
    await say(alice, conversation)
    before = (await report(alice))["data"]
    gone = await alice.delete(f"/api/v1/conversations/{conversation}", params={"permanently": "true"})
    assert gone.status_code == 204, gone.text
    assert (await report(alice))["data"] == before
    assert before[0]["turns"] == 1


async def test_an_overview_has_sums_those_before_models_and_what_is_stored(
    alice: Caller, database: Database
) -> None:
    await say(alice)
    day = datetime.now(UTC).date()
    async with database.system() as session:
        for when, model, microcents in (
            (day - timedelta(days=9), "groq/old", 3),
            (day - timedelta(days=2), "groq/dear", 5 * 10**8),
        ):
            await session.execute(
                text(
                    "INSERT INTO analytics_daily (user_id, date, model, turns, completed, latency_ms, slowest_ms, "
                    "microcents) VALUES (:user, :day, :model, 2, 2, 300, 200, :microcents)"
                ),
                {"user": alice.user_id, "day": when, "model": model, "microcents": microcents},
            )
        await session.execute(
            text(
                "INSERT INTO analytics_daily (user_id, date, model, bytes_added, bytes_removed) "
                "VALUES (:user, '2020-01-01', '', 10, 4)"
            ),
            {"user": alice.user_id},
        )
    week = {"from": (day - timedelta(days=6)).isoformat(), "to": day.isoformat()}
    found = await overview(alice, **week)
    assert (found["from"], found["to"], found["complete"]) == (week["from"], week["to"], True)
    assert (found["total"]["turns"], found["total"]["usd"]) == (3, "5")
    assert (found["before"]["turns"], found["before"]["usd"]) == (2, "0.00000003")
    assert (found["before"]["latency_ms"], found["before"]["slowest_ms"]) == (150, 200)
    assert [row["model"] for row in found["models"]] == ["groq/dear", ANSWERED_BY]
    assert found["stored_bytes"] == 6
    lines = await csv_of(alice, OVERVIEW, **week)
    assert [(line["what"], line["model"], line["turns"]) for line in lines] == [
        ("total", "", "3"),
        ("before", "", "2"),
        ("model", "groq/dear", "2"),
        ("model", ANSWERED_BY, "1"),
    ]
    assert lines[0]["stored_bytes"] == "6"


async def csv_of(caller: Caller, path: str, **asked: Any) -> list[dict[str, str]]:
    answer = await caller.get(path, params=asked, headers={"accept": "text/csv"})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"].startswith("attachment; filename=")
    by_name = await caller.get(path, params=asked | {"format": "csv"}, headers={"accept": "application/json"})
    assert by_name.text == answer.text
    return list(csv.DictReader(io.StringIO(answer.text)))


async def test_a_report_is_csv_where_that_is_asked_for(alice: Caller) -> None:
    await say(alice)
    rows = (await report(alice, group_by=["month", "model"]))["data"]
    lines = await csv_of(alice, USAGE, group_by=["month", "model"])
    assert [(line["from"], line["model"], line["turns"]) for line in lines] == [
        (row["from"], row["model"], str(row["turns"])) for row in rows
    ]
    assert "user_id" not in lines[0]


async def test_periods_are_cut_to_the_days_that_were_asked_for(alice: Caller, database: Database) -> None:
    async with database.system() as session:
        for day in ("2026-03-02", "2026-03-08", "2026-03-09"):  # Monday, Sunday, Monday
            await session.execute(
                text(
                    "INSERT INTO analytics_daily (user_id, date, model, turns) "
                    "VALUES (:user, CAST(:day AS date), '', 1)"
                ),
                {"user": alice.user_id, "day": date.fromisoformat(day)},
            )
    asked = {"from": "2026-03-03", "to": "2026-03-10", "group_by": "week"}
    rows = (await report(alice, **asked))["data"]
    assert [(row["from"], row["to"], row["turns"]) for row in rows] == [
        ("2026-03-03", "2026-03-08", 1),
        ("2026-03-09", "2026-03-10", 1),
    ]
    (month,) = (
        await report(alice, **(asked | {"from": "2026-02-01", "to": "2026-04-01", "group_by": "month"}))
    )["data"]
    assert (month["from"], month["to"], month["turns"]) == ("2026-03-01", "2026-03-31", 3)


async def test_anothers_usage_is_for_administrators(alice: Caller, bob: Caller, admin: Caller) -> None:
    await say(alice)
    mine = (await report(alice))["data"]
    assert (await report(bob))["data"] == []
    assert (await report(admin, user_id=str(alice.user_id)))["data"] == mine
    assert (await report(alice, user_id=str(alice.user_id)))["data"] == mine
    rows = (await report(admin, everybody="true", group_by=["user", "model"]))["data"]
    assert [row["turns"] for row in rows if row["user_id"] == str(alice.user_id)] == [1]
    assert (await overview(admin, everybody="true"))["total"]["turns"] >= 1
    for path in (USAGE, OVERVIEW):
        for asked in ({"user_id": str(alice.user_id)}, {"everybody": "true"}):
            assert (await bob.get(path, params=asked)).status_code == 403
        unknown = await admin.get(path, params={"user_id": str(UUID(int=7))})
        assert unknown.status_code == 404, unknown.text


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"from": "2026-03-02", "to": "2026-03-01"}, "is after to"),
        ({"from": "2020-01-01", "to": "2026-01-01"}, "1,100 at most"),
        ({"to": "0001-01-05"}, None),
        ({"from": "9999-12-20", "to": "9999-12-31", "group_by": "week"}, None),
        ({"from": "1700000000"}, "is not a day like"),
        ({"from": "2026-02-30"}, "is not a day like"),
        ({"group_by": ["day", "week"]}, "not by several"),
        ({"group_by": "user"}, "everybody=true"),
        ({"group_by": "hour"}, "group_by"),
        ({"format": "xml"}, "format"),
        ({"everybody": "maybe"}, "everybody"),
        ({"user_id": "me"}, "user_id"),
    ],
)
async def test_what_can_not_be_asked_is_said_plainly(
    alice: Caller, asked: Mapping[str, Any], told: str | None
) -> None:
    answer = await alice.get(USAGE, params=dict(asked))
    if told is None:
        assert answer.status_code == 200, answer.text
    else:
        assert answer.status_code == 422, answer.text
        assert told in answer.text


async def test_more_rows_than_one_answer_holds_are_refused(alice: Caller, database: Database) -> None:
    async with database.system() as session:
        await session.execute(
            text(
                "INSERT INTO analytics_daily (user_id, date, model, turns) "
                "SELECT :user, '2025-03-02', 'many/' || n, 1 FROM generate_series(1, 10001) n"
            ),
            {"user": alice.user_id},
        )
    asked = {"from": "2025-03-01", "to": "2025-03-09", "group_by": "model"}
    answer = await alice.get(USAGE, params=asked)
    assert (answer.status_code, answer.json()["type"]) == (422, "range-too-large")
    assert (await report(alice, **(asked | {"group_by": "day"})))["data"][0]["turns"] == 10_001


async def test_an_operator_counts_anew_by_command(
    alice: Caller,
    database: Database,
    services: Mapping[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await say(alice)
    right = (await report(alice))["data"]
    async with database.system() as session:
        for table in ("analytics_pending", "analytics_daily"):
            await session.execute(text(f"DELETE FROM {table} WHERE user_id = :user"), {"user": alice.user_id})
        await session.execute(
            text(
                "INSERT INTO analytics_daily (user_id, date, model, turns) VALUES (:user, '2026-01-01', 'x', 9)"
            ),
            {"user": alice.user_id},
        )
    assert (await report(alice))["data"] == []
    monkeypatch.chdir(tmp_path)
    for name, value in services.items():
        monkeypatch.setenv(name, value)
    command = ["db", "rebuild-analytics", "--user", str(alice.user_id)]
    with ThreadPoolExecutor(1) as aside:  # a command has an event loop of its own
        done = aside.submit(CliRunner().invoke, app, command).result(60)
    assert done.exit_code == 0, done.output
    assert "Counted anew" in done.output
    assert (await report(alice, **{"from": "2026-01-01", "to": today()}))["data"] == right
