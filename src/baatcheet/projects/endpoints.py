"""`/api/v1/projects`."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import Response

from baatcheet.auth.access import Reader, Writer
from baatcheet.auth.idempotency import Made, Once
from baatcheet.platform.openapi import created, found, problems
from baatcheet.platform.rest import LIMIT, Cursor, Limit, PathId, changes, page_fields
from baatcheet.projects.schemas import NewProject, ProjectChanges, ProjectOut, ProjectPage
from baatcheet.projects.service import Projects

router = APIRouter(prefix="/api/v1/projects", tags=["projects"])


def _projects(request: Request) -> Projects:
    service: Projects = request.app.state.projects
    return service


Service = Annotated[Projects, Depends(_projects)]

_ID = {"project_id": "$response.body#/id"}
_LINKS = {"getProject": _ID, "updateProject": _ID, "deleteProject": _ID, "listConversations": _ID}


@router.post(
    "",
    summary="Make a project",
    status_code=201,
    response_model=ProjectOut,
    responses=created("The project.", _LINKS) | problems(409, body=True),
)
async def create_project(who: Writer, body: NewProject, projects: Service, once: Once) -> Response:
    async def make(session: AsyncSession) -> Made[ProjectOut]:
        project = await projects.create(session, who, name=body.name, description=body.description)
        return Made(ProjectOut.model_validate(project), f"/api/v1/projects/{project.id}")

    return await once.run(who, body, ProjectOut, make)


@router.get("", summary="List projects", responses=problems(400, 422))
async def list_projects(
    who: Reader, projects: Service, limit: Limit = LIMIT, cursor: Cursor = None
) -> ProjectPage:
    """Newest first."""
    rows = await projects.list(who, limit=limit, cursor=cursor)
    return ProjectPage(**page_fields(rows, ProjectOut.model_validate))


@router.get(
    "/{project_id}",
    summary="Get a project",
    responses=found("The project.", {name: _ID for name in _LINKS if name != "getProject"}) | problems(404),
)
async def get_project(who: Reader, project_id: PathId, projects: Service) -> ProjectOut:
    return ProjectOut.model_validate(await projects.get(who, project_id))


@router.patch("/{project_id}", summary="Change a project", responses=problems(404, body=True))
async def update_project(
    who: Writer, project_id: PathId, body: ProjectChanges, projects: Service
) -> ProjectOut:
    return ProjectOut.model_validate(await projects.update(who, project_id, changes(body)))


@router.delete("/{project_id}", summary="Delete a project", status_code=204, responses=problems(404))
async def delete_project(who: Writer, project_id: PathId, projects: Service) -> None:
    """Its conversations stay, in no project."""
    await projects.delete(who, project_id)
