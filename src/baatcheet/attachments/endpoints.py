"""`/api/v1/attachments`, `/api/v1/ocr/engines`."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import Response, StreamingResponse

from baatcheet.attachments import rendering
from baatcheet.attachments.jobs import Extraction
from baatcheet.attachments.keys import file_key
from baatcheet.attachments.kinds import KINDS, TAKEN, kind_of_head
from baatcheet.attachments.schemas import (
    AttachmentAccepted,
    AttachmentOut,
    AttachmentPage,
    AttachmentStatus,
    AttachmentSummary,
    EngineList,
    EngineOut,
    PageList,
    PageOut,
    ReadAgain,
    UploadedFile,
)
from baatcheet.attachments.service import PATH, SHOWN_CHARACTERS, Accepted, Attachments
from baatcheet.auth.access import Reader, Writer
from baatcheet.auth.idempotency import Made, Once
from baatcheet.jobs.schemas import JobOut
from baatcheet.kit.file_names import content_disposition
from baatcheet.platform.file_answers import file_answer, file_responses
from baatcheet.platform.openapi import Responses, accepted, found, problems
from baatcheet.platform.rest import LIMIT, Cursor, Limit, PathId, page_fields
from baatcheet.platform.uploads import receive_upload

TAG = {"name": "attachments", "description": "Pictures and documents, and the text that is in them."}

router = APIRouter(prefix=PATH, tags=["attachments"])
engines_router = APIRouter(prefix="/api/v1/ocr", tags=["attachments"])


def _attachments(request: Request) -> Attachments:
    service: Attachments = request.app.state.attachments
    return service


Service = Annotated[Attachments, Depends(_attachments)]
PageNumber = Annotated[int, Path(ge=1, le=1_000_000, description="From 1.", examples=[1])]

_MADE = {"attachment_id": "$response.body#/attachment/id"}
_LINKS = {
    "getAttachment": _MADE,
    "getAttachmentText": _MADE,
    "deleteAttachment": _MADE,
    "getJob": {"job_id": "$response.body#/job/id"},
}
_ID = {"attachment_id": "$response.body#/id"}
_FOUND = dict.fromkeys(("getAttachmentText", "downloadAttachment", "deleteAttachment"), _ID)
_TEXT: Responses = {
    200: {"description": "The text.", "content": {"text/plain": {"schema": {"type": "string"}}}}
}
_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "title": "AttachmentUpload",
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {
                            "type": "string",
                            "format": "binary",
                            "description": f"One of {TAKEN}, as its bytes tell.",
                        }
                    },
                }
            }
        },
    }
}


@router.post(
    "",
    summary="Upload a picture or a document",
    status_code=202,
    response_model=AttachmentAccepted,
    responses=accepted("The attachment, and the job that reads it.", _LINKS) | problems(409, body=True),
    openapi_extra=_FORM,
)
async def create_attachment(request: Request, who: Writer, attachments: Service, once: Once) -> Response:
    """Its text is found in the background: follow the job, or wait for the event `image.ocr_completed`.

    The same file again answers the attachment that is there, and makes no new one.
    """
    async with attachments.blobs.scratch() as folder:
        received = await receive_upload(request, folder, attachments.limits, kind_of=kind_of_head)
        new = await attachments.told(received)
        same = UploadedFile(sha256=received.sha256, filename=received.filename)
        kept = await attachments.keep(who, new)
        used = False

        async def make(session: AsyncSession) -> Made[AttachmentAccepted]:
            nonlocal used
            done = await attachments.create(session, who, kept, new)
            used = done.attachment.id == kept.id
            return _made(done)

        try:
            return await once.run(who, same, AttachmentAccepted, make, status=202)
        finally:
            if not used:  # the file is there already, or nothing came of it
                await attachments.drop(who, kept.id)


def _made(done: Accepted) -> Made[AttachmentAccepted]:
    answer = AttachmentAccepted(
        attachment=AttachmentSummary.model_validate(done.attachment),
        job=JobOut.of(done.job) if done.job is not None else None,
        message=done.message,
    )
    return Made(answer, f"{PATH}/{done.attachment.id}")


@router.get("", summary="List attachments", responses=problems(400, 422))
async def list_attachments(
    who: Reader,
    attachments: Service,
    status: AttachmentStatus | None = None,
    limit: Limit = LIMIT,
    cursor: Cursor = None,
) -> AttachmentPage:
    """Newest first, without their texts."""
    filters = {"status": status} if status is not None else {}
    rows = await attachments.list(who, filters=filters, limit=limit, cursor=cursor)
    return AttachmentPage(**page_fields(rows, AttachmentSummary.model_validate))


@router.get(
    "/{attachment_id}",
    summary="Get an attachment",
    responses=found("The attachment.", _FOUND) | problems(404),
)
async def get_attachment(who: Reader, attachment_id: PathId, attachments: Service) -> AttachmentOut:
    """With its text, once that is there."""
    row, text = await attachments.text(who, attachment_id, SHOWN_CHARACTERS)
    return AttachmentOut(
        **AttachmentSummary.model_validate(row).model_dump(),
        extracted_text=text,
        extracted_text_complete=text is not None and len(text) < SHOWN_CHARACTERS,
    )


@router.delete("/{attachment_id}", summary="Delete an attachment", status_code=204, responses=problems(404))
async def delete_attachment(who: Writer, attachment_id: PathId, attachments: Service) -> None:
    """With its file and its text. Messages keep the text that it brought to them."""
    await attachments.delete(who, attachment_id)


@router.get(
    "/{attachment_id}/text",
    summary="Get the whole text of an attachment",
    response_class=Response,
    responses=_TEXT | problems(404, 409),
)
async def get_attachment_text(who: Reader, attachment_id: PathId, attachments: Service) -> Response:
    """As plain text, with an empty line between two pages."""
    whole = await attachments.whole_text(who, attachment_id)
    headers = {
        "content-disposition": content_disposition(whole.name, inline=True),
        "content-length": str(whole.size),
    }
    return StreamingResponse(whole.pieces, headers=headers, media_type="text/plain; charset=utf-8")


@router.get(
    "/{attachment_id}/pages",
    summary="List the pages of an attachment",
    response_model=PageList,
    responses=problems(400, 404, 409, 422),
)
async def list_attachment_pages(
    who: Reader,
    attachment_id: PathId,
    attachments: Service,
    limit: Annotated[int, Query(ge=1, le=50, description="How many to answer at most.")] = 10,
    cursor: Cursor = None,
) -> Response:
    """Each with its text, and where its lines and words are. Of large pages there are fewer than `limit`."""
    reading, found = await attachments.pages(who, attachment_id, limit=limit, cursor=cursor)
    pieces = rendering.page_list(attachments, who, attachment_id, reading, found)
    return StreamingResponse(pieces, media_type="application/json")


@router.get(
    "/{attachment_id}/pages/{number}",
    summary="Get a page of an attachment",
    response_model=PageOut,
    responses=problems(404, 409, 422),
)
async def get_attachment_page(
    who: Reader, attachment_id: PathId, number: PageNumber, attachments: Service
) -> Response:
    """Its text, and where its lines and words are."""
    reading, page = await attachments.page(who, attachment_id, number)
    pieces = rendering.page(attachments, who, attachment_id, reading, page)
    return StreamingResponse(pieces, media_type="application/json")


@router.get(
    "/{attachment_id}/content",
    summary="Get the file of an attachment",
    response_class=Response,
    responses=file_responses(*(one.media_type for one in KINDS.values())) | problems(404),
)
async def download_attachment(
    request: Request, who: Reader, attachment_id: PathId, attachments: Service
) -> Response:
    """As it was uploaded; whole, or in part with Range."""
    row = await attachments.get(who, attachment_id)
    return await file_answer(
        request,
        attachments.blobs,
        file_key(row.user_id, row.id),
        filename=row.filename,
        media_type=row.media_type,
        tag=row.sha256,
    )


@router.post(
    "/{attachment_id}/ocr",
    summary="Read an attachment once more",
    status_code=202,
    response_model=AttachmentAccepted,
    responses=accepted("The attachment, and the job that reads it.", _LINKS) | problems(404, 409, body=True),
)
async def read_attachment_again(
    who: Writer, attachment_id: PathId, body: ReadAgain, attachments: Service, once: Once
) -> Response:
    """In other languages, or by another engine. What was read before stays until this has succeeded."""
    wanted = Extraction(
        who.user_id, attachment_id, tuple(dict.fromkeys(body.languages)), body.engine, body.every_page
    )

    async def make(session: AsyncSession) -> Made[AttachmentAccepted]:
        return _made(await attachments.read_again(session, who, attachment_id, wanted))

    return await once.run(who, body, AttachmentAccepted, make, status=202)


@engines_router.get("/engines", summary="List what reads pictures", responses=problems())
async def list_ocr_engines(who: Reader, attachments: Service) -> EngineList:
    """In the order in which they are asked, each with whether it can be, and why not."""
    return EngineList(
        data=[
            EngineOut(
                name=one.name,
                available=one.available,
                reason=one.reason,
                languages=list(one.languages),
            )
            for one in attachments.engines()
        ]
    )
