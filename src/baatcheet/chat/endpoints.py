"""`/api/v1/chat` and the live events of a turn: plain ASGI, because they stream."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID

import msgspec

from baatcheet.auth.principal import Principal
from baatcheet.chat.attaching import Attaching
from baatcheet.chat.errors import TurnNotFound
from baatcheet.chat.feed import TurnFeed, problem_of
from baatcheet.chat.rendering import TurnStream, turn_object
from baatcheet.chat.requests import (
    bounded,
    decode_object,
    fingerprint,
    idempotency_key,
    is_blank,
    last_event_id,
    part_problem,
    refuse_unstorable,
    shaped,
    texts_of,
)
from baatcheet.chat.run import TurnRequest
from baatcheet.chat.service import ChatService
from baatcheet.chat.serving import Gate, headers_of, listening, stream, turn_headers, unless_gone
from baatcheet.chat.store import NewConversation, Place, TurnStore
from baatcheet.conversations.errors import ConversationNotFound, MessageNotFound
from baatcheet.kit.ids import parse_id
from baatcheet.kit.text import headline
from baatcheet.platform.asgi import Receive, Scope, Send, read_body, send_json
from baatcheet.platform.errors import Conflict, Invalid
from baatcheet.platform.settings import ServerSettings

MAX_SYSTEM_PROMPT = 1024 * 1024  # bytes


class _Asked(msgspec.Struct, forbid_unknown_fields=True):
    """What every chat request may say. `parameters` go to the provider as they are."""

    model: str | None = None
    system_prompt: str | None = None
    stream: bool = False
    parameters: dict[str, Any] = {}


class ChatBody(_Asked, kw_only=True, forbid_unknown_fields=True):
    """A new message; without a conversation, one is opened."""

    message: str | list[dict[str, Any]]
    conversation_id: UUID | None = None
    project_id: UUID | None = None
    attachments: list[UUID] = []
    attachment_ids: list[UUID] = []  # the same by another name


class RegenerateBody(_Asked, forbid_unknown_fields=True):
    """Another reply: to a message, or to the newest message of a conversation."""

    conversation_id: UUID | None = None
    message_id: UUID | None = None


class EditBody(_Asked, kw_only=True, forbid_unknown_fields=True):
    """A user's message said differently, and a reply to that: a new branch."""

    message_id: UUID
    message: str | list[dict[str, Any]]
    attachments: list[UUID] = []


