"""`/api/v1/jobs`; for administrators `/api/v1/queues`, `/api/v1/workers`, `/api/v1/schedules`."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request

from baatcheet.auth.access import Admin, Reader, Writer
from baatcheet.jobs.schemas import (
    DeadOnes,
    Discarded,
    JobOut,
    JobPage,
    JobStatus,
    QueueChanges,
    QueueList,
    QueueOut,
    Redriven,
    ScheduleChanges,
    ScheduleList,
    ScheduleOut,
    WorkerList,
    WorkerOut,
)
from baatcheet.jobs.service import Fleet, Jobs, is_admin
from baatcheet.platform.openapi import found, problems
from baatcheet.platform.rest import LIMIT, Cursor, Id, Limit, Line, PathId, QueryFlag, changes, page_fields

router = APIRouter(prefix="/api/v1", tags=["jobs"])


def _jobs(request: Request) -> Jobs:
    service: Jobs = request.app.state.jobs
    return service


def _fleet(request: Request) -> Fleet:
    service: Fleet = request.app.state.fleet
    return service


Service = Annotated[Jobs, Depends(_jobs)]
Running = Annotated[Fleet, Depends(_fleet)]
PathName = Annotated[Line, Path(min_length=1, max_length=100, examples=["ocr"])]

_ID = {"job_id": "$response.body#/id"}
_LINKS = {"getJob": _ID, "cancelJob": _ID, "retryJob": _ID, "deleteJob": _ID}


@router.get("/jobs", summary="List jobs", responses=problems(400, 403, 422))
async def list_jobs(
    who: Reader,
    jobs: Service,
    kind: Annotated[Line | None, Query(max_length=100, examples=["ocr.extract"])] = None,
    status: JobStatus | None = None,
    queue: Annotated[Line | None, Query(max_length=100)] = None,
    subject_id: Annotated[Id | None, Query(description="What they are about.")] = None,
    everyone: Annotated[QueryFlag, Query(description="Everybody's, for administrators.")] = False,
    limit: Limit = LIMIT,
    cursor: Cursor = None,
) -> JobPage:
    """Newest first."""
    given = {"kind": kind, "status": status, "queue": queue, "subject_id": subject_id}
    filters = {name: value for name, value in given.items() if value is not None}
    rows = await jobs.list(who, everyone=everyone, filters=filters, limit=limit, cursor=cursor)
    return JobPage(**page_fields(rows, lambda row: JobOut.of(row, with_details=is_admin(who))))


@router.post("/jobs/redrive", summary="Try dead jobs again", responses=problems(403, body=True))
async def redrive_jobs(who: Admin, body: DeadOnes, jobs: Service) -> Redriven:
    """Those of everybody; at most 10,000 in one call."""
    return Redriven(redriven=await jobs.redrive(who, kind=body.kind, error=body.error))


@router.post("/jobs/discard", summary="Forget dead jobs", responses=problems(403, body=True))
async def discard_jobs(who: Admin, body: DeadOnes, jobs: Service) -> Discarded:
    """Those of everybody; at most 10,000 in one call. They can't be tried again."""
    return Discarded(discarded=await jobs.discard_dead(who, kind=body.kind, error=body.error))


@router.get("/jobs/{job_id}", summary="Get a job", responses=found("The job.", _LINKS) | problems(404))
async def get_job(who: Reader, job_id: PathId, jobs: Service) -> JobOut:
    return JobOut.of(await jobs.get(who, job_id), with_details=is_admin(who))


@router.post("/jobs/{job_id}/cancel", summary="Cancel a job", responses=problems(404, 409))
async def cancel_job(who: Writer, job_id: PathId, jobs: Service) -> JobOut:
    """What is queued ends at once; what runs is asked to stop, and ends soon after."""
    return JobOut.of(await jobs.cancel(who, job_id), with_details=is_admin(who))


@router.post("/jobs/{job_id}/retry", summary="Try a job again", responses=problems(404, 409))
async def retry_job(who: Writer, job_id: PathId, jobs: Service) -> JobOut:
    """One that is dead, cancelled or waiting is queued now, with all its attempts before it."""
    return JobOut.of(await jobs.retry(who, job_id), with_details=is_admin(who))


@router.delete("/jobs/{job_id}", summary="Forget a job", status_code=204, responses=problems(404, 409))
async def delete_job(who: Writer, job_id: PathId, jobs: Service) -> None:
    """One that has ended. What it has made stays."""
    await jobs.discard(who, job_id)


@router.get("/queues", summary="List queues", responses=problems(403))
async def list_queues(who: Admin, fleet: Running) -> QueueList:
    return QueueList(data=[QueueOut.model_validate(row) for row in await fleet.queues(who)])


@router.patch("/queues/{name}", summary="Pause or limit a queue", responses=problems(403, 404, body=True))
async def update_queue(who: Admin, name: PathName, body: QueueChanges, fleet: Running) -> QueueOut:
    """What runs goes on; nothing more begins while it is paused."""
    return QueueOut.model_validate(await fleet.change_queue(who, name, changes(body)))


@router.get("/workers", summary="List workers", responses=problems(403))
async def list_workers(who: Admin, fleet: Running) -> WorkerList:
    return WorkerList(data=[WorkerOut.model_validate(row) for row in await fleet.workers(who)])


@router.get("/schedules", summary="List schedules", responses=problems(403))
async def list_schedules(who: Admin, fleet: Running) -> ScheduleList:
    return ScheduleList(data=[ScheduleOut.model_validate(row) for row in await fleet.schedules(who)])


@router.patch("/schedules/{name}", summary="Pause a schedule", responses=problems(403, 404, body=True))
async def update_schedule(who: Admin, name: PathName, body: ScheduleChanges, fleet: Running) -> ScheduleOut:
    return ScheduleOut.model_validate(await fleet.pause_schedule(who, name, paused=body.paused))
