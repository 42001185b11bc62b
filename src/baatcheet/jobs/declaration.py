"""Saying what a job does, how often it is tried, and what its handler is given.

    @job("ocr.extract", queue="ocr", seconds=600)
    async def extract(job: Job[Extraction], parts: AttachmentParts) -> None:
        "The attachment has its text. Run twice, it writes the same text again."

A handler may be killed at any line and run again from its beginning: what it leaves behind must be seen once.
Writing in `Job.finish` does that for the database, since the job's end and its effect are one transaction.
"""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar, get_args, get_origin, get_type_hints
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

ATTEMPTS = 3
SECONDS = 300.0  # that one attempt may take

Payload = TypeVar(
    "Payload"
)  # a msgspec.Struct or a dataclass, small, without secrets or the content of files
Parts = TypeVar("Parts")
Result = Mapping[str, Any] | None


class GiveUp(Exception):
    """The job can't succeed, however often it is tried. `str(error)` tells its owner why, in plain words."""


class TryAgain(Exception):
    """The job failed for a reason that may pass. `str(error)` tells its owner which, in plain words.

    `after`: seconds to wait, where the one who refused said so; None: as the kind's schedule says.
    """

    def __init__(self, words: str, *, after: float | None = None) -> None:
        super().__init__(words)
        self.after = after


class LeaseLost(Exception):
    """This run of the job counts no more: it was cancelled, or taken for dead and given to somebody else."""


@dataclass(frozen=True, slots=True)
class DeadJob:
    """A job that has ended without success. `error`: why, in plain words for its owner.

    Without its payload, which may be the very thing that can't be read.
    """

    id: UUID
    owner: UUID | None
    subject: UUID | None
    error: str
    cancelled: bool

    @property
    def concerns(self) -> tuple[UUID, UUID]:
        """Its owner and its subject, of a kind that has both."""
        assert self.owner is not None
        assert self.subject is not None
        return self.owner, self.subject


class Line(Protocol):
    """How a running job speaks to its worker."""

    async def report(self, percent: int, phrase: str | None) -> None: ...

    def finishing(self, result: Mapping[str, Any] | None) -> AbstractAsyncContextManager[AsyncSession]: ...


@dataclass(slots=True)
class Job(Generic[Payload]):
    """One run of a job, as its handler sees it."""

    id: UUID
    owner: UUID | None
    payload: Payload
    attempt: int  # from 1
    last_attempt: bool
    subject: UUID | None
    line: Line

    async def progress(self, percent: float, phrase: str | None = None) -> None:
        """Tell the owner how far it is, 0 to 100, and what is being done. Cheap: written once a second at most.

        A cancelled job ends here, or at whatever else it is waiting for.
        """
        await self.line.report(max(0, min(100, round(percent))), phrase)

    def finish(self, result: Mapping[str, Any] | None = None) -> AbstractAsyncContextManager[AsyncSession]:
        """The transaction that ends this job with success and writes its effect: both or neither.

        It sees every row: name the owner in what you write. Raises LeaseLost when this run counts no more.
        """
        return self.line.finishing(result)


Handler = Callable[[Job[Payload], Parts], Awaitable[Result]]
OnDead = Callable[[DeadJob, AsyncSession, Parts], Awaitable[None]]


@dataclass(frozen=True)
class JobKind(Generic[Payload, Parts]):
    """A kind of job: what `enqueue` is given, and what a worker runs once it is bound to its parts.

    `attempts` are made with exponential pauses from two seconds; then, where there are `later` pauses (seconds), one
    after each of these.
    """

    name: str
    queue: str
    payload: type[Payload]
    handler: Handler[Payload, Parts]
    attempts: int = ATTEMPTS
    later: tuple[float, ...] = ()
    seconds: float = SECONDS
    lane_limit: int = 1_000_000  # how many of one lane may run at once
    visible: bool = True  # whether its owner sees it among their jobs
    link: str | None = None  # where what it makes is to be had: a path with {subject}
    on_dead: OnDead[Parts] | None = None

    @property
    def promise(self) -> str:
        return inspect.getdoc(self.handler) or ""

    @property
    def max_attempts(self) -> int:
        return self.attempts + len(self.later)

    def bind(self, parts: Parts, *, later: tuple[float, ...] | None = None) -> "BoundKind":
        """This kind with what its handler needs; `later` in place of the declared pauses."""
        return BoundKind(self if later is None else replace(self, later=later), parts)


@dataclass(frozen=True)
class BoundKind:
    """A kind that a worker can run."""

    kind: JobKind[Any, Any]
    parts: Any


_LINKS: dict[str, str | None] = {}  # by kind, of those that are declared in this process


def link_of(kind: str, subject: UUID | None) -> str | None:
    """Where what a job of this kind has made is to be had; None when nothing is."""
    link = _LINKS.get(kind)
    return link.format(subject=subject) if link is not None and subject is not None else None


def job(
    name: str,
    *,
    queue: str,
    attempts: int = ATTEMPTS,
    later: tuple[float, ...] = (),
    seconds: float = SECONDS,
    lane_limit: int = 1_000_000,
    visible: bool = True,
    link: str | None = None,
    on_dead: OnDead[Any] | None = None,
) -> Callable[[Handler[Payload, Parts]], JobKind[Payload, Parts]]:
    """Declare a handler. Its docstring states the promise; the annotation of its first parameter, the payload."""

    def declare(handler: Handler[Payload, Parts]) -> JobKind[Payload, Parts]:
        if not inspect.getdoc(handler):
            raise TypeError(f"the job {name} states no promise: give its handler a docstring")
        made = JobKind(
            name,
            queue,
            _payload_of(handler),
            handler,
            attempts=attempts,
            later=later,
            seconds=seconds,
            lane_limit=lane_limit,
            visible=visible,
            link=link,
            on_dead=on_dead,
        )
        _LINKS[name] = link
        return made

    return declare


def _payload_of(handler: Callable[..., Any]) -> Any:
    first = next(iter(inspect.signature(handler).parameters))
    annotation = get_type_hints(handler)[first]
    if get_origin(annotation) is not Job:
        raise TypeError(
            f"the first parameter of {handler.__name__} must be a Job[…], which names its payload"
        )
    return get_args(annotation)[0]
