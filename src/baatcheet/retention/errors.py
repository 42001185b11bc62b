"""What can go wrong with deleting a user, in words for the client."""

from uuid import UUID

from baatcheet.platform.errors import NotFound


class DeletionNotFound(NotFound):
    """There is no such deletion."""

    type = "deletion-not-found"

    def __init__(self, deletion_id: UUID) -> None:
        super().__init__(f"There is no deletion {deletion_id}.")
