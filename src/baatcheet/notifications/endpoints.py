"""`/api/v1/notifications`."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request

from baatcheet.auth.access import Reader, Writer
from baatcheet.notifications.schemas import (
    MarkedRead,
    MarkRead,
    NotificationOut,
    NotificationPage,
    PreferenceChanges,
    PreferenceList,
    PreferenceOut,
)
from baatcheet.notifications.service import Notifications
from baatcheet.notifications.wording import Kind
from baatcheet.platform.openapi import found, problems
from baatcheet.platform.rest import LIMIT, Cursor, Limit, Line, PathId, QueryFlag, changes, page_fields

TAG = {"name": "notifications", "description": "What a user is told: in a list, live, and by email."}

router = APIRouter(prefix="/api/v1/notifications", tags=["notifications"])


def _notifications(request: Request) -> Notifications:
    service: Notifications = request.app.state.notifications
    return service


Service = Annotated[Notifications, Depends(_notifications)]

_ID = {"notification_id": "$response.body#/id"}
_LINKS = {"markNotificationRead": _ID, "deleteNotification": _ID}


@router.get("", summary="List notifications", responses=problems(400, 422))
async def list_notifications(
    who: Reader,
    notifications: Service,
    unread: Annotated[QueryFlag, Query(description="Only those that are unread.")] = False,
    kind: Annotated[Kind | None, Query(description="Only those of one kind.")] = None,
    limit: Limit = LIMIT,
    cursor: Cursor = None,
) -> NotificationPage:
    """Newest first, with how many are unread in all. `notification.created` tells of new ones on the live stream."""
    listed = await notifications.listed(who, unread=unread, kind=kind, limit=limit, cursor=cursor)
    return NotificationPage(**page_fields(listed.rows, NotificationOut.model_validate), unread=listed.unread)


@router.post("/read", summary="Mark all notifications read", responses=problems(body=True))
async def mark_notifications_read(who: Writer, body: MarkRead, notifications: Service) -> MarkedRead:
    """All, or those that are not newer than `up_to`."""
    marked, unread = await notifications.mark_all_read(who, body.up_to)
    return MarkedRead(marked=marked, unread=unread)


@router.get("/preferences", summary="List what is told where", responses=problems())
async def list_notification_preferences(who: Reader, notifications: Service) -> PreferenceList:
    wanted, email_available = await notifications.preferences(who)
    return PreferenceList(
        data=[PreferenceOut.model_validate(one) for one in wanted], email_available=email_available
    )


@router.patch(
    "/preferences/{kind}", summary="Change where a kind is told", responses=problems(404, body=True)
)
async def update_notification_preference(
    who: Writer,
    kind: Annotated[Line, Path(min_length=1, max_length=100, examples=["export.completed"])],
    body: PreferenceChanges,
    notifications: Service,
) -> PreferenceOut:
    return PreferenceOut.model_validate(await notifications.prefer(who, kind, **changes(body)))


@router.get(
    "/{notification_id}",
    summary="Get a notification",
    responses=found("The notification.", _LINKS) | problems(404),
)
async def get_notification(who: Reader, notification_id: PathId, notifications: Service) -> NotificationOut:
    return NotificationOut.model_validate(await notifications.get(who, notification_id))


@router.post("/{notification_id}/read", summary="Mark a notification read", responses=problems(404))
async def mark_notification_read(
    who: Writer, notification_id: PathId, notifications: Service
) -> NotificationOut:
    return NotificationOut.model_validate(await notifications.mark_read(who, notification_id))


@router.delete(
    "/{notification_id}", summary="Delete a notification", status_code=204, responses=problems(404)
)
async def delete_notification(who: Writer, notification_id: PathId, notifications: Service) -> None:
    await notifications.delete(who, notification_id)
