"""The OpenAPI document: what every operation says about itself, and the page that lists them."""

from collections.abc import Mapping
from html import escape
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from baatcheet.platform.errors import (
    PROBLEM_JSON,
    BadGateway,
    BadRequest,
    Conflict,
    Forbidden,
    GatewayTimeout,
    Invalid,
    NotFound,
    Problem,
    RateLimited,
    RequestTimeout,
    ServerFault,
    TooLarge,
    Unauthenticated,
    Unavailable,
    UnsupportedMediaType,
)

Responses = dict[int | str, dict[str, Any]]

_KINDS: dict[int, type[Problem]] = {
    kind.status: kind
    for kind in (
        BadRequest, Unauthenticated, Forbidden, NotFound, RequestTimeout, Conflict, TooLarge,
        UnsupportedMediaType, Invalid, RateLimited, ServerFault, BadGateway, Unavailable, GatewayTimeout,
    )
}  # fmt: skip
_EVERYWHERE = (401, 403, 429, 500, 503)
_WITH_BODY = (400, 408, 413, 415, 422)

PROBLEM_SCHEMA: dict[str, Any] = {
    "title": "Problem",
    "description": "What went wrong (RFC 9457).",
    "type": "object",
    "required": ["type", "title", "status"],
    "properties": {
        "type": {"type": "string", "description": "Which problem: a fixed word, for programs."},
        "title": {"type": "string", "description": "The same for every problem of this type."},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What is wrong with this request."},
        "param": {"type": "string", "description": "The field or parameter that is at fault."},
        "errors": {
            "type": "array",
            "description": "Every field that is wrong, of a 422.",
            "items": {
                "type": "object",
                "required": ["field", "problem"],
                "properties": {"field": {"type": "string"}, "problem": {"type": "string"}},
            },
        },
    },
    "additionalProperties": True,
}


def problems(*statuses: int, body: bool = False) -> Responses:
    """The refusals of an operation: `statuses`, those of every operation, those of one with a body."""
    wanted = sorted({*statuses, *_EVERYWHERE, *(_WITH_BODY if body else ())})
    return {status: _refusal(_KINDS[status]) for status in wanted}


def _refusal(kind: type[Problem]) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "description": kind.title() + ".",
        "content": {
            PROBLEM_JSON: {
                "schema": {"$ref": "#/components/schemas/Problem"},
                "example": {"type": kind.type, "title": kind.title(), "status": kind.status},
            }
        },
    }
    if kind.status in {429, 503}:
        answer["headers"] = {
            "retry-after": {"description": "Seconds to wait.", "schema": {"type": "integer"}}
        }
    return answer


def created(what: str, links: Mapping[str, Mapping[str, str]] | None = None) -> Responses:
    """A 201: `links` maps an operation's id to its parameters, as runtime expressions (OpenAPI § 4.8.20)."""
    return _made(201, what, links)


def accepted(what: str, links: Mapping[str, Mapping[str, str]] | None = None) -> Responses:
    """A 202, where a job makes what was asked for: otherwise as `created`."""
    return _made(202, what, links)


def _made(status: int, what: str, links: Mapping[str, Mapping[str, str]] | None) -> Responses:
    return {
        status: {
            "description": what,
            "headers": {
                "location": {"description": "Where it is now.", "schema": {"type": "string"}},
                "idempotent-replayed": {
                    "description": "`true` when this answer was given before to the same Idempotency-Key.",
                    "schema": {"type": "string"},
                },
            },
            "links": link(links or {}),
        }
    }


def found(what: str, links: Mapping[str, Mapping[str, str]]) -> Responses:
    """A 200 with links, as `created`."""
    return {200: {"description": what, "links": link(links)}}


def link(links: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    return {name: {"operationId": name, "parameters": dict(parameters)} for name, parameters in links.items()}


def operation_id(route: Any) -> str:
    """An operation is called as its endpoint, in camel case: `list_messages` → `listMessages`."""
    first, *rest = str(route.name).split("_")
    return first + "".join(word.capitalize() for word in rest)


def document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI 3.1 document of `app`, made once."""
    if app.openapi_schema is None:
        made = get_openapi(
            title=app.title,
            version=app.version,
            openapi_version="3.1.0",
            summary=app.summary,
            description=app.description,
            routes=app.routes,
            tags=app.openapi_tags,
        )
        schemas = made.setdefault("components", {}).setdefault("schemas", {})
        schemas["Problem"] = PROBLEM_SCHEMA
        for path in made["paths"].values():
            for operation in path.values():
                _leave_out_framework_refusal(operation["responses"])
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        app.openapi_schema = made
    return app.openapi_schema


def _leave_out_framework_refusal(responses: dict[str, Any]) -> None:
    """FastAPI adds a 422 of its own to whatever takes a parameter; ours are declared where they can happen."""
    if "application/json" in responses.get("422", {}).get("content", {}):
        del responses["422"]


STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 62rem; padding: 0 1rem;
  color: #1c2430; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #d5dbe3; }
details { border: 1px solid #d5dbe3; border-radius: 6px; margin: .5rem 0; padding: .4rem .8rem; }
summary { cursor: pointer; } code { font: 14px/1.4 ui-monospace, monospace; }
.verb { display: inline-block; min-width: 4.5rem; font-weight: 700; } .dim { color: #5b6675; }
table { border-collapse: collapse; } td { padding: .15rem .8rem .15rem 0; vertical-align: top; }
@media (prefers-color-scheme: dark) {
  body { background: #14181f; color: #dfe5ee; } details, h2 { border-color: #364152; } }
"""


def page(schema: Mapping[str, Any]) -> str:
    """Every operation of an OpenAPI document, as one HTML page that loads nothing else."""
    groups: dict[str, list[str]] = {}
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            tag = (operation.get("tags") or ["other"])[0]
            groups.setdefault(tag, []).append(_operation(method, path, operation))
    sections = "".join(f"<h2>{escape(tag)}</h2>{''.join(items)}" for tag, items in groups.items())
    info = schema["info"]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(info['title'])} API</title><style>{STYLE}</style></head><body>"
        f"<h1>{escape(info['title'])} API</h1><p class=dim>version {escape(info['version'])} · "
        f'<a href="openapi.json">openapi.json</a></p><p>{escape(info.get("description", ""))}</p>{sections}'
        "</body></html>"
    )


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> str:
    parameters = "".join(
        f"<tr><td><code>{escape(one['name'])}</code><td class=dim>{escape(one['in'])}"
        f"<td>{escape(one.get('description', ''))}"
        for one in operation.get("parameters", [])
    )
    body = operation.get("requestBody", {}).get("content", {})
    schemas = ", ".join(_name(media.get("schema", {})) for media in body.values())
    taken = f"<p>Body: <code>{escape(schemas)}</code></p>" if schemas else ""
    answers = "".join(
        f"<tr><td><code>{escape(str(status))}</code><td>{escape(answer.get('description', ''))}"
        for status, answer in operation["responses"].items()
    )
    return (
        f"<details><summary><span class=verb>{escape(method.upper())}</span> <code>{escape(path)}</code> "
        f"<span class=dim>{escape(operation.get('summary', ''))}</span></summary>"
        f"<p>{escape(operation.get('description', ''))}</p>{taken}"
        f"<table>{parameters}</table><table>{answers}</table></details>"
    )


def _name(schema: Mapping[str, Any]) -> str:
    return str(schema.get("$ref", schema.get("title", "JSON"))).rpartition("/")[2]
