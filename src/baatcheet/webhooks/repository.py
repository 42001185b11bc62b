"""Rows of webhooks and of their deliveries, as their owners see and change them."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Select,
    case,
    delete,
    func,
    insert,
    literal,
    literal_column,
    select,
    tuple_,
    update,
)
from sqlalchemy.ext.asyncio import AsyncSession

from baatcheet.jobs.enqueueing import CHANNEL
from baatcheet.jobs.models import UNFINISHED, JobRow
from baatcheet.webhooks.models import Webhook, WebhookAttempt, WebhookDelivery, WebhookSecret

Position = tuple[datetime, UUID]


def _is_there(owner: UUID, webhook_id: UUID | None = None) -> list[ColumnElement[bool]]:
    mine = [Webhook.user_id == owner, Webhook.deleted_at.is_(None)]
    return mine if webhook_id is None else [Webhook.id == webhook_id, *mine]


async def webhook(
    session: AsyncSession, owner: UUID, webhook_id: UUID, *, hold: bool = False
) -> Webhook | None:
    """With `hold`, it stays as it is until the transaction ends."""
    query = select(Webhook).where(*_is_there(owner, webhook_id))
    if hold:
        query = query.with_for_update(read=True)
    return (await session.scalars(query)).one_or_none()


async def webhooks_after(
    session: AsyncSession, owner: UUID, last: UUID | None, limit: int
) -> Sequence[Webhook]:
    """Newest first."""
    query = select(Webhook).where(*_is_there(owner)).order_by(Webhook.id.desc()).limit(limit)
    if last is not None:
        query = query.where(Webhook.id < last)
    return (await session.scalars(query)).all()


async def count(session: AsyncSession, owner: UUID) -> int:
    return await session.scalar(select(func.count()).where(*_is_there(owner))) or 0


async def place(session: AsyncSession, owner: UUID, webhook_id: UUID) -> int:
    """How many of the owner's active webhooks were made before this one."""
    before = select(func.count()).where(*_is_there(owner), Webhook.active, Webhook.id < webhook_id)
    return await session.scalar(before) or 0


async def change(
    session: AsyncSession, owner: UUID, webhook_id: UUID, fields: Mapping[str, Any]
) -> Webhook | None:
    changed = (
        update(Webhook)
        .where(*_is_there(owner, webhook_id))
        .values(**fields, updated_at=func.clock_timestamp())
        .returning(Webhook)
    )
    found = await session.scalars(changed, execution_options={"populate_existing": True})
    return found.one_or_none()


async def forget(session: AsyncSession, owner: UUID, webhook_id: UUID) -> bool:
    """Whether there was one. Its secrets go at once; its deliveries are left to be cleared away."""
    gone = {"active": False, "deleted_at": func.clock_timestamp(), "headers": {}}
    if await change(session, owner, webhook_id, gone) is None:
        return False
    await session.execute(
        delete(WebhookSecret).where(WebhookSecret.webhook_id == webhook_id, WebhookSecret.user_id == owner)
    )
    return True


async def add_secret(session: AsyncSession, row: Mapping[str, Any]) -> None:
    await session.execute(insert(WebhookSecret).values(**row))


async def expire_secrets(
    session: AsyncSession, owner: UUID, webhook_id: UUID, overlap: timedelta
) -> datetime | None:
    """Let the current secret end after `overlap`; when that is. Those before it end when they were to."""
    ended = (
        update(WebhookSecret)
        .where(
            WebhookSecret.webhook_id == webhook_id,
            WebhookSecret.user_id == owner,
            WebhookSecret.expires_at.is_(None),
        )
        .values(expires_at=func.clock_timestamp() + overlap)
        .returning(WebhookSecret.expires_at)
    )
    return (await session.scalars(ended)).one_or_none()


def _next_attempt() -> ColumnElement[Any]:
    """When the job of a pending delivery is due."""
    due = (
        select(JobRow.due_at)
        .where(JobRow.subject_id == WebhookDelivery.id, JobRow.status.in_(("queued", "waiting")))
        .order_by(JobRow.id.desc())
        .limit(1)
        .scalar_subquery()
    )
    return case((WebhookDelivery.status == "pending", due)).label("next_attempt_at")


def _deliveries(*more: Any) -> Select[Any]:
    """What a list shows of deliveries; a body may be large, and is not."""
    shown = WebhookDelivery
    return select(
        shown.id,
        shown.webhook_id,
        shown.message_id,
        shown.event,
        shown.status,
        shown.attempt_count,
        shown.response_status,
        shown.error,
        _next_attempt(),
        shown.created_at,
        shown.ended_at,
        *more,
    )


