"""Deleting a user: nothing is left, the receipt says what there was, and being killed anywhere changes neither."""

import asyncio
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import text

from baatcheet.analytics.rollup import RollUp
from baatcheet.context.recents import cache_key
from baatcheet.platform.blobs import FolderBlobs
from baatcheet.platform.cache import Cache
from baatcheet.platform.database import Database
from baatcheet.platform.settings import CacheSettings, RetentionSettings
from baatcheet.retention import erasing
from baatcheet.retention.belongings import belongings, shape_of
from baatcheet.retention.erasing import Eraser, RetentionParts, complete
from baatcheet.retention.models import UserDeletion
from tests import zygote
from tests.api.things import MARK, files_of, one_of_each
from tests.conftest import ROOT, Caller, NewCaller, RunningServer
from tests.conversations.test_conversations import make, say
from tests.retention.crashing import PREFIXES

_USED = """
SELECT coalesce(sum(prompt_tokens), 0), coalesce(sum(requests), 0) FROM {table} WHERE model = :model
"""


async def left_of(database: Database, user: UUID, files: Path) -> dict[str, int]:
    """The tables and files in which there is something of a user's, or of what alice's things say."""
    found: dict[str, int] = {}
    async with database.system() as session:
        those = belongings(await shape_of(session))
        owned = (await shape_of(session)).owned
        for table in [*(one.table for one in those), "users"]:
            condition = "id = :user" if table == "users" else "user_id = :user"
            if table != "users" and table not in owned:
                continue
            rows = await session.scalar(
                text(f"SELECT count(*) FROM {table} WHERE {condition}"), {"user": user}
            )
            if rows:  # what the relay has not taken yet is an event soon
                name = "events" if table == "outbox" else table
                found[name] = found.get(name, 0) + rows
    if kept := [one for one in files.rglob("*") if one.is_file() and str(user) in one.parts]:
        found["files"] = len(kept)
    return found


async def mentioned(database: Database, mark: str) -> list[str]:
    """Every table in which a text is."""
    async with database.system() as session:
        tables = (
            await session.scalars(
                text(
                    "SELECT relname FROM pg_class WHERE relkind = 'r' "
                    "AND relnamespace = 'public'::regnamespace"
                )
            )
        ).all()
        found = []
        for table in tables:
            query = text(f"SELECT EXISTS (SELECT FROM {table} t WHERE t::text LIKE :mark)")
            if await session.scalar(query, {"mark": f"%{mark}%"}):
                found.append(table)
    return found


async def asked(database: Database, user: UUID) -> UserDeletion:
    """A deletion that nobody carries out yet."""
    async with database.system() as session:
        deletion = UserDeletion(subject=user, requested_by="administrator")
        session.add(deletion)
        await session.flush()
        await session.refresh(deletion)
    return deletion


async def receipt(database: Database, deletion: UUID) -> UserDeletion:
    async with database.system() as session:
        return await session.get_one(UserDeletion, deletion)


async def used(database: Database, table: str, model: str) -> tuple[int, int]:
    async with database.system() as session:
        row = (await session.execute(text(_USED.format(table=table)), {"model": model})).one()
    return int(row[0]), int(row[1])


@pytest.fixture
def files(server: RunningServer) -> Path:
    return files_of(server)


@pytest.fixture
async def cache(services: Mapping[str, str]) -> Any:
    opened = Cache(CacheSettings(url=SecretStr(services["REDIS_URL"])))
    await opened.start()
    yield opened
    await opened.close()


@pytest.fixture
def parts(database: Database, files: Path, cache: Cache) -> RetentionParts:
    return RetentionParts(
        database,
        FolderBlobs(files),
        cache,
        RetentionSettings(),
        PREFIXES,
        RollUp(database).settle,
        settling=0.0,
    )


