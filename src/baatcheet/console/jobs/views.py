"""What the jobs' pages show, made once for all who look at the same at the same time."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, Final
from uuid import UUID

from markupsafe import Markup

from baatcheet.auth.principal import Principal
from baatcheet.auth.service import Users
from baatcheet.console.jobs.results import Opener, Openers
from baatcheet.console.pages import render
from baatcheet.console.sharing import Shared
from baatcheet.events.of_job import JobEvent, of_job
from baatcheet.jobs.declaration import link_of
from baatcheet.jobs.models import ENDED_BADLY, STATUSES, JobRow
from baatcheet.jobs.repository import QueueRow, ScheduleRow, WorkerRow
from baatcheet.jobs.service import Fleet, Jobs, is_admin
from baatcheet.kit.text import headline
from baatcheet.platform.database import Database
from baatcheet.platform.errors import NotFound
from baatcheet.platform.redaction import redact

FRESH: Final = 0.75  # seconds that a view is believed: with a look a second, a change is seen within two
PAGE: Final = 25
LONGEST_LINE: Final = 160  # characters of an error in a list

WORDS: Final = {
    "queued": "Queued",
    "waiting": "Waiting",
    "running": "Running",
    "succeeded": "Succeeded",
    "dead": "Dead",
    "cancelled": "Cancelled",
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which jobs a list is asked for. `mine`: an administrator wants to see none but theirs."""

    everyone: bool = False
    mine: bool = False
    status: str | None = None
    kind: str | None = None
    queue: str | None = None
    cursor: str | None = None

    def filters(self) -> dict[str, str]:
        given = {"status": self.status, "kind": self.kind, "queue": self.queue}
        return {name: value for name, value in given.items() if value is not None}

    def fields(self, **changed: Any) -> dict[str, Any]:
        """What its address carries, with some of it changed; without the place in the list."""
        return {"whose": "mine" if self.mine else None} | self.filters() | changed


@dataclass(frozen=True, slots=True)
class Line:
    """A job in a list."""

    id: UUID
    kind: str
    queue: str
    status: str
    stopping: bool
    progress: int
    phrase: str | None
    attempts: int
    max_attempts: int
    error: str | None
    owner: str | None
    since: datetime
    begun: datetime | None
    ended: datetime | None
    may_cancel: bool
    may_retry: bool
    may_discard: bool

    @property
    def state(self) -> str:
        return "Stopping" if self.stopping else WORDS[self.status]

    @property
    def takes(self) -> float | None:
        """Seconds that its last attempt took."""
        if self.begun is None or self.ended is None:
            return None
        return max(0.0, (self.ended - self.begun).total_seconds())


@dataclass(frozen=True, slots=True)
class Overview:
    """How the fleet stands. `at`: when it stood so."""

    queues: Sequence[QueueRow]
    workers: Sequence[WorkerRow]
    schedules: Sequence[ScheduleRow]
    at: datetime

    def counts(self) -> dict[str, int]:
        names = ("queued", "waiting", "running", "dead")
        return {name: sum(getattr(queue, name) for queue in self.queues) for name in names}

    def oldest(self, queue: QueueRow) -> datetime | None:
        """Since when the first of a queue has waited, to the second."""
        if queue.oldest is None:
            return None
        return (self.at - timedelta(seconds=queue.oldest)).replace(microsecond=0)

    @property
    def alive(self) -> int:
        return sum(worker.alive for worker in self.workers)


