"""The job that keeps the days up to date."""

from typing import Final

import msgspec

from baatcheet.analytics.rollup import RollUp
from baatcheet.jobs.declaration import Job, job
from baatcheet.jobs.schedules import Schedule


class Nothing(msgspec.Struct, frozen=True):
    """The payload of work that is always the same."""


@job("analytics.roll_up", queue="analytics", visible=False, seconds=600)
async def roll_up(job: Job[Nothing], parts: RollUp) -> dict[str, int]:
    """What is fresh is in the days, and whoever waits to be counted anew has been. Run twice, it finds nothing more."""
    return {"moved": await parts.roll_up(), "rebuilt": await parts.catch_up()}


EVERY_MINUTE: Final = Schedule("analytics", "* * * * *", roll_up, Nothing())
