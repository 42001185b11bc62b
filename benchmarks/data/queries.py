"""Every query that an endpoint or a turn asks, for each sort of user, in a database of so many messages."""

import math
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from baatcheet.chat.models import Turn
from baatcheet.chat.store import TurnStore
from baatcheet.context.history import Bounds
from baatcheet.context.store import ContextStore
from baatcheet.conversations import repository as conversations
from baatcheet.conversations.models import Conversation
from baatcheet.entrypoints.api import calm_collector
from baatcheet.events.models import EventRow
from baatcheet.jobs import repository as jobs
from baatcheet.kit.ids import new_id
from baatcheet.notifications import repository as notifications
from baatcheet.platform.database import Database
from baatcheet.projects import repository as projects
from baatcheet.webhooks import repository as webhooks
from benchmarks.data.seeding import SeededUser, SeededUsers
from benchmarks.report import Report, progress

P99: Final = 10.0  # ms, at most, at every size
PAGE: Final = 50
SMALLEST: Final = 10_000  # growth is measured from here
_LEEWAY: Final = 0.5  # ms: below that a quotient of two times is noise

Ask = Callable[[], Awaitable[Any]]


@dataclass(frozen=True)
class Times:
    """Milliseconds of one query at one size, over all users."""

    median: float
    p99: float
    slowest: str  # whose p99 that is


@dataclass(frozen=True)
class _Subject:
    """A user, and where in their things to look."""

    user: SeededUser
    newest: Any  # the conversation changed last
    middle: Any  # … and one in the middle of the list
    old_message: Any  # one in the middle of the longest conversation
    head: UUID  # the longest conversation's
    webhook: UUID
    turn: UUID


