"""`/console/jobs`."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from baatcheet.console.frame import LIVE, Form, Here, RoomRoute
from baatcheet.console.jobs.views import WORDS, JobViews, Wanted
from baatcheet.console.pages import done, leave_for, page, part, tag_of
from baatcheet.jobs.errors import QueueNotFound, ScheduleNotFound
from baatcheet.jobs.models import STATUSES
from baatcheet.jobs.service import Fleet, Jobs, is_admin
from baatcheet.kit.pagination import MAX_CURSOR
from baatcheet.kit.text import storable
from baatcheet.platform.errors import Invalid, NotFound
from baatcheet.platform.rest import Line, PathId

PATH = "/console/jobs"
router = APIRouter(prefix=PATH, route_class=RoomRoute)


def _views(request: Request) -> JobViews:
    views: JobViews = request.app.state.console_jobs
    return views


def _jobs(request: Request) -> Jobs:
    jobs: Jobs = request.app.state.jobs
    return jobs


def _fleet(request: Request) -> Fleet:
    fleet: Fleet = request.app.state.fleet
    return fleet


Views = Annotated[JobViews, Depends(_views)]
Service = Annotated[Jobs, Depends(_jobs)]
Running = Annotated[Fleet, Depends(_fleet)]
Word = Annotated[str, Query(max_length=100)]


@router.get("")
async def show_jobs(
    request: Request,
    here: Here,
    views: Views,
    status: Word = "",
    kind: Word = "",
    queue: Word = "",
    whose: Word = "",
    cursor: Annotated[str, Query(max_length=MAX_CURSOR)] = "",
) -> Response:
    here.who.require("read")
    admin = is_admin(here.who)
    wanted = Wanted(
        everyone=admin and whose != "mine",
        mine=admin and whose == "mine",
        status=status if status in STATUSES else None,
        kind=storable(kind.strip()) or None,
        queue=storable(queue.strip()) or None,
        cursor=cursor or None,
    )
    live = await views.listing(here.who, wanted)
    if LIVE in request.headers:
        return part(request, live)
    return page(
        request,
        "jobs/list.html",
        live=live,
        tag=tag_of(live),
        wanted=wanted,
        statuses=STATUSES,
        words=WORDS,
        admin=admin,
    )


@router.get("/redrive")
async def ask_to_redrive(request: Request, here: Here, views: Views, kind: Word = "") -> Response:
    overview = await views.overview(here.who)
    return page(
        request,
        "jobs/redrive.html",
        title="Dead jobs",
        action=f"{PATH}/redrive",
        back=f"{PATH}?status=dead",
        dead=overview.counts()["dead"],
        kind=kind,
    )


@router.post("/redrive")
async def redrive(request: Request, here: Here, form: Form, views: Views, jobs: Service) -> Response:
    here.who.require("admin")
    kind, error = form.get("kind") or None, form.get("error") or None
    match form.get("do"):
        case "discard" if kind is None and error is None:
            raise Invalid(
                "Say which to forget: those of a kind, or those whose error contains some words.",
                param="kind",
            )
        case "discard":
            many, word = await jobs.discard_dead(here.who, kind=kind, error=error), "discarded"
        case "retry":
            many, word = await jobs.redrive(here.who, kind=kind, error=error), "redriven"
        case _:
            raise Invalid("The form does not say what to do.")
    views.forget()
    return done(request, word, PATH, number=many)


@router.get("/queues/{name}")
async def ask_of_queue(request: Request, here: Here, fleet: Running, name: Line) -> Response:
    queue = next((one for one in await fleet.queues(here.who) if one.name == name), None)
    if queue is None:
        raise QueueNotFound(name)
    return page(
        request,
        "jobs/queue.html",
        title=f"The queue {name}",
        action=request.url.path,
        back=PATH,
        queue=queue,
    )


@router.post("/queues/{name}")
async def change_queue(
    request: Request, here: Here, form: Form, views: Views, fleet: Running, name: Line
) -> Response:
    match form.get("do"):
        case "pause" | "resume" as verb:
            await fleet.change_queue(here.who, name, {"paused": verb == "pause"})
            word = f"{verb}d"
        case "limit":
            limits = {
                "max_running": _number(form, "max_running", 100_000),
                "per_minute": _number(form, "per_minute", 10_000_000),
            }
            await fleet.change_queue(here.who, name, limits)
            word = "limited"
        case _:
            raise Invalid("The form does not say what to do.")
    views.forget()
    return done(request, word, PATH)


def _number(form: dict[str, str], field: str, most: int) -> int | None:
    """A limit; None: there is none. Raises Invalid."""
    text = form.get(field, "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10 and 0 < int(text) <= most):
        raise Invalid(f"A limit is a whole number from 1 to {most:,}, or nothing for no limit.", param=field)
    return int(text)


@router.get("/schedules/{name}")
async def ask_of_schedule(request: Request, here: Here, fleet: Running, name: Line) -> Response:
    schedule = next((one for one in await fleet.schedules(here.who) if one.name == name), None)
    if schedule is None:
        raise ScheduleNotFound(name)
    return page(
        request,
        "jobs/schedule.html",
        title=f"{'Resume' if schedule.paused else 'Pause'} the schedule “{name}”?",
        action=request.url.path,
        back=PATH,
        schedule=schedule,
    )


@router.post("/schedules/{name}")
async def change_schedule(
    request: Request, here: Here, form: Form, views: Views, fleet: Running, name: Line
) -> Response:
    verb = form.get("do")
    if verb not in {"pause", "resume"}:
        raise Invalid("The form does not say what to do.")
    await fleet.pause_schedule(here.who, name, paused=verb == "pause")
    views.forget()
    return done(request, f"schedule-{verb}d", PATH)


@router.get("/about/{subject_id}")
async def find_job(here: Here, jobs: Service, subject_id: PathId) -> Response:
    """The page of the newest job that concerns something: where an email leads."""
    here.who.require("read")
    row = await jobs.newest_about(here.who, subject_id)
    if row is None:
        raise NotFound("There is no job of yours about this. It may have been forgotten.")
    return leave_for(f"{PATH}/{row.id}")


@router.get("/{job_id}")
async def show_job(request: Request, here: Here, views: Views, job_id: PathId) -> Response:
    here.who.require("read")
    kind, live = await views.job(here.who, job_id)
    if LIVE in request.headers:
        return part(request, live)
    return page(request, "jobs/job.html", live=live, tag=tag_of(live), kind=kind)


@router.get("/{job_id}/result")
async def open_result(here: Here, views: Views, job_id: PathId) -> Response:
    here.who.require("read")
    return leave_for(await views.result(here.who, job_id))


@router.get("/{job_id}/cancel")
async def ask_to_cancel(request: Request, here: Here, views: Views, job_id: PathId) -> Response:
    return await _ask(request, here, views, job_id, "cancel", "Cancel this job?")


@router.post("/{job_id}/cancel")
async def cancel(request: Request, here: Here, views: Views, jobs: Service, job_id: PathId) -> Response:
    here.who.require("write")
    row = await jobs.cancel(here.who, job_id)
    views.forget()
    return done(request, "cancelling" if row.status == "running" else "cancelled", f"{PATH}/{job_id}")


@router.get("/{job_id}/retry")
async def ask_to_retry(request: Request, here: Here, views: Views, job_id: PathId) -> Response:
    return await _ask(request, here, views, job_id, "retry", "Try this job again?")


@router.post("/{job_id}/retry")
async def retry(request: Request, here: Here, views: Views, jobs: Service, job_id: PathId) -> Response:
    here.who.require("write")
    await jobs.retry(here.who, job_id)
    views.forget()
    return done(request, "retried", f"{PATH}/{job_id}")


@router.get("/{job_id}/discard")
async def ask_to_discard(request: Request, here: Here, views: Views, job_id: PathId) -> Response:
    return await _ask(request, here, views, job_id, "discard", "Forget this job?")


@router.post("/{job_id}/discard")
async def discard(request: Request, here: Here, views: Views, jobs: Service, job_id: PathId) -> Response:
    here.who.require("write")
    await jobs.discard(here.who, job_id)
    views.forget()
    return done(request, "forgotten", PATH, leaves=True)


async def _ask(
    request: Request, here: Here, views: JobViews, job_id: UUID, verb: str, title: str
) -> Response:
    here.who.require("write")
    job = await views.line(here.who, job_id)
    return page(
        request,
        f"jobs/{verb}.html",
        title=title,
        action=f"{PATH}/{job_id}/{verb}",
        back=f"{PATH}/{job_id}",
        job=job,
    )
