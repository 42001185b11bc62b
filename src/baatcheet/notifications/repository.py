"""Rows of notifications and preferences."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from baatcheet.auth.models import User
from baatcheet.notifications.models import Notification, Preference


@dataclass
class Wishes:
    """Where a user wants a kind told."""

    in_app: bool
    email: bool


@dataclass
class Person:
    """An active user who may be told something. `wishes`: of the kinds for which they said any."""

    id: UUID
    email: str | None
    is_admin: bool
    wishes: dict[str, Wishes] = field(default_factory=dict)


# What is asked of one user's list ------------------------------------------------------------------------------


async def by_id(session: AsyncSession, owner: UUID, notification_id: UUID) -> Notification | None:
    query = select(Notification).where(
        Notification.id == notification_id, Notification.user_id == owner, Notification.listed
    )
    return (await session.scalars(query)).one_or_none()


async def after(
    session: AsyncSession,
    owner: UUID,
    last: UUID | None,
    limit: int,
    *,
    unread: bool,
    kind: str | None,
) -> Sequence[Notification]:
    """Newest first."""
    query = (
        select(Notification)
        .where(Notification.user_id == owner, Notification.listed)
        .order_by(Notification.id.desc())
        .limit(limit)
    )
    if last is not None:
        query = query.where(Notification.id < last)
    if unread:
        query = query.where(Notification.read_at.is_(None))
    if kind is not None:
        query = query.where(Notification.kind == kind)
    return (await session.scalars(query)).all()


async def count_unread(session: AsyncSession, owners: Collection[UUID]) -> Mapping[UUID, int]:
    """How many each has not read; 0 for who is not in it."""
    query = (
        select(Notification.user_id, func.count())
        .where(Notification.user_id.in_(owners), Notification.listed, Notification.read_at.is_(None))
        .group_by(Notification.user_id)
    )
    return _counts((await session.execute(query)).all())


async def mark_read(session: AsyncSession, owner: UUID, notification_id: UUID) -> bool:
    """Whether it was unread before."""
    marked = (
        update(Notification)
        .where(
            Notification.id == notification_id,
            Notification.user_id == owner,
            Notification.listed,
            Notification.read_at.is_(None),
        )
        .values(read_at=func.now())
        .returning(Notification.id)
    )
    return await session.scalar(marked) is not None


async def mark_all_read(session: AsyncSession, owner: UUID, up_to: UUID | None) -> int:
    """How many were unread, of those that are not newer than `up_to`."""
    marked = (
        update(Notification)
        .where(Notification.user_id == owner, Notification.listed, Notification.read_at.is_(None))
        .values(read_at=func.now())
        .returning(Notification.id)
    )
    if up_to is not None:
        marked = marked.where(Notification.id <= up_to)
    return len((await session.scalars(marked)).all())


async def remove(session: AsyncSession, owner: UUID, notification_id: UUID) -> Notification | None:
    """What was removed."""
    removed = (
        delete(Notification)
        .where(Notification.id == notification_id, Notification.user_id == owner, Notification.listed)
        .returning(Notification)
    )
    return (await session.scalars(removed)).one_or_none()


async def preferences(session: AsyncSession, owner: UUID) -> Sequence[Preference]:
    return (await session.scalars(select(Preference).where(Preference.user_id == owner))).all()


async def set_preference(session: AsyncSession, owner: UUID, kind: str, wishes: Wishes) -> None:
    values = {"in_app": wishes.in_app, "email": wishes.email}
    await session.execute(
        insert(Preference)
        .values(user_id=owner, kind=kind, **values)
        .on_conflict_do_update(index_elements=["user_id", "kind"], set_=values)
    )


def _counts(rows: Sequence[Any]) -> Mapping[UUID, int]:
    return {owner: count for owner, count in rows}  # noqa: C416 - rows are no pairs to dict()'s type


# What the relay asks and writes --------------------------------------------------------------------------------


async def people(session: AsyncSession, ids: Collection[UUID], *, admins: bool) -> Sequence[Person]:
    """The active users among `ids`, and administrators if they are asked for; none can be deleted meanwhile."""
    among = or_(User.id.in_(ids), User.role == "admin") if admins else User.id.in_(ids)
    query = (
        select(User.id, User.email, User.role)
        .where(User.active, among)
        .order_by(User.id)
        .with_for_update(read=True, key_share=True)
    )
    found = {
        id_: Person(id_, email, role == "admin") for id_, email, role in (await session.execute(query)).all()
    }
    wishes = select(Preference).where(Preference.user_id.in_(found))
    for row in await session.scalars(wishes):
        found[row.user_id].wishes[row.kind] = Wishes(row.in_app, row.email)
    return list(found.values())


async def emailed_lately(session: AsyncSession, owners: Collection[UUID]) -> Mapping[UUID, int]:
    """Emails of the last hour."""
    query = (
        select(Notification.user_id, func.count())
        .where(
            Notification.user_id.in_(owners),
            Notification.email_status.is_not(None),
            Notification.created_at > func.now() - text("interval '1 hour'"),
        )
        .group_by(Notification.user_id)
    )
    return _counts((await session.execute(query)).all())


async def add(session: AsyncSession, row: Mapping[str, object]) -> tuple[UUID, bool]:
    """Its id, and whether it is new: one that is like an unread one is told by that, as one more time."""
    added = insert(Notification).values(**row)
    merged = added.on_conflict_do_update(
        index_elements=["user_id", "alike"],
        index_where=text("alike IS NOT NULL AND read_at IS NULL"),
        set_={
            "times": Notification.times + added.excluded.times,
            "title": added.excluded.title,
            "text": added.excluded.text,
            "link": added.excluded.link,
            "event_id": added.excluded.event_id,
            "updated_at": func.now(),
        },
    ).returning(Notification.id)
    id_ = (await session.scalars(merged)).one()
    return id_, id_ == row["id"]


async def set_email_status(session: AsyncSession, ids: Collection[UUID], status: str) -> None:
    await session.execute(update(Notification).where(Notification.id.in_(ids)).values(email_status=status))
