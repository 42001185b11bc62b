"""Projects: folders of conversations."""

from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from baatcheet.auth.principal import Principal
from baatcheet.kit.ids import new_id
from baatcheet.kit.pagination import Slice, decode, slice_of
from baatcheet.platform.database import Database
from baatcheet.platform.errors import NotFound
from baatcheet.projects import repository
from baatcheet.projects.models import Project

_LIST = "projects"


class ProjectNotFound(NotFound):
    """There is no such project."""

    type = "project-not-found"
    openai_code = "project_not_found"

    def __init__(self, project_id: UUID, *, param: str | None = None) -> None:
        super().__init__(f"There is no project {project_id}.", param=param)


async def hold_project(session: AsyncSession, who: Principal, project_id: UUID) -> None:
    """Keep a project of `who` there until the transaction ends. Raises ProjectNotFound."""
    if not await repository.hold(session, who.user_id, project_id):
        raise ProjectNotFound(project_id, param="project_id")


class Projects:
    """One user's projects. What is not theirs is not there: ProjectNotFound."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def create(self, session: AsyncSession, who: Principal, *, name: str, description: str) -> Project:
        project = Project(id=new_id(), user_id=who.user_id, name=name, description=description)
        session.add(project)
        await session.flush()
        return project

    async def list(self, who: Principal, *, limit: int, cursor: str | None) -> Slice[Project]:
        """Newest first. Raises BadCursor."""
        last = decode(_LIST, cursor, UUID) if cursor is not None else None
        async with self._db.tenant(who.user_id) as session:
            rows = await repository.after(session, who.user_id, last, limit + 1)
        return slice_of(_LIST, rows, limit, lambda row: row.id)

    async def get(self, who: Principal, project_id: UUID) -> Project:
        async with self._db.tenant(who.user_id) as session:
            project = await repository.by_id(session, who.user_id, project_id)
        if project is None:
            raise ProjectNotFound(project_id)
        return project

    async def update(self, who: Principal, project_id: UUID, fields: dict[str, Any]) -> Project:
        """Change `name`, `description`."""
        if not fields:
            return await self.get(who, project_id)
        async with self._db.tenant(who.user_id) as session:
            project = await repository.change(session, who.user_id, project_id, fields)
        if project is None:
            raise ProjectNotFound(project_id)
        return project

    async def delete(self, who: Principal, project_id: UUID) -> None:
        """Its conversations stay, in no project."""
        async with self._db.tenant(who.user_id) as session:
            if not await repository.remove(session, who.user_id, project_id):
                raise ProjectNotFound(project_id)
