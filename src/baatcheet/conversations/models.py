"""Tables of conversations and their messages.

Messages form a tree: each knows its parent, and the conversation knows its head, the newest message of the
branch that is being read. Nothing is overwritten: an edit or a new reply is a new branch.
"""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, FetchedValue, ForeignKey, Index, Text, func, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Mapped, mapped_column

from baatcheet.auth.models import Timestamp
from baatcheet.kit.ids import new_id
from baatcheet.platform.database import Base


class Conversation(Base):
    __tablename__ = "conversations"
    __table_args__ = (
        Index("idx_conversation_user_updated", "user_id", text("updated_at DESC"), text("id DESC")),
        Index("idx_conversation_project", "project_id", text("updated_at DESC"), text("id DESC")),
        Index("idx_conversation_archived", "user_id", "archived", text("updated_at DESC"), text("id DESC")),
        Index(
            "idx_conversation_deleted",
            "user_id",
            text("deleted_at DESC"),
            text("id DESC"),
            postgresql_where=text("deleted_at IS NOT NULL"),
        ),
        Index(
            "idx_conversation_forgotten",
            "deleted_at",
            postgresql_where=text("deleted_at IS NOT NULL"),
        ),
        Index(
            "idx_conversation_tagged",
            "user_id",
            text("updated_at DESC"),
            text("id DESC"),
            postgresql_where=text("tags <> '{}'"),
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    project_id: Mapped[UUID | None] = mapped_column(ForeignKey("projects.id", ondelete="SET NULL"))
    title: Mapped[str] = mapped_column(Text, server_default="")
    system_prompt: Mapped[str | None] = mapped_column(Text)
    model: Mapped[str | None] = mapped_column(Text)
    archived: Mapped[bool] = mapped_column(server_default=text("false"))
    pinned: Mapped[bool] = mapped_column(server_default=text("false"))
    tags: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default=text("'{}'"))
    # Since when it is deleted. It can be restored until it is forgotten; whoever reads conversations leaves it out.
    deleted_at: Mapped[datetime | None] = mapped_column(Timestamp)
    head_id: Mapped[UUID | None]  # no foreign key: it is written in the statement that writes the message
    token_total: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    message_count: Mapped[int] = mapped_column(server_default=text("0"))
    context_version: Mapped[int] = mapped_column(server_default=text("0"))  # counts the summaries made of it
    created_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())


class Message(Base):
    """`content` is the text; `parts` holds what is more than text (images, tool calls …) in OpenAI's form."""

    __tablename__ = "messages"
    __table_args__ = (
        CheckConstraint("role IN ('system', 'developer', 'user', 'assistant', 'tool')", name="role"),
        Index("idx_message_conversation", "conversation_id", text("created_at DESC"), text("id DESC")),
        Index("idx_message_role", "conversation_id", "role", text("created_at DESC"), text("id DESC")),
        Index("idx_message_parent", "parent_id"),
        Index("idx_message_turn", "turn_id"),
        Index("idx_message_branch", "branch_id", text("depth DESC")),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    conversation_id: Mapped[UUID] = mapped_column(ForeignKey("conversations.id", ondelete="CASCADE"))
    user_id: Mapped[UUID]
    parent_id: Mapped[UUID | None]
    turn_id: Mapped[UUID | None]
    # Where it stands in the tree, set by a trigger: the first message of its branch, and the messages above it.
    branch_id: Mapped[UUID] = mapped_column(server_default=FetchedValue())
    depth: Mapped[int] = mapped_column(server_default=FetchedValue())
    role: Mapped[str] = mapped_column(Text)
    content: Mapped[str] = mapped_column(Text)
    parts: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    model: Mapped[str | None] = mapped_column(Text)
    token_count: Mapped[int] = mapped_column(server_default=text("0"))
    finish_reason: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())
