"""Every operation of the document with no token, with a stranger's, and with one that may only read.

The operations are read from the document, so that a route which is added later is walked too.
"""

import secrets
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import text

from baatcheet.kit.ids import new_id
from baatcheet.platform.database import Database
from tests.api.test_document import document, operations
from tests.conftest import Caller, NewCaller
from tests.conversations.test_conversations import make, say

__all__ = ["document"]

MARK = f"alice-{secrets.token_hex(8)}"


async def alices_things(alice: Caller, database: Database) -> dict[str, str]:
    """One of each of alice's things, by the name of the path parameter that finds it."""
    project = (await alice.post("/api/v1/projects", json={"name": MARK, "description": MARK})).json()
    conversation = await make(alice, title=MARK, system_prompt=MARK, project_id=project["id"])
    message = await say(alice, conversation, MARK)
    token = (await alice.post("/api/v1/tokens", json={"name": MARK})).json()
    turn = new_id()
    async with database.system() as session:
        await session.execute(
            text(
                "INSERT INTO turns (id, user_id, conversation_id, input_id, reply_id, status, model, ended_at) "
                "VALUES (:id, :user, :conversation, :message, :message, 'completed', :mark, now())"
            ),
            {
                "id": turn,
                "user": alice.user_id,
                "conversation": conversation["id"],
                "message": message["id"],
                "mark": MARK,
            },
        )
    return {
        "project_id": project["id"],
        "conversation_id": conversation["id"],
        "message_id": message["id"],
        "token_id": token["id"],
        "turn_id": str(turn),
        "user_id": str(alice.user_id),
    }


def example_of(document: dict[str, Any], schema: dict[str, Any]) -> Any:
    """A value that fits: the schema's own example, else what is required, made up."""
    if "$ref" in schema:
        return example_of(document, document["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
    for given in ([schema["example"]] if "example" in schema else []) + list(schema.get("examples", [])):
        return given
    if "anyOf" in schema:
        return example_of(document, schema["anyOf"][0])
    if "enum" in schema:
        return schema["enum"][0]
    match schema.get("type"):
        case "object":
            fields = schema.get("properties", {})
            return {name: example_of(document, fields.get(name, {})) for name in schema.get("required", [])}
        case "array":
            return [example_of(document, schema.get("items", {}))]
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return True
        case _:
            return "hello"


def request_for(
    document: dict[str, Any], path: str, operation: dict[str, Any], things: dict[str, str]
) -> tuple[str, Any]:
    """The path with alice's things in it, and a body that the operation takes."""
    for parameter in operation.get("parameters", []):
        if parameter["in"] == "path":
            name = parameter["name"]
            path = path.replace("{" + name + "}", things.get(name, str(UUID(int=1))))
    content = operation.get("requestBody", {}).get("content", {})
    if not content:
        return path, None
    schema = next(iter(content.values()))["schema"]
    return path, example_of(document, schema)


def pointers(document: dict[str, Any], operation: dict[str, Any], things: dict[str, str]) -> dict[str, str]:
    """The fields of an operation's body that can name one of alice's things."""
    content = operation.get("requestBody", {}).get("content", {})
    if not content:
        return {}
    schema = next(iter(content.values()))["schema"]
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return {name: things[name] for name in schema.get("properties", {}) if name in things}


def is_open(operation: dict[str, Any]) -> bool:
    return not operation.get("security")


async def send(caller: httpx.AsyncClient, method: str, path: str, body: Any) -> httpx.Response:
    async with caller.stream(method.upper(), path, json=body, timeout=20) as answer:
        await answer.aread()
        return answer


async def snapshot(database: Database, owner: UUID) -> list[Any]:
    """All that alice has, but for what reading changes."""
    statements = [
        "SELECT to_jsonb(t)::text FROM projects t WHERE user_id = :user ORDER BY id",
        "SELECT to_jsonb(t)::text FROM conversations t WHERE user_id = :user ORDER BY id",
        "SELECT to_jsonb(t)::text FROM messages t WHERE user_id = :user ORDER BY id",
        "SELECT to_jsonb(t)::text FROM turns t WHERE user_id = :user ORDER BY id",
        "SELECT (to_jsonb(t) - 'last_used_at')::text FROM api_tokens t WHERE user_id = :user ORDER BY id",
        "SELECT to_jsonb(t)::text FROM users t WHERE id = :user",
    ]
    async with database.system() as session:
        return [(await session.scalars(text(one), {"user": owner})).all() for one in statements]


async def test_without_a_token_nothing_is_to_be_had(
    client: httpx.AsyncClient, alice: Caller, database: Database, document: dict[str, Any]
) -> None:
    things = await alices_things(alice, database)
    before = await snapshot(database, alice.user_id)
    walked = 0
    for method, path, operation in operations(document):
        where, body = request_for(document, path, operation, things)
        answer = await send(client, method, where, body)
        assert MARK not in answer.text, (method, path)
        if is_open(operation):
            assert not path.startswith(("/api/", "/v1/")), f"{path} asks for no token"
            continue
        assert answer.status_code == 401, (method, path, answer.text)
        walked += 1
    assert walked > 20
    assert await snapshot(database, alice.user_id) == before


async def test_with_a_strangers_token_nothing_of_hers_is_seen_or_changed(
    alice: Caller, bob: Caller, database: Database, document: dict[str, Any]
) -> None:
    things = await alices_things(alice, database)
    before = await snapshot(database, alice.user_id)
    for method, path, operation in operations(document):
        where, body = request_for(document, path, operation, things)
        answer = await send(bob, method, where, body)
        assert MARK not in answer.text, (method, path)
        assert answer.status_code < 500, (method, path, answer.text)
        if "{" in path and not is_open(operation):
            assert answer.status_code in {403, 404}, (method, path, answer.status_code)
        elif method == "get" and isinstance(page := _json(answer), dict) and "has_more" in page:
            owners = {row.get("user_id") for row in page["data"]} - {None}
            assert str(alice.user_id) not in owners, path
        for name, thing in pointers(document, operation, things).items():
            answer = await send(bob, method, where, body | {name: thing})
            assert MARK not in answer.text, (method, path, name)
            assert answer.status_code in {403, 404}, (method, path, name, answer.text)
    assert await snapshot(database, alice.user_id) == before


def _json(answer: httpx.Response) -> Any:
    is_json = answer.headers.get("content-type", "").startswith("application/json")
    return answer.json() if is_json else None


async def test_with_a_token_that_may_only_read_nothing_is_written(
    alice: Caller, new_caller: NewCaller, database: Database, document: dict[str, Any]
) -> None:
    things = await alices_things(alice, database)
    reader = await new_caller("reader", scopes=["read"], user_id=alice.user_id)
    before = await snapshot(database, alice.user_id)
    for method, path, operation in operations(document):
        where, body = request_for(document, path, operation, things)
        answer = await send(reader, method, where, body)
        assert answer.status_code < 500, (method, path, answer.text)
        if method != "get":
            assert answer.status_code == 403, (method, path, answer.text)
    assert await snapshot(database, alice.user_id) == before


@pytest.mark.parametrize("scope", ["write", "chat"])
async def test_with_a_token_that_may_not_read_nothing_is_read(
    alice: Caller, new_caller: NewCaller, database: Database, document: dict[str, Any], scope: str
) -> None:
    things = await alices_things(alice, database)
    blind = await new_caller("blind", scopes=[scope], user_id=alice.user_id)
    for method, path, operation in operations(document):
        if method == "get" and not is_open(operation):
            where, _ = request_for(document, path, operation, things)
            answer = await send(blind, method, where, None)
            assert answer.status_code == 403, (method, path, answer.text)
