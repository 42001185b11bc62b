"""`/api/v1/turns`: how turns stand, what they were given, and stopping them."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request, Security
from pydantic import Field
from sqlalchemy import ColumnElement, select

from baatcheet.auth.access import Reader, Requires
from baatcheet.auth.principal import Principal
from baatcheet.budgets.limits import usd
from baatcheet.chat.errors import TurnNotFound
from baatcheet.chat.models import Turn
from baatcheet.chat.service import ChatService
from baatcheet.conversations.models import Conversation
from baatcheet.kit.pagination import decode, slice_of
from baatcheet.platform.database import Database
from baatcheet.platform.openapi import found, problems
from baatcheet.platform.rest import LIMIT, Cursor, Id, Limit, Out, Page, PathId, page_fields

router = APIRouter(prefix="/api/v1/turns", tags=["turns"])

Status = Literal["running", "completed", "failed", "cancelled", "interrupted"]
Chatter = Annotated[Principal, Security(Requires("chat"))]


class TurnOut(Out):
    """One question and its answer."""

    id: UUID
    conversation_id: UUID | None = Field(description="null: a stateless request.")
    input_id: UUID | None = Field(description="The message that is answered.")
    reply_id: UUID | None = Field(
        description="The answer's id; the message is there once the turn has ended."
    )
    status: Status
    model: str | None = Field(description="As asked for.")
    answered_by: str | None = Field(description="provider/model.")
    finish_reason: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    usage: dict[str, Any] | None = Field(description="As the provider reported it, or counted here.")
    usd: str | None = Field(description="What it cost, by the prices of then; null: nobody knew.")
    error: dict[str, Any] | None
    created_at: datetime
    ended_at: datetime | None

    @classmethod
    def of(cls, turn: Turn) -> "TurnOut":
        usage = dict(turn.usage) if turn.usage is not None else None
        cost = usage.pop("microcents", None) if usage is not None else None
        fields = {name: getattr(turn, name) for name in cls.model_fields if name not in {"usage", "usd"}}
        return cls(**fields, usage=usage, usd=None if cost is None else usd(cost))


class ContextOut(Out):
    """What a turn carried to the model, and what it cost: the receipt."""

    turn_id: UUID
    receipt: dict[str, Any] | None = Field(
        description="null while no provider has been asked. `route`: who has answered, and why."
    )


class Cancelled(Out):
    """The turn will stop; what it has said is kept."""

    id: UUID
    status: Literal["cancelling"] = "cancelling"


@router.get(
    "",
    summary="List your turns, newest first",
    responses={**problems(400, 422), **found("A page of turns.", {})},
)
async def list_turns(
    request: Request,
    who: Reader,
    conversation_id: Annotated[Id | None, Query(description="Only those of this conversation.")] = None,
    status: Annotated[Status | None, Query(description="Only those that stand so.")] = None,
    limit: Limit = LIMIT,
    cursor: Cursor = None,
) -> Page[TurnOut]:
    query = (
        select(Turn).where(Turn.user_id == who.user_id, _is_there()).order_by(Turn.id.desc()).limit(limit + 1)
    )
    if conversation_id is not None:
        query = query.where(Turn.conversation_id == conversation_id)
    if status is not None:
        query = query.where(Turn.status == status)
    if cursor is not None:
        query = query.where(Turn.id < decode("turns", cursor, UUID))
    db: Database = request.app.state.database
    async with db.tenant(who.user_id) as session:
        rows = list(await session.scalars(query))
    page = slice_of("turns", rows, limit, lambda turn: turn.id)
    return Page[TurnOut](**page_fields(page, TurnOut.of))


@router.get(
    "/{turn_id}",
    summary="Get a turn",
    responses={
        **problems(404),
        **found("The turn.", {"followTurn": {"turn_id": "$response.body#/id"}}),
    },
)
async def get_turn(request: Request, who: Reader, turn_id: PathId) -> TurnOut:
    return TurnOut.of(await _turn(request, who, turn_id))


@router.get("/{turn_id}/context", summary="Get what a turn carried to the model", responses=problems(404))
async def get_turn_context(request: Request, who: Reader, turn_id: PathId) -> ContextOut:
    turn = await _turn(request, who, turn_id)
    return ContextOut(turn_id=turn.id, receipt=turn.receipt)


@router.post(
    "/{turn_id}/cancel",
    status_code=202,
    summary="Stop a turn",
    description="Stops it at the provider, from whichever process runs it. What it has said is kept as the reply. "
    "Cancelling a turn that has ended changes nothing.",
    responses=problems(404),
)
async def cancel_turn(request: Request, who: Chatter, turn_id: PathId) -> Cancelled:
    chat: ChatService = request.app.state.chat
    await chat.cancel(who, turn_id)
    return Cancelled(id=turn_id)


def _is_there() -> ColumnElement[bool]:
    """Whether a turn is in no deleted conversation."""
    deleted = Conversation.id == Turn.conversation_id, Conversation.deleted_at.is_not(None)
    return ~select(Conversation.id).where(*deleted).exists()


async def _turn(request: Request, who: Principal, turn_id: UUID) -> Turn:
    db: Database = request.app.state.database
    async with db.tenant(who.user_id) as session:
        query = select(Turn).where(Turn.id == turn_id, Turn.user_id == who.user_id, _is_there())
        turn = (await session.scalars(query)).one_or_none()
    if turn is None:
        raise TurnNotFound(f"There is no turn {turn_id}.")
    return turn
