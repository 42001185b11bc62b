"""Killing workers at random, by hand: `python -m benchmarks.kills [--kills 300] [--lease 5] [--json] [--quick]`.

On a durable PostgreSQL that is started for the run. Three workers run jobs of every shape while one of them is killed
with SIGKILL about every second; then each accepted job is accounted for. A lease of 25 seconds is what a deployment
has; a shorter one makes a shorter run.
"""

import argparse
import asyncio
import random
import tempfile
from pathlib import Path

import uvloop

from baatcheet.platform.database import Database
from baatcheet.platform.settings import Settings
from benchmarks.context.workplace import services
from benchmarks.kills.trial import Account, Trial
from benchmarks.report import Options, Report, progress

PAUSE = 1.0  # seconds between two kills, on average
QUICK = 15  # kills
# A worker's lease lapses, and is found twice: `Rhythm`.
WITHIN = 1.8  # times the lease
_FAULTS = {
    "lost": "accepted jobs that are gone",
    "unfinished": "jobs that did not end",
    "failed": "jobs that ended without success",
    "without_effect": "jobs without their effect",
    "twice": "jobs whose effect is there twice",
    "files_missing": "files that are not there whole",
    "told_wrong": "jobs whose event was not told exactly once",
    "chains_broken": "jobs that made none or several of another",
}


async def measure(settings: Settings, folder: Path, *, kills: int, lease: float, seed: int) -> Account:
    assert settings.database.url is not None
    url = settings.database.url.get_secret_value()
    db = Database(settings.database, pool_size=10, name="kills")
    try:
        trial = Trial(db, url, folder, lease=lease)
        return await trial.at_random(
            kills,
            pause=PAUSE,
            chance=random.Random(seed),
            tell=lambda done: progress(f"{done} of {kills} killed") if done % 10 == 0 else None,
        )
    finally:
        await db.close()


def add(report: Report, account: Account, lease: float) -> None:
    report.add("kills", account.kills, "kills", better="higher")
    report.add("jobs", account.jobs, "jobs", better="higher")
    report.add("runs", account.runs, "runs", better="lower")
    for name, what in _FAULTS.items():
        report.add(name, getattr(account, name), what, better="lower", target=0)
    if account.retaken:
        for share in (50, 99):
            place = min(len(account.retaken) - 1, len(account.retaken) * share // 100)
            report.add(f"retaken.p{share}", account.retaken[place], "s", better="lower")
        report.add("retaken.max", account.retaken[-1], "s", better="lower", target=WITHIN * lease + 1)
    report.add("seconds", account.seconds, "s", better="lower")
    report.note(f"The lease was {lease:g} s. `retaken`: until a killed worker's jobs were given back.")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kills", description="Kill workers at random.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="finish within 60 s, with fewer kills")
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--lease", type=float, default=5.0, help="seconds (a deployment has 25)")
    parser.add_argument("--seed", type=int, default=random.randrange(2**31))
    asked = parser.parse_args()
    kills, lease = (QUICK, 1.5) if asked.quick else (asked.kills, asked.lease)
    progress(f"seed {asked.seed}")
    report = Report("kills")
    with (
        services() as settings,
        tempfile.TemporaryDirectory(prefix="baatcheet-kills-") as folder,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        account = runner.run(measure(settings, Path(folder), kills=kills, lease=lease, seed=asked.seed))
    add(report, account, lease)
    report.show(Options(json=asked.json, quick=asked.quick))


if __name__ == "__main__":
    main()