class Queries:
    """The queries of one seeded database."""

    def __init__(self, db: Database, seeded: SeededUsers) -> None:
        self._db = db
        self._seeded = seeded
        self._turns = TurnStore(db, _no_connection)
        self._context = ContextStore(db)

    async def measure(self, times: int) -> Mapping[str, Times]:
        """Each query `times` times for each user; what is slow once for having been read from the disk counts too."""
        calm_collector()  # as the server does
        medians: dict[str, list[float]] = {}
        tails: dict[str, dict[str, float]] = {}
        for size, user in self._seeded.by_size().items():
            subject = await self._subject(user)
            for name, ask in self._of(subject):
                await ask()
                taken = []
                for _ in range(times):
                    began = time.perf_counter()
                    await ask()
                    taken.append((time.perf_counter() - began) * 1000)
                medians.setdefault(name, []).append(statistics.median(taken))
                tails.setdefault(name, {})[size] = _p99(taken)
        await self._turns.close_lanes()
        return {
            name: Times(max(medians[name]), max(of.values()), max(of, key=lambda size: of[size]))
            for name, of in tails.items()
        }

    async def _subject(self, user: SeededUser) -> _Subject:
        async with self._db.tenant(user.id) as session:
            newest = select(Conversation).order_by(Conversation.updated_at.desc(), Conversation.id.desc())
            rows = (await session.scalars(newest.where(Conversation.user_id == user.id).limit(2_000))).all()
            longest = await conversations.conversation(session, user.id, user.longest)
            assert longest is not None
            assert longest.head_id is not None
            said, _ = await conversations.all_messages(
                session, user.id, user.longest, "asc", None, max(1, min(200, longest.message_count // 2))
            )
            hooks = await webhooks.webhooks_after(session, user.id, None, 1)
            turn = await session.scalar(select(Turn.id).where(Turn.user_id == user.id).limit(1))
        assert turn is not None
        return _Subject(user, rows[0], rows[len(rows) // 2], said[-1], longest.head_id, hooks[0].id, turn)

    def _of(self, at: _Subject) -> Iterator[tuple[str, Ask]]:
        """The queries by name. Those of a page ask for the first one and for one in the middle of the list."""
        me, talk = at.user.id, at.user.longest
        middle = (at.middle.updated_at, at.middle.id)
        said = (at.old_message.created_at, at.old_message.id)

        def listed(filters: Mapping[str, Any], last: Any = None) -> Ask:
            return self._tenant(
                me, lambda session: conversations.conversations_after(session, me, last, PAGE, filters)
            )

        yield "conversations", listed({})
        yield "conversations.deep", listed({}, middle)
        yield "conversations.of_project", listed({"project_id": at.user.projects[0]})
        yield "conversations.archived", listed({"archived": True})
        yield "conversations.unarchived", listed({"archived": False}, middle)
        yield (
            "conversation",
            self._tenant(me, lambda session: conversations.conversation(session, me, at.middle.id)),
        )
        yield "projects", self._tenant(me, lambda session: projects.after(session, me, None, PAGE))
        yield (
            "messages.newest",
            self._tenant(
                me, lambda session: conversations.all_messages(session, me, talk, "desc", None, PAGE)
            ),
        )
        yield (
            "messages.deep",
            self._tenant(
                me, lambda session: conversations.all_messages(session, me, talk, "asc", said, PAGE)
            ),
        )
        yield (
            "messages.branch",
            self._tenant(
                me, lambda session: conversations.branch(session, me, talk, "desc", at.head, None, PAGE)
            ),
        )
        yield (
            "message",
            self._tenant(me, lambda session: conversations.message(session, me, at.old_message.id)),
        )
        yield (
            "message.siblings",
            self._tenant(me, lambda session: conversations.siblings(session, at.old_message)),
        )
        yield "turns", self._tenant(me, lambda session: _turns(session, me))
        yield "turns.of_conversation", self._tenant(me, lambda session: _turns(session, me, talk))
        yield "turn", lambda: self._turns.row(me, at.turn)
        bounds = Bounds.within(8_000, 200)
        yield "turn.context", lambda: self._context.standing(me, talk, bounds=bounds)
        yield "turn.sizes", lambda: self._context.sizes(me, talk, at.head, 0, 99)
        yield "turn.key", lambda: self._turns.by_key(me, "absent")
        yield "turn.orphans", lambda: self._turns.orphans(new_id(), [], 30.0)
        yield (
            "notifications",
            self._tenant(
                me, lambda session: notifications.after(session, me, None, PAGE, unread=False, kind=None)
            ),
        )
        yield (
            "notifications.unread",
            self._tenant(me, lambda session: notifications.count_unread(session, [me])),
        )
        yield "events", self._tenant(me, lambda session: _events(session, me))
        yield "jobs", self._tenant(me, lambda session: jobs.after(session, me, None, PAGE, {}))
        yield "webhooks", self._tenant(me, lambda session: webhooks.webhooks_after(session, me, None, PAGE))
        for name, status in (("deliveries", None), ("deliveries.failed", "failed")):
            yield name, self._deliveries(me, at.webhook, status)

    def _deliveries(self, me: UUID, webhook: UUID, status: str | None) -> Ask:
        return self._tenant(
            me,
            lambda session: webhooks.deliveries_after(
                session, me, webhook, None, PAGE, status=status, event=None
            ),
        )

    def _tenant(self, user: UUID, query: Callable[[AsyncSession], Awaitable[Any]]) -> Ask:
        """As an endpoint asks it: a transaction of the user's, the rows as objects."""

        async def ask() -> Any:
            async with self._db.tenant(user) as session:
                return await query(session)

        return ask


async def _turns(session: AsyncSession, user: UUID, conversation: UUID | None = None) -> Any:
    query = select(Turn).where(Turn.user_id == user).order_by(Turn.id.desc()).limit(PAGE)
    if conversation is not None:
        query = query.where(Turn.conversation_id == conversation)
    return (await session.scalars(query)).all()


async def _events(session: AsyncSession, user: UUID) -> Any:
    query = select(EventRow).where(EventRow.user_id == user).order_by(EventRow.seq.desc()).limit(PAGE)
    return (await session.scalars(query)).all()


async def _no_connection() -> Any:
    raise AssertionError("nothing here renews a lease")


def tell(report: Report, sizes: Mapping[int, Mapping[str, Times]]) -> None:
    """Add the figures of all sizes: each query at the largest, the slowest of each, and how they have grown."""
    if not sizes:
        return
    largest, smallest = max(sizes), min(sizes)
    for size in sorted(sizes):
        slowest = max(sizes[size], key=lambda name: sizes[size][name].p99)
        worst = sizes[size][slowest]
        report.add(f"queries.{label(size)}.slowest", worst.p99, "ms p99", better="lower", target=P99)
        report.note(f"{label(size)}: the slowest is {slowest}, of the {worst.slowest} user.")
    for name, taken in sizes[largest].items():
        report.add(f"query.{name}", taken.p99, f"ms p99, {label(largest)}", better="lower", target=P99)
    if largest > smallest:
        # Logarithmic: a tree of N rows is log N deep, so what grows like that grows by no more than this.
        allowed = math.log(largest) / math.log(smallest)
        grown = {
            name: (sizes[largest][name].median - _LEEWAY) / max(_LEEWAY, sizes[smallest][name].median)
            for name in sizes[largest]
        }
        worst_name = max(grown, key=lambda name: grown[name])
        report.add(
            "queries.growth",
            grown[worst_name],
            f"x, {label(smallest)} to {label(largest)}",
            better="lower",
            target=round(allowed, 2),
        )
        report.note(f"{worst_name} grows most from {label(smallest)} to {label(largest)} messages.")


def label(rows: int) -> str:
    """A number of rows as it is said: 10k, 1m."""
    return f"{rows // 1_000_000}m" if rows >= 1_000_000 else f"{rows // 1_000}k"


def _p99(taken: list[float]) -> float:
    return statistics.quantiles(taken, n=100, method="inclusive")[98]


def say(size: int) -> None:
    progress(f"{label(size)} messages")
