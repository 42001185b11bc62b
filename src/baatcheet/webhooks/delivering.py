"""The jobs: making the attempts at a delivery, and clearing away what is old."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import aiohttp
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from baatcheet.events.outbox import record
from baatcheet.jobs.declaration import DeadJob, GiveUp, Job, TryAgain, job
from baatcheet.platform.database import Database
from baatcheet.platform.logging import get_logger
from baatcheet.platform.settings import WebhookSettings
from baatcheet.webhooks.ledger import Begun, Ledger
from baatcheet.webhooks.payload import Delivery, Tidying
from baatcheet.webhooks.policy import Answer, is_hopeless
from baatcheet.webhooks.sending import Sender

log = get_logger(__name__)

LANE_LIMIT = 4  # attempts in one lane at once: an endpoint that hangs must not take every place
ATTEMPT_LIMIT = 180.0  # seconds for an attempt and what is written of it; its own limit is shorter
CLEAR_AT_ONCE = 1_000  # deliveries

_DISABLE = text("""
UPDATE webhooks
SET active = false, disabled_at = clock_timestamp(), disabled_reason = :reason, updated_at = clock_timestamp()
WHERE id = :webhook AND active RETURNING id
""")
_BURY = text("""
UPDATE webhook_deliveries
SET status = :status, error = coalesce(error, :error), ended_at = clock_timestamp()
WHERE id = :delivery AND status = 'pending'
""")
# A delivery's id begins with the time of its making, so these are found by their primary key.
_CLEAR_OLD = text("""
DELETE FROM webhook_deliveries WHERE id IN (
    SELECT id FROM webhook_deliveries WHERE id < :before ORDER BY id LIMIT :most
)
RETURNING id
""")
_CLEAR_OF_DELETED = text("""
DELETE FROM webhook_deliveries WHERE id IN (
    SELECT d.id FROM webhook_deliveries d JOIN webhooks w ON w.id = d.webhook_id
    WHERE w.deleted_at IS NOT NULL LIMIT :most
)
RETURNING id
""")
_CLEAR_DELETED = text("""
DELETE FROM webhooks w WHERE w.deleted_at IS NOT NULL
AND NOT EXISTS (SELECT FROM webhook_deliveries d WHERE d.webhook_id = w.id)
""")
_CLEAR_SECRETS = text("DELETE FROM webhook_secrets WHERE expires_at < clock_timestamp()")


@dataclass(frozen=True)
class DeliveryParts:
    """What the jobs of webhooks need."""

    db: Database
    ledger: Ledger
    sender: Sender
    settings: WebhookSettings

    @classmethod
    def of(cls, db: Database, session: aiohttp.ClientSession, settings: WebhookSettings) -> "DeliveryParts":
        """`session`: one that decides what may be called (`platform.outbound.guarded_session`)."""
        return cls(db, Ledger(db), Sender(session, seconds=settings.timeout), settings)


async def _ended(dead: DeadJob, session: AsyncSession, _: DeliveryParts) -> None:
    values = {
        "delivery": dead.subject,
        "status": "cancelled" if dead.cancelled else "failed",
        "error": dead.error,
    }
    await session.execute(_BURY, values)


@job(
    "webhook.deliver",
    queue="webhook",
    later=(300.0, 1800.0, 7200.0, 18_000.0, 36_000.0, 36_000.0),
    seconds=ATTEMPT_LIMIT,
    lane_limit=LANE_LIMIT,
    visible=False,  # its owner sees the delivery
    on_dead=_ended,
)
async def deliver(job: Job[Delivery], parts: DeliveryParts) -> Mapping[str, Any] | None:
    """The endpoint has been sent this event: maybe more than once, always under the same id and with the same body."""
    begun = await parts.ledger.begin(job.payload.delivery)
    if begun is None:
        return None
    answer = await parts.sender.attempt(begun.request)
    since = await parts.ledger.end(begun, answer)
    if answer.error is None:
        return {"status": answer.status, "attempts": begun.number}
    if answer.gone or _is_hopeless(since, job.attempt, parts.settings):
        await _disable(parts.db, begun, answer, since)
    if answer.gone:
        raise GiveUp(answer.error)
    raise TryAgain(answer.error, after=answer.retry_after)


def _is_hopeless(since: datetime | None, attempt: int, settings: WebhookSettings) -> bool:
    return since is not None and is_hopeless(since, datetime.now(UTC), attempt, settings.disable_after_days)


async def _disable(db: Database, begun: Begun, answer: Answer, since: datetime | None) -> None:
    """Send the endpoint nothing more, and tell its owner, unless that has happened already."""
    reason = "gone" if answer.gone else "failing"
    told = {
        "webhook_id": begun.webhook,
        "host": urlsplit(begun.request.url).hostname,
        "reason": reason,
        "failing_since": since,
        "error": answer.error,
    }
    async with db.system() as session:
        if await session.scalar(_DISABLE, {"webhook": begun.webhook, "reason": reason}) is None:
            return
        await record(session, "webhook.disabled", told, user=begun.user)
    log.warning("webhook.disabled", webhook_id=str(begun.webhook), reason=reason)


@job("webhook.tidy", queue="maintenance", seconds=3600, visible=False)
async def tidy(job: Job[Tidying], parts: DeliveryParts) -> Mapping[str, Any] | None:
    """Deleted webhooks, deliveries older than they are kept for and secrets that sign no more are gone.

    Run twice, it finds nothing.
    """
    return {"deliveries": await clear_away(parts.db, parts.settings.keep_days)}


async def clear_away(db: Database, keep_days: float) -> int:
    """Delete what `tidy` promises, a bounded part in each transaction; how many deliveries there were."""
    before = _first_id_of(datetime.now(UTC) - timedelta(days=keep_days))
    cleared = 0
    for statement, values in ((_CLEAR_OF_DELETED, {}), (_CLEAR_OLD, {"before": before})):
        gone = CLEAR_AT_ONCE
        while gone == CLEAR_AT_ONCE:
            async with db.system() as session:
                gone = len((await session.scalars(statement, {**values, "most": CLEAR_AT_ONCE})).all())
            cleared += gone
    async with db.system() as session:
        await session.execute(_CLEAR_DELETED)
        await session.execute(_CLEAR_SECRETS)
    return cleared


def _first_id_of(moment: datetime) -> UUID:
    """The smallest id that can have been made at `moment`."""
    return UUID(int=int(moment.timestamp() * 1000) << 80)
