"""What was used, from when to when, of one user or of everybody.

Exact: it is the days and what is fresh, in one snapshot. Beside the turns, embeddings and recordings, which are no
turns, count as the budgets' books have them.
"""

from calendar import monthrange
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, Literal
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from baatcheet.analytics.errors import RangeTooLarge
from baatcheet.analytics.rollup import NAMES, OF_TURNS
from baatcheet.auth.service import UserNotFound
from baatcheet.platform.database import Database
from baatcheet.platform.errors import Invalid

Group = Literal["day", "week", "month", "model", "user"]

MOST_DAYS: Final = 1_100  # of one answer: three years
MOST_ROWS: Final = 10_000
DEFAULT_DAYS: Final = 30
TOP: Final = 20  # models that an overview names
PERIODS: Final = ("day", "week", "month")

COUNTED: Final = (*NAMES, "embeddings", "recordings", "recorded_seconds")

# Weeks begin on Monday (ISO 8601).
_GROUPS: Final = {
    "day": "u.date",
    "week": "date_trunc('week', u.date)::date",
    "month": "date_trunc('month', u.date)::date",
    "model": "u.model",
    "user": "u.user_id",
}
_PLAIN = ", ".join(NAMES)
_NOTHING = {
    "prompt_tokens": "m.prompt_tokens",
    "cached_tokens": "m.cached_tokens",
    "completion_tokens": "m.completion_tokens",
    "microcents": "m.microcents",
    "unpriced": "m.unpriced",
}
_OTHERS = ", ".join(_NOTHING.get(one, "0") for one in NAMES)
_REQUESTS = """CASE WHEN m.kind = 'embedding' THEN m.requests ELSE 0 END,
           CASE WHEN m.kind = 'recording' THEN m.requests ELSE 0 END, m.recorded_seconds"""
_SUMS = ", ".join(
    f"coalesce({'max' if one == 'slowest_ms' else 'sum'}(u.{one}), 0)::bigint AS {one}" for one in COUNTED
)


# What deleted users have used, together.
_FORGOTTEN = f"""
    UNION ALL
    SELECT NULL, date, model, {_PLAIN}, 0, 0, 0
    FROM forgotten_analytics WHERE date BETWEEN :since AND :until
    UNION ALL
    SELECT NULL, m.day, m.model, {_OTHERS}, {_REQUESTS}
    FROM forgotten_usage m WHERE m.kind <> 'chat' AND m.day BETWEEN :since AND :until"""  # noqa: S608 - constants


def _statement(keys: str, user_id: UUID | None, *, by_user: bool = False) -> str:
    whose = "" if user_id is None else _MINE
    days = "analytics_everybody" if user_id is None and not by_user else "analytics_daily"
    return f"""
SELECT {keys}{_SUMS}
FROM (
    SELECT {"user_id" if days == "analytics_daily" else "CAST(NULL AS uuid) AS user_id"}, date, model, {_PLAIN},
           0 AS embeddings, 0 AS recordings, 0 AS recorded_seconds
    FROM {days} WHERE date BETWEEN :since AND :until {whose}
    UNION ALL
    SELECT user_id, date, model, {_PLAIN}, 0, 0, 0
    FROM analytics_fresh WHERE date BETWEEN :since AND :until {whose}
    UNION ALL
    SELECT t.user_id, t.date, t.model, {OF_TURNS}, 0, 0, 0
    FROM (SELECT turn_id FROM analytics_pending WHERE true {whose}) p JOIN analytics_of_turns t ON t.id = p.turn_id
    WHERE t.date BETWEEN :since AND :until
    UNION ALL
    SELECT m.user_id, m.day, m.model, {_OTHERS}, {_REQUESTS}
    FROM model_usage m WHERE m.kind <> 'chat' AND m.day BETWEEN :since AND :until {whose}
    {_FORGOTTEN if user_id is None else ""}
) u
"""  # noqa: S608 - the parts are constants


_STORED = """
SELECT coalesce(sum(u.bytes_added - u.bytes_removed), 0)::bigint FROM (
    SELECT bytes_added, bytes_removed FROM {days} WHERE model = '' {whose}
    UNION ALL
    SELECT bytes_added, bytes_removed FROM analytics_fresh WHERE model = '' {whose}
    {forgotten}
) u
"""
_FORGOTTEN_FILES = "UNION ALL SELECT bytes_added, bytes_removed FROM forgotten_analytics WHERE model = ''"
_MINE = "AND user_id = :user"


@dataclass(frozen=True, slots=True)
class Range:
    """Days (UTC), the last one with them."""

    since: date
    until: date

    @property
    def days(self) -> int:
        return (self.until - self.since).days + 1

    @property
    def before(self) -> "Range | None":
        """As many days, just before these; None before the calendar's beginning."""
        try:
            return Range(self.since - timedelta(days=self.days), self.since - timedelta(days=1))
        except OverflowError:
            return None

    @classmethod
    def of(cls, since: date | None, until: date | None) -> "Range":
        """What is left out is today, and 30 days until then. Raises Invalid, RangeTooLarge."""
        until = until or datetime.now(UTC).date()
        if since is None:
            since = max(date.min + timedelta(days=DEFAULT_DAYS), until) - timedelta(days=DEFAULT_DAYS - 1)
        if since > until:
            raise Invalid(f"from, {since}, is after to, {until}.", param="from")
        found = cls(since, until)
        if found.days > MOST_DAYS:
            raise RangeTooLarge(
                f"These are {found.days:,} days; ask for {MOST_DAYS:,} at most, or in several steps.",
                param="from",
            )
        return found


