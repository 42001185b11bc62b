"""Where the files of attachments are in the store."""

from typing import Final
from uuid import UUID

from baatcheet.kit.ids import parse_id

FILES: Final = "attachments/"
VIEWS: Final = "attachment-views/"


def file_key(owner: UUID, attachment_id: UUID) -> str:
    """The file as it was uploaded."""
    return f"{FILES}{owner}/{attachment_id}"


def view_key(owner: UUID, attachment_id: UUID) -> str:
    """A picture as models are shown it: JPEG, upright, not larger than they look at, and nothing but pixels."""
    return f"{VIEWS}{owner}/{attachment_id}"


def row_of(key: str) -> UUID | None:
    """The attachment that has a file under `key`."""
    return parse_id(key.rpartition("/")[2])
