"""Rows of projects."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from baatcheet.projects.models import Project


async def by_id(session: AsyncSession, owner: UUID, project_id: UUID) -> Project | None:
    query = select(Project).where(Project.id == project_id, Project.user_id == owner)
    return (await session.scalars(query)).one_or_none()


async def hold(session: AsyncSession, owner: UUID, project_id: UUID) -> bool:
    """Whether there is such a project; it can't be deleted before this transaction ends."""
    query = select(Project.id).where(Project.id == project_id, Project.user_id == owner)
    return await session.scalar(query.with_for_update(read=True, key_share=True)) is not None


async def after(session: AsyncSession, owner: UUID, last: UUID | None, limit: int) -> Sequence[Project]:
    """Newest first."""
    query = select(Project).where(Project.user_id == owner).order_by(Project.id.desc()).limit(limit)
    if last is not None:
        query = query.where(Project.id < last)
    return (await session.scalars(query)).all()


async def change(
    session: AsyncSession, owner: UUID, project_id: UUID, fields: Mapping[str, Any]
) -> Project | None:
    changed = (
        update(Project)
        .where(Project.id == project_id, Project.user_id == owner)
        .values(**fields, updated_at=func.clock_timestamp())
        .returning(Project)
    )
    return (await session.scalars(changed)).one_or_none()


async def remove(session: AsyncSession, owner: UUID, project_id: UUID) -> bool:
    """Whether there was one."""
    removed = delete(Project).where(Project.id == project_id, Project.user_id == owner).returning(Project.id)
    return await session.scalar(removed) is not None
