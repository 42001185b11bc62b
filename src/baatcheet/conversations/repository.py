"""Rows of conversations and messages.

A page is bounded by its rows and by the bytes of their texts: whatever a list holds, one answer stays small
enough to be made in one piece. The first row is always there, however large.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, TypeVar
from uuid import UUID

from sqlalchemy import ColumnElement, Select, and_, case, func, literal, select, text, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from baatcheet.auth import idempotency
from baatcheet.conversations.models import Conversation, Message
from baatcheet.events.scrubbing import scrub
from baatcheet.platform.database import Base

Order = Literal["asc", "desc"]
Row = TypeVar("Row", bound=Base)
Position = tuple[datetime, UUID]

MAX_PAGE_BYTES = 16 * 1024 * 1024


async def conversation(
    session: AsyncSession,
    owner: UUID,
    conversation_id: UUID,
    *,
    lock: bool = False,
    deleted: bool = False,
) -> Conversation | None:
    """One that is not deleted; with `deleted`, either way."""
    query = select(Conversation).where(Conversation.id == conversation_id, Conversation.user_id == owner)
    if not deleted:
        query = query.where(Conversation.deleted_at.is_(None))
    if lock:
        query = query.with_for_update()
    return (await session.scalars(query)).one_or_none()


async def running_turn(session: AsyncSession, conversation_id: UUID) -> UUID | None:
    """The turn that runs in a conversation; with the conversation locked, none can begin."""
    found: UUID | None = await session.scalar(
        text("SELECT id FROM turns WHERE conversation_id = :conversation AND status = 'running'"),
        {"conversation": conversation_id},
    )
    return found


async def conversations_after(
    session: AsyncSession, owner: UUID, last: Position | None, limit: int, filters: Mapping[str, Any]
) -> tuple[list[Conversation], bool]:
    """Those changed last first, and whether more follow.

    `filters`: exact values of columns; `tag`, one of its tags; `deleted`: those deleted last first instead.
    """
    exact = dict(filters)
    deleted, tag = exact.pop("deleted", False), exact.pop("tag", None)
    when: Any = Conversation.deleted_at if deleted else Conversation.updated_at
    order = (when.desc(), Conversation.id.desc())
    keys = select(Conversation.id, func.row_number().over(order_by=order).label("place")).where(
        Conversation.user_id == owner,
        Conversation.deleted_at.is_not(None) if deleted else Conversation.deleted_at.is_(None),
    )
    for name, value in exact.items():
        keys = keys.where(getattr(Conversation, name) == value)
    if tag is not None:  # the second condition is the index's
        keys = keys.where(Conversation.tags.contains([tag]), text("conversations.tags <> '{}'"))
    if last is not None:
        keys = keys.where(tuple_(when, Conversation.id) < tuple_(*map(literal, last)))
    size = func.coalesce(func.octet_length(Conversation.system_prompt), 0)
    return await _bounded(session, Conversation, keys.order_by(*order), size, limit)


async def change_conversation(
    session: AsyncSession, owner: UUID, conversation_id: UUID, fields: Mapping[str, Any]
) -> Conversation | None:
    changed = (
        update(Conversation)
        .where(
            Conversation.id == conversation_id,
            Conversation.user_id == owner,
            Conversation.deleted_at.is_(None),
        )
        .values(**fields, updated_at=func.clock_timestamp())
        .returning(Conversation)
    )
    found = await session.scalars(changed, execution_options={"populate_existing": True})
    return found.one_or_none()


async def put_aside(session: AsyncSession, owner: UUID, conversation_id: UUID) -> None:
    """Delete a conversation so that it can be restored. The keys of its turns are free again, as if it were gone."""
    aside = update(Conversation).where(Conversation.id == conversation_id, Conversation.user_id == owner)
    await session.execute(aside.values(deleted_at=func.clock_timestamp()))
    await session.execute(
        text(
            "UPDATE turns SET idempotency_key = NULL, fingerprint = NULL "
            "WHERE conversation_id = :conversation AND user_id = :owner AND idempotency_key IS NOT NULL"
        ),
        {"conversation": conversation_id, "owner": owner},
    )
    await free_keys(session, [owner], [conversation_id])


async def free_keys(session: AsyncSession, owners: Sequence[UUID], conversations: Sequence[UUID]) -> None:
    """Forget what is kept to answer repeated requests that opened `owners`' `conversations`, or wrote in them."""
    ids = list(map(str, conversations))
    locations = [f"/api/v1/conversations/{one}" for one in ids]
    await idempotency.free(session, owners, locations=locations, member="conversation_id", values=ids)


async def forget(session: AsyncSession, owners: Sequence[UUID], conversations: Sequence[UUID]) -> None:
    """Delete `owners`' `conversations` for good, and what was said in them from wherever it is kept beside.

    `session` is the system's, and has the conversations locked: a tenant changes no events.
    """
    gone = "DELETE FROM conversations WHERE id = ANY(CAST(:ids AS uuid[])) AND user_id = ANY(CAST(:owners AS uuid[]))"
    await session.execute(text(gone), {"ids": conversations, "owners": owners})
    await free_keys(session, owners, conversations)
    await scrub(session, owners, conversations)


async def take_back(session: AsyncSession, owner: UUID, conversation_id: UUID) -> Conversation | None:
    """The conversation, which is deleted no more; None when it is not there."""
    back = (
        update(Conversation)
        .where(Conversation.id == conversation_id, Conversation.user_id == owner)
        .values(deleted_at=None)
        .returning(Conversation)
    )
    return (await session.scalars(back)).one_or_none()


