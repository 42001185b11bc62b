"""Everybody's usage when somebody is erased: it stays, and is nobody's."""

import random
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from baatcheet.analytics.reports import Group, Range, Reports
from baatcheet.analytics.rollup import RollUp
from baatcheet.platform.blobs import FolderBlobs
from baatcheet.platform.cache import Cache
from baatcheet.platform.database import Database
from baatcheet.platform.settings import CacheSettings, RetentionSettings
from baatcheet.retention.erasing import Eraser, RetentionParts
from baatcheet.retention.models import UserDeletion
from tests.analytics.ledger import Ledger, new_user

LONG_AGO = Range(date(2026, 2, 20), date(2026, 4, 30))  # of ledgers only


async def erase(database: Database, folder: Path, user: Any, *, times: int = 1) -> None:
    parts = RetentionParts(
        database,
        FolderBlobs(folder),
        Cache(CacheSettings(url=None)),
        RetentionSettings(),
        (),
        RollUp(database).settle,
        settling=0.0,
    )
    async with database.system() as session:
        deletion = UserDeletion(subject=user, requested_by="administrator")
        session.add(deletion)
        await session.flush()
        await session.refresh(deletion)
    for _ in range(times):
        await Eraser(parts, deletion).run()


async def used_ledger(database: Database) -> Ledger:
    """Of somebody who has used some of everything, and of whom something is not counted yet."""
    ledger = Ledger(database, await new_user(database), random.Random(5))
    for at in range(30):
        deeds = (Ledger.turn, Ledger.message, Ledger.job, Ledger.upload, Ledger.export, Ledger.expire_export)
        await deeds[at % 6](ledger)
        if at == 20:
            await ledger.delete_conversation()
            await ledger.roll_up()
    await ledger.run(
        "INSERT INTO model_usage (user_id, day, token_id, model, kind, requests, prompt_tokens, recorded_seconds) "
        "VALUES (:user, '2026-03-02', :user, 'test/vectors', 'embedding', 3, 40, 0), "
        "(:user, '2026-03-02', :user, 'test/words', 'recording', 2, 0, 90), "
        "(:user, '2026-03-02', :user, 'test/talk', 'chat', 2, 7, 0)"
    )
    return ledger


async def everybodys(database: Database, *groups: Group) -> dict[Any, dict[str, int]]:
    rows, _ = await Reports(database).usage(None, LONG_AGO, groups)
    return {(row.since, row.model, row.user_id): row.counts for row in rows if any(row.counts.values())}


@pytest.mark.parametrize("waits", [False, True])
async def test_everybodys_usage_is_the_same_before_and_after_one_is_erased(
    database: Database, tmp_path: Path, waits: bool
) -> None:
    ledger = await used_ledger(database)
    before = await Reports(database).overview(None, LONG_AGO)
    days = await everybodys(database, "day", "model")
    mine = (await Reports(database).overview(ledger.user, LONG_AGO)).stored_bytes
    assert before.total.counts["turns"] >= 5
    if waits:  # what was there before anybody counted
        for table in ("analytics_pending", "analytics_fresh", "analytics_daily"):
            await ledger.run(f"DELETE FROM {table} WHERE user_id = :user")
        await RollUp(database).want_rebuilt(ledger.user)
        assert (await Reports(database).overview(None, LONG_AGO)).total != before.total
    await erase(database, tmp_path, ledger.user, times=2)
    after = await Reports(database).overview(None, LONG_AGO)
    assert (after.total, after.before, after.models) == (before.total, before.before, before.models)
    assert after.stored_bytes == before.stored_bytes - mine
    assert await everybodys(database, "day", "model") == days


async def test_what_the_erased_have_used_is_nobodys(database: Database, tmp_path: Path) -> None:
    ledger = await used_ledger(database)
    before = await everybodys(database, "user")
    await erase(database, tmp_path, ledger.user)
    after = await everybodys(database, "user")
    assert (None, None, ledger.user) in before
    assert (None, None, ledger.user) not in after
    of_nobody = after[(None, None, None)]["turns"] - before.get((None, None, None), {"turns": 0})["turns"]
    assert of_nobody == before[(None, None, ledger.user)]["turns"] > 0


async def test_whoever_is_being_erased_is_not_counted_anew(database: Database) -> None:
    """Some of their rows may be gone: what they came to would be lost."""
    ledger = await used_ledger(database)
    async with database.system() as session:
        session.add(UserDeletion(subject=ledger.user, requested_by="administrator"))
    assert not await RollUp(database).rebuild(ledger.user)
    await RollUp(database).want_rebuilt(ledger.user)
    async with database.system() as session:
        waiting = await session.scalar(
            text("SELECT count(*) FROM analytics_backlog WHERE user_id = :user"), {"user": ledger.user}
        )
    assert waiting == 0
