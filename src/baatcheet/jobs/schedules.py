"""Jobs that come by the clock, once across the whole fleet."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cronsim import CronSim, CronSimError
from sqlalchemy import text

from baatcheet.jobs.declaration import JobKind
from baatcheet.jobs.enqueueing import enqueue
from baatcheet.platform.database import Database

CHECK_EVERY = 1.0  # seconds


@dataclass(frozen=True)
class Schedule:
    """`cron`: five fields, in UTC (crontab(5))."""

    name: str
    cron: str
    kind: JobKind[Any, Any]
    payload: object

    def __post_init__(self) -> None:
        try:
            CronSim(self.cron, datetime.now(UTC))
        except CronSimError as error:
            raise ValueError(f"the schedule {self.name} has no cron expression: {self.cron!r}") from error

    def after(self, moment: datetime) -> datetime:
        """The first time after `moment`."""
        return next(CronSim(self.cron, moment.astimezone(UTC)))


_MAKE = text("""
INSERT INTO job_schedules AS s (name, kind, cron, next_at) VALUES (:name, :kind, :cron, :next)
ON CONFLICT (name) DO UPDATE SET kind = excluded.kind, cron = excluded.cron,
    next_at = CASE WHEN s.cron = excluded.cron THEN s.next_at ELSE excluded.next_at END
""")
_DUE = text("""
SELECT name, clock_timestamp() AS now FROM job_schedules
WHERE name = ANY(:names) AND next_at <= clock_timestamp() AND NOT paused
ORDER BY name FOR UPDATE SKIP LOCKED
""")
_FIRED = text("""
UPDATE job_schedules SET last_at = :now, next_at = :next, last_job_id = :job WHERE name = :name
""")


class Schedules:
    """Enqueues what is due. Times that passed while nobody was there are made up for once, not one by one."""

    def __init__(self, db: Database, schedules: Sequence[Schedule]) -> None:
        self._db = db
        self._schedules = {one.name: one for one in schedules}
        self._made = False
        self._checked_at = float("-inf")

    async def fire(self) -> set[str]:
        """The queues that have got a job. Raises DatabaseUnavailable."""
        now = datetime.now(UTC).timestamp()
        if not self._schedules or now - self._checked_at < CHECK_EVERY:
            return set()
        self._checked_at = now
        if not self._made:
            await self._make()
            self._made = True
        woken = set()
        async with self._db.system() as session:
            for name, moment in (await session.execute(_DUE, {"names": list(self._schedules)})).all():
                schedule = self._schedules[name]
                queued = await enqueue(
                    session, schedule.kind, schedule.payload, owner=None, key=f"schedule:{name}"
                )
                values = {"name": name, "now": moment, "next": schedule.after(moment), "job": queued.id}
                await session.execute(_FIRED, values)
                woken.add(schedule.kind.queue)
        return woken

    async def _make(self) -> None:
        now = datetime.now(UTC)
        async with self._db.system() as session:
            for one in self._schedules.values():
                values = {"name": one.name, "kind": one.kind.name, "cron": one.cron, "next": one.after(now)}
                await session.execute(_MAKE, values)
