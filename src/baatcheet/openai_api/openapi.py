"""What the OpenAPI document says of `/v1`."""

from typing import Any

from baatcheet.chat.openapi import EVENT_STREAM, IDEMPOTENCY_HEADER, LAST_EVENT_HEADER, operation
from baatcheet.openai_api.endpoints import CompletionBody, EmbeddingsBody

ERROR_SCHEMA: dict[str, Any] = {
    "title": "OpenAIError",
    "description": "What went wrong, in OpenAI's envelope.",
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"anyOf": [{"type": "string"}, {"type": "null"}]},
                "code": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            },
        }
    },
}
_MODEL: dict[str, Any] = {
    "title": "Model",
    "type": "object",
    "required": ["id", "object", "created", "owned_by"],
    "properties": {
        "id": {"type": "string"},
        "object": {"const": "model"},
        "created": {"type": "integer"},
        "owned_by": {"type": "string"},
    },
}
_COMPLETION: dict[str, Any] = {
    "title": "ChatCompletion",
    "description": "OpenAI's `chat.completion`.",
    "type": "object",
    "required": ["id", "object", "created", "model", "choices"],
}
_EMBEDDINGS: dict[str, Any] = {"title": "Embeddings", "type": "object", "required": ["object", "data"]}


def _json(name: str, description: str, **more: Any) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}
    return {"description": description, "content": content | more}


def paths(components: dict[str, Any]) -> dict[str, Any]:
    """The path items of `/v1`; the schemas that they use are put into `components`."""
    components |= {
        "OpenAIError": ERROR_SCHEMA,
        "Model": _MODEL,
        "ChatCompletion": _COMPLETION,
        "Embeddings": _EMBEDDINGS,
        "ModelList": {
            "title": "ModelList",
            "type": "object",
            "required": ["object", "data"],
            "properties": {
                "object": {"const": "list"},
                "data": {"type": "array", "items": {"$ref": "#/components/schemas/Model"}},
            },
        },
    }
    conversation = {
        "name": "X-BaatCheet-Conversation",
        "in": "header",
        "required": False,
        "description": "A conversation's id: only the new messages are sent, the rest is kept here. `new` opens one.",
        "schema": {"type": "string"},
    }
    made = {
        "/v1/chat/completions": {
            "post": operation(
                id="createChatCompletion",
                tag="openai",
                summary="OpenAI's chat completions",
                description="Every parameter is passed on to the provider. With `conversation` (or the header) it is "
                "stateful. Without, a request that is longer than the model's window is refused, or with "
                "`truncation: auto` sent without its oldest messages. A `file` part with an attachment's id as "
                "`file_id` brings its text, or its picture to a model that sees. Errors come in OpenAI's envelope.",
                answer=_json("ChatCompletion", "The completion; or its chunks.", **EVENT_STREAM),
                refusals=(404, 409, 502, 504),
                body=CompletionBody,
                example={"model": "auto", "messages": [{"role": "user", "content": "Hello"}]},
                parameters=(conversation, IDEMPOTENCY_HEADER, LAST_EVENT_HEADER),
                components=components,
            )
        },
        "/v1/embeddings": {
            "post": operation(
                id="createEmbeddings",
                tag="openai",
                summary="OpenAI's embeddings",
                description="Passed through to a provider that has the model.",
                answer=_json("Embeddings", "The vectors."),
                refusals=(404, 502, 504),
                body=EmbeddingsBody,
                example={"model": "openai/text-embedding-3-small", "input": "Hello"},
                components=components,
            )
        },
        "/v1/models": {
            "get": operation(
                id="listModels",
                tag="openai",
                summary="The models that can be asked",
                description="`provider/name`; the bare name works too, and goes to every provider that has it.",
                answer=_json("ModelList", "The models."),
            )
        },
        "/v1/models/{model}": {
            "get": operation(
                id="retrieveModel",
                tag="openai",
                summary="One model",
                description="By either of its names.",
                answer=_json("Model", "The model."),
                refusals=(404,),
                parameters=(
                    {
                        "name": "model",
                        "in": "path",
                        "required": True,
                        "description": "May hold slashes.",
                        "schema": {"type": "string", "minLength": 1},
                    },
                ),
            )
        },
    }
    for item in made.values():
        for one in item.values():
            for status, answer in one["responses"].items():
                if int(status) >= 400:
                    schema = {"$ref": "#/components/schemas/OpenAIError"}
                    answer["content"] = {"application/json": {"schema": schema}}
    return made
