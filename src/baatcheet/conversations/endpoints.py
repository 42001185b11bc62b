"""`/api/v1/conversations` and `/api/v1/messages`."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import Response

from baatcheet.auth.access import Reader, Writer
from baatcheet.auth.idempotency import Made, Once
from baatcheet.conversations.repository import Order
from baatcheet.conversations.schemas import (
    MAX_TAG,
    ConversationChanges,
    ConversationOut,
    ConversationPage,
    MessageOut,
    MessagePage,
    MessageWithSiblings,
    NewConversation,
    NewMessage,
    Role,
)
from baatcheet.conversations.service import Conversations
from baatcheet.platform.errors import Invalid
from baatcheet.platform.openapi import created, found, problems
from baatcheet.platform.rest import LIMIT, Cursor, Id, Limit, PathId, QueryFlag, Text, changes, page_fields

router = APIRouter(prefix="/api/v1")


def _conversations(request: Request) -> Conversations:
    service: Conversations = request.app.state.conversations
    return service


Service = Annotated[Conversations, Depends(_conversations)]

_ID = {"conversation_id": "$response.body#/id"}
_LINKS = {
    "getConversation": _ID,
    "updateConversation": _ID,
    "deleteConversation": _ID,
    "restoreConversation": _ID,
    "listMessages": _ID,
    "createMessage": _ID,
}
_MESSAGE_LINKS = {
    "getMessage": {"message_id": "$response.body#/id"},
    "getConversation": {"conversation_id": "$response.body#/conversation_id"},
    "listMessages": {"conversation_id": "$response.body#/conversation_id"},
}


@router.post(
    "/conversations",
    tags=["conversations"],
    summary="Open a conversation",
    status_code=201,
    response_model=ConversationOut,
    responses=created("The conversation.", _LINKS) | problems(404, 409, body=True),
)
async def create_conversation(
    who: Writer, body: NewConversation, conversations: Service, once: Once
) -> Response:
    """Empty. A chat without a conversation opens one too: POST /api/v1/chat/completions."""

    async def make(session: AsyncSession) -> Made[ConversationOut]:
        row = await conversations.create(session, who, changes(body))
        return Made(ConversationOut.model_validate(row), f"/api/v1/conversations/{row.id}")

    return await once.run(who, body, ConversationOut, make)


@router.get(
    "/conversations", tags=["conversations"], summary="List conversations", responses=problems(400, 422)
)
async def list_conversations(
    who: Reader,
    conversations: Service,
    project_id: Annotated[Id | None, Query(description="Only those of this project.")] = None,
    archived: Annotated[QueryFlag | None, Query(description="Left out: both.")] = None,
    pinned: Annotated[QueryFlag | None, Query(description="Left out: both.")] = None,
    tag: Annotated[Text | None, Query(max_length=MAX_TAG, description="Only those with this tag.")] = None,
    deleted: Annotated[
        QueryFlag, Query(description="Those that are deleted and can be restored, the last one first.")
    ] = False,
    limit: Limit = LIMIT,
    cursor: Cursor = None,
) -> ConversationPage:
    """Those changed last first. A page may be shorter than `limit` where system prompts are very large."""
    asked = {
        "project_id": project_id,
        "archived": archived,
        "pinned": pinned,
        "tag": tag,
        "deleted": deleted or None,
    }
    filters = {name: value for name, value in asked.items() if value is not None}
    rows = await conversations.list(who, filters=filters, limit=limit, cursor=cursor)
    return ConversationPage(**page_fields(rows, ConversationOut.model_validate))


@router.get(
    "/conversations/{conversation_id}",
    tags=["conversations"],
    summary="Get a conversation",
    responses=found("The conversation.", {name: _ID for name in _LINKS if name != "getConversation"})
    | problems(404),
)
async def get_conversation(who: Reader, conversation_id: PathId, conversations: Service) -> ConversationOut:
    return ConversationOut.model_validate(await conversations.get(who, conversation_id))


@router.patch(
    "/conversations/{conversation_id}",
    tags=["conversations"],
    summary="Change a conversation",
    responses=problems(404, 409, body=True),
)
async def update_conversation(
    who: Writer, conversation_id: PathId, body: ConversationChanges, conversations: Service
) -> ConversationOut:
    """`head_id` switches to another branch: not while a turn runs."""
    return ConversationOut.model_validate(await conversations.update(who, conversation_id, changes(body)))


@router.delete(
    "/conversations/{conversation_id}",
    tags=["conversations"],
    summary="Delete a conversation",
    status_code=204,
    responses=problems(404, 409, 422),
)
async def delete_conversation(
    who: Writer,
    conversation_id: PathId,
    conversations: Service,
    permanently: Annotated[
        QueryFlag, Query(description="For good and at once, whether it is deleted already or not.")
    ] = False,
) -> None:
    """With every message and turn in it. Not while a turn runs.

    It is out of sight, and can be restored until the server forgets it.
    """
    await conversations.delete(who, conversation_id, permanently=permanently)


@router.post(
    "/conversations/{conversation_id}/restore",
    tags=["conversations"],
    summary="Restore a deleted conversation",
    responses=found("The conversation, as it was.", {name: _ID for name in _LINKS if name != "createMessage"})
    | problems(404),
)
async def restore_conversation(
    who: Writer, conversation_id: PathId, conversations: Service
) -> ConversationOut:
    """One that is not deleted stays as it is."""
    return ConversationOut.model_validate(await conversations.restore(who, conversation_id))


@router.get(
    "/conversations/{conversation_id}/messages",
    tags=["messages"],
    summary="List messages",
    responses=problems(400, 404, 422),
)
async def list_messages(
    who: Reader,
    conversation_id: PathId,
    conversations: Service,
    branch: Annotated[
        Literal["active", "all"],
        Query(
            description="`active`: from the root to the conversation's head; `all`: every branch, by time."
        ),
    ] = "active",
    order: Annotated[Order, Query(description="`asc`: oldest first.")] = "asc",
    around: Annotated[
        Id | None,
        Query(
            description="Begin half a page before this message, on a branch that it is on. For what comes before that, "
            "ask with `order=desc`. Not with `branch=all`."
        ),
    ] = None,
    role: Annotated[Role | None, Query(description="Only those of this role. With `branch=all`.")] = None,
    limit: Limit = LIMIT,
    cursor: Cursor = None,
) -> MessagePage:
    """A page may be shorter than `limit` where messages are very large."""
    if around is not None and branch == "all":
        raise Invalid("around goes along one branch: leave out branch=all.", param="around")
    if role is not None and branch != "all":
        raise Invalid("role is for branch=all: a branch is read whole.", param="role")
    rows = await conversations.messages(
        who,
        conversation_id,
        every_branch=branch == "all",
        order=order,
        limit=limit,
        cursor=cursor,
        around=around,
        role=role,
    )
    return MessagePage(**page_fields(rows, MessageOut.model_validate))


@router.post(
    "/conversations/{conversation_id}/messages",
    tags=["messages"],
    summary="Add a message",
    status_code=201,
    response_model=MessageOut,
    responses=created("The message.", _MESSAGE_LINKS) | problems(404, 409, body=True),
)
async def create_message(
    who: Writer, conversation_id: PathId, body: NewMessage, conversations: Service, once: Once
) -> Response:
    """After the head of the active branch, without asking a model: for imports. Not while a turn runs."""
    draft = await conversations.draft(role=body.role, content=body.content, model=body.model)

    async def make(session: AsyncSession) -> Made[MessageOut]:
        row = await conversations.append(session, who, conversation_id, draft)
        return Made(MessageOut.model_validate(row), f"/api/v1/messages/{row.id}")

    return await once.run(who, body, MessageOut, make)


@router.get(
    "/messages/{message_id}",
    tags=["messages"],
    summary="Get a message",
    responses=found("The message.", {"listMessages": _MESSAGE_LINKS["listMessages"]}) | problems(404),
)
async def get_message(who: Reader, message_id: PathId, conversations: Service) -> MessageWithSiblings:
    message, siblings = await conversations.message(who, message_id)
    return MessageWithSiblings(**MessageOut.model_validate(message).model_dump(), siblings=list(siblings))
