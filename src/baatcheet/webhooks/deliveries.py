"""A user's deliveries: looking at them, and sending them again."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from baatcheet.auth.principal import Principal
from baatcheet.events.model import moment
from baatcheet.jobs.declaration import JobKind
from baatcheet.jobs.enqueueing import Order, enqueue, enqueue_many
from baatcheet.kit.ids import new_id
from baatcheet.kit.pagination import Slice, decode, encode, microseconds, moment_of, slice_of
from baatcheet.platform.database import Database
from baatcheet.webhooks import repository
from baatcheet.webhooks.errors import DeliveryNotFound, WebhookDisabled, WebhookNotFound
from baatcheet.webhooks.fanout import body_of
from baatcheet.webhooks.models import Webhook, WebhookAttempt, WebhookDelivery
from baatcheet.webhooks.payload import Delivery, lane_of
from baatcheet.webhooks.policy import TEST

MOST_REPLAYED = 1_000  # deliveries in one call
_URGENT = 10  # somebody waits for it
_FIRST = UUID(int=0)


class _Position(NamedTuple):
    micros: int
    id: UUID


class Deliveries:
    """The deliveries of one user's webhooks. What is not theirs is not there: WebhookNotFound, DeliveryNotFound."""

    def __init__(self, db: Database, kind: JobKind[Delivery, Any]) -> None:
        self._db = db
        self._kind = kind

    async def list(
        self,
        who: Principal,
        webhook_id: UUID,
        *,
        status: str | None,
        event: str | None,
        limit: int,
        cursor: str | None,
    ) -> Slice[Any]:
        """Newest first, without their bodies. Raises BadCursor."""
        name = f"deliveries:{webhook_id}"
        last = None
        if cursor is not None:
            position = decode(name, cursor, _Position)
            last = (moment_of(position.micros), position.id)
        async with self._db.tenant(who.user_id) as session:
            await _find(session, who, webhook_id)
            rows = await repository.deliveries_after(
                session, who.user_id, webhook_id, last, limit + 1, status=status, event=event
            )
        return slice_of(name, rows, limit, lambda row: (microseconds(row.created_at), row.id))

    async def get(
        self, who: Principal, webhook_id: UUID, delivery_id: UUID
    ) -> tuple[Any, Sequence[WebhookAttempt]]:
        """With its body, and every attempt."""
        async with self._db.tenant(who.user_id) as session:
            await _find(session, who, webhook_id)
            row = await self._get(session, who, webhook_id, delivery_id)
            return row, await repository.attempts(session, who.user_id, delivery_id)

    async def test(self, session: AsyncSession, who: Principal, webhook_id: UUID) -> Any:
        """Send a `webhook.test` now, whatever the webhook's filter says. Raises WebhookDisabled."""
        await _find(session, who, webhook_id, active=True)
        told = {
            "webhook_id": webhook_id,
            "text": "This is a test. It was sent because somebody asked for it.",
        }
        delivery = WebhookDelivery(
            id=new_id(),
            webhook_id=webhook_id,
            user_id=who.user_id,
            message_id=new_id(),
            event=TEST,
            body=body_of(TEST, moment(datetime.now(UTC)), told),
        )
        session.add(delivery)
        await session.flush()
        await self._enqueue(session, who, webhook_id, delivery.id)
        return await self._get(session, who, webhook_id, delivery.id)

    async def replay(self, who: Principal, webhook_id: UUID, delivery_id: UUID) -> Any:
        """Send it again, under the same id; one that waits for its next attempt, now. Raises WebhookDisabled."""
        async with self._db.tenant(who.user_id) as session:
            await _find(session, who, webhook_id, active=True)
            await self._get(session, who, webhook_id, delivery_id)
            again = await repository.send_again(session, who.user_id, delivery_id)
            if again or not await repository.hurry(session, who.user_id, delivery_id):
                await self._enqueue(session, who, webhook_id, delivery_id)
            return await self._get(session, who, webhook_id, delivery_id)

    async def replay_range(
        self,
        who: Principal,
        webhook_id: UUID,
        *,
        since: datetime,
        until: datetime | None,
        status: str,
        cursor: str | None,
    ) -> Slice[UUID]:
        """Send again those that ended as `status`, the oldest first, `MOST_REPLAYED` at once.

        Raises WebhookDisabled, BadCursor.
        """
        name = f"replay:{webhook_id}:{status}"
        # Nothing has an id this small: those made at `since` come after it.
        after = (since, _FIRST)
        if cursor is not None:
            position = decode(name, cursor, _Position)
            after = (moment_of(position.micros), position.id)
        async with self._db.tenant(who.user_id) as session:
            await _find(session, who, webhook_id, active=True)
            rows = await repository.ended_between(
                session, who.user_id, webhook_id, status, after, until, MOST_REPLAYED + 1
            )
            again = [row.id for row in rows[:MOST_REPLAYED]]
            await repository.send_all_again(session, who.user_id, again)
            lane = await _lane(session, who, webhook_id)
            orders = [Order(Delivery(one), who.user_id, subject=one, lane=lane) for one in again]
            await enqueue_many(session, self._kind, orders)
        following = None
        if len(rows) > MOST_REPLAYED:
            following = encode(name, (microseconds(rows[MOST_REPLAYED - 1].created_at), again[-1]))
        return Slice(again, following)

    async def _enqueue(
        self, session: AsyncSession, who: Principal, webhook_id: UUID, delivery_id: UUID
    ) -> None:
        await enqueue(
            session,
            self._kind,
            Delivery(delivery_id),
            owner=who.user_id,
            subject=delivery_id,
            lane=await _lane(session, who, webhook_id),
            priority=_URGENT,
        )

    async def _get(self, session: AsyncSession, who: Principal, webhook_id: UUID, delivery_id: UUID) -> Any:
        row = await repository.delivery(session, who.user_id, webhook_id, delivery_id)
        if row is None:
            raise DeliveryNotFound(delivery_id)
        return row


async def _lane(session: AsyncSession, who: Principal, webhook_id: UUID) -> UUID:
    return lane_of(who.user_id, await repository.place(session, who.user_id, webhook_id))


async def _find(session: AsyncSession, who: Principal, webhook_id: UUID, *, active: bool = False) -> Webhook:
    """The webhook. With `active` it stays so until the transaction ends; raises WebhookDisabled."""
    webhook = await repository.webhook(session, who.user_id, webhook_id, hold=active)
    if webhook is None:
        raise WebhookNotFound(webhook_id)
    if active and not webhook.active:
        raise WebhookDisabled
    return webhook