async def test_nothing_of_a_user_is_left_and_nothing_of_others_is_touched(
    alice: Caller, bob: Caller, database: Database, parts: RetentionParts, files: Path
) -> None:
    ids = await one_of_each(alice, database, parts.blobs)
    conversation = UUID(ids["conversation_id"])
    hers = await left_of(database, alice.user_id, files)
    assert {"messages", "turns", "jobs", "webhooks", "audio", "files", "model_usage"} <= hers.keys()
    his = await make(bob, title="his")
    await say(bob, his, "stays")
    before = await left_of(database, bob.user_id, files)
    await parts.cache.put(cache_key(conversation), b"{}", seconds=60)
    deletion = await asked(database, alice.user_id)
    await Eraser(parts, deletion).run()
    async with database.system() as session:
        await complete(session, deletion.id)
    assert await left_of(database, alice.user_id, files) == {}
    assert [
        one for one in files.rglob("*") if str(alice.user_id) in one.parts
    ] == []  # no empty folder either
    assert await parts.cache.get(cache_key(conversation)) is None
    assert await left_of(database, bob.user_id, files) == before
    told = await receipt(database, deletion.id)
    assert (told.status, told.files) == ("completed", hers["files"])
    assert told.completed_at is not None
    assert told.bytes is not None
    assert told.bytes > 0
    for table in ("messages", "conversations", "turns", "webhooks", "audio", "attachments", "users"):
        assert told.rows[table] == hers[table], table
    # The mark is every test's of this process: what it says of others has been looked at above.
    assert MARK not in json.dumps(told.rows)


async def test_what_was_used_stays_used_by_nobody(
    new_caller: NewCaller, database: Database, parts: RetentionParts
) -> None:
    """Two users of one model: together, after both are gone, what they used before."""
    model = "test/forgotten"
    spent = (
        "INSERT INTO model_usage (user_id, day, token_id, model, requests, prompt_tokens) "
        "VALUES (:user, CAST(:day AS text)::date, :user, :model, 2, 30)"
    )
    for name in ("carol", "dave"):
        caller = await new_caller(name)
        async with database.system() as session:
            for day in ("2026-01-01", "2026-01-02"):
                await session.execute(text(spent), {"user": caller.user_id, "day": day, "model": model})
        await Eraser(parts, await asked(database, caller.user_id)).run()
    assert await used(database, "model_usage", model) == (0, 0)
    assert await used(database, "forgotten_usage", model) == (120, 8)
    async with database.system() as session:
        days = await session.scalar(
            text("SELECT count(*) FROM forgotten_usage WHERE model = :model"), {"model": model}
        )
    assert days == 2


async def test_a_turn_that_ended_a_moment_ago_is_counted_before_it_goes(
    new_caller: NewCaller, database: Database, parts: RetentionParts
) -> None:
    caller = await new_caller("frank")
    turn = (
        "INSERT INTO turns (id, user_id, status, answered_by, prompt_tokens, completion_tokens, ended_at) "
        "VALUES (gen_random_uuid(), :user, 'completed', 'test/a-moment-ago', 7, 5, now())"
    )
    async with database.system() as session:
        for _ in range(2):
            await session.execute(text(turn), {"user": caller.user_id})
    await Eraser(parts, await asked(database, caller.user_id)).run()
    async with database.system() as session:
        query = "SELECT turns, prompt_tokens, completion_tokens FROM forgotten_analytics WHERE model = :model"
        (row,) = (await session.execute(text(query), {"model": "test/a-moment-ago"})).all()
    assert tuple(row) == (2, 14, 10)


async def test_many_rows_are_deleted_in_many_transactions(
    alice: Caller, database: Database, parts: RetentionParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasing, "ROWS", 3)
    conversation = await make(alice)
    for at in range(7):
        await say(alice, conversation, f"number {at}")
    deletion = await asked(database, alice.user_id)
    await Eraser(parts, deletion).run()
    told = await receipt(database, deletion.id)
    assert (told.rows["messages"], told.rows["conversations"], told.rows["users"]) == (7, 1, 1)


async def test_whatever_it_is_killed_at_all_is_gone_and_counted_once(
    new_caller: NewCaller,
    database: Database,
    services: Mapping[str, str],
    parts: RetentionParts,
    files: Path,
) -> None:
    """Killed as by `kill -9`, ever later, until one comes to its end: the receipt is that of one undisturbed."""

    async def run(step: int, deletion: UUID) -> int:
        arguments = [str(step), services["DATABASE_URL"], str(files), str(deletion)]
        process = zygote.popen(
            ["-m", "tests.retention.crashing", *arguments], cwd=ROOT, stdout=subprocess.DEVNULL
        )
        return await asyncio.to_thread(process.wait)

    receipts = []
    for steps in ([], [4, 60]):
        caller = await new_caller("erin")
        await one_of_each(caller, database, parts.blobs)
        deletion = await asked(database, caller.user_id)
        for step in steps:
            assert await run(step, deletion.id) == -9
        await Eraser(parts, deletion).run()
        assert await left_of(database, caller.user_id, files) == {}
        told = await receipt(database, deletion.id)
        # How far search and analytics had come with the rows is no matter of theirs.
        counted = {
            table: rows
            for table, rows in told.rows.items()
            if not table.startswith(("search_", "analytics_", "outbox", "events"))
        }
        receipts.append((counted, told.files, told.bytes))
    assert receipts[0] == receipts[1]


