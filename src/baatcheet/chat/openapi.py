"""What the OpenAPI document says of the endpoints that stream: they are plain ASGI, so they say it here."""

from collections.abc import Mapping
from typing import Any

import msgspec

from baatcheet.chat.endpoints import ChatBody, EditBody, RegenerateBody
from baatcheet.platform.openapi import link, problems

_ID = {"type": "string", "format": "uuid"}
_OPTIONAL_ID = {"anyOf": [_ID, {"type": "null"}]}
_OPTIONAL_TEXT = {"anyOf": [{"type": "string"}, {"type": "null"}]}
_OPTIONAL_OBJECT = {"anyOf": [{"type": "object"}, {"type": "null"}]}
_EXAMPLE = "0190f3a2-7c1e-7d4b-9a51-3f0c2b8e6d10"

TURN_SCHEMA: dict[str, Any] = {
    "title": "ChatTurn",
    "description": "A turn: how it stands, and its reply as far as it has got.",
    "type": "object",
    "required": ["turn_id", "status"],
    "properties": {
        "turn_id": _ID,
        "conversation_id": _OPTIONAL_ID,
        "user_message_id": _OPTIONAL_ID,
        "message_id": _OPTIONAL_ID,
        "title": _OPTIONAL_TEXT,
        "status": {"enum": ["running", "completed", "failed", "cancelled", "interrupted"]},
        "model": _OPTIONAL_TEXT,
        "message": {**_OPTIONAL_OBJECT, "description": "The reply in OpenAI's form, with its id."},
        "finish_reason": _OPTIONAL_TEXT,
        "usage": _OPTIONAL_OBJECT,
        "error": _OPTIONAL_OBJECT,
    },
}

IDEMPOTENCY_HEADER: dict[str, Any] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "The same key and body again join the same turn, for 24 hours; it is never paid for twice.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
}
LAST_EVENT_HEADER: dict[str, Any] = {
    "name": "Last-Event-ID",
    "in": "header",
    "required": False,
    "description": "The number of the last event that was received: what came after it is sent.",
    "schema": {"type": "string", "pattern": "^[0-9]{1,12}$"},
}
EVENT_STREAM: dict[str, Any] = {
    "text/event-stream": {
        "schema": {
            "type": "object",
            "description": "A server-sent event.",
            "required": ["data"],
            "properties": {
                "id": {"type": "string", "description": "Its number."},
                "event": {"type": "string", "description": "Its kind, on BaatCheet's own surface."},
                "data": {"type": "string", "description": "JSON; OpenAI's surface ends with [DONE]."},
            },
        }
    }
}
_TURN_LINKS = {
    "getTurn": {"turn_id": "$response.body#/turn_id"},
    "cancelTurn": {"turn_id": "$response.body#/turn_id"},
    "getConversation": {"conversation_id": "$response.body#/conversation_id"},
}


def operation(
    *,
    id: str,  # noqa: A002 - OpenAPI's own word
    tag: str,
    summary: str,
    description: str,
    answer: Mapping[str, Any],
    refusals: tuple[int, ...] = (),
    body: type[msgspec.Struct] | None = None,
    example: Mapping[str, Any] | None = None,
    parameters: tuple[Mapping[str, Any], ...] = (),
    components: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """One operation object. The schema of `body` is put into `components`."""
    made: dict[str, Any] = {
        "operationId": id,
        "tags": [tag],
        "summary": summary,
        "description": description,
        "security": [{"bearer": []}],
        "responses": {
            str(status): dict(said)
            for status, said in {200: answer, **problems(*refusals, body=body is not None)}.items()
        },
    }
    if parameters:
        made["parameters"] = [dict(parameter) for parameter in parameters]
    if body is not None:
        (schema,), found = msgspec.json.schema_components((body,), ref_template="#/components/schemas/{name}")
        if components is not None:
            components.update(found)
        media: dict[str, Any] = {"schema": schema}
        if example is not None:
            media["example"] = dict(example)
        made["requestBody"] = {"required": True, "content": {"application/json": media}}
    return made


def turn_answer(description: str) -> dict[str, Any]:
    return {
        "description": description,
        "headers": {
            "x-baatcheet-turn": {"description": "The turn's id.", "schema": {"type": "string"}},
            "x-baatcheet-conversation": {
                "description": "The conversation's id.",
                "schema": {"type": "string"},
            },
        },
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/ChatTurn"}},
            **EVENT_STREAM,
        },
        "links": link(_TURN_LINKS),
    }


def paths(components: dict[str, Any]) -> dict[str, Any]:
    """The path items of the native chat; the schemas that they use are put into `components`."""
    components["ChatTurn"] = TURN_SCHEMA
    refusals = (404, 409, 422, 502, 504)
    return {
        "/api/v1/chat/completions": {
            "post": operation(
                id="createChatTurn",
                tag="chat",
                summary="Say something, and get a reply",
                description="Without `conversation_id` a conversation is opened and titled. With `stream` the reply "
                "comes as server-sent events: `turn.started`, `message.delta` …, `turn.completed` (or failed, "
                "cancelled, interrupted). The turn goes on when the client leaves. `attachments` bring their text, and "
                "to a model that sees their pictures; one that is still being read is waited for a while.",
                answer=turn_answer("The turn, ended; or its events."),
                refusals=refusals,
                body=ChatBody,
                example={"message": "What is a turn?"},
                parameters=(IDEMPOTENCY_HEADER, LAST_EVENT_HEADER),
                components=components,
            )
        },
        "/api/v1/chat/regenerate": {
            "post": operation(
                id="regenerateReply",
                tag="chat",
                summary="Ask for another reply, as a new branch",
                description="To a message (`message_id`), or to the newest of a conversation (`conversation_id`).",
                answer=turn_answer("The turn, ended; or its events."),
                refusals=refusals,
                body=RegenerateBody,
                example={"conversation_id": _EXAMPLE},
                parameters=(IDEMPOTENCY_HEADER, LAST_EVENT_HEADER),
                components=components,
            )
        },
        "/api/v1/chat/edit": {
            "post": operation(
                id="editMessage",
                tag="chat",
                summary="Say a message differently, as a new branch",
                description="The message stays as it was; its new wording stands beside it and is answered.",
                answer=turn_answer("The turn, ended; or its events."),
                refusals=refusals,
                body=EditBody,
                example={"message_id": _EXAMPLE, "message": "What is a conversation?"},
                parameters=(IDEMPOTENCY_HEADER, LAST_EVENT_HEADER),
                components=components,
            )
        },
        "/api/v1/turns/{turn_id}/events": {
            "get": operation(
                id="followTurn",
                tag="chat",
                summary="Replay and follow a turn's events",
                description="From the beginning, or from after `Last-Event-ID`; from any API process.",
                answer={"description": "The events.", "content": EVENT_STREAM},
                refusals=(400, 404),
                parameters=(
                    {"name": "turn_id", "in": "path", "required": True, "schema": _ID},
                    LAST_EVENT_HEADER,
                ),
            )
        },
    }
