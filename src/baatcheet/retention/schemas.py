"""What the endpoints of deletions answer."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import Field

from baatcheet.platform.rest import Out, Page


class DeletionOut(Out):
    """A user's deletion: its receipt, once it is completed."""

    id: UUID
    user_id: UUID = Field(
        validation_alias="subject", description="The user, of whom nothing is left but this id."
    )
    requested_by: Literal["owner", "administrator"]
    status: Literal["pending", "completed"]
    rows: dict[str, int] = Field(description="How many rows were deleted, by table.")
    files: int | None = Field(description="How many files were deleted; null while they are not counted.")
    bytes: int | None = Field(description="How large these were together.")
    created_at: datetime = Field(description="When it was asked for: from then on no token was good.")
    completed_at: datetime | None = Field(description="When nothing was left.")


class DeletionMade(DeletionOut):
    """A user's deletion that was asked for."""

    receipt: str = Field(
        description="A link to this deletion that needs no token, for a year: a path on this server."
    )


class DeletionPage(Page[DeletionOut]):
    """Deletions, newest first."""
