"""Every operation of the document with no token, with a stranger's, and with one that may only read.

The operations are read from the document, so that a route which is added later is walked too.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

from baatcheet.platform.blobs import FolderBlobs
from baatcheet.platform.database import Database
from tests.api.test_document import document, operations
from tests.api.things import MARK, files_of, one_of_each, snapshot
from tests.conftest import Caller, NewCaller, RunningServer
from tests.conversations.test_conversations import make, say

__all__ = ["document"]

# What a path calls by a name that is everybody's.
WORDS = {"name": "ocr", "kind": "export.completed", "number": "1"}
# What would not end by itself.
QUERIES = {"getUsageReport": "?group_by=model", "search": "?q=alice", "followEvents": "?after=0&seconds=0"}
# A body's lists of her things.
LISTS = {"attachments": "attachment_id", "attachment_ids": "attachment_id"}
# What only an administrator may do, whoever's it is.
ADMINISTRATORS = frozenset(
    {
        "createUser", "listUsers", "getUser", "updateUser", "redriveJobs", "discardJobs", "listQueues",
        "updateQueue", "listWorkers", "listSchedules", "updateSchedule", "listKeys", "getKey",
        "restKey", "quarantineKey", "restoreKey", "checkKey", "refreshKeys", "createKeyRotation", "listKeyRotations",
        "getKeyRotation", "listAuditEntries", "setRoute", "deleteRoute",
        "deleteUser", "listDeletions", "getDeletion",
        "getUserUsage", "getUserLimits", "setUserLimits", "getTokenLimits", "setTokenLimits",
    }
)  # fmt: skip
# What tells nothing of hers: her turn had no context, and the rest is nobody's own.
UNTOLD = frozenset(
    {
        "getMe",
        "getTurnContext",
        "listNotificationPreferences",
        "listModels",
        "retrieveModel",
        "listOcrEngines",
        "listRoutes",
        "getRoute",
    }
)


@pytest.fixture
def files(server: RunningServer) -> Path:
    return files_of(server)


@pytest.fixture
async def things(alice: Caller, database: Database, files: Path) -> dict[str, str]:
    return await one_of_each(alice, database, FolderBlobs(files))


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


def parameters(operation: dict[str, Any], where: str) -> list[str]:
    return [one["name"] for one in operation.get("parameters", []) if one["in"] == where]


def address(path: str, operation: dict[str, Any], things: dict[str, str]) -> str:
    """The path with alice's things in it."""
    for name in parameters(operation, "path"):
        path = path.replace("{" + name + "}", things.get(name) or WORDS.get(name, str(UUID(int=1))))
    return path + QUERIES.get(operation["operationId"], "")


def is_hers(operation: dict[str, Any], things: dict[str, str]) -> bool:
    """Whether the path names one of alice's things."""
    return any(name in things for name in parameters(operation, "path"))


