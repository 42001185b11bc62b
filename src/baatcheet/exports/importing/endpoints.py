"""`/api/v1/conversations/import` and `/api/v1/imports`."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import Response

from baatcheet.auth.access import Reader, Writer
from baatcheet.auth.idempotency import Made, Once
from baatcheet.exports.importing.receiving import receive
from baatcheet.exports.importing.service import Counted, Imports
from baatcheet.exports.json_format import FORMAT, VERSION
from baatcheet.exports.schemas import (
    Duplicates,
    ImportedOut,
    ImportedPage,
    ImportMade,
    ImportOrder,
    ImportOut,
    ImportPage,
)
from baatcheet.jobs.schemas import JobOut
from baatcheet.kit.ids import new_id
from baatcheet.platform.openapi import accepted, found, problems
from baatcheet.platform.rest import LIMIT, Cursor, Id, Limit, PathId, page_fields
from baatcheet.platform.settings import ExportSettings
from baatcheet.platform.uploads import body_limit

router = APIRouter(prefix="/api/v1", tags=["exports"])

PATH = "/api/v1/conversations/import"


def body_limits(settings: ExportSettings) -> dict[str, int]:
    """Bytes that a body may have, where that is more than elsewhere."""
    return {PATH: body_limit(settings.max_import_bytes)}


def _imports(request: Request) -> Imports:
    service: Imports = request.app.state.imports
    return service


Service = Annotated[Imports, Depends(_imports)]

_MADE = {"import_id": "$response.body#/import/id"}
_LINKS = {
    "getImport": _MADE,
    "listImportedConversations": _MADE,
    "getJob": {"job_id": "$response.body#/job/id"},
}
_ID = {"import_id": "$response.body#/id"}

_EXAMPLE = {
    "format": FORMAT,
    "version": VERSION,
    "conversations": [
        {
            "title": "Trip to Hunza",
            "messages": [
                {"id": "1", "role": "user", "content": "Where is Attabad Lake?"},
                {"id": "2", "parent_id": "1", "role": "assistant", "content": "In Gojal, upper Hunza."},
            ],
        }
    ],
}
_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "description": "BaatCheet's export format, or ChatGPT's conversations.json.",
                "type": ["object", "array"],
                "examples": [_EXAMPLE],
            }
        },
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file"],
                "properties": {
                    "file": {
                        "type": "string",
                        "format": "binary",
                        "description": "The same as a file, or a ZIP: of all one's data, or ChatGPT's.",
                    }
                },
            }
        },
    },
}


def _shown(one: Counted) -> ImportOut:
    row = one.row
    fields = {name: getattr(row, name) for name in ImportOut.model_fields if hasattr(row, name)}
    return ImportOut(**fields, **one.counts._asdict())


@router.post(
    "/conversations/import",
    summary="Import conversations",
    status_code=202,
    response_model=ImportMade,
    responses=accepted("The import, and the job that does it.", _LINKS) | problems(404, 409, body=True),
    openapi_extra={"requestBody": _BODY},
)
async def import_conversations(
    request: Request,
    who: Writer,
    imports: Service,
    once: Once,
    duplicates: Annotated[
        Duplicates,
        Query(
            description="Of conversations that were imported before, unchanged, and are still there: `skip` them, or "
            "make a `copy`."
        ),
    ] = "skip",
    project_id: Annotated[Id | None, Query(description="Put all of them into this project.")] = None,
) -> Response:
    """With their branches and times, under new ids; see docs/reference/export-format.md."""
    import_id = new_id()
    made = False
    async with imports.blobs.scratch() as folder:
        uploaded = await receive(request, folder, imports.limit)
        await imports.keep(who, import_id, uploaded)

    async def make(session: AsyncSession) -> Made[ImportMade]:
        nonlocal made
        one, job = await imports.create(
            session, who, import_id, uploaded, duplicates=duplicates, project_id=project_id
        )
        made = True
        answer = ImportMade(
            upload=_shown(one),
            job=JobOut.of(job),
            message="The conversations are being imported in the background.",
        )
        return Made(answer, f"/api/v1/imports/{import_id}")

    order = ImportOrder(sha256=uploaded.sha256, duplicates=duplicates, project_id=project_id)
    try:
        return await once.run(who, order, ImportMade, make, status=202)
    finally:
        if not made:  # it was asked for before, or nothing came of it
            await imports.drop(who, import_id)


@router.get("/imports", summary="List imports", responses=problems(400, 422))
async def list_imports(
    who: Reader, imports: Service, limit: Limit = LIMIT, cursor: Cursor = None
) -> ImportPage:
    """Newest first."""
    rows = await imports.list(who, limit=limit, cursor=cursor)
    return ImportPage(**page_fields(rows, _shown))


@router.get(
    "/imports/{import_id}",
    summary="Get an import",
    responses=found("The import.", {"listImportedConversations": _ID}) | problems(404),
)
async def get_import(who: Reader, import_id: PathId, imports: Service) -> ImportOut:
    """The counts grow while it is under way."""
    return _shown(await imports.get(who, import_id))


@router.get(
    "/imports/{import_id}/conversations",
    summary="List what was imported",
    responses=problems(400, 404, 422),
)
async def list_imported_conversations(
    who: Reader,
    import_id: PathId,
    imports: Service,
    status: Literal["imported", "skipped", "failed"] | None = None,
    limit: Limit = LIMIT,
    cursor: Cursor = None,
) -> ImportedPage:
    """In the order of the upload: which conversations were made, and why the others were not."""
    rows = await imports.conversations(who, import_id, status=status, limit=limit, cursor=cursor)
    return ImportedPage(**page_fields(rows, ImportedOut.model_validate))
