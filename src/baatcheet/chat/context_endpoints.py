"""`/api/v1/conversations/{id}/context`: what the next turn would carry to the model, and why."""

from dataclasses import replace
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import Field

from baatcheet.auth.access import Reader
from baatcheet.chat.errors import problem_of_plan
from baatcheet.chat.service import ChatService
from baatcheet.context.manager import ContextManager
from baatcheet.context.planning import ContextTooSmall
from baatcheet.platform.openapi import problems
from baatcheet.platform.rest import Out, PathId

router = APIRouter(prefix="/api/v1/conversations", tags=["conversations"])

MOST_TOKENS = 10_000_000


class ContextPreview(Out):
    """What the next turn would carry. No chat model is asked, and the conversation is not changed."""

    conversation_id: UUID
    head_id: UUID | None = Field(description="The message that the turn would go on from.")
    model: str | None = Field(description="Whose window it is fitted to; null: the budget alone counts.")
    tokens: int
    receipt: dict[str, Any] = Field(description="Which messages go in whole, cut, summarised or recalled.")
    messages: list[dict[str, Any]] = Field(
        description="As the provider would be sent them, in OpenAI's form."
    )


@router.get(
    "/{conversation_id}/context",
    summary="Get what the next turn would carry",
    responses=problems(400, 404, 422),
)
async def get_context(
    request: Request,
    who: Reader,
    conversation_id: PathId,
    message: Annotated[
        str | None,
        Query(max_length=2_000, description="The message that would be sent; what it is about is recalled."),
    ] = None,
    model: Annotated[
        str | None,
        Query(max_length=500, description="As in a chat; left out: no model's window is considered."),
    ] = None,
    max_tokens: Annotated[
        int | None,
        Query(ge=64, le=MOST_TOKENS, description="Tokens of prompt; left out: the server's setting."),
    ] = None,
    max_messages: Annotated[
        int | None, Query(ge=2, le=1000, description="Recent messages; left out: the server's setting.")
    ] = None,
) -> ContextPreview:
    context: ContextManager = request.app.state.context
    chat: ChatService = request.app.state.chat
    card = await chat.model(model) if model else None
    config = replace(
        context.config,
        max_tokens=max_tokens or context.config.max_tokens,
        max_messages=max_messages or context.config.max_messages,
    )
    try:
        made = await context.get_context(
            conversation_id, config, user_id=who.user_id, message=message, model=card
        )
    except ContextTooSmall as error:
        raise problem_of_plan(error) from None
    return ContextPreview(
        conversation_id=conversation_id,
        head_id=made.head,
        model=made.model,
        tokens=made.tokens,
        receipt=made.receipt,
        messages=list(made.messages),
    )
