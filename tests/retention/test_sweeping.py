"""The nightly job: what nobody uses goes out of sight, and what was deleted long ago is forgotten."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import sqlalchemy.event
from pydantic import SecretStr
from sqlalchemy import text

from baatcheet.analytics.rollup import RollUp
from baatcheet.context.recents import cache_key
from baatcheet.platform.blobs import FolderBlobs
from baatcheet.platform.cache import Cache
from baatcheet.platform.database import Database
from baatcheet.platform.settings import CacheSettings, RetentionSettings
from baatcheet.retention import sweeping
from baatcheet.retention.erasing import RetentionParts
from baatcheet.retention.sweeping import forget_deleted, put_unused_aside
from tests.conftest import Caller
from tests.conversations.test_conversations import make, run_turn, say
from tests.conversations.test_deletion import delete, listed

# All conversations of the database are looked at, so these tests look from far ahead of what others make.
DAY = timedelta(days=1)


@pytest.fixture
async def cache(services: Mapping[str, str]) -> Any:
    opened = Cache(CacheSettings(url=SecretStr(services["REDIS_URL"])))
    await opened.start()
    yield opened
    await opened.close()


@pytest.fixture
def parts(database: Database, tmp_path: Path, cache: Cache) -> RetentionParts:
    kept = RetentionSettings(deleted_days=30, unused_days=100)
    return RetentionParts(database, FolderBlobs(tmp_path), cache, kept, (), RollUp(database).settle)


async def aged(database: Database, column: str, conversation: str, days: float) -> None:
    """Set a moment of a conversation's back."""
    async with database.system() as session:
        await session.execute(
            text(f"UPDATE conversations SET {column} = now() - make_interval(secs => :age) WHERE id = :id"),
            {"age": days * 86_400, "id": conversation},
        )


async def test_what_was_deleted_long_enough_ago_is_forgotten(
    alice: Caller, database: Database, parts: RetentionParts
) -> None:
    old, young, there = [(await make(alice, title=name))["id"] for name in ("old", "young", "there")]
    message = await say(alice, {"id": old}, "forget me")
    for one, days in ((old, 30.01), (young, 29.99)):
        await delete(alice, one)
        await aged(database, "deleted_at", one, days)
    await parts.cache.put(cache_key(old), b"{}", seconds=60)
    assert await forget_deleted(parts, datetime.now(UTC)) >= 1
    assert await forget_deleted(parts, datetime.now(UTC)) == 0
    assert await listed(alice, deleted="true") == [young]
    assert await listed(alice) == [there]
    assert (await alice.post(f"/api/v1/conversations/{old}/restore")).status_code == 404
    assert await parts.cache.get(cache_key(old)) is None
    async with database.system() as session:
        found = await session.scalar(
            text("SELECT count(*) FROM messages WHERE id = :id"), {"id": message["id"]}
        )
    assert found == 0


async def test_what_is_forgotten_is_in_no_event_and_answers_no_repetition(
    alice: Caller, bob: Caller, database: Database, parts: RetentionParts
) -> None:
    """Also where a version before this one had put it aside."""
    secret = f"secret-{uuid4().hex}"
    headers, said = {"Idempotency-Key": "k"}, {"role": "user", "content": secret}
    made = [await make(caller, title=secret) for caller in (alice, bob)]
    for caller, one in zip((alice, bob), made, strict=True):
        where = f"/api/v1/conversations/{one['id']}/messages"
        assert (await caller.post(where, json=said, headers=headers)).status_code == 201
        await aged(database, "deleted_at", one["id"], 31)
    assert await forget_deleted(parts, datetime.now(UTC)) >= 2
    async with database.system() as session:
        for table in ("idempotency_keys", "events", "outbox"):
            query = text(f"SELECT count(*) FROM {table} t WHERE t::text LIKE :secret")
            assert await session.scalar(query, {"secret": f"%{secret}%"}) == 0, table


async def test_the_cache_is_told_when_nothing_of_the_database_is_held(
    alice: Caller, database: Database, parts: RetentionParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And when the conversation is gone: else a turn could bring back what was forgotten."""
    made = await make(alice)
    await delete(alice, made["id"])
    await aged(database, "deleted_at", made["id"], 31)
    open_ones: list[int] = []
    told: list[tuple[int, int]] = []
    engine = database.engine.sync_engine

    async def listen(*keys: str) -> bool:
        held = len(open_ones)
        async with database.system() as session:
            there = await session.scalar(
                text("SELECT count(*) FROM conversations WHERE id = :id"), {"id": made["id"]}
            )
        if cache_key(UUID(made["id"])) in keys:
            told.append((held, there))
        return True

    monkeypatch.setattr(parts.cache, "delete", listen)

    def begin(_: object) -> None:
        open_ones.append(1)

    def end(_: object) -> None:
        open_ones.pop()

    hooks = (("begin", begin), ("commit", end), ("rollback", end))
    for name, hook in hooks:
        sqlalchemy.event.listen(engine, name, hook)
    try:
        await forget_deleted(parts, datetime.now(UTC))
    finally:
        for name, hook in hooks:
            sqlalchemy.event.remove(engine, name, hook)
    assert told == [(0, 0)]


async def test_what_nobody_uses_goes_out_of_sight_and_can_be_restored(
    alice: Caller, database: Database, parts: RetentionParts
) -> None:
    unused, used, pinned, busy = [
        (await make(alice, title=name, pinned=name == "pinned"))["id"]
        for name in ("unused", "used", "pinned", "busy")
    ]
    await run_turn(database, alice, {"id": busy})
    for one, days in ((unused, 101), (used, 99), (pinned, 500), (busy, 500)):
        await aged(database, "updated_at", one, days)
    assert await put_unused_aside(parts, datetime.now(UTC)) >= 1
    assert await put_unused_aside(parts, datetime.now(UTC)) == 0
    assert await listed(alice, deleted="true") == [unused]
    assert set(await listed(alice)) == {used, pinned, busy}
    assert await forget_deleted(parts, datetime.now(UTC)) == 0  # its time among the deleted begins now
    assert (await alice.post(f"/api/v1/conversations/{unused}/restore")).status_code == 200


async def test_without_a_setting_nothing_goes_by_itself(
    alice: Caller, database: Database, parts: RetentionParts
) -> None:
    made = await make(alice)
    await aged(database, "updated_at", made["id"], 5_000)
    forever = RetentionParts(parts.db, parts.blobs, parts.cache, RetentionSettings(), (), parts.settle)
    assert await put_unused_aside(forever, datetime.now(UTC)) == 0
    assert await listed(alice) == [made["id"]]


async def test_batches_are_as_small_as_they_are_told(
    alice: Caller, database: Database, parts: RetentionParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A conversation with more messages than a batch may have goes alone."""
    monkeypatch.setattr(sweeping, "BATCH", 2)
    monkeypatch.setattr(sweeping, "MESSAGES", 1)
    made = [(await make(alice))["id"] for _ in range(5)]
    for one in made:
        await say(alice, {"id": one}, "a")
        await say(alice, {"id": one}, "b")
        await aged(database, "updated_at", one, 200)
    assert await put_unused_aside(parts, datetime.now(UTC)) >= 5
    for one in made:
        await aged(database, "deleted_at", one, 40)
    assert await forget_deleted(parts, datetime.now(UTC)) == 5
    assert await listed(alice, deleted="true") == []
