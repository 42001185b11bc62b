"""Webhooks: a user's endpoints, and what follows from events."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from baatcheet.auth.principal import Principal
from baatcheet.events.catalogue import TYPES, WEBHOOK_TYPES, expand
from baatcheet.events.model import Event
from baatcheet.jobs.enqueueing import enqueue
from baatcheet.kit.ids import new_id
from baatcheet.kit.pagination import Slice, decode, slice_of
from baatcheet.platform.database import Database
from baatcheet.platform.errors import Invalid
from baatcheet.platform.outbound import AddressRefused, OutboundPolicy
from baatcheet.platform.setting_types import durations
from baatcheet.platform.settings import WebhookSettings
from baatcheet.webhooks import repository
from baatcheet.webhooks.delivering import deliver, tidy
from baatcheet.webhooks.errors import TooManyWebhooks, WebhookNotFound
from baatcheet.webhooks.fanout import deliver_events
from baatcheet.webhooks.models import Webhook
from baatcheet.webhooks.payload import Tidying
from baatcheet.webhooks.signing import new_secret

_LIST = "webhooks"


class AddressNotAllowed(Invalid):
    """This address can't be a webhook's."""

    type = "address-not-allowed"
    openai_code = "address_not_allowed"

    def __init__(self, refused: AddressRefused) -> None:
        super().__init__(f"url: {refused}", param="url", errors=[{"field": "url", "problem": str(refused)}])


class Webhooks:
    """One user's webhooks. What is not theirs is not there: WebhookNotFound."""

    def __init__(self, db: Database, settings: WebhookSettings) -> None:
        self._db = db
        self._settings = settings
        self._policy = OutboundPolicy.allowing(settings.allowed_networks)
        self.deliver = replace(deliver, later=durations(settings.retries))

    async def relayed(self, session: AsyncSession, events: Sequence[Event]) -> None:
        """Take a batch of events from the relay: what is to be delivered of them is queued in its transaction."""
        await deliver_events(session, events, self.deliver)

    async def create(
        self, session: AsyncSession, who: Principal, fields: dict[str, Any]
    ) -> tuple[Webhook, str]:
        """The webhook and its secret, which is not to be had again. Raises AddressNotAllowed, Invalid, TooManyWebhooks.

        `fields`: `url`, `description`, `events`, `headers`, `active`.
        """
        self._check(who, fields)
        if await repository.count(session, who.user_id) >= self._settings.max_endpoints:
            raise TooManyWebhooks(self._settings.max_endpoints)
        webhook = Webhook(id=new_id(), user_id=who.user_id, **fields)
        session.add(webhook)
        await session.flush()
        return webhook, await self._new_secret(session, who, webhook.id)

    async def list(self, who: Principal, *, limit: int, cursor: str | None) -> Slice[Webhook]:
        """Newest first. Raises BadCursor."""
        last = decode(_LIST, cursor, UUID) if cursor is not None else None
        async with self._db.tenant(who.user_id) as session:
            rows = await repository.webhooks_after(session, who.user_id, last, limit + 1)
        return slice_of(_LIST, rows, limit, lambda row: row.id)

    async def get(self, who: Principal, webhook_id: UUID) -> Webhook:
        async with self._db.tenant(who.user_id) as session:
            webhook = await repository.webhook(session, who.user_id, webhook_id)
        if webhook is None:
            raise WebhookNotFound(webhook_id)
        return webhook

    async def update(self, who: Principal, webhook_id: UUID, fields: dict[str, Any]) -> Webhook:
        """Change what `create` takes. One that is made active again, or gets another address, begins afresh."""
        if not fields:
            return await self.get(who, webhook_id)
        self._check(who, fields)
        if fields.get("active") is True:
            fields |= {"failing_since": None, "disabled_at": None, "disabled_reason": None}
        async with self._db.tenant(who.user_id) as session:
            before = await repository.webhook(session, who.user_id, webhook_id, hold=True)
            if before is None:
                raise WebhookNotFound(webhook_id)
            if fields.get("active") is False and before.active:
                fields |= {"disabled_at": datetime.now(UTC), "disabled_reason": "owner"}
            if fields.get("url", before.url) != before.url:
                fields |= {"failing_since": None}
            changed = await repository.change(session, who.user_id, webhook_id, fields)
        assert changed is not None
        return changed

    async def delete(self, who: Principal, webhook_id: UUID) -> None:
        """Nothing is sent to it any more. Its deliveries are cleared away in the background."""
        async with self._db.tenant(who.user_id) as session:
            if not await repository.forget(session, who.user_id, webhook_id):
                raise WebhookNotFound(webhook_id)
            await enqueue(session, tidy, Tidying(), owner=who.user_id, key="tidy")

    async def rotate(
        self, session: AsyncSession, who: Principal, webhook_id: UUID
    ) -> tuple[str, datetime | None]:
        """A new secret, and until when the one before it signs too."""
        if await repository.webhook(session, who.user_id, webhook_id, hold=True) is None:
            raise WebhookNotFound(webhook_id)
        overlap = timedelta(hours=self._settings.secret_overlap_hours)
        expires_at = await repository.expire_secrets(session, who.user_id, webhook_id, overlap)
        return await self._new_secret(session, who, webhook_id), expires_at

    async def _new_secret(self, session: AsyncSession, who: Principal, webhook_id: UUID) -> str:
        secret = new_secret()
        row = {"id": new_id(), "webhook_id": webhook_id, "user_id": who.user_id, "secret": secret}
        await repository.add_secret(session, row)
        return secret

    def _check(self, who: Principal, fields: dict[str, Any]) -> None:
        """What can be said of these fields without asking anybody."""
        if "url" in fields:
            try:
                self._policy.check_url(fields["url"])
            except AddressRefused as refused:
                # Not its cause: an OSError inside a transaction is taken for the database's.
                raise AddressNotAllowed(refused) from None
        if who.role != "admin":
            for name in fields.get("events", ()):
                if all(TYPES[one].admin for one in expand([name], WEBHOOK_TYPES)):
                    raise Invalid(f"events: {name} is told to administrators only", param="events")
