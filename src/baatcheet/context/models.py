"""Tables of summaries, of the passages that can be recalled, and of what was learned about models' tokenizers."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, BigInteger, ForeignKey, Identity, Index, Text, func, text
from sqlalchemy.dialects.postgresql import JSONB, REAL
from sqlalchemy.orm import Mapped, mapped_column

from baatcheet.auth.models import Timestamp
from baatcheet.platform.database import Base


class ContextSummary(Base):
    """What was said from a conversation's beginning up to one message: it holds on every branch with that message."""

    __tablename__ = "context_summaries"
    __table_args__ = (
        Index("idx_context_summaries_branch", "branch_id", text("depth DESC")),
        Index("idx_context_summaries_conversation", "conversation_id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    conversation_id: Mapped[UUID] = mapped_column(ForeignKey("conversations.id", ondelete="CASCADE"))
    user_id: Mapped[UUID]
    upto_id: Mapped[UUID] = mapped_column(unique=True)
    branch_id: Mapped[UUID]
    depth: Mapped[int]
    sections: Mapped[list[Any]] = mapped_column(JSONB)
    made_by: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())


class RecallPassage(Base):
    """A passage of an older message. `keys` are its terms, each hashed with the conversation's id.

    `content` is NULL when the passage is the whole message. `ordinal` and `total_length` count the passages and
    terms from the root of the tree down to this one.
    """

    __tablename__ = "recall_passages"
    __table_args__ = (
        Index("uq_recall_passages_place", "branch_id", text("depth DESC"), "part", unique=True),
        Index("idx_recall_passages_conversation", "conversation_id"),
        Index(
            "idx_recall_passages_keys", "keys", postgresql_using="gin", postgresql_with={"fastupdate": "off"}
        ),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    conversation_id: Mapped[UUID] = mapped_column(ForeignKey("conversations.id", ondelete="CASCADE"))
    user_id: Mapped[UUID]
    message_id: Mapped[UUID]
    branch_id: Mapped[UUID]
    depth: Mapped[int]
    part: Mapped[int]
    parts: Mapped[int]
    role: Mapped[str] = mapped_column(Text)
    length: Mapped[int]  # terms
    tokens: Mapped[int]
    signals: Mapped[int]
    ordinal: Mapped[int] = mapped_column(BigInteger)
    total_length: Mapped[int] = mapped_column(BigInteger)
    keys: Mapped[list[int]] = mapped_column(ARRAY(BigInteger))
    content: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(Timestamp)


class PassageEmbedding(Base):
    """A passage's vector by one embedding model."""

    __tablename__ = "passage_embeddings"

    passage_id: Mapped[int] = mapped_column(
        ForeignKey("recall_passages.id", ondelete="CASCADE"), primary_key=True
    )
    model: Mapped[str] = mapped_column(Text, primary_key=True)
    user_id: Mapped[UUID]
    embedding: Mapped[list[float]] = mapped_column(ARRAY(REAL))


class TokenCalibration(Base):
    """What was learned of a model whose tokenizer is not at hand, from the usage that its provider reports."""

    __tablename__ = "token_calibrations"

    model: Mapped[str] = mapped_column(Text, primary_key=True)
    state: Mapped[dict[str, Any]] = mapped_column(JSONB)
    updated_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())