class JobViews:
    """The fragments of the jobs' pages. Methods raise what the services below raise."""

    def __init__(
        self, db: Database, jobs: Jobs, fleet: Fleet, users: Users, openers: Openers = MappingProxyType({})
    ) -> None:
        self._db = db
        self._jobs = jobs
        self._fleet = fleet
        self._users = users
        self._openers = openers
        # Counting is dear where there is much to count, and is to take a small share of the database only.
        self._overviews: Shared[None, Overview] = Shared(FRESH, patience=10)
        self._lists: Shared[tuple[object, ...], Markup] = Shared(FRESH, patience=2)
        self._pages: Shared[tuple[object, ...], tuple[str, Markup]] = Shared(FRESH, patience=2)

    def forget(self) -> None:
        """Something was changed here: show it at once."""
        for one in (self._overviews, self._lists, self._pages):
            one.forget()

    async def overview(self, who: Principal) -> Overview:
        who.require("admin")

        async def make() -> Overview:
            # Their times are the database's, and `oldest` is counted from when it was asked.
            at = datetime.now(UTC)
            return Overview(
                await self._fleet.queues(who),
                await self._fleet.workers(who),
                await self._fleet.schedules(who),
                at,
            )

        return await self._overviews.get(None, make)

    async def listing(self, who: Principal, wanted: Wanted) -> Markup:
        """What changes on the page of all jobs. Raises Forbidden, BadCursor."""
        owner = None if wanted.everyone else who.user_id
        admin, writer = is_admin(who), "write" in who.scopes

        async def make() -> Markup:
            found = await self._jobs.list(
                who,
                everyone=wanted.everyone,
                filters=wanted.filters(),
                limit=PAGE,
                cursor=wanted.cursor,
            )
            counts = overview.counts() if wanted.everyone and overview else await self._jobs.counts(who)
            owners = await self._owners(found.rows) if wanted.everyone else {}
            return render(
                "jobs/list_live.html",
                wanted=wanted,
                lines=[_line(row, owners, writer=writer) for row in found.rows],
                next_cursor=found.next_cursor,
                overview=overview,
                counts=counts,
                statuses=STATUSES,
                words=WORDS,
                admin=admin,
            )

        if wanted.everyone:
            who.require("admin")
        # Before, and not inside: it may take longer than the list, which is to be as fresh as it can.
        overview = await self.overview(who) if admin else None
        return await self._lists.get((owner, admin, writer, wanted), make)

    async def job(self, who: Principal, job_id: UUID) -> tuple[str, Markup]:
        """A job's kind, and what changes on its page. Raises JobNotFound."""
        admin, writer = is_admin(who), "write" in who.scopes

        async def make() -> tuple[str, Markup]:
            row = await self._jobs.get(who, job_id)
            owners = await self._owners([row]) if admin else {}
            live = render(
                "jobs/job_live.html",
                job=_line(row, owners, writer=writer, whole=True),
                row=row,
                admin=admin,
                attempts=[_attempt(one, with_details=admin) for one in reversed(row.failures)],
                payload=_shown(row.payload) if admin else None,
                result=_shown(row.result) if row.result is not None else None,
                events=await self._events(row),
                link=link_of(row.kind, row.subject_id) if row.status == "succeeded" else None,
                opens=self._opener(who, row) is not None,
                words=WORDS,
            )
            return row.kind, live

        return await self._pages.get((who.user_id, admin, writer, job_id), make)

    async def result(self, who: Principal, job_id: UUID) -> str:
        """The address of what a job has made. Raises JobNotFound, NotFound when it is not to be had here."""
        row = await self._jobs.get(who, job_id)
        opener = self._opener(who, row)
        if opener is None:
            raise NotFound("This job has made nothing that can be opened here.")
        return await opener(who, row.result or {})

    def _opener(self, who: Principal, row: JobRow) -> Opener | None:
        mine = row.user_id == who.user_id and row.status == "succeeded" and row.result is not None
        return self._openers.get(row.kind) if mine else None

    async def _events(self, row: JobRow) -> list[JobEvent]:
        if row.user_id is None or not row.visible:
            return []
        # What happens last is told a moment after it has.
        until = (row.ended_at or datetime.now(UTC)) + timedelta(minutes=1)
        return await of_job(self._db, row.user_id, row.id, row.created_at - timedelta(minutes=1), until)

    async def line(self, who: Principal, job_id: UUID) -> Line:
        """A job as a list shows it. Raises JobNotFound."""
        return _line(await self._jobs.get(who, job_id), {}, writer="write" in who.scopes)

    async def _owners(self, rows: Sequence[JobRow]) -> dict[UUID, str]:
        return await self._users.names({row.user_id for row in rows if row.user_id is not None})


def _line(row: JobRow, owners: dict[UUID, str], *, writer: bool, whole: bool = False) -> Line:
    unfinished = row.status in {"queued", "waiting", "running"}
    match row.status:
        case "queued":
            since = max(row.due_at, row.created_at)
        case "waiting":
            since = row.due_at
        case "running":
            since = row.started_at or row.created_at
        case _:
            since = row.ended_at or row.created_at
    error = row.error if row.status != "succeeded" else None
    if error is not None:
        error = redact(error if whole else headline(error, LONGEST_LINE))
    return Line(
        id=row.id,
        kind=row.kind,
        queue=row.queue,
        status=row.status,
        stopping=row.status == "running" and row.cancel_requested,
        progress=row.progress,
        phrase=redact(row.phrase) if row.phrase is not None else None,
        attempts=row.attempts,
        max_attempts=row.max_attempts,
        error=error,
        owner=owners.get(row.user_id) if row.user_id is not None else None,
        since=since,
        begun=row.started_at,
        ended=row.ended_at,
        may_cancel=writer and unfinished and not row.cancel_requested,
        may_retry=writer and row.status in {"dead", "cancelled", "waiting"},
        may_discard=writer and row.status in ENDED_BADLY,
    )


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt that failed."""

    number: int
    at: datetime
    error: str
    detail: str | None


def _attempt(entry: dict[str, Any], *, with_details: bool) -> Attempt:
    detail = entry.get("detail") if with_details else None
    return Attempt(
        entry["attempt"],
        datetime.fromisoformat(entry["at"]),
        redact(entry["error"]),
        redact(detail) if detail is not None else None,
    )


def _shown(value: Any) -> str:
    """JSON for people, without what looks like a secret."""
    return redact(json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True))
