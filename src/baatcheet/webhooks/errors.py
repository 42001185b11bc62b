"""What can be wrong with a request about webhooks."""

from uuid import UUID

from baatcheet.platform.errors import Conflict, NotFound


class WebhookNotFound(NotFound):
    """There is no such webhook."""

    type = "webhook-not-found"
    openai_code = "webhook_not_found"

    def __init__(self, webhook_id: UUID) -> None:
        super().__init__(f"There is no webhook {webhook_id}.")


class DeliveryNotFound(NotFound):
    """There is no such delivery."""

    type = "delivery-not-found"
    openai_code = "delivery_not_found"

    def __init__(self, delivery_id: UUID) -> None:
        super().__init__(f"There is no delivery {delivery_id}.")


class WebhookDisabled(Conflict):
    """This webhook is disabled."""

    type = "webhook-disabled"
    openai_code = "webhook_disabled"

    def __init__(self) -> None:
        super().__init__(
            'Nothing is sent while it is disabled. Enable it first: PATCH it with {"active": true}.'
        )


class TooManyWebhooks(Conflict):
    """You have as many webhooks as one may have."""

    type = "too-many-webhooks"
    openai_code = "too_many_webhooks"

    def __init__(self, limit: int) -> None:
        super().__init__(f"One user may have {limit}. Delete one first, or give one of them more events.")
