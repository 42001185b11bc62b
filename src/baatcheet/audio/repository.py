"""Rows of recordings and of their pieces."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import defer

from baatcheet.audio.models import Piece, Recording

_LARGE = tuple(
    defer(column, raiseload=True)
    for column in (Recording.transcription_text, Recording.segments, Recording.words)
)


async def by_id(session: AsyncSession, owner: UUID, audio_id: UUID) -> Recording | None:
    query = select(Recording).where(Recording.id == audio_id, Recording.user_id == owner)
    return (await session.scalars(query)).one_or_none()


async def after(
    session: AsyncSession, owner: UUID, last: UUID | None, limit: int, filters: Mapping[str, Any]
) -> Sequence[Recording]:
    """Newest first, without what was said in them."""
    query = select(Recording).options(*_LARGE).where(Recording.user_id == owner)
    if last is not None:
        query = query.where(Recording.id < last)
    if "status" in filters:
        query = query.where(Recording.status == filters["status"])
    return (await session.scalars(query.order_by(Recording.id.desc()).limit(limit))).all()


async def remove(session: AsyncSession, owner: UUID, audio_id: UUID) -> bool:
    """Whether there was one. Its pieces go with it."""
    removed = (
        delete(Recording).where(Recording.id == audio_id, Recording.user_id == owner).returning(Recording.id)
    )
    return await session.scalar(removed) is not None


async def begin(session: AsyncSession, owner: UUID, audio_id: UUID) -> Recording | None:
    """The recording, which is being transcribed from now on: it may have failed before."""
    begun = (
        update(Recording)
        .where(Recording.id == audio_id, Recording.user_id == owner)
        .values(status="processing", error=None)
        .returning(Recording)
    )
    return (await session.scalars(begun)).one_or_none()


async def complete(session: AsyncSession, owner: UUID, audio_id: UUID, fields: Mapping[str, Any]) -> bool:
    """Write a transcription down, in place of the pieces. Whether the recording is still there."""
    done = (
        update(Recording)
        .where(Recording.id == audio_id, Recording.user_id == owner)
        .values(**fields, status="completed", error=None, completed_at=func.clock_timestamp())
        .returning(Recording.id)
    )
    await session.execute(delete(Piece).where(Piece.audio_id == audio_id))
    return await session.scalar(done) is not None


async def end_without(session: AsyncSession, owner: UUID, audio_id: UUID, *, status: str, error: str) -> None:
    """Write down that there is no transcription, and why."""
    await session.execute(
        update(Recording)
        .where(Recording.id == audio_id, Recording.user_id == owner, Recording.status == "processing")
        .values(status=status, error=error)
    )


async def pieces_of(session: AsyncSession, owner: UUID, audio_id: UUID) -> Sequence[Piece]:
    query = select(Piece).where(Piece.audio_id == audio_id, Piece.user_id == owner)
    return (await session.scalars(query)).all()


async def keep_piece(session: AsyncSession, piece: Mapping[str, Any]) -> None:
    """Unless it is there already, or its recording is gone."""
    there = (
        select(Recording.id)
        .where(Recording.id == piece["audio_id"])
        .with_for_update(read=True, key_share=True)
    )
    if await session.scalar(there) is not None:
        await session.execute(insert(Piece).values(piece).on_conflict_do_nothing())


async def still_there(session: AsyncSession, ids: Sequence[UUID]) -> set[UUID]:
    """Those of `ids` that are recordings'."""
    return set(await session.scalars(select(Recording.id).where(Recording.id.in_(ids))))
