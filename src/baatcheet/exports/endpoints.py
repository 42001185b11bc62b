"""`/api/v1/exports`, `/api/v1/conversations/{id}/exports`, and the links to their files."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import Response

from baatcheet.auth.access import Reader, Writer
from baatcheet.auth.idempotency import Made, Once
from baatcheet.exports.keys import export_key
from baatcheet.exports.models import Export
from baatcheet.exports.schemas import (
    AnyFormat,
    ExportMade,
    ExportOut,
    ExportPage,
    ExportStatus,
    NewArchive,
    NewExport,
)
from baatcheet.exports.service import FILES, MEDIA_TYPES, Exports
from baatcheet.jobs.models import JobRow
from baatcheet.jobs.schemas import JobOut
from baatcheet.platform.file_answers import file_answer, file_responses
from baatcheet.platform.openapi import accepted, found, problems
from baatcheet.platform.rest import LIMIT, Cursor, Id, Limit, PathId, page_fields

router = APIRouter(tags=["exports"])

TAG = {"name": "exports", "description": "Files to take away, and conversations to bring."}


def _exports(request: Request) -> Exports:
    service: Exports = request.app.state.exports
    return service


Service = Annotated[Exports, Depends(_exports)]

_MADE = {"export_id": "$response.body#/export/id"}
_LINKS = {
    "getExport": _MADE,
    "downloadExport": _MADE,
    "deleteExport": _MADE,
    "getJob": {"job_id": "$response.body#/job/id"},
}
_ID = {"export_id": "$response.body#/id"}
_FILE = file_responses(
    "application/pdf", "text/markdown", "application/json", "text/plain", "application/zip"
)


def _made(row: Export, job: JobRow) -> Made[ExportMade]:
    answer = ExportMade(
        export=ExportOut.model_validate(row),
        job=JobOut.of(job),
        message="The export is being made in the background.",
    )
    return Made(answer, f"/api/v1/exports/{row.id}")


async def _shown(exports: Exports, row: Export) -> ExportOut:
    """An export with a link to its file."""
    return ExportOut.model_validate(row).model_copy(update={"download": await exports.link(row)})


@router.post(
    "/api/v1/conversations/{conversation_id}/exports",
    summary="Export a conversation",
    status_code=202,
    response_model=ExportMade,
    responses=accepted("The export, and the job that makes it.", _LINKS) | problems(404, 409, body=True),
)
async def create_export(
    who: Writer, conversation_id: PathId, body: NewExport, exports: Service, once: Once
) -> Response:
    """As it is now: what is said later is not in the file."""
    options = {"time_zone": body.time_zone, "paper": body.paper, "urdu": body.urdu}

    async def make(session: AsyncSession) -> Made[ExportMade]:
        row, job = await exports.create(
            session, who, conversation_id, format=body.format, branch=body.branch, options=options
        )
        return _made(row, job)

    return await once.run(who, body, ExportMade, make, status=202)


@router.post(
    "/api/v1/exports",
    summary="Export all your data",
    status_code=202,
    response_model=ExportMade,
    responses=accepted("The export, and the job that makes it.", _LINKS) | problems(409, body=True),
)
async def create_archive(who: Writer, body: NewArchive, exports: Service, once: Once) -> Response:
    """A ZIP archive: every conversation in a form that can be imported again, and everything else as JSON."""

    async def make(session: AsyncSession) -> Made[ExportMade]:
        return _made(*await exports.create_archive(session, who, files=body.files))

    return await once.run(who, body, ExportMade, make, status=202)


@router.get("/api/v1/exports", summary="List exports", responses=problems(400, 422))
async def list_exports(
    who: Reader,
    exports: Service,
    conversation_id: Annotated[Id | None, Query(description="Only those of this conversation.")] = None,
    status: ExportStatus | None = None,
    format: AnyFormat | None = None,  # noqa: A002 - the parameter's name
    limit: Limit = LIMIT,
    cursor: Cursor = None,
) -> ExportPage:
    """Newest first."""
    asked = {"conversation_id": conversation_id, "status": status, "format": format}
    filters = {name: value for name, value in asked.items() if value is not None}
    rows = await exports.list(who, filters=filters, limit=limit, cursor=cursor)
    shown: dict[UUID, ExportOut] = {row.id: await _shown(exports, row) for row in rows.rows}
    return ExportPage(**page_fields(rows, lambda row: shown[row.id]))


@router.get(
    "/api/v1/exports/{export_id}",
    summary="Get an export",
    responses=found("The export.", {"downloadExport": _ID, "deleteExport": _ID}) | problems(404),
)
async def get_export(who: Reader, export_id: PathId, exports: Service) -> ExportOut:
    """Every answer has a fresh link to the file, once that is there."""
    return await _shown(exports, await exports.get(who, export_id))


@router.delete(
    "/api/v1/exports/{export_id}", summary="Delete an export", status_code=204, responses=problems(404)
)
async def delete_export(who: Writer, export_id: PathId, exports: Service) -> None:
    """With its file. One that is being made is no longer made."""
    await exports.delete(who, export_id)


@router.get(
    "/api/v1/exports/{export_id}/download",
    summary="Get the file of an export",
    response_class=Response,
    responses=_FILE | problems(404, 409),
)
async def download_export(request: Request, who: Reader, export_id: PathId, exports: Service) -> Response:
    """Whole, or in part with Range."""
    return await _file(request, exports, await exports.file(who, export_id))


def _without_everywhere(responses: dict[int | str, dict[str, Any]]) -> dict[int | str, dict[str, Any]]:
    """A link asks for no token: there is nothing to be wrong with one."""
    return {status: told for status, told in responses.items() if status not in {401, 429}}


@router.get(
    FILES + "/{export_id}",
    summary="Get the file of an export by its link",
    response_class=Response,
    responses=_FILE | _without_everywhere(problems(403, 404, 409)),
)
async def open_export(
    request: Request,
    export_id: PathId,
    exports: Service,
    expires: Annotated[str, Query(description="Until when: a part of the link.")] = "",
    signature: Annotated[str, Query(description="A part of the link.")] = "",
) -> Response:
    """Without a token: the link, which `download` of an export holds, opens this one file for a while."""
    signed = {"expires": expires, "signature": signature}
    row = await exports.linked_file(request.url.path, signed, export_id)
    return await _file(request, exports, row)


async def _file(request: Request, exports: Exports, row: Export) -> Response:
    return await file_answer(
        request,
        exports.blobs,
        export_key(row.user_id, row.id),
        filename=row.filename,
        media_type=MEDIA_TYPES[row.format],
        tag=row.id.hex,
    )
