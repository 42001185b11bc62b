"""`/api/v1/webhooks`."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import Response

from baatcheet.auth.access import Reader, Writer
from baatcheet.auth.idempotency import Made, Once
from baatcheet.platform.openapi import created, found, problems
from baatcheet.platform.rest import LIMIT, Body, Cursor, Limit, PathId, changes, page_fields
from baatcheet.webhooks.deliveries import Deliveries
from baatcheet.webhooks.schemas import (
    AttemptOut,
    DeliveryDetails,
    DeliveryOut,
    DeliveryPage,
    MadeWebhook,
    NewWebhook,
    Replayed,
    ReplayRange,
    RotatedSecret,
    Status,
    WebhookChanges,
    WebhookOut,
    WebhookPage,
)
from baatcheet.webhooks.service import Webhooks

router = APIRouter(prefix="/api/v1/webhooks", tags=["webhooks"])


def _webhooks(request: Request) -> Webhooks:
    service: Webhooks = request.app.state.webhooks
    return service


def _deliveries(request: Request) -> Deliveries:
    service: Deliveries = request.app.state.deliveries
    return service


Service = Annotated[Webhooks, Depends(_webhooks)]
DeliveryService = Annotated[Deliveries, Depends(_deliveries)]

_ID = {"webhook_id": "$response.body#/id"}
_LINKS = dict.fromkeys(
    (
        "getWebhook",
        "updateWebhook",
        "deleteWebhook",
        "rotateWebhookSecret",
        "testWebhook",
        "listDeliveries",
        "replayDeliveries",
    ),
    _ID,
)
_DELIVERY = {"webhook_id": "$response.body#/webhook_id", "delivery_id": "$response.body#/id"}
_DELIVERY_LINKS = {"getDelivery": _DELIVERY, "replayDelivery": _DELIVERY}


class Nothing(Body):
    """No body."""


@router.post(
    "",
    summary="Make a webhook",
    status_code=201,
    response_model=MadeWebhook,
    responses=created("The webhook; its secret is shown this once.", _LINKS) | problems(409, body=True),
)
async def create_webhook(who: Writer, body: NewWebhook, webhooks: Service, once: Once) -> Response:
    """Its address is called with a signed POST for every event that it asks for, and that is yours."""

    async def make(session: AsyncSession) -> Made[MadeWebhook]:
        row, secret = await webhooks.create(session, who, body.model_dump())
        shown: dict[str, Any] = WebhookOut.model_validate(row).model_dump()
        return Made(
            MadeWebhook(**shown, secret=secret),
            f"/api/v1/webhooks/{row.id}",
            kept=MadeWebhook(**shown, secret=None),
        )

    return await once.run(who, body, MadeWebhook, make)


@router.get("", summary="List webhooks", responses=problems(400, 422))
async def list_webhooks(
    who: Reader, webhooks: Service, limit: Limit = LIMIT, cursor: Cursor = None
) -> WebhookPage:
    """Newest first."""
    rows = await webhooks.list(who, limit=limit, cursor=cursor)
    return WebhookPage(**page_fields(rows, WebhookOut.model_validate))


@router.get(
    "/{webhook_id}",
    summary="Get a webhook",
    responses=found("The webhook.", {name: _ID for name in _LINKS if name != "getWebhook"}) | problems(404),
)
async def get_webhook(who: Reader, webhook_id: PathId, webhooks: Service) -> WebhookOut:
    return WebhookOut.model_validate(await webhooks.get(who, webhook_id))


@router.patch("/{webhook_id}", summary="Change a webhook", responses=problems(404, body=True))
async def update_webhook(
    who: Writer, webhook_id: PathId, body: WebhookChanges, webhooks: Service
) -> WebhookOut:
    """`"active": true` enables one that was disabled, and forgets how long it has failed."""
    return WebhookOut.model_validate(await webhooks.update(who, webhook_id, changes(body)))


@router.delete("/{webhook_id}", summary="Delete a webhook", status_code=204, responses=problems(404))
async def delete_webhook(who: Writer, webhook_id: PathId, webhooks: Service) -> None:
    """With its deliveries. What was still to be sent is not."""
    await webhooks.delete(who, webhook_id)


@router.post(
    "/{webhook_id}/rotate",
    summary="Give a webhook a new secret",
    status_code=201,
    response_model=RotatedSecret,
    responses=created(
        "The secret, shown this once.", {"getWebhook": {"webhook_id": "$response.body#/webhook_id"}}
    )
    | problems(404, 409, 422, 400),
)
async def rotate_webhook_secret(who: Writer, webhook_id: PathId, webhooks: Service, once: Once) -> Response:
    """For a day, unless the operator says otherwise, deliveries are signed with the old one too."""

    async def make(session: AsyncSession) -> Made[RotatedSecret]:
        secret, expires_at = await webhooks.rotate(session, who, webhook_id)
        shown: dict[str, Any] = {"webhook_id": webhook_id, "previous_expires_at": expires_at}
        return Made(
            RotatedSecret(**shown, secret=secret),
            f"/api/v1/webhooks/{webhook_id}",
            kept=RotatedSecret(**shown, secret=None),
        )

    return await once.run(who, Nothing(), RotatedSecret, make)


@router.post(
    "/{webhook_id}/test",
    summary="Send a test event to a webhook",
    status_code=201,
    response_model=DeliveryOut,
    responses=created("The delivery, which is on its way.", _DELIVERY_LINKS) | problems(404, 409, 422, 400),
)
async def test_webhook(who: Writer, webhook_id: PathId, deliveries: DeliveryService, once: Once) -> Response:
    """A `webhook.test`, now, whichever events it asks for. What came of it is in the delivery."""

    async def make(session: AsyncSession) -> Made[DeliveryOut]:
        row = DeliveryOut.model_validate(await deliveries.test(session, who, webhook_id))
        return Made(row, f"/api/v1/webhooks/{webhook_id}/deliveries/{row.id}")

    return await once.run(who, Nothing(), DeliveryOut, make)


@router.get("/{webhook_id}/deliveries", summary="List deliveries", responses=problems(400, 404, 422))
async def list_deliveries(
    who: Reader,
    webhook_id: PathId,
    deliveries: DeliveryService,
    status: Annotated[Status | None, Query(description="Left out: all.")] = None,
    event: Annotated[
        str | None,
        Query(
            max_length=100,
            pattern=r"^(\*|[a-z_]+\.(\*|[a-z_]+))$",
            description="A type like `turn.completed` or a group like `turn.*`; left out: all.",
        ),
    ] = None,
    limit: Limit = LIMIT,
    cursor: Cursor = None,
) -> DeliveryPage:
    """Newest first."""
    rows = await deliveries.list(who, webhook_id, status=status, event=event, limit=limit, cursor=cursor)
    return DeliveryPage(**page_fields(rows, DeliveryOut.model_validate))


@router.get(
    "/{webhook_id}/deliveries/{delivery_id}",
    summary="Get a delivery",
    responses=found("The delivery.", {"replayDelivery": _DELIVERY}) | problems(404),
)
async def get_delivery(
    who: Reader, webhook_id: PathId, delivery_id: PathId, deliveries: DeliveryService
) -> DeliveryDetails:
    """With what is sent, and every attempt with what was answered."""
    row, attempts = await deliveries.get(who, webhook_id, delivery_id)
    shown = DeliveryOut.model_validate(row).model_dump()
    tried = [AttemptOut.model_validate(one) for one in attempts]
    return DeliveryDetails(**shown, body=row.body, attempts=tried)


@router.post(
    "/{webhook_id}/deliveries/{delivery_id}/replay",
    summary="Send a delivery again",
    status_code=202,
    responses=problems(404, 409),
)
async def replay_delivery(
    who: Writer, webhook_id: PathId, delivery_id: PathId, deliveries: DeliveryService
) -> DeliveryOut:
    """Under the same id and with the same body, whether it failed or not; one that waits for an attempt, at once."""
    return DeliveryOut.model_validate(await deliveries.replay(who, webhook_id, delivery_id))


@router.post(
    "/{webhook_id}/replay",
    summary="Send many deliveries again",
    status_code=202,
    responses=problems(404, 409, body=True),
)
async def replay_deliveries(
    who: Writer, webhook_id: PathId, body: ReplayRange, deliveries: DeliveryService
) -> Replayed:
    """Those of a time that ended as `status` says, the oldest first, 1,000 at once."""
    rows = await deliveries.replay_range(
        who, webhook_id, since=body.since, until=body.until, status=body.status, cursor=body.cursor
    )
    return Replayed(
        replayed=len(rows.rows), next_cursor=rows.next_cursor, has_more=rows.next_cursor is not None
    )