async def message(session: AsyncSession, owner: UUID, message_id: UUID) -> Message | None:
    query = (
        select(Message)
        .join(Conversation, Conversation.id == Message.conversation_id)
        .where(Message.id == message_id, Message.user_id == owner, Conversation.deleted_at.is_(None))
    )
    return (await session.scalars(query)).one_or_none()


async def is_message_of(session: AsyncSession, owner: UUID, conversation_id: UUID, message_id: UUID) -> bool:
    query = select(Message.id).where(
        Message.id == message_id, Message.conversation_id == conversation_id, Message.user_id == owner
    )
    return await session.scalar(query) is not None


async def siblings(session: AsyncSession, one: Message) -> Sequence[UUID]:
    """Every message with the same parent, oldest first."""
    query = select(Message.id).where(
        Message.user_id == one.user_id,
        Message.conversation_id == one.conversation_id,
        Message.parent_id.is_(None) if one.parent_id is None else Message.parent_id == one.parent_id,
    )
    return (await session.scalars(query.order_by(Message.created_at, Message.id))).all()


async def all_messages(
    session: AsyncSession,
    owner: UUID,
    conversation_id: UUID,
    order: Order,
    last: Position | None,
    limit: int,
    *,
    role: str | None = None,
) -> tuple[list[Message], bool]:
    """Every branch's messages by time, all or those of a role, and whether more follow."""
    when = (Message.created_at, Message.id)
    by = when if order == "asc" else tuple(column.desc() for column in when)
    keys = select(Message.id, func.row_number().over(order_by=by).label("place")).where(
        Message.conversation_id == conversation_id, Message.user_id == owner
    )
    if role is not None:
        keys = keys.where(Message.role == role)
    if last is not None:
        here, there = tuple_(*when), tuple_(*map(literal, last))
        keys = keys.where(here > there if order == "asc" else here < there)
    return await _bounded(session, Message, keys.order_by(*by), func.octet_length(Message.content), limit)


async def place_of(
    session: AsyncSession, owner: UUID, conversation_id: UUID, message_id: UUID, active: UUID
) -> tuple[int, UUID] | None:
    """The depth of a message, and the end of a branch that it is on: the `active` one, where it is on that.

    None when there is no such message in the conversation.
    """
    path = func.branch_path(owner, conversation_id, active).table_valued("branch", "last")
    newest = aliased(Message)
    on_active = select(path.c.branch).where(path.c.branch == Message.branch_id, path.c.last >= Message.depth)
    end_of_own = (
        select(newest.id)
        .where(newest.branch_id == Message.branch_id)
        .order_by(newest.depth.desc())
        .limit(1)
        .scalar_subquery()
    )
    query = select(Message.depth, case((on_active.exists(), literal(active)), else_=end_of_own)).where(
        Message.id == message_id, Message.conversation_id == conversation_id, Message.user_id == owner
    )
    found = (await session.execute(query)).one_or_none()
    return (found[0], found[1]) if found is not None else None


async def branch(
    session: AsyncSession,
    owner: UUID,
    conversation_id: UUID,
    order: Order,
    head: UUID,
    last: UUID | None,
    limit: int,
    *,
    begin: int | None = None,
) -> tuple[list[Message], bool]:
    """The messages from the root to `head` that follow `last` in `order`, and whether more follow.

    Without `last`: from the depth `begin` on, or all.

    One statement. A page is a range of depths on the branches that lead to `head`, however long these are.
    """
    mine = (Message.conversation_id == conversation_id, Message.user_id == owner)

    def depth_of(message: UUID) -> Any:
        return select(Message.depth).where(Message.id == message, *mine).scalar_subquery()

    if order == "asc":
        first = literal(begin or 0) if last is None else depth_of(last) + 1
        within = Message.depth.between(first, first + limit)
    else:
        first = depth_of(head) if last is None else depth_of(last) - 1
        if last is None and begin is not None:
            first = func.least(begin, first)
        within = Message.depth.between(first - limit, first)
    path = func.branch_path(owner, conversation_id, head).table_valued("branch", "last")
    on_path = and_(Message.branch_id == path.c.branch, Message.depth <= path.c.last)
    by = Message.depth if order == "asc" else Message.depth.desc()
    keys = (
        select(Message.id, func.row_number().over(order_by=by).label("place"))
        .select_from(path.join(Message, on_path))
        .where(*mine, within)
        .order_by(by)
    )
    return await _bounded(session, Message, keys, func.octet_length(Message.content), limit)


async def _bounded(
    session: AsyncSession, model: type[Row], keys: Select[Any], size: ColumnElement[int], limit: int
) -> tuple[list[Row], bool]:
    """The rows of a page, whose `keys` are (id, place); octet_length reads no text, only its length."""
    key = keys.limit(limit + 1).cte("key")
    identity: Any = model.__table__.c["id"]
    before = func.sum(size).over(order_by=key.c.place) - size
    sized = (
        select(key.c.id, key.c.place, before.label("before"), func.count().over().label("found"))
        .join(model, identity == key.c.id)
        .cte("sized")
    )
    page = (
        select(model, sized.c.found)
        .join(sized, sized.c.id == identity)
        .where(sized.c.place <= limit, sized.c.before <= MAX_PAGE_BYTES)
        .order_by(sized.c.place)
    )
    rows = (await session.execute(page)).all()
    return [row[0] for row in rows], bool(rows) and rows[0].found > len(rows)
