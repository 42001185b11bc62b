"""Notifications: one user's list, and what they want to be told."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final, NamedTuple
from uuid import UUID

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from baatcheet.auth.models import User
from baatcheet.auth.principal import Principal
from baatcheet.events.outbox import record
from baatcheet.kit.pagination import Slice, decode, slice_of
from baatcheet.notifications import repository
from baatcheet.notifications.errors import NotificationNotFound
from baatcheet.notifications.models import Notification
from baatcheet.notifications.repository import Wishes
from baatcheet.notifications.wording import KINDS, Kind, KindOfNotice
from baatcheet.platform.database import Database
from baatcheet.platform.errors import NotFound

_LIST = "notifications"
TIDY_LIMIT: Final = 60.0  # seconds
BATCH = 5_000  # that are deleted in one transaction


class Listed(NamedTuple):
    """A part of the list, and how many are unread in all."""

    rows: Slice[Notification]
    unread: int


@dataclass(frozen=True)
class Wanted:
    """Where a user has one kind told."""

    kind: Kind
    description: str
    in_app: bool
    email: bool


class Notifications:
    """One user's notifications. What is not theirs is not there: NotificationNotFound.

    `email`: whether there is a mail server to send by.
    """

    def __init__(self, db: Database, *, email: bool) -> None:
        self._db = db
        self._email = email

    async def listed(
        self, who: Principal, *, unread: bool, kind: Kind | None, limit: int, cursor: str | None
    ) -> Listed:
        """Newest first. Raises BadCursor."""
        last = decode(_LIST, cursor, UUID) if cursor is not None else None
        async with self._db.tenant(who.user_id) as session:
            rows = await repository.after(session, who.user_id, last, limit + 1, unread=unread, kind=kind)
            count = await _unread(session, who)
        return Listed(slice_of(_LIST, rows, limit, lambda row: row.id), count)

    async def get(self, who: Principal, notification_id: UUID) -> Notification:
        async with self._db.tenant(who.user_id) as session:
            return await _one(session, who, notification_id)

    async def mark_read(self, who: Principal, notification_id: UUID) -> Notification:
        """One that was read already stays as it is."""
        async with self._db.tenant(who.user_id) as session:
            if await repository.mark_read(session, who.user_id, notification_id):
                row = await _one(session, who, notification_id)
                await _tell_read(session, who, row)
                return row
            return await _one(session, who, notification_id)

    async def mark_all_read(self, who: Principal, up_to: UUID | None) -> tuple[int, int]:
        """How many were marked, and how many are unread now."""
        async with self._db.tenant(who.user_id) as session:
            marked = await repository.mark_all_read(session, who.user_id, up_to)
            if marked:
                await _tell_read(session, who, None)
            return marked, await _unread(session, who)

    async def delete(self, who: Principal, notification_id: UUID) -> None:
        async with self._db.tenant(who.user_id) as session:
            row = await repository.remove(session, who.user_id, notification_id)
            if row is None:
                raise NotificationNotFound(notification_id)
            if row.read_at is None:
                await _tell_read(session, who, row)

    async def preferences(self, who: Principal) -> tuple[list[Wanted], bool]:
        """Every kind that `who` may be told of, and whether emails are sent to them at all."""
        async with self._db.tenant(who.user_id) as session:
            said = {row.kind: row for row in await repository.preferences(session, who.user_id)}
            has_address = await session.scalar(select(User.email.is_not(None)).where(User.id == who.user_id))
        wanted = []
        for kind in _kinds_for(who):
            row = said.get(kind.name)
            in_app, email = (row.in_app, row.email) if row is not None else (True, kind.email)
            wanted.append(Wanted(kind.name, kind.tells, in_app, email))
        return wanted, bool(has_address) and self._email

    async def prefer(
        self, who: Principal, name: str, *, in_app: bool | None = None, email: bool | None = None
    ) -> Wanted:
        """Where to tell one kind; None: as before. Raises NotFound for a kind that `who` is not told of."""
        kind = next((one for one in _kinds_for(who) if one.name == name), None)
        if kind is None:
            raise NotFound(f"There is no kind of notification {name[:100]!r} here.")
        async with self._db.tenant(who.user_id) as session:
            said = {row.kind: row for row in await repository.preferences(session, who.user_id)}
            row = said.get(name)
            wishes = (
                Wishes(row.in_app, row.email) if row is not None else Wishes(in_app=True, email=kind.email)
            )
            wishes.in_app = wishes.in_app if in_app is None else in_app
            wishes.email = wishes.email if email is None else email
            await repository.set_preference(session, who.user_id, name, wishes)
        return Wanted(kind.name, kind.tells, wishes.in_app, wishes.email)


def _kinds_for(who: Principal) -> list[KindOfNotice]:
    return [kind for kind in KINDS.values() if who.role == "admin" or not kind.admin]


async def _one(session: AsyncSession, who: Principal, notification_id: UUID) -> Notification:
    row = await repository.by_id(session, who.user_id, notification_id)
    if row is None:
        raise NotificationNotFound(notification_id)
    return row


async def _unread(session: AsyncSession, who: Principal) -> int:
    return (await repository.count_unread(session, [who.user_id])).get(who.user_id, 0)


async def _tell_read(session: AsyncSession, who: Principal, row: Notification | None) -> None:
    """Tell the user's other windows; `row` None: it is about all of them."""
    told = {
        "notification_id": row.id if row is not None else None,
        "kind": row.kind if row is not None else None,
        "title": row.title if row is not None else None,
        "unread": await _unread(session, who),
    }
    await record(session, "notification.read", told, user=who.user_id)


async def forget_old(db: Database, age: timedelta) -> int:
    """Delete what was last told longer ago than `age`, in batches; how many. Raises DatabaseUnavailable."""
    old = select(Notification.id).where(Notification.updated_at < func.now() - age).limit(BATCH)
    gone = 0
    while True:
        async with db.system(limit=TIDY_LIMIT) as session:
            batch = delete(Notification).where(Notification.id.in_(old.scalar_subquery()))
            rows = (await session.execute(batch.returning(Notification.id))).all()
        gone += len(rows)
        if len(rows) < BATCH:
            return gone
