"""Tables of the search index. Nothing reads or writes them but `store` and `indexing`."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    PrimaryKeyConstraint,
    Sequence,
    Text,
    Uuid,
    func,
)
from sqlalchemy.orm import Mapped, mapped_column

from baatcheet.auth.models import Timestamp
from baatcheet.platform.database import Base

segment_numbers = Sequence("search_segment_seq", metadata=Base.metadata)


def _of_segment() -> ForeignKeyConstraint:
    return ForeignKeyConstraint(
        ["user_id", "segment"], ["search_segments.user_id", "search_segments.segment"], ondelete="CASCADE"
    )


class FreshDocument(Base):
    """What is in no segment yet, a row each time that it is written: a message, or a conversation's title.

    One of the kind "everything" stands for all that the user has.
    """

    __tablename__ = "search_fresh"
    __table_args__ = (CheckConstraint("kind IN ('message', 'title', 'everything')", name="kind"),)

    user_id: Mapped[UUID] = mapped_column(primary_key=True)
    place: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    kind: Mapped[str] = mapped_column(Text)
    id: Mapped[UUID]
    conversation_id: Mapped[UUID | None]
    created_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.clock_timestamp())


class RemovedConversation(Base):
    """A deleted conversation that segments may still have documents of."""

    __tablename__ = "search_removed"

    user_id: Mapped[UUID] = mapped_column(primary_key=True)
    conversation_id: Mapped[UUID] = mapped_column(primary_key=True)


class SearchSegment(Base):
    """A segment never changes. Its columns are those of `segments.Columns`."""

    __tablename__ = "search_segments"

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    segment: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    count: Mapped[int]
    occurrences: Mapped[int] = mapped_column(BigInteger)
    oldest: Mapped[datetime] = mapped_column(Timestamp)
    newest: Mapped[datetime] = mapped_column(Timestamp)
    created: Mapped[bytes]
    conversations: Mapped[bytes]
    conversation_ids: Mapped[bytes]


class SegmentDocuments(Base):
    """Sixty-four documents of a segment; the last row may have fewer."""

    __tablename__ = "search_documents"
    __table_args__ = (_of_segment(),)

    user_id: Mapped[UUID] = mapped_column(primary_key=True)
    segment: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    block: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    ids: Mapped[list[UUID]] = mapped_column(ARRAY(Uuid))
    parts: Mapped[list[int]] = mapped_column(ARRAY(BigInteger))


class SegmentTerms(Base):
    """A chunk of a segment's terms, in the form that `postings` describes."""

    __tablename__ = "search_terms"
    __table_args__ = (
        PrimaryKeyConstraint("user_id", "segment", "first", name="idx_message_content_search"),
        _of_segment(),
    )

    user_id: Mapped[UUID]
    segment: Mapped[int] = mapped_column(BigInteger, autoincrement=False)
    first: Mapped[str] = mapped_column(Text(collation="C"))
    payload: Mapped[bytes]


class SegmentWords(Base):
    """A segment's words that begin with one letter, joined by line feeds."""

    __tablename__ = "search_words"
    __table_args__ = (_of_segment(),)

    user_id: Mapped[UUID] = mapped_column(primary_key=True)
    initial: Mapped[str] = mapped_column(Text(collation="C"), primary_key=True)
    segment: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    words: Mapped[str] = mapped_column(Text)


class MessagePiece(Base):
    """A piece of a message of more than one, as it was written."""

    __tablename__ = "search_pieces"

    message_id: Mapped[UUID] = mapped_column(ForeignKey("messages.id", ondelete="CASCADE"), primary_key=True)
    part: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    user_id: Mapped[UUID]
    content: Mapped[str] = mapped_column(Text)


class IndexingLease(Base):
    """Until when one worker does a user's indexing. It saves work; what keeps the index right is elsewhere."""

    __tablename__ = "search_leases"

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    until: Mapped[datetime] = mapped_column(Timestamp)