async def deliveries_after(
    session: AsyncSession,
    owner: UUID,
    webhook_id: UUID,
    last: Position | None,
    limit: int,
    *,
    status: str | None,
    event: str | None,
) -> Sequence[Any]:
    """Newest first. `event`: a type, or `group.*`."""
    query = _deliveries().where(WebhookDelivery.webhook_id == webhook_id, WebhookDelivery.user_id == owner)
    if status is not None:
        query = query.where(_has_status(status))
    if event is not None and event != "*":
        query = query.where(
            WebhookDelivery.event.startswith(event[:-1], autoescape=True)
            if event.endswith(".*")
            else WebhookDelivery.event == event
        )
    if last is not None:
        query = query.where(
            tuple_(WebhookDelivery.created_at, WebhookDelivery.id) < tuple_(*map(literal, last))
        )
    newest = query.order_by(WebhookDelivery.created_at.desc(), WebhookDelivery.id.desc()).limit(limit)
    rows: Sequence[Any] = (await session.execute(newest)).all()
    return rows


def _has_status(status: str) -> ColumnElement[bool]:
    """Written out, so that the planner sees which index it may use. `status` is one of the four words."""
    return WebhookDelivery.status == literal_column(f"'{status}'")


async def delivery(session: AsyncSession, owner: UUID, webhook_id: UUID, delivery_id: UUID) -> Any | None:
    """With its body."""
    query = _deliveries(WebhookDelivery.body).where(
        WebhookDelivery.id == delivery_id,
        WebhookDelivery.webhook_id == webhook_id,
        WebhookDelivery.user_id == owner,
    )
    return (await session.execute(query)).one_or_none()


async def attempts(session: AsyncSession, owner: UUID, delivery_id: UUID) -> Sequence[WebhookAttempt]:
    """In order."""
    query = (
        select(WebhookAttempt)
        .where(WebhookAttempt.delivery_id == delivery_id, WebhookAttempt.user_id == owner)
        .order_by(WebhookAttempt.number)
    )
    return (await session.scalars(query)).all()


_AGAIN: Mapping[str, Any] = {"status": "pending", "ended_at": None, "error": None}


async def send_again(session: AsyncSession, owner: UUID, delivery_id: UUID) -> bool:
    """Make a delivery pending; whether it was not already."""
    changed = (
        update(WebhookDelivery)
        .where(
            WebhookDelivery.id == delivery_id,
            WebhookDelivery.user_id == owner,
            WebhookDelivery.status != "pending",
        )
        .values(_AGAIN)
        .returning(WebhookDelivery.id)
    )
    return await session.scalar(changed) is not None


async def hurry(session: AsyncSession, owner: UUID, delivery_id: UUID) -> bool:
    """Let the job of a pending delivery run now, if it waits; whether there is one that has not ended."""
    changed = (
        update(JobRow)
        .where(JobRow.subject_id == delivery_id, JobRow.user_id == owner, JobRow.status == "waiting")
        .values(status="queued", due_at=func.clock_timestamp())
        .returning(JobRow.queue)
    )
    queue = (await session.scalars(changed)).first()
    if queue is not None:
        await session.execute(select(func.pg_notify(CHANNEL, queue)))
        return True
    unfinished = select(JobRow.id).where(
        JobRow.subject_id == delivery_id, JobRow.user_id == owner, JobRow.status.in_(UNFINISHED)
    )
    return await session.scalar(unfinished.limit(1)) is not None


async def ended_between(
    session: AsyncSession,
    owner: UUID,
    webhook_id: UUID,
    status: str,
    since: Position,
    until: datetime | None,
    limit: int,
) -> Sequence[Any]:
    """(created_at, id) of the oldest deliveries after `since` and before `until`, held until the transaction ends."""
    query = select(WebhookDelivery.created_at, WebhookDelivery.id).where(
        WebhookDelivery.webhook_id == webhook_id,
        WebhookDelivery.user_id == owner,
        _has_status(status),
        tuple_(WebhookDelivery.created_at, WebhookDelivery.id) > tuple_(*map(literal, since)),
    )
    if until is not None:
        query = query.where(WebhookDelivery.created_at < until)
    oldest = query.order_by(WebhookDelivery.created_at, WebhookDelivery.id).limit(limit).with_for_update()
    return (await session.execute(oldest)).all()


async def send_all_again(session: AsyncSession, owner: UUID, ids: Sequence[UUID]) -> None:
    await session.execute(
        update(WebhookDelivery)
        .where(WebhookDelivery.id.in_(ids), WebhookDelivery.user_id == owner)
        .values(_AGAIN)
    )
