"""Workers that are killed: every accepted job ends, once in effect, and nobody has to do anything about it."""

import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from benchmarks.kills.chores import KINDS
from benchmarks.kills.trial import Trial
from pydantic import SecretStr

from baatcheet.platform.database import Database
from baatcheet.platform.settings import DatabaseSettings

KILLS = 20
LEASE = 1.5  # seconds; 25 by default
RETAKEN = 1.8 * LEASE  # seconds, at most: at the default lease these are 45
SLACK = 6.0  # seconds: these machines are slow, and a worker that is to notice has to start first


@pytest.fixture
def migrated(migrated_database: str) -> str:
    return migrated_database


@pytest_asyncio.fixture
async def db(migrated: str) -> AsyncIterator[Database]:
    opened = Database(DatabaseSettings(url=SecretStr(migrated)), pool_size=10, name="kills")
    yield opened
    await opened.close()


@pytest.mark.timeout(400)
async def test_workers_killed_at_random_lose_no_job_and_do_none_twice(
    db: Database, migrated: str, tmp_path: Path
) -> None:
    seed = random.randrange(2**31)
    trial = Trial(db, migrated, tmp_path, lease=LEASE)
    account = await trial.at_random(KILLS, pause=0.4, chance=random.Random(seed))
    assert account.faults() == {}, (seed, account)
    assert account.jobs > KILLS
    assert account.runs > account.jobs, "no kill met a running job"
    assert account.retaken[-1] < RETAKEN + SLACK, account.retaken


@pytest.mark.timeout(400)
async def test_a_worker_killed_at_any_step_of_a_job_leaves_it_to_another(
    db: Database, migrated: str, tmp_path: Path
) -> None:
    account = await Trial(db, migrated, tmp_path, lease=LEASE, room=1).at_every_step()
    assert account.faults() == {}, account
    assert len(account.retaken) == account.kills == sum(KINDS.values())
    # Whoever died after the end of their job had nothing left to do.
    assert account.runs - account.jobs == sum(steps - 1 for steps in KINDS.values())
