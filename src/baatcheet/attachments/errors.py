"""What can go wrong with attachments, in words for their client."""

from uuid import UUID

from baatcheet.platform.errors import Conflict, Invalid, NotFound


class AttachmentNotFound(NotFound):
    """There is no such attachment."""

    type = "attachment-not-found"
    openai_code = "attachment_not_found"

    def __init__(self, attachment_id: UUID | str, *, param: str | None = None) -> None:
        super().__init__(f"There is no attachment {attachment_id}.", param=param)


class PageNotFound(NotFound):
    """The attachment has no such page."""

    type = "page-not-found"
    openai_code = "page_not_found"


class AttachmentBusy(Conflict):
    """This attachment is being read."""

    type = "attachment-busy"
    openai_code = "attachment_busy"


class AttachmentNotReady(Conflict):
    """The text of this attachment is not there yet."""

    type = "attachment-not-ready"
    openai_code = "attachment_not_ready"


class AttachmentUnreadable(Invalid):
    """This attachment could not be read."""

    type = "attachment-unreadable"
    openai_code = "attachment_unreadable"
