"""Search as clients see it."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import Field

from baatcheet.platform.rest import Out, Page

Kind = Literal["message", "title"]


class SnippetOut(Out):
    """The part of a text that was found."""

    text: str = Field(description="Plain text; `…` where it was cut.")
    highlights: list[tuple[int, int]] = Field(
        description="Where what was looked for stands in `text`: first character and the one after the last."
    )


class FoundConversation(Out):
    """The conversation that a hit is in."""

    id: UUID
    title: str


class FoundMessage(Out):
    """The message that was found."""

    id: UUID
    role: str
    model: str | None
    created_at: datetime


class Hit(Out):
    """A message or a title that was found."""

    kind: Kind
    conversation: FoundConversation
    message: FoundMessage | None = Field(description="null where the title was found.")
    snippet: SnippetOut
    url: str = Field(
        description="The messages around the one that was found, on its branch; of a title, the conversation."
    )
    hits: int | None = Field(
        description="With `group=conversation`: how many were found in this conversation."
    )


class Correction(Out):
    """A word that nothing has, and the words that were looked for in its place."""

    word: str
    instead: list[str]


class SearchPage(Page[Hit]):
    """What was found, the best or the newest first."""

    corrections: list[Correction] = Field(
        description="Words that nothing has, and that were taken for mistyped. Empty: all was looked for as it stands."
    )
    ignored: int = Field(description="How many words beyond the 32nd were not looked for.")
    unindexed: int = Field(
        description="Messages that came in a moment ago, too many to be looked through; they will be found soon."
    )