@dataclass(frozen=True, slots=True)
class Used:
    """Of one group. `since`: its first day, with a period; `counts`: by the names in `COUNTED`."""

    since: date | None
    model: str | None
    user_id: UUID | None
    counts: dict[str, int]


@dataclass(frozen=True, slots=True)
class Overview:
    """`before`: in as many days just before. `stored_bytes`: files that are kept now."""

    total: Used
    before: Used | None
    models: Sequence[Used]
    stored_bytes: int
    complete: bool


def last_day(period: Group | None, first: date) -> date:
    """Of the day, the week or the month that begins on `first`."""
    if period == "month":
        return first.replace(day=monthrange(first.year, first.month)[1])
    if period == "week":
        return date.fromordinal(min(first.toordinal() + 6, date.max.toordinal()))
    return first


class Reports:
    """`user_id` is whose usage is asked for, None: everybody's. Raises DatabaseUnavailable."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def known(self, user_id: UUID) -> None:
        """Raises UserNotFound."""
        async with self._db.system() as session:
            if await session.scalar(text("SELECT id FROM users WHERE id = :user"), {"user": user_id}) is None:
                raise UserNotFound(f"There is no user {user_id}.")

    async def usage(
        self, user_id: UUID | None, asked: Range, groups: Sequence[Group]
    ) -> tuple[list[Used], bool]:
        """By `groups`, of which one at most is a period, the oldest first; and whether all has been counted.

        Raises RangeTooLarge.
        """
        async with self._session(user_id) as session:
            rows, waiting = await _used(session, user_id, asked, groups)
        if len(rows) > MOST_ROWS:
            raise RangeTooLarge(
                f"These are more than {MOST_ROWS:,} rows. Ask for fewer days, or for larger groups.",
                param="group_by",
            )
        return rows, not waiting

    async def overview(self, user_id: UUID | None, asked: Range) -> Overview:
        """One statement, and so one snapshot."""
        earlier = asked.before
        values = {
            "since": asked.since if earlier is None else earlier.since,
            "until": asked.until,
            "first": asked.since,
            **_whose(user_id),
        }
        stored = _STORED.format(
            days="analytics_everybody" if user_id is None else "analytics_daily",
            whose="" if user_id is None else _MINE,
            forgotten=_FORGOTTEN_FILES if user_id is None else "",
        )
        statement = f"""
SELECT g.*, ({stored}) AS stored, {_waiting(user_id)} AS waiting
FROM ({_statement("GROUPING(u.model) AS whole, (u.date >= :first) AS now, u.model, ", user_id)}
      GROUP BY GROUPING SETS ((now), (now, u.model), ())) g
"""  # noqa: S608 - the parts are constants
        async with self._session(user_id) as session:
            rows = (await session.execute(text(statement), values)).mappings().all()
        sums = {row["now"]: _counts(row) for row in rows if row["whole"]}
        everything = next(row for row in rows if row["now"] is None)
        nothing = dict.fromkeys(COUNTED, 0)
        models = [Used(None, row["model"], None, _counts(row)) for row in rows if row["now"] and row["model"]]
        return Overview(
            Used(None, None, None, sums.get(True, nothing)),
            None if earlier is None else Used(None, None, None, sums.get(False, nothing)),
            sorted(models, key=_dearest)[:TOP],
            everything["stored"],
            not everything["waiting"],
        )

    def _session(self, user_id: UUID | None) -> Any:
        return self._db.system() if user_id is None else self._db.tenant(user_id)


def _whose(user_id: UUID | None) -> dict[str, Any]:
    return {} if user_id is None else {"user": user_id}


async def _used(
    session: AsyncSession, user_id: UUID | None, asked: Range, groups: Sequence[Group]
) -> tuple[list[Used], bool]:
    """What was used, and whether some of it waits to be counted: in one statement, and so one snapshot."""
    keys = "".join(f"{_GROUPS[one]} AS {_name(one)}, " for one in groups)
    used = _statement(keys, user_id, by_user="user" in groups)
    numbers = ", ".join(str(at + 1) for at in range(len(groups)))
    statement = f"""
SELECT w.waiting, g.* FROM (SELECT {_waiting(user_id)} AS waiting) w LEFT JOIN (
    SELECT true AS found, f.* FROM (
        {used} GROUP BY {numbers} ORDER BY {numbers} LIMIT {MOST_ROWS + 1}
    ) f
) g ON true ORDER BY {", ".join(f"g.{_name(one)}" for one in groups)}
"""  # noqa: S608 - the parts are constants
    values = {"since": asked.since, "until": asked.until, **_whose(user_id)}
    rows = (await session.execute(text(statement), values)).all()
    names = tuple(_name(one) for one in groups)
    start = 2 + len(names)
    found = []
    for row in rows:  # by position: of a thousand rows, names would cost more than the database does
        if row[1]:
            keys_of = dict(zip(names, row[2:start], strict=True))
            counts = dict(zip(COUNTED, row[start:], strict=True))
            found.append(Used(keys_of.get("since"), keys_of.get("model"), keys_of.get("whose"), counts))
    return found, rows[0][0]


def _name(group: Group) -> str:
    return "since" if group in PERIODS else "whose" if group == "user" else "model"


def _counts(row: Mapping[Any, Any]) -> dict[str, int]:
    return {name: row[name] for name in COUNTED}


def _dearest(used: Used) -> tuple[Any, ...]:
    counts = used.counts
    return (
        -counts["microcents"],
        -counts["prompt_tokens"] - counts["completion_tokens"],
        -counts["turns"],
        used.model,
    )


def _waiting(user_id: UUID | None) -> str:
    return f"EXISTS (SELECT FROM analytics_backlog {'' if user_id is None else 'WHERE user_id = :user'})"
