"""Jobs as clients see them."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import ConfigDict, Field

from baatcheet.jobs.declaration import link_of
from baatcheet.jobs.models import JobRow
from baatcheet.platform.rest import Body, Flag, Out, Page, Text, absent

JobStatus = Literal["queued", "waiting", "running", "succeeded", "dead", "cancelled"]


class AttemptOut(Out):
    """An attempt that failed."""

    attempt: int
    at: datetime
    error: str
    detail: str | None = Field(None, description="What exactly went wrong; administrators only.")


class JobOut(Out):
    """Work that is done in the background."""

    id: UUID
    kind: str = Field(examples=["ocr.extract"])
    queue: str
    status: JobStatus = Field(
        description="`waiting`: for its time, or for another attempt. `dead`: it failed for good, and is kept."
    )
    progress: int = Field(ge=0, le=100)
    phrase: str | None = Field(description="What is being done now.", examples=["Page 3 of 10"])
    attempts: int
    max_attempts: int
    error: str | None = Field(description="Why the last attempt failed.")
    failures: list[AttemptOut]
    subject_id: UUID | None = Field(description="What it is about: an attachment, an export …")
    user_id: UUID | None
    result: dict[str, Any] | None
    link: str | None = Field(
        description="Where what it has made is to be had, once it has succeeded.",
        examples=["/api/v1/attachments/0190f3a2-7c1e-7d4b-9a51-3f0c2b8e6d10"],
    )
    created_at: datetime
    due_at: datetime
    started_at: datetime | None
    ended_at: datetime | None

    @classmethod
    def of(cls, row: JobRow, *, with_details: bool = False) -> "JobOut":
        """`with_details`: for an administrator."""
        failures = [
            AttemptOut(
                attempt=one["attempt"],
                at=datetime.fromisoformat(one["at"]),
                error=one["error"],
                detail=one.get("detail") if with_details else None,
            )
            for one in row.failures
        ]
        fields = {name: getattr(row, name) for name in cls.model_fields if name not in {"failures", "link"}}
        link = link_of(row.kind, row.subject_id) if row.status == "succeeded" else None
        return cls(**fields, failures=failures, link=link)


class JobPage(Page[JobOut]):
    """Jobs, newest first."""


class DeadOnes(Body):
    """Which dead jobs are meant; nothing said: all."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"kind": "webhook.deliver"}]})

    kind: Annotated[Text, Field(min_length=1, max_length=100)] | None = None
    error: Annotated[Text, Field(min_length=1, max_length=200)] | None = Field(
        None, description="A part of their error."
    )


class Redriven(Out):
    """How many jobs were queued once more."""

    redriven: int


class Discarded(Out):
    """How many jobs were forgotten."""

    discarded: int


class QueueOut(Out):
    """A queue, with the rates of the last five minutes."""

    name: str
    paused: bool
    max_running: int | None = Field(
        description="How many of its jobs may run at once in the whole deployment."
    )
    per_minute: int | None = Field(description="How many of its jobs may begin in a minute.")
    queued: int
    waiting: int
    running: int
    dead: int
    oldest: float | None = Field(description="Seconds that the oldest queued job has waited.")
    succeeded_per_minute: float
    failed_per_minute: float
    seconds: float | None = Field(description="That half of its jobs take.")
    latency: float | None = Field(description="Seconds within which half of its jobs begin.")


class QueueList(Out):
    """Every queue."""

    data: list[QueueOut]


class QueueChanges(Body):
    """What to change of a queue; null lifts a limit."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"paused": True}]})

    paused: Flag = absent()
    max_running: Annotated[int, Field(gt=0, le=100_000)] | None = absent()
    per_minute: Annotated[int, Field(gt=0, le=10_000_000)] | None = absent()


class WorkerOut(Out):
    """A process that runs jobs."""

    id: UUID
    host: str
    pid: int
    queues: dict[str, int] = Field(description="How many jobs of each queue it runs at once.")
    running: int
    stopping: bool
    started_at: datetime
    seen_at: datetime
    alive: bool


class WorkerList(Out):
    """The workers of the last minutes."""

    data: list[WorkerOut]


class ScheduleOut(Out):
    """A job that comes by the clock."""

    name: str
    kind: str
    cron: str = Field(description="Five fields, in UTC.")
    paused: bool
    next_at: datetime
    last_at: datetime | None
    last_job_id: UUID | None


class ScheduleList(Out):
    """Every schedule."""

    data: list[ScheduleOut]


class ScheduleChanges(Body):
    """What to change of a schedule."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"paused": True}]})

    paused: Flag
