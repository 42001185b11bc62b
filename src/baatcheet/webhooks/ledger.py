"""What is written of attempts: before each is made, and after.

Attempts that begin or end while the statement before them runs share the next one. No transaction is open while a
receiver is waited for. A delivery that is marked delivered is not sent again, so it does no harm when its job, whose
end is written after this, runs once more.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from baatcheet.kit.batching import Batcher
from baatcheet.platform.database import Database, DatabaseUnavailable
from baatcheet.webhooks.models import message_name
from baatcheet.webhooks.policy import Answer
from baatcheet.webhooks.sending import Request

BROKEN_OFF = "The server stopped before an answer came."
DISABLED = "The webhook is disabled."

# Whoever begins an attempt holds the delivery's row: two runs of one job can't begin the same one.
_BEGIN = """
WITH target AS MATERIALIZED (
    SELECT d.id, d.webhook_id, d.user_id, d.message_id, d.event, d.body, d.attempt_count + 1 AS number,
           w.active, w.url, w.headers
    FROM webhook_deliveries d JOIN webhooks w ON w.id = d.webhook_id
    WHERE d.id = ANY($1::uuid[]) AND w.deleted_at IS NULL
      AND (d.status IN ('pending', 'failed') OR d.status = 'cancelled' AND w.active)
    ORDER BY d.id FOR UPDATE OF d
), begun AS (
    INSERT INTO webhook_attempts (delivery_id, number, user_id, error)
    SELECT t.id, t.number, t.user_id, $2 FROM target t WHERE t.active
), changed AS (
    UPDATE webhook_deliveries d
    SET attempt_count = CASE WHEN t.active THEN t.number ELSE d.attempt_count END,
        status = CASE WHEN t.active THEN 'pending' ELSE 'cancelled' END,
        error = CASE WHEN t.active THEN d.error ELSE $3 END,
        ended_at = CASE WHEN NOT t.active THEN clock_timestamp() END
    FROM target t WHERE d.id = t.id
)
SELECT t.id, t.webhook_id, t.user_id, t.message_id, t.event, t.body, t.number, t.url, t.headers::text AS headers, ARRAY(
    SELECT s.secret FROM webhook_secrets s
    WHERE s.webhook_id = t.webhook_id AND (s.expires_at IS NULL OR s.expires_at > clock_timestamp())
    ORDER BY s.id DESC LIMIT 5
) AS secrets
FROM target t WHERE t.active
"""
# The endpoint's row is written when its luck turns, not at every attempt.
_END = """
WITH answer AS MATERIALIZED (
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::int[], $4::int[], $5::int[], $6::text[], $7::text[])
        AS a(delivery, webhook, number, duration, status, response, error)
), attempt AS (
    UPDATE webhook_attempts t
    SET duration_ms = a.duration, status = a.status, response = a.response, error = a.error
    FROM answer a WHERE t.delivery_id = a.delivery AND t.number = a.number
), delivery AS (
    UPDATE webhook_deliveries d
    SET response_status = a.status, error = a.error,
        status = CASE WHEN a.error IS NULL THEN 'delivered' ELSE d.status END,
        ended_at = CASE WHEN a.error IS NULL THEN clock_timestamp() ELSE d.ended_at END
    FROM answer a WHERE d.id = a.delivery
), luck AS (
    UPDATE webhooks w SET failing_since = CASE WHEN NOT f.good THEN clock_timestamp() END
    FROM (SELECT a.webhook, bool_or(a.error IS NULL) AS good FROM answer a GROUP BY a.webhook) f
    WHERE w.id = f.webhook AND (w.failing_since IS NULL) <> f.good
)
SELECT a.delivery, w.failing_since FROM answer a LEFT JOIN webhooks w ON w.id = a.webhook
"""


@dataclass(frozen=True)
class Begun:
    """An attempt that is written down and to be made: the `number`th at its delivery."""

    webhook: UUID
    user: UUID
    number: int
    request: Request

    @property
    def delivery(self) -> UUID:
        return self.request.delivery_id


class Ledger:
    """Every method raises DatabaseUnavailable."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._beginnings: Batcher[UUID, Begun | None] = Batcher(
            self._begin_many, shared=(DatabaseUnavailable,)
        )
        self._endings: Batcher[tuple[Begun, Answer], datetime | None] = Batcher(
            self._end_many, shared=(DatabaseUnavailable,)
        )

    async def begin(self, delivery: UUID) -> Begun | None:
        """The attempt to make; None when there is none, of what is delivered, disabled or deleted.

        What was cancelled is sent again by a job that is tried again, once its webhook is active.
        """
        return await self._beginnings.submit(delivery)

    async def end(self, begun: Begun, answer: Answer) -> datetime | None:
        """Write down how an attempt ended. Since when its endpoint had done nothing but fail; None: it had not."""
        return await self._endings.submit((begun, answer))

    async def _begin_many(self, deliveries: Sequence[UUID]) -> list[Begun | Exception | None]:
        async with self._db.hot() as connection:
            rows = await connection.fetch(_BEGIN, deliveries, BROKEN_OFF, DISABLED)
        begun = {row["id"]: _begun(row) for row in rows}
        # Two jobs that are to send the same one, say after a redrive, never share an attempt.
        return [begun.pop(delivery, None) for delivery in deliveries]

    async def _end_many(self, ended: Sequence[tuple[Begun, Answer]]) -> list[datetime | Exception | None]:
        columns = zip(
            *(
                (
                    begun.delivery,
                    begun.webhook,
                    begun.number,
                    answer.duration_ms,
                    answer.status,
                    answer.response,
                    answer.error,
                )
                for begun, answer in ended
            ),
            strict=True,
        )
        async with self._db.hot() as connection:
            rows = await connection.fetch(_END, *map(list, columns))
        since = {row["delivery"]: row["failing_since"] for row in rows}
        return [since[begun.delivery] for begun, _ in ended]


def _begun(row: Mapping[str, Any]) -> Begun:
    request = Request(
        url=row["url"],
        headers=msgspec.json.decode(row["headers"], type=dict[str, str]),
        secrets=row["secrets"],
        delivery_id=row["id"],
        message_id=message_name(row["message_id"]),
        event=row["event"],
        body=row["body"].encode(),
    )
    return Begun(row["webhook_id"], row["user_id"], row["number"], request)
