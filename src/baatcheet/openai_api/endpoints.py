"""`/v1`: chat completions, models, embeddings, as OpenAI's clients call them."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import msgspec

from baatcheet.chat.attaching import Attaching
from baatcheet.chat.errors import ModelNotFound
from baatcheet.chat.feed import TurnFeed
from baatcheet.chat.requests import (
    bounded,
    decode_object,
    fingerprint,
    idempotency_key,
    is_blank,
    last_event_id,
    part_problem,
    shaped,
    texts_of,
)
from baatcheet.chat.run import TurnRequest
from baatcheet.chat.service import ChatService
from baatcheet.chat.serving import (
    CONVERSATION_HEADER,
    Gate,
    headers_of,
    listening,
    stream,
    turn_headers,
    unless_gone,
)
from baatcheet.chat.store import NewConversation
from baatcheet.conversations.errors import ConversationNotFound
from baatcheet.kit.ids import parse_id
from baatcheet.kit.text import headline
from baatcheet.openai_api.rendering import CompletionStream, completion, failure, logprobs_of
from baatcheet.platform.asgi import Receive, Scope, Send, read_body, send_json
from baatcheet.platform.errors import BadRequest
from baatcheet.platform.settings import ServerSettings
from baatcheet.providers.routing.model import Models, Route
from baatcheet.providers.routing.router import Router

NEW = "new"
MOST_MESSAGES = 20_000  # of one request
MOST_NEW_MESSAGES = 256  # of one request in a conversation


class WireMessage(msgspec.Struct):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class ConversationRef(msgspec.Struct):
    id: str


class CompletionBody(msgspec.Struct):
    """What of a request is read here; every other member goes to the provider as it is."""

    messages: list[WireMessage]
    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    conversation: str | ConversationRef | None = None
    n: int | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    tools: list[dict[str, Any]] | None = None
    response_format: dict[str, Any] | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    logprobs: bool | None = None
    truncation: Literal["auto", "disabled"] | None = None


class EmbeddingsBody(msgspec.Struct):
    model: str
    input: str | list[Any]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None


ALIAS_OWNER = "baatcheet"  # who "owns" a route among the models
_OURS = frozenset({"messages", "model", "stream", "stream_options", "conversation", "truncation"})


class OpenAiApi:
    """The endpoints. Each is a plain ASGI application; what they raise is rendered by the frame around them."""

    def __init__(
        self,
        *,
        gate: Gate,
        chat: ChatService,
        catalogue: Models,
        server: ServerSettings,
        attaching: Attaching,
        routes: Router | None = None,
    ) -> None:
        self._gate = gate
        self._chat = chat
        self._catalogue = catalogue
        self._routes = routes
        self._server = server
        self._attaching = attaching

    async def chat_completions(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = headers_of(scope)
        who, answer_headers = await self._gate.admit(scope, headers, "chat")
        body = await read_body(receive, self._server.max_body_bytes)
        value = decode_object(body)
        wanted = shaped(value, CompletionBody, problem=BadRequest)
        request = self._request(value, wanted, headers, body)
        if wanted.n not in {None, 1} and not request.attached:
            raise BadRequest("A conversation gets one reply at a time: n must be 1.", param="n")
        feed = None
        if self._attaching.needed(request.messages):
            feed = await self._chat.joined(who, request)
            if feed is None:
                async with listening(receive) as watch:
                    messages = await unless_gone(watch, self._attaching.messages(who, request.messages))
                request = replace(request, messages=messages)
        if request.attached and not wanted.stream:
            async with listening(receive) as watch:
                whole = await unless_gone(watch, self._chat.complete(who, request))
            await send_json(send, 200, whole.raw, answer_headers)
            return
        try:
            feed = feed or await self._chat.start(who, request)
        except ConversationNotFound:
            raise ConversationNotFound(request.conversation_id, param="conversation") from None
        if not request.attached:
            answer_headers |= turn_headers(feed)
        if not wanted.stream:  # the turn goes on whether or not its client waits
            outcome = await feed.ended()
            self._refuse_failed(feed, answer_headers)
            logprobs = logprobs_of(feed) if wanted.logprobs else None
            await send_json(send, 200, completion(feed, outcome, logprobs), answer_headers)
            return
        leave = partial(self._chat.abandon, feed) if request.attached else None
        async with listening(receive, leave) as watch:
            # An error before the first chunk is answered with its own status, if it comes before a proxy grows
            # impatient.
            await feed.first_sign(self._server.keep_alive_seconds)
            if not feed.chunks:
                self._refuse_failed(feed, answer_headers)
            include_usage = bool(wanted.stream_options and wanted.stream_options.include_usage)
            await stream(
                feed,
                CompletionStream(include_usage=include_usage),
                watch,
                send,
                headers=answer_headers,
                after=last_event_id(headers),
                keep_alive=self._server.keep_alive_seconds,
            )

    @staticmethod
    def _refuse_failed(feed: TurnFeed, headers: Mapping[str, str]) -> None:
        if feed.outcome is not None and (problem := failure(feed, feed.outcome)):
            problem.headers.update(headers)
            raise problem

    def _request(
        self, value: Mapping[str, Any], wanted: CompletionBody, headers: Mapping[str, str], body: bytes
    ) -> TurnRequest:
        if not wanted.messages:
            raise BadRequest("messages is empty: send at least one message.", param="messages")
        if len(wanted.messages) > MOST_MESSAGES:
            raise BadRequest(
                f"messages has {len(wanted.messages):,}; at most {MOST_MESSAGES:,} are taken.",
                param="messages",
            )
        for index, message in enumerate(wanted.messages):
            where = f"messages[{index}].content"
            if problem := part_problem(message.content):
                raise BadRequest(f"{where}: {problem}.", param=where)
            bounded(texts_of(message.content), self._server.max_message_bytes, param=where)
            if message.role == "user" and is_blank(message.content):
                raise BadRequest(f"{where} is empty.", param=where)
        key = idempotency_key(headers)
        reference = headers.get(CONVERSATION_HEADER) if wanted.conversation is None else wanted.conversation
        name = reference.id if isinstance(reference, ConversationRef) else reference
        messages = list(value["messages"])
        parameters = {member: item for member, item in value.items() if member not in _OURS}
        model = wanted.model if wanted.model not in {None, ""} else None
        if name is None:
            return TurnRequest(
                messages=messages,
                model=model or "auto",
                parameters=parameters,
                idempotency_key=key,
                fingerprint=fingerprint("/v1/chat/completions", body) if key else None,
                truncation=wanted.truncation,
                attached=key is None,
            )
        system, new = _split(wanted, messages)
        opens = None
        conversation = parse_id(name)
        if name == NEW:
            opens = NewConversation(
                title=headline(" ".join(texts_of(new[-1].get("content")))), system_prompt=system, model=model
            )
        elif not name.strip():
            where = "conversation" if wanted.conversation is not None else "X-BaatCheet-Conversation"
            raise BadRequest(
                f'{where} is empty: send a conversation\'s id, or "{NEW}" to open one, or leave it out.',
                param="conversation",
            )
        elif conversation is None:
            raise ConversationNotFound(name, param="conversation")
        return TurnRequest(
            messages=new,
            model=model,
            parameters=parameters,
            conversation_id=conversation,
            opens=opens,
            system_prompt=system,
            idempotency_key=key,
            fingerprint=fingerprint("/v1/chat/completions", body, name) if key else None,
        )

    async def embeddings(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = headers_of(scope)
        who, answer_headers = await self._gate.admit(scope, headers, "chat")
        value = decode_object(await read_body(receive, self._server.max_body_bytes))
        wanted = shaped(value, EmbeddingsBody, problem=BadRequest)
        if not wanted.input:
            raise BadRequest("input is empty.", param="input")
        answer = await self._chat.embed(who, wanted.model, value)
        await send_json(send, 200, answer, answer_headers)

    async def models(self, scope: Scope, receive: Receive, send: Send) -> None:
        who, answer_headers = await self._gate.admit(scope, headers_of(scope), "read")
        cards = await self._chat.allowed(who, await self._catalogue.models())
        aliases = await self._aliases()
        body = {
            "object": "list",
            "data": [*(model_object(card.id, card.provider, card.created) for card in cards), *aliases],
        }
        await send_json(send, 200, msgspec.json.encode(body), answer_headers)

    async def model(self, scope: Scope, receive: Receive, send: Send) -> None:
        _, answer_headers = await self._gate.admit(scope, headers_of(scope), "read")
        name = scope["path"].removeprefix("/v1/models/")
        for card in await self._catalogue.models():
            if name in {card.id, card.name}:
                body = msgspec.json.encode(model_object(card.id, card.provider, card.created))
                await send_json(send, 200, body, answer_headers)
                return
        for alias in await self._aliases():
            if name == alias["id"]:
                await send_json(send, 200, msgspec.json.encode(alias), answer_headers)
                return
        raise ModelNotFound(f"There is no model {name!r}. GET /v1/models lists them.", param="model")

    async def _aliases(self) -> list[dict[str, Any]]:
        """The names of routes, which can be asked for like models."""
        if self._routes is None:
            return []
        routes = await self._routes.usable()
        return [model_object(one.name, ALIAS_OWNER, created_at(one)) for one in routes]


def created_at(route: Route) -> int:
    """Unix seconds; 0 for one that comes with BaatCheet."""
    return int(route.updated_at.timestamp()) if route.updated_at is not None else 0


def model_object(id: str, owner: str, created: int) -> dict[str, Any]:  # noqa: A002 - OpenAI's own word
    return {"id": id, "object": "model", "created": created, "owned_by": owner}


def _split(wanted: CompletionBody, messages: list[dict[str, Any]]) -> tuple[str | None, list[dict[str, Any]]]:
    """The system prompt and the new messages of a request in a conversation: it sends nothing that is there already."""
    system: list[str] = []
    new: list[dict[str, Any]] = []
    for index, (message, raw) in enumerate(zip(wanted.messages, messages, strict=True)):
        if message.role in {"system", "developer"}:
            system.append("\n".join(texts_of(message.content)))
        elif message.role in {"user", "tool"}:
            new.append(raw)
        else:
            raise BadRequest(
                f"messages[{index}] is an {message.role}'s: with a conversation, send only the new messages; the rest "
                "is kept here.",
                param=f"messages[{index}].role",
            )
    if len(new) > MOST_NEW_MESSAGES:
        raise BadRequest(
            f"A conversation takes {MOST_NEW_MESSAGES} new messages at once; these are {len(new):,}.",
            param="messages",
        )
    if not new:
        raise BadRequest(
            "messages has no user's or tool's message: there is nothing to answer.", param="messages"
        )
    return "\n".join(system) if system else None, new
