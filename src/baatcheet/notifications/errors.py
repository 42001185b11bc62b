"""What can be wrong with a request about notifications."""

from uuid import UUID

from baatcheet.platform.errors import NotFound


class NotificationNotFound(NotFound):
    """There is no such notification."""

    type = "notification-not-found"
    openai_code = "not_found"

    def __init__(self, notification_id: UUID) -> None:
        super().__init__(f"There is no notification {notification_id}.")