class ChatApi:
    """The endpoints. Each is a plain ASGI application; what they raise is rendered by the frame around them."""

    def __init__(
        self,
        *,
        gate: Gate,
        chat: ChatService,
        store: TurnStore,
        server: ServerSettings,
        attaching: Attaching,
    ) -> None:
        self._gate = gate
        self._chat = chat
        self._store = store
        self._server = server
        self._attaching = attaching

    async def completions(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = headers_of(scope)
        who, answer_headers = await self._gate.admit(scope, headers, "chat")
        body = await read_body(receive, self._server.max_body_bytes)
        wanted = shaped(decode_object(body), ChatBody, problem=Invalid)
        attachments = [*wanted.attachments, *wanted.attachment_ids]
        self._check(wanted, wanted.message, alone=not attachments)
        if wanted.conversation_id is not None and wanted.project_id is not None:
            raise Invalid(
                "project_id is for a new conversation; move an existing one with PATCH /api/v1/conversations/{id}.",
                param="project_id",
            )
        opens = None
        if wanted.conversation_id is None:
            opens = NewConversation(
                title=headline(" ".join(texts_of(wanted.message))) or "New conversation",
                system_prompt=wanted.system_prompt,
                project=wanted.project_id,
                model=wanted.model,
            )
        param = "attachment_ids" if wanted.attachment_ids and not wanted.attachments else "attachments"
        message = {"role": "user", "content": wanted.message}
        request = self._request(wanted, headers, "completions", body, messages=[message], opens=opens)
        feed = await self._begin(who, request, receive, attachments, param)
        await self._serve(feed, wanted.stream, receive, send, headers, answer_headers)

    async def regenerate(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = headers_of(scope)
        who, answer_headers = await self._gate.admit(scope, headers, "chat")
        body = await read_body(receive, self._server.max_body_bytes)
        wanted = shaped(decode_object(body), RegenerateBody, problem=Invalid)
        if (wanted.conversation_id is None) == (wanted.message_id is None):
            raise Invalid("Say which: either conversation_id or message_id.", param="message_id")
        self._check(wanted, None)
        place = await self._store.place(
            who.user_id, message=wanted.message_id, conversation=wanted.conversation_id
        )
        if place is None and wanted.message_id is not None:
            raise MessageNotFound(wanted.message_id, param="message_id")
        if place is None:
            raise await self._nothing_to_answer(who, wanted.conversation_id)
        answer = place.parent_id if place.role == "assistant" else place.id
        if answer is None:
            raise Conflict("This message opens its conversation: there is no question that it answers.")
        request = self._request(wanted, headers, "regenerate", body, place=place, answer=answer)
        feed = await self._chat.start(who, request)
        await self._serve(feed, wanted.stream, receive, send, headers, answer_headers)

    async def edit(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = headers_of(scope)
        who, answer_headers = await self._gate.admit(scope, headers, "chat")
        body = await read_body(receive, self._server.max_body_bytes)
        wanted = shaped(decode_object(body), EditBody, problem=Invalid)
        self._check(wanted, wanted.message, alone=not wanted.attachments)
        place = await self._store.place(who.user_id, message=wanted.message_id)
        if place is None:
            raise MessageNotFound(wanted.message_id, param="message_id")
        if place.role != "user":
            raise Conflict(
                "Only a user's message can be edited; POST /api/v1/chat/regenerate asks for another reply."
            )
        message = {"role": "user", "content": wanted.message}
        at = str(place.parent_id) if place.parent_id is not None else "root"
        request = self._request(wanted, headers, "edit", body, place=place, messages=[message], at=at)
        feed = await self._begin(who, request, receive, wanted.attachments, "attachments")
        await self._serve(feed, wanted.stream, receive, send, headers, answer_headers)

    async def events(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET /api/v1/turns/{id}/events."""
        headers = headers_of(scope)
        who, answer_headers = await self._gate.admit(scope, headers, "read")
        turn = parse_id(scope["path"].split("/")[-2])
        if turn is None:
            raise TurnNotFound("There is no such turn.")
        feed = await self._chat.find(who, turn)
        await self._stream(feed, receive, send, headers, answer_headers)

    async def _begin(
        self, who: Principal, request: TurnRequest, receive: Receive, attachments: list[UUID], param: str
    ) -> TurnFeed:
        """The turn of the user's message, with what its attachments bring where it is new.

        Raises Disconnected when the client leaves while they are still being read.
        """
        if not self._attaching.needed(request.messages, attachments):
            return await self._chat.start(who, request)
        if (feed := await self._chat.joined(who, request)) is not None:
            return feed
        [message] = request.messages
        async with listening(receive) as watch:
            bringing = self._attaching.content(who, message["content"], attachments, param=param)
            content = await unless_gone(watch, bringing)
        return await self._chat.start(who, replace(request, messages=[{**message, "content": content}]))

    def _check(
        self, wanted: _Asked, message: str | list[dict[str, Any]] | None, *, alone: bool = True
    ) -> None:
        """`alone`: nothing is attached, so that the message itself must say something."""
        if message is not None:
            if problem := part_problem(message):
                raise Invalid(f"message: {problem}.", param="message")
            if alone and is_blank(message):
                raise Invalid("message is empty.", param="message")
            bounded(texts_of(message), self._server.max_message_bytes, param="message")
        if wanted.system_prompt is not None:
            refuse_unstorable(wanted.system_prompt, "system_prompt")
            if len(wanted.system_prompt.encode("utf-8", "replace")) > MAX_SYSTEM_PROMPT:
                raise Invalid(
                    f"system_prompt is larger than {MAX_SYSTEM_PROMPT:,} bytes.", param="system_prompt"
                )
        for ours in ("messages", "stream", "model", "n"):
            if ours in wanted.parameters:
                raise Invalid(f"parameters may not hold {ours!r}.", param=f"parameters.{ours}")

    def _request(
        self,
        wanted: ChatBody | RegenerateBody | EditBody,
        headers: Mapping[str, str],
        route: str,
        body: bytes,
        *,
        place: Place | None = None,
        messages: list[dict[str, Any]] | None = None,
        opens: NewConversation | None = None,
        at: str = "head",
        answer: UUID | None = None,
    ) -> TurnRequest:
        conversation = (
            place.conversation_id if place is not None else getattr(wanted, "conversation_id", None)
        )
        key = idempotency_key(headers)
        return TurnRequest(
            messages=messages or [],
            model=wanted.model,
            parameters=wanted.parameters,
            conversation_id=conversation,
            opens=opens,
            at=at,
            answer=answer,
            system_prompt=wanted.system_prompt if opens is None else None,
            idempotency_key=key,
            fingerprint=fingerprint(f"/api/v1/chat/{route}", body) if key else None,
        )

    async def _serve(
        self,
        feed: TurnFeed,
        streamed: bool,
        receive: Receive,
        send: Send,
        headers: Mapping[str, str],
        answer_headers: dict[str, str],
    ) -> None:
        answer_headers |= turn_headers(feed)
        if streamed:
            await self._stream(feed, receive, send, headers, answer_headers)
            return
        outcome = await feed.ended()
        if outcome.status == "failed" and outcome.error is not None:
            problem = problem_of(outcome.error)
            problem.headers.update(answer_headers)
            problem.extras["turn"] = turn_object(feed, outcome)
            raise problem
        await send_json(send, 200, msgspec.json.encode(turn_object(feed, outcome)), answer_headers)

    async def _stream(
        self,
        feed: TurnFeed,
        receive: Receive,
        send: Send,
        headers: Mapping[str, str],
        answer_headers: Mapping[str, str],
    ) -> None:
        async with listening(receive) as watch:
            await stream(
                feed,
                TurnStream(),
                watch,
                send,
                headers=answer_headers,
                after=last_event_id(headers),
                keep_alive=self._server.keep_alive_seconds,
            )

    async def _nothing_to_answer(self, who: Principal, conversation: UUID | None) -> Exception:
        assert conversation is not None
        if await self._store.conversation_exists(who.user_id, conversation):
            return Conflict("This conversation has no message yet: there is nothing to answer again.")
        return ConversationNotFound(conversation, param="conversation_id")