async def test_an_administrator_deletes_a_user_and_reads_the_receipt(
    admin: Caller, alice: Caller, client: httpx.AsyncClient, worker: int, files: Path, database: Database
) -> None:
    conversation = await make(alice, title="to be forgotten")
    await say(alice, conversation, "forget me")
    asked_for = await admin.delete(f"/api/v1/users/{alice.user_id}")
    assert asked_for.status_code == 202, asked_for.text
    made = asked_for.json()
    assert (made["user_id"], made["requested_by"]) == (str(alice.user_id), "administrator")
    again = await admin.delete(f"/api/v1/users/{alice.user_id}")
    assert again.json()["id"] == made["id"]
    assert (await alice.get("/api/v1/me")).status_code == 401
    async with asyncio.timeout(60):
        while True:
            told = (await admin.get(asked_for.headers["location"])).json()
            if told["status"] == "completed":
                break
            await asyncio.sleep(0.2)
    assert (told["rows"]["messages"], told["rows"]["users"], told["files"]) == (1, 1, 0)
    assert await left_of(database, alice.user_id, files) == {}
    assert (await admin.get(f"/api/v1/users/{alice.user_id}")).status_code == 404
    listed = (await admin.get("/api/v1/deletions")).json()["data"]
    assert made["id"] in [one["id"] for one in listed]
    # The link, for whoever has no token any more.
    linked = await client.get(made["receipt"])
    assert (linked.status_code, linked.json()) == (200, told)
    assert (await client.get(made["receipt"][:-1])).status_code == 403
    assert (await client.get(f"/files/deletions/{made['id']}")).status_code == 403
    assert (await client.get(f"/api/v1/deletions/{made['id']}")).status_code == 401


async def test_one_deletes_ones_own_account_and_says_so_twice(
    alice: Caller, new_caller: NewCaller, client: httpx.AsyncClient
) -> None:
    for query in ({}, {"confirm": "0190f3a2-7c1e-7d4b-9a51-3f0c2b8e6d10"}, {"confirm": "yes"}):
        refused = await alice.delete("/api/v1/me", params=query)
        assert (refused.status_code, "confirm" in refused.text) == (422, True)
    confirmed = {"confirm": str(alice.user_id)}
    narrow = await new_caller("alice", scopes=["write"], user_id=alice.user_id)
    assert (await narrow.delete("/api/v1/me", params=confirmed)).status_code == 403
    accepted = await alice.delete("/api/v1/me", params=confirmed)
    assert accepted.status_code == 202, accepted.text
    assert accepted.json()["requested_by"] == "owner"
    assert (await alice.get("/api/v1/me")).status_code == 401
    assert (await client.get(accepted.json()["receipt"])).status_code == 200


async def test_the_last_administrator_stays(admin: Caller, database: Database) -> None:
    async with database.system() as session:
        others = await session.scalar(
            text("SELECT count(*) FROM users WHERE role = 'admin' AND active AND id <> :me"),
            {"me": admin.user_id},
        )
    if others:
        pytest.skip("another test has made a second administrator")
    refused = await admin.delete(f"/api/v1/users/{admin.user_id}")
    assert (refused.status_code, refused.json()["type"]) == (409, "last-admin")
    assert (await admin.get("/api/v1/me")).status_code == 200


async def test_who_is_not_there_is_not_deleted(admin: Caller, alice: Caller) -> None:
    nobody = "0190f3a2-7c1e-7d4b-9a51-3f0c2b8e6d10"
    missing = await admin.delete(f"/api/v1/users/{nobody}")
    assert (missing.status_code, missing.json()["type"]) == (404, "user-not-found")
    assert (await admin.get(f"/api/v1/deletions/{nobody}")).json()["type"] == "deletion-not-found"
    assert (await alice.delete(f"/api/v1/users/{nobody}")).status_code == 403
    assert (await alice.get("/api/v1/deletions")).status_code == 403