def bodies(document: dict[str, Any], operation: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A body that the operation takes, in each form that it may have, as httpx sends it; {} where it takes none."""
    content = operation.get("requestBody", {}).get("content", {})
    if not content:
        yield {}
    file: bytes = b"hello"
    for media_type, media in content.items():
        if media_type == "multipart/form-data":
            yield {"files": {"file": ("hello.txt", file)}}
        else:
            example = example_of(document, media["schema"])
            file = json.dumps(example).encode()
            yield {"json": example}


def pointers(
    document: dict[str, Any], operation: dict[str, Any], things: dict[str, str]
) -> Iterator[tuple[str, Any]]:
    """The fields of an operation's JSON that can name one of alice's things, each with what it then says."""
    content = operation.get("requestBody", {}).get("content", {})
    schema = content.get("application/json", {}).get("schema", {})
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    for name in schema.get("properties", {}):
        if name in things:
            yield name, things[name]
        elif LISTS.get(name) in things:
            yield name, [things[LISTS[name]]]


def is_open(operation: dict[str, Any]) -> bool:
    return not operation.get("security")


async def send(caller: httpx.AsyncClient, method: str, path: str, **body: Any) -> httpx.Response:
    async with caller.stream(method.upper(), path, timeout=20, **body) as answer:
        await answer.aread()
        return answer


async def test_without_a_token_nothing_is_to_be_had(
    client: httpx.AsyncClient,
    alice: Caller,
    things: dict[str, str],
    database: Database,
    files: Path,
    document: dict[str, Any],
) -> None:
    before = await snapshot(database, files, alice.user_id)
    walked = 0
    for method, path, operation in operations(document):
        for body in bodies(document, operation):
            answer = await send(client, method, address(path, operation, things), **body)
            assert MARK not in answer.text, (method, path)
            if is_open(operation):
                assert not path.startswith(("/api/", "/v1/")), f"{path} asks for no token"
                assert not is_hers(operation, things) or answer.status_code == 403, path
                continue
            assert answer.status_code == 401, (method, path, answer.text)
            walked += 1
    assert walked > 90
    assert await snapshot(database, files, alice.user_id) == before


async def test_with_a_strangers_token_nothing_of_hers_is_seen_or_changed(
    alice: Caller,
    bob: Caller,
    things: dict[str, str],
    database: Database,
    files: Path,
    document: dict[str, Any],
) -> None:
    before = await snapshot(database, files, alice.user_id)
    his = {"message_id": (await say(bob, await make(bob), "hello"))["id"]}
    for method, path, operation in operations(document):
        where = address(path, operation, things)
        for body in bodies(document, operation):
            if "json" in body:  # what a body must name is his, so that it is refused for what is hers alone
                body["json"] |= {name: his[name] for name in body["json"] if name in his}
            answer = await send(bob, method, where, **body)
            assert MARK not in answer.text, (method, path)
            assert answer.status_code < 500, (method, path, answer.text)
            if operation["operationId"] in ADMINISTRATORS:
                assert answer.status_code == 403, (method, path, answer.text)
            elif is_hers(operation, things):
                assert answer.status_code in {403, 404}, (method, path, answer.status_code)
            elif method == "get" and isinstance(page := _json(answer), dict) and "has_more" in page:
                owners = {row.get("user_id") for row in page["data"]} - {None}
                assert str(alice.user_id) not in owners, path
            for name in set(parameters(operation, "query")) & set(things):
                asked = f"{where}{'&' if '?' in where else '?'}{name}={things[name]}"
                answer = await send(bob, method, asked, **body)
                assert MARK not in answer.text, (method, path, name)
                nothing = method == "get" and answer.json().get("data") == []
                assert nothing or answer.status_code in {403, 404}, (method, path, name, answer.text)
            for name, thing in pointers(document, operation, things) if "json" in body else ():
                answer = await send(bob, method, where, json=body["json"] | {name: thing})
                assert MARK not in answer.text, (method, path, name)
                assert answer.status_code in {403, 404}, (method, path, name, answer.text)
    assert await snapshot(database, files, alice.user_id) == before


def _json(answer: httpx.Response) -> Any:
    is_json = answer.headers.get("content-type", "").startswith("application/json")
    return answer.json() if is_json else None


async def test_she_herself_sees_each_of_her_things(
    alice: Caller, things: dict[str, str], document: dict[str, Any]
) -> None:
    """Else there would be nothing for a stranger to miss."""
    for method, path, operation in operations(document):
        operation_id = operation["operationId"]
        if method == "get" and not is_open(operation) and operation_id not in ADMINISTRATORS | UNTOLD:
            answer = await send(alice, method, address(path, operation, things))
            assert answer.status_code == 200, (path, answer.text)
            assert MARK in answer.text, (path, answer.text)


async def test_with_a_token_that_may_only_read_nothing_is_written(
    alice: Caller,
    new_caller: NewCaller,
    things: dict[str, str],
    database: Database,
    files: Path,
    document: dict[str, Any],
) -> None:
    reader = await new_caller("reader", scopes=["read"], user_id=alice.user_id)
    before = await snapshot(database, files, alice.user_id)
    for method, path, operation in operations(document):
        for body in bodies(document, operation):
            answer = await send(reader, method, address(path, operation, things), **body)
            assert answer.status_code < 500, (method, path, answer.text)
            if method != "get" or operation["operationId"] in ADMINISTRATORS:
                assert answer.status_code == 403, (method, path, answer.text)
    assert await snapshot(database, files, alice.user_id) == before


@pytest.mark.parametrize("scope", ["write", "chat"])
async def test_with_a_token_that_may_not_read_nothing_is_read(
    alice: Caller, new_caller: NewCaller, things: dict[str, str], document: dict[str, Any], scope: str
) -> None:
    blind = await new_caller("blind", scopes=[scope], user_id=alice.user_id)
    for method, path, operation in operations(document):
        if method == "get" and not is_open(operation):
            answer = await send(blind, method, address(path, operation, things))
            assert answer.status_code == 403, (method, path, answer.text)


@pytest.mark.parametrize("text", ["%00", "%7F%0A", "%ED%A0%80", "%F0%9F%90%88" * 25])
async def test_no_text_in_a_query_or_a_path_is_a_fault_of_ours(
    admin: Caller, things: dict[str, str], document: dict[str, Any], text: str
) -> None:
    walked = 0
    for method, path, operation in operations(document):
        body = next(bodies(document, operation))
        for name in parameters(operation, "query"):
            where = address(path, operation, things)
            where += f"{'&' if '?' in where else '?'}{name}={text}"
            answer = await send(admin, method, where, **body)
            assert answer.status_code < 500, (method, path, name, answer.text)
            walked += 1
        for name in parameters(operation, "path"):
            where = address(path.replace("{" + name + "}", text), operation, things)
            answer = await send(admin, method, where, **body)
            assert answer.status_code < 500, (method, path, name, answer.text)
            walked += 1
    assert walked > 100
