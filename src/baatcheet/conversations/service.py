"""Conversations and their messages: one aggregate.

A conversation's row is its lock: whoever adds a message, moves the head or deletes takes it first.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import func
from sqlalchemy.ext.asyncio import AsyncSession

from baatcheet.auth.principal import Principal
from baatcheet.conversations import repository
from baatcheet.conversations.errors import ConversationNotFound, MessageNotFound, TurnInProgress
from baatcheet.conversations.models import Conversation, Message
from baatcheet.conversations.repository import Order
from baatcheet.kit.ids import new_id
from baatcheet.kit.pagination import Slice, decode, encode, microseconds, moment_of
from baatcheet.platform.database import Database
from baatcheet.platform.errors import TooLarge
from baatcheet.projects.service import hold_project

_LIST = "conversations"
_DELETED = "conversations:deleted"


class _TimePosition(NamedTuple):
    micros: int
    id: UUID


class _BranchPosition(NamedTuple):
    head: UUID  # where the first page was read from
    last: UUID  # the last message shown


@dataclass(frozen=True)
class Draft:
    """A message to be added, its tokens counted."""

    role: str
    content: str
    tokens: int
    model: str | None = None


class Conversations:
    """One user's conversations. What is not theirs is not there: ConversationNotFound, MessageNotFound."""

    def __init__(
        self,
        db: Database,
        *,
        count: Callable[[str], Awaitable[int]],
        max_message_bytes: int,
        forget: Callable[[UUID], Awaitable[object]] | None = None,
    ) -> None:
        """`forget`: is told of a conversation that is gone for good, to drop what is cached of it."""
        self._db = db
        self._forget = forget
        self._count = count
        self._max_message_bytes = max_message_bytes

    async def create(self, session: AsyncSession, who: Principal, fields: dict[str, Any]) -> Conversation:
        """Empty. Raises ProjectNotFound.

        `fields`: `title`, `system_prompt`, `model`, `project_id`, `archived`, `pinned`, `tags`.
        """
        if (project_id := fields.get("project_id")) is not None:
            await hold_project(session, who, project_id)
        conversation = Conversation(id=new_id(), user_id=who.user_id, **fields)
        session.add(conversation)
        await session.flush()
        return conversation

    async def list(
        self, who: Principal, *, filters: dict[str, Any], limit: int, cursor: str | None
    ) -> Slice[Conversation]:
        """Those changed last first; of the deleted ones, those deleted last. Raises BadCursor.

        `filters`: `project_id`, `archived`, `pinned`, `tag`, `deleted`.
        """
        deleted = bool(filters.get("deleted"))
        name = _DELETED if deleted else _LIST
        last = None
        if cursor is not None:
            position = decode(name, cursor, _TimePosition)
            last = (moment_of(position.micros), position.id)
        async with self._db.tenant(who.user_id) as session:
            rows, more = await repository.conversations_after(session, who.user_id, last, limit, filters)
        following = None
        if more:
            moment = rows[-1].deleted_at if deleted else rows[-1].updated_at
            assert moment is not None
            following = encode(name, (microseconds(moment), rows[-1].id))
        return Slice(rows, following)

    async def get(self, who: Principal, conversation_id: UUID) -> Conversation:
        async with self._db.tenant(who.user_id) as session:
            return await self._find(session, who, conversation_id)

    async def update(self, who: Principal, conversation_id: UUID, fields: dict[str, Any]) -> Conversation:
        """Change what `create` takes, or `head_id`, which switches the branch.

        Raises ProjectNotFound; for a head MessageNotFound, and TurnInProgress while a turn runs.
        """
        if not fields:
            return await self.get(who, conversation_id)
        async with self._db.tenant(who.user_id) as session:
            if (project_id := fields.get("project_id")) is not None:
                await hold_project(session, who, project_id)
            if (head := fields.get("head_id")) is not None:
                await self._find_idle(session, who, conversation_id)
                if not await repository.is_message_of(session, who.user_id, conversation_id, head):
                    raise MessageNotFound(head, param="head_id")
            changed = await repository.change_conversation(session, who.user_id, conversation_id, fields)
        if changed is None:
            raise ConversationNotFound(conversation_id)
        return changed

    async def delete(self, who: Principal, conversation_id: UUID, *, permanently: bool = False) -> None:
        """Out of sight, until it is restored or forgotten. Raises TurnInProgress while a turn runs.

        `permanently`: for good, with its messages and turns; one that is deleted already, too.
        """
        async with self._db.system() if permanently else self._db.tenant(who.user_id) as session:
            await self._find_idle(session, who, conversation_id, deleted=permanently)
            if permanently:
                await repository.forget(session, [who.user_id], [conversation_id])
            else:
                await repository.put_aside(session, who.user_id, conversation_id)
        if permanently and self._forget is not None:
            await self._forget(conversation_id)

    async def restore(self, who: Principal, conversation_id: UUID) -> Conversation:
        """As it was when it was deleted. One that is not deleted stays as it is."""
        async with self._db.tenant(who.user_id) as session:
            restored = await repository.take_back(session, who.user_id, conversation_id)
        if restored is None:
            raise ConversationNotFound(conversation_id)
        return restored

    async def messages(
        self,
        who: Principal,
        conversation_id: UUID,
        *,
        every_branch: bool,
        order: Order,
        limit: int,
        cursor: str | None,
        around: UUID | None = None,
        role: str | None = None,
    ) -> Slice[Message]:
        """The active branch, or every branch by time, of one role if asked for. Raises BadCursor.

        The pages of a branch are those of the branch that was active at the first of them. `around`: the branch that
        this message is on, the active one if it can be, from half a page before it. Raises MessageNotFound.
        """
        name = f"messages:{conversation_id}:{role or 'all' if every_branch else 'active'}:{order}"
        async with self._db.tenant(who.user_id) as session:
            conversation = await self._find(session, who, conversation_id)
            if every_branch:
                return await self._by_time(session, conversation, name, order, limit, cursor, role)
            return await self._along_branch(session, conversation, name, order, limit, cursor, around)

    async def _by_time(
        self,
        session: AsyncSession,
        conversation: Conversation,
        name: str,
        order: Order,
        limit: int,
        cursor: str | None,
        role: str | None,
    ) -> Slice[Message]:
        last = None
        if cursor is not None:
            position = decode(name, cursor, _TimePosition)
            last = (moment_of(position.micros), position.id)
        rows, more = await repository.all_messages(
            session, conversation.user_id, conversation.id, order, last, limit, role=role
        )
        following = encode(name, (microseconds(rows[-1].created_at), rows[-1].id)) if more else None
        return Slice(rows, following)

    async def _along_branch(
        self,
        session: AsyncSession,
        conversation: Conversation,
        name: str,
        order: Order,
        limit: int,
        cursor: str | None,
        around: UUID | None,
    ) -> Slice[Message]:
        head, last, begin = conversation.head_id, None, None
        if cursor is not None:
            head, last = decode(name, cursor, _BranchPosition)
        elif around is not None:
            place = None
            if head is not None:
                place = await repository.place_of(
                    session, conversation.user_id, conversation.id, around, head
                )
            if place is None:
                raise MessageNotFound(around, param="around")
            depth, head = place
            begin = max(0, depth - limit // 2) if order == "asc" else depth + limit // 2
        if head is None:
            return Slice([], None)
        rows, more = await repository.branch(
            session, conversation.user_id, conversation.id, order, head, last, limit, begin=begin
        )
        return Slice(rows, encode(name, (head, rows[-1].id)) if more else None)

    async def message(self, who: Principal, message_id: UUID) -> tuple[Message, Sequence[UUID]]:
        """A message, and every message with the same parent, itself included, oldest first."""
        async with self._db.tenant(who.user_id) as session:
            message = await repository.message(session, who.user_id, message_id)
            if message is None:
                raise MessageNotFound(message_id)
            return message, await repository.siblings(session, message)

    async def draft(self, *, role: str, content: str, model: str | None) -> Draft:
        """Count a text, before any transaction is open. Raises TooLarge."""
        size = len(content.encode())
        if size > self._max_message_bytes:
            raise TooLarge(
                f"The message has {size:,} bytes; {self._max_message_bytes:,} are allowed.", param="content"
            )
        return Draft(role, content, await self._count(content), model)

    async def append(
        self, session: AsyncSession, who: Principal, conversation_id: UUID, draft: Draft
    ) -> Message:
        """Add a message after the head, and make it the head. Raises TurnInProgress while a turn runs."""
        conversation = await self._find_idle(session, who, conversation_id)
        message = Message(
            id=new_id(),
            conversation_id=conversation_id,
            user_id=who.user_id,
            parent_id=conversation.head_id,
            role=draft.role,
            content=draft.content,
            model=draft.model,
            token_count=draft.tokens,
            # Not the transaction's beginning: it may have waited for the message before this one.
            created_at=func.clock_timestamp(),
        )
        session.add(message)
        await session.flush()
        await repository.change_conversation(
            session,
            who.user_id,
            conversation_id,
            {
                "head_id": message.id,
                "token_total": Conversation.token_total + draft.tokens,
                "message_count": Conversation.message_count + 1,
            },
        )
        return message

    async def _find(
        self,
        session: AsyncSession,
        who: Principal,
        conversation_id: UUID,
        *,
        lock: bool = False,
        deleted: bool = False,
    ) -> Conversation:
        conversation = await repository.conversation(
            session, who.user_id, conversation_id, lock=lock, deleted=deleted
        )
        if conversation is None:
            raise ConversationNotFound(conversation_id)
        return conversation

    async def _find_idle(
        self, session: AsyncSession, who: Principal, conversation_id: UUID, *, deleted: bool = False
    ) -> Conversation:
        """The conversation, locked: no turn runs in it, and none can begin."""
        conversation = await self._find(session, who, conversation_id, lock=True, deleted=deleted)
        if (turn := await repository.running_turn(session, conversation_id)) is not None:
            raise TurnInProgress(turn)
        return conversation
