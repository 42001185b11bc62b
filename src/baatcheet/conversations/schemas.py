"""Conversations and messages as clients send and see them."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field

from baatcheet.kit.text import is_invisible, uncontrolled, unstorable
from baatcheet.platform.rest import Body, Flag, Id, Line, Out, Page, Text, absent

MAX_SYSTEM_PROMPT = 1024 * 1024  # bytes
Role = Literal["system", "developer", "user", "assistant", "tool"]

MAX_TAGS = 20
MAX_TAG = 64  # characters
_ID = "0190f3a2-7c1e-7d4b-9a51-3f0c2b8e6d10"


def _bounded(prompt: str) -> str:
    if len(prompt.encode()) > MAX_SYSTEM_PROMPT:
        raise ValueError(f"has more than {MAX_SYSTEM_PROMPT:,} bytes")
    return prompt


def _stripped(value: object) -> object:
    return value.strip() if isinstance(value, str) else value


def _named(tag: str) -> str:
    for wrong in (
        unstorable(tag),
        uncontrolled(tag),
        "has nothing in it that can be seen" * is_invisible(tag),
    ):
        if wrong:
            raise ValueError(wrong)
    return tag


def _once_each(tags: list[str]) -> list[str]:
    return list(dict.fromkeys(tags))


Title = Annotated[Line, Field(max_length=500)]
SystemPrompt = Annotated[Text, Field(max_length=MAX_SYSTEM_PROMPT), AfterValidator(_bounded)]
Model = Annotated[Text, Field(min_length=1, max_length=200)]
Tag = Annotated[
    str, BeforeValidator(_stripped), AfterValidator(_named), Field(min_length=1, max_length=MAX_TAG)
]
Tags = Annotated[list[Tag], Field(max_length=MAX_TAGS), AfterValidator(_once_each)]


class ConversationOut(Out):
    """A conversation, without its messages."""

    id: UUID
    title: str
    system_prompt: str | None
    model: str | None
    project_id: UUID | None
    archived: bool
    pinned: bool
    tags: list[str]
    head_id: UUID | None = Field(description="The newest message of the active branch.")
    token_total: int = Field(description="Of all its messages, on every branch.")
    message_count: int
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None = Field(description="Since when it is deleted, of one that can be restored.")


class ConversationPage(Page[ConversationOut]):
    """Conversations, those changed last first."""


class NewConversation(Body):
    """A conversation to be made."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"title": "Trip to Hunza", "system_prompt": "Answer briefly."}]}
    )

    title: Title = ""
    system_prompt: SystemPrompt | None = None
    model: Model | None = Field(None, description="Left out: the server's default at every turn.")
    project_id: Id | None = None
    archived: Flag = False
    pinned: Flag = False
    tags: Tags = Field([], description="Words to find it by. Each counts once.")


class ConversationChanges(Body):
    """What to change of a conversation; what is left out stays."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"title": "Hunza in May", "pinned": True}]})

    title: Title = absent()
    system_prompt: SystemPrompt | None = None
    model: Model | None = None
    project_id: Id | None = Field(None, description="null: take it out of its project.")
    archived: Flag = absent()
    pinned: Flag = absent()
    tags: Tags = absent(description="In place of those that it has.")
    head_id: Id = absent(
        description="A message of this conversation: its branch becomes the active one.", examples=[_ID]
    )


class MessageOut(Out):
    """A message."""

    id: UUID
    conversation_id: UUID
    parent_id: UUID | None
    role: Role
    content: str
    parts: dict[str, Any] | None = Field(
        description="What is more than text (images, tool calls …), in OpenAI's form."
    )
    model: str | None = Field(description="Which model wrote it.")
    token_count: int
    finish_reason: str | None
    turn_id: UUID | None = Field(description="The turn that it belongs to.")
    created_at: datetime


class MessagePage(Page[MessageOut]):
    """Messages of one conversation."""


class MessageWithSiblings(MessageOut):
    """A message, and where its branch forks."""

    siblings: list[UUID] = Field(
        description="Every message with the same parent, this one included, oldest first."
    )


class NewMessage(Body):
    """A message to be added, without asking a model."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"role": "user", "content": "Where is Attabad Lake?"}]}
    )

    role: Literal["user", "assistant", "system"]
    content: Annotated[Text, Field(min_length=1)]
    model: Model | None = Field(None, description="Which model wrote it.")
